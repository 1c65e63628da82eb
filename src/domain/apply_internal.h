/* SPDX-License-Identifier: MIT */
/* What the files of module `apply` share. Not for anyone else. */
#pragma once

#include <k3s-vm/apply.h>
#include <k3s-vm/discovery.h>

#define FIELD_MANAGER "k3s-vm"
#define LABEL_PROJECT "manifests"
#define LABEL_FILES "files"

/* The order in which objects are sent. */
enum wave { WAVE_FOUNDATIONS, WAVE_OTHERS, WAVE_WORKLOADS, WAVE_WEBHOOKS, WAVES };

/* A manifest on its way. */
struct item {
        const struct manifest *manifest;
        enum wave wave;
        const struct resource *resource; /* NULL: not looked for yet, or there is none */
        const char *namespace;           /* NULL: it is in none */
        char *title;                     /* "deployment.apps/web" */
        char *key;                       /* for the record; known once @resource is */
        char *body;                      /* what is sent */
        char hash[SHA256_HEX_LEN + 1];   /* of @body */
        bool over;
        enum apply_result result;
        struct error error;
        char *uid, *version; /* what the cluster's object has now; NULL: not known */
        bool unfinished;     /* a rollout that did not come to its end: nothing to rely on next time */
};

struct apply_record {
        char *digest;         /* of all of the project's manifests; NULL: there is none */
        struct json *objects; /* key -> "HASH UID VERSION" */
};

struct run {
        const struct apply *a;
        struct kube *kube;
        struct discovery *discovery;
        struct item *items;
        size_t n;
        struct apply_record record;
        struct json *known; /* key -> "UID VERSION" of what the cluster had before */
        size_t *counts;
        struct error first_error; /* its hint is shown */
        struct buf problems;      /* one line each */
};

/* Which manifests, sorted out: apply_order.c. */
int items_make(const struct apply *a, struct item **ret, size_t *ret_n, struct error *err);
void items_free(struct item *items, size_t n);
/* Finds the item's resource and prepares what is sent. -ENOENT: the cluster has no such kind. */
int item_resolve(struct run *run, struct item *i, struct error *err);
/* "APIVERSION/KIND/NAMESPACE/NAME". */
char *object_key(const char *api_version, const char *kind, const char *namespace, const char *name);
/* "deployment.apps/web" */
char *object_title(const char *api_version, const char *kind, const char *name);

/* Tells the caller and counts. */
void run_report(struct run *run, struct item *i, const char *diff);
void run_fail(struct run *run, struct item *i);

/* apply_send.c: one wave. */
int send_wave(struct run *run, enum wave wave, struct error *err);
/* What the API says against an object becomes its error, with the line of the manifest. */
void send_failed(struct item *i, struct kube_call *c);
/* apply_diff.c: one wave of a dry run. */
int preview_wave(struct run *run, enum wave wave, struct error *err);
/* A line for each field that differs, without those that differ always; NULL: none. The caller frees. */
char *apply_diff(const struct json *before, const struct json *after);

/* apply_record.c */
void record_clear(struct apply_record *r);
int record_read(struct kube *k, struct apply_record *ret, struct error *err);
/* What the cluster knows of the objects that were applied before, into run->known, and the record: one round. */
int record_gather(struct run *run, struct error *err);
/* Whether the object was applied just so, and nobody changed it since. */
bool record_holds(const struct run *run, const struct item *i);
int record_write(struct run *run, struct error *err);

/* apply_prune.c */
int prune(struct run *run, struct error *err);
