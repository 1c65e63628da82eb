/* SPDX-License-Identifier: MIT */
/*
 * Ctrl-C, SIGTERM and a closed terminal while a command works. From interrupt_begin() on these signals are not
 * delivered but make a descriptor readable, so that work can stop between two steps and clean up after itself.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/err.h>

/* Starts it; call once, before any thread. */
int interrupt_begin(struct error *err);
/* Ends it: signals do again what they did before, those that came meanwhile, too. */
void interrupt_end(void);
/* The descriptor to poll; never read from, so it stays readable. -1 before interrupt_begin(). */
int interrupt_fd(void);
bool interrupt_pending(void);
/* ERR_INTERRUPTED once one came, else 0. */
int interrupt_check(struct error *err);
/* Waits up to @ms for @fd (-1: only time) to become readable. 1 readable, 0 time is over, negative: interrupted. */
int interrupt_wait(int fd, unsigned ms, struct error *err);
