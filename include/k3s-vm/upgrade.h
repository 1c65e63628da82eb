/* SPDX-License-Identifier: MIT */
/*
 * Another Kubernetes for the cluster that is there. The payload is a read-only disk, so the guest is shut down, its
 * data disk is marked (a hidden snapshot), and it boots with the new payload. If the API and the nodes do not come back
 * in time, disk and payload are put back as they were, and the VM boots with those.
 *
 * VM/upgrade.json is there from before the swap until the end, with the payload that was. An upgrade that was killed or
 * interrupted in between is brought to its end, one way or the other, by the next one.
 */
#pragma once

#include <k3s-vm/lifecycle.h>

enum upgrade_result { UPGRADE_DONE, UPGRADE_SAME };

/* @wanted is as K3S_VERSION, which becomes that once the cluster is up with it. ERR_USAGE: such an upgrade is not
 * possible (versions.h), and nothing was changed. ERR_FAILED and ERR_TIMEOUT say whether it was taken back. */
int upgrade_vm(const struct lifecycle *l, struct state *s, const char *wanted, enum upgrade_result *ret,
               struct error *err);
