/* SPDX-License-Identifier: MIT */
/*
 * The supervisor and its QEMU: what its monitor says, the monitor lost and found, QEMU's end and its restart. The
 * monitor is always read before QEMU's end is judged: QEMU says why it goes just before it does.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/vm.h>

#include "supervise_internal.h"

#define RESUME_FIRST_MS 2000 /* after a pause for a failed write; doubled up to HOUSEKEEPING_MS */
#define RESUME_FREE_BYTES (64U * 1024 * 1024)
#define RESTARTS_WINDOW_MS (10U * 60 * 1000)
#define RESTART_FIRST_MS 1000 /* doubled with every restart in the window */
#define REBOOT_MS 1           /* of a guest that was resumed: its firmware is another QEMU's */
#define MONITOR_FIRST_MS 1000 /* after it was lost; doubled up to HOUSEKEEPING_MS */
#define MONITOR_TIMEOUT_MS 1000
#define RESET_HEARD_MS 2000

static int on_qmp(struct loop *loop, int fd, uint32_t events, void *userdata);

static void on_qmp_event(const char *name, const struct json *data, uint64_t time_ms, void *userdata) {
        struct supervisor *v = userdata;
        if (str_eq(name, "JOB_STATUS_CHANGE"))
                return; /* several a job, and how the job went is written down by who began it */
        struct json *fields = json_new_object();
        json_set_number(fields, "qemu_ms", (double)time_ms);
        if (data)
                json_set(fields, "data", json_copy(data));
        _cleanup_free_ char *event = xasprintf("qmp:%s", name);
        supervise_note(v, event, fields);

        if (str_eq(name, "SHUTDOWN")) {
                free(v->shutdown_reason);
                v->shutdown_reason = xstrdup(json_string(json_get(data, "reason")));
        } else if (str_eq(name, "POWERDOWN"))
                v->powerdown = true;
        else if (str_eq(name, "GUEST_PANICKED"))
                v->panicked = true;
        else if (str_eq(name, "RESET") && json_bool_or(json_get(data, "guest"), false)) {
                /* Of one that was heard of late, nobody knows what it has said since. */
                if (wall_ms() < time_ms + RESET_HEARD_MS)
                        supervise_boot_begins(v, false);
                else
                        supervise_boot_ended(v);
        } else if (str_eq(name, "STOP"))
                v->paused_ms = now_ms();
        else if (str_eq(name, "RESUME")) {
                v->failed_write = false;
                /* What the guest calls now is when it was paused. */
                v->clock_wrong = v->clock_wrong || (v->paused_ms && now_ms() - v->paused_ms >= CLOCK_JUMP_MS);
                v->paused_ms = 0;
        } else if (str_eq(name, "BLOCK_IO_ERROR") && str_eq(json_string(json_get(data, "action")), "stop"))
                v->failed_write = true;
}

static void drop_qmp(struct supervisor *v) {
        loop_remove(v->qmp_source);
        v->qmp_source = NULL;
        qmp_free(v->qmp);
        v->qmp = NULL;
}

/* What the events since the last look ask for; calls QEMU, so not from within its event handler. */
static void react(struct supervisor *v) {
        if (v->qmp && v->panicked) {
                /* It can do nothing any more. Its last words are in serial.log. */
                qmp_call(v->qmp, "quit", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        } else if (v->failed_write && v->resume_delay_ms == 0) {
                v->resume_delay_ms = RESUME_FIRST_MS;
                loop_arm(v->resume_timer, v->resume_delay_ms, 0);
        }
        if (v->clock_wrong && v->qmp && !v->paused_ms) {
                v->clock_wrong = false;
                _cleanup_error_ struct error err = ERROR_INIT;
                if (starter_set_clock(&v->starter, &err) < 0)
                        supervise_note_text(v, "clock-not-set", "why", err.message);
        }
}

void supervise_set_clock(struct supervisor *v) {
        v->clock_wrong = true;
        react(v);
}

void supervise_monitor_lost(struct supervisor *v, const char *why) {
        supervise_note_text(v, "monitor-lost", "why", why);
        drop_qmp(v);
        /* Not from the start again for one that is lost again and again. */
        if (v->monitor_delay_ms == 0)
                v->monitor_delay_ms = MONITOR_FIRST_MS;
        loop_arm(v->monitor_timer, v->monitor_delay_ms, 0);
}

static int on_qmp(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        (void)fd;
        (void)events;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = qmp_process(v->qmp, &err);
        react(v);
        if (r < 0) {
                if (proc_alive(v->qemu.pidfd))
                        supervise_monitor_lost(v, err.message);
                else
                        drop_qmp(v);
        }
        return 0;
}

/* A VM that paused because the host could not take a write runs on once there is room. */
static int on_resume_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        if (!v->failed_write || !v->qmp) {
                v->resume_delay_ms = 0;
                return 0;
        }
        uint64_t room = 0;
        if (fs_free_bytes(v->project->vm_dir, &room, NULL) == 0 && room >= RESUME_FREE_BYTES &&
            qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, NULL) == 0)
                supervise_note(v, "repair:resumed-after-failed-write", NULL);
        /* Armed on: a write that fails again shows only then. */
        v->resume_delay_ms = v->resume_delay_ms * 2 < HOUSEKEEPING_MS ? v->resume_delay_ms * 2 : HOUSEKEEPING_MS;
        loop_arm(v->resume_timer, v->resume_delay_ms, 0);
        return 0;
}

