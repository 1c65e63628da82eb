/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/domain/standstill.h"

#define LOOK STANDSTILL_LOOK_MS

/* A guest at full speed on both CPUs. */
static bool look(struct standstill *s, unsigned n, uint64_t disk_operations) {
        return standstill_judge(s, disk_operations, 2ULL * LOOK * n, 1000 + (uint64_t)LOOK * n);
}

static void busy_guest_without_disk_access_is_reset(void **state) {
        (void)state;
        struct standstill s = {0};
        assert_false(look(&s, 1, 7));
        assert_false(look(&s, 2, 7));
        assert_true(look(&s, 3, 7));
}

static void guest_that_reads_its_disk_is_left_alone(void **state) {
        (void)state;
        struct standstill s = {0};
        for (unsigned n = 1; n < 20; n++)
                assert_false(look(&s, n, n / 2));
}

static void guest_that_waits_is_left_alone(void **state) {
        (void)state;
        struct standstill s = {0};
        for (unsigned n = 1; n < 20; n++)
                assert_false(standstill_judge(&s, 7, n * 300, 1000 + (uint64_t)LOOK * n));
}

static void guest_is_reset_twice_at_most(void **state) {
        (void)state;
        struct standstill s = {0};
        unsigned resets = 0;
        for (unsigned n = 1; n < 30; n++)
                resets += look(&s, n, 7);
        assert_int_equal(resets, STANDSTILL_RESETS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(busy_guest_without_disk_access_is_reset),
                        cmocka_unit_test(guest_that_reads_its_disk_is_left_alone),
                        cmocka_unit_test(guest_that_waits_is_left_alone),
                        cmocka_unit_test(guest_is_reset_twice_at_most),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
