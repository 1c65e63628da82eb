/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/autostart.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/strv.h>

#define UNIT_PREFIX "k3s-vm-"
#define HASH_LEN 8
#define STOP_TIMEOUT_S 180 /* longer than the whole ladder that a stop climbs */

void autostart_clear(struct autostart *a) {
        free(a->name);
        free(a->path);
        free(a->link);
        *a = (struct autostart){0};
}

/* $XDG_CONFIG_HOME/systemd/user, which systemd reads the user's own units from. */
static int unit_dir(char **ret, struct error *err) {
        const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
        if (config && *config == '/')
                *ret = path_join(config, "systemd/user");
        else if (home && *home == '/')
                *ret = path_join(home, ".config/systemd/user");
        else
                return err_set(err, ERR_HOST, ENOENT, "neither HOME nor XDG_CONFIG_HOME names a folder");
        return 0;
}

/* The project's unit in @dir under whatever VM name it was made, or NULL. */
static char *find_unit(const char *dir, const char *suffix) {
        _cleanup_closedir_ DIR *d = opendir(dir);
        for (struct dirent *entry; d && (entry = readdir(d));)
                if (str_starts(entry->d_name, UNIT_PREFIX) && str_ends(entry->d_name, suffix))
                        return xstrdup(entry->d_name);
        return NULL;
}

