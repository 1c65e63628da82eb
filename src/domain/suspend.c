/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/suspend.h>

#define SUSPEND_SCHEMA 1
#define SUSPEND_MAX_BYTES (256U * 1024)
#define TAG_PREFIX "k3s-vm-suspend-"
#define QMP_TIMEOUT_MS 5000
#define JOB_TIMEOUT_MS (10U * 60 * 1000) /* gigabytes on a slow disk */
#define DATA_NODE "data"                 /* qemu.c */
#define SNAPSHOTS_MAX 16

void suspended_clear(struct suspended *s) {
        free(s->tag);
        strv_free(&s->machine);
        *s = (struct suspended){0};
}

static char *suspend_path(const struct project *p) {
        return path_join(p->vm_dir, "suspend.json");
}

bool suspend_exists(const struct project *p) {
        _cleanup_free_ char *path = suspend_path(p);
        return fs_exists(path);
}

int suspend_load(const struct project *p, struct suspended *ret, struct error *err) {
        _cleanup_free_ char *path = suspend_path(p);
        _cleanup_json_ struct json *j = NULL;
        _cleanup_error_ struct error cause = ERROR_INIT;
        int r = json_read_file(path, SUSPEND_MAX_BYTES, &j, &cause);
        if (r == -ENOENT)
                return err_move(err, &cause);
        _cleanup_suspended_ struct suspended s = {
                        .tag = xstrdup(json_string(json_get(j, "tag"))),
                        .time_ms = json_u64_or(json_get(j, "time"), 0),
                        .bytes = json_u64_or(json_get(j, "bytes"), 0),
        };
        for (const struct json *line = json_first(json_get(j, "machine")); line; line = json_next(line))
                if (json_string(line))
                        strv_push(&s.machine, json_string(line));
        bool known = json_u64_or(json_get(j, "schema"), 0) == SUSPEND_SCHEMA;
        if (r < 0 || !known || !s.tag || !str_starts(s.tag, TAG_PREFIX) || s.machine.len == 0)
                return err_set(err, ERR_FAILED, EUCLEAN, "%s is damaged", path);
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

static int suspend_write(const struct project *p, const struct suspended *s, struct error *err) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", SUSPEND_SCHEMA);
        json_set_string(j, "tag", s->tag);
        json_set_number(j, "time", (double)s->time_ms);
        json_set_number(j, "bytes", (double)s->bytes);
        struct json *machine = json_set_array(j, "machine");
        for (size_t i = 0; i < s->machine.len; i++)
                json_append_string(machine, s->machine.items[i]);
        _cleanup_free_ char *text = json_print(j, true), *path = suspend_path(p);
        return fs_write_atomic(path, text, strlen(text), 0600, err);
}

int suspend_forget(const struct project *p, struct error *err) {
        _cleanup_free_ char *path = suspend_path(p);
        if (unlink(path) < 0)
                return errno == ENOENT ? 0 : err_errno(err, errno, "cannot remove %s", path);
        _cleanup_close_ int dir = open(p->vm_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || fsync(dir) < 0)
                return err_errno(err, errno, "cannot remove %s for good", path);
        return 0;
}

