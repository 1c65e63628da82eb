/* SPDX-License-Identifier: MIT */
/*
 * Manifests into the cluster, by server-side apply with the field manager "k3s-vm".
 *
 * Namespaces and CustomResourceDefinitions go first and are waited for; then what others need; then what runs. Within
 * such a wave many requests are under way at once.
 *
 * What was applied is written down in the cluster itself (Secret kube-system/k3s-vm-applied: for each object a hash
 * of what was sent, and the uid and resourceVersion that it then had), so that it goes where the cluster goes: a new
 * cluster has none, a restored snapshot the one of its time. An object is left out of the next apply only if the
 * manifest's hash is the same and the cluster's object still has that very uid and resourceVersion: whatever anybody
 * changed since, it is sent, and the server decides. A record that is lost costs a round of requests, no more.
 *
 * What may be pruned is known by a label on the objects and by this field manager, not by the record.
 */
#pragma once

#include <k3s-vm/kube.h>
#include <k3s-vm/manifest.h>
#include <k3s-vm/progress.h>

#define APPLY_LABEL "k3s-vm/applied-from" /* on every object that was applied: "manifests", or "files" by -f */

enum apply_result { APPLY_CREATED, APPLY_CONFIGURED, APPLY_UNCHANGED, APPLY_PRUNED, APPLY_FAILED };
#define APPLY_RESULTS 5
const char *apply_result_string(enum apply_result r); /* "created" */

/* What became of one object. Strings belong to the caller of the callback. */
struct apply_event {
        const char *title;     /* "deployment.apps/web" */
        const char *namespace; /* NULL: it is in none */
        enum apply_result result;
        const char *problem; /* why it failed, with file and line; NULL */
        const char *diff;    /* of a dry run: lines with the fields that would change; NULL */
};

struct apply {
        const struct kubeconfig *kubeconfig;
        const struct manifests *manifests;
        bool whole_project; /* these are all of the project's manifests, and not some files */
        bool force_conflicts;
        bool dry_run;
        bool prune; /* only with @whole_project */
        bool no_wait;
        unsigned timeout_ms; /* for the rollouts; 0: five minutes */
        struct progress *progress;
        void (*on_object)(const struct apply_event *e, void *userdata); /* NULL: nobody wants to know */
        void *userdata;
};

/* @ret_counts, by result, is filled in even on failure. ERR_FAILED: some objects could not be applied, or a workload
 * cannot start; ERR_TIMEOUT: a rollout took too long. Whatever was applied stays. */
int apply_run(const struct apply *a, size_t ret_counts[static APPLY_RESULTS], struct error *err);

/* Whether the cluster has not got exactly these manifests by the last apply_run() of the whole project: they changed
 * since, or the cluster is another one, or not all of it was rolled out. One request. */
int apply_is_due(const struct kubeconfig *k, const struct manifests *m, bool *ret, struct error *err);
