/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/summary.h>
#include <k3s-vm/up.h>

#define WATCH_INTERVAL_MS 2000U

static int show(struct context *ctx, bool verbose, enum summary_patience patience, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = state_load(ctx->project, &s, err);
        if (r < 0 && r != -ENOENT)
                return r;
        error_clear(err);
        _cleanup_summary_ struct summary summary = {0};
        summary_gather(ctx->project, ctx->config, s, patience, &summary);
        if (ctx->json)
                summary_print_json(&summary);
        else
                summary_print(&summary, verbose);
        fflush(stdout);
        return s ? 0 : ERR_NO_VM;
}

static int run_status(struct context *ctx, const struct arguments *args, struct error *err) {
        bool verbose = arguments_get(&cmd_status, args, "verbose");
        bool watch = arguments_get(&cmd_status, args, "watch");
        /* A script that reads "ready" means now, and has the time. */
        enum summary_patience patience = ctx->json || verbose || watch ? SUMMARY_WAIT : SUMMARY_QUICK;
        int r = context_config(ctx, err);
        if (r < 0)
                return r;
        if (watch)
                r = interrupt_begin(err);
        while (r >= 0) {
                if (watch && !ctx->json && isatty(STDOUT_FILENO))
                        fputs("\033[H\033[2J", stdout);
                r = show(ctx, verbose, patience, err);
                if (r < 0 || !watch)
                        return r;
                _cleanup_error_ struct error interrupted = ERROR_INIT;
                if (interrupt_wait(-1, WATCH_INTERVAL_MS, &interrupted) < 0)
                        return 0; /* Ctrl-C is how a watch ends */
        }
        return r;
}

const struct command cmd_status = {
                .name = "status",
                .summary = "state, resources, ports, Kubernetes, API health, what to do next",
                .details = "Exits 0 when there is a VM, whatever its state, and 3 when there is none. A cluster that\n"
                           "does not answer at once is shown as it last answered, with how long ago that was;\n"
                           "--verbose, --watch and --json wait for its answer, up to five seconds.",
                .options = COMMAND_OPTIONS({"verbose", 'v', NULL, "also paths, process, times of the last start"},
                                           {"watch", 'w', NULL, "again every two seconds"}),
                .run = run_status,
};
