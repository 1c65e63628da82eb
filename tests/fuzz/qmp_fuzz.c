/* SPDX-License-Identifier: MIT */
/*
 * Whatever comes over a monitor's socket, in one piece or in many: the same events are handed out, a connection that
 * broke stays broken, and nothing waits for what will not come.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/qmp.h>

#define PIECES 32
#define INPUT_MAX (32U * 1024) /* less than a read takes, and a socket without a reader */

static const char greeting[] = "{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n";
static const char negotiated[] = "{\"return\":{},\"id\":1}\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The two ends of a monitor's connection: @ret[0] is the client's. One read takes one packet at most, as if QEMU had
 * said the next thing after it. */
static void connect_ends(int ret[static 2]) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) < 0)
                abort();
}

static void say(int fd, const void *data, size_t size) {
        if (size > 0 && send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
                abort();
}

static void shake_hands(int fd) {
        say(fd, greeting, strlen(greeting));
        say(fd, negotiated, strlen(negotiated));
}

/* One line after the other; those after the first PIECES at once. */
static void say_lines(int fd, const uint8_t *data, size_t size) {
        for (int i = 0; i < PIECES && size > 0; i++) {
                const uint8_t *newline = memchr(data, '\n', size);
                size_t n = newline ? (size_t)(newline - data) + 1 : size;
                say(fd, data, n);
                data += n;
                size -= n;
        }
        say(fd, data, size);
}

static void note(const char *name, const struct json *data, uint64_t time_ms, void *userdata) {
        _cleanup_free_ char *text = data ? json_print(data, false) : NULL;
        if (!name)
                abort();
        buf_printf(userdata, "%s %s %llu\n", name, text ? text : "", (unsigned long long)time_ms);
}

/* The events in @data after a handshake, and how it ended, when it comes in pieces of @piece bytes. */
static void listen_in_pieces(const uint8_t *data, size_t size, size_t piece, struct buf *heard) {
        int ends[2], r = 0;
        connect_ends(ends);
        _cleanup_close_ int peer = ends[1];
        _cleanup_qmp_ struct qmp *q = NULL;
        shake_hands(peer);
        if (qmp_open(ends[0], 1000, &q, NULL) < 0)
                abort();
        qmp_on_event(q, note, heard);
        for (size_t at = 0; r == 0 && at < size; at += piece) {
                say(peer, data + at, size - at < piece ? size - at : piece);
                r = qmp_process(q, NULL);
        }
        buf_printf(heard, "end %d\n", r);
        if (r < 0 && (qmp_process(q, NULL) != r || qmp_call(q, "query-status", NULL, 0, NULL, NULL) != r))
                abort();
}

/* @data instead of QEMU's greeting, or as what answers a command; then the other end hangs up. */
static void answer_with(const uint8_t *data, size_t size, bool greet) {
        int ends[2];
        connect_ends(ends);
        _cleanup_close_ int peer = ends[1];
        _cleanup_qmp_ struct qmp *q = NULL;
        _cleanup_json_ struct json *answer = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (greet)
                shake_hands(peer);
        say_lines(peer, data, size);
        shutdown(peer, SHUT_WR);
        int r = qmp_open(ends[0], 1000, &q, &err);
        if (r == 0) {
                error_clear(&err);
                r = qmp_call(q, "query-status", NULL, 1000, &answer, &err);
        }
        if (r == -ETIMEDOUT || (r < 0) != (err.message != NULL) || (r < 0 && answer))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        if (size > INPUT_MAX)
                return 0;
        _cleanup_buf_ struct buf whole = BUF_INIT(0), pieces = BUF_INIT(0);
        listen_in_pieces(data, size, size + 1, &whole);
        listen_in_pieces(data, size, 1 + size / PIECES, &pieces);
        if (strcmp(buf_str(&whole), buf_str(&pieces)) != 0)
                abort();
        answer_with(data, size, false);
        answer_with(data, size, true);
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
