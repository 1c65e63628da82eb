/* SPDX-License-Identifier: MIT */
/*
 * How work that takes long reports to whoever shows it. Levels 0 to 2 never print: they call these on
 * a `struct progress` that a command gave them (or NULL: nobody watches). A phase is a step that
 * the user sees with its time; phases may overlap (two builds side by side), so each has a handle.
 */
#pragma once

#include <stdint.h>

#include <k3s-vm/cleanup.h>

struct progress;
struct progress_phase;

struct progress_ops {
        /* A new phase, for example "guest" / "building the Debian guest". */
        struct progress_phase *(*begin)(struct progress *p, const char *name, const char *text);
        /* What the phase is doing now; @total 0: no measure. @unit "bytes" shows a rate. */
        void (*update)(struct progress_phase *phase, const char *text, uint64_t done, uint64_t total, const char *unit);
        /* The phase is over; @text replaces its description. Failed phases end with @ok 0. */
        void (*end)(struct progress_phase *phase, int ok, const char *text);
        /* A line worth saying between phases. @warning: the user may have to act. */
        void (*note)(struct progress *p, int warning, const char *text);
        /* A line that only --debug shows. */
        void (*debug)(struct progress *p, const char *text);
};

struct progress {
        const struct progress_ops *ops;
};

/* All of these accept NULL for the progress or phase. */
struct progress_phase *progress_begin(struct progress *p, const char *name, const char *fmt, ...) _printf_(3, 4);
void progress_update(struct progress *p, struct progress_phase *phase, const char *text, uint64_t done, uint64_t total,
                     const char *unit);
/* @fmt NULL keeps the phase's description. */
void progress_end(struct progress *p, struct progress_phase *phase, int ok, const char *fmt, ...) _printf_(4, 5);
void progress_note(struct progress *p, const char *fmt, ...) _printf_(2, 3);
void progress_warn(struct progress *p, const char *fmt, ...) _printf_(2, 3);
void progress_debug(struct progress *p, const char *fmt, ...) _printf_(2, 3);
