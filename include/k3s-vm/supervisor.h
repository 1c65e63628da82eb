/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: one process a VM, in a session of its own, that starts QEMU, watches it through a pidfd and
 * its own QMP monitor, and writes down what happens. It never serves the data path: when it dies the VM goes
 * on. It is this same program, started as `k3s-vm supervise`.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>
#include <k3s-vm/strv.h>

/* Starts a supervisor which starts QEMU with @argv, and waits until QEMU runs guest code. If the VM is suspended the
 * guest goes on from there (@ret_resumed), or @progress is told why it boots instead. On return @s holds
 * pid, start time, boot id and start of QEMU (saved by the caller) and @ret_vm its pidfd. A QEMU that
 * fails gives its own words as the error's detail; a port that was taken meanwhile is ERR_PORT. The caller holds
 * the VM's lock and has seen with vm_find() that no QEMU of this VM lives. */
int supervisor_start(const struct project *p, struct state *s, const struct strv *argv, struct process *ret_vm,
                     bool *ret_resumed, struct progress *progress, struct error *err);

/* Whether this VM has a supervisor. */
bool supervisor_alive(const struct project *p);

/* Whether a process that dozes (doze.h) has its place. */
bool supervisor_dozes(const struct project *p);

/* The supervisor of a command that was killed may be about to start QEMU, or was killed, too, and its helper does that
 * yet: waits until that QEMU can be found, or nobody will start one. */
void supervisor_wait_launch(const struct project *p);

/* Gives a running VM that lost its supervisor a new one; does nothing when it has one. */
int supervisor_adopt(const struct project *p, const struct state *s, const struct process *vm, struct error *err);

/* The same for commands that only look, for a VM whose QEMU lives: done unless another command is at work on the VM,
 * which will see to it. Failing is not said: the VM runs all the same. */
void supervisor_ensure(const struct project *p, const struct state *s, const struct process *vm);

/* Asks the supervisor on its own socket. Verbs: "status" ({"pid", "uptime_ms", "confined", "adopted", "phase":
 * "running", "paused" or "restarting", "restarts", "standstills" (standstill.h), "monitor", "qemu": {"pid",
 * "start_time"}, "last_event": {"event", "ms"}}), "booted" (the same, to be asked by who has reached the guest),
 * "ping", "reconnect" (the monitor), "suspend" ({"bytes", "save_ms"}: the state is saved and QEMU is on its way out; an
 * error: the VM runs on), "unsuspend" (lets a guest run on that a killed supervisor left paused), "snapshot" ({"tag",
 * "bytes", "machine"}: snapshot.h). -ENOENT, -ECONNREFUSED: there is none. */
int supervisor_ask(const struct project *p, const char *uuid, const char *verb, unsigned timeout_ms, struct json **ret,
                   struct error *err);

/* Waits up to @grace_ms for the supervisor to end by itself, as it does when QEMU is gone, then ends it. The VM is
 * not touched. No supervisor is fine. */
int supervisor_end(const struct project *p, unsigned grace_ms, struct error *err);

/* Has the supervisor press the guest's power button, for when QEMU's other monitor cannot be reached. -ESRCH: there
 * is none. */
int supervisor_powerdown(const struct project *p);

/* The supervisor's own main, reached through the hidden command `supervise`: descriptor 3 is the status pipe,
 * descriptor 4 a sealed memory file with the launch description. Returns an exit code.
 *
 * While the VM runs it lives under a system call filter that lets it start nothing and connect to nothing; a helper
 * that was forked before does what needs more (its restart of QEMU, a lost monitor, the guest's clock).
 *
 * Signals: SIGTERM ends the supervisor and leaves the VM running; SIGUSR1 presses the guest's power button.
 *
 * A QEMU that crashed, or whose guest panicked, is started again after a growing delay, five times in ten minutes
 * at most, if state.json says that the VM is to run (intent "running", this QEMU's pid) and no command holds
 * the VM's lock: a command at work deals with it itself. */
int supervisor_main(void);

/* Appends one line to events.jsonl: {"time":…,"ms":…,"event":…,…@fields}. @fields is taken over, may be NULL. */
void events_append(const struct project *p, const char *event, struct json *fields);
