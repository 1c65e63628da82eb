/* SPDX-License-Identifier: MIT */
/*
 * A client of the QEMU Machine Protocol (qemu-qmp-spec): greeting, capabilities, then commands and
 * events, one JSON value a line. The state is explicit, messages are bounded, and a lost connection fails
 * every pending call. One socket serves one client at a time, so a VM has two: the supervisor's and the
 * commands'.
 */
#pragma once

#include <k3s-vm/json.h>
#include <k3s-vm/loop.h>

#define QMP_MESSAGE_MAX (16U * 1024 * 1024) /* bytes; query-qmp-schema is the largest, about 250 KiB */

struct qmp;

/* @name, for example "SHUTDOWN", with its data (may be NULL) and QEMU's time in ms since 1970. */
typedef void qmp_event_fn(const char *name, const struct json *data, uint64_t time_ms, void *userdata);

/* Connects and negotiates within @timeout_ms, blocking. -ENOENT, -ECONNREFUSED: no QEMU there;
 * -ETIMEDOUT: it does not answer, or its one place is taken; -ECONNRESET: it went away; -EPROTO: not QMP;
 * -EPERM: the socket is another user's. */
int qmp_connect(const char *socket_path, unsigned timeout_ms, struct qmp **ret, struct error *err);
/* The same over a connection that was made already (non-blocking), which is taken over. */
int qmp_open(int fd, unsigned timeout_ms, struct qmp **ret, struct error *err);
void qmp_free(struct qmp *q);
DEFINE_FREEP(struct qmp, qmp_free)
#define _cleanup_qmp_ _cleanup_(qmp_freep)

/* Events that arrive at any time from the greeting on are given to @fn; early ones (256 of them) are kept for
 * it. @fn must not call back into @q. */
void qmp_on_event(struct qmp *q, qmp_event_fn *fn, void *userdata);

/* Runs one command and waits for its answer; events on the way are handed out. @arguments is taken over,
 * may be NULL. @ret may be NULL; else the caller frees. QEMU's own error becomes the message, -EREMOTEIO.
 * After -ETIMEDOUT the connection can be used on: the late answer is dropped. After -ECONNRESET or -EPROTO
 * every call fails. */
int qmp_call(struct qmp *q, const char *command, struct json *arguments, unsigned timeout_ms, struct json **ret,
             struct error *err);
/* As qmp_call() with human-monitor-command; @ret gets its text, the caller frees. */
int qmp_human(struct qmp *q, const char *line, unsigned timeout_ms, char **ret, struct error *err);

/* The same for a command that begins a job (snapshot-save, ...): waits until the job is concluded and dismisses it.
 * Takes
 * @arguments, an object, over and adds the job's id. The job's own error is -EREMOTEIO. */
int qmp_job(struct qmp *q, const char *command, struct json *arguments, unsigned timeout_ms, struct error *err);

/* For an event loop: the descriptor to watch for reading, and what to call then (never blocks; hands out
 * events; -ECONNRESET when QEMU closed, -EPROTO for junk). */
int qmp_fd(const struct qmp *q);
int qmp_process(struct qmp *q, struct error *err);
