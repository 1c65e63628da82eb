/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/up.h>

int stop_vm(struct context *ctx, enum stop_how how, unsigned timeout_ms, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_state(ctx, &s, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project,
                                    .config = ctx->config,
                                    .progress = ctx->progress,
                                    .timeout_ms = timeout_ms};
        return lifecycle_stop(&l, s, how, err);
}

static int run_stop(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        bool force = arguments_get(&cmd_stop, args, "force"), shutdown = arguments_get(&cmd_stop, args, "shutdown");
        if (force && shutdown)
                return err_set(err, ERR_USAGE, EINVAL, "--force and --shutdown exclude each other");
        int r = parse_timeout(arguments_get(&cmd_stop, args, "timeout"), &timeout_ms, err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0)
                r = context_state(ctx, &s, err);
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "stop", &lock, err);
        return r < 0 ? r : stop_vm(ctx, force ? STOP_FORCE : shutdown ? STOP_SHUTDOWN : STOP_SUSPEND, timeout_ms, err);
}

const struct command cmd_stop = {
                .name = "stop",
                .summary = "suspend the VM: its state is saved, its memory is free; start resumes it",
                .details = "A VM that cannot be suspended runs on. One that is suspended already is woken up by "
                           "--shutdown\n"
                           "and loses its saved state, not its disk, by --force.",
                .options = COMMAND_OPTIONS(
                                {"shutdown", 0, NULL, "power the guest off instead"},
                                {"force", 0, NULL, "end QEMU at once, as a power cut would"},
                                {"timeout", 0, "SECONDS", "how long a guest that is shut down may take (60)"}),
                .run = run_stop,
};
