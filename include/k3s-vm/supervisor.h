/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: one process a VM, in a session of its own, that starts QEMU, watches it through a pidfd and
 * its own QMP monitor, and writes down what happens. It never serves the data path: when it dies the VM goes
 * on. It is this same program, started as `k3s-vm supervise`.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>
#include <k3s-vm/strv.h>

/* Starts a supervisor which starts QEMU with @argv, and waits until QEMU runs guest code. On return @s holds
 * pid, start time, boot id and start of QEMU (saved by the caller) and @ret_vm its pidfd. A QEMU that
 * fails gives its own words as the error's detail. */
int supervisor_start(const struct project *p, struct state *s, const struct strv *argv, struct process *ret_vm,
                     struct progress *progress, struct error *err);

/* The supervisor's own main, reached through the hidden command `supervise`: descriptor 3 is the status pipe,
 * descriptor 4 a sealed memory file with the launch description. Returns an exit code. */
int supervisor_main(void);

/* Appends one line to events.jsonl: {"time":…,"event":…,…@fields}. @fields is taken over, may be NULL. */
void events_append(const struct project *p, const char *event, struct json *fields);
