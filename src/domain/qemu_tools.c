/* SPDX-License-Identifier: MIT */
/* What is asked of QEMU's programs before a VM starts: machine types, and disks by qemu-img. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>

#define TOOL_TIMEOUT_MS (60U * 1000)
#define CACHE_NAME "qemu-machine.json"

/* "pc-q35-7.2" as 7 * 1000 + 2; 0 when @name is none. "-maintainer" variants are none. */
static uint64_t q35_version(const char *name) {
        if (!str_starts(name, "pc-q35-"))
                return 0;
        _cleanup_strv_ struct strv parts = {0};
        strv_split(&parts, name + strlen("pc-q35-"), ".");
        uint64_t major, minor, patch = 0;
        if (parts.len < 2 || parts.len > 3 || str_to_u64(parts.items[0], 1, 999, &major) < 0 ||
            str_to_u64(parts.items[1], 0, 999, &minor) < 0)
                return 0;
        if (parts.len == 3 && str_to_u64(parts.items[2], 0, 999, &patch) < 0)
                return 0;
        return (major * 1000 + minor) * 1000 + patch;
}

char *qemu_newest_q35(const char *help) {
        _cleanup_strv_ struct strv lines = {0};
        strv_split(&lines, help, "\r\n");
        char *best = NULL;
        uint64_t best_version = 0;
        for (size_t i = 0; i < lines.len; i++) {
                _cleanup_free_ char *name = xstrndup(lines.items[i], strcspn(lines.items[i], " \t"));
                uint64_t version = q35_version(name);
                if (version <= best_version)
                        continue;
                free(best);
                best = TAKE_PTR(name);
                best_version = version;
        }
        return best;
}

/* Which build of QEMU this is, without running it. */
static struct json *program_identity(const char *path, const struct stat *st) {
        struct json *j = json_new_object();
        json_set_string(j, "program", path);
        json_set_number(j, "size", (double)st->st_size);
        json_set_number(j, "mtime", (double)st->st_mtim.tv_sec);
        json_set_number(j, "mtime_ns", (double)st->st_mtim.tv_nsec);
        return j;
}

static bool cache_matches(const struct json *cached, const struct json *identity) {
        static const char *const numbers[] = {"size", "mtime", "mtime_ns"};
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (json_u64_or(json_get(cached, numbers[i]), 0) != json_u64_or(json_get(identity, numbers[i]), 1))
                        return false;
        return str_eq(json_string(json_get(cached, "program")), json_string(json_get(identity, "program")));
}

static int ask_machine(const char *program, char **ret, struct error *err) {
        const char *const argv[] = {program, "-machine", "help", NULL};
        _cleanup_buf_ struct buf out = BUF_INIT(256U * 1024), tail = BUF_INIT(0);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = argv;
        run.ret_stdout = &out;
        run.ret_tail = &tail;
        run.timeout_ms = TOOL_TIMEOUT_MS;
        struct proc_result result = {0};
        int r = proc_run(&run, &result, err);
        if (r < 0) {
                err_wrap(err, r, "cannot ask %s for its machine types", program);
                return r;
        }
        char *machine = result.exit_status == 0 ? qemu_newest_q35(buf_str(&out)) : NULL;
        if (!machine) {
                _cleanup_free_ char *how = proc_result_string(&result);
                r = err_set(err, ERR_HOST, EIO, "%s names no q35 machine type (it %s)", program, how);
                if (tail.len > 0)
                        err_detail(err, buf_str(&tail));
                return r;
        }
        *ret = machine;
        return 0;
}

