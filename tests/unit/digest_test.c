/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const char certificate[] = "-----BEGIN CERTIFICATE-----\n"
                                  "MIIBGDCBvgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1rM3Mtc2VydmVyLWNh\n"
                                  "MB4XDTI0MDEwMTAwMDAwMFoXDTM0MDEwMTEyMzQ1NlowGDEWMBQGA1UEAwwNazNz\n"
                                  "LXNlcnZlci1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGOCMV4Likm1knd6\n"
                                  "7y8vw4Ejn+7yh2FBsHp/RkTkoIOLYGgqW0jHVV6CiG1+uQfFeDMqUpeh2w4MR7ir\n"
                                  "dWhdoSYwCgYIKoZIzj0EAwIDSQAwRgIhANdkA9HZ5UAkoJjRCPqtleIgDonm9uUy\n"
                                  "GDRDgdALsvxdAiEAsUpLfTq1ZORDoREbI8N/tR7TWlb9gGpSUg6rT5P+fpY=\n"
                                  "-----END CERTIFICATE-----\n";

static void known_texts_have_their_known_hashes(void **state _unused_) {
        char hex[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_bytes("abc", 3, hex, NULL), 0);
        assert_string_equal(hex, ABC);
        assert_int_equal(digest_bytes(NULL, 0, hex, NULL), 0);
        assert_string_equal(hex, EMPTY);
}

static void pieces_hash_as_the_whole(void **state _unused_) {
        _cleanup_digest_ struct digest *d = NULL;
        char hex[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_new(&d, NULL), 0);
        digest_update(d, "a", 1);
        digest_update(d, NULL, 0);
        digest_update(d, "bc", 2);
        digest_final(d, hex);
        assert_string_equal(hex, ABC);
}

static void the_length_of_a_hash_says_its_kind(void **state _unused_) {
        static const char abc512[] = "DDAF35A193617ABACC417349AE20413112E6FA4E89A97EA20A9EEEE64B55D39A"
                                     "2192992A274FC1A836BA3C23A3FEEBBD454D4423643CE80E2A9AC94FA54CA49F";
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-digest", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "file");
        assert_int_equal(fs_write_atomic(path, "abc", 3, 0600, NULL), 0);
        assert_int_equal(digest_check(path, abc512, NULL), 1);
        assert_int_equal(digest_check(path, ABC, NULL), 1);
        assert_int_equal(digest_check(path, EMPTY, NULL), 0);
        assert_int_equal(digest_check(dir, ABC, NULL), -EISDIR);
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
}

static void an_unfinished_digest_can_be_freed(void **state _unused_) {
        struct digest *d = NULL;
        assert_int_equal(digest_new(&d, NULL), 0);
        digest_update(d, "a", 1);
        digest_free(d);
        digest_free(NULL);
}

static void a_file_hashes_as_its_contents(void **state _unused_) {
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-digest", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "file");
        /* Larger than one block of reading and no multiple of it. */
        size_t len = 1024 * 1024 + 17;
        _cleanup_free_ char *data = xcalloc(len, 1);
        memset(data, 'x', len);
        assert_int_equal(fs_write_atomic(path, data, len, 0600, NULL), 0);
        char of_file[SHA256_HEX_LEN + 1], of_bytes[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_file(path, of_file, NULL), 0);
        assert_int_equal(digest_bytes(data, len, of_bytes, NULL), 0);
        assert_string_equal(of_file, of_bytes);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(digest_file(dir, of_file, &err), -EISDIR);
        assert_non_null(strstr(err.message, dir));
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
        assert_int_equal(digest_file(path, of_file, &err), -ENOENT);
}

static void the_end_of_a_certificate_is_utc(void **state _unused_) {
        time_t end = 0;
        assert_int_equal(certificate_not_after(certificate, &end, NULL), 0);
        assert_int_equal(end, 2019731696); /* 2034-01-01 12:34:56 */
}

static void text_around_the_certificate_is_skipped(void **state _unused_) {
        _cleanup_free_ char *text =
                        xasprintf("subject: x\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n%s"
                                  "trailing",
                                  certificate);
        time_t end = 0;
        assert_int_equal(certificate_not_after(text, &end, NULL), 0);
        assert_int_equal(end, 2019731696);
}

