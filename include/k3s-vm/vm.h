/* SPDX-License-Identifier: MIT */
/*
 * One VM as the kernel and QEMU see it: whether it lives, its state, and how it is started and ended. The
 * owner of the lock on the PID file, whose command line carries the VM's UUID and whose start time is
 * pinned by a pidfd, is the VM; a number in a file is nothing.
 */
#pragma once

#include <k3s-vm/proc.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

enum vm_status { VM_ABSENT, VM_CREATED, VM_STARTING, VM_RUNNING, VM_DEGRADED, VM_SUSPENDED, VM_STOPPED, VM_CRASHED };
const char *vm_status_string(enum vm_status s); /* "running" */

/* Finds this VM's live QEMU: the lock on vm.pid first, then any process with its UUID (an orphan without
 * files). 0 with @ret filled in (pidfd open), or -ESRCH when there is none. */
int vm_find(const struct project *p, const struct state *s, struct process *ret, struct error *err);

/* What state the VM is in. Asks lock, process and QMP; takes a millisecond or two. @s may be NULL (absent). */
enum vm_status vm_status(const struct project *p, const struct state *s);

/* Ends the VM: "orderly" is system_powerdown and up to @grace_ms; then quit, SIGTERM, SIGKILL in turn, each
 * step said to @progress. Returns once the process is gone. */
int vm_end(const struct project *p, const struct state *s, struct process *vm, bool orderly, unsigned grace_ms,
           struct progress *progress, struct error *err);

/* Takes the VM's command lock, saying for whom it waits. */
int vm_lock(const struct project *p, const char *command, unsigned timeout_ms, struct progress *progress, int *ret_fd,
            struct error *err);