static int on_qemu_gone(struct loop *loop, int fd, uint32_t events, void *userdata);
static int on_restart_timer(struct loop *loop, void *userdata);

static int watch_monitor(struct supervisor *v, struct error *err) {
        qmp_on_event(v->qmp, on_qmp_event, v);
        return loop_add_fd(v->loop, qmp_fd(v->qmp), EPOLLIN, on_qmp, v, &v->qmp_source, err);
}

/* Watches a QEMU that was just started or adopted. */
static int watch(struct supervisor *v, struct error *err) {
        v->pid = v->qemu.pid;
        if (proc_start_time(v->pid, &v->start_time) < 0)
                return err_set(err, ERR_FAILED, ESRCH, "QEMU is gone");
        free(v->shutdown_reason);
        v->shutdown_reason = NULL;
        v->powerdown = v->panicked = v->failed_write = v->clock_wrong = false;
        v->paused_ms = 0;
        v->boot.standstill.looked_ms = 0;
        v->resume_delay_ms = v->monitor_delay_ms = 0;
        int r = watch_monitor(v, err);
        if (r == 0)
                r = loop_add_fd(v->loop, v->qemu.pidfd, EPOLLIN, on_qemu_gone, v, &v->pidfd_source, err);
        return r;
}

/* Lets the guest run, if it does not yet. */
static int let_run(struct supervisor *v, struct error *err) {
        _cleanup_json_ struct json *status = NULL;
        int r = qmp_call(v->qmp, "query-status", NULL, QMP_TIMEOUT_MS, &status, err);
        const char *text = json_string(json_get(status, "status"));
        /* With a state that was saved, and not yet used up, the guest does not run. */
        if (r == 0 && str_eq(text, "prelaunch") && !suspend_exists(v->project))
                r = qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, err);
        if (r == 0 && str_eq(text, "guest-panicked"))
                v->panicked = true;
        if (r == 0 && str_eq(text, "io-error"))
                v->failed_write = true;
        react(v);
        return r;
}

static int reconnect(struct supervisor *v, struct error *err) {
        int fd = -1, r = starter_connect(&v->starter, &fd, err);
        if (r == 0)
                r = qmp_open(fd, MONITOR_TIMEOUT_MS, &v->qmp, err);
        if (r == 0)
                r = watch_monitor(v, err);
        /* What happened meanwhile was said to nobody. */
        if (r == 0)
                r = let_run(v, err);
        if (r < 0)
                drop_qmp(v);
        return r;
}

static int on_monitor_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        if (v->qmp || !v->pidfd_source)
                return 0;
        unsigned delay_ms = v->monitor_delay_ms * 2;
        v->monitor_delay_ms = delay_ms < HOUSEKEEPING_MS ? delay_ms : HOUSEKEEPING_MS;
        if (reconnect(v, NULL) == 0)
                supervise_note(v, "repair:monitor", NULL);
        else
                loop_arm(v->monitor_timer, v->monitor_delay_ms, 0);
        return 0;
}

/* QEMU by way of the starter, its monitor connected. */
static int launch(struct supervisor *v, bool resume, struct error *err) {
        struct launched launched = {.qmp_fd = -1};
        int r = starter_launch(&v->starter, resume, &launched, err);
        if (r < 0)
                return r;
        /* Our own child: its number is not given away before we have waited for it. */
        v->qemu.pid = launched.pid;
        r = proc_open(launched.pid, &v->qemu.pidfd);
        if (r < 0) {
                closep_(&launched.qmp_fd);
                return err_errno(err, -r, "cannot watch QEMU (process %d)", launched.pid);
        }
        return launch_handshake(&v->launch, &v->qemu, launched.qmp_fd, launched.log_start, &v->qmp, err);
}

