/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>

void buf_free(struct buf *b) {
        free(b->data);
        b->data = NULL;
        b->len = b->cap = 0;
}

static size_t limit_of(const struct buf *b) {
        return b->max ? b->max : BUF_MAX_DEFAULT;
}

/* Makes room for @extra more bytes and the NUL. */
static int reserve(struct buf *b, size_t extra) {
        if (extra > limit_of(b) || b->len > limit_of(b) - extra)
                return -E2BIG;
        size_t need = b->len + extra + 1;
        if (need <= b->cap)
                return 0;
        size_t cap = b->cap ? b->cap : 64;
        while (cap < need)
                cap *= 2;
        b->data = xreallocarray(b->data, cap, 1);
        b->cap = cap;
        return 0;
}

int buf_append(struct buf *b, const void *data, size_t len) {
        int r = reserve(b, len);
        if (r < 0)
                return r;
        if (len > 0)
                memcpy(b->data + b->len, data, len);
        b->len += len;
        b->data[b->len] = '\0';
        return 0;
}

int buf_puts(struct buf *b, const char *s) {
        return buf_append(b, s, strlen(s));
}

int buf_vprintf(struct buf *b, const char *fmt, va_list ap) {
        va_list again;
        va_copy(again, ap);
        int n = vsnprintf(NULL, 0, fmt, again);
        va_end(again);
        if (n < 0)
                return -EINVAL;
        int r = reserve(b, (size_t)n);
        if (r < 0)
                return r;
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
        b->len += (size_t)n;
        return 0;
}

int buf_printf(struct buf *b, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        int r = buf_vprintf(b, fmt, ap);
        va_end(ap);
        return r;
}

void buf_consume(struct buf *b, size_t n) {
        if (n >= b->len) {
                buf_clear(b);
                return;
        }
        memmove(b->data, b->data + n, b->len - n + 1);
        b->len -= n;
}

void buf_clear(struct buf *b) {
        b->len = 0;
        if (b->data)
                b->data[0] = '\0';
}

const char *buf_str(const struct buf *b) {
        return b->data ? b->data : "";
}

char *buf_take(struct buf *b) {
        char *s = b->data ? TAKE_PTR(b->data) : xstrdup("");
        b->len = b->cap = 0;
        return s;
}

ssize_t buf_read(struct buf *b, int fd) {
        size_t room = limit_of(b) - b->len;
        if (room == 0)
                return -E2BIG;
        if (room > 64U * 1024)
                room = 64U * 1024;
        int r = reserve(b, room);
        if (r < 0)
                return r;
        ssize_t n;
        do
                n = read(fd, b->data + b->len, room);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                n = -errno;
        else
                b->len += (size_t)n;
        b->data[b->len] = '\0';
        return n;
}
