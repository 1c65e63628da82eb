/* SPDX-License-Identifier: MIT */
/*
 * The protocol between a debugger and what it debugs (GDB's manual, "Remote Protocol"), as far as QEMU's gdbstub is
 * asked to let a guest take one step.
 */
#pragma once

#include <k3s-vm/err.h>

/* On a new connection, whose guest QEMU has stopped: its first processor takes one step, then the guest runs on.
 * -ETIMEDOUT: QEMU does not answer; -EPROTO: it answers something else. The guest may be left standing then. */
int gdb_step(int fd, unsigned timeout_ms, struct error *err);