/* What a machine of this QEMU with this command line is. */
static int ask_machine(struct qmp *q, const struct strv *argv, struct strv *ret, struct error *err) {
        _cleanup_json_ struct json *version = NULL;
        int r = qmp_call(q, "query-version", NULL, QMP_TIMEOUT_MS, &version, err);
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

/* One of the snapshot-* jobs. Only the VM's own disk takes part: the others are read-only. */
static int run_job(struct qmp *q, const char *command, const char *tag, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_string(arguments, "tag", tag);
        if (!str_eq(command, "snapshot-delete"))
                json_set_string(arguments, "vmstate", DATA_NODE);
        json_append_string(json_set_array(arguments, "devices"), DATA_NODE);
        return qmp_job(q, command, arguments, JOB_TIMEOUT_MS, err);
}

/* The snapshots in the VM's disk, by a look at QEMU's block nodes; borrowed from @nodes, NULL: there are none. */
static const struct json *snapshots(const struct json *nodes) {
        for (const struct json *n = json_first(nodes); n; n = json_next(n))
                if (str_eq(json_string(json_get(n, "node-name")), DATA_NODE))
                        return json_get(n, "image", "snapshots");
        return NULL;
}

static int ask_nodes(struct qmp *q, struct json **ret, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_bool(arguments, "flat", true);
        return qmp_call(q, "query-named-block-nodes", arguments, QMP_TIMEOUT_MS, ret, err);
}

/* The snapshot named @tag, or NULL. */
static const struct json *find_snapshot(const struct json *nodes, const char *tag) {
        for (const struct json *s = json_first(snapshots(nodes)); s; s = json_next(s))
                if (str_eq(json_string(json_get(s, "name")), tag))
                        return s;
        return NULL;
}

int suspend_sweep(const struct project *p, struct qmp *q, struct error *err) {
        _cleanup_json_ struct json *nodes = NULL;
        int r = suspend_exists(p) ? 0 : ask_nodes(q, &nodes, err);
        for (const struct json *s = json_first(snapshots(nodes)); r == 0 && s; s = json_next(s)) {
                const char *name = json_string_or(json_get(s, "name"), "");
                if (str_starts(name, TAG_PREFIX))
                        r = run_job(q, "snapshot-delete", name, err);
        }
        return r;
}

int suspend_save(const struct project *p, struct qmp *q, const struct strv *argv, uint64_t *ret_bytes,
                 struct error *err) {
        uint64_t now = wall_ms();
        _cleanup_suspended_ struct suspended s = {.time_ms = now};
        s.tag = xasprintf(TAG_PREFIX "%llu", (unsigned long long)now);
        _cleanup_json_ struct json *nodes = NULL;
        int r = suspend_sweep(p, q, err);
        if (r == 0)
                r = ask_machine(q, argv, &s.machine, err);
        if (r == 0)
                r = run_job(q, "snapshot-save", s.tag, err);
        if (r == 0)
                r = ask_nodes(q, &nodes, err);
        if (r == 0) {
                s.bytes = json_u64_or(json_get(find_snapshot(nodes, s.tag), "vm-state-size"), 0);
                r = suspend_write(p, &s, err);
        }
        if (r < 0) {
                suspend_forget(p, NULL);
                suspend_sweep(p, q, NULL);
                return r;
        }
        *ret_bytes = s.bytes;
        return 0;
}

/* Whether the state is this machine's and in this disk; -ESTALE. */
static int check_fits(struct qmp *q, const struct suspended *s, const struct strv *argv, struct error *err) {
        _cleanup_strv_ struct strv machine = {0};
        _cleanup_json_ struct json *nodes = NULL;
        int r = ask_machine(q, argv, &machine, err);
        if (r == 0)
                r = ask_nodes(q, &nodes, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *difference = suspend_difference(&s->machine, &machine);
        if (difference)
                return err_set(err, ERR_FAILED, ESTALE, "%s", difference);
        if (!find_snapshot(nodes, s->tag))
                return err_set(err, ERR_FAILED, ESTALE, "the disk has no such state in it");
        return 0;
}

int suspend_resume(const struct project *p, struct qmp *q, const struct strv *argv, struct error *err) {
        _cleanup_suspended_ struct suspended s = {0};
        int r = suspend_load(p, &s, err);
        if (r < 0)
                return err_set(err, ERR_FAILED, ESTALE, "suspend.json is damaged");
        r = check_fits(q, &s, argv, err);
        if (r == 0)
                r = run_job(q, "snapshot-load", s.tag, err);
        if (r == 0)
                r = suspend_forget(p, err);
        return r;
}
