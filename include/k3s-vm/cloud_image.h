/* SPDX-License-Identifier: MIT */
/*
 * Cloud images of distributions: what IMAGE names, where that is and what its hash is.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

#define CLOUD_IMAGE_DEFAULT "ubuntu-24.04"

/* One that is published under a name. */
struct cloud_publisher {
        const char *name, *text;   /* "debian-12", "Debian 12" */
        const char *host, *folder; /* "https://cloud.debian.org", "/images/…" */
        const char *file, *hashes; /* in it: the image, and the list with its hash */
};
/* NULL: there is none of that name. */
const struct cloud_publisher *cloud_publisher(const char *name);
/* The names there are, "a, b or c"; the caller frees. */
char *cloud_publisher_names(void);

/* The hexadecimal hash in a URL like https://…/disk.img#sha256:HEX (or sha512), NULL: none. */
const char *cloud_url_hash(const char *url);

/* The image of one VM. */
struct cloud_image {
        char *text; /* "Debian 12" */
        char *url;  /* NULL: @path */
        char *path; /* a file of this machine; NULL: @url */
        char *hash; /* SHA-256 or SHA-512 of that file as published, in hexadecimal */
        char *name; /* of a publisher; NULL: none */
};
void cloud_image_clear(struct cloud_image *i);
#define _cleanup_cloud_image_ _cleanup_(cloud_image_clear)

/* Finds out what IMAGE is today. A publisher's list that cannot be reached is made up for by what was found last. */
int cloud_image_resolve(const struct project *p, const struct config *c, struct progress *progress,
                        struct cloud_image *ret, struct error *err);
/* Once the image is in the cache: found again without a network. */
void cloud_image_remember(const struct project *p, const struct cloud_image *i);

/* What is in a file: a disk in one of QEMU's formats. */
struct disk_look {
        const char *format; /* "qcow2" or "raw" */
        uint64_t bytes;     /* of the disk in it */
};
/* -EINVAL: an image that refers to other files, is encrypted, or holds no disk. */
int disk_look(const char *path, struct disk_look *ret, struct error *err);
/* The disk that the qcow2 @path is an overlay on, NULL: none; the caller frees. */
int disk_base(const char *path, char **ret, struct error *err);
