/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/up.h>

static int run_restart(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        int r = parse_timeout(arguments_get(&cmd_restart, args, "timeout"), &timeout_ms, err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0)
                r = context_state(ctx, &s, err);
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "restart", &lock, err);
        if (r < 0)
                return r;
        _cleanup_error_ struct error stop_error = ERROR_INIT;
        r = stop_vm(ctx, arguments_get(&cmd_restart, args, "force") ? STOP_FORCE : STOP_SHUTDOWN, 0, &stop_error);
        if (r < 0 && stop_error.code != ERR_STATE) /* one that does not run is simply started */
                return err_move(err, &stop_error);
        return up(ctx, timeout_ms, err);
}

const struct command cmd_restart = {
                .name = "restart",
                .summary = "shut the guest down and boot it; changed configuration takes effect",
                .options = COMMAND_OPTIONS(
                                {"force", 0, NULL, "end QEMU at once instead of shutting the guest down"},
                                {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}),
                .run = run_restart,
};
