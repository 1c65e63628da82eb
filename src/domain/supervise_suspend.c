/* SPDX-License-Identifier: MIT */
/*
 * The supervisor saves the VM's state and loads it: it is there for the whole of it, whatever becomes of the command
 * that asked. Its loop stands still meanwhile, as the guest does.
 */
#include <errno.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/suspend.h>

#include "supervise_internal.h"

#define SWEEP_AFTER_MS 5000  /* of a VM that was resumed or booted: its user comes first */
#define CLOCK_AFTER_MS 10000 /* whoever resumed it sets the guest's clock at once, or was killed */

static int on_sweep_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (v->qmp && suspend_sweep(v->project, v->qmp, &err) < 0)
                supervise_note_text(v, "state-not-removed", "why", err.message);
        return 0;
}

static int on_resumed_timer(struct loop *loop, void *userdata) {
        (void)loop;
        supervise_set_clock(userdata);
        return 0;
}

int supervise_suspend_begin(struct supervisor *v, struct error *err) {
        int r = loop_add_timer(v->loop, 0, 0, on_sweep_timer, v, &v->sweep_timer, err);
        return r < 0 ? r : loop_add_timer(v->loop, 0, 0, on_resumed_timer, v, &v->resumed_timer, err);
}

void supervise_suspend_started(struct supervisor *v) {
        loop_arm(v->sweep_timer, SWEEP_AFTER_MS, 0);
        if (v->resumed)
                loop_arm(v->resumed_timer, CLOCK_AFTER_MS, 0);
}

static int query_status(struct supervisor *v, struct json **ret, struct error *err) {
        if (!v->qmp)
                return err_set(err, ERR_FAILED, ENOTCONN, "QEMU's monitor is not heard at the moment");
        return qmp_call(v->qmp, "query-status", NULL, QMP_TIMEOUT_MS, ret, err);
}

/* As large as the state can get: what the guest has touched of its memory, or since it was resumed. */
static int check_room(const struct supervisor *v, uint64_t more, struct error *err) {
        uint64_t memory_kib = 0, room = 0;
        int r = fs_free_bytes(v->project->vm_dir, &room, err);
        if (r < 0)
                return r;
        proc_anonymous_kib(v->pid, &memory_kib);
        uint64_t need = memory_kib * 1024 + more + SUSPEND_HEADROOM_BYTES;
        if (room >= need)
                return 0;
        _cleanup_free_ char *have = str_bytes(room), *want = str_bytes(need);
        return err_set(err, ERR_HOST, ENOSPC, "%s free in %s, and the state may take %s", have, v->project->vm_dir,
                       want);
}

/* @more: bytes beside what the guest has touched. @ret_ran: it was not paused already. */
static int make_still(struct supervisor *v, uint64_t more, bool *ret_ran, struct error *err) {
        _cleanup_json_ struct json *status = NULL;
        int r = query_status(v, &status, err);
        const char *text = json_string_or(json_get(status, "status"), "");
        /* One that was paused by hand, or by a save that was cut off, can be saved as it is. */
        *ret_ran = str_eq(text, "running");
        if (r == 0 && !*ret_ran && !str_eq(text, "paused"))
                r = err_set(err, ERR_STATE, EBUSY, "the guest is in the state \"%s\"", text);
        if (r == 0)
                r = check_room(v, more, err);
        if (r == 0 && *ret_ran)
                r = qmp_call(v->qmp, "stop", NULL, QMP_TIMEOUT_MS, NULL, err);
        return r;
}

struct json *supervise_snapshot(struct supervisor *v, struct error *err) {
        _cleanup_free_ char *folder = snapshot_folder(v->project, SNAPSHOT_NEW);
        _cleanup_suspended_ struct suspended saved = {0};
        uint64_t begin = now_ms();
        bool ran = false;
        int r = make_still(v, suspend_files_copied(v->project, true), &ran, err);
        if (r == 0)
                r = suspend_snapshot(v->project, folder, v->qmp, v->pid, &v->launch.argv, &saved, err);
        if (ran)
                qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        if (r < 0) {
                supervise_note_text(v, "no-snapshot", "why", err->message);
                return NULL;
        }
        struct json *answer = json_new_object();
        json_set_string(answer, "tag", saved.tag);
        json_set_number(answer, "bytes", (double)saved.bytes);
        json_set_number(answer, "save_ms", (double)(now_ms() - begin));
        supervise_note(v, "snapshot", json_copy(answer));
        struct json *machine = json_set_array(answer, "machine");
        for (size_t i = 0; i < saved.machine.len; i++)
                json_append_string(machine, saved.machine.items[i]);
        return answer;
}

