/* SPDX-License-Identifier: MIT */
/*
 * SSH to a guest (libssh behind it): keys, commands, files. The host key is known before the first
 * connection because the host made it, so an unknown or changed key is an error and never a question.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>

/* Makes an ed25519 key pair in OpenSSH's format: @path (0600) and @path.pub (0644, one line ending in
 * @comment). Existing files are kept. */
int remote_make_key(const char *path, const char *comment, struct error *err);

struct remote;

struct remote_address {
        const char *host; /* "127.0.0.1" */
        uint16_t port;
        const char *user;         /* "root" */
        const char *key_path;     /* private key for logging in */
        const char *host_key_pub; /* path of the guest's public host key, the only one accepted */
};

/* Waits for nothing: one attempt, at most @timeout_ms. -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT mean "not
 * up yet"; -EKEYREJECTED is a wrong host key, -EACCES a refused login. */
int remote_connect(const struct remote_address *address, unsigned timeout_ms, struct remote **ret, struct error *err);
void remote_free(struct remote *r);
DEFINE_FREEP(struct remote, remote_free)
#define _cleanup_remote_ _cleanup_(remote_freep)

/* Reads an SSH banner ("SSH-2.0-…") from 127.0.0.1:@port within @timeout_ms; no login. 0 or a negative errno. */
int remote_probe_banner(uint16_t port, unsigned timeout_ms, struct error *err);

struct remote_exec {
        const char *command; /* for the guest's shell; quote with str_shell_quote() */
        const void *input;   /* bytes for its stdin; NULL: empty */
        size_t input_len;
        struct buf *ret_stdout; /* bounded by its own limit; NULL: dropped */
        struct buf *ret_stderr;
        unsigned timeout_ms; /* 0: 60 s */
};
/* Runs a command and collects its output. 0 when it ran, its status in @ret_status. */
int remote_exec(struct remote *r, const struct remote_exec *exec, int *ret_status, struct error *err);

/* Runs a command with this process's descriptors 0, 1 and 2, for `exec` and `kubectl`. With @tty a
 * pseudo-terminal of the size of descriptor 0's is asked for, resized with SIGWINCH, raw until the end. */
int remote_exec_stdio(struct remote *r, const char *command, bool tty, int *ret_status, struct error *err);

/* Copies a file or a folder with everything in it (SFTP). Times are not kept, permission bits are. A
 * name that comes from the guest is a single path component and never "." or "..". Symlinks are copied as
 * symlinks to the guest; from the guest only when they stay inside what is copied. Partial files do not
 * appear under their final name. */
int remote_put(struct remote *r, const char *local, const char *guest, struct progress *p, struct progress_phase *phase,
               struct error *err);
int remote_get(struct remote *r, const char *guest, const char *local, struct progress *p, struct progress_phase *phase,
               struct error *err);
