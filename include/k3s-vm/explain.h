/* SPDX-License-Identifier: MIT */
/* Why a workload's pods do not start: on one screen, with what mends it. */
#pragma once

#include <k3s-vm/kube.h>

/* The path of the list of the pods that belong to a workload, by its selector; the caller frees. NULL: it has none. */
char *explain_pods_path(const struct json *workload);

struct pod_trouble {
        const struct json *pod; /* belongs to the list; NULL: no pod has any */
        const char *container;  /* NULL: it is the pod's */
        const char *image;
        const char *reason, *message; /* "ImagePullBackOff" */
        uint64_t restarts;
        bool hopeless; /* it will not get better by itself */
};
/* The worst trouble among @pods (a PodList). */
void explain_trouble(const struct json *pods, struct pod_trouble *ret);

/* Sets @err's detail and hint: the pod's trouble, its last events, the last lines of its log. What the API does not
 * tell is left out. */
void explain_workload(struct kube *k, const struct json *workload, struct error *err);
