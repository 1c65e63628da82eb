/* SPDX-License-Identifier: MIT */
/*
 * What the files of the supervisor share: supervisor.c (the side that starts it), supervise.c (its main and
 * loop), launch.c (QEMU's start), events.c (what it writes down).
 */
#pragma once

#include <sys/types.h>

#include <k3s-vm/proc.h>
#include <k3s-vm/project.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/strv.h>

/* Descriptors the supervisor is started with. */
#define SUPERVISE_STATUS_FD 3
#define SUPERVISE_LAUNCH_FD 4

#define LAUNCH_JSON_MAX (4U * 1024 * 1024)

/* What is to be started; JSON on its way from the command to the supervisor. */
struct launch {
        struct project *project;
        char *uuid;
        char *name; /* VM_NAME */
        struct strv argv;
        /* A QEMU that runs already and is only to be watched; 0: none. */
        pid_t adopt_pid;
        uint64_t adopt_start_time;
};
void launch_clear(struct launch *l);
#define _cleanup_launch_ _cleanup_(launch_clear)
struct json *launch_to_json(const char *root, const char *uuid, const char *name, const struct strv *argv);
int launch_parse(const struct json *j, struct launch *ret, struct error *err);

/* Starts QEMU and connects to the supervisor's monitor; the guest does not run yet. On failure nothing is left
 * running, and the error carries what QEMU said. */
int launch_qemu(const struct launch *l, struct process *ret_qemu, struct qmp **ret_qmp, struct error *err);
/* Connects to a QEMU that runs already, after checking that it is this VM's. */
int launch_adopt(const struct launch *l, struct process *ret_qemu, struct qmp **ret_qmp, struct error *err);
/* Removes the sockets and the PID file of a QEMU that is gone. */
void launch_remove_leftovers(const struct project *p, const char *uuid);
/* For tests: the error for a QEMU that ended with @how ("exited with status 1") after saying @words. */
int launch_error(const char *how, const char *words, struct error *err);

/* The last @lines lines of a file, printable, a newline after each; NULL when there are none. The caller frees. */
char *log_tail(const char *path, off_t from, unsigned lines);
/* Keeps a file that a process appends to below @max bytes: the end of what was there goes to PATH.1. */
void log_bound(const char *path, off_t max);

/* The file the supervisor holds a write lock on for its life; the caller frees. */
char *supervisor_lock_path(const struct project *p);
