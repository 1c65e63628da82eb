/* SPDX-License-Identifier: MIT */
/*
 * REGISTRY_MIRRORS and REGISTRY_CA as K3s's registries.yaml (docs.k3s.io, "Private Registry Configuration"). It reaches
 * the guest as systemd credentials, and K3s is told where it is by private-registry in its config.yaml.
 */
#pragma once

#include <k3s-vm/config.h>

/* @ret is the file as JSON, which is YAML, and @ret_ca the authority's certificate; each NULL where there is nothing to
 * say. ERR_USAGE: REGISTRY_CA cannot be read or holds no certificate. @ca_path: where the guest has that. The caller
 * frees both. */
int registries_make(const struct config *c, const char *ca_path, char **ret, char **ret_ca, struct error *err);
