/* SPDX-License-Identifier: MIT */
/* A state in two files beside the VM's disk: the guest's memory (suspend_memory.c), and its devices, which QEMU itself
 * writes and reads. That is some hundred kilobytes, so a save or a resume takes as long as its pages do. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/forward.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>

#include "suspend_internal.h"

#define MEMORY_OPTION "-object" /* the first of the arguments that a QEMU gets to go on from a state */
#define MEMORY_BACKEND "memory-backend-file,id=memory,"
#define LOAD_TIMEOUT_MS 60000
#define LOAD_LOOK_MS 2
#define PORT_TIMEOUT_MS 1000
#define PORT_LOOK_MS 2

static char *memory_path(const char *folder) {
        return path_join(folder, "suspend.memory");
}

static char *devices_path(const char *folder) {
        return path_join(folder, "suspend.devices");
}

/* The value of "-m", in bytes; 0: there is none. */
static uint64_t memory_bytes(const struct strv *argv) {
        const char *value = qemu_option(argv, "-m");
        uint64_t mib = 0;
        return value && str_to_u64(value, 1, UINT32_MAX, &mib) == 0 ? mib << 20 : 0;
}

/* Where QEMU has the guest's memory: "Host virtual address for 0x0 (pc.ram) is 0x7f8dc3e00000". */
static int find_memory(struct qmp *q, uint64_t *ret, struct error *err) {
        _cleanup_free_ char *answer = NULL;
        int r = qmp_human(q, "gpa2hva 0", SUSPEND_QMP_TIMEOUT_MS, &answer, err);
        if (r < 0)
                return r;
        const char *is = strstr(answer, " is 0x");
        char *end = NULL;
        *ret = is ? strtoull(is + strlen(" is 0x"), &end, 16) : 0;
        if (*ret == 0)
                return err_set(err, ERR_FAILED, ENOTSUP, "QEMU does not say where the guest's memory is");
        return 0;
}

static int save_devices(const char *path, struct qmp *q, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_string(arguments, "filename", path);
        /* The disk stays this QEMU's: should something fail, its guest goes on. */
        json_set_bool(arguments, "live", false);
        return qmp_call(q, "xen-save-devices-state", arguments, LOAD_TIMEOUT_MS, NULL, err);
}

int suspend_files_save(const struct project *p, const char *folder, struct qmp *q, pid_t pid, const struct strv *argv,
                       struct suspended *ret, struct error *err) {
        _cleanup_free_ char *memory = memory_path(folder), *devices = devices_path(folder),
                            *mapped = memory_path(p->vm_dir);
        uint64_t base = 0, written = 0;
        int r = find_memory(q, &base, err);
        if (r == 0)
                r = fs_unlink(devices, err);
        if (r == 0)
                r = save_devices(devices, q, err);
        if (r == 0)
                r = suspend_memory_save(pid, base, memory_bytes(argv), mapped, memory, &written, err);
        int64_t memory_used = fs_allocated(memory), devices_used = fs_size(devices);
        if (r == 0 && (memory_used < 0 || devices_used <= 0))
                r = err_set(err, ERR_FAILED, EIO, "QEMU did not write %s", devices);
        if (r < 0) {
                fs_unlink(devices, NULL);
                return r;
        }
        ret->kind = SUSPENDED_IN_FILES;
        ret->bytes = (uint64_t)(memory_used + devices_used);
        ret->written = written + (uint64_t)devices_used;
        return 0;
}

static int share_file(const char *from, const char *to, struct error *err) {
        int r = fs_unlink(to, err);
        if (r < 0)
                return r;
        return link(from, to) == 0 ? 0 : fs_copy_file(from, to, err);
}

int suspend_files_share(const char *from, const char *to, struct error *err) {
        _cleanup_free_ char *memory = memory_path(from), *devices = devices_path(from), *to_memory = memory_path(to),
                            *to_devices = devices_path(to);
        int r = share_file(memory, to_memory, err);
        return r < 0 ? r : share_file(devices, to_devices, err);
}

uint64_t suspend_files_copied(const struct project *p, bool snapshot) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir);
        struct stat st;
        return lstat(memory, &st) == 0 && (snapshot || st.st_nlink > 1) ? (uint64_t)st.st_blocks * 512 : 0;
}

void suspend_files_arguments(const struct project *p, const struct strv *argv, struct strv *ret) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir), *escaped = qemu_escape(memory);
        static const struct strv none = {0};
        strv_extend(ret, (const char *const *)argv->items);
        /* They come with suspend_files_forward(): who connects while the guest stands still waits for six seconds. */
        qemu_set_forwards(ret, &none);
        strv_push(ret, MEMORY_OPTION);
        strv_pushf(ret, MEMORY_BACKEND "size=%" PRIu64 ",share=off,mem-path=%s", memory_bytes(argv), escaped);
        static const char *const more[] = {"-machine", "memory-backend=memory", "-incoming", "defer",
                                           /* The firmware is not part of the state, so the guest's next boot is
                                            * another QEMU's: the supervisor sees to that. */
                                           "-action", "reboot=shutdown", NULL};
        strv_extend(ret, more);
}

