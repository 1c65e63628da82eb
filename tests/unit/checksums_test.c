/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <k3s-vm/checksums.h>

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B64 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C64 "CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC"
#define c64 "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define A128 A64 A64

static char hex[DIGEST_HEX_MAX + 1];

static void the_formats_of_sha256sum_are_read(void **state) {
        (void)state;
        static const char text[] = A64 "  k3s-airgap-images-amd64.tar\n" B64 "  k3s\n" C64 " *image.img\r\n" A128
                                       "  debian.qcow2\n" B64 "  ./dotted\n" A64 "  with blank.img\n" C64 "  last";
        assert_true(checksums_find(text, "k3s", hex));
        assert_string_equal(hex, B64);
        assert_true(checksums_find(text, "image.img", hex));
        assert_string_equal(hex, c64);
        assert_true(checksums_find(text, "debian.qcow2", hex));
        assert_string_equal(hex, A128);
        assert_true(checksums_find(text, "dotted", hex));
        assert_true(checksums_find(text, "with blank.img", hex));
        assert_true(checksums_find(text, "last", hex));
        assert_false(checksums_find(text, "blank.img", hex));
        assert_false(checksums_find(text, "k3s-airgap", hex));
        assert_false(checksums_find(text, "", hex));
}

static void tagged_lines_in_a_signed_text_are_read(void **state) {
        (void)state;
        static const char text[] = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# Cloud.qcow2: 1234 bytes\n"
                                   "SHA256 (Cloud.qcow2) = " A64 "\nSHA256 (odd) (name).img) = " B64
                                   "\nSHA512 (big) = " A128 "\nMD5 (old) = " A64 "\n";
        assert_true(checksums_find(text, "Cloud.qcow2", hex));
        assert_string_equal(hex, A64);
        assert_true(checksums_find(text, "odd) (name).img", hex));
        assert_true(checksums_find(text, "big", hex));
        assert_string_equal(hex, A128);
        assert_false(checksums_find(text, "old", hex));
}

static void what_is_no_hash_is_none(void **state) {
        (void)state;
        static const char *const bad[] = {
                        "",
                        "\n\n",
                        "k3s",
                        A64,
                        A64 "\n",
                        A64 " k3s\n",
                        A64 "  ",
                        A64 "0  k3s\n",
                        "g" A64 "  k3s",
                        "SHA256 (k3s) = ",
                        "SHA256 (k3s) = " A64 "0",
                        "SHA512 (k3s) = " A64,
                        "SHA256 (k3s",
                        "SHA256 (k3s) = " A128,
                        "SHA256 (k3s)\n = " A64,
                        "\\" A64 "  k3s\n",
                        A64 "  \nk3s\n",
        };
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                if (checksums_find(bad[i], "k3s", hex))
                        fail_msg("found in \"%s\"", bad[i]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(the_formats_of_sha256sum_are_read),
                        cmocka_unit_test(tagged_lines_in_a_signed_text_are_read),
                        cmocka_unit_test(what_is_no_hash_is_none),
        };
        return cmocka_run_group_tests_name("checksums", tests, NULL, NULL);
}
