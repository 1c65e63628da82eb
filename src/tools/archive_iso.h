/* SPDX-License-Identifier: MIT */
/*
 * The last step of archive_write_iso(): libarchive stamps an image with the time of its making, the time zone, its
 * own version and, on the root folder, the user's number. These are set to fixed values in the finished image.
 */
#pragma once

#include <k3s-vm/err.h>

/* Sets all times in the ISO 9660 image in @fd (open for reading and writing) to 1970-01-01 UTC and all owners to root,
 * and clears the writer's information block. */
int archive_iso_pin(int fd, struct error *err);
