/* SPDX-License-Identifier: MIT */
/* An empty folder for one test; the test's state is its path. Removed again by the teardown. Behind cmocka.h. */
#pragma once

#include <stdlib.h>

#include <k3s-vm/fs.h>

static inline int folder_setup(void **state) {
        char *dir = NULL;
        int r = fs_mkdtemp("/tmp", "k3s-vm-test", &dir, NULL);
        *state = dir;
        return r;
}

static inline int folder_teardown(void **state) {
        int r = fs_remove_tree(*state, NULL);
        free(*state);
        return r;
}

#define folder_test(function) cmocka_unit_test_setup_teardown(function, folder_setup, folder_teardown)
