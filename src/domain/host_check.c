/* SPDX-License-Identifier: MIT */
/*
 * What is looked at before a VM is made or started, and by `doctor`. Each check looks at one thing and adds at
 * most a line or two; a start runs those that are marked for it, without starting any tool.
 */
#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/guest_cloud.h>
#include <k3s-vm/guest_nixos.h>
#include <k3s-vm/host.h>
#include <k3s-vm/ports.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/state.h>

#define QEMU_OVERHEAD_MIB 512 /* QEMU's own memory beside the guest's */
#define QEMU_MAJOR_MIN 6      /* snapshot jobs, -action, JSON for -device */
#define NIX_MINOR_MIN 4       /* of version 2: flakes */
#define BUILD_BYTES (6ULL << 30)
#define RUN_BYTES (1ULL << 30) /* what a cluster writes in its first minutes */

/* What the checks look at, gathered once. */
struct survey {
        const struct project *project;
        const struct config *config; /* NULL: it is wrong, and a check has said so */
        struct host *host;
        struct state *state; /* NULL: no VM */
        bool vm_runs;
        bool quick; /* for a start: no tool is run */
        struct checks *checks;
};

void checks_clear(struct checks *c) {
        for (size_t i = 0; i < c->n; i++) {
                free(c->items[i].name);
                free(c->items[i].text);
                free(c->items[i].fix);
        }
        free(c->items);
        *c = (struct checks){0};
}

/* Takes @text and @fix (may be NULL) over. */
static void add(struct survey *s, const char *name, int result, char *text, char *fix) {
        struct checks *c = s->checks;
        c->items = xreallocarray(c->items, c->n + 1, sizeof(*c->items));
        struct check *item = &c->items[c->n++];
        *item = (struct check){.name = xstrdup(name), .text = text, .fix = fix};
        item->result = result;
}

static char *printable(const char *s) {
        return str_printable(s, strlen(s));
}

static void check_os(struct survey *s) {
        bool known = s->host->family != HOST_UNKNOWN;
        add(s, "system", CHECK_OK,
            xasprintf("%s%s", s->host->pretty_name, known ? "" : " (its package manager is not known here)"), NULL);
}

static void check_config(struct survey *s) {
        const struct config *c = s->config;
        _cleanup_free_ char *path = printable(s->project->config_path);
        if (!c)
                return;
        if (c->unknown_keys.len > 0) {
                _cleanup_free_ char *names = strv_join(&c->unknown_keys, ", ");
                add(s, "config", CHECK_WARNING, xasprintf("%s has keys that mean nothing here: %s", path, names),
                    xstrdup("k3s-vm configure lists the keys there are"));
        } else
                add(s, "config", CHECK_OK,
                    xasprintf("%s%s", path, fs_exists(s->project->config_path) ? "" : " (none: defaults)"), NULL);
}

static void check_cpu(struct survey *s) {
        unsigned have = s->host->cpus;
        if (s->config && s->config->cpus > have)
                add(s, "cpu", CHECK_WARNING,
                    xasprintf("the VM has %u processors and this machine %u", s->config->cpus, have),
                    xasprintf("k3s-vm configure VM_CPUS=%u", have));
        else
                add(s, "cpu", CHECK_OK, xasprintf("%u", have), NULL);
}

static void check_memory(struct survey *s) {
        const struct host *h = s->host;
        _cleanup_free_ char *have = xasprintf("%llu MiB available of %llu", (unsigned long long)h->available_mib,
                                              (unsigned long long)h->memory_mib);
        unsigned need = s->config ? s->config->memory_mib + QEMU_OVERHEAD_MIB : 0;
        if (!s->config || s->vm_runs || h->memory_mib == 0 || h->available_mib >= need) {
                add(s, "memory", CHECK_OK, TAKE_PTR(have), NULL);
                return;
        }
        /* What fits, in steps a person would choose, as long as a cluster runs in it. */
        uint64_t fits = h->available_mib > QEMU_OVERHEAD_MIB ? (h->available_mib - QEMU_OVERHEAD_MIB) / 256 * 256 : 0;
        char *fix = fits >= 2048 ? xasprintf("close other programs, or k3s-vm configure VM_MEMORY=%llu",
                                             (unsigned long long)fits)
                                 : xstrdup("close other programs: a cluster needs 2048 MiB and QEMU 512 beside them");
        /* More than the machine has at all: it would only swap. */
        add(s, "memory", s->config->memory_mib >= h->memory_mib ? CHECK_FAILED : CHECK_WARNING,
            xasprintf("%s; the VM needs %u (VM_MEMORY and QEMU itself)", have, need), fix);
}

