/* SPDX-License-Identifier: MIT */
/*
 * The cluster's API: kubeconfig, readiness, nodes, and requests of any kind, many at once.
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
/* The namespace of the current context, "default" where it has none. Belongs to @k. */
const char *kubeconfig_namespace(const struct kubeconfig *k);
/* Written 0600, atomically, its folder created 0700. Unchanged contents are not written again. */
int kubeconfig_write(const struct kubeconfig *k, const char *path, struct error *err);

struct kube;
int kube_new(const struct kubeconfig *k, struct kube **ret, struct error *err);
void kube_free(struct kube *k);
DEFINE_FREEP(struct kube, kube_free)
#define _cleanup_kube_ _cleanup_(kube_freep)

/* GET of an API path ("/readyz", "/api/v1/nodes"). 0 for any status below 400; -EACCES 401/403, -EAGAIN 5xx/429. */
int kube_get(struct kube *k, const char *path, unsigned timeout_ms, struct buf *ret, struct error *err);

/* The condition of @type in an object's status, or NULL; the API has each type once. */
const struct json *kube_condition(const struct json *object, const char *type);
/* Whether it is there with @status: "True", "False" or "Unknown". */
bool kube_condition_is(const struct json *condition, const char *status);

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
/* As `status --json` shows them; the caller frees. */
struct json *nodes_to_json(const struct nodes *nodes);
#define _cleanup_nodes_ _cleanup_(nodes_clear)
/* For tests: the same from the API's answer. */
int nodes_read(const struct json *list, struct nodes *ret, struct error *err);
int kube_nodes(struct kube *k, unsigned timeout_ms, struct nodes *ret, struct error *err);

/* One request and what came of it. */
struct kube_call {
        const char *method;  /* NULL: GET */
        char *path;          /* owned; with the query */
        char *body;          /* owned; NULL: none. Sent as JSON; PATCH is a server-side apply */
        bool metadata_only;  /* the answer may leave out all but metadata (PartialObjectMetadata) */
        bool text;           /* the answer is text, in @answer_text */
        unsigned timeout_ms; /* 0: 60 s */
        long status;         /* of HTTP; 0: there was no answer */
        struct json *answer; /* owned; also of an error: the API's Status object. NULL: none */
        char *answer_text;   /* owned */
        int result;          /* 0; -ENOENT 404; -EBUSY 409; -EACCES 401, 403; -EINVAL other 4xx; -EAGAIN 5xx, 429; or of
                              * the connection */
        struct error error;  /* where @result is negative, in the API's words */
};
#define KUBE_CALL_INIT ((struct kube_call){0})
void kube_call_clear(struct kube_call *c);
#define _cleanup_kube_call_ _cleanup_(kube_call_clear)
void kube_calls_free(struct kube_call *calls, size_t n);

/* Makes all of the calls, several at once in any order. What the API is too busy for, or a connection that breaks, is
 * tried again for some seconds; so only what may be done twice is for here. @on_done (may be NULL) is called with each
 * call once its result stands. Returns 0 whatever came of each; interrupted: -ECANCELED. */
typedef void kube_done_fn(struct kube_call *c, void *userdata);
int kube_perform(struct kube *k, struct kube_call *calls, size_t n, kube_done_fn *on_done, void *userdata,
                 struct error *err);
/* One call; returns its result. */
int kube_perform_one(struct kube *k, struct kube_call *call, struct error *err);
/* A part of a path, escaped for a URL (RFC 3986); the caller frees. */
char *url_escape(const char *s);