struct json *supervise_suspend(struct supervisor *v, struct error *err) {
        bool ran = false;
        int r = make_still(v, suspend_files_copied(v->project, false), &ran, err);
        uint64_t begin = now_ms();
        if (r == 0) {
                r = suspend_save(v->project, v->qmp, v->pid, &v->launch.argv, &v->state, err);
                /* A state that may still be taken for a good one must not be left behind. */
                if (r < 0 && !suspend_exists(v->project))
                        qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        }
        if (r < 0) {
                supervise_note_text(v, "not-suspended", "why", err->message);
                return NULL;
        }
        struct json *saved = json_new_object();
        json_set_number(saved, "bytes", (double)v->state.bytes);
        json_set_number(saved, "written_bytes", (double)v->state.written);
        json_set_number(saved, "save_ms", (double)(now_ms() - begin));
        supervise_note(v, "suspended", json_copy(saved));
        qmp_call(v->qmp, "quit", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        return saved;
}

struct json *supervise_unsuspend(struct supervisor *v, struct error *err) {
        _cleanup_json_ struct json *status = NULL;
        int r = query_status(v, &status, err);
        /* Nobody came to write down that the state is whole, so it is not, and the guest is where it was. */
        if (r == 0 && suspend_exists(v->project))
                r = err_set(err, ERR_STATE, EBUSY, "the VM's state is saved");
        if (r == 0 && str_eq(json_string(json_get(status, "status")), "paused")) {
                r = qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, err);
                if (r == 0)
                        supervise_note(v, "repair:went-on-after-unfinished-save", NULL);
                supervise_suspend_started(v);
        }
        return r < 0 ? NULL : json_new_object();
}

int supervise_resume_failed(struct supervisor *v, const struct error *why, struct error *err) {
        v->not_resumed = xstrdup(why->message);
        supervise_note_text(v, "not-resumed", "why", why->message);
        suspended_clear(&v->state);
        /* Before anything runs that changes the disk. */
        return suspend_forget(v->project, err);
}

int supervise_resume_prepare(struct supervisor *v, struct error *err) {
        free(v->not_resumed);
        v->not_resumed = NULL;
        v->resumed = false;
        suspended_clear(&v->state);
        _cleanup_error_ struct error why = ERROR_INIT;
        if (!suspend_exists(v->project)) {
                suspend_tidy(v->project);
                return 0;
        }
        return suspend_check(v->project, &v->launch.argv, &v->state, &why) == 0 ? 0
                                                                                : supervise_resume_failed(v, &why, err);
}

/* Somebody took a port while QEMU started. The guest has run for a moment and its state is used up, so it is saved
 * anew: it is suspended as it was, and whoever asked learns why. */
static int suspend_again(struct supervisor *v, const struct error *why, struct error *err) {
        suspended_clear(&v->state);
        _cleanup_json_ struct json *saved = supervise_suspend(v, err);
        return saved ? err_set(err, ERR_PORT, EADDRINUSE, "%s", why->message) : -EAGAIN;
}

int supervise_resume(struct supervisor *v, struct error *err) {
        if (!v->state.tag)
                return 0;
        _cleanup_error_ struct error why = ERROR_INIT;
        bool in_disk = v->state.kind == SUSPENDED_IN_DISK;
        uint64_t begin = now_ms();
        int r = suspend_resume(v->project, v->qmp, &v->state, &v->launch.argv, &why);
        if (r == 0)
                r = qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, &why);
        if (r == 0)
                suspend_consumed(v->project, &v->state);
        if (r == 0 && !in_disk) {
                r = suspend_files_forward(v->qmp, &v->launch.argv, &why);
                if (r < 0 && suspend_again(v, &why, err) == -EADDRINUSE)
                        return -EADDRINUSE;
        }
        if (r < 0) {
                int forgotten = supervise_resume_failed(v, &why, err);
                return forgotten < 0 ? forgotten : r == -ESTALE && in_disk ? 0 : -EAGAIN;
        }
        suspended_clear(&v->state);
        v->resumed = true;
        struct json *fields = json_new_object();
        json_set_number(fields, "load_ms", (double)(now_ms() - begin));
        supervise_note(v, "resumed", fields);
        return 1;
}

void supervise_suspend_end(struct supervisor *v) {
        if (!v->state.tag || v->qemu.pidfd >= 0)
                return;
        control_free(v->control);
        v->control = NULL;
        starter_end(&v->starter);
        closep_(&v->lock_fd);
        v->lock_fd = -1;
        uint64_t begin = now_ms();
        _cleanup_error_ struct error err = ERROR_INIT;
        struct json *fields = json_new_object();
        if (suspend_sync(v->project, &v->state, &err) < 0)
                json_set_string(fields, "why", err.message);
        else
                json_set_number(fields, "sync_ms", (double)(now_ms() - begin));
        events_append(v->project, err.message ? "state-not-written-out" : "state-written-out", fields);
}
