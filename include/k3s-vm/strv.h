/* SPDX-License-Identifier: MIT */
/*
 * Growing NULL-terminated string vectors (argument vectors, environments, lists) and a few string
 * helpers that C lacks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <k3s-vm/cleanup.h>

struct strv {
        char **items; /* owned, strings too; NULL-terminated once anything was pushed */
        size_t len;
        size_t cap; /* strings there is room for, the NULL included */
};

void strv_free(struct strv *v);
#define _cleanup_strv_ _cleanup_(strv_free)

void strv_push(struct strv *v, const char *s); /* copies */
void strv_push_take(struct strv *v, char *s);  /* takes ownership */
void strv_pushf(struct strv *v, const char *fmt, ...) _printf_(2, 3);
void strv_extend(struct strv *v, const char *const *items); /* copies a NULL-terminated array */
/* Keeps the first @len. */
void strv_truncate(struct strv *v, size_t len);
bool strv_contains(const struct strv *v, const char *s);
/* Joined by @separator; the caller frees. */
char *strv_join(const struct strv *v, const char *separator);
/* Splits at any of @separators, empty parts dropped. */
void strv_split(struct strv *v, const char *s, const char *separators);

bool str_eq(const char *a, const char *b); /* NULL equals only NULL */
/* Whether @s is in a NULL-terminated array; NULL is in none. */
bool str_is_one_of(const char *s, const char *const *words);
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* Whole-string decimal without sign, blanks or overflow, min..max. Returns 0, -EINVAL or -ERANGE. */
int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
/* Escapes what would disturb a terminal or a log line (control characters, invalid UTF-8) as \xNN.
 * The caller frees. For anything that a guest or a file sent and that is about to be shown. */
char *str_printable(const char *s, size_t len);
/* As one literal word for a POSIX shell, quoted where it has to be; the caller frees. */
char *str_shell_quote(const char *s);
/* "1.5 GiB"; the caller frees. */
char *str_bytes(uint64_t bytes);
/* "3 d 4 h", "5 min 0 s", "12.3 s"; the caller frees. */
char *str_duration_ms(uint64_t ms);
