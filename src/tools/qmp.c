/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/socket.h>

#define EARLY_EVENTS_MAX 256 /* kept until somebody asks for them */
#define READS_AT_ONCE 64     /* so that a peer that never stops cannot keep the caller's loop busy */

enum qmp_state { QMP_GREETING, QMP_NEGOTIATING, QMP_READY, QMP_BROKEN };

struct qmp {
        int fd;
        enum qmp_state state;
        int broken;          /* negative errno, once QMP_BROKEN */
        struct buf in;       /* bytes that are no whole message yet */
        size_t scanned;      /* of them, without a newline in it */
        uint64_t next_id;    /* of the next command */
        uint64_t pending;    /* id of the command that is waited for; 0 none */
        struct json *answer; /* to the pending command, once it is there */
        struct json *early[EARLY_EVENTS_MAX];
        size_t n_early;
        qmp_event_fn *on_event;
        void *userdata;
};

void qmp_free(struct qmp *q) {
        if (!q)
                return;
        if (q->fd >= 0)
                close(q->fd);
        buf_free(&q->in);
        json_free(q->answer);
        for (size_t i = 0; i < q->n_early; i++)
                json_free(q->early[i]);
        free(q);
}

/* From here on every call fails the same way. */
static int broken(struct qmp *q, int errnum, const char *why, struct error *err) {
        q->state = QMP_BROKEN;
        q->broken = -errnum;
        return err_set(err, ERR_FAILED, errnum, "the connection to QEMU is lost: %s", why);
}

static int check_usable(const struct qmp *q, struct error *err) {
        if (q->state != QMP_BROKEN)
                return 0;
        return err_set(err, ERR_FAILED, -q->broken, "the connection to QEMU is lost");
}

static void hand_out(struct qmp *q, const struct json *event) {
        uint64_t seconds = json_u64_or(json_get(event, "timestamp", "seconds"), 0);
        uint64_t microseconds = json_u64_or(json_get(event, "timestamp", "microseconds"), 0);
        q->on_event(json_string(json_get(event, "event")), json_get(event, "data"),
                    seconds * 1000 + microseconds / 1000, q->userdata);
}

void qmp_on_event(struct qmp *q, qmp_event_fn *fn, void *userdata) {
        q->on_event = fn;
        q->userdata = userdata;
        for (size_t i = 0; fn && i < q->n_early; i++) {
                hand_out(q, q->early[i]);
                json_free(q->early[i]);
        }
        if (fn)
                q->n_early = 0;
}

/* One message. Takes @message over. */
static int accept_message(struct qmp *q, struct json *message, struct error *err) {
        _cleanup_json_ struct json *m = message;
        if (!json_is_object(m))
                return broken(q, EPROTO, "it sent something that is no QMP message", err);
        if (json_get(m, "QMP")) {
                if (q->state != QMP_GREETING)
                        return broken(q, EPROTO, "it greeted twice", err);
                q->state = QMP_NEGOTIATING;
                return 0;
        }
        if (json_string(json_get(m, "event"))) {
                if (q->on_event)
                        hand_out(q, m);
                else if (q->n_early < EARLY_EVENTS_MAX)
                        q->early[q->n_early++] = TAKE_PTR(m);
                return 0;
        }
        if (q->state == QMP_GREETING)
                return broken(q, EPROTO, "it is not QMP: there was no greeting", err);
        if (!json_get(m, "return") && !json_get(m, "error"))
                return broken(q, EPROTO, "it sent something that is no QMP message", err);
        /* An answer without an id belongs to a command that QEMU could not read: there is only ever one. The
         * answer to a command that was given up meanwhile is dropped. */
        const struct json *id = json_get(m, "id");
        if (q->pending && !q->answer && (!id || json_u64_or(id, 0) == q->pending))
                q->answer = TAKE_PTR(m);
        return 0;
}

/* Takes the whole messages out of the buffer. */
static int split_messages(struct qmp *q, struct error *err) {
        size_t done = 0;
        int r = 0;
        for (;;) {
                size_t from = done > q->scanned ? done : q->scanned;
                char *newline = from < q->in.len ? memchr(q->in.data + from, '\n', q->in.len - from) : NULL;
                if (!newline)
                        break;
                size_t end = (size_t)(newline - q->in.data), len = end - done;
                const char *line = q->in.data + done;
                done = end + 1;
                if (len > 0 && line[len - 1] == '\r')
                        len--;
                if (len == 0)
                        continue;
                struct json *message = NULL;
                if (json_parse(line, len, &message, NULL) < 0)
                        r = broken(q, EPROTO, "it sent something that is no JSON", err);
                else
                        r = accept_message(q, message, err);
                if (r < 0)
                        break;
        }
        buf_consume(&q->in, done);
        q->scanned = q->in.len;
        return r;
}

/* One read. 1 when something was read, 0 when nothing is there now. */
static int read_some(struct qmp *q, struct error *err) {
        ssize_t n = buf_read(&q->in, q->fd);
        if (n == -EAGAIN)
                return 0;
        if (n == 0 || n == -ECONNRESET)
                return broken(q, ECONNRESET, "QEMU closed it", err);
        if (n < 0 && n != -E2BIG)
                return broken(q, (int)-n, strerror((int)-n), err);
        int r = n == -E2BIG ? 0 : split_messages(q, err);
        if (r == 0 && q->in.len > QMP_MESSAGE_MAX)
                return broken(q, EPROTO, "it sent a message without an end", err);
        return r < 0 ? r : 1;
}

