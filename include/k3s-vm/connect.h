/* SPDX-License-Identifier: MIT */
/* What the commands that talk to a running guest share. */
#pragma once

#include <k3s-vm/command.h>
#include <k3s-vm/remote.h>

/* The state of a VM that runs: ERR_NO_VM where there is none, ERR_STATE naming `k3s-vm start` where it does not
 * run. Fills in ctx->project. A VM that lost its supervisor gets a new one. */
int context_running(struct context *ctx, struct state **ret, struct error *err);

/* Logs in to the guest of context_running()'s VM over libssh. A guest that does not answer yet is ERR_STATE. */
int context_connect(struct context *ctx, const struct state *s, struct remote **ret, struct error *err);
/* Both. */
int context_connect_running(struct context *ctx, struct remote **ret, struct error *err);

/* The words as one line for the guest's shell, which then sees exactly them; the caller frees. */
char *quote_words(const struct strv *words);

/* Before this process becomes another program: what main() changed for itself is put back. Then execv(2);
 * returns only with an error. argv[0] is what the program is told it is called. */
int exec_program(const char *path, char *const argv[], struct error *err);
