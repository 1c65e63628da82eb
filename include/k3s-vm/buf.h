/* SPDX-License-Identifier: MIT */
/*
 * A growing byte buffer with an upper bound. Everything that comes from outside (QMP, HTTP, YAML, the
 * serial line, a tool's output) is read into one of these, so a bound is part of its type: appending
 * past it fails with -E2BIG and leaves the contents as they were. The data always ends in a NUL that
 * `len` does not count.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>

#include <k3s-vm/cleanup.h>

struct buf {
        char *data; /* owned; NULL while nothing was ever appended */
        size_t len; /* bytes */
        size_t cap; /* bytes allocated */
        size_t max; /* upper bound of `len`; 0: BUF_MAX_DEFAULT */
};

#define BUF_MAX_DEFAULT (64U * 1024 * 1024)
#define BUF_INIT(limit) ((struct buf){.max = (limit)})

void buf_free(struct buf *b);
#define _cleanup_buf_ _cleanup_(buf_free)

/* 0 or -E2BIG. */
int buf_append(struct buf *b, const void *data, size_t len);
int buf_puts(struct buf *b, const char *s);
int buf_printf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
int buf_vprintf(struct buf *b, const char *fmt, va_list ap);

/* Drops the first @n bytes (at most all). */
void buf_consume(struct buf *b, size_t n);
void buf_clear(struct buf *b);

/* The contents as a string, never NULL; stays owned by @b. */
const char *buf_str(const struct buf *b);
/* The contents as a string that the caller frees; @b becomes empty. */
char *buf_take(struct buf *b);

/* One read(2) of at most 64 KiB. Returns the bytes read, 0 at the end, -EAGAIN, -E2BIG or another
 * negative errno. */
ssize_t buf_read(struct buf *b, int fd);
