/* SPDX-License-Identifier: MIT */
/* k3s-vm without a command: whatever is missing. */
#include <k3s-vm/commands.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/summary.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/up.h>
#include <k3s-vm/web_env.h>
#include <k3s-vm/web_service.h>

/* The rules of a Service that is new take some seconds to be in effect, without KVM. */
#define WEB_TIMEOUT_MS 20000U

int print_summary(struct context *ctx, bool ready_text, unsigned web_timeout_ms, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_state(ctx, &s, err);
        if (r < 0)
                return r;
        _cleanup_summary_ struct summary summary = {0};
        /* Whether the cluster is Ready was found out just now, if it had to be. */
        summary_gather(ctx->project, ctx->config, s, ctx->json ? SUMMARY_WAIT : SUMMARY_QUICK, &summary);
        summary.web_asked = summary.pid && s->payload_name && ready_text;
        if (summary.web_asked)
                summary.web_status = web_service_fetch(s->web_port, web_timeout_ms);
        if (ctx->json)
                summary_print_json(&summary);
        else if (ready_text)
                summary_print_ready(&summary);
        else
                summary_print(&summary, false);
        return 0;
}

int parse_timeout(const char *text, unsigned *ret_ms, struct error *err) {
        uint64_t seconds = 0;
        if (!text) {
                *ret_ms = 0;
                return 0;
        }
        if (str_to_u64(text, 1, 86400, &seconds) < 0)
                return err_set(err, ERR_USAGE, EINVAL, "--timeout=%s is no number of seconds from 1 to 86400", text);
        *ret_ms = (unsigned)seconds * 1000;
        return 0;
}

int lock_vm(struct context *ctx, const char *command, int *ret_fd, struct error *err) {
        int r = interrupt_begin(err);
        if (r == 0)
                r = context_config(ctx, err);
        if (r == 0)
                r = fs_mkdir_p(ctx->project->dir, 0700, err);
        if (r == 0)
                r = vm_lock(ctx->project, command, LOCK_TIMEOUT_MS, ctx->progress, ret_fd, err);
        if (r == 0)
                supervisor_wait_launch(ctx->project);
        return r;
}

int lock_made_vm(struct context *ctx, const char *command, int *ret_fd, struct state **ret, struct error *err) {
        _cleanup_state_ struct state *before = NULL;
        int r = context_state(ctx, &before, err);
        if (r == 0)
                r = lock_vm(ctx, command, ret_fd, err);
        return r < 0 ? r : context_state(ctx, ret, err);
}

int start_vm(struct context *ctx, unsigned timeout_ms, struct state **ret, bool *ret_was_running, struct error *err) {
        const struct lifecycle l = {
                        .project = ctx->project,
                        .config = ctx->config,
                        .progress = ctx->progress,
                        .timeout_ms = timeout_ms,
        };
        /* Found out now and not when all else is done; without Kubernetes nothing is written there. */
        int r = str_eq(ctx->config->k3s_version, "none") ? 0 : web_env_check(ctx->project, ctx->config, err);
        if (r < 0)
                return r;
        _cleanup_state_ struct state *s = NULL;
        r = state_load(ctx->project, &s, err);
        _cleanup_process_ struct process vm = PROCESS_INIT;
        bool runs = r == 0 && vm_find(ctx->project, s, &vm, NULL) == 0;
        process_close(&vm);
        if (!runs) {
                state_free(TAKE_PTR(s));
                error_clear(err);
                r = lifecycle_prepare(&l, &s, err);
                if (r < 0)
                        return r;
        }
        r = lifecycle_start(&l, s, ret_was_running, err);
        if (r == 0)
                *ret = TAKE_PTR(s);
        return r;
}

int up(struct context *ctx, unsigned timeout_ms, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        bool was_running = false, done = false;
        /* What is wrong with them is said before anything takes its time. */
        _cleanup_manifests_ struct manifests manifests = {0};
        int r = manifests_read_project(ctx->project, &manifests, err);
        if (r == 0)
                r = start_vm(ctx, timeout_ms, &s, &was_running, err);
        if (r < 0)
                return r;
        if (was_running)
                progress_note(ctx->progress, "the VM is running already");
        int applied = s->payload_name ? apply_if_due(ctx, s, &manifests, timeout_ms, &done, err) : 0;
        /* The VM is there even if the project's objects are not. */
        r = print_summary(ctx, !was_running || done, done ? WEB_TIMEOUT_MS : 0, applied < 0 ? NULL : err);
        return applied < 0 ? applied : r;
}

static int run_up(struct context *ctx, const struct arguments *args, struct error *err) {
        unsigned timeout_ms = 0;
        _cleanup_close_ int lock = -1;
        int r = parse_timeout(arguments_get(&cmd_up, args, "timeout"), &timeout_ms, err);
        if (r == 0)
                r = lock_vm(ctx, "up", &lock, err);
        if (r == 0)
                r = up(ctx, timeout_ms, err);
        return r;
}

const struct command cmd_up = {
                .name = "",
                .summary = "make whatever is missing, start the VM, wait until the cluster is Ready",
                .options = COMMAND_OPTIONS(
                                {"timeout", 0, "SECONDS", "how long to wait for the cluster (180; 600 without KVM)"}),
                .run = run_up,
};
