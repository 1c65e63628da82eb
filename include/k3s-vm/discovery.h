/* SPDX-License-Identifier: MIT */
/* Which resources the cluster has, as its API tells: asked once for each version of an API, and kept for a run. */
#pragma once

#include <k3s-vm/kube.h>

struct resource {
        char *api_version; /* "apps/v1", "v1" */
        char *kind, *name; /* "Deployment", "deployments" */
        bool namespaced;
        bool can_list, can_delete;
};

struct discovery;
struct discovery *discovery_new(struct kube *k); /* @k has to outlive it */
void discovery_free(struct discovery *d);
DEFINE_FREEP(struct discovery, discovery_free)
#define _cleanup_discovery_ _cleanup_(discovery_freep)

/* Asks for those of the API versions that it does not know yet, at once. One that the cluster does not have is no
 * error: it has no resources. */
int discovery_ask(struct discovery *d, const struct strv *api_versions, struct error *err);
/* Asks for all versions of each API: some resources are not in the preferred one (CronJob, before Kubernetes 1.21). */
int discovery_ask_all(struct discovery *d, struct error *err);
/* Whether no other version of the API that was asked for earlier has the resource, too. */
bool discovery_is_first(const struct discovery *d, const struct resource *r);
/* For tests: the API's answer about a version that is not known yet. */
void discovery_keep(struct discovery *d, const char *api_version, const struct json *list);
/* Forgets what it was told about the version: it may have more since. */
void discovery_forget(struct discovery *d, const char *api_version);
/* NULL: there is none. Belongs to @d, until that version is forgotten. */
const struct resource *discovery_find(const struct discovery *d, const char *api_version, const char *kind);
/* Everything that is known, in the order it was learned; NULL after the last. */
const struct resource *discovery_at(const struct discovery *d, size_t index);
/* The versions of the group of @api_version (or of any, where it has none of them) that have the kind: "batch/v1beta1",
 * for a message. The caller frees; NULL: none. */
char *discovery_versions_of(struct discovery *d, const char *api_version, const char *kind);

/* The path of an object, of all objects in a namespace (@name NULL), or everywhere (@namespace NULL, too). The caller
 * frees. */
char *resource_path(const struct resource *r, const char *namespace, const char *name);
