/* SPDX-License-Identifier: MIT */
/* What is said to QEMU's gdbstub, and what becomes of answers that are late, cut off or others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/gdb.h>

#define TIMEOUT_MS 200

/* A step against a gdbstub that says @answers, whatever it is asked; @ret_heard gets what it was asked. */
static int step(const char *answers, bool hang_up, struct buf *ret_heard) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        assert_int_equal(fs_write_all(ends[1], answers, strlen(answers)), 0);
        if (hang_up)
                shutdown(ends[1], SHUT_WR);
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = gdb_step(ends[0], TIMEOUT_MS, &err);
        assert_true(r == 0 || err.message);
        close(ends[0]);
        while (buf_read(ret_heard, ends[1]) > 0)
                ;
        close(ends[1]);
        return r;
}

static void steps_once_and_lets_the_guest_go(void **state) {
        (void)state;
        static const char *const answers[] = {
                        "$T02thread:01;#04+$OK#9a+$T05thread:01;#07+$OK#9a", /* QEMU 7.2 */
                        "$T02thread:01;#04+$OK#9a+$T05thread:01;#07$T05thread:02;#08+$OK#9a",
        };
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                _cleanup_buf_ struct buf heard = BUF_INIT(0);
                assert_int_equal(step(answers[i], false, &heard), 0);
                assert_string_equal(buf_str(&heard), "+$Qqemu.sstep=1#d4+$s#73+$D#44");
        }
}

static void what_is_no_answer_is_an_error(void **state) {
        (void)state;
        static const struct {
                const char *answers;
                bool hang_up;
                int r;
        } cases[] = {
                        {"", false, -ETIMEDOUT},
                        {"", true, -ETIMEDOUT},
                        {"+", true, -ETIMEDOUT},
                        {"+$OK#9", true, -ETIMEDOUT},
                        {"$T02thread:01;#04", true, -ETIMEDOUT},
                        {"+$OK#9a+$T05thread:01;", true, -ETIMEDOUT},
                        {"+$OK#9a+$T05thread:01;#07", true, -ETIMEDOUT},
                        {"+$#00", false, -EPROTO},
                        {"+$E22#a9", false, -EPROTO},
                        {"+$OK#9a+$E22#a9", false, -EPROTO},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_buf_ struct buf heard = BUF_INIT(0);
                assert_int_equal(step(cases[i].answers, cases[i].hang_up, &heard), cases[i].r);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(steps_once_and_lets_the_guest_go),
                        cmocka_unit_test(what_is_no_answer_is_an_error),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
