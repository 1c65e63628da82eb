/* SPDX-License-Identifier: MIT */
/*
 * From a QEMU that runs to a cluster that is Ready: the guest's SSH banner, the kubeconfig over SSH, the API's
 * /readyz through the forwarded port, every node Ready. Each step is a phase with its time; QEMU's end, the time
 * limit and an interrupt end the wait at once, with one screen of what the parts said last.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/remote.h>
#include <k3s-vm/state.h>

struct ready {
        const struct project *project;
        const struct config *config;
        struct state *state; /* gets the phases' times; saved by the caller */
        const struct process *vm;
        struct progress *progress;
        unsigned timeout_ms; /* for all of it; 0: by acceleration */
        bool resumed;        /* it goes on from a saved state: the guest's clock is set */
        bool quick;          /* it ran already: no phases shown unless something is not up */
};

/* 0 when Ready (without a payload: when SSH answers). ERR_TIMEOUT, ERR_INTERRUPTED, ERR_FAILED. */
int ready_wait(const struct ready *ready, struct error *err);

/* Where the VM's SSH is, for remote_connect(). Strings belong to @p. */
struct remote_address ready_ssh_address(const struct project *p, const struct config *c);
/* Absolute path of the project's kubeconfig; the caller frees. */
char *kubeconfig_path(const struct project *p, const struct config *c);

/* What the parts said last, for an error's detail: QEMU's output, the serial line, K3s's journal (asked over
 * SSH when @with_ssh). The caller frees. */
char *diagnose(const struct project *p, const struct config *c, bool with_ssh);
