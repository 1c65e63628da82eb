/* SPDX-License-Identifier: MIT */
/*
 * Host forwards of a running VM: ports of 127.0.0.1 that lead to ports of the guest, changed through QEMU's monitor.
 * What is kept for the next start is FORWARDS in the configuration; this module changes only what is there now.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/project.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/state.h>

/* "8080:80", with the address and protocol that it has anyway if somebody likes to say so
 * ("127.0.0.1:8080:80/tcp"), or "8080" for the same port on both sides. ERR_USAGE. */
int forward_parse(const char *text, struct forward *ret, struct error *err);

/* All that a VM of this configuration is started with: those of API_PORT, SSH_PORT and WEB_PORT, in this order, and
 * FORWARDS. Their number; the caller frees @ret. */
size_t forward_configured(const struct config *c, struct forward **ret);

/* Opens and closes a forward of the VM that runs. */
/* On a monitor, by a rule as qemu_forward_rule() makes it; -EADDRNOTAVAIL: QEMU cannot have the port. */
int forward_add(struct qmp *q, const char *rule, struct error *err);
int forward_open(const struct project *p, const struct state *s, const struct forward *f, struct error *err);
/* -ENOENT: QEMU has no such forward. */
int forward_close(const struct project *p, const struct state *s, uint16_t host_port, struct error *err);
/* All that the VM has, API, SSH and web among them; the caller frees @ret. */
int forward_list(const struct project *p, const struct state *s, struct forward **ret, size_t *ret_n,
                 struct error *err);

/* For tests: the same from the text of QEMU's `info usernet`. */
void forward_parse_usernet(const char *text, struct forward **ret, size_t *ret_n);
