/* SPDX-License-Identifier: MIT */
/*
 * Archives as they are read from a file, without a copy of anything (libarchive behind it): the bytes behind a
 * compression, the members of a tar, and a folder as a tar.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>

struct archive_stream;

/* The file at @path without its compression (gzip, zstd, xz, bzip2 or none). */
int archive_stream_open(const char *path, struct archive_stream **ret, struct error *err);
/* The files below the folder @path that @names (relative, NULL-terminated; folders with all that is in them) say, as a
 * tar with root's files. Symlinks are -EPERM: a tar of their targets would be of what lies elsewhere. */
int archive_stream_folder(const char *path, const char *const *names, struct archive_stream **ret, struct error *err);
void archive_stream_free(struct archive_stream *s);
DEFINE_FREEP(struct archive_stream, archive_stream_free)
#define _cleanup_archive_stream_ _cleanup_(archive_stream_freep)

/* At most @len bytes, 0 at the end. A file that is cut off or damaged is -EBADMSG. */
ssize_t archive_stream_read(struct archive_stream *s, void *data, size_t len, struct error *err);

/* Writes the file @from without its compression to the new file @to, 0600, zeros as holes. */
int archive_expand(const char *from, const char *to, struct progress *progress, struct progress_phase *phase,
                   struct error *err);

/* Members of a tar for archive_scan(): it fills in @contents of those that are there, files of at most @max bytes. */
struct archive_member {
        const char *name; /* "manifest.json" */
        size_t max;
        struct buf contents;
        int found;
};
/* Reads a tar, compressed or not, to its end. @ret_bytes is its size without compression. -EBADMSG: no tar, or one that
 * is cut off or damaged; -E2BIG: a member is larger than its bound. */
int archive_scan(const char *path, struct archive_member *members, size_t n, uint64_t *ret_bytes, struct error *err);
