/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdbool.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/progress.h>

static void format(struct buf *b, const char *fmt, va_list ap) {
        if (fmt)
                buf_vprintf(b, fmt, ap);
}

struct progress_phase *progress_begin(struct progress *p, const char *name, const char *fmt, ...) {
        if (!p)
                return NULL;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        va_list ap;
        va_start(ap, fmt);
        format(&text, fmt, ap);
        va_end(ap);
        return p->ops->begin(p, name, buf_str(&text));
}

void progress_update(struct progress *p, struct progress_phase *phase, const char *text, uint64_t done, uint64_t total,
                     const char *unit) {
        if (p && phase)
                p->ops->update(phase, text, done, total, unit);
}

void progress_end(struct progress *p, struct progress_phase *phase, int ok, const char *fmt, ...) {
        if (!p || !phase)
                return;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        va_list ap;
        va_start(ap, fmt);
        format(&text, fmt, ap);
        va_end(ap);
        p->ops->end(phase, ok, fmt ? buf_str(&text) : NULL);
}

static void note(struct progress *p, bool warning, const char *fmt, va_list ap) {
        if (!p)
                return;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        format(&text, fmt, ap);
        p->ops->note(p, warning, buf_str(&text));
}

void progress_note(struct progress *p, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        note(p, false, fmt, ap);
        va_end(ap);
}

void progress_warn(struct progress *p, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        note(p, true, fmt, ap);
        va_end(ap);
}

void progress_debug(struct progress *p, const char *fmt, ...) {
        if (!p)
                return;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        va_list ap;
        va_start(ap, fmt);
        format(&text, fmt, ap);
        va_end(ap);
        p->ops->debug(p, buf_str(&text));
}
