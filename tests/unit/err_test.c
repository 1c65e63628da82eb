/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/err.h>

static void setting_gives_code_message_and_the_negative_errno(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(err_set(&err, ERR_PORT, EADDRINUSE, "port %d is taken", 6443), -EADDRINUSE);
        assert_int_equal(err.code, ERR_PORT);
        assert_int_equal(err.errnum, EADDRINUSE);
        assert_string_equal(err.message, "port 6443 is taken");
        assert_null(err.hint);
        assert_null(err.detail);
}

static void an_errno_of_nothing_counts_as_eio(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(err_set(&err, ERR_FAILED, 0, "odd"), -EIO);
        assert_int_equal(err.errnum, EIO);
        assert_int_equal(err_errno(&err, 0, "odd"), -EIO);
        _cleanup_free_ char *expected = xasprintf("odd: %s", strerror(EIO));
        assert_string_equal(err.message, expected);
        assert_int_equal(err_set(NULL, ERR_FAILED, 0, "odd"), -EIO);
}

static void setting_again_drops_message_hint_and_detail(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        err_set(&err, ERR_PORT, EADDRINUSE, "first");
        err_hint(&err, "a hint");
        err_detail(&err, "some lines");
        assert_int_equal(err_errno(&err, ENOENT, "cannot open %s", "x"), -ENOENT);
        assert_int_equal(err.code, ERR_FAILED);
        assert_string_equal(err.message, "cannot open x: No such file or directory");
        assert_null(err.hint);
        assert_null(err.detail);
}

static void a_message_can_be_made_from_the_one_it_replaces(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        err_set(&err, ERR_FAILED, EIO, "first");
        err_set(&err, ERR_FAILED, EIO, "not %s", err.message);
        assert_string_equal(err.message, "not first");
        err_errno(&err, ENOENT, "%s", err.message);
        assert_string_equal(err.message, "not first: No such file or directory");
        err_hint(&err, "one");
        err_hint(&err, "%s and two", err.hint);
        assert_string_equal(err.hint, "one and two");
        err_detail(&err, "lines");
        err_detail(&err, err.detail);
        assert_string_equal(err.detail, "lines");
}

static void wrapping_puts_a_prefix_and_keeps_the_rest(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = err_set(&err, ERR_PORT, EADDRINUSE, "port 1 is taken");
        err_hint(&err, "use another");
        assert_int_equal(err_wrap(&err, r, "cannot start %s", "shop"), -EADDRINUSE);
        assert_string_equal(err.message, "cannot start shop: port 1 is taken");
        assert_int_equal(err.code, ERR_PORT);
        assert_int_equal(err.errnum, EADDRINUSE);
        assert_string_equal(err.hint, "use another");
}

static void wrapping_an_empty_error_makes_it_one(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(err_wrap(&err, -EWOULDBLOCK, "cannot lock"), -EWOULDBLOCK);
        assert_string_equal(err.message, "cannot lock");
        assert_int_equal(err.code, ERR_FAILED);
        assert_int_equal(err.errnum, EWOULDBLOCK);
}

static void without_an_error_the_errno_still_comes_back(void **state _unused_) {
        assert_int_equal(err_set(NULL, ERR_PORT, EADDRINUSE, "x"), -EADDRINUSE);
        assert_int_equal(err_errno(NULL, ENOENT, "x"), -ENOENT);
        assert_int_equal(err_wrap(NULL, -ENOENT, "x"), -ENOENT);
        err_hint(NULL, "x");
        err_detail(NULL, "x");
        error_clear(NULL);
}

static void moving_empties_the_source_and_frees_the_target(void **state _unused_) {
        _cleanup_error_ struct error from = ERROR_INIT, to = ERROR_INIT;
        err_set(&to, ERR_FAILED, EIO, "old");
        err_hint(&to, "old hint");
        err_set(&from, ERR_STATE, EBUSY, "new");
        assert_int_equal(err_move(&to, &from), -EBUSY);
        assert_string_equal(to.message, "new");
        assert_null(to.hint);
        assert_int_equal(to.code, ERR_STATE);
        assert_int_equal(from.code, 0);
        assert_null(from.message);
}

static void moving_to_nobody_frees_the_source(void **state _unused_) {
        struct error from = ERROR_INIT;
        err_set(&from, ERR_STATE, EBUSY, "new");
        assert_int_equal(err_move(NULL, &from), -EBUSY);
        assert_null(from.message);
        assert_int_equal(err_move(NULL, &from), -EIO);
}

static void clearing_twice_is_fine(void **state _unused_) {
        struct error err = ERROR_INIT;
        err_set(&err, ERR_STATE, EBUSY, "x");
        err_detail(&err, "y");
        error_clear(&err);
        error_clear(&err);
        assert_int_equal(err.code, 0);
        assert_null(err.message);
        assert_null(err.detail);
}

static void nothing_duplicated_is_nothing(void **state _unused_) {
        assert_null(xstrdup(NULL));
        _cleanup_free_ char *part = xstrndup("abc", 2), *printed = xasprintf("%s-%d", "a", 1);
        assert_string_equal(part, "ab");
        assert_string_equal(printed, "a-1");
        /* Of no size is no reason to end the program. */
        _cleanup_free_ void *none = xcalloc(0, 0), *grown = xreallocarray(NULL, 0, 4);
        assert_non_null(none);
        assert_non_null(grown);
}

static void a_full_or_read_only_disk_is_what_the_host_lacks(_unused_ void **state) {
        static const int of_the_host[] = {ENOSPC, EDQUOT, EROFS};
        _cleanup_error_ struct error err = ERROR_INIT;
        for (size_t i = 0; i < ELEMENTSOF(of_the_host); i++) {
                assert_int_equal(err_errno(&err, of_the_host[i], "x"), -of_the_host[i]);
                assert_int_equal(err.code, ERR_HOST);
        }
        err_errno(&err, EACCES, "x");
        assert_int_equal(err.code, ERR_FAILED);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(a_full_or_read_only_disk_is_what_the_host_lacks),
                        cmocka_unit_test(setting_gives_code_message_and_the_negative_errno),
                        cmocka_unit_test(an_errno_of_nothing_counts_as_eio),
                        cmocka_unit_test(setting_again_drops_message_hint_and_detail),
                        cmocka_unit_test(a_message_can_be_made_from_the_one_it_replaces),
                        cmocka_unit_test(wrapping_puts_a_prefix_and_keeps_the_rest),
                        cmocka_unit_test(wrapping_an_empty_error_makes_it_one),
                        cmocka_unit_test(without_an_error_the_errno_still_comes_back),
                        cmocka_unit_test(moving_empties_the_source_and_frees_the_target),
                        cmocka_unit_test(moving_to_nobody_frees_the_source),
                        cmocka_unit_test(clearing_twice_is_fine),
                        cmocka_unit_test(nothing_duplicated_is_nothing),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
