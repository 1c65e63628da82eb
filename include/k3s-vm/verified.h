/* SPDX-License-Identifier: MIT */
/*
 * Files in the cache whose hash is known. FOLDER/.NAME.verified beside FOLDER/NAME holds the hash, and the size, time
 * of change and inode that the file had when it was found to have it. As long as these are the same the file is taken
 * for good; otherwise it is read and hashed again.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/err.h>

/* Notes that the file has the hash (SHA-256 or SHA-512 in hexadecimal) now. Without the note it is only hashed again.
 */
void verified_note(const char *path, const char *hash);
/* Hashes the file and notes what comes out. */
int verified_note_file(const char *path, struct error *err);
/* Whether the file has the hash: 1 or 0, or a negative errno. @thorough: by reading it in any case. */
int verified_check(const char *path, const char *hash, bool thorough, struct error *err);
bool verified_is_noted(const char *path);
/* Whether it has the hash that was noted: 1 or 0, -ENODATA where none was, or another negative errno. */
int verified_check_noted(const char *path, bool thorough, struct error *err);
/* For a file whose time was set on purpose: the note, if there is one, is of the file as it is now. */
void verified_renew(const char *path);
/* Removes the file and its note. */
int verified_remove(const char *path, struct error *err);
