/* SPDX-License-Identifier: MIT */
/*
 * .env files, which belong to the project's own programs: read as most of those do, and edited so that every byte that
 * is not about the key in question stays.
 *
 *   KEY=value   export KEY=value   KEY = value     blanks around the value are not part of it
 *   KEY=two words # comment                        a # begins a comment behind a blank, or as the first character
 *   KEY='as it is'   KEY=`as it is`                nothing in it is special; it may have several lines
 *   KEY="with \n \r \t \" \\ \$ \`"                and no other escapes; it may have several lines
 *
 * A $ is a $ everywhere: nothing is expanded or executed. Keys are made of A-Z a-z 0-9 _ . - and begin with a letter
 * or _; of several lines for one key the last counts. Lines end with LF or CRLF; a byte order mark is skipped.
 */
#pragma once

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>

#define DOTENV_MAX_BYTES (1U << 20)

struct dotenv_entry {
        char *key, *value;
        size_t line;                   /* from 1 */
        size_t start, end;             /* of its lines in the text, the line end included */
        size_t value_start, value_end; /* of the value with its quotes */
};

struct dotenv {
        struct dotenv_entry *entries; /* in the order of the text */
        size_t n;
};
void dotenv_clear(struct dotenv *d);
#define _cleanup_dotenv_ _cleanup_(dotenv_clear)

/* What cannot be read is ERR_USAGE, beginning "@where:LINE: ", where @where is the file's path. */
int dotenv_parse(const char *where, const char *text, size_t len, struct dotenv *ret, struct error *err);
/* The entry that counts for @key, or NULL. */
const struct dotenv_entry *dotenv_get(const struct dotenv *d, const char *key);

/* The text with @key set to @value, where it is set last or else in a new line at the end, appended to @ret; a text
 * without a final line end stays one. Fails as dotenv_parse() does, and with -E2BIG. */
int dotenv_set(const char *where, const char *text, size_t len, const char *key, const char *value, struct buf *ret,
               struct error *err);
/* The text without the line that dotenv_set() added for @key: undoes it byte for byte. A line that holds more than
 * that (export, a comment) keeps it and gets an empty value. */
int dotenv_unset(const char *where, const char *text, size_t len, const char *key, struct buf *ret, struct error *err);

/* The last value of @key and its line; 0 when there is none. Lines that cannot be read are skipped, and a value that
 * cannot be read is taken as it stands there. The caller frees @ret_value. */
size_t dotenv_find(const char *text, size_t len, const char *key, char **ret_value);
