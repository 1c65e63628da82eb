/* SPDX-License-Identifier: MIT */
/*
 * A VM that sleeps until somebody wants something of it (IDLE_SUSPEND). It is suspended, and its ports are held: by
 * this, a process of its own that stands in the supervisor's place, under the supervisor's lock. So every command that
 * starts or removes the VM ends it as it would end a supervisor.
 *
 * The first connection wakes the VM. The sockets that listen are closed when QEMU is about to have the ports, and what
 * was accepted is handed on to QEMU by this process until it ends: the kernel can give neither a connection nor a port
 * that is listened on to a program that was not made for that, as QEMU's network is not. Later connections are QEMU's
 * own. One that comes in the few milliseconds in between is refused, and only that.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

struct doze;
void doze_free(struct doze *d);
DEFINE_FREEP(struct doze, doze_free)
#define _cleanup_doze_ _cleanup_(doze_freep)

/* Holds the ports of a VM that is suspended, and the supervisor's lock. The caller holds the VM's lock. */
int doze_new(const struct project *p, const struct state *s, const struct config *c, struct doze **ret,
             struct error *err);
/* Waits until somebody connects, and gives the lock back. -ECANCELED: interrupted. */
int doze_wait(struct doze *d, struct error *err);
/* The other side: wakes a VM that sleeps so, and waits until it answers (on SSH). */
int doze_wake(const struct state *s, struct error *err);
/* While the VM is started: accepts until it is about to have its ports, hands on what was accepted, until all of it is
 * closed. @stop_fd becomes readable when the start is over. */
int doze_hand_on(struct doze *d, int stop_fd, struct error *err);
