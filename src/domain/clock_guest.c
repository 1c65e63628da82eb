/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/clock_guest.h>
#include <k3s-vm/fs.h>

#define OUTPUT_MAX_BYTES 4096

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

int clock_set_guest(struct remote *remote, int64_t *ret_was_off_ms, struct error *err) {
        int r = ask_offset(remote, PRINT_TIME, ret_was_off_ms, err);
        if (r < 0 || llabs(*ret_was_off_ms) <= CLOCK_RIGHT_MS)
                return r;
        /* Where date(1) takes no fractions, the second that is nearer. */
        uint64_t now = wall_ms();
        _cleanup_free_ char *command = xasprintf("{ date -u -s @%" PRIu64 ".%03" PRIu64 " || date -u -s @%" PRIu64
                                                 "; } >/dev/null 2>&1; %s",
                                                 now / 1000, now % 1000, (now + 500) / 1000, PRINT_TIME);
        int64_t off_ms = 0;
        r = ask_offset(remote, command, &off_ms, err);
        if (r == 0 && llabs(off_ms) > 2 * CLOCK_RIGHT_MS)
                r = err_set(err, ERR_FAILED, EIO, "the guest's clock is still %" PRId64 " ms off", off_ms);
        return r;
}
