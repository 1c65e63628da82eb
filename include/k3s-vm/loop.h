/* SPDX-License-Identifier: MIT */
/*
 * The event loop: epoll for descriptors, signalfd for signals, timerfd for time. Callbacks run one at a
 * time on the thread that runs the loop; a negative return ends the loop with that value.
 */
#pragma once

#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>

#include <k3s-vm/err.h>

struct loop;
struct loop_source;

typedef int loop_fd_fn(struct loop *loop, int fd, uint32_t events, void *userdata);
typedef int loop_timer_fn(struct loop *loop, void *userdata);
typedef int loop_signal_fn(struct loop *loop, int signal, void *userdata);

int loop_new(struct loop **ret, struct error *err);
void loop_free(struct loop *loop);
DEFINE_FREEP(struct loop, loop_free)
#define _cleanup_loop_ _cleanup_(loop_freep)

/* Watches @fd, which stays the caller's. @events as for epoll. */
int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *userdata, struct loop_source **ret,
                struct error *err);
int loop_set_events(struct loop_source *source, uint32_t events);

/* A timer, armed at once when @delay_ms is not 0; @interval_ms 0: fires once, then can be armed again. */
int loop_add_timer(struct loop *loop, uint64_t delay_ms, uint64_t interval_ms, loop_timer_fn *fn, void *userdata,
                   struct loop_source **ret, struct error *err);
void loop_arm(struct loop_source *timer, uint64_t delay_ms, uint64_t interval_ms); /* 0, 0 disarms */

/* Blocks the signals in @set for this thread and delivers them here instead. Once a loop. */
int loop_add_signals(struct loop *loop, const sigset_t *set, loop_signal_fn *fn, void *userdata, struct error *err);

/* Stops watching. Safe from within a callback, its own included. */
void loop_remove(struct loop_source *source);

/* Runs until a callback ends it. Returns that callback's value, or what loop_stop() was given. */
int loop_run(struct loop *loop, struct error *err);
void loop_stop(struct loop *loop, int value);
