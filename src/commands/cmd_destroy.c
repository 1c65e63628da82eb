/* SPDX-License-Identifier: MIT */
#include <k3s-vm/autostart.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/up.h>

static int run_destroy(struct context *ctx, const struct arguments *args, struct error *err) {
        bool all = arguments_get(&cmd_destroy, args, "all");
        int r = context_config(ctx, err);
        if (r == 0 && !fs_is_dir(ctx->project->dir)) {
                r = err_set(err, ERR_NO_VM, ENOENT, "the project %s has no VM", ctx->project->root);
                return r;
        }
        if (r == 0 && !arguments_get(&cmd_destroy, args, "yes")) {
                _cleanup_free_ char *question =
                                xasprintf("Destroy the VM of %s with everything in it?", ctx->project->root);
                r = ask_yes_no(ctx, question, err);
        }
        _cleanup_close_ int lock = -1;
        if (r == 0)
                r = lock_vm(ctx, "destroy", &lock, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project, .config = ctx->config, .progress = ctx->progress};
        r = lifecycle_destroy(&l, all, err);
        if (r < 0)
                return r;
        progress_note(ctx->progress, "the VM of %s is gone", ctx->project->root);
        _cleanup_autostart_ struct autostart unit = {0};
        if (autostart_find(ctx->project, ctx->config->vm_name, &unit, NULL) == 0 && autostart_off(&unit, NULL) == 0)
                progress_note(ctx->progress, "systemd does not start it any more");
        return 0;
}

const struct command cmd_destroy = {
                .name = "destroy",
                .summary = "remove the VM, its disk, keys and kubeconfig; the configuration is kept",
                .options = COMMAND_OPTIONS({"yes", 'y', NULL, "do not ask"},
                                           {"all", 0, NULL, "remove the configuration as well"}),
                .run = run_destroy,
};
