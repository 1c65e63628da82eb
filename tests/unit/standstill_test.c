/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <k3s-vm/banner.h>

#include "../../src/domain/supervise_internal.h"
#include "vm_fixture.h"

#define LOOK STANDSTILL_LOOK_MS

/* A guest at full speed on both CPUs. */
static enum standstill_remedy look(struct standstill *s, unsigned n, uint64_t disk_operations, bool resettable) {
        return standstill_judge(s, false, resettable, disk_operations, 2ULL * LOOK * n, 1000 + (uint64_t)LOOK * n);
}

static void busy_guest_without_disk_access_is_retranslated_then_reset(void **state) {
        (void)state;
        static const enum standstill_remedy expected[] = {
                        STANDSTILL_NONE, STANDSTILL_NONE, STANDSTILL_NONE,  STANDSTILL_RETRANSLATE,
                        STANDSTILL_NONE, STANDSTILL_NONE, STANDSTILL_RESET,
        };
        struct standstill s = {0};
        for (unsigned n = 0; n < ELEMENTSOF(expected); n++)
                assert_int_equal(look(&s, n + 1, 7, true), expected[n]);
}

static void guest_that_is_up_is_never_reset_and_retranslated_seldomer_and_seldomer(void **state) {
        (void)state;
        struct standstill s = {0};
        unsigned retranslated = 0;
        for (unsigned n = 1; n <= 1000; n++) {
                enum standstill_remedy remedy = look(&s, n, 7, false);
                assert_int_not_equal(remedy, STANDSTILL_RESET);
                retranslated += remedy == STANDSTILL_RETRANSLATE;
        }
        assert_int_equal(retranslated, 9); /* after 3, 6, ... 768 looks */
}

static void guest_that_reads_its_disk_is_left_alone(void **state) {
        (void)state;
        struct standstill s = {0};
        for (unsigned n = 1; n < 20; n++)
                assert_int_equal(look(&s, n, n / 2, true), STANDSTILL_NONE);
}

static void guest_that_waits_is_left_alone(void **state) {
        (void)state;
        struct standstill s = {0};
        for (unsigned n = 1; n < 20; n++)
                assert_int_equal(standstill_judge(&s, false, true, 7, n * 300, 1000 + (uint64_t)LOOK * n),
                                 STANDSTILL_NONE);
}

static void guest_whose_kernel_complains_is_retranslated_at_once(void **state) {
        (void)state;
        struct standstill s = {0};
        for (unsigned n = 1; n < 4; n++)
                assert_int_equal(standstill_judge(&s, true, false, n, n * 300, 1000 + (uint64_t)LOOK * n),
                                 STANDSTILL_RETRANSLATE);
}

static void guest_is_reset_twice_at_most(void **state) {
        (void)state;
        struct standstill s = {0};
        unsigned resets = 0;
        for (unsigned n = 1; n < 60; n++)
                resets += look(&s, n, 7, true) == STANDSTILL_RESET;
        assert_int_equal(resets, STANDSTILL_RESETS);
}

/* The supervisor of a VM whose guest's serial line said @serial so far. */
static struct supervisor *supervisor_of(struct fixture *f, const char *serial) {
        struct supervisor *v = xcalloc(1, sizeof(*v));
        v->project = f->project;
        strv_push(&v->launch.argv, "qemu-system-x86_64");
        strv_push(&v->launch.argv, "-accel");
        strv_push(&v->launch.argv, "tcg,thread=multi");
        assert_int_equal(loop_new(&v->loop, NULL), 0);
        assert_int_equal(supervise_boot_add(v, NULL), 0);
        assert_int_equal(fs_write_atomic(f->project->serial_path, serial, strlen(serial), 0600, NULL), 0);
        return v;
}

static void supervisor_free(struct supervisor *v) {
        loop_free(v->loop);
        strv_free(&v->launch.argv);
        free(v);
}
DEFINE_FREEP(struct supervisor, supervisor_free)

static void guest_is_known_by_what_it_said_in_an_earlier_boot(void **state) {
        static const struct {
                const char *serial;
                bool announces;
        } cases[] = {
                        {"booting\n" GUEST_NETWORK_UP "\nrebooting\n", true},
                        {"booting\nrebooting\n", false},
                        {"", false},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(supervisor_freep) struct supervisor *v = supervisor_of(*state, cases[i].serial);
                supervise_boot_begins(v, false);
                assert_int_equal(v->boot.announces, cases[i].announces);
                assert_int_equal(v->boot.serial_from, strlen(cases[i].serial));
                /* Once known it stays known, whatever becomes of the log. */
                supervise_boot_begins(v, false);
                assert_int_equal(v->boot.announces, cases[i].announces);
        }
}

static void only_a_boot_that_came_up_makes_resets_forgotten(void **state) {
        struct fixture *f = *state;
        const char *text = "booting\n" GUEST_NETWORK_UP "\nrebooting\n";
        _cleanup_(supervisor_freep) struct supervisor *v = supervisor_of(f, text);
        supervise_boot_begins(v, true);
        v->boot.standstill = (struct standstill){.resets = STANDSTILL_RESETS, .looks = 1, .looked_ms = 1};
        supervise_boot_begins(v, false);
        assert_int_equal(v->boot.standstill.resets, STANDSTILL_RESETS);
        assert_int_equal(v->boot.standstill.looks, 0);
        assert_int_equal(v->boot.standstill.looked_ms, 0);

        _cleanup_free_ char *more = xasprintf("%sbooting\n" GUEST_NETWORK_UP "\n", text);
        assert_int_equal(fs_write_atomic(f->project->serial_path, more, strlen(more), 0600, NULL), 0);
        supervise_boot_begins(v, false);
        assert_int_equal(v->boot.standstill.resets, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(busy_guest_without_disk_access_is_retranslated_then_reset),
                        cmocka_unit_test(guest_that_is_up_is_never_reset_and_retranslated_seldomer_and_seldomer),
                        cmocka_unit_test(guest_whose_kernel_complains_is_retranslated_at_once),
                        cmocka_unit_test(guest_that_reads_its_disk_is_left_alone),
                        cmocka_unit_test(guest_that_waits_is_left_alone),
                        cmocka_unit_test(guest_is_reset_twice_at_most),
                        cmocka_unit_test_setup_teardown(guest_is_known_by_what_it_said_in_an_earlier_boot,
                                                        fixture_setup, fixture_teardown),
                        cmocka_unit_test_setup_teardown(only_a_boot_that_came_up_makes_resets_forgotten, fixture_setup,
                                                        fixture_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
