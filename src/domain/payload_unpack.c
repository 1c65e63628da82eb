/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/confine.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>

#include "payload_unpack.h"

#define MAX_ENTRIES 1024 /* K3s 1.21 has 27, 1.33 about 80 */
#define MAX_DEPTH 8
#define GUEST_DATA "/var/lib/rancher/k3s/data"

void unpacked_clear(struct unpacked *u) {
        if (u->folder)
                fs_remove_tree(u->folder, NULL);
        if (u->hold >= 0)
                close(u->hold);
        free(u->folder);
        free(u->entries);
        strv_free(&u->strings);
        *u = UNPACKED_INIT;
}

/* Running it. */

/* An emulator that the kernel knows of would run another machine's programs too, for minutes. */
static int check_machine(const char *program, struct error *err) {
        Elf64_Ehdr theirs = {0}, ours = {0};
        _cleanup_close_ int fd = open(program, O_RDONLY | O_CLOEXEC);
        _cleanup_close_ int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, &theirs, sizeof(theirs)) < 0)
                return err_errno(err, errno, "cannot read %s", program);
        if (self < 0 || read(self, &ours, sizeof(ours)) < 0)
                return err_errno(err, errno, "cannot tell this machine's kind");
        if (memcmp(theirs.e_ident, ELFMAG, SELFMAG) == 0 && theirs.e_machine != ours.e_machine)
                return err_set(err, ERR_FAILED, ENOEXEC, "%s is for another kind of machine", program);
        return 0;
}

/* "data-dir" for the versions that read it in their configuration alone. */
static int write_config(const char *path, const char *data_dir, struct error *err) {
        /* JSON is YAML, however odd the path. */
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "data-dir", data_dir);
        _cleanup_free_ char *text = json_print(j, false);
        return fs_write_cache(path, text, strlen(text), 0600, err);
}

