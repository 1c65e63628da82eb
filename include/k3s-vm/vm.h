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
#include <k3s-vm/qmp.h>
#include <k3s-vm/state.h>

enum vm_status { VM_ABSENT, VM_CREATED, VM_STARTING, VM_RUNNING, VM_DEGRADED, VM_SUSPENDED, VM_STOPPED, VM_CRASHED };
const char *vm_status_string(enum vm_status s); /* "running" */

/* Finds this VM's live QEMU: the lock on vm.pid first, then any process with its UUID (an orphan without
 * files). 0 with @ret filled in (pidfd open), or -ESRCH when there is none. Without a readable state (@s NULL)
 * the lock's owner counts if its command line names this project's PID file. */
int vm_find(const struct project *p, const struct state *s, struct process *ret, struct error *err);

/* The live process that holds an fcntl write lock on @path, which no PID reuse, junk, symlink or stale number in it
 * can feign. -ESRCH: nobody does. */
int lock_owner(const char *path, struct process *ret);

/* What state the VM is in. Asks lock, process and QMP; takes a millisecond or two, or three seconds when QEMU does not
 * answer. @s may be NULL (absent). */
enum vm_status vm_status(const struct project *p, const struct state *s);
/* The same with one line for people about it: why it is degraded, how it ended last. @ret_detail (the caller frees) is
 * NULL where there is nothing to add. */
enum vm_status vm_status_detail(const struct project *p, const struct state *s, char **ret_detail);

/* Connects to the commands' monitor of a running VM. One client at a time: keep it short. */
int vm_connect(const struct project *p, const struct state *s, unsigned timeout_ms, struct qmp **ret,
               struct error *err);

/* Ends the VM: "orderly" is system_powerdown and up to @grace_ms; then quit, SIGTERM, SIGKILL in turn, each
 * step said to @progress. Returns once process and supervisor are gone and the sockets are removed. The caller holds
 * the VM's lock and has saved the intent "stopped". @s may be NULL. Interrupted: ERR_INTERRUPTED, the VM may
 * still be going down. */
int vm_end(const struct project *p, const struct state *s, struct process *vm, bool orderly, unsigned grace_ms,
           struct progress *progress, struct error *err);

/* Takes the VM's command lock, saying for whom it waits. -ETIMEDOUT after @timeout_ms (0: tried once). The lock goes
 * with the descriptor. The project's folder must be there. */
int vm_lock(const struct project *p, const char *command, unsigned timeout_ms, struct progress *progress, int *ret_fd,
            struct error *err);
