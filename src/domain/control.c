/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/socket.h>

#include "control.h"

#define CLIENTS_MAX 8
#define REQUEST_MAX_BYTES 1024U
#define ANSWER_MAX_BYTES (64U * 1024)

struct client {
        struct control *control;
        struct loop_source *source;
        int fd; /* -1: a free place */
        struct buf in;
        uint64_t heard_ms; /* when it last said something */
};

struct control {
        struct loop *loop;
        struct loop_source *source;
        int fd;
        control_verb_fn *fn;
        void *userdata;
        struct client clients[CLIENTS_MAX];
};

static void client_drop(struct client *c) {
        if (c->fd < 0)
                return;
        loop_remove(c->source);
        close(c->fd);
        buf_free(&c->in);
        *c = (struct client){.control = c->control, .fd = -1};
}

/* False when the client is to go: it does not take its answers. */
static bool answer(struct client *c, const char *line, size_t len) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *request = NULL, *reply = json_new_object();
        struct json *result = NULL;
        if (json_parse(line, len, &request, NULL) < 0 || !json_string(json_get(request, "execute")))
                err_set(&err, ERR_USAGE, EBADMSG, "a request is a line like {\"execute\":\"status\"}");
        else
                result = c->control->fn(json_string(json_get(request, "execute")), c->control->userdata, &err);
        if (result)
                json_set(reply, "return", result);
        else
                json_set_string(reply, "error", err.message);
        _cleanup_free_ char *text = json_print(reply, false), *whole = xasprintf("%s\n", text);
        size_t size = strlen(whole);
        return send(c->fd, whole, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static int on_client(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct client *c = userdata;
        (void)loop;
        (void)events;
        ssize_t n = buf_read(&c->in, fd);
        if (n == -EAGAIN)
                return 0;
        c->heard_ms = now_ms();
        bool stays = n > 0;
        char *newline;
        while (stays && (newline = memchr(c->in.data, '\n', c->in.len))) {
                size_t len = (size_t)(newline - c->in.data);
                stays = answer(c, c->in.data, len);
                buf_consume(&c->in, len + 1);
        }
        if (!stays || c->in.len > REQUEST_MAX_BYTES)
                client_drop(c);
        return 0;
}

/* A free place, made if need be. */
static struct client *place(struct control *control) {
        struct client *longest = &control->clients[0];
        for (size_t i = 0; i < CLIENTS_MAX; i++) {
                struct client *c = &control->clients[i];
                if (c->fd < 0)
                        return c;
                if (c->heard_ms < longest->heard_ms)
                        longest = c;
        }
        client_drop(longest);
        return longest;
}

static int on_connection(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct control *control = userdata;
        (void)events;
        _cleanup_close_ int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (peer < 0 || !socket_peer_trusted(peer))
                return 0;
        struct client *c = place(control);
        c->in = BUF_INIT(REQUEST_MAX_BYTES + 64U * 1024);
        c->heard_ms = now_ms();
        if (loop_add_fd(loop, peer, EPOLLIN, on_client, c, &c->source, NULL) == 0)
                c->fd = TAKE_FD(peer);
        return 0;
}

int control_new(struct loop *loop, const char *path, control_verb_fn *fn, void *userdata, struct control **ret,
                struct error *err) {
        struct control *c = xcalloc(1, sizeof(*c));
        *c = (struct control){.loop = loop, .fd = -1, .fn = fn, .userdata = userdata};
        for (size_t i = 0; i < CLIENTS_MAX; i++)
                c->clients[i] = (struct client){.control = c, .fd = -1};
        int r = socket_listen(path, &c->fd, err);
        if (r == 0 && fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
                r = err_errno(err, errno, "cannot set up a socket");
        if (r == 0)
                r = loop_add_fd(loop, c->fd, EPOLLIN, on_connection, c, &c->source, err);
        if (r < 0) {
                control_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

void control_free(struct control *c) {
        if (!c)
                return;
        for (size_t i = 0; i < CLIENTS_MAX; i++)
                client_drop(&c->clients[i]);
        loop_remove(c->source);
        closep_(&c->fd);
        free(c);
}

/* One line from @fd. */
static int read_line(int fd, uint64_t deadline, struct buf *ret, struct error *err) {
        while (ret->len == 0 || ret->data[ret->len - 1] != '\n') {
                uint64_t now = now_ms();
                struct pollfd pfd = {.fd = fd, .events = POLLIN};
                if (now >= deadline || poll(&pfd, 1, (int)(deadline - now)) == 0)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the supervisor does not answer");
                ssize_t n = buf_read(ret, fd);
                if (n == 0)
                        return err_set(err, ERR_FAILED, ECONNRESET, "the supervisor hung up");
                if (n < 0 && n != -EAGAIN)
                        return err_errno(err, (int)-n, "cannot hear the supervisor");
        }
        return 0;
}

int control_ask(const char *path, const char *verb, unsigned timeout_ms, struct json **ret, struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        _cleanup_close_ int fd = -1;
        int r = socket_connect(path, "the supervisor", timeout_ms, &fd, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *request = json_new_object(), *reply = NULL;
        json_set_string(request, "execute", verb);
        _cleanup_free_ char *text = json_print(request, false), *line = xasprintf("%s\n", text);
        if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
                return err_errno(err, errno, "cannot ask the supervisor");
        _cleanup_buf_ struct buf in = BUF_INIT(ANSWER_MAX_BYTES);
        r = read_line(fd, deadline, &in, err);
        if (r == 0)
                r = json_parse(in.data, in.len, &reply, err);
        if (r < 0)
                return r;
        if (!json_get(reply, "return")) {
                const char *message = json_string_or(json_get(reply, "error"), "it does not say why");
                return err_set(err, ERR_FAILED, EREMOTEIO, "the supervisor: %s", message);
        }
        if (ret)
                *ret = json_copy(json_get(reply, "return"));
        return 0;
}
