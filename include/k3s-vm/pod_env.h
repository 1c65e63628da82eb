/* SPDX-License-Identifier: MIT */
/*
 * The variables of WEB_ENV_PATH (web/.env) in the containers of Deployments.
 *
 * Each Deployment gets a Secret of its own, k3s-vm-env-NAME, that all its containers take in before anything of their
 * own (envFrom): what a container sets itself stays. A digest of the values is an annotation of the pods, so that a
 * change of the file alone rolls those Deployments that have the variable, and no others.
 *
 *   metadata.annotations["k3s-vm/env"]   "off", or the names of variables, separated by commas or blanks
 *
 * Without that it is all variables but KUBECONFIG, which is a path on this machine. KUBECONFIG_PRIMARY, where it is
 * this cluster's, has the API's address for pods (POD_API_SERVER) in place of this machine's.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/manifest.h>

#define POD_ENV_ANNOTATION "k3s-vm/env"

/* Adds the Secrets to @m and changes its Deployments. ERR_USAGE: the file cannot be read, or has not got a variable
 * that an annotation names. */
int pod_env_add(const struct project *p, const struct config *c, const struct kubeconfig *k, struct manifests *m,
                struct error *err);
