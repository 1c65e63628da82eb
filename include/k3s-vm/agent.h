/* SPDX-License-Identifier: MIT */
/*
 * The guest's agent, a line of text each way on its second serial line (src/guest/debian/rootfs/usr/lib/k3s-vm/agent):
 * for what cannot wait for a login over SSH. What it says comes from the guest and is not to be trusted.
 */
#pragma once

#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

/* Whether the VM's guest has one, by its guest.json. */
bool agent_is_there(const struct state *s);

/* A request on its way. */
struct agent_request {
        int fd; /* -1: none */
        char *number;
        uint64_t sent_ms; /* wall clock */
};
#define AGENT_REQUEST_INIT ((struct agent_request){.fd = -1})
void agent_request_clear(struct agent_request *r);
#define _cleanup_agent_request_ _cleanup_(agent_request_clear)

/* Sends "VERB" or "VERB ARGUMENT" (@argument may be NULL). */
int agent_send(const struct project *p, const struct state *s, const char *verb, const char *argument,
               struct agent_request *ret, struct error *err);
/* Waits for the answer, which the caller frees. -ETIMEDOUT: there was none. */
int agent_receive(const struct agent_request *r, unsigned timeout_ms, char **ret, struct error *err);
/* Both. */
int agent_ask(const struct project *p, const struct state *s, const char *verb, const char *argument,
              unsigned timeout_ms, char **ret, struct error *err);