static void check_kvm(struct survey *s) {
        const char *wanted = s->config ? s->config->accel : "auto";
        if (s->quick && !str_eq(wanted, "kvm"))
                return; /* the launch chooses, and says what */
        if (str_eq(wanted, "tcg")) {
                add(s, "kvm", CHECK_OK, xstrdup("not used: ACCEL is tcg"), NULL);
                return;
        }
        _cleanup_accel_ struct accel a = {0};
        accel_choose("auto", s->quick ? s->project->runtime_base : NULL, &a, NULL);
        if (a.kvm)
                add(s, "kvm", CHECK_OK, xstrdup("runs guest code"), NULL);
        else if (str_eq(wanted, "kvm"))
                add(s, "kvm", CHECK_FAILED, xasprintf("ACCEL is kvm, but %s", a.problem),
                    a.fix ? xstrdup(a.fix) : xstrdup("k3s-vm configure ACCEL=auto"));
        else
                add(s, "kvm", CHECK_WARNING,
                    xasprintf("%s; QEMU translates the guest's code, which is slower", a.problem), xstrdup(a.fix));
}

static void add_missing(struct survey *s, const char *name, const char *tool, const char *what_for) {
        add(s, name, CHECK_FAILED,
            xasprintf("%s is not installed (or not executable); it is needed for %s", tool, what_for),
            host_install_command(s->host, tool));
}

/* What @path --version says behind the first @before. False: a line says why not. */
static bool tool_version(struct survey *s, const char *name, const char *path, const char *before, unsigned *ret_major,
                         unsigned *ret_minor) {
        _cleanup_buf_ struct buf out = BUF_INIT(64U * 1024), tail = BUF_INIT(64U * 1024);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){path, "--version", NULL};
        run.ret_stdout = &out;
        run.ret_tail = &tail;
        run.timeout_ms = 10000;
        struct proc_result result;
        _cleanup_error_ struct error err = ERROR_INIT;
        char *fix = host_install_command(s->host, path_base(path));
        if (proc_run(&run, &result, &err) < 0)
                add(s, name, CHECK_FAILED, xstrdup(err.message), fix);
        else if (result.exit_status != 0) {
                _cleanup_free_ char *how = proc_result_string(&result), *said = printable(buf_str(&tail));
                add(s, name, CHECK_FAILED, xasprintf("%s %s: %s", path, how, said), fix);
        } else {
                free(fix);
                const char *p = strstr(buf_str(&out), before);
                if (p && sscanf(p + strlen(before), "%u.%u", ret_major, ret_minor) == 2)
                        return true;
                add(s, name, CHECK_WARNING, xasprintf("%s does not tell its version", path), NULL);
        }
        return false;
}

static void check_qemu(struct survey *s) {
        static const char tool[] = "qemu-system-x86_64";
        _cleanup_free_ char *path = fs_find_program(tool);
        if (!path) {
                add_missing(s, "qemu", tool, "every VM");
                return;
        }
        unsigned major, minor;
        if (s->quick)
                return;
        if (!tool_version(s, "qemu", path, "version ", &major, &minor))
                return;
        if (major < QEMU_MAJOR_MIN)
                add(s, "qemu", CHECK_FAILED,
                    xasprintf("%s is version %u.%u; 6.0 or later is needed", path, major, minor),
                    xasprintf("a newer release of %s, or: nix-shell -p qemu_kvm", s->host->pretty_name));
        else
                add(s, "qemu", CHECK_OK, xasprintf("%s, version %u.%u", path, major, minor), NULL);
}

