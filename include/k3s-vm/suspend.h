/* SPDX-License-Identifier: MIT */
/*
 * A suspended VM. Its memory and devices are a snapshot inside its own disk (qcow2), taken while the guest stands
 * still, so the two cannot part; VM/suspend.json names that snapshot and says what machine made it.
 *
 * The state is used once. suspend.json is written, and is on the disk, once the snapshot is whole; it is removed, and
 * that is on the disk, before the guest runs again, whether it was resumed or boots. So whoever finds suspend.json
 * finds a disk that has not moved on since; a snapshot that no suspend.json names is only in the way and is swept.
 */
#pragma once

#include <k3s-vm/project.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/strv.h>

struct suspended {
        char *tag; /* the snapshot's name, of this state alone */
        uint64_t time_ms;
        uint64_t bytes;      /* of memory and devices */
        struct strv machine; /* suspend_machine() of the QEMU that saved it */
};
void suspended_clear(struct suspended *s);
#define _cleanup_suspended_ _cleanup_(suspended_clear)

/* Whether there is a saved state, readable or not. */
bool suspend_exists(const struct project *p);
/* -ENOENT: none. -EUCLEAN: damaged. */
int suspend_load(const struct project *p, struct suspended *ret, struct error *err);
/* From here on the state is not used any more, even after a power cut. None there is fine. */
int suspend_forget(const struct project *p, struct error *err);

/* What a saved state depends on, a line each: QEMU's version, its arguments as far as the guest's hardware hangs on
 * them, the files that the guest reads, and under KVM this host's processor. Ports, logs, sockets and where the project
 * is are not among it. */
void suspend_machine(const struct strv *argv, const char *qemu_version, struct strv *ret);
/* NULL when a state of @then can be loaded into @now, else what is different, for people; the caller frees. */
char *suspend_difference(const struct strv *then, const struct strv *now);

/* On QEMU's monitor, with the guest standing still. */

/* Saves the state and writes suspend.json. On failure there is neither. */
int suspend_save(const struct project *p, struct qmp *q, const struct strv *argv, uint64_t *ret_bytes,
                 struct error *err);
/* Loads the state into a QEMU that was just started. 0, and suspend.json is gone: let the guest run. -ESTALE: it is not
 * this QEMU's, and QEMU is untouched. Any other error: this QEMU is of no use any more. */
int suspend_resume(const struct project *p, struct qmp *q, const struct strv *argv, struct error *err);
/* Removes snapshots that suspend_save() made and that nobody names; from under a guest that runs, too. */
int suspend_sweep(const struct project *p, struct qmp *q, struct error *err);
