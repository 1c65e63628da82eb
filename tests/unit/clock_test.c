/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>

#include "../../src/domain/clock.h"

/* Half an hour later by all clocks, but for the two differences. */
static struct clock_reading later(const struct clock_reading *r, int64_t suspended_ms, int64_t set_ms) {
        const int64_t passed = 30 * 60 * 1000;
        return (struct clock_reading){.monotonic = r->monotonic + passed,
                                      .boottime = r->boottime + passed + suspended_ms,
                                      .real = r->real + passed + suspended_ms + set_ms};
}

static const struct clock_reading start = {.real = 1800000000000, .boottime = 5000000, .monotonic = 4000000};

static void time_that_passes_is_no_jump(void **state) {
        (void)state;
        static const int64_t small[] = {0, 1, -1, CLOCK_JUMP_MS - 1, 1 - CLOCK_JUMP_MS};
        for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
                struct clock_jump jump = {.suspended_ms = 7};
                struct clock_reading now = later(&start, small[i] > 0 ? small[i] : 0, 0);
                assert_false(clock_jumped(&start, &now, &jump));
                now = later(&start, 0, small[i]);
                assert_false(clock_jumped(&start, &now, &jump));
                assert_int_equal(jump.suspended_ms, 7);
        }
}

static void suspended_machine_is_told_from_a_clock_that_was_set(void **state) {
        (void)state;
        struct clock_jump jump;
        struct clock_reading now = later(&start, 8 * 3600 * 1000, 0);
        assert_true(clock_jumped(&start, &now, &jump));
        assert_int_equal(jump.suspended_ms, 8 * 3600 * 1000);
        assert_int_equal(jump.set_ms, 0);
        now = later(&start, 0, -3600 * 1000);
        assert_true(clock_jumped(&start, &now, &jump));
        assert_int_equal(jump.suspended_ms, 0);
        assert_int_equal(jump.set_ms, -3600 * 1000);
        now = later(&start, CLOCK_JUMP_MS, 2 * CLOCK_JUMP_MS);
        assert_true(clock_jumped(&start, &now, &jump));
        assert_int_equal(jump.suspended_ms, CLOCK_JUMP_MS);
        assert_int_equal(jump.set_ms, 2 * CLOCK_JUMP_MS);
}

static void this_machines_clocks_do_not_jump(void **state) {
        (void)state;
        struct clock_reading before, now;
        struct clock_jump jump;
        clock_read(&before);
        assert_true(before.real > 1700000000000 && before.monotonic > 0 && before.boottime >= before.monotonic);
        clock_read(&now);
        assert_false(clock_jumped(&before, &now, &jump));
}

static void watched_clock_is_quiet_while_nothing_happens(void **state) {
        (void)state;
        int fd = -1;
        assert_int_equal(clock_watch(&fd, NULL), 0);
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 300), 0);
        clock_watch_drain(fd); /* does not block */
        close(fd);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(time_that_passes_is_no_jump),
                        cmocka_unit_test(suspended_machine_is_told_from_a_clock_that_was_set),
                        cmocka_unit_test(this_machines_clocks_do_not_jump),
                        cmocka_unit_test(watched_clock_is_quiet_while_nothing_happens),
        };
        return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
