/* SPDX-License-Identifier: MIT */
/*
 * Files and folders: whole-file reads with a bound, atomic writes, locks, trees. Modes are given and
 * never left to the umask. Paths have no length limit here.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/strv.h>

/* "a/b" from its parts, one slash between each; the last argument is NULL. The caller frees. */
char *path_join_(const char *first, ...) __attribute__((sentinel));
#define path_join(...) path_join_(__VA_ARGS__, NULL)
/* The last component; points into @path. */
const char *path_base(const char *path);
/* Everything before the last component ("." where there is none). The caller frees. */
char *path_parent(const char *path);

/* Reads a regular file of at most @max bytes into @ret (which keeps its own bound out of it). A
 * folder, a device or a larger file is an error; a missing file is -ENOENT. */
int fs_read(const char *path, size_t max, struct buf *ret, struct error *err);

/* write(2), and no other system call, until all of it is written, signals or not. 0 or -errno; by then a part may be
 * written. For descriptors that block. */
int fs_write_all(int fd, const void *data, size_t len);

/* Writes to a temporary name beside @path, syncs, renames over it, syncs the folder. What was there
 * stays whole until then. A symlink at @path is replaced, not followed. */
int fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct error *err);

/* The same without syncing, for what can be asked or made again: after a power cut the old contents, the new ones or
 * nothing may be there. */
int fs_write_cache(const char *path, const void *data, size_t len, mode_t mode, struct error *err);

/* Copies all of @from, its holes as holes, into the empty file @to; shared where the file system can. 0 or -errno. */
int fs_copy_sparse(int from, int to);
/* The same to a new file @to, 0600, in place of what is there. */
int fs_copy_file(const char *from, const char *to, struct error *err);
/* Whether @len bytes, at least one, may become a hole. */
bool bytes_are_zero(const void *data, size_t len);

/* Creates @path and missing parents with @mode. Existing folders are left as they are. */
int fs_mkdir_p(const char *path, mode_t mode, struct error *err);
/* A folder that only this user may enter: created 0700, or one of this user's that is made 0700. What belongs to
 * another user, a file or a symlink is -EPERM. */
int fs_mkdir_private(const char *path, struct error *err);

/* Removes a file or a whole tree, read-only folders too, never following a symlink. Missing is fine. */
int fs_remove_tree(const char *path, struct error *err);
/* unlink(2); missing is fine. */
int fs_unlink(const char *path, struct error *err);

bool fs_exists(const char *path);
bool fs_is_dir(const char *path);
/* Size in bytes of the file, or -errno. */
int64_t fs_size(const char *path);
/* Bytes really allocated to the file (sparse files are smaller than they look), or -errno. */
int64_t fs_allocated(const char *path);
/* Bytes an unprivileged user can still write to the file system that holds @path (or its nearest
 * existing parent). */
int fs_free_bytes(const char *path, uint64_t *ret, struct error *err);

/* An exclusive flock on @path (created 0600), close-on-exec. With @timeout_ms 0 it is tried once:
 * -EWOULDBLOCK when someone holds it. Otherwise waits at most that long: -ETIMEDOUT; or until
 * interrupted (interrupt.h): -ECANCELED. The holder's note (see fs_lock_note) can be read from the
 * file meanwhile. */
int fs_lock(const char *path, unsigned timeout_ms, int *ret_fd, struct error *err);
/* Replaces the text in a lock file held by the caller, for those who wait. */
void fs_lock_note(int fd, const char *text);

/* A unique folder below @parent, 0700; the caller frees the path and removes the tree. */
int fs_mkdtemp(const char *parent, const char *prefix, char **ret_path, struct error *err);

/* For what is under way and has a temporary name: whoever makes it holds it, and so shows that it is not left over from
 * a program that was killed. The hold goes with the descriptor. */
void fs_hold(int fd);
int fs_hold_path(const char *path); /* a descriptor that holds the folder or file, or -1 */
/* Removes the files and folders in @folder_fd whose names begin with @prefix and end with @suffix, that are this
 * user's, and that nobody holds. */
void fs_sweep(int folder_fd, const char *prefix, const char *suffix);
void fs_sweep_path(const char *folder, const char *prefix, const char *suffix);

/* Where @name is on PATH, or NULL. The caller frees. */
char *fs_find_program(const char *name);

/* Milliseconds of CLOCK_MONOTONIC; since this machine was booted, its sleep included; and of wall-clock time since
 * 1970. */
uint64_t now_ms(void);
uint64_t boot_ms(void);
uint64_t wall_ms(void);
/* "2026-01-31T12:34:56Z"; the caller frees. */
char *time_rfc3339(time_t t);
