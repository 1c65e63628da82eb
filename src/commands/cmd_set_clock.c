/* SPDX-License-Identifier: MIT */
/*
 * Sets the guest's clock by this machine's, over SSH. The supervisor's helper runs it after this machine slept or the
 * VM was paused; how it went is in events.jsonl.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/supervisor.h>

#define RIGHT_MS 500 /* as good as whole seconds can be */
#define OUTPUT_MAX_BYTES 4096
#define ATTEMPTS 6
#define PAUSE_MS 5000 /* a machine that woke up has much to do, and its guest as well */

/* "1700000000.123456789" in ms; a guest whose date(1) knows no fractions is taken to be in the middle of its second. */
static int parse_time(const char *text, int64_t *ret_ms) {
        char *end;
        long long seconds = strtoll(text, &end, 10);
        if (end == text || seconds < 0 || seconds > INT32_MAX * 1000LL)
                return -EBADMSG;
        int64_t ms = 500;
        if (*end == '.' && strspn(end + 1, "0123456789") >= 3) {
                const char digits[] = {end[1], end[2], end[3], '\0'};
                ms = atoi(digits);
        }
        *ret_ms = seconds * 1000 + ms;
        return 0;
}

/* Runs @command, which prints the guest's time, and says by how much that is ahead of this machine's. */
static int ask_offset(struct remote *remote, const char *command, int64_t *ret_ms, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(OUTPUT_MAX_BYTES), complaint = BUF_INIT(OUTPUT_MAX_BYTES);
        const struct remote_exec exec = {.command = command, .ret_stdout = &out, .ret_stderr = &complaint};
        int status = 0;
        uint64_t before = wall_ms();
        int r = remote_exec(remote, &exec, &status, err);
        if (r < 0)
                return r;
        int64_t guest = 0;
        if (status != 0 || parse_time(buf_str(&out), &guest) < 0) {
                _cleanup_free_ char *words = str_printable(buf_str(&complaint), complaint.len);
                return err_set(err, ERR_FAILED, EIO, "the guest's date exited with status %d: %s", status, words);
        }
        *ret_ms = guest - (int64_t)(before + (wall_ms() - before) / 2);
        return 0;
}

#define PRINT_TIME "date -u +%s.%N"

static int set_clock(struct context *ctx, const struct state *s, int64_t *ret_was_off_ms, struct error *err) {
        _cleanup_(remote_freep) struct remote *remote = NULL;
        int r = context_connect(ctx, s, &remote, err);
        if (r == 0)
                r = ask_offset(remote, PRINT_TIME, ret_was_off_ms, err);
        if (r < 0 || llabs(*ret_was_off_ms) <= RIGHT_MS)
                return r;
        /* Where date(1) takes no fractions, the second that is nearer. */
        uint64_t now = wall_ms();
        _cleanup_free_ char *command = xasprintf("{ date -u -s @%" PRIu64 ".%03" PRIu64 " || date -u -s @%" PRIu64
                                                 "; } >/dev/null 2>&1; %s",
                                                 now / 1000, now % 1000, (now + 500) / 1000, PRINT_TIME);
        int64_t off_ms = 0;
        r = ask_offset(remote, command, &off_ms, err);
        if (r == 0 && llabs(off_ms) > 2 * RIGHT_MS)
                r = err_set(err, ERR_FAILED, EIO, "the guest's clock is still %" PRId64 " ms off", off_ms);
        return r;
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
        events_append(ctx->project, llabs(was_off_ms) > RIGHT_MS ? "repair:clock" : "clock-right", fields);
        progress_note(ctx->progress, "the guest's clock was %.1f s off", (double)was_off_ms / 1000);
        return 0;
}

const struct command cmd_set_clock = {
                .name = "set-clock",
                .summary = "set the guest's clock by this machine's",
                .hidden = true,
                .run = run,
};
