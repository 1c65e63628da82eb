/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>

#include <k3s-vm/autostart.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/ui.h>

#define RELOAD_TIMEOUT_MS 10000U

/* Has the user's systemd look at its units anew. One that does not run has nothing to look at. */
static bool reload_systemd(void) {
        _cleanup_free_ char *systemctl = fs_find_program("systemctl");
        if (!systemctl)
                return false;
        const char *const argv[] = {systemctl, "--user", "daemon-reload", NULL};
        struct proc_run_spec spec = PROC_RUN_SPEC_INIT;
        spec.spec.argv = argv;
        spec.timeout_ms = RELOAD_TIMEOUT_MS;
        struct proc_result result = {0};
        return proc_run(&spec, &result, NULL) == 0 && result.exit_status == 0;
}

static int turn_on(struct context *ctx, const struct autostart *a, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_state(ctx, &s, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *program = proc_self_path();
        if (!program)
                return err_set(err, ERR_HOST, ENOENT, "this program's own path cannot be found: is /proc mounted?");
        r = autostart_on(ctx->project, a, program, ctx->config->vm_name, err);
        if (r < 0)
                return r;
        if (reload_systemd())
                progress_note(ctx->progress, "the VM starts when you log in; now: systemctl --user start %s", a->name);
        else
                progress_note(ctx->progress,
                              "the VM starts when you log in the next time (systemd does not answer now)");
        progress_note(ctx->progress, "to have it started at boot, before you log in: loginctl enable-linger");
        return 0;
}

static int turn_off(struct context *ctx, const struct autostart *a, struct error *err) {
        int r = autostart_off(a, err);
        if (r < 0)
                return r;
        reload_systemd();
        progress_note(ctx->progress, "the VM is not started by systemd any more; whether it runs is unchanged");
        return 0;
}

static void show(const struct context *ctx, const struct autostart *a) {
        bool on = autostart_is_on(a);
        if (!ctx->json) {
                printf("%s%s\n", on ? "on: " : "off", on ? a->path : "");
                return;
        }
        _cleanup_json_ struct json *j = json_new_object();
        json_set_bool(j, "autostart", on);
        json_set_string(j, "unit", a->name);
        json_set_string(j, "path", on ? a->path : NULL);
        ui_print_json(j);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        const char *verb = args->rest.len > 0 ? args->rest.items[0] : "status";
        bool on = str_eq(verb, "on"), off = str_eq(verb, "off");
        if (args->rest.len > 1 || !(on || off || str_eq(verb, "status"))) {
                int r = err_set(err, ERR_USAGE, EINVAL, "autostart takes on, off or status");
                err_hint(err, "k3s-vm autostart --help");
                return r;
        }
        _cleanup_autostart_ struct autostart a = {0};
        int r = context_config(ctx, err);
        if (r == 0)
                r = autostart_find(ctx->project, ctx->config->vm_name, &a, err);
        if (r < 0)
                return r;
        if (on)
                return turn_on(ctx, &a, err);
        if (off)
                return turn_off(ctx, &a, err);
        show(ctx, &a);
        return 0;
}

const struct command cmd_autostart = {
                .name = "autostart",
                .operands = "[on|off|status]",
                .summary = "have systemd start the VM when you log in, and shut it down at the end",
                .details = "Writes a unit for systemd's user manager below $XDG_CONFIG_HOME/systemd/user and enables "
                           "it. The\n"
                           "unit names this program and the project by their paths: after moving one, run it again.",
                .run = run,
};
