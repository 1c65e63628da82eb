/* SPDX-License-Identifier: MIT */
/*
 * Errors as values. A function that can fail takes a `struct error *` last and returns 0 or a
 * negative errno; on failure the error holds an exit code, a message that grows a prefix on each
 * level it passes ("cannot start the VM: cannot bind ...") and, where there is one, the command that
 * mends it. Only a command prints it. Passing NULL where the message does not matter is allowed.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/cleanup.h>

/* The program's exit codes; see README, "Exit codes". */
enum err_code {
        ERR_FAILED = 1,        /* the operation failed */
        ERR_USAGE = 2,         /* bad arguments or configuration; nothing was changed */
        ERR_NO_VM = 3,         /* this project has no VM */
        ERR_STATE = 4,         /* the VM is in the wrong state for this */
        ERR_PORT = 5,          /* a port is taken */
        ERR_HOST = 6,          /* the host lacks a tool, a permission, room */
        ERR_TIMEOUT = 7,       /* it took longer than the time limit */
        ERR_INTERRUPTED = 130, /* SIGINT, SIGTERM or SIGHUP */
};

struct error {
        enum err_code code; /* 0: no error */
        int errnum;         /* positive errno, EIO when none fits */
        char *message;      /* owned; one line, no full stop */
        char *hint;         /* owned; what mends it, may hold several lines; NULL: nothing to say */
        char *detail;       /* owned; lines to show below the message (a tool's output); NULL: none */
};

#define ERROR_INIT ((struct error){0})

/* Frees what @err holds and makes it empty. */
void error_clear(struct error *err);
#define _cleanup_error_ _cleanup_(error_clear)

/* Sets @err, dropping what it held, and returns -@errnum. An @errnum of 0 counts as EIO. */
int err_set(struct error *err, enum err_code code, int errnum, const char *fmt, ...) _printf_(4, 5);

/* As err_set() with ERR_FAILED (ERR_HOST where a file system is full or read-only), the message followed by ": " and
 * strerror(@errnum). */
int err_errno(struct error *err, int errnum, const char *fmt, ...) _printf_(3, 4);

/* Puts "prefix: " before the message and returns @r, the negative errno that came with it, so that a caller can
 * write `return err_wrap(err, r, "cannot ...")`. */
int err_wrap(struct error *err, int r, const char *fmt, ...) _printf_(3, 4);

/* Sets what mends it, replacing an earlier hint. */
void err_hint(struct error *err, const char *fmt, ...) _printf_(2, 3);

/* Sets the lines shown below the message, replacing earlier ones. */
void err_detail(struct error *err, const char *text);

/* Moves @from into @to (freeing what @to held; with @to NULL frees @from). Returns the negative errno. */
int err_move(struct error *to, struct error *from);

/* Out of memory: nothing sensible can be done with it, so it ends the program with a message. The
 * only place below the commands that does. */
void *oom_check(void *p);
char *xstrdup(const char *s); /* NULL stays NULL */
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) _printf_(1, 2);
void *xcalloc(size_t n, size_t size);
void *xreallocarray(void *p, size_t n, size_t size);
