/* SPDX-License-Identifier: MIT */
/* The guest's clock, set by this machine's over SSH: after this machine slept, or the guest stood still. */
#pragma once

#include <k3s-vm/remote.h>

#define CLOCK_RIGHT_MS 500 /* as good as whole seconds can be, which is all that some date(1) know */

/* Sets it if it is further off than that. @ret_was_off_ms is by how much it was ahead. */
int clock_set_guest(struct remote *remote, int64_t *ret_was_off_ms, struct error *err);
