/* SPDX-License-Identifier: MIT */
/*
 * How the cluster's API is: asked through the forwarded port, and the last answer that any command got, kept with its
 * time in the VM's runtime folder. Without KVM one TLS handshake keeps the guest busy longer than a person waits for
 * `status`; so a caller says how long it has, and an older answer is never given without its age.
 */
#pragma once

#include <k3s-vm/kube.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

struct health {
        bool known; /* false: nobody has had an answer from this QEMU yet */
        bool ready; /* /readyz said so, @age_ms ago */
        uint64_t age_ms;
        unsigned ms;   /* how long that answer took */
        char *problem; /* why it is not ready */
        struct nodes nodes;
        uint64_t nodes_age_ms;
};
void health_clear(struct health *h);
#define _cleanup_health_ _cleanup_(health_clear)

/* Asks the API at @k for at most @patience_ms (with @wait: for each question). With @wait, no answer within that time
 * is the answer: not ready. Without, it is no answer, and the last one is given, if there is one. An answer is kept for
 * the next caller.
 * @vm is the running QEMU of the VM: an answer of another one counts for nothing. */
void health_ask(const struct project *p, const struct state *s, const struct process *vm, const struct kubeconfig *k,
                unsigned patience_ms, bool wait, struct health *ret);

/* Keeps what the caller learned just now. What cannot be kept is asked again some time. */
void health_keep(const struct project *p, const struct state *s, const struct process *vm, const struct health *h);
/* Forgets it: the VM is gone. */
void health_forget(const struct project *p, const char *uuid);
