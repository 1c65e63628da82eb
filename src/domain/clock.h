/* SPDX-License-Identifier: MIT */
/*
 * Noticing that the guest's clock must be wrong. A guest keeps time by itself while it runs: when this machine was
 * suspended the guest stood still, and when this machine's clock was set the guest's was not.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/err.h>

/* This machine's clocks at one moment, in ms. */
struct clock_reading {
        int64_t real, boottime, monotonic;
};
void clock_read(struct clock_reading *ret);

#define CLOCK_JUMP_MS 1000 /* less is not worth a repair */

struct clock_jump {
        int64_t suspended_ms; /* how long this machine slept */
        int64_t set_ms;       /* by how much its clock was set forward (or back) beside that */
};
/* Compares two readings. False: neither of the two happened. */
bool clock_jumped(const struct clock_reading *before, const struct clock_reading *now, struct clock_jump *ret);

/* A descriptor that becomes readable when this machine wakes up or its clock is set, and never otherwise. */
int clock_watch(int *ret_fd, struct error *err);
/* Makes it quiet until the next time. */
void clock_watch_drain(int fd);