int qemu_machine(const char *program, const char *cache_dir, char **ret, struct error *err) {
        _cleanup_free_ char *path = fs_find_program(program);
        struct stat st;
        if (!path || stat(path, &st) < 0)
                return err_set(err, ERR_HOST, ENOENT, "cannot run %s: it is not installed or not executable", program);
        _cleanup_json_ struct json *identity = program_identity(path, &st), *cached = NULL;
        _cleanup_free_ char *cache = path_join(cache_dir, CACHE_NAME);
        if (json_read_file(cache, 64U * 1024, &cached, NULL) == 0 && cache_matches(cached, identity)) {
                const char *machine = json_string(json_get(cached, "machine"));
                if (machine && q35_version(machine) > 0) {
                        *ret = xstrdup(machine);
                        return 0;
                }
        }
        _cleanup_free_ char *machine = NULL;
        int r = ask_machine(path, &machine, err);
        if (r < 0)
                return r;
        json_set_string(identity, "machine", machine);
        _cleanup_free_ char *text = json_print(identity, true);
        /* Without the cache the next start asks again. */
        if (fs_mkdir_p(cache_dir, 0700, NULL) == 0)
                fs_write_atomic(cache, text, strlen(text), 0600, NULL);
        *ret = TAKE_PTR(machine);
        return 0;
}

static int run_qemu_img(const char *const *argv, const char *what, struct error *err) {
        _cleanup_buf_ struct buf tail = BUF_INIT(0);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = argv;
        run.ret_tail = &tail;
        run.timeout_ms = TOOL_TIMEOUT_MS;
        struct proc_result result = {0};
        int r = proc_run(&run, &result, err);
        if (r < 0) {
                err_wrap(err, r, "%s", what);
                return r;
        }
        if (result.exit_status != 0) {
                _cleanup_free_ char *how = proc_result_string(&result);
                r = err_set(err, ERR_FAILED, EIO, "%s: qemu-img %s", what, how);
                if (tail.len > 0)
                        err_detail(err, buf_str(&tail));
                return r;
        }
        return 0;
}

int qemu_create_overlay(const char *path, unsigned gib, const char *base, const char *base_format, struct error *err) {
        if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                return err_set(err, ERR_STATE, EEXIST, "cannot create the disk %s: it is there already", path);
        /* Made under another name: a program killed meanwhile must not leave half a disk under this one. */
        _cleanup_free_ char *temporary = xasprintf("%s.new", path), *size = xasprintf("%uG", gib);
        int r = fs_unlink(temporary, err);
        if (r < 0)
                return r;
        const char *const argv[] = {"qemu-img", "create",           "-q", "-f", "qcow2",     temporary,
                                    size,       base ? "-b" : NULL, base, "-F", base_format, NULL};
        _cleanup_free_ char *what = xasprintf("cannot create the disk %s", path);
        r = run_qemu_img(argv, what, err);
        if (r == 0 && chmod(temporary, 0600) < 0)
                r = err_errno(err, errno, "%s", what);
        if (r == 0 && syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 1U /* RENAME_NOREPLACE */) < 0) {
                /* Some file systems do not know the flag; the check above has to do there. */
                if (errno != EINVAL || rename(temporary, path) < 0)
                        r = err_errno(err, errno, "%s", what);
        }
        if (r < 0)
                fs_unlink(temporary, NULL);
        return r;
}

int qemu_create_disk(const char *path, unsigned gib, struct error *err) {
        return qemu_create_overlay(path, gib, NULL, NULL, err);
}

int qemu_grow_disk(const char *path, unsigned gib, struct error *err) {
        _cleanup_free_ char *size = xasprintf("%uG", gib), *what = xasprintf("cannot grow the disk %s", path);
        const char *const argv[] = {"qemu-img", "resize", "-q", "-f", "qcow2", path, size, NULL};
        return run_qemu_img(argv, what, err);
}

int qemu_snapshot_disk(const char *path, enum qemu_snapshot what, const char *tag, struct error *err) {
        const char option[] = {'-', (char)what, '\0'};
        const char *const argv[] = {"qemu-img", "snapshot", "-q", option, tag, path, NULL};
        return run_qemu_img(argv, "cannot change the disk's snapshots", err);
}
