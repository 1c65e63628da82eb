/* SPDX-License-Identifier: MIT */
/* The ladder by which a VM ends: power button, quit, SIGTERM, SIGKILL. */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/health.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/vm.h>

#include "supervise.h"

#define MONITOR_TIMEOUT_MS 3000
#define BUTTON_AGAIN_MS 10000 /* a guest that was still booting has nobody to notice the first press */
#define QUIT_TIMEOUT_MS 5000  /* QEMU writes out its disks */
#define TERM_TIMEOUT_MS 5000
#define KILL_TIMEOUT_MS 20000 /* in an uninterruptible wait for a disk it goes when that is over */
#define SUPERVISOR_GRACE_MS 3000

struct ending {
        const struct project *project;
        const struct state *state;
        const struct process *vm;
        struct progress *progress;
};

/* One step is over when QEMU is gone: 1, or 0 after @ms. */
static int wait_gone(const struct ending *e, unsigned ms, struct error *err) {
        return interrupt_wait(e->vm->pidfd, ms, err);
}

static void step(const struct ending *e, const char *name) {
        progress_debug(e->progress, "ending QEMU (process %d): %s", e->vm->pid, name);
        struct json *fields = json_new_object();
        json_set_string(fields, "step", name);
        json_set_number(fields, "pid", e->vm->pid);
        events_append(e->project, "stop", fields);
}

/* One command on QEMU's monitor; the connection is not kept, as others need it meanwhile. */
static int tell(const struct ending *e, const char *command, struct error *err) {
        _cleanup_qmp_ struct qmp *q = NULL;
        if (!e->state)
                return err_set(err, ERR_STATE, ENOENT, "the VM's state is not readable");
        int r = vm_connect(e->project, e->state, MONITOR_TIMEOUT_MS, &q, err);
        return r < 0 ? r : qmp_call(q, command, NULL, MONITOR_TIMEOUT_MS, NULL, err);
}

/* Whether the guest can react at all; a VM paused by a person goes on for it. */
static bool guest_runs(const struct ending *e) {
        if (!e->state)
                return true;
        _cleanup_qmp_ struct qmp *q = NULL;
        _cleanup_json_ struct json *answer = NULL;
        if (vm_connect(e->project, e->state, MONITOR_TIMEOUT_MS, &q, NULL) < 0 ||
            qmp_call(q, "query-status", NULL, MONITOR_TIMEOUT_MS, &answer, NULL) < 0)
                return true; /* unknown: the supervisor can still press the button */
        const char *status = json_string_or(json_get(answer, "status"), "");
        if (str_eq(status, "paused"))
                return qmp_call(q, "cont", NULL, MONITOR_TIMEOUT_MS, NULL, NULL) == 0;
        return str_eq(status, "running");
}

/* 1: gone; 0: still there. */
static int press_button(const struct ending *e, unsigned grace_ms, struct error *err) {
        if (!guest_runs(e)) {
                progress_note(e->progress, "the guest is not running, so it cannot shut itself down");
                return 0;
        }
        uint64_t deadline = now_ms() + grace_ms;
        for (;;) {
                step(e, "power button");
                _cleanup_error_ struct error why = ERROR_INIT;
                if (tell(e, "system_powerdown", &why) < 0 && supervisor_powerdown(e->project) < 0) {
                        int r = wait_gone(e, 0, err);
                        if (r != 0)
                                return r;
                        progress_warn(e->progress, "the guest cannot be asked to shut down: %s", why.message);
                        return 0;
                }
                uint64_t now = now_ms();
                if (now >= deadline)
                        return wait_gone(e, 0, err);
                uint64_t left = deadline - now;
                int r = wait_gone(e, (unsigned)(left < BUTTON_AGAIN_MS ? left : BUTTON_AGAIN_MS), err);
                if (r != 0)
                        return r;
                if (now_ms() >= deadline) {
                        progress_warn(e->progress, "the guest did not shut down within %u s; it is switched off",
                                      grace_ms / 1000);
                        return 0;
                }
        }
}

static int run_ladder(const struct ending *e, bool orderly, unsigned grace_ms, struct error *err) {
        int r = orderly ? press_button(e, grace_ms, err) : 0;
        if (r != 0)
                return r;
        step(e, "quit");
        if (tell(e, "quit", NULL) == 0 || !proc_alive(e->vm->pidfd))
                r = wait_gone(e, QUIT_TIMEOUT_MS, err);
        static const struct {
                int signal;
                unsigned timeout_ms;
                const char *name;
        } signals[] = {{SIGTERM, TERM_TIMEOUT_MS, "SIGTERM"}, {SIGKILL, KILL_TIMEOUT_MS, "SIGKILL"}};
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(signals); i++) {
                progress_warn(e->progress, "QEMU does not end by itself; sending %s", signals[i].name);
                step(e, signals[i].name);
                r = proc_signal(e->vm, signals[i].signal, err);
                if (r == 0)
                        r = wait_gone(e, signals[i].timeout_ms, err);
        }
        if (r == 0)
                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "QEMU (process %d) cannot be ended", e->vm->pid);
        return r;
}

/* What a supervisor would have written down, had there been one. */
static void record_end(const struct ending *e) {
        _cleanup_vm_exit_ struct vm_exit *known = NULL;
        if (vm_exit_load(e->project, &known, NULL) == 0 && known->pid == e->vm->pid)
                return;
        const struct vm_exit own = {.kind = VM_EXIT_ENDED,
                                    .reason = "QEMU was ended by a command; it had no supervisor",
                                    .time_ms = wall_ms(),
                                    .pid = e->vm->pid,
                                    .start_time = e->state ? e->state->start_time : 0};
        vm_exit_save(e->project, &own, NULL);
}

int vm_end(const struct project *p, const struct state *s, struct process *vm, bool orderly, unsigned grace_ms,
           struct progress *progress, struct error *err) {
        const struct ending e = {.project = p, .state = s, .vm = vm, .progress = progress};
        int r = run_ladder(&e, orderly, grace_ms, err);
        if (r < 0)
                return r;
        /* It still writes down why QEMU ended; only then is the VM really down. */
        r = supervisor_end(p, SUPERVISOR_GRACE_MS, err);
        if (r < 0)
                return r;
        record_end(&e);
        if (s) {
                health_forget(p, s->uuid);
                launch_remove_leftovers(p, s->uuid);
        }
        return 0;
}
