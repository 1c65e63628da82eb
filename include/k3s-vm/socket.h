/* SPDX-License-Identifier: MIT */
/*
 * Unix sockets between this user's own processes: an address holds 107 bytes, a socket is 0600 in a 0700 folder,
 * and who is at the other end is asked of the kernel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <k3s-vm/err.h>

/* A listening stream socket at @path, 0600, close-on-exec, replacing what is there. ERR_HOST with a hint when the
 * path is too long for an address. */
int socket_listen(const char *path, int *ret_fd, struct error *err);

/* Connects to @path, where @what ("QEMU") listens; non-blocking and close-on-exec afterwards. A listener whose queue
 * is full is waited for up to @timeout_ms: -ETIMEDOUT. -ENOENT, -ECONNREFUSED: nobody there; -EPERM: another user's. */
int socket_connect(const char *path, const char *what, unsigned timeout_ms, int *ret_fd, struct error *err);

/* Whether the other end is a process of this user; root may talk to everybody and everybody to root. */
bool socket_peer_trusted(int fd);

/* One message with a descriptor on it (@fd -1: none), on a SOCK_SEQPACKET socket. 0 or a negative errno. */
int socket_send_message(int socket, const void *data, size_t len, int fd);
/* The next message, of at most @size bytes; @ret_fd gets its descriptor, close-on-exec, or -1. Returns the length, 0
 * when the other end is gone, or a negative errno (-EMSGSIZE: it was longer). */
ssize_t socket_receive_message(int socket, void *data, size_t size, int *ret_fd);
