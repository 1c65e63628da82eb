/* SPDX-License-Identifier: MIT */
/* Texts against golden files. Behind cmocka.h. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include <k3s-vm/fs.h>

/* Compares @text with tests/golden/NAME; K3S_VM_UPDATE_GOLDEN=1 writes it there first. */
static inline void golden_compare(const char *text, const char *name) {
        _cleanup_free_ char *path = path_join("tests/golden", name);
        if (getenv("K3S_VM_UPDATE_GOLDEN"))
                assert_int_equal(fs_write_atomic(path, text, strlen(text), 0644, NULL), 0);
        _cleanup_buf_ struct buf golden = BUF_INIT(0);
        _cleanup_error_ struct error err = ERROR_INIT;
        if (fs_read(path, 64U * 1024, &golden, &err) < 0)
                fail_msg("%s (run from the repository's top; K3S_VM_UPDATE_GOLDEN=1 makes it)", err.message);
        assert_string_equal(text, buf_str(&golden));
}
