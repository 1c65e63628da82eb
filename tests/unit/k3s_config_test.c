/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <k3s-vm/json.h>
#include <k3s-vm/k3s_config.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

#include <string.h>

/* What K3s would read, as JSON. */
static char *read_back(const char *args) {
        _cleanup_free_ char *text = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(k3s_config(args, &text, &err), 0);
        _cleanup_json_ struct json *documents = NULL;
        assert_int_equal(yaml_parse(text, strlen(text), &documents, &err), 0);
        return json_print(json_at(documents, 0), false);
}

static void assert_config(const char *args, const char *expected) {
        _cleanup_free_ char *got = read_back(args);
        assert_string_equal(got, expected);
}

static void options_become_keys(void **state _unused_) {
        assert_config("--disable=traefik", "{\"disable\":\"traefik\"}");
        assert_config("--disable traefik", "{\"disable\":\"traefik\"}");
        assert_config("--docker --node-name=a", "{\"docker\":true,\"node-name\":\"a\"}");
}

static void no_options_are_no_document(void **state _unused_) {
        static const char *const empty[] = {"", "  \t\n"};
        for (size_t i = 0; i < ELEMENTSOF(empty); i++) {
                _cleanup_free_ char *text = NULL;
                _cleanup_json_ struct json *documents = NULL;
                assert_int_equal(k3s_config(empty[i], &text, NULL), 0);
                assert_int_equal(yaml_parse(text, strlen(text), &documents, NULL), 0);
                assert_int_equal(json_len(documents), 0);
        }
}

static void a_repeated_option_is_a_list(void **state _unused_) {
        assert_config("--disable traefik --disable=servicelb --disable x",
                      "{\"disable\":[\"traefik\",\"servicelb\",\"x\"]}");
}

static void values_keep_equal_signs_and_stay_strings(void **state _unused_) {
        assert_config("--node-label=a=b", "{\"node-label\":\"a=b\"}");
        assert_config("--cluster-cidr=10.42.0.0/16 --flannel-mtu=1400",
                      "{\"cluster-cidr\":\"10.42.0.0/16\",\"flannel-mtu\":\"1400\"}");
        assert_config("--flag=true", "{\"flag\":\"true\"}");
}

static void anything_else_is_a_usage_error(void **state _unused_) {
        static const char *const bad[] = {"traefik", "-v", "--", "--=x", "--a b c"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                char *text = NULL;
                assert_int_equal(k3s_config(bad[i], &text, &err), -EINVAL);
                assert_int_equal(err.code, ERR_USAGE);
                assert_null(text);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(options_become_keys),
                        cmocka_unit_test(no_options_are_no_document),
                        cmocka_unit_test(a_repeated_option_is_a_list),
                        cmocka_unit_test(values_keep_equal_signs_and_stay_strings),
                        cmocka_unit_test(anything_else_is_a_usage_error),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
