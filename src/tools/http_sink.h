/* SPDX-License-Identifier: MIT */
/*
 * Where a download goes: into a file and into its hash, by a thread of its own, so that what comes in does not wait
 * for the disk and the hash. Not for anyone but http_download.c.
 */
#pragma once

#include <k3s-vm/digest.h>

struct sink;

/* Bytes go to where the descriptor @fd is, and to @digest: both stay the caller's, who leaves them alone until
 * sink_settle() or sink_free(). @at: how much of the file there is. Where no thread is to be had the caller's does it.
 */
struct sink *sink_new(int fd, uint64_t at, struct digest *digest);
/* Takes a copy. A negative errno: something that came before could not be written. */
int sink_put(struct sink *s, const void *data, size_t len);
/* Waits until all is written and hashed. */
int sink_settle(struct sink *s);
/* What was not settled may be lost. */
void sink_free(struct sink *s);
DEFINE_FREEP(struct sink, sink_free)
#define _cleanup_sink_ _cleanup_(sink_freep)