static void check_qemu_img(struct survey *s) {
        _cleanup_free_ char *path = fs_find_program("qemu-img");
        if (!path)
                add_missing(s, "qemu-img", "qemu-img", "the VM's disk");
        else
                add(s, "qemu-img", CHECK_OK, TAKE_PTR(path), NULL);
}

/* Whether @folder of the cache holds a whole result of a build, CACHE/FOLDER/KEY/FILE. */
static bool is_cached(const struct survey *s, const char *folder, const char *file) {
        _cleanup_free_ char *path = path_join(s->project->cache_dir, folder);
        _cleanup_closedir_ DIR *dir = opendir(path);
        struct dirent *d;
        while (dir && (d = readdir(dir))) {
                _cleanup_free_ char *whole = path_join(path, d->d_name, file);
                if (d->d_name[0] != '.' && fs_exists(whole))
                        return true;
        }
        return false;
}

static bool has_guest(const struct survey *s) {
        _cleanup_free_ char *json =
                        s->state && s->state->guest_dir ? path_join(s->state->guest_dir, "guest.json") : NULL;
        return (json && fs_exists(json)) || is_cached(s, "guests", "guest.json");
}

/* One line for a set of tools of which every one is needed. */
static void check_tools(struct survey *s, const char *name, const char *const *tools, int result_when_missing,
                        const char *what_for) {
        _cleanup_strv_ struct strv missing = {0};
        for (const char *const *t = tools; *t; t++) {
                _cleanup_free_ char *path = fs_find_program(*t);
                if (!path)
                        strv_push(&missing, *t);
        }
        if (missing.len == 0) {
                add(s, name, CHECK_OK, xasprintf("there is all that %s needs", what_for), NULL);
                return;
        }
        _cleanup_free_ char *list = strv_join(&missing, ", ");
        add(s, name, result_when_missing, xasprintf("%s needs what is not installed: %s", what_for, list),
            host_install_tools(s->host, (const char *const *)missing.items));
}

/* The flags that flakes need are given with each call, so it does not matter whether they are switched on. */
static void check_nix(struct survey *s, bool cached) {
        _cleanup_free_ char *path = fs_find_program("nix"), *link = path_join(s->project->vm_dir, "result/guest.json");
        unsigned major, minor;
        if (guest_nixos_made(s->project) && !fs_exists(link))
                add(s, "guest", CHECK_WARNING, xstrdup("the NixOS guest was collected as garbage"),
                    xstrdup("k3s-vm start builds it again"));
        if (!path)
                check_tools(s, "guest-tools", (const char *const[]){"nix", NULL}, cached ? CHECK_WARNING : CHECK_FAILED,
                            "building the NixOS guest");
        else if (!s->quick && tool_version(s, "nix", path, ") ", &major, &minor)) {
                bool old = major < 2 || (major == 2 && minor < NIX_MINOR_MIN);
                add(s, "nix", old ? CHECK_FAILED : CHECK_OK,
                    xasprintf("%s, version %u.%u%s", path, major, minor, old ? "; flakes need 2.4 or later" : ""),
                    old ? xstrdup("in configuration.nix: nix.package = pkgs.nixVersions.latest;") : NULL);
        }
}

static void check_guest_tools(struct survey *s) {
        static const char *const debian[] = {"apt-get", "dpkg-deb", "mmdebstrap", "mkfs.erofs", "cpio",
                                             "lz4",     "xz",       "zstd",       NULL};
        const char *flavor = s->config ? s->config->flavor : "auto";
        if (strchr(flavor, '/'))
                return;
        if (s->config && guest_is_cloud(s->config)) {
                add(s, "guest-tools", CHECK_OK, xasprintf("the guest is the cloud image %s", s->config->image), NULL);
                return;
        }
        bool cached = has_guest(s), nixos = s->config && guest_nixos_wanted(s->config);
        if (nixos)
                check_nix(s, cached && guest_nixos_made(s->project));
        else if (!s->quick || !cached)
                check_tools(s, "guest-tools", debian, cached ? CHECK_WARNING : CHECK_FAILED,
                            "building the Debian guest");
}

