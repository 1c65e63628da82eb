/* SPDX-License-Identifier: MIT */
/* What `init` puts into somebody's project. Everything that is there already stays as it is. */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/project.h>
#include <k3s-vm/strv.h>

struct scaffold {
        struct strv made; /* paths below the project that were made or added to */
        struct strv kept; /* and those that were there */
};
void scaffold_clear(struct scaffold *s);
#define _cleanup_scaffold_ _cleanup_(scaffold_clear)

/* A configuration with every key in a comment; a sample manifest, where there is none at all; lines of .gitignore for
 * what this program writes; with @wrappers bin/kubectl and bin/k9s. What was made before a failure stays. */
int scaffold_write(const struct project *p, const struct config *c, bool wrappers, struct scaffold *ret,
                   struct error *err);
