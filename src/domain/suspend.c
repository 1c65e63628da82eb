/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/supervisor.h>

#include "suspend_internal.h"

#define SUSPEND_SCHEMA 1
#define SUSPEND_MAX_BYTES (256U * 1024)
#define NOT_SYNCED "\"synced\": 0"

static const char *const kinds[] = {
                [SUSPENDED_IN_FILES] = "files", [SUSPENDED_IN_DISK] = "disk", [SUSPENDED_NOT] = "off"};

void suspended_clear(struct suspended *s) {
        free(s->tag);
        free(s->boot_id);
        strv_free(&s->machine);
        strv_free(&s->files);
        *s = (struct suspended){0};
}

static char *suspend_path(const struct project *p) {
        return path_join(p->vm_dir, SUSPEND_RECORD);
}

bool suspend_exists(const struct project *p) {
        _cleanup_free_ char *path = suspend_path(p);
        return fs_exists(path);
}

static void read_lines(const struct json *list, struct strv *ret) {
        for (const struct json *line = json_first(list); line; line = json_next(line))
                if (json_string(line))
                        strv_push(ret, json_string(line));
}

static bool read_kind(const struct json *j, enum suspended_kind *ret) {
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                if (str_eq(json_string(json_get(j, "kind")), kinds[i])) {
                        *ret = (enum suspended_kind)i;
                        return true;
                }
        return false;
}