static void what_is_no_certificate_is_an_error(void **state _unused_) {
        _cleanup_free_ char *cut = xstrndup(certificate, sizeof(certificate) / 2);
        _cleanup_free_ char *damaged = xstrdup(certificate);
        memcpy(damaged + 40, "!!!!", 4);
        const char *const bad[] = {"", "x", cut, damaged, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                time_t end = 5;
                assert_int_equal(certificate_not_after(bad[i], &end, &err), -EBADMSG);
                assert_non_null(err.message);
                assert_int_equal(end, 5);
        }
}

static void base64_goes_both_ways(void **state _unused_) {
        /* RFC 4648, section 10. */
        static const char *const pairs[][2] = {{"", ""},
                                               {"f", "Zg=="},
                                               {"fo", "Zm8="},
                                               {"foo", "Zm9v"},
                                               {"foob", "Zm9vYg=="},
                                               {"fooba", "Zm9vYmE="},
                                               {"foobar", "Zm9vYmFy"}};
        for (size_t i = 0; i < ELEMENTSOF(pairs); i++) {
                _cleanup_free_ char *encoded = base64_encode(pairs[i][0], strlen(pairs[i][0])), *decoded = NULL;
                size_t len = 99;
                assert_string_equal(encoded, pairs[i][1]);
                assert_int_equal(base64_decode(encoded, &decoded, &len, NULL), 0);
                assert_int_equal(len, strlen(pairs[i][0]));
                assert_string_equal(decoded, pairs[i][0]);
        }
        unsigned char all[256];
        for (size_t i = 0; i < sizeof(all); i++)
                all[i] = (unsigned char)i;
        for (size_t n = 0; n <= sizeof(all); n++) {
                _cleanup_free_ char *encoded = base64_encode(all, n), *decoded = NULL;
                size_t len = 0;
                assert_int_equal(base64_decode(encoded, &decoded, &len, NULL), 0);
                assert_int_equal(len, n);
                assert_memory_equal(decoded, all, n);
        }
}

static void base64_may_be_broken_into_lines(void **state _unused_) {
        _cleanup_free_ char *decoded = NULL;
        size_t len = 0;
        assert_int_equal(base64_decode(" Zm9v\r\n\tYm Fy\n", &decoded, &len, NULL), 0);
        assert_string_equal(decoded, "foobar");
}

static void bad_base64_is_an_error(void **state _unused_) {
        static const char *const bad[] = {
                        "Z",    "Zg",   "Zg=",  "Zg===",    "Zm9vYg=", "=",     "====", "Zh==",
                        "Zm9=", "Zm-v", "Zm_v", "Zg==Zg==", "Z g=x",   "Zm9v!", "\xff", "Zm9v=",
        };
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                char *decoded = NULL;
                size_t len = 7;
                assert_int_equal(base64_decode(bad[i], &decoded, &len, &err), -EBADMSG);
                assert_null(decoded);
                assert_int_equal(len, 7);
        }
}

static void random_names_differ_and_have_their_form(void **state _unused_) {
        _cleanup_free_ char *a = random_hex(300), *b = random_hex(300), *none = random_hex(0);
        assert_int_equal(strlen(a), 600);
        assert_int_equal(strspn(a, "0123456789abcdef"), 600);
        assert_string_not_equal(a, b);
        assert_string_equal(none, "");
        for (int i = 0; i < 100; i++) {
                _cleanup_free_ char *uuid = random_uuid();
                assert_int_equal(strlen(uuid), 36);
                assert_int_equal(strspn(uuid, "0123456789abcdef-"), 36);
                assert_true(uuid[8] == '-' && uuid[13] == '-' && uuid[18] == '-' && uuid[23] == '-');
                assert_int_equal(uuid[14], '4');
                assert_non_null(strchr("89ab", uuid[19]));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(known_texts_have_their_known_hashes),
                        cmocka_unit_test(pieces_hash_as_the_whole),
                        cmocka_unit_test(the_length_of_a_hash_says_its_kind),
                        cmocka_unit_test(an_unfinished_digest_can_be_freed),
                        cmocka_unit_test(a_file_hashes_as_its_contents),
                        cmocka_unit_test(the_end_of_a_certificate_is_utc),
                        cmocka_unit_test(text_around_the_certificate_is_skipped),
                        cmocka_unit_test(what_is_no_certificate_is_an_error),
                        cmocka_unit_test(base64_goes_both_ways),
                        cmocka_unit_test(base64_may_be_broken_into_lines),
                        cmocka_unit_test(bad_base64_is_an_error),
                        cmocka_unit_test(random_names_differ_and_have_their_form),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
