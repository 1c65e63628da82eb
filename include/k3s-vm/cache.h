/* SPDX-License-Identifier: MIT */
/*
 * What the cache keeps. Guests and payloads are made again when they are missing, so the cache keeps what the VMs of
 * this user are made of, what was used in the last hour (by a command that has not registered its VM yet, maybe), and
 * of the others the two that were used last, of each kind. A use sets the modification time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

#define CACHE_KEEP 2U
#define CACHE_KEEP_S 3600

/* Removes what is not kept of guests, built payloads and payload images. What cannot be removed stays. */
void cache_prune(const struct project *p, struct progress *progress);

struct cache_entry {
        char *path;       /* a file or a folder in the cache */
        const char *kind; /* "guest", "payload", "release", "image" */
        uint64_t bytes;   /* on the disk */
        time_t used;      /* last made or taken */
        bool in_use;      /* a VM of this user is made of it */
};
struct cache_entries {
        struct cache_entry *items; /* of each kind those that were used last first */
        size_t n;
};
void cache_entries_clear(struct cache_entries *e);
#define _cleanup_cache_entries_ _cleanup_(cache_entries_clear)

/* Everything in it but notes and logs. ERR_FAILED where a VM cannot tell what it uses. */
int cache_list(const struct project *p, struct cache_entries *ret, struct error *err);
/* Removes an entry, unless somebody is making it just now: -EWOULDBLOCK. */
int cache_remove(const struct cache_entry *e, struct error *err);

/* Reads every file of an entry whose hash is known (verified.h) and tells of each: 1 it is as it was, 0 it is damaged,
 * -ENODATA its hash is not known, or another negative errno. */
typedef void cache_verify_fn(const char *path, int result, void *userdata);
int cache_verify(const struct cache_entry *e, cache_verify_fn *fn, void *userdata, struct error *err);
/* Before a VM is started: its guest's and payload's files have the size and time they were made with, or else the hash.
 * ERR_FAILED naming the one that is damaged. */
int cache_check_used(const struct project *p, const char *guest_dir, const char *payload_path, struct error *err);
/* Notes the hashes of the files in a folder that was just made. */
int cache_note_folder(const char *folder, struct error *err);
