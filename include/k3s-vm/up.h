/* SPDX-License-Identifier: MIT */
/* What the commands that start a VM share. */
#pragma once

#include <errno.h>

#include <k3s-vm/command.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/manifest.h>
#include <k3s-vm/vm.h>

#define LOCK_TIMEOUT_MS (15U * 60 * 1000) /* the longest that another command may take: a first build */

/* From now on interrupts are seen between steps; loads the configuration and takes the VM's lock. */
int lock_vm(struct context *ctx, const char *command, int *ret_fd, struct error *err);
/* The same for a VM that there is, with its state as it is under the lock. ERR_NO_VM, and no lock's file either. */
int lock_made_vm(struct context *ctx, const char *command, int *ret_fd, struct state **ret, struct error *err);
/* As `stop`; the caller holds the lock. */
int stop_vm(struct context *ctx, enum stop_how how, unsigned timeout_ms, struct error *err);
/* Restores a snapshot and starts the VM if it ran, or in any case. The caller holds the lock. */
int restore_snapshot(struct context *ctx, const struct lifecycle *l, struct state *s, const char *name, bool start,
                     struct error *err);
/* Makes what is missing, starts, waits until Ready, prints. The caller holds the lock. */
int up(struct context *ctx, unsigned timeout_ms, struct error *err);
/* Makes what is missing, starts, waits until Ready, and prints nothing. The caller holds the lock. */
int start_vm(struct context *ctx, unsigned timeout_ms, struct state **ret, bool *ret_was_running, struct error *err);
/* Applies the project's manifests if they changed since the last time, or the cluster is new; @ret_done: it had to. */
int apply_if_due(struct context *ctx, const struct state *s, struct manifests *m, unsigned timeout_ms, bool *ret_done,
                 struct error *err);
/* The VM as it is now, to stdout: as the end of a start, or as `status` has it; JSON with --json. @web_timeout_ms: how
 * long the project's page may take to be there. */
int print_summary(struct context *ctx, bool ready_text, unsigned web_timeout_ms, struct error *err);
/* "--timeout 30" in ms; 0 when it was not given. */
int parse_timeout(const char *text, unsigned *ret_ms, struct error *err);
