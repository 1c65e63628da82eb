/* SPDX-License-Identifier: MIT */
/*
 * Container images in files, on their way into the guest's containerd: archives as `docker save` writes them (Docker
 * Image Specification v1.2) and OCI image layouts (OCI Image Format Specification, "Image Layout"), as a tar, plain or
 * compressed, or as a folder. They are streamed over SSH into `ctr images import`; nothing is copied before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/remote.h>

/* One image of an archive under one name. */
struct image_name {
        char *name;   /* as containerd calls it: "docker.io/library/nginx:1" */
        char *digest; /* "sha256:…" of its manifest (OCI) or configuration (Docker) */
};

struct image_archive {
        char *path;
        bool folder;
        uint64_t bytes; /* without compression */
        char *base;     /* what its names lack, where they are tags only: "localhost/shop"; NULL */
        struct image_name *names;
        size_t n;
};
void image_archive_free(struct image_archive *a);
DEFINE_FREEP(struct image_archive, image_archive_free)
#define _cleanup_image_archive_ _cleanup_(image_archive_freep)

/* Reads it to its end, so that a damaged one is found out here. -EBADMSG: it is no image, or damaged; -ENODATA: no
 * image in it has a name. */
int image_archive_open(const char *path, struct image_archive **ret, struct error *err);

/* An image that the guest has. */
struct guest_image {
        char *name, *digest;
        char *size; /* as containerd shows it: "1.2 MiB" */
};
struct guest_images {
        struct guest_image *items;
        size_t n;
};
void guest_images_clear(struct guest_images *g);
#define _cleanup_guest_images_ _cleanup_(guest_images_clear)
int guest_images_list(struct remote *r, struct guest_images *ret, struct error *err);
/* For tests: the same from the text of `ctr images ls`. */
void guest_images_parse(const char *text, struct guest_images *ret);

/* Whether the guest has every image of the archive, by digest and under every name. */
bool image_archive_is_there(const struct image_archive *a, const struct guest_images *there);

/* Sends it. @phase shows the bytes that went. */
int image_archive_send(const struct image_archive *a, struct remote *r, struct progress *progress,
                       struct progress_phase *phase, struct error *err);

/* For tests: the whole name of "nginx" is "docker.io/library/nginx:latest"; the caller frees. */
char *image_full_name(const char *name);
