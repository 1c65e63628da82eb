/* SPDX-License-Identifier: MIT */
/*
 * What the three files of module `remote` share: libssh, loaded once, and a connection. Not for anyone else.
 *
 * The session is non-blocking except while SFTP runs, which libssh 0.10 offers only in a blocking form. No
 * call of libssh is given a time limit of its own, because a limit there starts anew with each step:
 * deadlines are kept here, around poll(2).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>

#include <k3s-vm/err.h>
#include <k3s-vm/library.h>
#include <k3s-vm/remote.h>

#ifndef LIBSSH_SONAME
#define LIBSSH_SONAME "libssh.so.4"
#endif

#define LIBSSH_SYMBOLS(X) \
        X(ssh_channel_change_pty_size) \
        X(ssh_channel_close) \
        X(ssh_channel_free) \
        X(ssh_channel_is_closed) \
        X(ssh_channel_new) \
        X(ssh_channel_open_session) \
        X(ssh_channel_read_nonblocking) \
        X(ssh_channel_request_exec) \
        X(ssh_channel_request_pty_size) \
        X(ssh_channel_request_send_signal) \
        X(ssh_channel_send_eof) \
        X(ssh_channel_window_size) \
        X(ssh_channel_write) \
        X(ssh_connect) \
        X(ssh_event_add_fd) \
        X(ssh_event_add_session) \
        X(ssh_event_dopoll) \
        X(ssh_event_free) \
        X(ssh_event_new) \
        X(ssh_event_remove_fd) \
        X(ssh_free) \
        X(ssh_get_error) \
        X(ssh_get_poll_flags) \
        X(ssh_get_server_publickey) \
        X(ssh_is_connected) \
        X(ssh_key_cmp) \
        X(ssh_key_free) \
        X(ssh_new) \
        X(ssh_options_set) \
        X(ssh_pki_export_privkey_base64) \
        X(ssh_pki_export_privkey_to_pubkey) \
        X(ssh_pki_export_pubkey_base64) \
        X(ssh_pki_generate) \
        X(ssh_pki_import_privkey_base64) \
        X(ssh_pki_import_pubkey_base64) \
        X(ssh_remove_channel_callbacks) \
        X(ssh_send_ignore) \
        X(ssh_set_blocking) \
        X(ssh_set_channel_callbacks) \
        X(ssh_string_free_char) \
        X(ssh_userauth_publickey) \
        X(sftp_attributes_free) \
        X(sftp_chmod) \
        X(sftp_close) \
        X(sftp_closedir) \
        X(sftp_dir_eof) \
        X(sftp_free) \
        X(sftp_get_error) \
        X(sftp_init) \
        X(sftp_lstat) \
        X(sftp_mkdir) \
        X(sftp_new) \
        X(sftp_open) \
        X(sftp_opendir) \
        X(sftp_read) \
        X(sftp_readdir) \
        X(sftp_readlink) \
        X(sftp_rename) \
        X(sftp_stat) \
        X(sftp_statvfs) \
        X(sftp_statvfs_free) \
        X(sftp_symlink) \
        X(sftp_unlink) \
        X(sftp_write)

/* Filled in by the first remote_connect() or remote_make_key(). */
LIBRARY_EXTERN(libssh, LIBSSH_SYMBOLS);

struct remote {
        ssh_session session;
        ssh_event event;   /* holds the session; polling it is what moves packets */
        int fd;            /* a duplicate of the session's socket, ours: libssh closes its own when it likes */
        sftp_session sftp; /* NULL until the first copy */
};

/* Waits until the session can go on, at most until @deadline_ms of now_ms(). 0, -ETIMEDOUT or -ECANCELED. */
int remote_wait(struct remote *r, uint64_t deadline_ms);

/* libssh's own words for the last failure, with what the other side sent in it made printable; the caller frees. */
char *remote_error_text(struct remote *r);

/* Turns the session's last failure into an error: -ECONNRESET when the connection is gone, else -EPROTO. */
int remote_error(struct remote *r, struct error *err, const char *what);

/* Closes the SFTP channel, if there is one. */
void remote_close_sftp(struct remote *r);