static int launch_and_watch(struct supervisor *v, bool resume, struct error *err) {
        int r = launch(v, resume, err);
        if (r < 0) {
                process_close(&v->qemu);
                return r;
        }
        v->child = true;
        return watch(v, err);
}

/* Ends a QEMU that was started and is not to be. */
static void abandon(struct supervisor *v) {
        if (v->qemu.pidfd < 0)
                return;
        drop_qmp(v);
        loop_remove(v->pidfd_source);
        v->pidfd_source = NULL;
        proc_signal(&v->qemu, SIGKILL, NULL);
        proc_wait(&v->qemu, 0, NULL, NULL);
        process_close(&v->qemu);
}

/* A QEMU for the state that there is to go on from, if there is one and a QEMU can be had for it. */
static int launch_for_state(struct supervisor *v, struct error *err) {
        int r = supervise_resume_prepare(v, err);
        if (r < 0)
                return r;
        if (!v->state.tag || v->state.kind == SUSPENDED_IN_DISK)
                return launch_and_watch(v, false, err);
        _cleanup_error_ struct error why = ERROR_INIT;
        if (launch_and_watch(v, true, &why) == 0)
                return 0;
        abandon(v);
        r = supervise_resume_failed(v, &why, err);
        return r < 0 ? r : launch_and_watch(v, false, err);
}

int supervise_qemu_start(struct supervisor *v, struct error *err) {
        int r = launch_for_state(v, err);
        if (r == 0)
                r = supervise_resume(v, err);
        if (r == -EAGAIN) {
                abandon(v);
                r = launch_and_watch(v, false, err);
        }
        if (r == 0 && !v->resumed)
                supervise_boot_begins(v, true);
        if (r == 0)
                r = let_run(v, err);
        if (r < 0) {
                abandon(v);
                launch_remove_leftovers(v->project, v->launch.uuid);
                return r;
        }
        supervise_suspend_started(v);
        struct json *fields = json_new_object();
        json_set_number(fields, "pid", v->pid);
        json_set_number(fields, "start_time", (double)v->start_time);
        supervise_note(v, "qemu-started", fields);
        return 0;
}

int supervise_qemu_adopt(struct supervisor *v, struct error *err) {
        if (suspend_exists(v->project))
                return err_set(err, ERR_STATE, ESTALE, "the VM's state is saved: this QEMU is not to run on");
        int r = launch_adopt(&v->launch, &v->qemu, &v->qmp, err);
        if (r == 0)
                r = watch(v, err);
        if (r == 0)
                r = let_run(v, err);
        if (r == 0)
                supervise_note(v, "repair:adopted", NULL);
        return r;
}

int supervise_qemu_begin(struct supervisor *v, struct error *err) {
        int r = loop_add_timer(v->loop, 0, 0, on_resume_timer, v, &v->resume_timer, err);
        if (r == 0)
                r = loop_add_timer(v->loop, 0, 0, on_restart_timer, v, &v->restart_timer, err);
        if (r == 0)
                r = loop_add_timer(v->loop, 0, 0, on_monitor_timer, v, &v->monitor_timer, err);
        if (r == 0)
                r = supervise_boot_add(v, err);
        return r < 0 ? r : supervise_suspend_begin(v, err);
}

/* The VM's state, if it is still about this QEMU and the VM is to run. */
static struct state *state_to_restart(struct supervisor *v) {
        _cleanup_state_ struct state *s = NULL;
        if (state_load(v->project, &s, NULL) < 0 || !str_eq(s->uuid, v->launch.uuid) || !str_eq(s->intent, "running") ||
            s->pid != v->pid || s->start_time != v->start_time)
                return NULL;
        return TAKE_PTR(s);
}

static bool wanted_down(struct supervisor *v) {
        _cleanup_state_ struct state *s = NULL;
        return state_load(v->project, &s, NULL) == 0 && !str_eq(s->intent, "running");
}

/* Whether it may be started again; arms the timer then. */
static bool plan_restart(struct supervisor *v, enum vm_exit_kind kind, bool *ret_stays_down) {
        if (kind != VM_EXIT_CRASH && kind != VM_EXIT_PANIC && kind != VM_EXIT_REBOOT)
                return false;
        _cleanup_close_ int lock = -1;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) < 0)
                return false;
        _cleanup_state_ struct state *s = state_to_restart(v);
        if (!s)
                return false;
        if (kind == VM_EXIT_REBOOT) {
                v->restart_planned = true;
                loop_arm(v->restart_timer, REBOOT_MS, 0);
                return true;
        }
        uint64_t now = now_ms();
        unsigned delay_ms = RESTART_FIRST_MS;
        size_t recent = 0;
        for (size_t i = 0; i < v->n_restarts; i++)
                if (now - v->restarts[i] < RESTARTS_WINDOW_MS) {
                        v->restarts[recent++] = v->restarts[i];
                        delay_ms *= 2;
                }
        v->n_restarts = recent;
        if (recent == RESTARTS_MAX) {
                *ret_stays_down = true;
                return false;
        }
        v->restarts[v->n_restarts++] = now;
        v->restart_planned = true;
        loop_arm(v->restart_timer, delay_ms, 0);
        return true;
}

