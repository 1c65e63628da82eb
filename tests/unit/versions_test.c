/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <k3s-vm/versions.h>

static void the_next_minor_and_anything_newer_in_this_one_may_follow(void **state) {
        (void)state;
        static const char *const pairs[][2] = {
                        {"v1.33.5+k3s1", "v1.33.5+k3s2"},
                        {"v1.33.5+k3s1", "v1.33.10+k3s1"},
                        {"v1.33.5+k3s1", "v1.34.0+k3s1"},
                        {"v1.33.5+k3s9", "v1.34.0-rc1+k3s1"},
                        {"v1.34.0-rc2+k3s1", "v1.34.0+k3s1"},
                        {"v1.34.0-rc2+k3s1", "v1.34.0-rc3+k3s1"},
                        {"v1.20.2", "v1.20.3"},
        };
        for (size_t i = 0; i < ELEMENTSOF(pairs); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                if (versions_check_upgrade(pairs[i][0], pairs[i][1], &err) != 0)
                        fail_msg("%s to %s: %s", pairs[i][0], pairs[i][1], err.message);
                assert_int_equal(versions_check_upgrade(pairs[i][1], pairs[i][0], NULL), -EINVAL);
                assert_int_equal(versions_check_upgrade(pairs[i][0], pairs[i][0], NULL), 1);
        }
}

static void refuse(const char *from, const char *to, const char *why, const char *hint) {
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(versions_check_upgrade(from, to, &err), -EINVAL);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.message, why) || (hint && !strstr(err.hint, hint)))
                fail_msg("%s to %s: %s / %s", from, to, err.message, err.hint ? err.hint : "");
}

static void what_may_not_follow_is_refused_with_the_reason(void **state) {
        (void)state;
        refuse("v1.33.5+k3s1", "v1.35.0+k3s1", "more than one minor", "upgrade --k3s v1.34");
        refuse("v1.33.5+k3s1", "v2.0.0+k3s1", "more than one minor", NULL);
        refuse("v1.33.5+k3s1", "v1.32.9+k3s1", "older", "reset");
        refuse("v1.33.5+k3s2", "v1.33.5+k3s1", "older", "reset");
        refuse("v1.33.5+k3s1", "custom", "cannot tell", NULL);
        refuse(NULL, "v1.33.5+k3s1", "cannot tell", NULL);
        refuse("v1.33.5+k3s1", "v1.34.0+k3s1; rm", "cannot tell", NULL);
        refuse("v1.33", "v1.34.0+k3s1", "cannot tell", NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(the_next_minor_and_anything_newer_in_this_one_may_follow),
                        cmocka_unit_test(what_may_not_follow_is_refused_with_the_reason),
        };
        return cmocka_run_group_tests_name("versions", tests, NULL, NULL);
}
