/* SPDX-License-Identifier: MIT */
/*
 * System call filters (libseccomp behind them): a process gives up, for good, every system call but those of a list.
 * Any other one ends it at once with SIGSYS.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <k3s-vm/err.h>

/* Allowed calls, by the kernel's names, a space between two. Names that this architecture or libseccomp does not know
 * are left out, so that a list can hold what other C libraries and newer kernels use. */
struct sandbox_rule {
        const char *syscalls;
        /* Where @mask is not 0, only with an argument @argument that has none of these bits. */
        uint64_t mask;
        unsigned argument;
};

/* Confines this process, with all it will ever start. -ENOSYS: not in builds with AddressSanitizer, whose run-time
 * library makes calls of its own, up to starting a thread when it looks for leaks at the end. */
int sandbox_enter(const struct sandbox_rule *rules, size_t n, struct error *err);
