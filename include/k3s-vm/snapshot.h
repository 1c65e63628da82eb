/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: the VM as it was, under a name. Its disk is a snapshot inside the disk's file (qcow2); of a VM that ran or
 * was suspended, memory and devices are in VM/snapshots/NAME, in the form of a suspended VM's (suspend.h), beside a
 * record that names the disk's snapshot. A folder without a record is none.
 */
#pragma once

#include <k3s-vm/project.h>
#include <k3s-vm/suspend.h>

#define SNAPSHOT_NEW ".new"   /* one that is being saved: its memory and devices */
#define SNAPSHOT_WARM ".warm" /* the first Ready, for `reset --warm`; no user's name begins so */

struct snapshot {
        char *name;
        struct suspended state;
};
struct snapshots {
        struct snapshot *items; /* oldest first */
        size_t n;
};
void snapshots_clear(struct snapshots *s);
#define _cleanup_snapshots_ _cleanup_(snapshots_clear)

/* ERR_USAGE for a name that is none: letters, digits, and ".", "_", "-" behind the first. */
int snapshot_check_name(const char *name, struct error *err);
/* The folder; the caller frees. */
char *snapshot_folder(const struct project *p, const char *name);
/* All that can be read, the hidden one too. */
int snapshots_list(const struct project *p, struct snapshots *ret, struct error *err);
/* -ENOENT with a hint: there is none of that name. */
int snapshot_load(const struct project *p, const char *name, struct suspended *ret, struct error *err);
