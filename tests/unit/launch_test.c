/* SPDX-License-Identifier: MIT */
/* What the supervisor is told, and what it writes down: without a QEMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include <k3s-vm/supervisor.h>

#include "../../src/domain/supervise.h"
#include "vm_fixture.h"

static void logs_are_cut_before_they_grow_without_bound(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *path = path_join(f->top, "x.log"), *old = path_join(f->top, "x.log.1");
        char *text = xcalloc(1, 2000001);
        memset(text, 'a', 2000000);
        memcpy(text + 1999990, "\nthe end\r\n", 10);
        assert_int_equal(fs_write_atomic(path, text, 2000000, 0600, NULL), 0);
        free(text);
        _cleanup_free_ char *tail = log_tail(path, 0, 1);
        assert_string_equal(tail, "the end\n");
        assert_null(log_tail(path, 2000000, 5));
        log_bound(path, 2000000);
        assert_int_equal(fs_size(path), 2000000);
        log_bound(path, 1999999);
        assert_int_equal(fs_size(path), 0);
        assert_in_range(fs_size(old), 1, 1048576);
        assert_true(file_has(old, "the end"));
}

static void events_are_rotated_and_hold_what_they_were_given(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *old = xasprintf("%s.1", f->project->events_path), *filler = xcalloc(1, 32001);
        memset(filler, 'b', 32000);
        for (int i = 0; i < 200; i++) {
                struct json *fields = json_new_object();
                json_set_string(fields, "filler", filler);
                events_append(f->project, "test", fields);
        }
        assert_true(fs_exists(old));
        assert_in_range(fs_size(f->project->events_path), 1, 5 * 1024 * 1024);
        assert_in_range(fs_size(old), 1, 5 * 1024 * 1024);
        _cleanup_free_ char *last = log_tail(f->project->events_path, 0, 1);
        assert_non_null(last);
}

static void launch_errors_are_one_clear_line(void **state) {
        (void)state;
        _cleanup_error_ struct error err = ERROR_INIT;
        launch_error("exited with status 1",
                     "2026-01-01T00:00:00.000000Z qemu-system-x86_64: -netdev user,id=net0: Could not set up host "
                     "forwarding rule 'tcp:127.0.0.1:6443-10.0.2.15:6443'\n",
                     &err);
        assert_int_equal(err.code, ERR_PORT);
        assert_string_equal(err.message, "QEMU cannot listen on 127.0.0.1:6443: the port is taken");
        launch_error("exited with status 1", "2026-01-01T00:00:00.000000Z qemu-system-x86_64: no room\nmore\n", &err);
        assert_string_equal(err.message, "QEMU exited with status 1: no room");
        assert_string_equal(err.detail, "2026-01-01T00:00:00.000000Z qemu-system-x86_64: no room\nmore\n");
        launch_error("was killed by signal 9 (Killed)", NULL, &err);
        assert_null(err.detail);
}

static void orders_without_a_vm_are_refused(void **state) {
        struct fixture *f = *state;
        static const char *const texts[] = {"{}", "[]", "{\"project\":\"/nowhere\",\"uuid\":\"x\",\"argv\":[\"a\"]}",
                                            "{\"project\":7,\"uuid\":\"x\",\"argv\":[\"a\"]}"};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_json_ struct json *j = NULL;
                _cleanup_launch_ struct launch l = {0};
                assert_int_equal(json_parse(texts[i], strlen(texts[i]), &j, NULL), 0);
                assert_true(launch_parse(j, &l, NULL) < 0);
        }
        _cleanup_strv_ struct strv argv = {0};
        strv_push(&argv, "qemu, \"x\"\n");
        _cleanup_json_ struct json *j = launch_to_json(f->project->root, f->state->uuid, "n", &argv);
        _cleanup_launch_ struct launch l = {0};
        assert_int_equal(launch_parse(j, &l, NULL), 0);
        assert_string_equal(l.argv.items[0], "qemu, \"x\"\n");
        assert_string_equal(l.uuid, f->state->uuid);
}

static void errors_keep_every_part_on_their_way_to_another_process(void **state) {
        (void)state;
        _cleanup_error_ struct error err = ERROR_INIT, back = ERROR_INIT, bare = ERROR_INIT;
        err_set(&err, ERR_PORT, EADDRINUSE, "port %d is taken", 6443);
        err_hint(&err, "free it");
        err_detail(&err, "one\ntwo\n");
        _cleanup_json_ struct json *j = error_to_json(&err), *nothing = json_new_object();
        assert_int_equal(error_from_json(j, &back), -EADDRINUSE);
        assert_int_equal(back.code, ERR_PORT);
        assert_string_equal(back.message, "port 6443 is taken");
        assert_string_equal(back.hint, "free it");
        assert_string_equal(back.detail, "one\ntwo\n");
        assert_int_equal(error_from_json(nothing, &bare), -EIO);
        assert_null(bare.hint);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(logs_are_cut_before_they_grow_without_bound),
                        TEST(events_are_rotated_and_hold_what_they_were_given),
                        TEST(launch_errors_are_one_clear_line),
                        TEST(orders_without_a_vm_are_refused),
                        cmocka_unit_test(errors_keep_every_part_on_their_way_to_another_process),
        };
        return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