static void check_payload_tools(struct survey *s) {
        static const char *const tools[] = {"go", "apt-get", "dpkg-source", NULL};
        bool asked_for = s->config && str_eq(s->config->k3s_version, "offline");
        bool has_one = (s->state && s->state->payload_path && fs_exists(s->state->payload_path)) ||
                       is_cached(s, "payloads", "payload.json");
        if (has_one || (s->quick && !asked_for))
                return;
        check_tools(s, "payload-tools", tools, asked_for ? CHECK_FAILED : CHECK_WARNING,
                    asked_for ? "building the offline Kubernetes"
                              : "building the offline Kubernetes (where no K3s release can be reached)");
}

static bool read_flag(const char *path, long *ret) {
        _cleanup_buf_ struct buf text = BUF_INIT(64);
        return fs_read(path, 63, &text, NULL) == 0 && sscanf(buf_str(&text), "%ld", ret) == 1;
}

/* The Debian guest's builder uses them where it can and has another way where it cannot. */
static void check_namespaces(struct survey *s) {
        long value;
        const char *off = NULL;
        if (geteuid() == 0)
                return;
        if (read_flag("/proc/sys/user/max_user_namespaces", &value) && value == 0)
                off = "user.max_user_namespaces is 0";
        else if (read_flag("/proc/sys/kernel/unprivileged_userns_clone", &value) && value == 0)
                off = "kernel.unprivileged_userns_clone is 0";
        else if (read_flag("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", &value) && value == 1)
                off = "AppArmor restricts them";
        add(s, "namespaces", CHECK_OK,
            off ? xasprintf("no unprivileged user namespaces (%s); guests are built without them", off)
                : xstrdup("unprivileged user namespaces"),
            NULL);
}

static void check_ssh(struct survey *s) {
        _cleanup_free_ char *path = fs_find_program("ssh");
        if (path)
                add(s, "ssh", CHECK_OK, TAKE_PTR(path), NULL);
        else
                add(s, "ssh", CHECK_WARNING, xstrdup("OpenSSH is not installed; `k3s-vm ssh` does without it"),
                    host_install_command(s->host, "ssh"));
}

static void check_kubectl(struct survey *s) {
        _cleanup_free_ char *path = fs_find_program("kubectl");
        add(s, "kubectl", CHECK_OK, path ? TAKE_PTR(path) : xstrdup("not installed; the VM's own is used"), NULL);
}

static void check_room(struct survey *s, const char *name, const char *folder, uint64_t need, const char *what_for,
                       const char *fix) {
        uint64_t have;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (fs_free_bytes(folder, &have, &err) < 0) {
                add(s, name, CHECK_WARNING, xstrdup(err.message), NULL);
                return;
        }
        _cleanup_free_ char *have_text = str_bytes(have), *shown = printable(folder);
        if (have >= need) {
                add(s, name, CHECK_OK, xasprintf("%s free in %s", have_text, shown), NULL);
                return;
        }
        _cleanup_free_ char *need_text = str_bytes(need);
        add(s, name, CHECK_FAILED, xasprintf("%s free in %s; %s needs %s", have_text, shown, what_for, need_text),
            xstrdup(fix));
}

static void check_disk(struct survey *s) {
        check_room(s, "disk", s->project->root, RUN_BYTES, "a running VM", "make room on the project's file system");
        struct check *last = &s->checks->items[s->checks->n - 1];
        uint64_t have, whole = s->config ? (uint64_t)s->config->disk_gib << 30 : 0;
        int64_t used = fs_allocated(s->project->data_disk);
        if (s->quick || last->result != CHECK_OK || fs_free_bytes(s->project->root, &have, NULL) < 0 ||
            have + (used > 0 ? (uint64_t)used : 0) >= whole)
                return;
        /* Sparse: no trouble until it fills up, and then the VM is paused rather than damaged. */
        char *text = xasprintf("%s, less than VM_DISK (%u GiB), which grows as it is used", last->text,
                               s->config->disk_gib);
        free(last->text);
        last->text = text;
        last->result = CHECK_WARNING;
}

/* Whether both guest and Kubernetes are given, as a folder and as a program or not at all. */
static bool all_is_given(const struct survey *s) {
        const struct config *c = s->config;
        return c && strchr(c->flavor, '/') && (strchr(c->k3s_version, '/') || str_eq(c->k3s_version, "none"));
}

