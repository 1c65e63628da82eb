/* SPDX-License-Identifier: MIT */
/* What the two directions of a copy share. For remote_copy.c and remote_get.c alone. */
#pragma once

#include <sys/stat.h>

#include "remote_internal.h"

#define COPY_CHUNK (128U * 1024)
/* More than any real tree; what a guest sends must not exhaust descriptors or memory. */
#define COPY_DEPTH_MAX 200

struct copy {
        struct remote *remote;
        struct progress *progress;
        struct progress_phase *phase;
        uint64_t done, total; /* bytes; @total 0: unknown */
        uint64_t shown_ms;
        unsigned depth; /* folders around what is being copied */
        char *chunk;    /* COPY_CHUNK bytes */
        int timer_fd;
        uint64_t deadline_ms; /* of the request under way */
        bool stalled;
        int interrupted_ticks;
};

/* Starts SFTP, unless an earlier copy has, and the watch over it. copy_end() is due in any case. */
int copy_begin(struct copy *c, struct error *err);
void copy_end(struct copy *c);

/* The time for the next request starts now; copy_sftp() gives the session for it. */
void copy_start_request(struct copy *c);
sftp_session copy_sftp(struct copy *c);

/* The error for the last request, which was to @what ("read") the guest's @path. */
int copy_failed(struct copy *c, struct error *err, const char *what, const char *path);
int copy_too_deep(struct error *err);
void copy_progress(struct copy *c, size_t more, const char *name);
/* Warns that @path was left out. */
void copy_skipped(struct copy *c, const char *path, const char *why);

/* A name for a file until it is whole; the caller frees. */
char *copy_temporary_name(void);
/* Removes what copies that were killed have left in a folder of this host. */
void copy_sweep(int dir_fd);
/* @guest as SFTP understands it. */
const char *copy_guest_path(const char *guest);
/* The last component of a path that may end in slashes, or NULL where that is no name ("/", "..", "."). The
 * caller frees. */
char *copy_name_of(const char *path);

/* Whether the guest says that this is a file of @type (S_IFREG, ...). @a may be NULL. */
bool copy_guest_is(sftp_attributes a, mode_t type);

static inline void copy_attributes_freep(sftp_attributes *a) {
        if (*a)
                libssh.sftp_attributes_free(*a);
}
#define _cleanup_attributes_ _cleanup_(copy_attributes_freep)
