/* SPDX-License-Identifier: MIT */
/*
 * The cluster's credentials where the project's web program looks for them: in WEB_ENV_PATH (web/.env)
 *
 *   KUBECONFIG=./kubeconfig.yaml
 *   KUBECONFIG_PRIMARY=<base64 of the kubeconfig as JSON>
 *
 * and beside it the symlink kubeconfig.yaml to the kubeconfig. The file is the user's: all else in it stays byte for
 * byte, and so does its mode.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/dotenv.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/progress.h>

/* Whether web_env_write() could read the file: ERR_USAGE for a folder, a file of more than 1 MiB, one that cannot be
 * read, or whose line N cannot be understood. For before a start. */
int web_env_check(const struct project *p, const struct config *c, struct error *err);

/* What the file has; nothing where there is none. Fails as web_env_check() does. */
int web_env_read(const struct project *p, const struct config *c, struct dotenv *ret, struct error *err);

/* Writes both, atomically and only what changes. A missing file is made, 0600, where its folder is there. Something at
 * kubeconfig.yaml that is not ours stays; KUBECONFIG then names the kubeconfig itself. */
int web_env_write(const struct project *p, const struct config *c, const struct kubeconfig *k,
                  struct progress *progress, struct error *err);

/* Takes out what web_env_write() put there for the VM of this configuration: lines that hold nothing else go, and so
 * does a file that nothing is left in; a line with an `export` or a comment of the user's keeps it with an empty
 * value. Another cluster's credentials stay. A failure is a warning. */
void web_env_remove(const struct project *p, const struct config *c, struct progress *progress);
