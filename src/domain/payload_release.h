/* SPDX-License-Identifier: MIT */
/* K3s releases, for payload.c alone: the channel server, the release server, and what of both is in the cache. */
#pragma once

#include <stdbool.h>

#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

/* Where releases come from, and where they are kept. */
struct releases {
        const struct project *project;
        const char *mirror; /* MIRROR_K3S: BASE/channels and BASE/VERSION/FILE; NULL or "": K3s's own servers */
};

/* Whether @version looks like one ("v1.33.5+k3s1"): such a string is safe in a path and a URL. */
bool release_is_version(const char *version);

/* Asks the channel server what @channel's newest release is. -ENOENT (ERR_USAGE): there is no such channel. */
int release_ask_channel(const struct releases *k, const char *channel, char **ret_version, struct error *err);

/* The release of @channel that was fetched last, as long as it is in the cache, or NULL. The caller frees. */
char *release_recall(const struct releases *k, const char *channel);
void release_remember(const struct releases *k, const char *channel, const char *version);

/* Whether the release's program is in the cache. */
bool release_is_cached(const struct releases *k, const char *version);

/* Gets the publisher's list of hashes into the cache. -ENOENT (ERR_USAGE): there is no such release. */
int release_fetch_hashes(const struct releases *k, const char *version, struct error *err);

/* Gets the program into the cache, and the archive of images @with_images, or where it is there already; checks both.
 * The caller frees; @ret_images is NULL when there is none. */
int release_fetch(const struct releases *k, const char *version, bool with_images, struct progress *progress,
                  struct progress_phase *phase, char **ret_program, char **ret_images, struct error *err);
