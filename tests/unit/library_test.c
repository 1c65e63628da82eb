/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/library.h>

#define MATH_SYMBOLS(X) X(cbrt) X(hypot)

static void functions_can_be_called_once_their_library_is_loaded(void **state _unused_) {
        LIBRARY_DECLARE(math, MATH_SYMBOLS);
        assert_int_equal(LIBRARY_LOAD(math, "libm.so.6", MATH_SYMBOLS, NULL), 0);
        assert_true(math.cbrt(27) > 2.99 && math.cbrt(27) < 3.01);
        assert_true(math.hypot(3, 4) > 4.99 && math.hypot(3, 4) < 5.01);
        void *handle = math.handle_;
        assert_int_equal(LIBRARY_LOAD(math, "libm.so.6", MATH_SYMBOLS, NULL), 0);
        assert_ptr_equal(math.handle_, handle);
}

static void a_missing_library_is_named_with_what_to_do(void **state _unused_) {
        void *handle = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(library_load(&handle, "libk3s-vm-none.so.1", NULL, 0, &err), -ENOENT);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, "libk3s-vm-none.so.1"));
        assert_non_null(err.hint);
        assert_null(handle);
}

static void a_library_that_lacks_a_function_is_not_loaded(void **state _unused_) {
        void *handle = NULL, *cbrt_address = NULL, *none_address = NULL;
        const struct library_symbol symbols[] = {{"cbrt", &cbrt_address}, {"k3s_vm_none", &none_address}};
        for (int i = 0; i < 2; i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_int_equal(library_load(&handle, "libm.so.6", symbols, ELEMENTSOF(symbols), &err), -ENOSYS);
                assert_int_equal(err.code, ERR_HOST);
                assert_non_null(strstr(err.message, "k3s_vm_none"));
                assert_null(handle);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(functions_can_be_called_once_their_library_is_loaded),
                        cmocka_unit_test(a_missing_library_is_named_with_what_to_do),
                        cmocka_unit_test(a_library_that_lacks_a_function_is_not_loaded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