static void check_cache(struct survey *s) {
        if (has_guest(s) || all_is_given(s))
                check_room(s, "cache", s->project->cache_dir, 0, "", NULL);
        else
                check_room(s, "cache", s->project->cache_dir, BUILD_BYTES, "the first build",
                           "make room there, or set XDG_CACHE_HOME to a folder on a larger disk");
}

/* The nearest existing folder at or above @path can be written. */
static bool can_create(const char *path) {
        _cleanup_free_ char *at = xstrdup(path);
        while (!fs_exists(at) && !str_eq(at, "/") && !str_eq(at, ".")) {
                char *parent = path_parent(at);
                free(at);
                at = parent;
        }
        return access(at, W_OK | X_OK) == 0;
}

static void check_folders(struct survey *s) {
        const struct project *p = s->project;
        const struct {
                const char *path, *fix;
        } folders[] = {
                        {p->dir, "work in a project that this user can write to: k3s-vm --project DIR"},
                        {p->cache_dir, "set XDG_CACHE_HOME to a folder that this user can write to"},
                        {p->registry_dir, "set XDG_STATE_HOME to a folder that this user can write to"},
        };
        bool ok = true;
        for (size_t i = 0; i < ELEMENTSOF(folders); i++) {
                if (can_create(folders[i].path))
                        continue;
                _cleanup_free_ char *shown = printable(folders[i].path);
                add(s, "folders", CHECK_FAILED, xasprintf("%s cannot be written", shown), xstrdup(folders[i].fix));
                ok = false;
        }
        if (ok)
                add(s, "folders", CHECK_OK, xstrdup("project, cache and state can be written"), NULL);
}

static void check_runtime(struct survey *s) {
        const char *path = s->project->runtime_base;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (fs_mkdir_private(path, &err) < 0)
                add(s, "runtime", CHECK_FAILED, xasprintf("the sockets' folder cannot be used: %s", err.message),
                    xasprintf("remove %s, or set XDG_RUNTIME_DIR to a folder of your own", path));
        else
                add(s, "runtime", CHECK_OK, xstrdup(path), NULL);
}

static void check_port(struct survey *s, struct port_scan *scan, const struct registry *registry, const char *key,
                       uint16_t port, bool is_default) {
        long first;
        if (geteuid() != 0 && read_flag("/proc/sys/net/ipv4/ip_unprivileged_port_start", &first) && port < first) {
                add(s, "ports", CHECK_FAILED, xasprintf("%s: only root may listen on port %u", key, port),
                    xasprintf("k3s-vm configure %s=%u", key, port + 8000U));
                return;
        }
        if (!scan)
                return;
        struct port_holder holder = {0};
        if (!port_taken(scan, port, registry, &holder))
                add(s, "ports", CHECK_OK, xasprintf("%s: %u is free", key, port), NULL);
        else if (s->state && str_eq(holder.vm_uuid, s->state->uuid))
                add(s, "ports", CHECK_OK, xasprintf("%s: %u is this VM's", key, port), NULL);
        else {
                _cleanup_error_ struct error err = ERROR_INIT;
                port_error(&holder, key, &err);
                /* A start moves a port that nobody chose out of another VM's way. */
                bool moves = is_default && holder.vm_uuid;
                add(s, "ports", moves ? CHECK_WARNING : CHECK_FAILED, TAKE_PTR(err.message), TAKE_PTR(err.hint));
        }
        port_holder_clear(&holder);
}

/* For a start, who holds a port is the lifecycle's to find out: it may move one. */
static void check_ports(struct survey *s) {
        const struct config *c = s->config;
        if (!c)
                return;
        _cleanup_port_scan_ struct port_scan *scan = NULL;
        _cleanup_registry_ struct registry registry = {0};
        if (!s->quick) {
                registry_load(s->project, &registry, NULL);
                port_scan_new(&scan, NULL);
        }
        check_port(s, scan, &registry, "API_PORT", c->api_port, c->api_port_default);
        check_port(s, scan, &registry, "SSH_PORT", c->ssh_port, c->ssh_port_default);
        check_port(s, scan, &registry, "WEB_PORT", c->web_port, c->web_port_default);
        for (size_t i = 0; i < c->n_forwards; i++)
                check_port(s, scan, &registry, "FORWARDS", c->forwards[i].host_port, false);
}

