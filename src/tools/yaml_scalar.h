/* SPDX-License-Identifier: MIT */
/*
 * What a YAML scalar means; see include/k3s-vm/yaml.h for the rules.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum yaml_kind {
        YAML_STRING,
        YAML_NULL,
        YAML_BOOL,
        YAML_NUMBER,
        YAML_MERGE,      /* << */
        YAML_NOT_FINITE, /* .inf, .nan: JSON has no such number */
        YAML_INEXACT,    /* an integer that a double cannot hold */
};

/* The kind of a plain scalar, and its value for a YAML_BOOL (0, 1) or YAML_NUMBER. */
enum yaml_kind yaml_resolve(const char *s, double *ret_value);

/* Whether the string @s can be written plain: it reads as itself here and in YAML 1.2 parsers, and has no
 * character that needs quotes or escapes (libyaml checks the indicators). */
bool yaml_is_plain(const char *s);
/* Whether @s can be written as a literal block: several lines of printable text. */
bool yaml_is_literal(const char *s);
/* Whether the @len bytes at @s are well-formed UTF-8 (RFC 3629). */
bool yaml_is_utf8(const char *s, size_t len);
