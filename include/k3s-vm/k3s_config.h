/* SPDX-License-Identifier: MIT */
/*
 * K3S_ARGS as /etc/rancher/k3s/config.yaml, K3s's own configuration file (docs.k3s.io, "Configuration File"): each
 * long option is a key, one given several times a list, one without a value true.
 */
#pragma once

#include <k3s-vm/err.h>

/* ERR_USAGE for what is no `--name`, `--name=value` or `--name value`. The caller frees @ret. */
int k3s_config(const char *k3s_args, char **ret, struct error *err);