/* Whether the guest will find a resolver; nothing is asked of the network. */
static void check_dns(struct survey *s) {
        if (s->config && *s->config->dns) {
                add(s, "dns", CHECK_OK, xasprintf("the VM asks %s", s->config->dns), NULL);
                return;
        }
        _cleanup_buf_ struct buf text = BUF_INIT(64U * 1024);
        fs_read("/etc/resolv.conf", 64U * 1024 - 1, &text, NULL);
        _cleanup_strv_ struct strv lines = {0};
        strv_split(&lines, buf_str(&text), "\n");
        for (size_t i = 0; i < lines.len; i++) {
                _cleanup_strv_ struct strv words = {0};
                strv_split(&words, lines.items[i], " \t\r");
                if (words.len < 2 || !str_eq(words.items[0], "nameserver"))
                        continue;
                _cleanup_free_ char *server = printable(words.items[1]);
                add(s, "dns", CHECK_OK, xasprintf("the VM asks this machine's resolver (%s)", server), NULL);
                return;
        }
        add(s, "dns", CHECK_WARNING, xstrdup("/etc/resolv.conf names no resolver: the VM will not resolve names"),
            xstrdup("k3s-vm configure DNS=ADDRESS"));
}

static const struct {
        void (*check)(struct survey *s);
        bool for_start;
} all_checks[] = {
                {check_os, false},         {check_config, false},     {check_cpu, true},
                {check_memory, true},      {check_kvm, true},         {check_qemu, true},
                {check_qemu_img, true},    {check_guest_tools, true}, {check_payload_tools, true},
                {check_namespaces, false}, {check_ssh, false},        {check_kubectl, false},
                {check_disk, true},        {check_cache, true},       {check_folders, true},
                {check_runtime, true},     {check_ports, true},       {check_dns, false},
};

static int survey(const struct project *p, const struct config *c, bool quick, struct checks *ret, struct error *err) {
        struct survey s = {.project = p, .config = c, .quick = quick, .checks = ret};
        _cleanup_host_ struct host *host = NULL;
        int r = host_detect(&host, err);
        if (r < 0)
                return r;
        s.host = host;
        _cleanup_config_ struct config *loaded = NULL;
        _cleanup_error_ struct error cause = ERROR_INIT;
        if (!c && config_load(p, &loaded, &cause) < 0)
                add(&s, "config", CHECK_FAILED, TAKE_PTR(cause.message), TAKE_PTR(cause.hint));
        s.config = c ? c : loaded;
        _cleanup_state_ struct state *state = NULL;
        state_load(p, &state, NULL);
        s.state = state;
        if (state && !quick) {
                _cleanup_free_ pid_t *pids = NULL;
                size_t n = 0;
                s.vm_runs = vm_processes(state->uuid, &pids, &n) == 0 && n > 0;
        }
        for (size_t i = 0; i < ELEMENTSOF(all_checks); i++)
                if (all_checks[i].for_start || !quick)
                        all_checks[i].check(&s);
        return 0;
}

int host_check(const struct project *p, const struct config *c, struct checks *ret, struct error *err) {
        return survey(p, c, false, ret, err);
}

int host_preflight(const struct project *p, const struct config *c, struct progress *progress, struct error *err) {
        _cleanup_checks_ struct checks checks = {0};
        int r = survey(p, c, true, &checks, err);
        for (size_t i = 0; r == 0 && i < checks.n; i++) {
                const struct check *check = &checks.items[i];
                if (check->result == CHECK_FAILED) {
                        err_set(err, ERR_HOST, EINVAL, "%s", check->text);
                        if (check->fix)
                                err_hint(err, "%s", check->fix);
                        r = -EINVAL;
                } else if (check->result == CHECK_WARNING)
                        progress_warn(progress, "%s%s%s", check->text, check->fix ? "; " : "",
                                      check->fix ? check->fix : "");
        }
        return r;
}
