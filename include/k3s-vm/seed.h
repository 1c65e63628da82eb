/* SPDX-License-Identifier: MIT */
/*
 * What cloud-init reads in a distribution's cloud image (https://docs.cloud-init.io, datasource NoCloud): an ISO 9660
 * volume named cidata with user-data, meta-data and network-config. The same input gives the same bytes. It holds the
 * guest's private host key, so the file is for its owner only.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/project.h>

/* Where the seed of this VM is; the caller frees. */
char *seed_path(const struct project *p);

/* Writes it, from the keys and the files in @p and the guest's files in the program. One that would stay the same is
 * left alone: its time tells whether a suspended guest has read it. */
int seed_write(const struct project *p, const struct config *c, const char *uuid, struct error *err);

struct seed_input {
        const char *uuid, *name; /* of the VM */
        const char *dns;         /* "": the network's own resolver */
        const char *key;         /* for logging in: the line of a public key */
        const char *host_key, *host_key_pub;
        const char *k3s_config;  /* contents of /etc/rancher/k3s/config.yaml */
        const char *registries;  /* of registries.yaml beside it; NULL: none */
        const char *registry_ca; /* what that names; NULL: none */
        const char *files;       /* the folder with the guest's own files (src/guest/cloud) */
};
struct seed {
        char *user_data, *meta_data, *network_config;
};
void seed_clear(struct seed *s);
#define _cleanup_seed_ _cleanup_(seed_clear)
/* For tests: the texts alone, and their volume. */
int seed_compose(const struct seed_input *input, struct seed *ret, struct error *err);
int seed_write_iso(const struct seed *s, const char *path, struct error *err);
