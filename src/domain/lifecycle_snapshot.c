/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/supervisor.h>

#include "lifecycle_internal.h"
#include "suspend_internal.h"

#define SNAPSHOT_TIMEOUT_MS (2U * 60 * 1000)
#define MONITOR_TIMEOUT_MS 5000

/* Of a VM that runs: its supervisor saves memory and devices, and has QEMU mark the disk. */
static int save_running(const struct lifecycle *l, const struct state *s, const struct process *vm,
                        struct suspended *ret, struct error *err) {
        lifecycle_sync_guest(l, s);
        int r = supervisor_adopt(l->project, s, vm, err);
        _cleanup_json_ struct json *answer = NULL;
        if (r == 0)
                r = supervisor_ask(l->project, s->uuid, "snapshot", SNAPSHOT_TIMEOUT_MS, &answer, err);
        if (r < 0)
                return r;
        *ret = (struct suspended){.kind = SUSPENDED_IN_FILES,
                                  .tag = xstrdup(json_string(json_get(answer, "tag"))),
                                  .time_ms = wall_ms(),
                                  .bytes = json_u64_or(json_get(answer, "bytes"), 0)};
        for (const struct json *line = json_first(json_get(answer, "machine")); line; line = json_next(line))
                strv_push(&ret->machine, json_string_or(line, ""));
        return ret->tag ? 0 : err_set(err, ERR_FAILED, EPROTO, "the supervisor does not say what it saved");
}

/* Of a VM that does not run. */
static int save_down(const struct lifecycle *l, const char *folder, struct suspended *ret, struct error *err) {
        const struct project *p = l->project;
        _cleanup_suspended_ struct suspended s = {.kind = SUSPENDED_NOT};
        bool suspended = suspend_exists(p);
        int r = suspended ? suspend_load(p, &s, err) : 0;
        if (r == 0 && s.kind == SUSPENDED_IN_DISK) {
                r = err_set(err, ERR_STATE, EBUSY, "the VM is suspended in a way that a snapshot cannot keep");
                err_hint(err, "start it first: k3s-vm start");
        }
        if (r == 0 && suspended)
                r = suspend_files_share(p->vm_dir, folder, err);
        if (r < 0)
                return r;
        free(s.tag);
        s.time_ms = wall_ms();
        s.tag = xasprintf(SNAPSHOT_TAG "%llu", (unsigned long long)s.time_ms);
        strv_free(&s.files);
        r = qemu_snapshot_disk(p->data_disk, QEMU_SNAPSHOT_CREATE, s.tag, err);
        if (r == 0 && suspended)
                r = suspend_refresh(p, err);
        if (r < 0)
                return r;
        *ret = s;
        s = (struct suspended){0};
        return 0;
}

int lifecycle_snapshot_save(const struct lifecycle *l, struct state *s, const char *name, struct error *err) {
        const struct project *p = l->project;
        _cleanup_free_ char *folder = snapshot_folder(p, name), *new = snapshot_folder(p, SNAPSHOT_NEW);
        if (fs_exists(folder)) {
                int r = err_set(err, ERR_USAGE, EEXIST, "there is a snapshot \"%s\" already", name);
                err_hint(err, "remove it, k3s-vm snapshot delete %s, or choose another name", name);
                return r;
        }
        _cleanup_process_ struct process vm = PROCESS_INIT;
        int r = vm_find(p, s, &vm, NULL) == 0 ? lifecycle_settle(l, s, &vm, err) : 0;
        if (r == 0)
                r = fs_remove_tree(new, err);
        if (r == 0)
                r = fs_mkdir_p(new, 0700, err);
        _cleanup_suspended_ struct suspended state = {0};
        if (r == 0)
                r = vm.pidfd >= 0 ? save_running(l, s, &vm, &state, err) : save_down(l, new, &state, err);
        if (r == 0) {
                state.disk_gib = s->disk_gib;
                r = suspend_write_record(new, &state, true, err);
        }
        if (r == 0 && rename(new, folder) < 0)
                r = err_errno(err, errno, "cannot keep the snapshot in %s", folder);
        if (r < 0)
                fs_remove_tree(new, NULL);
        return r < 0 ? err_wrap(err, r, "cannot save the snapshot") : 0;
}

int lifecycle_snapshot_restore(const struct lifecycle *l, struct state *s, const char *name, bool *ret_was_running,
                               struct error *err) {
        const struct project *p = l->project;
        _cleanup_free_ char *folder = snapshot_folder(p, name);
        _cleanup_suspended_ struct suspended state = {0};
        _cleanup_process_ struct process vm = PROCESS_INIT;
        int r = snapshot_load(p, name, &state, err);
        if (r < 0)
                return r;
        *ret_was_running = vm_find(p, s, &vm, NULL) == 0;
        r = lifecycle_save_intent(l, s, "stopped", err);
        /* One that is killed before QEMU is gone leaves a VM that is suspended into its disk the next time. */
        if (r == 0 && *ret_was_running)
                suspend_files_set_aside(p);
        if (r == 0)
                r = *ret_was_running ? vm_end(p, s, &vm, false, 0, l->progress, err) : supervisor_end(p, 0, err);
        if (r == 0)
                r = suspend_forget(p, err);
        if (!*ret_was_running)
                suspend_files_sweep(p);
        if (r == 0)
                r = qemu_snapshot_disk(p->data_disk, QEMU_SNAPSHOT_APPLY, state.tag, err);
        if (r == 0 && state.kind == SUSPENDED_IN_FILES)
                r = suspend_install(p, folder, &state, err);
        if (r < 0) {
                err_wrap(err, r, "cannot restore the snapshot");
                return r;
        }
        if (state.disk_gib > 0)
                s->disk_gib = state.disk_gib;
        return state_save(p, s, err);
}

int lifecycle_snapshot_delete(const struct lifecycle *l, const struct state *s, const char *name, struct error *err) {
        const struct project *p = l->project;
        _cleanup_free_ char *folder = snapshot_folder(p, name);
        _cleanup_suspended_ struct suspended state = {0};
        int r = snapshot_load(p, name, &state, err);
        if (r < 0 && r != -EUCLEAN)
                return r;
        error_clear(err);
        /* Without its folder it is none, whatever happens next. */
        r = fs_remove_tree(folder, err);
        _cleanup_process_ struct process vm = PROCESS_INIT;
        if (r < 0 || !state.tag)
                return r;
        if (vm_find(p, s, &vm, NULL) == 0) {
                _cleanup_qmp_ struct qmp *q = NULL;
                r = vm_connect(p, s, MONITOR_TIMEOUT_MS, &q, err);
                return r < 0 ? r : suspend_disk_unmark(q, state.tag, err);
        }
        bool suspended = suspend_exists(p);
        r = qemu_snapshot_disk(p->data_disk, QEMU_SNAPSHOT_DELETE, state.tag, err);
        return r == 0 && suspended ? suspend_refresh(p, err) : r;
}