int suspend_read_record(const char *folder, struct suspended *ret, struct error *err) {
        _cleanup_free_ char *path = path_join(folder, SUSPEND_RECORD);
        _cleanup_json_ struct json *j = NULL;
        _cleanup_error_ struct error cause = ERROR_INIT;
        int r = json_read_file(path, SUSPEND_MAX_BYTES, &j, &cause);
        if (r == -ENOENT)
                return err_move(err, &cause);
        _cleanup_suspended_ struct suspended s = {
                        .tag = xstrdup(json_string(json_get(j, "tag"))),
                        .time_ms = json_u64_or(json_get(j, "time"), 0),
                        .bytes = json_u64_or(json_get(j, "bytes"), 0),
                        .disk_gib = (unsigned)json_u64_or(json_get(j, "disk_gib"), 0),
                        .boot_id = xstrdup(json_string(json_get(j, "boot_id"))),
                        .synced = json_u64_or(json_get(j, "synced"), 0) == 1,
        };
        read_lines(json_get(j, "machine"), &s.machine);
        read_lines(json_get(j, "files"), &s.files);
        bool known = json_u64_or(json_get(j, "schema"), 0) == SUSPEND_SCHEMA && read_kind(j, &s.kind);
        if (r < 0 || !known || !s.tag || (s.machine.len == 0 && s.kind != SUSPENDED_NOT))
                return err_set(err, ERR_FAILED, EUCLEAN, "%s is damaged", path);
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

int suspend_load(const struct project *p, struct suspended *ret, struct error *err) {
        _cleanup_suspended_ struct suspended s = {0};
        int r = suspend_read_record(p->vm_dir, &s, err);
        if (r < 0)
                return r;
        if (!str_starts(s.tag, SUSPEND_TAG) || s.kind == SUSPENDED_NOT ||
            (s.kind == SUSPENDED_IN_FILES && s.files.len == 0))
                return err_set(err, ERR_FAILED, EUCLEAN, SUSPEND_RECORD " is damaged");
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

static void set_lines(struct json *j, const char *key, const struct strv *lines) {
        struct json *list = json_set_array(j, key);
        for (size_t i = 0; i < lines->len; i++)
                json_append_string(list, lines->items[i]);
}

int suspend_write_record(const char *folder, const struct suspended *s, bool durable, struct error *err) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", SUSPEND_SCHEMA);
        json_set_string(j, "kind", kinds[s->kind]);
        json_set_string(j, "tag", s->tag);
        json_set_number(j, "time", (double)s->time_ms);
        json_set_number(j, "bytes", (double)s->bytes);
        json_set_number(j, "disk_gib", s->disk_gib);
        json_set_string(j, "boot_id", s->boot_id);
        json_set_number(j, "synced", durable);
        set_lines(j, "machine", &s->machine);
        set_lines(j, "files", &s->files);
        _cleanup_free_ char *text = json_print(j, true), *path = path_join(folder, SUSPEND_RECORD);
        /* Files that are not on the disk yet are good for as long as this machine runs: so may their record be. */
        return durable ? fs_write_atomic(path, text, strlen(text), 0600, err)
                       : fs_write_cache(path, text, strlen(text), 0600, err);
}

static int remove_record(const struct project *p, struct error *err) {
        _cleanup_free_ char *path = suspend_path(p);
        if (unlink(path) < 0)
                return errno == ENOENT ? 0 : err_errno(err, errno, "cannot remove %s", path);
        _cleanup_close_ int dir = open(p->vm_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || fsync(dir) < 0)
                return err_errno(err, errno, "cannot remove %s for good", path);
        return 0;
}

int suspend_forget(const struct project *p, struct error *err) {
        int r = remove_record(p, err);
        if (r < 0)
                return r;
        suspend_files_set_aside(p);
        suspend_files_remove(p, false);
        return 0;
}

void suspend_tidy(const struct project *p) {
        if (!suspend_exists(p))
                suspend_files_remove(p, true);
}

int suspend_sweep(const struct project *p, struct qmp *q, struct error *err) {
        return suspend_exists(p) ? 0 : suspend_disk_sweep(q, err);
}

/* What a machine of this QEMU with this command line is. */
static int ask_machine(struct qmp *q, const struct strv *argv, struct strv *ret, struct error *err) {
        _cleanup_json_ struct json *version = NULL;
        int r = qmp_call(q, "query-version", NULL, SUSPEND_QMP_TIMEOUT_MS, &version, err);
        if (r < 0)
                return r;
        const struct json *number = json_get(version, "qemu");
        _cleanup_free_ char *text = xasprintf("%u.%u.%u%s", (unsigned)json_u64_or(json_get(number, "major"), 0),
                                              (unsigned)json_u64_or(json_get(number, "minor"), 0),
                                              (unsigned)json_u64_or(json_get(number, "micro"), 0),
                                              json_string_or(json_get(version, "package"), ""));
        suspend_machine(argv, text, ret);
        return 0;
}

static int save_in_disk(const struct project *p, struct qmp *q, struct suspended *s, struct error *err) {
        int r = suspend_sweep(p, q, err);
        if (r == 0)
                r = suspend_disk_save(q, s->tag, &s->bytes, err);
        s->kind = SUSPENDED_IN_DISK;
        s->written = s->bytes;
        return r;
}

int suspend_save(const struct project *p, struct qmp *q, pid_t pid, const struct strv *argv, struct suspended *ret,
                 struct error *err) {
        uint64_t now = wall_ms();
        _cleanup_suspended_ struct suspended s = {.time_ms = now, .boot_id = proc_boot_id()};
        s.tag = xasprintf(SUSPEND_TAG "%llu", (unsigned long long)now);
        int r = ask_machine(q, argv, &s.machine, err);
        if (r < 0)
                return r;
        _cleanup_error_ struct error why = ERROR_INIT;
        r = suspend_files_save(p, p->vm_dir, q, pid, argv, &s, &why);
        if (r == 0)
                suspend_files_identify(p, &s.files);
        if (r == -ENOSPC)
                err_move(err, &why); /* nor would there be room in the disk */
        else if (r < 0) {
                struct json *fields = json_new_object();
                json_set_string(fields, "why", why.message);
                events_append(p, "suspends-into-disk", fields);
                r = save_in_disk(p, q, &s, err);
        }
        if (r == 0)
                r = suspend_write_record(p->vm_dir, &s, s.kind == SUSPENDED_IN_DISK, err);
        if (r < 0) {
                remove_record(p, NULL);
                if (s.kind == SUSPENDED_IN_DISK)
                        suspend_sweep(p, q, NULL);
                return r;
        }
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

int suspend_snapshot(const struct project *p, const char *folder, struct qmp *q, pid_t pid, const struct strv *argv,
                     struct suspended *ret, struct error *err) {
        uint64_t now = wall_ms();
        _cleanup_suspended_ struct suspended s = {.time_ms = now};
        s.tag = xasprintf(SNAPSHOT_TAG "%llu", (unsigned long long)now);
        int r = ask_machine(q, argv, &s.machine, err);
        if (r == 0)
                r = suspend_files_save(p, folder, q, pid, argv, &s, err);
        if (r == 0)
                r = suspend_disk_mark(q, s.tag, err);
        if (r < 0)
                return r;
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

int suspend_install(const struct project *p, const char *folder, const struct suspended *from, struct error *err) {
        uint64_t now = wall_ms();
        _cleanup_suspended_ struct suspended s = {.kind = SUSPENDED_IN_FILES,
                                                  .time_ms = from->time_ms,
                                                  .bytes = from->bytes,
                                                  .disk_gib = from->disk_gib,
                                                  .boot_id = proc_boot_id()};
        s.tag = xasprintf(SUSPEND_TAG "%llu", (unsigned long long)now);
        strv_extend(&s.machine, (const char *const *)from->machine.items);
        int r = suspend_files_share(folder, p->vm_dir, err);
        if (r < 0)
                return r;
        suspend_files_identify(p, &s.files);
        return suspend_write_record(p->vm_dir, &s, false, err);
}

int suspend_refresh(const struct project *p, struct error *err) {
        _cleanup_suspended_ struct suspended s = {0};
        int r = suspend_load(p, &s, err);
        if (r < 0 || s.kind != SUSPENDED_IN_FILES)
                return r;
        strv_free(&s.files);
        suspend_files_identify(p, &s.files);
        return suspend_write_record(p->vm_dir, &s, s.synced, err);
}

/* Marks the record as good after a reboot of this machine, too: in place, so that one that was used up meanwhile does
 * not come back. */
static int mark_synced(const struct project *p, const char *tag, struct error *err) {
        _cleanup_free_ char *path = suspend_path(p);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : err_errno(err, errno, "cannot open %s", path);
        _cleanup_free_ char *text = xcalloc(1, SUSPEND_MAX_BYTES + 1);
        ssize_t n = pread(fd, text, SUSPEND_MAX_BYTES, 0);
        const char *at = n > 0 && strstr(text, tag) ? strstr(text, NOT_SYNCED) : NULL;
        if (!at)
                return 0;
        _cleanup_close_ int dir = open(p->vm_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        off_t offset = (off_t)(at - text) + (off_t)strlen(NOT_SYNCED) - 1;
        if (fsync(fd) < 0 || dir < 0 || fsync(dir) < 0 || pwrite(fd, "1", 1, offset) != 1 || fsync(fd) < 0)
                return err_errno(err, errno, "cannot write out %s", path);
        return 0;
}

int suspend_sync(const struct project *p, const struct suspended *s, struct error *err) {
        if (s->kind == SUSPENDED_IN_DISK)
                return 0;
        int r = suspend_files_sync(p, err);
        return r < 0 ? r : mark_synced(p, s->tag, err);
}

void suspend_consumed(const struct project *p, const struct suspended *s) {
        suspend_files_remove(p, s->kind == SUSPENDED_IN_DISK);
}

static bool same_lines(const struct strv *a, const struct strv *b) {
        bool same = a->len == b->len;
        for (size_t i = 0; same && i < a->len; i++)
                same = str_eq(a->items[i], b->items[i]);
        return same;
}

/* @machine's line for QEMU itself is left out: which one it is shows when it runs. */
static char *difference_but_qemu(const struct suspended *s, const struct strv *argv) {
        _cleanup_strv_ struct strv machine = {0};
        const char *version = strchr(s->machine.items[0], ' ');
        suspend_machine(argv, version ? version + 1 : "", &machine);
        return suspend_difference(&s->machine, &machine);
}

int suspend_check(const struct project *p, const struct strv *argv, struct suspended *ret, struct error *err) {
        _cleanup_suspended_ struct suspended s = {0};
        int r = suspend_load(p, &s, err);
        if (r < 0)
                return err_set(err, ERR_FAILED, ESTALE, "suspend.json is damaged");
        _cleanup_strv_ struct strv files = {0};
        _cleanup_free_ char *boot_id = proc_boot_id();
        if (s.kind == SUSPENDED_IN_FILES)
                suspend_files_identify(p, &files);
        if (!s.synced && s.kind == SUSPENDED_IN_FILES && !str_eq(s.boot_id, boot_id))
                return err_set(err, ERR_FAILED, ESTALE, "this machine went down before the state was on its disk");
        _cleanup_free_ char *difference = difference_but_qemu(&s, argv);
        if (difference)
                return err_set(err, ERR_FAILED, ESTALE, "%s", difference);
        if (!same_lines(&s.files, &files))
                return err_set(err, ERR_FAILED, ESTALE, "the VM's disk or the state's files were changed");
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

int suspend_resume(const struct project *p, struct qmp *q, const struct suspended *s, const struct strv *argv,
                   struct error *err) {
        _cleanup_strv_ struct strv machine = {0};
        int r = ask_machine(q, argv, &machine, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *difference = suspend_difference(&s->machine, &machine);
        if (difference)
                return err_set(err, ERR_FAILED, ESTALE, "%s", difference);
        r = s->kind == SUSPENDED_IN_FILES ? suspend_files_load(q, err) : suspend_disk_load(q, s->tag, err);
        if (r == 0)
                r = remove_record(p, err);
        return r;
}
