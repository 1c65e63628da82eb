/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/err.h>

void *oom_check(void *p) {
        if (!p) {
                static const char message[] = "k3s-vm: out of memory\n";
                ssize_t n = write(STDERR_FILENO, message, sizeof(message) - 1);
                (void)n;
                _exit(ERR_FAILED);
        }
        return p;
}

char *xstrdup(const char *s) {
        return s ? oom_check(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t n) {
        return oom_check(strndup(s, n));
}

void *xcalloc(size_t n, size_t size) {
        return oom_check(calloc(n ? n : 1, size ? size : 1));
}

void *xreallocarray(void *p, size_t n, size_t size) {
        return oom_check(reallocarray(p, n ? n : 1, size ? size : 1));
}

static char *xvasprintf(const char *fmt, va_list ap) {
        char *s = NULL;
        if (vasprintf(&s, fmt, ap) < 0)
                s = NULL;
        return oom_check(s);
}

char *xasprintf(const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        char *s = xvasprintf(fmt, ap);
        va_end(ap);
        return s;
}

void error_clear(struct error *err) {
        if (!err)
                return;
        free(err->message);
        free(err->hint);
        free(err->detail);
        *err = ERROR_INIT;
}

/* Takes ownership of @message. */
static int set_message(struct error *err, enum err_code code, int errnum, char *message) {
        if (errnum == 0)
                errnum = EIO;
        if (!err) {
                free(message);
                return -errnum;
        }
        error_clear(err);
        err->code = code;
        err->errnum = errnum;
        err->message = message;
        return -errnum;
}

int err_set(struct error *err, enum err_code code, int errnum, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        char *message = xvasprintf(fmt, ap);
        va_end(ap);
        return set_message(err, code, errnum, message);
}

int err_errno(struct error *err, int errnum, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        _cleanup_free_ char *what = xvasprintf(fmt, ap);
        va_end(ap);
        bool host = errnum == ENOSPC || errnum == EDQUOT || errnum == EROFS;
        return set_message(err, host ? ERR_HOST : ERR_FAILED, errnum,
                           xasprintf("%s: %s", what, strerror(errnum ? errnum : EIO)));
}

int err_wrap(struct error *err, int r, const char *fmt, ...) {
        if (!err)
                return r;
        va_list ap;
        va_start(ap, fmt);
        _cleanup_free_ char *prefix = xvasprintf(fmt, ap);
        va_end(ap);

        char *message = err->message ? xasprintf("%s: %s", prefix, err->message) : TAKE_PTR(prefix);
        free(err->message);
        err->message = message;
        if (err->code == 0)
                err->code = ERR_FAILED;
        if (err->errnum == 0)
                err->errnum = -r;
        return r;
}

void err_hint(struct error *err, const char *fmt, ...) {
        if (!err)
                return;
        va_list ap;
        va_start(ap, fmt);
        char *hint = xvasprintf(fmt, ap);
        va_end(ap);
        free(err->hint);
        err->hint = hint;
}

void err_detail(struct error *err, const char *text) {
        if (!err)
                return;
        char *detail = xstrdup(text);
        free(err->detail);
        err->detail = detail;
}

int err_move(struct error *to, struct error *from) {
        int r = from->errnum ? -from->errnum : -EIO;
        if (to) {
                error_clear(to);
                *to = *from;
                *from = ERROR_INIT;
        } else
                error_clear(from);
        return r;
}
