/* SPDX-License-Identifier: MIT */
/*
 * The cloud flavor: a guest whose disk is a distribution's cloud image. The image lies once in the cache, read-only,
 * and each VM's disk is an overlay on it.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/guest.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

/* Whether FLAVOR asks for it; "auto" does where somebody chose an image, and where no Debian guest can be built. */
bool guest_is_cloud(const struct config *c);

/* The folder of the guest by IMAGE, from the cache or made now; the caller frees. */
int guest_cloud_ensure(const struct project *p, const struct config *c, struct progress *progress, char **ret_dir,
                       struct error *err);

/* Before anything is made: whether IMAGE can be used, as far as that is known without a network. */
int guest_cloud_check(const struct config *c, struct error *err);

/* A VM's own disk of @gib GiB, in the new file @path. */
int guest_create_disk(const struct guest *g, const char *path, unsigned gib, struct error *err);
/* Whether @data_disk, a VM's own disk, belongs to the guest: an overlay on its boot disk, or no overlay. */
int guest_check_base(const struct guest *g, const char *data_disk, struct error *err);

/* The firmware by which the guest boots; the caller frees. NULL: QEMU's own. ERR_HOST: it needs what is not there. */
int guest_firmware(const struct guest *g, char **ret, struct error *err);
