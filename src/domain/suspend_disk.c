/* SPDX-License-Identifier: MIT */
/* A state as a snapshot in the VM's own disk (qcow2), by QEMU's jobs: wherever QEMU runs, but every byte is copied
 * twice and it takes seconds. */
#include <errno.h>
#include <string.h>

#include "suspend_internal.h"

#define JOB_TIMEOUT_MS (10U * 60 * 1000) /* gigabytes on a slow disk */
#define DATA_NODE "data"                 /* qemu.c */

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
        return qmp_call(q, "query-named-block-nodes", arguments, SUSPEND_QMP_TIMEOUT_MS, ret, err);
}

/* The snapshot named @tag, or NULL. */
static const struct json *find_snapshot(const struct json *nodes, const char *tag) {
        for (const struct json *s = json_first(snapshots(nodes)); s; s = json_next(s))
                if (str_eq(json_string(json_get(s, "name")), tag))
                        return s;
        return NULL;
}

int suspend_disk_sweep(struct qmp *q, struct error *err) {
        _cleanup_json_ struct json *nodes = NULL;
        int r = ask_nodes(q, &nodes, err);
        for (const struct json *s = json_first(snapshots(nodes)); r == 0 && s; s = json_next(s)) {
                const char *name = json_string_or(json_get(s, "name"), "");
                if (str_starts(name, SUSPEND_TAG))
                        r = run_job(q, "snapshot-delete", name, err);
        }
        return r;
}

int suspend_disk_save(struct qmp *q, const char *tag, uint64_t *ret_bytes, struct error *err) {
        _cleanup_json_ struct json *nodes = NULL;
        int r = run_job(q, "snapshot-save", tag, err);
        if (r == 0)
                r = ask_nodes(q, &nodes, err);
        if (r == 0)
                *ret_bytes = json_u64_or(json_get(find_snapshot(nodes, tag), "vm-state-size"), 0);
        return r;
}

int suspend_disk_mark(struct qmp *q, const char *tag, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_string(arguments, "device", DATA_NODE);
        json_set_string(arguments, "name", tag);
        return qmp_call(q, "blockdev-snapshot-internal-sync", arguments, SUSPEND_QMP_TIMEOUT_MS, NULL, err);
}

int suspend_disk_unmark(struct qmp *q, const char *tag, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_string(arguments, "device", DATA_NODE);
        json_set_string(arguments, "name", tag);
        return qmp_call(q, "blockdev-snapshot-delete-internal-sync", arguments, SUSPEND_QMP_TIMEOUT_MS, NULL, err);
}

int suspend_disk_load(struct qmp *q, const char *tag, struct error *err) {
        _cleanup_json_ struct json *nodes = NULL;
        int r = ask_nodes(q, &nodes, err);
        if (r < 0)
                return r;
        if (!find_snapshot(nodes, tag))
                return err_set(err, ERR_FAILED, ESTALE, "the disk has no such state in it");
        return run_job(q, "snapshot-load", tag, err);
}
