/* SPDX-License-Identifier: MIT */
/*
 * Confining a program of others to one folder (Landlock, Linux 5.13 and later): it may read and run what its user
 * may, and write, make and remove below that folder only. It holds for root too, and for all that it starts.
 */
#pragma once

#include <k3s-vm/err.h>

/* A descriptor for proc_spec.confined_by, which lets a program write below @folder and to /dev/null. The caller closes
 * it. -ENOSYS, -EOPNOTSUPP or -EPERM (ERR_HOST): this kernel cannot, or may not here. */
int confine_writes(const char *folder, int *ret_fd, struct error *err);