/* The verdict on a QEMU that is gone. */
static struct vm_exit *judge(struct supervisor *v, bool unheard) {
        struct proc_result result = {0};
        bool known = v->child && proc_wait(&v->qemu, 1000, &result, NULL) == 0;
        process_close(&v->qemu);
        const struct vm_exit_facts facts = {
                        .shutdown_reason = v->shutdown_reason,
                        .powerdown = v->powerdown,
                        .panicked = v->panicked,
                        .unheard = unheard,
                        .intended = wanted_down(v),
                        .result = known ? &result : NULL,
        };
        struct vm_exit *e = xcalloc(1, sizeof(*e));
        e->kind = vm_exit_classify(&facts, &e->reason);
        e->time_ms = wall_ms();
        e->pid = v->pid;
        e->start_time = v->start_time;
        e->qemu_lines = log_tail(v->project->log_path, 0, 12);
        e->serial_lines = log_tail(v->project->serial_path, 0, 12);
        return e;
}

/* A command at work removes them itself; they may be those of its new QEMU by now. */
static void remove_leftovers(struct supervisor *v) {
        _cleanup_close_ int lock = -1;
        _cleanup_process_ struct process other = PROCESS_INIT;
        _cleanup_state_ struct state *s = NULL;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) == 0 && state_load(v->project, &s, NULL) == 0 &&
            vm_find(v->project, s, &other, NULL) == -ESRCH)
                launch_remove_leftovers(v->project, v->launch.uuid);
}

static int on_qemu_gone(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct supervisor *v = userdata;
        (void)fd;
        (void)events;
        bool unheard = !v->qmp;
        while (v->qmp && qmp_process(v->qmp, NULL) == 0)
                ; /* until it says that the connection is closed: QEMU's last events are in there */
        drop_qmp(v);
        loop_remove(v->pidfd_source);
        v->pidfd_source = NULL;

        _cleanup_vm_exit_ struct vm_exit *e = judge(v, unheard);
        bool again = plan_restart(v, e->kind, &e->stays_down);
        /* A VM that was removed meanwhile leaves no files. */
        if (!fs_is_dir(v->project->vm_dir)) {
                loop_stop(loop, 0);
                return 0;
        }
        vm_exit_save(v->project, e, NULL);
        struct json *fields = json_new_object();
        json_set_string(fields, "why", e->reason);
        json_set_bool(fields, "restarts", again);
        json_set_string(fields, "qemu", e->kind == VM_EXIT_CRASH ? e->qemu_lines : NULL);
        json_set_string(fields, "serial", e->kind == VM_EXIT_PANIC ? e->serial_lines : NULL);
        supervise_note(v, e->stays_down ? "qemu-stays-down" : "qemu-ended", fields);
        if (!again) {
                remove_leftovers(v);
                loop_stop(loop, 0);
        }
        return 0;
}

static int on_restart_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        v->restart_planned = false;
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *s = NULL;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) == 0)
                s = state_to_restart(v);
        _cleanup_process_ struct process other = PROCESS_INIT;
        if (!s || vm_find(v->project, s, &other, NULL) == 0) {
                loop_stop(loop, 0); /* somebody else deals with it */
                return 0;
        }
        fs_lock_note(lock, "the VM's supervisor, which restarts it");
        _cleanup_error_ struct error err = ERROR_INIT;
        if (supervise_qemu_start(v, &err) < 0) {
                supervise_note_text(v, "restart-failed", "why", err.message);
                const struct vm_exit e = {.kind = VM_EXIT_CRASH,
                                          .reason = err.message,
                                          .time_ms = wall_ms(),
                                          .qemu_lines = err.detail,
                                          .stays_down = true};
                vm_exit_save(v->project, &e, NULL);
                loop_stop(loop, ERR_FAILED);
                return 0;
        }
        state_note_qemu(v->project, s, v->pid, v->start_time);
        state_save(v->project, s, NULL);
        v->restarts_total++;
        supervise_note(v, "repair:restarted", NULL);
        return 0;
}
