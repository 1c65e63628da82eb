/* SPDX-License-Identifier: MIT */
/*
 * The file behind the configuration: lines of a bash-sourceable file, parsed without ever being executed, and
 * written back with everything the user put there. Knows nothing of which keys exist. The grammar is the
 * part of bash's assignments (Bash Reference Manual, "Shell Parameters" and "Quoting") that needs no
 * expansion; what bash would expand or execute is an error.
 */
#pragma once

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>

#define CONFIG_FILE_MAX_BYTES (1U << 20)

struct config_line {
        char *raw;                     /* without the newline */
        char *key;                     /* NULL: a comment or an empty line */
        char *value;                   /* unquoted */
        size_t value_start, value_end; /* of the quoted value, in @raw */
};

struct config_file {
        struct config_line *lines;
        size_t n;
};

void config_file_clear(struct config_file *f);
#define _cleanup_config_file_ _cleanup_(config_file_clear)

/* Parses the whole text into @ret (which is empty). Errors are ERR_USAGE and begin "@where:LINE: ", where @where is
 * the file's path. */
int config_file_parse(const char *where, const char *text, size_t len, struct config_file *ret, struct error *err);

/* The file at @path, called @shown in messages, which hold what mends it. A missing one is empty, and @ret_exists
 * says so. */
int config_file_read(const char *path, const char *shown, struct config_file *ret, bool *ret_exists, struct error *err);

/* The line number (1 and up) of the last assignment to @key, as bash would have it, or 0. @ret_value stays
 * the file's. */
size_t config_file_find(const struct config_file *f, const char *key, const char **ret_value);

/* Replaces the value where @key is assigned last, keeping the rest of that line, else adds a line. An empty
 * @value removes every assignment to @key. @value holds no newline. */
void config_file_set(struct config_file *f, const char *key, const char *value);

void config_file_print(const struct config_file *f, struct buf *ret);

/* What is wrong with a file of at most 1 MiB that is there and that fs_read() answered @r for. */
const char *config_file_problem(int r);
