/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <k3s-vm/fs.h>

#include "../../src/tools/http_sink.h"

static int open_unnamed(void) {
        int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        return fd;
}

static void all_of_it_is_written_and_hashed_in_order(void **state _unused_) {
        /* More than the ring holds, in pieces that fit nowhere. */
        const size_t size = 9U << 20, step = 99991;
        _cleanup_free_ char *data = xcalloc(size, 1), *back = xcalloc(size, 1);
        for (size_t i = 0; i < size; i++)
                data[i] = (char)(i * 31 ^ i >> 9);
        _cleanup_close_ int fd = open_unnamed();
        _cleanup_digest_ struct digest *digest = NULL;
        assert_int_equal(digest_new(&digest, NULL), 0);
        _cleanup_sink_ struct sink *s = sink_new(fd, 0, digest);
        for (size_t at = 0; at < size; at += step)
                assert_int_equal(sink_put(s, data + at, size - at < step ? size - at : step), 0);
        assert_int_equal(sink_settle(s), 0);
        char hex[SHA256_HEX_LEN + 1], expected[SHA256_HEX_LEN + 1];
        digest_peek(digest, hex);
        assert_int_equal(digest_bytes(data, size, expected, NULL), 0);
        assert_string_equal(hex, expected);
        assert_int_equal(pread(fd, back, size, 0), size);
        assert_memory_equal(data, back, size);

        /* It can go on after that. */
        assert_int_equal(sink_put(s, "more", 4), 0);
        assert_int_equal(sink_settle(s), 0);
        assert_int_equal(pread(fd, back, 5, (off_t)size), 4);
        assert_memory_equal(back, "more", 4);
}

static void what_comes_slowly_does_not_wait_for_a_whole_piece(void **state _unused_) {
        _cleanup_close_ int fd = open_unnamed();
        _cleanup_digest_ struct digest *digest = NULL;
        assert_int_equal(digest_new(&digest, NULL), 0);
        _cleanup_sink_ struct sink *s = sink_new(fd, 0, digest);
        uint64_t deadline = now_ms() + 10000;
        assert_int_equal(sink_put(s, "x", 1), 0);
        while (lseek(fd, 0, SEEK_END) == 0) {
                assert_true(now_ms() < deadline);
                usleep(1000);
        }
}

static void a_write_that_failed_is_told_and_the_last(void **state _unused_) {
        _cleanup_close_ int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
        _cleanup_digest_ struct digest *digest = NULL;
        assert_int_equal(digest_new(&digest, NULL), 0);
        _cleanup_sink_ struct sink *s = sink_new(fd, 0, digest);
        sink_put(s, "x", 1);
        assert_int_equal(sink_settle(s), -ENOSPC);
        assert_int_equal(sink_settle(s), -ENOSPC);
        char hex[SHA256_HEX_LEN + 1], expected[SHA256_HEX_LEN + 1];
        digest_final(digest, hex);
        assert_int_equal(digest_bytes("", 0, expected, NULL), 0);
        assert_string_equal(hex, expected);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(all_of_it_is_written_and_hashed_in_order),
                        cmocka_unit_test(what_comes_slowly_does_not_wait_for_a_whole_piece),
                        cmocka_unit_test(a_write_that_failed_is_told_and_the_last),
        };
        return cmocka_run_group_tests_name("http_sink", tests, NULL, NULL);
}
