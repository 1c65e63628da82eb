/* SPDX-License-Identifier: MIT */
/* What modules `archive` and `archive_stream` share: libarchive, loaded once. Not for anyone else. */
#pragma once

/* Both this program and libarchive have a struct of this name. */
#define archive_entry libarchive_entry
#include <archive.h>
#include <archive_entry.h>
#undef archive_entry

#include <k3s-vm/err.h>
#include <k3s-vm/library.h>

#ifndef LIBARCHIVE_SONAME
#define LIBARCHIVE_SONAME "libarchive.so.13"
#endif

#define LIBARCHIVE_SYMBOLS(X) \
        X(archive_entry_filetype) \
        X(archive_entry_free) \
        X(archive_entry_hardlink) \
        X(archive_entry_new) \
        X(archive_entry_pathname) \
        X(archive_entry_perm) \
        X(archive_entry_set_filetype) \
        X(archive_entry_set_gid) \
        X(archive_entry_set_mtime) \
        X(archive_entry_set_nlink) \
        X(archive_entry_set_pathname) \
        X(archive_entry_set_perm) \
        X(archive_entry_set_size) \
        X(archive_entry_set_symlink) \
        X(archive_entry_set_uid) \
        X(archive_entry_symlink) \
        X(archive_errno) \
        X(archive_error_string) \
        X(archive_filter_bytes) \
        X(archive_read_data) \
        X(archive_read_free) \
        X(archive_read_new) \
        X(archive_read_next_header) \
        X(archive_read_open_fd) \
        X(archive_read_open_memory) \
        X(archive_read_support_filter_bzip2) \
        X(archive_read_support_filter_gzip) \
        X(archive_read_support_filter_xz) \
        X(archive_read_support_filter_zstd) \
        X(archive_read_support_format_empty) \
        X(archive_read_support_format_raw) \
        X(archive_read_support_format_7zip) \
        X(archive_read_support_format_tar) \
        X(archive_write_close) \
        X(archive_write_data) \
        X(archive_write_free) \
        X(archive_write_header) \
        X(archive_write_new) \
        X(archive_write_open) \
        X(archive_write_open_fd) \
        X(archive_write_set_bytes_in_last_block) \
        X(archive_write_set_bytes_per_block) \
        X(archive_write_set_format_iso9660) \
        X(archive_write_set_format_option) \
        X(archive_write_set_format_ustar)

/* Filled in by archive_load(). */
LIBRARY_EXTERN(libarchive, LIBARCHIVE_SYMBOLS);

/* What is read and written at once. */
#define BLOCK_BYTES (256U * 1024)

int archive_load(struct error *err);

void archive_reader_freep(struct archive **a);

/* The name of a member as this program writes it: without "./" in front. */
const char *archive_member_name(const char *name);