int autostart_find(const struct project *p, const char *vm_name, struct autostart *ret, struct error *err) {
        _cleanup_free_ char *dir = NULL;
        char hash[SHA256_HEX_LEN + 1];
        int r = unit_dir(&dir, err);
        if (r == 0)
                r = digest_bytes(p->root, strlen(p->root), hash, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *suffix = xasprintf("-%.*s.service", HASH_LEN, hash);
        /* Most names begin like the unit's already: "k3s-vm-shop". */
        const char *word = str_starts(vm_name, UNIT_PREFIX) ? vm_name + strlen(UNIT_PREFIX) : vm_name;
        char *name = find_unit(dir, suffix);
        *ret = (struct autostart){.name = name ? name : xasprintf(UNIT_PREFIX "%s%s", word, suffix)};
        ret->path = path_join(dir, ret->name);
        ret->link = path_join(dir, "default.target.wants", ret->name);
        return 0;
}

bool autostart_is_on(const struct autostart *a) {
        struct stat st;
        return fs_exists(a->path) && lstat(a->link, &st) == 0;
}

/* A word of a command line in a unit (systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers"): quoted, with
 * specifiers and variables made harmless, and what is no printable ASCII as bytes. */
static void put_word(struct buf *out, const char *word) {
        buf_puts(out, "\"");
        for (const unsigned char *c = (const unsigned char *)word; *c; c++) {
                if (*c == '"' || *c == '\\')
                        buf_printf(out, "\\%c", *c);
                else if (*c == '%' || *c == '$')
                        buf_printf(out, "%c%c", *c, *c);
                else if (*c < ' ' || *c >= 0x7f)
                        buf_printf(out, "\\x%02x", *c);
                else
                        buf_append(out, c, 1);
        }
        buf_puts(out, "\"");
}

/* `PROGRAM --project ROOT --quiet VERB`. */
static char *command_line(const struct project *p, const char *program, const char *verb) {
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        put_word(&out, program);
        buf_puts(&out, " --project ");
        put_word(&out, p->root);
        buf_printf(&out, " --quiet %s", verb);
        return buf_take(&out);
}

/* What of this environment decides where the VM's files and QEMU are. systemd's own is a bare one. */
static void put_environment(struct buf *out) {
        static const char *const names[] = {"PATH", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"};
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                const char *value = getenv(names[i]);
                if (!value || !*value)
                        continue;
                _cleanup_free_ char *assignment = xasprintf("%s=%s", names[i], value);
                buf_puts(out, "Environment=");
                put_word(out, assignment);
                buf_puts(out, "\n");
        }
}

int autostart_unit(const struct project *p, const char *program, const char *vm_name, char **ret, struct error *err) {
        /* systemd takes the program's own path literally, and refuses these in it. */
        if (strpbrk(program, "\"'\\%$\n\t"))
                return err_set(err, ERR_HOST, EINVAL, "systemd cannot start a program whose path is %s", program);
        _cleanup_free_ char *start = command_line(p, program, "start"), *stop = command_line(p, program, "stop");
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        buf_printf(&out,
                   "# Written by `k3s-vm autostart on`; `k3s-vm autostart off` removes it.\n"
                   "[Unit]\n"
                   "Description=The VM %s\n"
                   "\n"
                   "[Service]\n"
                   /* `start` returns when the VM is Ready; its supervisor and QEMU go on in the background. */
                   "Type=oneshot\n"
                   "RemainAfterExit=yes\n"
                   "ExecStart=%s\n"
                   /* One that somebody stopped by hand is stopped. */
                   "ExecStop=-%s\n",
                   vm_name, start, stop);
        buf_printf(&out,
                   "TimeoutStartSec=infinity\n"
                   "TimeoutStopSec=%d\n"
                   /* What is left after ExecStop is not for systemd to kill: QEMU is writing to a disk. */
                   "KillMode=process\n",
                   STOP_TIMEOUT_S);
        put_environment(&out);
        buf_puts(&out, "\n[Install]\nWantedBy=default.target\n");
        *ret = buf_take(&out);
        return 0;
}

/* As a string of the Nix language. */
static void put_nix_string(struct buf *out, const char *text) {
        buf_puts(out, "\"");
        for (const char *c = text; *c; c++) {
                if (*c == '"' || *c == '\\' || (*c == '$' && c[1] == '{'))
                        buf_puts(out, "\\");
                buf_append(out, c, 1);
        }
        buf_puts(out, "\"");
}

char *autostart_home_manager(const struct project *p, const struct autostart *a, const char *program) {
        _cleanup_free_ char *start = command_line(p, program, "start"), *stop = command_line(p, program, "stop"),
                            *stop_any = xasprintf("-%s", stop);
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        buf_printf(&out, "systemd.user.services.\"%.*s\" = {\n", (int)(strlen(a->name) - strlen(".service")), a->name);
        buf_puts(&out, "  Install.WantedBy = [ \"default.target\" ];\n"
                       "  Service = {\n"
                       "    Type = \"oneshot\";\n"
                       "    RemainAfterExit = true;\n"
                       "    ExecStart = ");
        put_nix_string(&out, start);
        buf_puts(&out, ";\n    ExecStop = ");
        put_nix_string(&out, stop_any);
        buf_printf(&out,
                   ";\n    TimeoutStartSec = \"infinity\";\n    TimeoutStopSec = %d;\n"
                   "    KillMode = \"process\";\n  };\n};",
                   STOP_TIMEOUT_S);
        return buf_take(&out);
}

/* The link that `systemctl enable` makes. One of that name is replaced. */
static int enable(const struct autostart *a, struct error *err) {
        _cleanup_free_ char *dir = path_parent(a->link), *target = xasprintf("../%s", a->name);
        int r = fs_mkdir_p(dir, 0755, err);
        if (r == 0)
                r = fs_unlink(a->link, err);
        if (r == 0 && symlink(target, a->link) < 0)
                r = err_errno(err, errno, "cannot make the link %s", a->link);
        return r;
}

int autostart_on(const struct project *p, const struct autostart *a, const char *program, const char *vm_name,
                 struct error *err) {
        _cleanup_free_ char *text = NULL, *dir = path_parent(a->path);
        int r = autostart_unit(p, program, vm_name, &text, err);
        if (r < 0)
                return r;
        r = fs_mkdir_p(dir, 0755, err);
        if (r == 0)
                r = fs_write_atomic(a->path, text, strlen(text), 0644, err);
        if (r == 0)
                r = enable(a, err);
        if (r == -EROFS || r == -EACCES || r == -EPERM) {
                _cleanup_free_ char *lines = autostart_home_manager(p, a, program);
                err_hint(err,
                         "where home-manager owns that folder, add this to its configuration and run home-manager "
                         "switch:\n%s\nelse make the folder writable: chmod u+w %s",
                         lines, dir);
                if (err)
                        err->code = ERR_HOST;
        }
        return r < 0 ? err_wrap(err, r, "cannot write the unit %s", a->name) : 0;
}

int autostart_off(const struct autostart *a, struct error *err) {
        struct stat st;
        if (lstat(a->path, &st) < 0 && lstat(a->link, &st) < 0)
                return err_set(err, ERR_STATE, ENOENT, "this VM is not started by systemd");
        int r = fs_unlink(a->link, err);
        return r < 0 ? r : fs_unlink(a->path, err);
}
