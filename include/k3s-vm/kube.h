/* SPDX-License-Identifier: MIT */
/*
 * The cluster's API: kubeconfig, readiness, nodes.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#include <k3s-vm/err.h>
#include <k3s-vm/http.h>
#include <k3s-vm/json.h>
#include <k3s-vm/strv.h>

struct kubeconfig {
        char *server; /* "https://127.0.0.1:6443" */
        char *ca_pem, *cert_pem, *key_pem;
        struct json *document; /* the whole, as read */
};
void kubeconfig_free(struct kubeconfig *k);
DEFINE_FREEP(struct kubeconfig, kubeconfig_free)
#define _cleanup_kubeconfig_ _cleanup_(kubeconfig_freep)

/* Parses a kubeconfig (YAML or JSON, at most 1 MiB) and takes cluster and user of its current context. What is
 * missing or wrong is named (-EBADMSG): an https server, certificate-authority-data, client-certificate-data and
 * client-key-data have to be there; files and tokens in their place are refused. */
int kubeconfig_parse(const char *text, size_t len, struct kubeconfig **ret, struct error *err);
int kubeconfig_read(const char *path, struct kubeconfig **ret, struct error *err);
/* Replaces the document by one with the same certificates and key and nothing else of the old one: its server is
 * https://127.0.0.1:@port, and cluster, user and context are called @name. What a guest sent is never used without
 * this step, since a kubeconfig can name programs that kubectl runs. */
int kubeconfig_adapt(struct kubeconfig *k, uint16_t port, const char *name, struct error *err);
/* Gives the current context of @k the namespace that the current context in the file at @path has, where that file is
 * of the same cluster, by its authority: `kubectl config set-context --current --namespace=x` outlasts a new start. */
void kubeconfig_keep_namespace(struct kubeconfig *k, const char *path);
/* Written 0600, atomically, its folder created 0700. Unchanged contents are not written again. */
int kubeconfig_write(const struct kubeconfig *k, const char *path, struct error *err);

struct kube;
int kube_new(const struct kubeconfig *k, struct kube **ret, struct error *err);
void kube_free(struct kube *k);
DEFINE_FREEP(struct kube, kube_free)
#define _cleanup_kube_ _cleanup_(kube_freep)

/* GET of an API path ("/readyz", "/api/v1/nodes"). 0 for any status below 400; -EACCES 401/403, -EAGAIN 5xx/429. */
int kube_get(struct kube *k, const char *path, unsigned timeout_ms, struct buf *ret, struct error *err);

struct node_status {
        char *name, *version, *roles;
        bool ready;
        char *reason; /* why not Ready; NULL */
};
struct nodes {
        struct node_status *items;
        size_t n;
};
void nodes_clear(struct nodes *n);
#define _cleanup_nodes_ _cleanup_(nodes_clear)
int kube_nodes(struct kube *k, unsigned timeout_ms, struct nodes *ret, struct error *err);
