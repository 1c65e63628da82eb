/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's helper: a process of its own that is forked before the supervisor confines itself and that does the
 * few things the supervisor then cannot do any more. It sleeps until it is given one of its orders. No order has an
 * argument, so all that a supervisor gone astray can have it do is what it does for a healthy one. It ends when the
 * supervisor does, whatever way that ends.
 */
#pragma once

#include <k3s-vm/proc.h>

#include "supervise.h"

struct starter {
        pid_t pid;  /* -1: there is none */
        int socket; /* the supervisor's end */
};
#define STARTER_INIT ((struct starter){.pid = -1, .socket = -1})

/* Forks it. In the helper, @close_fds (ends with -1) are closed first: they are the supervisor's alone. */
int starter_new(const struct launch *l, const int *close_fds, struct starter *ret, struct error *err);
/* Ends it and waits for that. */
void starter_end(struct starter *s);

/* launch_qemu(), from afar: QEMU is a child of this process. */
int starter_launch(const struct starter *s, bool resume, struct launched *ret, struct error *err);
/* A new connection to the supervisor's monitor, not yet greeted. */
int starter_connect(const struct starter *s, int *ret_qmp_fd, struct error *err);
/* A connection to QEMU's gdbstub, which listens on QEMU_GDB. */
int starter_connect_gdb(const struct starter *s, int *ret_fd, struct error *err);
/* Has the VM put to sleep (doze.h), which goes on after this returns. */
int starter_doze(const struct starter *s, struct error *err);
/* Has the guest's clock set, which goes on after this returns and says in events.jsonl how it went. */
int starter_set_clock(const struct starter *s, struct error *err);
