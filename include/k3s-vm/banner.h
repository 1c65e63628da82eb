/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a guest's SSH server (RFC 4253, section 4.2: it greets first, with "SSH-").
 *
 * QEMU's user-mode network accepts a connection at once, whatever the guest does, and only then tries the guest. Until
 * the guest has its address, each try is repeated for a minute, even when the host's side was closed long ago:
 * once the guest is up they all reach its server together, and a slow guest does nothing else for a while. So hardly
 * any connection is made before the guest says on its serial line that its network is up (GUEST_NETWORK_UP); after
 * that a closed port refuses at once and can be asked often.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>

/* What a guest prints on its serial line; one that does not is asked every few seconds. */
#define GUEST_NETWORK_UP "k3s-vm: the network is up"

struct banner_wait {
        uint16_t port;           /* on 127.0.0.1 */
        const char *serial_path; /* the log of the serial line */
        uint64_t serial_from;    /* where in it this boot begins, in bytes; of a log that is shorter, all is its */
        int stop_fd;             /* ends the wait when it becomes readable; -1: none */
        unsigned timeout_ms;
        struct progress *progress;
        struct progress_phase *phase; /* kept alive meanwhile */
};

/* 0 once the server has greeted; 1 when @stop_fd became readable before; -ETIMEDOUT (ERR_TIMEOUT), -ECANCELED
 * (ERR_INTERRUPTED). */
int banner_wait(const struct banner_wait *wait, struct error *err);
/* Whether the guest has said @words on its serial line since @serial_from. */
bool serial_says(const char *serial_path, uint64_t serial_from, const char *words);
