/* SPDX-License-Identifier: MIT */
/*
 * Workloads on their way: Deployments, StatefulSets, DaemonSets and Jobs are followed until all of their pods are new
 * and available (Jobs: until they are complete), by the same rules as `kubectl rollout status`. A pod that will not
 * start ends the wait early, with an explanation.
 */
#pragma once

#include <k3s-vm/kube.h>
#include <k3s-vm/progress.h>

enum rollout_state { ROLLOUT_DONE, ROLLOUT_GOING, ROLLOUT_FAILED };

/* Whether objects of that kind roll out at all. */
bool rollout_follows(const char *api_version, const char *kind);
/* How far @object is; @ret_text (the caller frees) says it: "1 of 3 pods are available". */
enum rollout_state rollout_check(const struct json *object, char **ret_text);

struct rollout {
        const char *title;   /* "deployment.apps/web" */
        char *path;          /* of the object in the API; owned */
        struct json *object; /* as it was seen last; owned; NULL: never */
        bool done;
        /* Private. */
        struct progress_phase *phase;
        char *trouble; /* why a pod does not start, since */
        uint64_t trouble_ms;
};
void rollout_clear(struct rollout *r);

/* Waits for all of them. ERR_TIMEOUT after @timeout_ms; ERR_FAILED once one cannot come to its end. Either way the
 * error's detail explains the first that is not done. */
int rollout_wait(struct kube *k, struct rollout *rollouts, size_t n, unsigned timeout_ms, struct progress *progress,
                 struct error *err);
