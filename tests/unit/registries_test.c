/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <k3s-vm/registries.h>

static void assert_registries(const char *mirrors, const char *ca, const char *expected) {
        struct config c = {.registry_mirrors = (char *)mirrors, .registry_ca = (char *)ca};
        _cleanup_free_ char *text = NULL, *ca_text = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(registries_make(&c, "/ca", &text, &ca_text, &err), 0);
        if (expected)
                assert_string_equal(text, expected);
        else
                assert_null(text);
        assert_int_equal(ca_text != NULL, *ca != '\0');
}

static void mirrors_become_endpoints(void **state _unused_) {
        assert_registries("", "", NULL);
        assert_registries("docker.io=https://m.test:5000", "",
                          "{\"mirrors\":{\"docker.io\":{\"endpoint\":[\"https://m.test:5000\"]}}}");
        assert_registries("docker.io=https://a.test docker.io=http://b.test/v2  *=https://a.test", "",
                          "{\"mirrors\":{\"docker.io\":{\"endpoint\":[\"https://a.test\",\"http://b.test/v2\"]},"
                          "\"*\":{\"endpoint\":[\"https://a.test\"]}}}");
}

static void the_authority_is_for_the_servers_with_tls(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "ca.pem");
        scratch_write(path, "-----BEGIN CERTIFICATE-----\n");
        assert_registries("docker.io=https://m.test:5000/x ghcr.io=http://10.0.2.2:5000", path,
                          "{\"mirrors\":{\"docker.io\":{\"endpoint\":[\"https://m.test:5000/x\"]},"
                          "\"ghcr.io\":{\"endpoint\":[\"http://10.0.2.2:5000\"]}},"
                          "\"configs\":{\"m.test:5000\":{\"tls\":{\"ca_file\":\"/ca\"}}}}");
        assert_registries("", path, "{\"configs\":{\"*\":{\"tls\":{\"ca_file\":\"/ca\"}}}}");
}

static void a_file_without_a_certificate_is_a_usage_error(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "no.pem"), *text = NULL, *ca = NULL;
        struct config c = {.registry_mirrors = (char *)"", .registry_ca = path};
        for (int there = 0; there < 2; there++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_true(registries_make(&c, "/ca", &text, &ca, &err) < 0);
                assert_int_equal(err.code, ERR_USAGE);
                assert_non_null(strstr(err.message, "REGISTRY_CA"));
                assert_null(text);
                scratch_write(path, "a key, perhaps\n");
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(mirrors_become_endpoints),
                        cmocka_unit_test_setup_teardown(the_authority_is_for_the_servers_with_tls, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(a_file_without_a_certificate_is_a_usage_error, scratch_setup,
                                                        scratch_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
