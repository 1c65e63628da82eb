/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/strv.h>

void strv_free(struct strv *v) {
        for (size_t i = 0; i < v->len; i++)
                free(v->items[i]);
        free(v->items);
        *v = (struct strv){0};
}

void strv_push_take(struct strv *v, char *s) {
        if (v->len + 2 > v->cap) {
                size_t cap = v->cap ? v->cap * 2 : 8;
                v->items = xreallocarray(v->items, cap, sizeof(char *));
                v->cap = cap;
        }
        v->items[v->len++] = s;
        v->items[v->len] = NULL;
}

void strv_push(struct strv *v, const char *s) {
        strv_push_take(v, xstrdup(s));
}

void strv_pushf(struct strv *v, const char *fmt, ...) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        va_list ap;
        va_start(ap, fmt);
        buf_vprintf(&b, fmt, ap);
        va_end(ap);
        strv_push_take(v, buf_take(&b));
}

void strv_extend(struct strv *v, const char *const *items) {
        for (; items && *items; items++)
                strv_push(v, *items);
}

void strv_truncate(struct strv *v, size_t len) {
        while (v->len > len)
                free(TAKE_PTR(v->items[--v->len]));
}

bool strv_contains(const struct strv *v, const char *s) {
        for (size_t i = 0; i < v->len; i++)
                if (str_eq(v->items[i], s))
                        return true;
        return false;
}

char *strv_join(const struct strv *v, const char *separator) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (size_t i = 0; i < v->len; i++) {
                if (i > 0)
                        buf_puts(&b, separator);
                buf_puts(&b, v->items[i]);
        }
        return buf_take(&b);
}

void strv_split(struct strv *v, const char *s, const char *separators) {
        for (s += strspn(s, separators); *s; s += strspn(s, separators)) {
                size_t n = strcspn(s, separators);
                strv_push_take(v, xstrndup(s, n));
                s += n;
        }
}

bool str_eq(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

bool str_is_one_of(const char *s, const char *const *words) {
        for (; *words; words++)
                if (str_eq(s, *words))
                        return true;
        return false;
}

bool str_starts(const char *s, const char *prefix) {
        return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix) {
        size_t n = strlen(s), m = strlen(suffix);
        return n >= m && strcmp(s + n - m, suffix) == 0;
}

int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret) {
        uint64_t value = 0;
        if (!s || !*s || s[strspn(s, "0123456789")] != '\0')
                return -EINVAL;
        for (const char *p = s; *p; p++) {
                unsigned digit = (unsigned)(*p - '0');
                if (value > (UINT64_MAX - digit) / 10)
                        return -ERANGE;
                value = value * 10 + digit;
        }
        if (value < min || value > max)
                return -ERANGE;
        *ret = value;
        return 0;
}

/* The length of the valid UTF-8 sequence at @s that is no control character, or 0. */
static size_t printable_length(const unsigned char *s, size_t len) {
        if (s[0] < 0x80)
                return s[0] >= 0x20 && s[0] != 0x7f;
        size_t n = s[0] >= 0xf0 && s[0] <= 0xf4  ? 4
                   : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                                                 : 0;
        if (n == 0 || n > len)
                return 0;
        for (size_t i = 1; i < n; i++)
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
        /* C1 controls, surrogates and overlong forms. */
        if ((s[0] == 0xc2 && s[1] < 0xa0) || (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
            (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))
                return 0;
        return n;
}

char *str_printable(const char *s, size_t len) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        const unsigned char *p = (const unsigned char *)s;
        for (size_t i = 0; i < len;) {
                size_t n = printable_length(p + i, len - i);
                if (n > 0) {
                        buf_append(&b, s + i, n);
                        i += n;
                } else {
                        if (p[i] == '\t')
                                buf_puts(&b, "    ");
                        else
                                buf_printf(&b, "\\x%02x", p[i]);
                        i++;
                }
        }
        return buf_take(&b);
}

char *str_shell_quote(const char *s) {
        static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+";
        /* Of words with "=" only options are surely no assignment. */
        if (*s && s[strspn(s, plain)] == '\0' && (*s == '-' || !strchr(s, '=')))
                return xstrdup(s);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, "'");
        for (; *s; s++)
                if (*s == '\'')
                        buf_puts(&b, "'\\''");
                else
                        buf_append(&b, s, 1);
        buf_puts(&b, "'");
        return buf_take(&b);
}

char *str_bytes(uint64_t bytes) {
        static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
        if (bytes < 1024)
                return xasprintf("%" PRIu64 " B", bytes);
        double value = (double)bytes / 1024;
        size_t i = 0;
        /* The limits are where rounding would give a digit more. */
        while (value >= 1023.5 && i + 1 < ELEMENTSOF(units)) {
                value /= 1024;
                i++;
        }
        return xasprintf(value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[i]);
}

char *str_duration_ms(uint64_t ms) {
        uint64_t s = ms / 1000;
        if (s < 60)
                return xasprintf("%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
        if (s < 3600)
                return xasprintf("%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
        if (s < 86400)
                return xasprintf("%" PRIu64 " h %" PRIu64 " min", s / 3600, s % 3600 / 60);
        return xasprintf("%" PRIu64 " d %" PRIu64 " h", s / 86400, s % 86400 / 3600);
}
