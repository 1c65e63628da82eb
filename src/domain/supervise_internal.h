/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the supervisor's loop share: supervise.c (its start, signals, time, those who ask),
 * supervise_qemu.c (its QEMU: monitor, end, restart), supervise_boot.c (its guest's boot), supervise_suspend.c (the
 * VM's state saved and loaded).
 */
#pragma once

#include <k3s-vm/loop.h>
#include <k3s-vm/suspend.h>

#include "clock.h"
#include "control.h"
#include "standstill.h"
#include "starter.h"
#include "supervise.h"

#define QMP_TIMEOUT_MS 5000
#define HOUSEKEEPING_MS (30U * 1000) /* the only wake-up when nothing happens */
#define RESTARTS_MAX 5

/* The guest's last one, and how the guest fares since. */
struct boot {
        struct loop_source *timer;
        struct standstill standstill;
        uint64_t serial_from; /* where in serial.log its words begin, in bytes */
        uint64_t serial_seen; /* up to where its complaints were looked for */
        unsigned looks;       /* of the timer */
        bool announces;       /* a boot before it said that its network was up */
        bool started;         /* with QEMU, maybe by a command that waits for it */
        bool under_way;
        bool timed; /* the timer looks, not the housekeeping */
};

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
        struct loop_source *qmp_source, *pidfd_source, *resume_timer, *restart_timer, *monitor_timer, *sweep_timer,
                        *resumed_timer;
        struct boot boot;
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
        struct suspended state; /* the one to go on from, or the one that was saved; no tag: none */
        uint64_t idle_limit_ms; /* IDLE_SUSPEND; 0: never */
        uint64_t used_ms;       /* now_ms() when somebody was seen to use the VM */
        bool resumed;           /* this QEMU went on from a saved state */
        char *not_resumed;      /* why not, where there was one; NULL */
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

/* supervise_boot.c: adds the timer of what follows to the loop. */
int supervise_boot_add(struct supervisor *v, struct error *err);
/* The guest is about to boot, and did not print anything yet. @started: because its QEMU was started. */
void supervise_boot_begins(struct supervisor *v, bool started);
/* Whoever waits for the guest has reached it. */
void supervise_boot_ended(struct supervisor *v);
/* Now and then: whether the guest stands still. */
void supervise_boot_look(struct supervisor *v);

/* Adds the timers of what follows to the loop. */
int supervise_suspend_begin(struct supervisor *v, struct error *err);
/* Saves the VM's state and ends QEMU, which is gone soon after. NULL, with @err filled in: the guest runs on. */
struct json *supervise_suspend(struct supervisor *v, struct error *err);
/* Saves memory and devices to the folder SNAPSHOT_NEW and marks the disk; the guest runs on. */
struct json *supervise_snapshot(struct supervisor *v, struct error *err);
/* Lets a guest run on whose state was about to be saved by a supervisor that is gone. */
struct json *supervise_unsuspend(struct supervisor *v, struct error *err);
/* Before QEMU is started: v->state is the state to go on from. One that is of no use is dropped, and v->not_resumed
 * says why. */
int supervise_resume_prepare(struct supervisor *v, struct error *err);
/* For a QEMU that was just started. 1: the guest runs on from the saved state. 0: it is to boot. -EAGAIN: the same, but
 * by a QEMU of its own. The state is used up in every case. */
int supervise_resume(struct supervisor *v, struct error *err);
/* Drops the state to go on from, because of @why. */
int supervise_resume_failed(struct supervisor *v, const struct error *why, struct error *err);
/* QEMU is gone and the supervisor about to be: what was saved is written out, while others may use it already. */
void supervise_suspend_end(struct supervisor *v);
/* Once the guest runs: arms the timers. */
void supervise_suspend_started(struct supervisor *v);

/* supervise_idle.c: before the loop, and now and then; has a VM that nobody uses put to sleep. */
void supervise_idle_begin(struct supervisor *v);
void supervise_idle_look(struct supervisor *v);
/* For tests: whether the text of /proc/net/tcp has a connection from or to @port. */
bool idle_port_used(const char *table, uint16_t port);

/* Has the guest's clock set, as soon as the guest runs. */
void supervise_set_clock(struct supervisor *v);
