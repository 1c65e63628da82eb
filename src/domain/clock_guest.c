/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/agent.h>
#include <k3s-vm/clock_guest.h>
#include <k3s-vm/fs.h>

#define OUTPUT_MAX_BYTES 4096
#define AGENT_TIMEOUT_MS 3000
#define PRINT_TIME "date -u +%s.%N"

/* By how much a clock is ahead, which may be all of @within off. */
struct offset {
        int64_t ms, within_ms;
};

/* "1700000000.123456789" in ms; a guest whose date(1) knows no fractions is taken to be in the middle of its second. */
static int parse_time(const char *text, int64_t *ret_ms, int64_t *ret_within_ms) {
        char *end;
        long long seconds = strtoll(text, &end, 10);
        if (end == text || seconds < 0 || seconds > INT32_MAX * 1000LL)
                return -EBADMSG;
        int64_t ms = 500;
        bool fraction = *end == '.' && strspn(end + 1, "0123456789") >= 3;
        if (fraction) {
                const char digits[] = {end[1], end[2], end[3], '\0'};
                ms = atoi(digits);
        }
        *ret_ms = seconds * 1000 + ms;
        *ret_within_ms = fraction ? 0 : 500;
        return 0;
}

static int run(struct remote *remote, const char *command, char **ret, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(OUTPUT_MAX_BYTES), complaint = BUF_INIT(OUTPUT_MAX_BYTES);
        const struct remote_exec exec = {.command = command, .ret_stdout = &out, .ret_stderr = &complaint};
        int status = 0;
        int r = remote_exec(remote, &exec, &status, err);
        if (r < 0)
                return r;
        if (status != 0) {
                _cleanup_free_ char *words = str_printable(buf_str(&complaint), complaint.len);
                return err_set(err, ERR_FAILED, EIO, "the guest's date exited with status %d: %s", status, words);
        }
        *ret = xstrdup(buf_str(&out));
        return 0;
}

static char *exact_time(uint64_t ms) {
        return xasprintf("%" PRIu64 ".%03" PRIu64, ms / 1000, ms % 1000);
}

/* Sets the clock if @set, and asks for the time after that. */
static int ask_time(const struct clock_guest *c, bool set, char **ret, struct error *err) {
        uint64_t now = wall_ms();
        _cleanup_free_ char *exact = exact_time(now);
        if (!c->remote)
                return agent_ask(c->project, c->state, set ? "clock" : "time", set ? exact : NULL, AGENT_TIMEOUT_MS,
                                 ret, err);
        /* Where date(1) takes no fractions, the second that is nearer. */
        _cleanup_free_ char *command = xasprintf("{ date -u -s @%s || date -u -s @%" PRIu64 "; } >/dev/null 2>&1; %s",
                                                 exact, (now + 500) / 1000, PRINT_TIME);
        return run(c->remote, set ? command : PRINT_TIME, ret, err);
}

/* @text is what the guest's time was between @before and now. */
static int read_offset(const char *text, uint64_t before, struct offset *ret, struct error *err) {
        int64_t guest = 0;
        if (parse_time(text, &guest, &ret->within_ms) < 0) {
                _cleanup_free_ char *words = str_printable(text, strnlen(text, 200));
                return err_set(err, ERR_FAILED, EIO, "the guest's date says: %s", words);
        }
        ret->ms = guest - (int64_t)(before + (wall_ms() - before) / 2);
        return 0;
}

static int ask_offset(const struct clock_guest *c, bool set, struct offset *ret, struct error *err) {
        _cleanup_free_ char *text = NULL;
        uint64_t before = wall_ms();
        int r = ask_time(c, set, &text, err);
        return r < 0 ? r : read_offset(text, before, ret, err);
}

static bool is_right(const struct offset *o, int64_t limit_ms) {
        return llabs(o->ms) <= limit_ms + o->within_ms;
}

static int check_set(const struct offset *off, int64_t limit_ms, struct error *err) {
        if (is_right(off, limit_ms))
                return 0;
        return err_set(err, ERR_FAILED, EIO, "the guest's clock is still %" PRId64 " ms off", off->ms);
}

int clock_guest_set(const struct clock_guest *c, struct error *err) {
        struct offset off = {0};
        int r = ask_offset(c, true, &off, err);
        return r < 0 ? r : check_set(&off, 2 * (int64_t)CLOCK_RIGHT_MS, err);
}

int clock_guest_begin(const struct clock_guest *c, struct agent_request *ret, struct error *err) {
        _cleanup_free_ char *exact = exact_time(wall_ms());
        return agent_send(c->project, c->state, "clock", exact, ret, err);
}

int clock_guest_finish(const struct agent_request *request, struct error *err) {
        _cleanup_free_ char *text = NULL;
        struct offset off = {0};
        int r = agent_receive(request, AGENT_TIMEOUT_MS, &text, err);
        if (r == 0)
                r = read_offset(text, request->sent_ms, &off, err);
        /* The answer is of any moment since. */
        off.within_ms += (int64_t)(wall_ms() - request->sent_ms) / 2;
        return r < 0 ? r : check_set(&off, 2 * (int64_t)CLOCK_RIGHT_MS, err);
}

int clock_guest_correct(const struct clock_guest *c, int64_t *ret_was_off_ms, struct error *err) {
        struct offset off = {0};
        int r = ask_offset(c, false, &off, err);
        if (r < 0)
                return r;
        bool right = is_right(&off, CLOCK_RIGHT_MS);
        /* What cannot be told from right is right. */
        *ret_was_off_ms = right && llabs(off.ms) > CLOCK_RIGHT_MS ? 0 : off.ms;
        return right ? 0 : clock_guest_set(c, err);
}
