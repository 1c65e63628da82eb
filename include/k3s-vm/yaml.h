/* SPDX-License-Identifier: MIT */
/*
 * YAML 1.1 as Kubernetes uses it (libyaml behind it), read into and written from JSON values. Size,
 * nesting and what aliases expand to are bounded. Plain scalars become null, booleans and numbers by the
 * rules of YAML 1.2's core schema, with "yes", "no", "on" and "off" left as strings as kubectl's parser
 * would have them quoted; every key is a string.
 */
#pragma once

#include <k3s-vm/json.h>

/* All documents of the text as a JSON array (empty documents left out). Errors give line and column. */
int yaml_parse(const char *text, size_t len, struct json **ret_documents, struct error *err);
/* One document in block style, keys in order, strings quoted where they would read as something else.
 * The caller frees. */
int yaml_print(const struct json *j, char **ret, struct error *err);
