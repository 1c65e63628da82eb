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

/* Unpacks a tar held in memory below @folder (which exists), only the members under @prefix, with the
 * prefix taken off. Absolute names, ".." and links that lead out are refused. */
int archive_unpack(const void *data, size_t len, const char *prefix, const char *folder, struct error *err);

/* One file of an image. Give exactly one of @source_path and @data; neither: a folder. */
struct archive_entry {
        const char *name;        /* "bin/k3s", relative; missing folders are made */
        const char *source_path; /* a file on the host, streamed */
        const void *data;
        size_t len;
        mode_t mode; /* permission bits */
};
/* An ISO 9660 image with Rock Ridge and Joliet, volume name @volume, owner root, times zero. Written to a
 * temporary name and renamed. */
int archive_write_iso(const char *path, const char *volume, const struct archive_entry *entries, size_t n,
                      struct error *err);
