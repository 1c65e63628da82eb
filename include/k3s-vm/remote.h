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

/* Fills @data with at most @len bytes; 0 at the end. A negative errno ends the command and is what remote_exec()
 * returns. It may take its time, not wait for others. */
typedef ssize_t remote_input_fn(void *data, size_t len, void *userdata, struct error *err);

struct remote_exec {
        const char *command; /* for the guest's shell; quote with str_shell_quote() */
        const void *input;   /* bytes for its stdin; NULL: empty */
        size_t input_len;
        remote_input_fn *read_input; /* NULL, or asked for further bytes for its stdin */
        void *userdata;              /* for @read_input */
        struct buf *ret_stdout;      /* bounded by its own limit; NULL: dropped */
        struct buf *ret_stderr;
        unsigned timeout_ms; /* 0: 60 s; with @read_input counted anew from each time that the guest takes some */
};
/* Runs a command and collects its output. 0 when it ran, its status in @ret_status (128 + number when a signal
 * ended it). -E2BIG for more output than the buffers hold, -ETIMEDOUT (what it started may run on in the
 * guest), -ECONNRESET when the connection is gone, -ECANCELED. */
int remote_exec(struct remote *r, const struct remote_exec *exec, int *ret_status, struct error *err);

/* Runs a command with this process's descriptors 0, 1 and 2, for `exec` and `kubectl`. With @tty a
 * pseudo-terminal of the size of descriptor 0's is asked for, resized with SIGWINCH, raw until the end. SIGINT,
 * SIGTERM and SIGHUP are passed on to the command and end this with ERR_INTERRUPTED when it does not end by
 * itself. Status 141 (128 + SIGPIPE) when nobody reads the output any more. */
int remote_exec_stdio(struct remote *r, const char *command, bool tty, int *ret_status, struct error *err);

/*
 * Copies a file or a folder with everything in it (SFTP). A target that is a folder gets it inside, any other is
 * the copy's name; guest paths are relative to the home folder there ("~/x" too). Times are not kept, permission
 * bits (0777) are. A name that comes from the guest is a single path component and never "." or "..".
 * Symlinks in a folder are copied as symlinks to the guest, and from the guest only when they stay inside what
 * is copied; others, and what is no file, folder or symlink, are left out with a warning. A symlink that is
 * itself named is followed. Files appear under their final names when they are whole, replacing what was there.
 * @p and @phase may be NULL. -ENOENT, -EACCES, -ENOSPC, -ECONNRESET, -ETIMEDOUT (one request without an answer
 * for 60 s), -ECANCELED.
 */
int remote_put(struct remote *r, const char *local, const char *guest, struct progress *p, struct progress_phase *phase,
               struct error *err);
int remote_get(struct remote *r, const char *guest, const char *local, struct progress *p, struct progress_phase *phase,
               struct error *err);
