/* SPDX-License-Identifier: MIT */
/* Programs of others that a test runs. Behind cmocka.h. */
#pragma once

#include <k3s-vm/proc.h>

/* Runs @argv, which is to succeed; its output goes to @ret_stdout, if that is given. */
static inline void run_tool(const char *const *argv, struct buf *ret_stdout) {
        _cleanup_buf_ struct buf tail = BUF_INIT(0);
        struct proc_run_spec spec = PROC_RUN_SPEC_INIT;
        struct proc_result result = {0};
        spec.spec.argv = argv;
        spec.ret_stdout = ret_stdout;
        spec.ret_tail = &tail;
        spec.timeout_ms = 60000;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (proc_run(&spec, &result, &err) < 0)
                fail_msg("%s", err.message);
        if (result.exit_status != 0)
                fail_msg("%s: status %d: %s", argv[0], result.exit_status, buf_str(&tail));
}
