/* SPDX-License-Identifier: MIT */
/*
 * Scope-bound ownership: a variable declared with one of these attributes releases what it owns when
 * it goes out of scope. Every such variable is initialised where it is declared.
 */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _unused_ __attribute__((unused))

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))

/* Hands ownership over: yields the value and leaves the variable empty. */
#define TAKE_PTR(p) \
        ({ \
                __typeof__(p) *_pp = &(p); \
                __typeof__(p) _taken = *_pp; \
                *_pp = NULL; \
                _taken; \
        })
#define TAKE_FD(fd) \
        ({ \
                int *_pfd = &(fd); \
                int _taken = *_pfd; \
                *_pfd = -1; \
                _taken; \
        })

/* Defines x_freep() for a type with x_free(), so that _cleanup_(x_freep) works. */
#define DEFINE_FREEP(type, func) \
        static inline void func##p(type **p) { \
                if (*p) \
                        func(*p); \
        }

static inline void freep_(void *p) {
        free(*(void **)p);
}

static inline void closep_(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

static inline void fclosep_(FILE **f) {
        if (*f)
                fclose(*f);
}

static inline void closedirp_(DIR **d) {
        if (*d)
                closedir(*d);
}

#define _cleanup_free_ _cleanup_(freep_)
#define _cleanup_close_ _cleanup_(closep_)
#define _cleanup_fclose_ _cleanup_(fclosep_)
#define _cleanup_closedir_ _cleanup_(closedirp_)