/* Waits for @events on the socket until @deadline (now_ms() time). */
static int wait_for(struct qmp *q, short events, uint64_t deadline, struct error *err) {
        for (;;) {
                uint64_t now = now_ms();
                struct pollfd pfd = {.fd = q->fd, .events = events};
                int n = poll(&pfd, 1, now >= deadline ? 0 : (int)(deadline - now));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot wait for QEMU");
                if (n == 0)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "QEMU does not answer");
                return 0;
        }
}

static int send_all(struct qmp *q, const char *data, size_t len, uint64_t deadline, struct error *err) {
        bool any = false;
        while (len > 0) {
                ssize_t n = send(q->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        int r = wait_for(q, POLLOUT, deadline, err);
                        /* Half a command in the socket would spoil every later one. */
                        if (r < 0 && any)
                                broken(q, -r, "it takes no more", NULL);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (n < 0)
                        return broken(q, errno == EPIPE ? ECONNRESET : errno, strerror(errno), err);
                any = true;
                data += n;
                len -= (size_t)n;
        }
        return 0;
}

/* Sends one command and reads until its answer is there. */
static int transact(struct qmp *q, const char *command, struct json *arguments, uint64_t deadline, struct json **ret,
                    struct error *err) {
        _cleanup_json_ struct json *request = json_new_object();
        uint64_t id = ++q->next_id;
        json_set_string(request, "execute", command);
        if (arguments)
                json_set(request, "arguments", arguments);
        json_set_number(request, "id", (double)id);
        _cleanup_free_ char *text = json_print(request, false), *line = xasprintf("%s\n", text);

        json_free(q->answer);
        q->answer = NULL;
        q->pending = id;
        int r = send_all(q, line, strlen(line), deadline, err);
        while (r == 0 && !q->answer) {
                r = wait_for(q, POLLIN, deadline, err);
                if (r == 0) {
                        r = read_some(q, err);
                        r = r > 0 ? 0 : r;
                }
                /* What was read before the connection broke counts. */
                if (r < 0 && q->answer)
                        r = 0;
        }
        q->pending = 0;
        if (r < 0)
                return r;
        *ret = TAKE_PTR(q->answer);
        return 0;
}

static int negotiate(struct qmp *q, uint64_t deadline, struct error *err) {
        int r = 0;
        while (r >= 0 && q->state == QMP_GREETING) {
                r = wait_for(q, POLLIN, deadline, err);
                if (r == 0)
                        r = read_some(q, err);
        }
        if (r < 0)
                return r;
        _cleanup_json_ struct json *answer = NULL;
        r = transact(q, "qmp_capabilities", NULL, deadline, &answer, err);
        if (r < 0)
                return r;
        if (json_get(answer, "error"))
                return broken(q, EPROTO, "it refused the handshake", err);
        q->state = QMP_READY;
        return 0;
}

int qmp_open(int fd, unsigned timeout_ms, struct qmp **ret, struct error *err) {
        _cleanup_qmp_ struct qmp *q = xcalloc(1, sizeof(*q));
        q->fd = fd;
        q->in = BUF_INIT(QMP_MESSAGE_MAX + 64U * 1024);
        int r = negotiate(q, now_ms() + timeout_ms, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(q);
        return 0;
}

int qmp_connect(const char *socket_path, unsigned timeout_ms, struct qmp **ret, struct error *err) {
        uint64_t begin = now_ms();
        int fd = -1, r = socket_connect(socket_path, "QEMU", timeout_ms, &fd, err);
        if (r < 0)
                return r;
        uint64_t passed = now_ms() - begin;
        return qmp_open(fd, passed < timeout_ms ? timeout_ms - (unsigned)passed : 0, ret, err);
}

int qmp_call(struct qmp *q, const char *command, struct json *arguments, unsigned timeout_ms, struct json **ret,
             struct error *err) {
        int r = check_usable(q, err);
        if (r < 0) {
                json_free(arguments);
                return r;
        }
        _cleanup_json_ struct json *answer = NULL;
        r = transact(q, command, arguments, now_ms() + timeout_ms, &answer, err);
        if (r < 0) {
                err_wrap(err, r, "%s", command);
                return r;
        }
        const struct json *error = json_get(answer, "error");
        if (error) {
                const char *text = json_string_or(json_get(error, "desc"), "an error without a description");
                _cleanup_free_ char *printable = str_printable(text, strlen(text));
                return err_set(err, ERR_FAILED, EREMOTEIO, "%s: QEMU says: %s", command, printable);
        }
        if (ret)
                *ret = json_copy(json_get(answer, "return"));
        return 0;
}

int qmp_human(struct qmp *q, const char *line, unsigned timeout_ms, char **ret, struct error *err) {
        struct json *arguments = json_new_object();
        json_set_string(arguments, "command-line", line);
        _cleanup_json_ struct json *answer = NULL;
        int r = qmp_call(q, "human-monitor-command", arguments, timeout_ms, &answer, err);
        if (r < 0)
                return r;
        if (ret)
                *ret = xstrdup(json_string_or(answer, ""));
        return 0;
}

int qmp_fd(const struct qmp *q) {
        return q->fd;
}

int qmp_process(struct qmp *q, struct error *err) {
        int r = check_usable(q, err);
        for (int i = 0; r >= 0 && i < READS_AT_ONCE; i++) {
                r = read_some(q, err);
                if (r == 0)
                        break;
        }
        return r < 0 ? r : 0;
}