static int run_program(const char *program, const char *folder, const char *data_dir, unsigned timeout_ms,
                       struct progress *progress, struct error *err) {
        _cleanup_free_ char *config = path_join(folder, "config.yaml");
        _cleanup_close_ int confinement = -1;
        int r = confine_writes(folder, &confinement, err);
        if (r == 0)
                r = write_config(config, data_dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *home = xasprintf("HOME=%s", folder), *tmp = xasprintf("TMPDIR=%s", folder);
        _cleanup_free_ char *config_file = xasprintf("K3S_CONFIG_FILE=%s", config);
        _cleanup_free_ char *data = xasprintf("K3S_DATA_DIR=%s", data_dir);
        _cleanup_buf_ struct buf tail = BUF_INIT(0);
        int cancel_fd = interrupt_fd();
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        /* Nothing is asked of containerd's client but its version. It stops reading at "--", the front that unpacks
         * and then starts it does not. */
        run.spec.argv = (const char *const[]){program, "ctr", "--version", "--", "--data-dir", data_dir, NULL};
        run.spec.set_env = (const char *const[]){home, tmp, config_file, data, NULL};
        run.spec.cwd = folder;
        run.spec.confined_by = confinement;
        run.ret_tail = &tail;
        run.timeout_ms = timeout_ms;
        run.cancel_fd = cancel_fd >= 0 ? &cancel_fd : NULL;
        struct proc_result result;
        r = proc_run(&run, &result, err);
        progress_debug(progress, "%s ctr --version: %s", program, buf_str(&tail));
        if (r < 0 || result.exit_status == 0)
                return r;
        _cleanup_free_ char *how = proc_result_string(&result);
        return err_set(err, ERR_FAILED, EIO, "%s %s", program, how);
}

/* What it left. */

struct walk {
        struct unpacked *u;
        const char *data; /* .../data on this machine: what a guest's links must not point to */
        struct error *err;
};

static int unknown(struct walk *w, const char *what, const char *path) {
        return err_set(w->err, ERR_FAILED, EBADMSG, "%s is not known: %s", what, path);
}

/* Takes @name, @source and @link over. */
static int add_entry(struct walk *w, char *name, char *source, char *link, mode_t mode) {
        struct unpacked *u = w->u;
        const struct archive_entry e = {.name = name, .source_path = source, .link = link, .mode = mode & 0777};
        char *const strings[] = {name, source, link};
        for (size_t i = 0; i < ELEMENTSOF(strings); i++)
                if (strings[i])
                        strv_push_take(&u->strings, strings[i]);
        if (u->n == MAX_ENTRIES)
                return err_set(w->err, ERR_FAILED, E2BIG, "more than %d files", MAX_ENTRIES);
        u->entries = xreallocarray(u->entries, u->n + 1, sizeof(e));
        u->entries[u->n++] = e;
        return 0;
}

/* As a guest is to see it; K3s makes absolute links to what it unpacks. The caller frees. */
static char *read_link(const struct walk *w, const char *path) {
        char target[4096];
        ssize_t n = readlink(path, target, sizeof(target));
        if (n < 0 || n == sizeof(target))
                return NULL;
        target[n] = '\0';
        size_t prefix = strlen(w->data);
        if (target[0] != '/')
                return xstrdup(target);
        if (!str_starts(target, w->data) || target[prefix] != '/')
                return NULL;
        return path_join(GUEST_DATA, target + prefix + 1);
}

static int by_name(const void *a, const void *b) {
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(struct walk *w, const char *path, struct strv *ret) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        if (!dir)
                return err_errno(w->err, errno, "cannot read %s", path);
        for (struct dirent *entry; (entry = readdir(dir));)
                if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
                        strv_push(ret, entry->d_name);
        if (ret->len > 1)
                qsort(ret->items, ret->len, sizeof(*ret->items), by_name);
        return 0;
}

/* Adds @path, with all in it, as @name. */
static int walk(struct walk *w, const char *path, const char *name, unsigned depth) {
        struct stat st;
        if (lstat(path, &st) < 0)
                return err_errno(w->err, errno, "cannot read %s", path);
        if (S_ISREG(st.st_mode)) {
                w->u->bytes += (uint64_t)st.st_size;
                return add_entry(w, xstrdup(name), xstrdup(path), NULL, st.st_mode);
        }
        if (S_ISLNK(st.st_mode)) {
                char *link = read_link(w, path);
                return link ? add_entry(w, xstrdup(name), NULL, link, 0777) : unknown(w, "where a link leads", path);
        }
        if (!S_ISDIR(st.st_mode) || depth == MAX_DEPTH)
                return unknown(w, "what a file is for", path);
        _cleanup_strv_ struct strv names = {0};
        int r = add_entry(w, xstrdup(name), NULL, NULL, st.st_mode);
        if (r == 0)
                r = list(w, path, &names);
        for (size_t i = 0; r == 0 && i < names.len; i++) {
                _cleanup_free_ char *inner = path_join(path, names.items[i]), *as = path_join(name, names.items[i]);
                r = walk(w, inner, as, depth + 1);
        }
        return r;
}

static bool is_hash(const char *name) {
        return strlen(name) == SHA256_HEX_LEN && name[strspn(name, "0123456789abcdef")] == '\0';
}

/* Exactly what the known versions leave, so that a new one that does more than unpack is noticed: then a guest's own
 * K3s has to do it. */
static int collect(struct walk *w) {
        _cleanup_strv_ struct strv names = {0};
        _cleanup_free_ char *hash = NULL;
        int r = add_entry(w, xstrdup("data"), NULL, NULL, 0755);
        if (r == 0)
                r = list(w, w->data, &names);
        for (size_t i = 0; r == 0 && i < names.len; i++) {
                const char *name = names.items[i];
                _cleanup_free_ char *path = path_join(w->data, name), *as = path_join("data", name);
                if (str_eq(name, ".lock"))
                        continue;
                if (is_hash(name) && !hash)
                        hash = xstrdup(name);
                else if (!str_eq(name, "current") && !str_eq(name, "cni"))
                        return unknown(w, "what a file is for", path);
                r = walk(w, path, as, 0);
        }
        if (r < 0)
                return r;
        _cleanup_free_ char *k3s = hash ? path_join(w->data, hash, "bin/k3s") : NULL;
        /* Followed: a link to the program that all of them are. */
        if (!k3s || access(k3s, X_OK) < 0)
                return err_set(w->err, ERR_FAILED, ENOENT, "there is no data/HASH/bin/k3s in what was unpacked");
        return 0;
}

int payload_unpack(const char *program, const char *parent, unsigned timeout_ms, struct progress *progress,
                   struct unpacked *ret, struct error *err) {
        _cleanup_unpacked_ struct unpacked u = UNPACKED_INIT;
        fs_sweep_path(parent, ".unpacked.", "");
        int r = check_machine(program, err);
        if (r == 0)
                r = fs_mkdtemp(parent, ".unpacked", &u.folder, err);
        if (r < 0)
                return r;
        u.hold = fs_hold_path(u.folder);
        _cleanup_free_ char *data_dir = path_join(u.folder, "k3s"), *data = path_join(data_dir, "data");
        r = run_program(program, u.folder, data_dir, timeout_ms, progress, err);
        if (r < 0)
                return r;
        r = collect(&(struct walk){.u = &u, .data = data, .err = err});
        if (r < 0)
                return r;
        *ret = u;
        u = UNPACKED_INIT;
        return 0;
}
