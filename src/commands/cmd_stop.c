/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/up.h>

int stop_vm(struct context *ctx, bool force, unsigned timeout_ms, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_state(ctx, &s, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project,
                                    .config = ctx->config,
                                    .progress = ctx->progress,
                                    .timeout_ms = timeout_ms};
        return lifecycle_stop(&l, s, force ? STOP_FORCE : STOP_SHUTDOWN, err);
}

static int run_stop(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        bool force = arguments_get(&cmd_stop, args, "force");
        if (force && arguments_get(&cmd_stop, args, "shutdown"))
                return err_set(err, ERR_USAGE, EINVAL, "--force and --shutdown exclude each other");
        int r = parse_timeout(arguments_get(&cmd_stop, args, "timeout"), &timeout_ms, err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0)
                r = context_state(ctx, &s, err);
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "stop", &lock, err);
        return r < 0 ? r : stop_vm(ctx, force, timeout_ms, err);
}

const struct command cmd_stop = {
                .name = "stop",
                .summary = "shut the guest down and end the VM; the disk is kept",
                .options = {{"shutdown", 0, NULL, "power the guest off (what stop does)"},
                            {"force", 0, NULL, "end QEMU at once, as a power cut would"},
                            {"timeout", 0, "SECONDS", "how long the guest may take before it is ended (60)"}},
                .run = run_stop,
};
