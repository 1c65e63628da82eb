/* SPDX-License-Identifier: MIT */
/* Which machine a saved state belongs to. */
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/suspend.h>

#define CPUINFO_MAX_BYTES (4U << 20)

/* Options of which the guest sees nothing: names, sockets, logs, how QEMU is confined. The network's backend holds the
 * forwards, which are no part of a saved state. */
static const char *const ignored[] = {"-name", "-msg",    "-chardev", "-mon",     "-pidfile", "-sandbox",
                                      "-S",    "-netdev", "-action",  "-display", NULL};

/* Size and time of a file say whether it is still the one that the guest has read from. */
static void push_file(struct strv *v, const char *option, const char *what, const char *path) {
        struct stat st;
        if (stat(path, &st) < 0)
                strv_pushf(v, "%s %s: missing", option, what);
        else
                strv_pushf(v, "%s %s: %lld bytes of %lld.%09ld", option, what, (long long)st.st_size,
                           (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* The path at the end of an option's value, without the doubled commas; the caller frees. */
static char *unescape(const char *escaped) {
        char *path = xstrdup(escaped), *to = path;
        for (const char *from = escaped; *from; from++) {
                *to++ = *from;
                if (from[0] == ',' && from[1] == ',')
                        from++;
        }
        *to = '\0';
        return path;
}

static void push_option(struct strv *v, const char *option, const char *value) {
        if (str_eq(option, "-kernel") || str_eq(option, "-initrd")) {
                push_file(v, option, value, value);
                return;
        }
        const char *key = str_eq(option, "-blockdev") ? ",file.filename=" : str_eq(option, "-fw_cfg") ? ",file=" : NULL;
        const char *at = key ? strstr(value, key) : NULL;
        if (!at) {
                strv_pushf(v, "%s %s", option, value);
                return;
        }
        _cleanup_free_ char *what = xstrndup(value, (size_t)(at - value)), *path = unescape(at + strlen(key));
        /* The VM's own disk is known by the snapshot in it. */
        if (str_eq(option, "-blockdev") && !strstr(what, "read-only=on"))
                strv_pushf(v, "%s %s", option, what);
        else
                push_file(v, option, what, path);
}

/* `-cpu host` is another processor on another host. */
static void push_processor(struct strv *v) {
        _cleanup_buf_ struct buf text = BUF_INIT(CPUINFO_MAX_BYTES + 1);
        _cleanup_strv_ struct strv lines = {0};
        if (fs_read("/proc/cpuinfo", CPUINFO_MAX_BYTES, &text, NULL) < 0)
                return;
        strv_split(&lines, buf_str(&text), "\n");
        for (size_t i = 0; i < lines.len && !str_starts(lines.items[i], "power management"); i++)
                if (str_starts(lines.items[i], "model name") || str_starts(lines.items[i], "flags"))
                        strv_pushf(v, "processor %s", lines.items[i]);
}

void suspend_machine(const struct strv *argv, const char *qemu_version, struct strv *ret) {
        strv_pushf(ret, "QEMU %s", qemu_version);
        bool kvm = false;
        for (size_t i = 1; i < argv->len; i++) {
                const char *option = argv->items[i];
                bool has_value = i + 1 < argv->len && argv->items[i + 1][0] != '-';
                const char *value = has_value ? argv->items[++i] : "";
                kvm = kvm || (str_eq(option, "-accel") && str_starts(value, "kvm"));
                if (!str_is_one_of(option, ignored))
                        push_option(ret, option, value);
        }
        if (kvm)
                push_processor(ret);
}

/* What a line is about, for people. */
static const char *topic(const char *line) {
        static const struct {
                const char *start, *text;
        } topics[] = {{"QEMU ", "QEMU"},
                      {"-machine ", "the machine type"},
                      {"-accel ", "the acceleration"},
                      {"-cpu ", "the processor model"},
                      {"-smp ", "the number of CPUs"},
                      {"-m ", "the memory size in MiB"},
                      {"-kernel ", "the guest's kernel"},
                      {"-initrd ", "the guest's kernel"},
                      {"-append ", "the guest's name or name server"},
                      {"-blockdev driver=raw,node-name=seed", "what cloud-init is given"},
                      {"-blockdev ", "a read-only disk of the guest"},
                      {"-fw_cfg ", "K3S_ARGS, REGISTRY_MIRRORS or a key"},
                      {"processor ", "the host's processor"}};
        for (size_t i = 0; i < ELEMENTSOF(topics); i++)
                if (str_starts(line, topics[i].start))
                        return topics[i].text;
        return "the VM's hardware";
}

char *suspend_difference(const struct strv *then, const struct strv *now) {
        for (size_t i = 0; i < then->len || i < now->len; i++) {
                const char *a = i < then->len ? then->items[i] : "", *b = i < now->len ? now->items[i] : "";
                if (str_eq(a, b))
                        continue;
                const char *text = topic(*a ? a : b);
                /* Values that mean something to whoever changed them. */
                static const char *const shown[] = {"QEMU ", "-smp ", "-m "};
                for (size_t k = 0; k < ELEMENTSOF(shown); k++)
                        if (str_starts(a, shown[k]) && str_starts(b, shown[k]))
                                return xasprintf("%s was %s and is %s now", text, a + strlen(shown[k]),
                                                 b + strlen(shown[k]));
                return xasprintf("%s changed", text);
        }
        return NULL;
}
