/* SPDX-License-Identifier: MIT */
/*
 * Guests and payloads that are built on this machine by a script that travels inside the program, and kept in
 * the cache under the hash of everything that goes into them. All projects share them; two programs that want
 * the same one build it once.
 *
 * A builder is a folder in src/ with a script `build`. `build --inputs` prints the lines that its result
 * depends on beside its own files; `build OUTDIR` makes the result. On descriptor 3 it says `phase TEXT` and
 * `progress DONE TOTAL`; what it writes to stdout and stderr is kept as a log. Status 6: the host lacks
 * something, which the last lines name.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

struct image_builder {
        const char *name;     /* "guest", "payload": phase name and cache folder */
        const char *prefix;   /* of its files in the embedded archive: "guest/debian" */
        const char *text;     /* "Debian guest", for people */
        const char *complete; /* the file whose presence says that a result is whole: "guest.json" */
        uint64_t room_bytes;  /* disk space a build needs, at most */
};

/* The folder with the result, from the cache or built now. The caller frees @ret_dir. @ret_built (may be NULL)
 * says which. A build that fails or is interrupted leaves nothing behind but its log, RESULT.log. */
int image_ensure(const struct project *p, const struct image_builder *builder, struct progress *progress,
                 char **ret_dir, bool *ret_built, struct error *err);
struct digest;
/* Name, mode and contents of the file or folder @path, links followed, in an order that does not depend on the machine.
 */
int image_digest(struct digest *digest, const char *path, struct error *err);
/* Runs a builder's script @argv as above, as a phase of @progress: for results that are not kept in the cache. @scripts
 * is its folder for temporary files. */
int image_run(const struct image_builder *builder, const char *const *argv, const char *scripts, const char *log_path,
              struct progress *progress, struct error *err);
/* The same for what is not made by a script: @make puts it into the folder @work, under the name @key in the cache. */
typedef int image_make_fn(const char *work, struct progress_phase *phase, void *userdata, struct error *err);
int image_ensure_made(const struct project *p, const struct image_builder *builder, const char *key,
                      image_make_fn *make, void *userdata, struct progress *progress, char **ret_dir,
                      struct error *err);
/* For tests: the same with the builder's files in the folder @scripts, and results in @folder; both exist. */
int image_ensure_from(const char *scripts, const char *folder, const struct image_builder *builder,
                      struct progress *progress, char **ret_dir, bool *ret_built, struct error *err);
