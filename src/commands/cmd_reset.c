/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/up.h>

/* Back to the first Ready state, with the cluster's credentials as they are. */
static int reset_warm(struct context *ctx, unsigned timeout_ms, struct error *err) {
        const struct lifecycle l = {.project = ctx->project,
                                    .config = ctx->config,
                                    .progress = ctx->progress,
                                    .timeout_ms = timeout_ms};
        _cleanup_state_ struct state *s = NULL;
        _cleanup_suspended_ struct suspended kept = {0};
        int r = context_state(ctx, &s, err);
        if (r == 0 && snapshot_load(ctx->project, SNAPSHOT_WARM, &kept, NULL) < 0) {
                r = err_set(err, ERR_STATE, ENOENT, "the first Ready state of this VM was not kept");
                err_hint(err, "make it anew: k3s-vm reset (with WARM_RESET=on the new one's is kept)");
        }
        if (r == 0)
                r = restore_snapshot(ctx, &l, s, SNAPSHOT_WARM, true, err);
        return r < 0 ? r : print_summary(ctx, true, 0, err);
}

static int run_reset(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        int r = parse_timeout(arguments_get(&cmd_reset, args, "timeout"), &timeout_ms, err);
        if (r == 0)
                r = context_config(ctx, err);
        bool warm = arguments_get(&cmd_reset, args, "warm");
        _cleanup_state_ struct state *s = NULL;
        if (r == 0 && warm)
                r = context_state(ctx, &s, err);
        if (r == 0 && !arguments_get(&cmd_reset, args, "yes")) {
                _cleanup_free_ char *question =
                                xasprintf(warm ? "Take the VM of %s back to when it was first Ready?"
                                               : "Destroy the VM of %s with everything in it, and make it anew?",
                                          ctx->project->root);
                r = ask_yes_no(ctx, question, err);
        }
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "reset", &lock, err);
        if (r == 0 && warm)
                return reset_warm(ctx, timeout_ms, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project, .config = ctx->config, .progress = ctx->progress};
        r = lifecycle_destroy(&l, false, err);
        if (r < 0 && err->code != ERR_NO_VM)
                return r;
        error_clear(err);
        return up(ctx, timeout_ms, err);
}

const struct command cmd_reset = {
                .name = "reset",
                .summary = "destroy the VM and make it anew; configuration and caches are kept",
                .details = "With --warm all that was done in the VM since it was first Ready is gone, in a second; "
                           "the\n"
                           "cluster's certificates, the VM's name and its guest stay, and so do snapshots.",
                .options = COMMAND_OPTIONS(
                                {"yes", 'y', NULL, "do not ask"},
                                {"warm", 0, NULL, "go back to the first Ready state instead"},
                                {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}),
                .run = run_reset,
};
