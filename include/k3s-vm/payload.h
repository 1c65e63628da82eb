/* SPDX-License-Identifier: MIT */
/*
 * Payloads: which Kubernetes goes into a guest, and the read-only image that carries it there. A K3s release is
 * downloaded, checked against its publisher's list of hashes and kept in CACHE/downloads/k3s/VERSION/; images
 * are kept as CACHE/payloads/<hash of what they are made from>.iso. What K3s would unpack at its first start is in the
 * image too, unpacked by the program itself where this host can run it safely. The offline payload is built by a script
 * (k3s-vm/image.h); here only the choice of it is made.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

enum payload_kind { PAYLOAD_NONE, PAYLOAD_RELEASE, PAYLOAD_BINARY, PAYLOAD_OFFLINE };

/* What K3S_VERSION means here and now. */
struct payload_choice {
        enum payload_kind kind;
        char *version;    /* PAYLOAD_RELEASE: "v1.33.5+k3s1" */
        char *channel;    /* PAYLOAD_RELEASE: the channel that led to it; NULL when the version was given */
        char *binary;     /* PAYLOAD_BINARY: absolute path */
        bool with_images; /* PAYLOAD_RELEASE: with K3s's own archive of container images, downloaded if it must be */
};
void payload_choice_clear(struct payload_choice *c);
#define _cleanup_payload_choice_ _cleanup_(payload_choice_clear)

/*
 * Channel names (stable, latest, v1.33) are asked of the channel server, for at most 5 s. When it or the
 * release it names cannot be reached, the release of that channel that was fetched last is the choice, and
 * when there is none the offline payload, said in one note. Exact versions, paths (relative to the project;
 * anything with a slash), "offline" and "none" need no network. A channel that does not exist and a path that
 * leads to no file are ERR_USAGE.
 */
int payload_resolve(const struct project *p, const struct config *c, struct progress *progress,
                    struct payload_choice *ret, struct error *err);

struct payload {
        char *name;        /* "k3s" */
        char *version;     /* "v1.33.5+k3s1"; "custom" for a binary that does not say */
        char *description; /* one line for `status` */
        char *image_path;  /* in the cache */
};
void payload_clear(struct payload *p);
#define _cleanup_payload_ _cleanup_(payload_clear)

/* Downloads what is missing and writes the image, for PAYLOAD_RELEASE and PAYLOAD_BINARY. The archive of
 * container images named by the configuration, or K3s's own for that release when it is in the cache or wanted, goes
 * into it. A release that does not exist is ERR_USAGE. */
int payload_fetch(const struct project *p, const struct config *c, const struct payload_choice *choice,
                  struct progress *progress, struct payload *ret, struct error *err);
