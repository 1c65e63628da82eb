/* SPDX-License-Identifier: MIT */
/* Suspends a VM that nobody uses and wakes it when somebody connects. The supervisor's helper runs it (IDLE_SUSPEND).
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/doze.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/up.h>

#define SAID_MAX_BYTES 4096U

static void note(const struct context *ctx, const char *event, const struct error *why) {
        struct json *fields = json_new_object();
        json_set_string(fields, "why", why ? why->message : NULL);
        events_append(ctx->project, event, fields);
}

static int fall_asleep(struct context *ctx, struct doze **ret, struct error *err) {
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *s = NULL;
        int r = lock_made_vm(ctx, "doze", &lock, &s, err);
        if (r == 0)
                r = stop_vm(ctx, STOP_SUSPEND, 0, err);
        return r < 0 ? r : doze_new(ctx->project, s, ctx->config, ret, err);
}

/* What a program said that has ended, in @err. */
static void say_why(int said_fd, struct error *err) {
        _cleanup_buf_ struct buf said = BUF_INIT(SAID_MAX_BYTES);
        lseek(said_fd, 0, SEEK_SET);
        if (buf_read(&said, said_fd) > 0)
                err_set(err, ERR_FAILED, ECHILD, "the VM does not start: %s", buf_str(&said));
}

/* By a process of its own: a start ends who dozes. */
static int wake(const struct context *ctx, struct doze *d, struct error *err) {
        const char *const argv[] = {"/proc/self/exe", "start", "--quiet", "--project", ctx->project->root, NULL};
        _cleanup_close_ int said_fd = memfd_create("k3s-vm start", MFD_CLOEXEC);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        spec.cwd = "/";
        spec.stderr_fd = said_fd;
        _cleanup_process_ struct process start = PROCESS_INIT;
        int r = proc_spawn(&spec, &start, err);
        if (r == 0)
                r = doze_hand_on(d, start.pidfd, err);
        struct proc_result result = {0};
        if (start.pid > 0)
                proc_wait(&start, 0, &result, NULL);
        if (r < 0 && result.exit_status != 0)
                say_why(said_fd, err);
        return r;
}

static int run(struct context *ctx, const struct arguments *args _unused_, struct error *err) {
        _cleanup_doze_ struct doze *d = NULL;
        int r = fall_asleep(ctx, &d, err);
        if (r < 0) {
                if (ctx->project && err->code != ERR_NO_VM)
                        note(ctx, "not-dozing", err);
                return r;
        }
        note(ctx, "dozing", NULL);
        r = doze_wait(d, err);
        if (r < 0)
                return r;
        note(ctx, "woken", NULL);
        r = wake(ctx, d, err);
        if (r < 0)
                note(ctx, "not-woken", err);
        return r;
}

const struct command cmd_doze = {
                .name = "doze",
                /* By its command line others see whose ports it holds. */
                .operands = "NAME",
                .summary = "suspend the VM until somebody connects to one of its ports",
                .hidden = true,
                .run = run,
};
