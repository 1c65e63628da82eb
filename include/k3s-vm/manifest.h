/* SPDX-License-Identifier: MIT */
/*
 * The project's manifests: Kubernetes objects in JSON and YAML files, several documents a file, `List`s taken apart.
 * What is wrong with one is said with its file, line, document and field.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/err.h>
#include <k3s-vm/json.h>
#include <k3s-vm/project.h>
#include <k3s-vm/strv.h>

#define MANIFESTS_MAX_BYTES (64U * 1024 * 1024) /* of all files together; one: YAML_MAX_BYTES */
#define MANIFESTS_MAX 5000U                     /* objects */

struct manifest_source {
        char *name; /* as shown: relative to the project where it is inside of it */
        char *text;
        size_t len;
        size_t n_documents;
};

struct manifest {
        const struct manifest_source *source;
        size_t document; /* index from 0 */
        char *prefix;    /* where the object is in the document: "", ".items[3]" */
        struct json *object;
        char *api_version, *kind, *name, *namespace; /* @namespace NULL: none given */
};

struct manifests {
        struct manifest *items;
        size_t n;
        struct manifest_source **sources;
        size_t n_sources;
        size_t bytes;
};
void manifests_clear(struct manifests *m);
#define _cleanup_manifests_ _cleanup_(manifests_clear)

/* PROJECT/.k3s-vm/manifests: base.json first, then *.json, *.yaml and *.yml by name. A folder that is not there has
 * none. */
int manifests_read_project(const struct project *p, struct manifests *ret, struct error *err);
/* Files, folders (as above), and "-" for standard input. */
int manifests_read_files(const struct project *p, const struct strv *paths, struct manifests *ret, struct error *err);
/* For the two above, tests and fuzzers: the objects of one text are added to @m; on failure it is still to be cleared.
 */
int manifests_add_text(struct manifests *m, const char *name, const char *text, size_t len, struct error *err);
/* One that the program makes itself (a Secret, for example); @object is taken over. */
int manifests_add_object(struct manifests *m, const char *name, struct json *object, struct error *err);

/* "web.yaml:14 (document 2)"; @field (".spec.replicas", NULL) makes it the line of that field. The caller frees. */
char *manifest_where(const struct manifest *m, const char *field);
/* Over the values of all objects, not over how they are written or spread over files. */
int manifests_digest(const struct manifests *m, char hex[static SHA256_HEX_LEN + 1], struct error *err);
