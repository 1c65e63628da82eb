/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/up.h>
#include <k3s-vm/upgrade.h>

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        const char *wanted = arguments_get(&cmd_upgrade, args, "k3s");
        unsigned timeout_ms = 0;
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *s = NULL;
        int r = parse_timeout(arguments_get(&cmd_upgrade, args, "timeout"), &timeout_ms, err);
        if (r == 0)
                r = lock_made_vm(ctx, "upgrade", &lock, &s, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project,
                                    .config = ctx->config,
                                    .progress = ctx->progress,
                                    .timeout_ms = timeout_ms};
        enum upgrade_result result = UPGRADE_DONE;
        r = upgrade_vm(&l, s, wanted ? wanted : ctx->config->k3s_version, &result, err);
        if (r < 0)
                return r;
        if (result == UPGRADE_SAME)
                progress_note(ctx->progress, "the VM has %s already", s->payload_version);
        else if (str_eq(config_source(ctx->config, "K3S_VERSION"), "environment"))
                progress_warn(ctx->progress, "K3S_VERSION is set in the environment, too, and that one wins");
        config_free(TAKE_PTR(ctx->config));
        r = context_config(ctx, err);
        return r < 0 ? r : print_summary(ctx, result == UPGRADE_DONE, 0, err);
}

const struct command cmd_upgrade = {
                .name = "upgrade",
                .summary = "another K3s for this cluster, which is kept",
                .details = "Shuts the guest down, boots it with the other version, and waits for the API, the nodes "
                           "and "
                           "as many\npods as were ready before. Where the API or a node does not come back in time, "
                           "the "
                           "VM is put back to\nwhat it was. An older version, or more than the next minor one, is "
                           "refused.",
                .options = COMMAND_OPTIONS(
                                {"k3s", 0, "VERSION",
                                 "as K3S_VERSION, which it becomes (default: what that means now)"},
                                {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}),
                .run = run,
};
