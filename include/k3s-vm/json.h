/* SPDX-License-Identifier: MIT */
/*
 * JSON values (cJSON behind them). Readers accept NULL anywhere and answer with "nothing", so a path of
 * lookups needs no checks in between; what must be there is checked once, by the caller. Numbers are
 * IEEE doubles: integers are exact up to 2^53.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <k3s-vm/err.h>

struct json; /* opaque; a child belongs to its parent */

#define JSON_MAX_BYTES (64U * 1024 * 1024)
#define JSON_MAX_DEPTH 500                 /* objects and arrays in one another */
#define JSON_INTEGER_MAX 9007199254740992. /* 2^53 */

void json_free(struct json *j);
DEFINE_FREEP(struct json, json_free)
#define _cleanup_json_ _cleanup_(json_freep)

/* Parses one value that fills the whole text (white space aside), by RFC 8259's grammar; strings with a NUL
 * character (\u0000) and numbers beyond a double's range are refused, UTF-8 is not checked, and of members with
 * the same name a lookup finds the first. A bad text is -EBADMSG with line and column in the message; one over
 * JSON_MAX_BYTES -E2BIG. */
int json_parse(const char *text, size_t len, struct json **ret, struct error *err);
/* Reads and parses a file of at most @max bytes. */
int json_read_file(const char *path, size_t max, struct json **ret, struct error *err);
/* The caller frees. @pretty: two-space indentation and a final newline; without it there is no newline at all, so
 * that a value is one line. */
char *json_print(const struct json *j, bool pretty);
/* A number as json_print() writes it: integers up to 2^53 without an exponent, others with as many digits as it
 * takes to read the same number back. */
#define JSON_NUMBER_MAX 32 /* bytes, with the NUL */
void json_format_number(double value, char text[static JSON_NUMBER_MAX]);

/* Reading. */
/* The member at the path of keys (the last argument is NULL), or NULL. */
struct json *json_get_(const struct json *j, ...) __attribute__((sentinel));
#define json_get(j, ...) json_get_((j), __VA_ARGS__, NULL)
const char *json_string(const struct json *j); /* NULL unless a string */
const char *json_string_or(const struct json *j, const char *fallback);
bool json_number(const struct json *j, double *ret); /* false unless a number */
/* The number as an integer in 0..2^53, or @fallback when it is no such number. */
uint64_t json_u64_or(const struct json *j, uint64_t fallback);
bool json_bool_or(const struct json *j, bool fallback);
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_null(const struct json *j);
bool json_is_bool(const struct json *j);
size_t json_len(const struct json *j); /* members or elements */
struct json *json_at(const struct json *array, size_t index);
/* Members and elements in order: json_first(j), json_next(child). */
struct json *json_first(const struct json *j);
struct json *json_next(const struct json *child);
const char *json_key(const struct json *child); /* NULL in an array */

/* Writing. Setters replace a member of that name and copy strings; a NULL string or value is left out: there is
 * no such member then. Setting a member of what is no object does nothing but free the value, and what would be
 * returned is NULL. */
struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_string(const char *s);
struct json *json_new_number(double value);
struct json *json_new_bool(bool value);
struct json *json_new_null(void);
struct json *json_copy(const struct json *j);
void json_set(struct json *object, const char *key, struct json *value); /* takes @value over */
/* As json_set() where no member of that name is there: it is not looked for, so that many can be added. */
void json_add(struct json *object, const char *key, struct json *value);
void json_set_string(struct json *object, const char *key, const char *value);
void json_set_number(struct json *object, const char *key, double value);
void json_set_bool(struct json *object, const char *key, bool value);
struct json *json_set_object(struct json *object, const char *key); /* adds an empty one, returns it */
struct json *json_set_array(struct json *object, const char *key);
void json_remove(struct json *object, const char *key);
void json_append(struct json *array, struct json *value); /* takes @value over */
void json_append_string(struct json *array, const char *value);
