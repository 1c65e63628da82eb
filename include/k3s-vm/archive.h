/* SPDX-License-Identifier: MIT */
/*
 * Archives and images (libarchive behind them): unpacking the files embedded in the program, and
 * writing the read-only ISO 9660 images that carry a payload or a cloud-init seed into a guest. No tool
 * of the host is needed for either. Output is the same byte for byte for the same input.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include <k3s-vm/err.h>

/* Unpacks a 7-Zip archive, or a plain tar, held in memory below @folder (which exists), only the members under
 * @prefix ("": all), with the prefix taken off. Permission bits are kept, owners and set-user-id bits are not; existing
 * files are replaced. Absolute names, "..", devices and links that lead out are -EPERM, nothing under @prefix is
 * -ENOENT; what came before the failure stays. */
int archive_unpack(const void *data, size_t len, const char *prefix, const char *folder, struct error *err);

/* One file of an image. Give exactly one of @source_path, @data (with @len 0: an empty file) and @link; none of them:
 * a folder. */
struct archive_entry {
        const char *name;        /* "bin/k3s", relative; missing folders are made, 0755 */
        const char *source_path; /* a file on the host, streamed */
        const void *data;
        size_t len;
        const char *link; /* what a symlink points to; guests that go by Joliet do not see it */
        mode_t mode;      /* permission bits */
};
/* An ISO 9660 image with Rock Ridge and Joliet, volume name @volume (at most 32 characters; upper-cased in the ISO's
 * own descriptor), owner root, times zero, in the order of @entries. Written to a temporary name, mode 0644, and
 * renamed. While it is written, the contents take as much room again in $TMPDIR (/tmp), in
 * a file without a name. What writers that were killed have left beside @path is removed. */
int archive_write_iso(const char *path, const char *volume, const struct archive_entry *entries, size_t n,
                      struct error *err);
