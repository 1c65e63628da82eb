/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/up.h>

static int run_start(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        int r = parse_timeout(arguments_get(&cmd_start, args, "timeout"), &timeout_ms, err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0)
                r = context_state(ctx, &s, err);
        if (r < 0 && r != -EUCLEAN)
                return r;
        error_clear(err);
        _cleanup_close_ int lock = -1;
        r = lock_vm(ctx, "start", &lock, err);
        return r < 0 ? r : up(ctx, timeout_ms, err);
}

const struct command cmd_start = {
                .name = "start",
                .summary = "resume or boot the VM and wait until the cluster is Ready",
                .options = COMMAND_OPTIONS(
                                {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}),
                .run = run_start,
};
