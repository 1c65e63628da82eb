/* SPDX-License-Identifier: MIT */
/* The guest's clock, set by this machine's: after this machine slept, or the guest stood still. By the guest's agent
 * where it has one, else over SSH. */
#pragma once

#include <k3s-vm/agent.h>
#include <k3s-vm/project.h>
#include <k3s-vm/remote.h>
#include <k3s-vm/state.h>

#define CLOCK_RIGHT_MS 500 /* as good as whole seconds can be set, which is all that some date(1) know */

/* How to reach the guest. */
struct clock_guest {
        const struct project *project; /* by the agent of */
        const struct state *state;     /* this VM; or */
        struct remote *remote;         /* over SSH, unless NULL */
};

/* Sets it if it is further off than that. @ret_was_off_ms is by how much it was ahead. */
int clock_guest_correct(const struct clock_guest *c, int64_t *ret_was_off_ms, struct error *err);
/* Sets it without a look at what it was. */
int clock_guest_set(const struct clock_guest *c, struct error *err);
/* The same by the agent, in two parts: what is done in between does not wait for it. */
int clock_guest_begin(const struct clock_guest *c, struct agent_request *ret, struct error *err);
int clock_guest_finish(const struct agent_request *request, struct error *err);
