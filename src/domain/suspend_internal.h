/* SPDX-License-Identifier: MIT */
/* What the files of module `suspend` share. Not for anyone else. */
#pragma once

#include <k3s-vm/suspend.h>

#define SUSPEND_TAG "k3s-vm-suspend-"
#define SNAPSHOT_TAG "k3s-vm-snapshot-"
#define SUSPEND_RECORD "suspend.json"
#define SUSPEND_QMP_TIMEOUT_MS 5000

/* suspend_disk.c: memory and devices as a snapshot in the VM's disk, saved and loaded by QEMU's jobs. */
int suspend_disk_save(struct qmp *q, const char *tag, uint64_t *ret_bytes, struct error *err);
/* -ESTALE: the disk has no such snapshot; QEMU is untouched then. */
int suspend_disk_load(struct qmp *q, const char *tag, struct error *err);
int suspend_disk_sweep(struct qmp *q, struct error *err);
/* A snapshot of the disk alone, of a guest that stands still. */
int suspend_disk_mark(struct qmp *q, const char *tag, struct error *err);

/* suspend_files.c: memory and devices in files of their own in @folder. Fills in kind and sizes. */
int suspend_files_save(const struct project *p, const char *folder, struct qmp *q, pid_t pid, const struct strv *argv,
                       struct suspended *ret, struct error *err);
/* The files of one folder in another: the same ones, where the file system can, as none is ever written to while it has
 * two names. */
int suspend_files_share(const char *from, const char *to, struct error *err);
/* For a QEMU that was started with suspend_files_arguments(). */
int suspend_files_load(struct qmp *q, struct error *err);
/* Which files they are at the moment, the disk among them: a line each, for the record. */
void suspend_files_identify(const struct project *p, struct strv *ret);
/* Both are on the disk, even after a power cut. */
int suspend_files_sync(const struct project *p, struct error *err);
/* The devices' file is used up as soon as it is loaded; the memory's is what the VM runs on until it ends. */
void suspend_files_remove(const struct project *p, bool memory_too);

/* suspend_memory.c: the guest's memory, @bytes at address @base of QEMU, which stands still, to the file @path. If it
 * is the file @mapped, privately mapped, only the pages that were changed since are written to it, or to a copy of it
 * if
 * @path is another one or @mapped has a second name. @ret: what was written besides. -ESTALE: the mapping there is yet
 * another one. */
int suspend_memory_save(pid_t pid, uint64_t base, uint64_t bytes, const char *mapped, const char *path, uint64_t *ret,
                        struct error *err);

/* suspend.c: the record in @folder. */
int suspend_read_record(const char *folder, struct suspended *ret, struct error *err);
int suspend_write_record(const char *folder, const struct suspended *s, bool durable, struct error *err);
