/* SPDX-License-Identifier: MIT */
/*
 * What the cache keeps. Guests and payloads are made again when they are missing, so the cache keeps what the VMs of
 * this user are made of, what was used in the last hour (by a command that has not registered its VM yet, maybe), and
 * of the others the two that were used last, of each kind. A use sets the modification time.
 */
#pragma once

#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

#define CACHE_KEEP 2U
#define CACHE_KEEP_S 3600

/* Removes what is not kept of guests, built payloads and payload images. What cannot be removed stays. */
void cache_prune(const struct project *p, struct progress *progress);
