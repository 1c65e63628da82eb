/* SPDX-License-Identifier: MIT */
/*
 * Sets the guest's clock by this machine's. The supervisor's helper runs it after this machine slept or the
 * VM was paused; how it went is in events.jsonl.
 */
#include <errno.h>
#include <stdlib.h>

#include <k3s-vm/agent.h>
#include <k3s-vm/clock_guest.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/supervisor.h>

#define ATTEMPTS 6
#define PAUSE_MS 5000 /* a machine that woke up has much to do, and its guest as well */

static int set_clock(struct context *ctx, const struct state *s, int64_t *ret_was_off_ms, struct error *err) {
        struct clock_guest guest = {.project = ctx->project, .state = s};
        if (agent_is_there(s) && clock_guest_correct(&guest, ret_was_off_ms, NULL) == 0)
                return 0;
        _cleanup_remote_ struct remote *remote = NULL;
        int r = context_connect(ctx, s, &remote, err);
        guest.remote = remote;
        return r < 0 ? r : clock_guest_correct(&guest, ret_was_off_ms, err);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        (void)args;
        _cleanup_state_ struct state *s = NULL;
        int r = context_running(ctx, &s, err);
        if (r < 0)
                return r;
        int64_t was_off_ms = 0;
        for (unsigned attempt = 1;; attempt++) {
                r = set_clock(ctx, s, &was_off_ms, err);
                if (r == 0 || attempt == ATTEMPTS || interrupt_wait(-1, PAUSE_MS, err) < 0)
                        break;
        }
        struct json *fields = json_new_object();
        if (r < 0) {
                json_set_string(fields, "why", err->message);
                events_append(ctx->project, "clock-not-set", fields);
                return err_wrap(err, r, "cannot set the guest's clock");
        }
        json_set_number(fields, "was_off_ms", (double)was_off_ms);
        events_append(ctx->project, llabs(was_off_ms) > CLOCK_RIGHT_MS ? "repair:clock" : "clock-right", fields);
        progress_note(ctx->progress, "the guest's clock was %.1f s off", (double)was_off_ms / 1000);
        return 0;
}

const struct command cmd_set_clock = {
                .name = "set-clock",
                .summary = "set the guest's clock by this machine's",
                .hidden = true,
                .run = run,
};