void suspend_files_strip(struct strv *argv) {
        size_t at = 1;
        while (at + 1 < argv->len &&
               !(str_eq(argv->items[at], MEMORY_OPTION) && str_starts(argv->items[at + 1], MEMORY_BACKEND)))
                at++;
        if (at + 1 < argv->len)
                strv_truncate(argv, at);
}

int suspend_files_open(const struct project *p, int *ret_devices_fd, struct error *err) {
        _cleanup_free_ char *devices = devices_path(p->vm_dir);
        int fd = open(devices, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return err_errno(err, errno, "cannot open %s", devices);
        *ret_devices_fd = fd;
        return 0;
}

void suspend_files_read_ahead(const struct project *p) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir);
        _cleanup_close_ int fd = open(memory, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        for (off_t data, hole = 0; fd >= 0 && (data = lseek(fd, hole, SEEK_DATA)) >= 0;) {
                hole = lseek(fd, data, SEEK_HOLE);
                if (hole < 0 || posix_fadvise(fd, data, hole - data, POSIX_FADV_WILLNEED) != 0)
                        return;
        }
}

int suspend_files_forward(struct qmp *q, const struct strv *argv, struct error *err) {
        _cleanup_strv_ struct strv rules = {0};
        qemu_forwards(argv, &rules);
        int r = 0;
        /* Who held a port while the VM slept (doze.h) gives it up now. */
        uint64_t deadline = now_ms() + PORT_TIMEOUT_MS;
        for (size_t i = 0; r == 0 && i < rules.len; i++)
                while ((r = forward_add(q, rules.items[i], err)) == -EADDRNOTAVAIL && now_ms() < deadline) {
                        error_clear(err);
                        poll(NULL, 0, PORT_LOOK_MS);
                }
        return r;
}

int suspend_files_load(struct qmp *q, struct error *err) {
        struct json *arguments = json_new_object();
        _cleanup_free_ char *uri = xasprintf("fd:%d", QEMU_FD_DEVICES);
        json_set_string(arguments, "uri", uri);
        int r = qmp_call(q, "migrate-incoming", arguments, SUSPEND_QMP_TIMEOUT_MS, NULL, err);
        uint64_t deadline = now_ms() + LOAD_TIMEOUT_MS;
        while (r == 0) {
                _cleanup_json_ struct json *answer = NULL;
                r = qmp_call(q, "query-migrate", NULL, LOAD_TIMEOUT_MS, &answer, err);
                const char *status = json_string_or(json_get(answer, "status"), "");
                if (r < 0 || str_eq(status, "completed"))
                        return r;
                if (str_eq(status, "failed"))
                        return err_set(err, ERR_FAILED, EREMOTEIO, "QEMU cannot load the devices' state");
                if (now_ms() >= deadline)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "QEMU takes too long to load the devices' state");
                poll(NULL, 0, LOAD_LOOK_MS);
        }
        return r;
}

static void push_identity(struct strv *v, const char *path) {
        struct stat st;
        if (lstat(path, &st) < 0)
                strv_pushf(v, "%s: missing", path_base(path));
        else
                strv_pushf(v, "%s: %lld bytes of %lld.%09ld", path_base(path), (long long)st.st_size,
                           (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

void suspend_files_identify(const struct project *p, struct strv *ret) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir), *devices = devices_path(p->vm_dir);
        push_identity(ret, p->data_disk);
        push_identity(ret, memory);
        push_identity(ret, devices);
}

static int sync_file(const char *path, struct error *err) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        return fd < 0 || fsync(fd) < 0 ? err_errno(err, errno, "cannot write out %s", path) : 0;
}

int suspend_files_sync(const struct project *p, struct error *err) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir), *devices = devices_path(p->vm_dir);
        int r = sync_file(memory, err);
        return r < 0 ? r : sync_file(devices, err);
}

bool suspend_files_waiting(const struct project *p) {
        _cleanup_free_ char *devices = devices_path(p->vm_dir);
        return fs_exists(devices);
}

static char *set_aside_path(const struct project *p) {
        return path_join(p->vm_dir, "suspend.memory.old");
}

void suspend_files_remove(const struct project *p, bool memory_too) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir), *devices = devices_path(p->vm_dir);
        _cleanup_free_ char *unfinished = xasprintf("%s.new", memory);
        fs_unlink(devices, NULL);
        fs_unlink(unfinished, NULL);
        if (memory_too)
                fs_unlink(memory, NULL);
}

void suspend_files_set_aside(const struct project *p) {
        _cleanup_free_ char *memory = memory_path(p->vm_dir), *aside = set_aside_path(p);
        rename(memory, aside);
}

void suspend_files_sweep(const struct project *p) {
        _cleanup_free_ char *aside = set_aside_path(p);
        fs_unlink(aside, NULL);
}
