/* SPDX-License-Identifier: MIT */
/*
 * A suspended VM. Its memory and devices are in two files beside its disk, from which a QEMU has them back in no time;
 * or, where this program may not read QEMU's memory, a snapshot inside the disk. VM/suspend.json says which, and what
 * machine they are of.
 *
 * The state is used once. suspend.json is written once the state is whole, and is removed, and that is on the disk,
 * before the guest runs again, whether it was resumed or boots. So whoever finds suspend.json finds a disk that has not
 * moved on since: a snapshot is in it, and with files the disk's size and time are in the record. Files that were not
 * written out when this machine went down are not used either. What no suspend.json names is only in the way.
 */
#pragma once

#include <k3s-vm/project.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/strv.h>

#define SUSPEND_HEADROOM_BYTES (128ULL * 1024 * 1024) /* left free on the host's disk besides the state */

enum suspended_kind { SUSPENDED_IN_FILES, SUSPENDED_IN_DISK, SUSPENDED_NOT /* the disk of a VM that was off */ };

struct suspended {
        enum suspended_kind kind;
        char *tag; /* of this state alone: the snapshot's name */
        uint64_t time_ms;
        uint64_t bytes;      /* of memory and devices */
        uint64_t written;    /* of them, by the save; not in the record */
        unsigned disk_gib;   /* the disk's size; of snapshots */
        char *boot_id;       /* of this machine when it was saved */
        bool synced;         /* it is good after another boot of this machine, too */
        struct strv machine; /* suspend_machine() of the QEMU that saved it */
        struct strv files;   /* with files: which ones, and which disk */
};
void suspended_clear(struct suspended *s);
#define _cleanup_suspended_ _cleanup_(suspended_clear)

/* Whether there is a saved state, readable or not. */
bool suspend_exists(const struct project *p);
/* -ENOENT: none. -EUCLEAN: damaged. */
int suspend_load(const struct project *p, struct suspended *ret, struct error *err);
/* From here on the state is not used any more, even after a power cut; its memory is set aside. None there is fine. Not
 * under a QEMU that runs on from it. */
int suspend_forget(const struct project *p, struct error *err);
/* Makes the state in @folder the VM's, whose disk is the one that belongs to it. */
int suspend_install(const struct project *p, const char *folder, const struct suspended *from, struct error *err);
/* The disk's file was changed without its contents: the state is still good. */
int suspend_refresh(const struct project *p, struct error *err);
/* Removes what a VM that is gone ran on from, if that is no state. */
void suspend_tidy(const struct project *p);

/* What a saved state depends on, a line each: QEMU's version, its arguments as far as the guest's hardware hangs on
 * them, the files that the guest reads, and under KVM this host's processor. Ports, logs, sockets and where the project
 * is are not among it. */
void suspend_machine(const struct strv *argv, const char *qemu_version, struct strv *ret);
/* NULL when a state of @then can be loaded into @now, else what is different, for people; the caller frees. */
char *suspend_difference(const struct strv *then, const struct strv *now);

/* The state, before a QEMU of @argv is started to go on from it. -ESTALE: it is of no use, and @err says why. */
int suspend_check(const struct project *p, const struct strv *argv, struct suspended *ret, struct error *err);
/* For a state in files: the arguments of that QEMU, and a descriptor that it has to get as QEMU_FD_DEVICES. */
void suspend_files_arguments(const struct project *p, const struct strv *argv, struct strv *ret);
/* Has the memory's file read from the disk as a whole, in its order, which takes as long as that does: the guest needs
 * it page by page, in any order. */
void suspend_files_read_ahead(const struct project *p);
/* Gives the memory's file, which is no state any more, a name of its own: to free its room takes up to a second, which
 * suspend_files_sweep() does at a better time, at the latest when a QEMU was started. */
void suspend_files_set_aside(const struct project *p);
void suspend_files_sweep(const struct project *p);
/* How much of a file a save, or a snapshot's, copies before it writes the guest's changes. Of a VM that runs. */
uint64_t suspend_files_copied(const struct project *p, bool snapshot);
/* Takes them out of a command line again. */
void suspend_files_strip(struct strv *argv);
int suspend_files_open(const struct project *p, int *ret_devices_fd, struct error *err);

/* On QEMU's monitor, with the guest standing still. */

/* Saves the state of process @pid, a child of this one, and writes suspend.json. On failure there is neither. */
int suspend_save(const struct project *p, struct qmp *q, pid_t pid, const struct strv *argv, struct suspended *ret,
                 struct error *err);
/* The same for a snapshot (snapshot.h): memory and devices in @folder, and a snapshot of the disk named ret->tag. No
 * record is written. */
int suspend_snapshot(const struct project *p, const char *folder, struct qmp *q, pid_t pid, const struct strv *argv,
                     struct suspended *ret, struct error *err);
/* Has the state written out, which takes as long as the host's disk does, and notes that. */
int suspend_sync(const struct project *p, const struct suspended *s, struct error *err);
/* Loads the state into a QEMU that was just started for it. 0, and suspend.json is gone: let the guest run. -ESTALE: it
 * is not this QEMU's, which is untouched. Any other error: this QEMU is of no use any more. */
int suspend_resume(const struct project *p, struct qmp *q, const struct suspended *s, const struct strv *argv,
                   struct error *err);
/* Once the guest runs: removes what it does not run on. */
void suspend_consumed(const struct project *p, const struct suspended *s);
/* Whether the state's devices are still to be loaded: with a state in files, until the guest runs. */
bool suspend_files_waiting(const struct project *p);
/* Opens the ports that @argv names, once a guest that goes on from files runs. */
int suspend_files_forward(struct qmp *q, const struct strv *argv, struct error *err);
/* Removes snapshots that suspend_save() made and that nobody names; from under a guest that runs, too. */
int suspend_sweep(const struct project *p, struct qmp *q, struct error *err);
/* Removes a snapshot of the disk. */
int suspend_disk_unmark(struct qmp *q, const char *tag, struct error *err);
