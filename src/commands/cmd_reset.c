/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/up.h>

static int run_reset(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        int r = parse_timeout(arguments_get(&cmd_reset, args, "timeout"), &timeout_ms, err);
        if (r == 0)
                r = context_config(ctx, err);
        if (r == 0 && !arguments_get(&cmd_reset, args, "yes")) {
                _cleanup_free_ char *question = xasprintf(
                                "Destroy the VM of %s with everything in it, and make it anew?", ctx->project->root);
                r = ask_yes_no(ctx, question, err);
        }
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "reset", &lock, err);
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
                .options = {{"yes", 'y', NULL, "do not ask"},
                            {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}},
                .run = run_reset,
};
