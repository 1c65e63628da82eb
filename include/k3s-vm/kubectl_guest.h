/* SPDX-License-Identifier: MIT */
/*
 * The guest's kubectl for hosts that have none: run over SSH with this process's stdin, stdout, stderr and exit
 * status. Manifests named by -f or --filename lie on the host, so they are brought along: a single file as stdin,
 * several or folders as copies in a temporary folder of the guest. What needs the host's network or file
 * system in other ways (port-forward, proxy, cp, -k, --from-file) is refused with the command that installs kubectl.
 */
#pragma once

#include <k3s-vm/command.h>

/* Returns the guest's exit status, or a negative errno. */
int kubectl_in_guest(struct context *ctx, const struct strv *operands, struct error *err);

/* For the above and its tests: what the arguments name. */
struct kubectl_file {
        size_t index;  /* which argument holds the value */
        size_t offset; /* where in it the value begins */
};
struct kubectl_arguments {
        const char *verb;           /* "apply"; points into the operands; NULL none */
        struct kubectl_file *files; /* owned */
        size_t n_files;
        bool needs_server;     /* of this project: not `kubectl config`, help, completion, another server's, and such */
        const char *host_only; /* what cannot work from inside the guest, for the message; NULL: nothing */
};
void kubectl_arguments_clear(struct kubectl_arguments *a);
void kubectl_arguments_parse(const struct strv *operands, struct kubectl_arguments *ret);
