/* SPDX-License-Identifier: MIT */
/*
 * What the files of the supervisor share: supervisor.c (the side that starts it), supervise.c (its main and
 * loop), supervise_qemu.c (what it does about its QEMU), starter.c (who starts things for it), launch.c (QEMU's
 * start), events.c (what it writes down).
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

/* The supervisor's own socket (control.h), beside QEMU's. */
#define SUPERVISOR_SOCKET "supervisor.sock"

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

/* Errors on their way from one process to another. */
struct json *error_to_json(const struct error *err);
int error_from_json(const struct json *j, struct error *err);

/* A QEMU whose monitor was not talked to yet. */
struct launched {
        pid_t pid;       /* a child of this process's parent */
        int qmp_fd;      /* owned; connected to the supervisor's monitor */
        off_t log_start; /* where in vm.log its words begin */
};
/* Starts QEMU; with @resume so that it can load the state in files (suspend.h). For the supervisor's starter
 * (starter.h): QEMU becomes the supervisor's child. */
int launch_qemu(const struct launch *l, bool resume, struct launched *ret, struct error *err);
/* Greets it, as its parent. The guest does not run yet. On failure nothing is left running, and the error carries
 * what QEMU said; its sockets are still there. @qmp_fd is taken over. */
int launch_handshake(const struct launch *l, struct process *qemu, int qmp_fd, off_t log_start, struct qmp **ret,
                     struct error *err);
/* The path of a socket in the VM's runtime folder; the caller frees. NULL: there is no such folder. */
char *launch_socket_path(const struct launch *l, const char *name);
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
