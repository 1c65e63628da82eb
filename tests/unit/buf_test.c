/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>

static void an_empty_buffer_is_the_empty_string(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_string_equal(buf_str(&b), "");
        buf_clear(&b);
        buf_consume(&b, 5);
        assert_int_equal(b.len, 0);
        _cleanup_free_ char *taken = buf_take(&b);
        assert_string_equal(taken, "");
}

static void appended_data_ends_in_a_nul_that_is_not_counted(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(buf_append(&b, "a\0b", 3), 0);
        assert_int_equal(b.len, 3);
        assert_memory_equal(b.data, "a\0b", 4);
        assert_int_equal(buf_append(&b, NULL, 0), 0);
        assert_int_equal(b.len, 3);
}

static void the_bound_itself_fits_and_one_more_leaves_all_as_it_was(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(5);
        assert_int_equal(buf_puts(&b, "abc"), 0);
        assert_int_equal(buf_puts(&b, "def"), -E2BIG);
        assert_int_equal(buf_printf(&b, "%d", 123), -E2BIG);
        assert_string_equal(buf_str(&b), "abc");
        assert_int_equal(buf_printf(&b, "%d", 12), 0);
        assert_string_equal(buf_str(&b), "abc12");
        assert_int_equal(buf_puts(&b, "x"), -E2BIG);
        assert_int_equal(buf_puts(&b, ""), 0);
        assert_int_equal(buf_append(&b, "x", SIZE_MAX), -E2BIG);
        assert_int_equal(buf_append(&b, "x", SIZE_MAX - 4), -E2BIG);
        assert_string_equal(buf_str(&b), "abc12");
}

static void without_a_bound_the_default_one_holds(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(buf_append(&b, "x", (size_t)BUF_MAX_DEFAULT + 1), -E2BIG);
        assert_int_equal(b.len, 0);
}

static void it_grows_over_many_small_pieces(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (int i = 0; i < 20000; i++)
                assert_int_equal(buf_printf(&b, "%05d,", i), 0);
        assert_int_equal(b.len, 120000);
        assert_memory_equal(b.data + 6 * 12345, "12345,", 6);
        assert_int_equal(b.data[b.len], '\0');
}

static void printing_nothing_leaves_a_string(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(buf_printf(&b, "%s", ""), 0);
        assert_string_equal(b.data, "");
}

static void consuming_drops_from_the_front(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, "line\nrest");
        buf_consume(&b, 5);
        assert_string_equal(buf_str(&b), "rest");
        assert_int_equal(b.len, 4);
        buf_consume(&b, 0);
        assert_string_equal(buf_str(&b), "rest");
        buf_consume(&b, 100);
        assert_string_equal(buf_str(&b), "");
        assert_int_equal(b.len, 0);
}

static void what_was_taken_is_gone_and_the_buffer_is_usable(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(4);
        buf_puts(&b, "one");
        _cleanup_free_ char *taken = buf_take(&b);
        assert_string_equal(taken, "one");
        assert_string_equal(buf_str(&b), "");
        assert_int_equal(buf_puts(&b, "four"), 0);
        assert_int_equal(buf_puts(&b, "5"), -E2BIG);
}

static void clearing_keeps_the_bound(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(4);
        buf_puts(&b, "four");
        buf_clear(&b);
        assert_string_equal(buf_str(&b), "");
        assert_int_equal(buf_puts(&b, "five!"), -E2BIG);
        assert_int_equal(buf_puts(&b, "five"), 0);
        buf_free(&b);
        assert_string_equal(buf_str(&b), "");
        assert_int_equal(buf_puts(&b, "five!"), -E2BIG);
}

static void reading_appends_until_the_end(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        int fds[2];
        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        buf_puts(&b, "a");
        assert_int_equal(buf_read(&b, fds[0]), -EAGAIN);
        assert_string_equal(buf_str(&b), "a");
        assert_int_equal(write(fds[1], "bcd", 3), 3);
        assert_int_equal(buf_read(&b, fds[0]), 3);
        assert_string_equal(buf_str(&b), "abcd");
        close(fds[1]);
        assert_int_equal(buf_read(&b, fds[0]), 0);
        close(fds[0]);
        assert_int_equal(buf_read(&b, fds[0]), -EBADF);
        assert_string_equal(buf_str(&b), "abcd");
}

static void reading_stops_at_the_bound(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(3);
        int fds[2];
        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(write(fds[1], "abcd", 4), 4);
        assert_int_equal(buf_read(&b, fds[0]), 3);
        assert_int_equal(buf_read(&b, fds[0]), -E2BIG);
        assert_string_equal(buf_str(&b), "abc");
        char left;
        assert_int_equal(read(fds[0], &left, 1), 1);
        assert_int_equal(left, 'd');
        close(fds[0]);
        close(fds[1]);
}

static void one_read_takes_at_most_64_kib(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        _cleanup_close_ int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        assert_int_equal(buf_read(&b, zero), 64 * 1024);
        assert_int_equal(buf_read(&b, zero), 64 * 1024);
        assert_int_equal(b.len, 128 * 1024);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(an_empty_buffer_is_the_empty_string),
                        cmocka_unit_test(appended_data_ends_in_a_nul_that_is_not_counted),
                        cmocka_unit_test(the_bound_itself_fits_and_one_more_leaves_all_as_it_was),
                        cmocka_unit_test(without_a_bound_the_default_one_holds),
                        cmocka_unit_test(it_grows_over_many_small_pieces),
                        cmocka_unit_test(printing_nothing_leaves_a_string),
                        cmocka_unit_test(consuming_drops_from_the_front),
                        cmocka_unit_test(what_was_taken_is_gone_and_the_buffer_is_usable),
                        cmocka_unit_test(clearing_keeps_the_bound),
                        cmocka_unit_test(reading_appends_until_the_end),
                        cmocka_unit_test(reading_stops_at_the_bound),
                        cmocka_unit_test(one_read_takes_at_most_64_kib),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
