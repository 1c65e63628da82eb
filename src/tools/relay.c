/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/relay.h>

#define WAITING_MAX_BYTES (64U * 1024) /* in each direction; the sender waits then */

/* From ends[i] to ends[!i]. */
struct direction {
        struct buf waiting;
        bool ended;  /* nothing more comes */
        bool closed; /* and the receiver knows */
};

struct pair {
        int ends[2];
        struct direction to[2];
};

static void close_pair(struct pair *p) {
        for (int i = 0; i < 2; i++) {
                closep_(&p->ends[i]);
                p->ends[i] = -1;
                buf_free(&p->to[i].waiting);
        }
}

static short wanted(const struct pair *p, int i) {
        const struct direction *in = &p->to[i], *out = &p->to[!i];
        return (short)((!in->ended && in->waiting.len < WAITING_MAX_BYTES ? POLLIN : 0) |
                       (out->waiting.len > 0 ? POLLOUT : 0));
}

static bool take_in(struct pair *p, int i) {
        ssize_t n = buf_read(&p->to[i].waiting, p->ends[i]);
        if (n == 0)
                p->to[i].ended = true;
        return n >= 0 || n == -EAGAIN || n == -E2BIG;
}

static bool hand_out(struct pair *p, int i) {
        struct direction *d = &p->to[!i];
        ssize_t n = send(p->ends[i], d->waiting.data, d->waiting.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
                buf_consume(&d->waiting, (size_t)n);
        return n >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Passes an end on. False once both directions are over. */
static bool goes_on(struct pair *p) {
        for (int i = 0; i < 2; i++) {
                struct direction *d = &p->to[i];
                if (d->ended && !d->closed && d->waiting.len == 0) {
                        shutdown(p->ends[!i], SHUT_WR);
                        d->closed = true;
                }
        }
        return !p->to[0].closed || !p->to[1].closed;
}

static void serve(struct pair *p, const struct pollfd *events) {
        bool fine = true;
        for (int i = 0; i < 2 && fine; i++) {
                if (events[i].revents & (POLLIN | POLLHUP | POLLERR) && wanted(p, i) & POLLIN)
                        fine = take_in(p, i);
                else if (events[i].revents & (POLLHUP | POLLERR))
                        fine = false;
                if (fine && events[i].revents & POLLOUT && p->to[!i].waiting.len > 0)
                        fine = hand_out(p, i);
        }
        if (!fine || !goes_on(p))
                close_pair(p);
}

int relay_all(const struct relay *relays, size_t n, struct error *err) {
        _cleanup_free_ struct pair *pairs = xcalloc(n, sizeof(*pairs));
        _cleanup_free_ struct pollfd *events = xcalloc(2 * n, sizeof(*events));
        for (size_t i = 0; i < n; i++)
                for (int k = 0; k < 2; k++) {
                        int fd = relays[i].ends[k];
                        pairs[i].ends[k] = fd;
                        pairs[i].to[k].waiting = BUF_INIT(WAITING_MAX_BYTES);
                        if (fd >= 0)
                                fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
                }
        for (;;) {
                size_t open = 0;
                for (size_t i = 0; i < n; i++) {
                        struct pair *p = &pairs[i];
                        if (p->ends[0] < 0 || p->ends[1] < 0)
                                close_pair(p);
                        open += p->ends[0] >= 0;
                        for (int k = 0; k < 2; k++)
                                events[2 * i + (size_t)k] = (struct pollfd){.fd = p->ends[k], .events = wanted(p, k)};
                }
                if (open == 0)
                        return 0;
                if (poll(events, 2 * n, -1) < 0 && errno != EINTR)
                        return err_errno(err, errno, "cannot wait for connections");
                for (size_t i = 0; i < n; i++)
                        if (pairs[i].ends[0] >= 0)
                                serve(&pairs[i], &events[2 * i]);
        }
}
