/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/up.h>

/* The options that are configuration keys: given here, they are kept. */
static const struct {
        const char *option, *key;
} keys[] = {
                {"cpus", "VM_CPUS"},  {"memory", "VM_MEMORY"}, {"disk", "VM_DISK"},
                {"flavor", "FLAVOR"}, {"k3s", "K3S_VERSION"},
};

static int save_options(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_strv_ struct strv assignments = {0};
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                const char *value = arguments_get(&cmd_setup, args, keys[i].option);
                if (value)
                        strv_pushf(&assignments, "%s=%s", keys[i].key, value);
        }
        if (assignments.len == 0)
                return 0;
        int r = config_set(ctx->project, (const char *const *)assignments.items, err);
        if (r < 0)
                return r;
        config_free(TAKE_PTR(ctx->config));
        return context_config(ctx, err);
}

static int run_setup(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_close_ int lock = -1;
        int r = lock_vm(ctx, "setup", &lock, err);
        if (r < 0)
                return r;
        _cleanup_state_ struct state *s = NULL;
        if (state_load(ctx->project, &s, NULL) == 0 && s->guest_dir && fs_exists(ctx->project->data_disk)) {
                r = err_set(err, ERR_STATE, EEXIST, "the project %s has a VM already", ctx->project->root);
                err_hint(err, "start it: k3s-vm start\nmake it anew, losing what is in it: k3s-vm reset");
                return r;
        }
        state_free(TAKE_PTR(s));
        r = save_options(ctx, args, err);
        const struct lifecycle l = {.project = ctx->project, .config = ctx->config, .progress = ctx->progress};
        if (r == 0)
                r = lifecycle_prepare(&l, &s, err);
        return r < 0 ? r : print_summary(ctx, false, 0, err);
}

const struct command cmd_setup = {
                .name = "setup",
                .summary = "make the VM without starting it",
                .details = "What is given here is kept in .k3s-vm/config.",
                .options = COMMAND_OPTIONS(
                                {"cpus", 0, "N", "processors (2)"}, {"memory", 0, "MB", "memory in MiB (4096)"},
                                {"disk", 0, "GB", "disk in GiB (20); it grows as it is used"},
                                {"flavor", 0, "NAME", "auto, nixos, debian, cloud, or a folder with guest.json"},
                                {"k3s", 0, "VERSION", "stable, latest, v1.33, vX.Y.Z+k3sN, a path, offline, none"}),
                .run = run_setup,
};
