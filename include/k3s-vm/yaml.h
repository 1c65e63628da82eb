/* SPDX-License-Identifier: MIT */
/*
 * YAML as kubectl reads it (libyaml behind it), from and to JSON values. kubectl's parser is sigs.k8s.io/yaml,
 * that is YAML 1.1 with go-yaml's exceptions, and a manifest has to mean the same here:
 *
 *   plain                                   is
 *   yes no on off y n true false            a boolean (also Yes, YES and so on)
 *   ~ null, nothing                         null
 *   12 -12 +12 1_000                        an integer
 *   0644 0o644 / 0x1F / 0b11                octal 420 / 31 / 3
 *   08, 0899                                decimal 8, 899 (no octal number)
 *   1.10 1. .5 -.5 1e3 1.5E-3               a float: 1.1 1 0.5 -0.5 1000 0.0015
 *   1.2.3 1:30 2001-01-01 1e400 v1 = tRue   a string, as is whatever is quoted
 *
 * A version such as 1.10 has to be quoted, here as there. Keys become strings: `yes: 1` is {"true": 1}.
 * Merge keys (<<) and anchors work. Stricter than kubectl: a key that is there twice, an integer that a double
 * cannot hold exactly, and tags other than !!str !!null !!bool !!int !!float !!binary !!map !!seq are errors.
 */
#pragma once

#include <k3s-vm/json.h>

#define YAML_MAX_BYTES (16U * 1024 * 1024)
#define YAML_MAX_EXPANSION (16U * 1024 * 1024) /* bytes that aliases may add; nesting: JSON_MAX_DEPTH */

/* All documents of the text as a JSON array (empty documents left out). A bad text is -EBADMSG with line and
 * column in the message, one over YAML_MAX_BYTES -E2BIG. */
int yaml_parse(const char *text, size_t len, struct json **ret_documents, struct error *err);
/* One document in block style, keys in order, strings quoted where they would read as something else, here or in a
 * YAML 1.2 parser: yaml_parse() gives back an equal value. The caller frees. -EILSEQ: a string is not UTF-8. */
int yaml_print(const struct json *j, char **ret, struct error *err);
/* The line, from 1, of the field at @path in the document with that index (from 0) of a text that yaml_parse() took, or
 * of the last part of the path that is there. Paths are as the API writes them: ".spec.ports[0].port", and
 * ".spec.containers[name=\"web\"].image"; "" is the document. 0: that cannot be told. */
size_t yaml_line_of(const char *text, size_t len, size_t document, const char *path);
