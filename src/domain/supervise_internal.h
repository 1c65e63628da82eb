/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of the supervisor's loop share: supervise.c (its start, signals, time, those who ask) and
 * supervise_qemu.c (its QEMU: monitor, end, restart).
 */
#pragma once

#include <k3s-vm/loop.h>

#include "clock.h"
#include "control.h"
#include "starter.h"
#include "supervise.h"

#define QMP_TIMEOUT_MS 5000
#define HOUSEKEEPING_MS (30U * 1000) /* the only wake-up when nothing happens */
#define RESTARTS_MAX 5

struct supervisor {
        struct launch launch;
        const struct project *project; /* of launch */
        struct loop *loop;
        struct starter starter;
        struct control *control;
        int lock_fd;
        int status_fd; /* -1 once reported */
        int clock_fd;
        struct clock_reading clocks; /* when they were looked at last */
        uint64_t started_ms;         /* now_ms() of this process's start */
        bool confined;
        struct process qemu;
        bool child; /* started here, not adopted */
        pid_t pid;  /* of the last QEMU */
        uint64_t start_time;
        struct qmp *qmp; /* NULL while there is no connection */
        struct loop_source *qmp_source, *pidfd_source, *resume_timer, *restart_timer, *monitor_timer;
        unsigned monitor_delay_ms; /* until the next try to get the monitor back */
        /* What QEMU said about this run. */
        char *shutdown_reason;
        bool powerdown, panicked, failed_write, clock_wrong;
        uint64_t paused_ms; /* now_ms() of its pause; 0: it is not paused */
        unsigned resume_delay_ms;
        uint64_t restarts[RESTARTS_MAX]; /* now_ms() of the last ones */
        size_t n_restarts;
        unsigned restarts_total;
        bool restart_planned;
        char *last_event;
        uint64_t last_event_ms; /* wall clock */
};

/* One line of events.jsonl. @fields is taken over, may be NULL. */
void supervise_note(struct supervisor *v, const char *event, struct json *fields);
void supervise_note_text(struct supervisor *v, const char *event, const char *key, const char *text);

/* Adds the timers of what follows to the loop. */
int supervise_qemu_begin(struct supervisor *v, struct error *err);
/* Has QEMU started, or takes over the one that the launch description names, and lets the guest run. */
int supervise_qemu_start(struct supervisor *v, struct error *err);
int supervise_qemu_adopt(struct supervisor *v, struct error *err);
/* Gives the monitor up and tries to get it back. */
void supervise_monitor_lost(struct supervisor *v, const char *why);
/* Has the guest's clock set, as soon as the guest runs. */
void supervise_set_clock(struct supervisor *v);
