/* SPDX-License-Identifier: MIT */
/*
 * Child processes. One way to start them (proc_spawn), one way to run a tool and read what it says
 * (proc_run), and the identity checks that must come before any signal: a process is known by a pidfd
 * plus its start time, never by a number alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/strv.h>

struct proc_fd {
        int parent_fd; /* stays open in the parent */
        int child_fd;  /* its number in the child, 3 or more */
};

struct proc_spec {
        const char *const *argv;    /* argv[0] is looked up on PATH unless it has a slash */
        const char *const *env;     /* NULL: the parent's environment; else replaces it */
        const char *const *set_env; /* NULL or "NAME=value" strings added to the environment */
        const char *cwd;            /* NULL: inherited */
        int stdin_fd;               /* -1: /dev/null */
        int stdout_fd;              /* -1: /dev/null */
        int stderr_fd;              /* -1: /dev/null */
        const struct proc_fd *fds;  /* further descriptors the child keeps; all others are closed */
        size_t n_fds;
        int confined_by;      /* -1, or what confine.h gives: the child and all it starts are confined */
        bool new_session;     /* setsid(): the child survives the terminal */
        bool die_with_parent; /* PR_SET_PDEATHSIG SIGTERM */
        bool as_sibling;      /* the child of this process's parent, which alone can wait for it */
};
#define PROC_SPEC_INIT ((struct proc_spec){.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .confined_by = -1})

struct process {
        pid_t pid;
        int pidfd; /* owned, close-on-exec */
};
#define PROCESS_INIT ((struct process){.pid = -1, .pidfd = -1})
void process_close(struct process *p); /* forgets it; does not signal or reap */
#define _cleanup_process_ _cleanup_(process_close)

/* Starts a child: signals at their defaults, nothing blocked, descriptors as the spec says. An exec
 * that fails is reported here (-ENOENT with a hint-worthy message "cannot run X: ..."). */
int proc_spawn(const struct proc_spec *spec, struct process *ret, struct error *err);

/* How a child ended. */
struct proc_result {
        int exit_status; /* 0..255, or 128 + signal */
        int signal;      /* 0 when it exited */
};
/* "exited with status 3", "was killed by signal 9 (Killed)"; the caller frees. */
char *proc_result_string(const struct proc_result *result);

/* Waits for a child started here. @timeout_ms 0: for ever. -ETIMEDOUT leaves it running. */
int proc_wait(struct process *p, unsigned timeout_ms, struct proc_result *ret, struct error *err);
/* Signals through the pidfd; a process that is gone is no error. */
int proc_signal(const struct process *p, int signal, struct error *err);
/* SIGTERM, @grace_ms later SIGKILL, and reaps. */
void proc_end(struct process *p, unsigned grace_ms);

/* Called with each line (without its newline) that the tool writes, in pieces where it is longer than 64 KiB. */
typedef void proc_line_fn(const char *line, void *userdata);

struct proc_run_spec {
        struct proc_spec spec;     /* its stdout_fd, stderr_fd and fds are set by proc_run() */
        proc_line_fn *on_progress; /* lines of descriptor 3; NULL: descriptor 3 is closed */
        proc_line_fn *on_line;     /* lines of stdout and stderr; NULL: none */
        void *userdata;
        struct buf *ret_stdout; /* NULL: stdout goes where stderr goes */
        struct buf *ret_tail;   /* NULL, or gets the last lines of stderr (and stdout), for error messages */
        int log_fd;             /* -1, or a file that gets the same lines */
        unsigned timeout_ms;    /* 0: none */
        const int *cancel_fd;   /* NULL, or a descriptor that becomes readable when the run must end */
};
#define PROC_RUN_SPEC_INIT ((struct proc_run_spec){.spec = PROC_SPEC_INIT, .log_fd = -1})
/* Runs a tool to its end. 0 when it ran, whatever its status (see @ret); -ECANCELED, -ETIMEDOUT, -E2BIG (more
 * than @ret_stdout takes) after ending it and its process group. Lines are printable (str_printable()), empty ones
 * are left out, and a carriage return ends one. */
int proc_run(const struct proc_run_spec *spec, struct proc_result *ret, struct error *err);

/* Identity of a running process. */
/* Start time in clock ticks since boot (field 22 of /proc/PID/stat), or -ESRCH. */
int proc_start_time(pid_t pid, uint64_t *ret);
/* The argument vector of a process, bounded to 1 MiB; -ESRCH, -EACCES. */
int proc_cmdline(pid_t pid, struct strv *ret);
/* A pidfd for @pid, -ESRCH when it is gone. */
int proc_open(pid_t pid, int *ret_pidfd);
bool proc_alive(int pidfd);
/* The kernel's boot id (36 characters); the caller frees. NULL where /proc is not there. */
char *proc_boot_id(void);
/* Resident and proportional set sizes in KiB; -ESRCH, -EACCES. */
int proc_memory_kib(pid_t pid, uint64_t *ret_rss, uint64_t *ret_pss);
/* KiB of memory that is no file's, swapped out or not: what the process itself has written to; -ESRCH. */
int proc_anonymous_kib(pid_t pid, uint64_t *ret);
/* The path of this program, for running itself again; the caller frees. */
char *proc_self_path(void);
