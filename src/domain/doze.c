/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/doze.h>
#include <k3s-vm/forward.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/relay.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/suspend.h>

#include "supervise.h"

#define LISTEN_TIMEOUT_MS 5000U /* for QEMU's sockets to be gone */
#define LOOK_MS 10U
#define SWITCH_LOOK_MS 3
#define WAKE_TIMEOUT_MS (60U * 1000)
#define BACKLOG 128
#define CONNECTIONS_MAX 64U

struct listening {
        int fd;
        uint16_t port;
};

struct doze {
        const struct project *project;
        struct listening *listeners;
        size_t n;
        int lock_fd;
        struct relay waiting[CONNECTIONS_MAX]; /* the accepted ends; the others are to come */
        uint16_t ports[CONNECTIONS_MAX];
        size_t n_waiting;
};

static void release_ports(struct doze *d) {
        for (size_t i = 0; i < d->n; i++)
                closep_(&d->listeners[i].fd);
        free(d->listeners);
        d->listeners = NULL;
        d->n = 0;
}

static void release_lock(struct doze *d) {
        closep_(&d->lock_fd);
        d->lock_fd = -1;
}

void doze_free(struct doze *d) {
        if (!d)
                return;
        release_ports(d);
        release_lock(d);
        for (size_t i = 0; i < d->n_waiting; i++) {
                closep_(&d->waiting[i].ends[0]);
                closep_(&d->waiting[i].ends[1]);
        }
        free(d);
}

static struct sockaddr_in loopback(uint16_t port) {
        return (struct sockaddr_in){
                        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int listen_on(uint16_t port, int *ret, struct error *err) {
        const struct sockaddr_in address = loopback(port);
        for (uint64_t deadline = now_ms() + LISTEN_TIMEOUT_MS;;) {
                _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                int yes = 1;
                if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
                    bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, BACKLOG) == 0) {
                        *ret = TAKE_FD(fd);
                        return 0;
                }
                int errnum = errno;
                if (errnum != EADDRINUSE || now_ms() >= deadline)
                        return err_errno(err, errnum, "cannot listen on port %u", port);
                int r = interrupt_wait(-1, LOOK_MS, err);
                if (r < 0)
                        return r;
        }
}

static int take_lock(struct doze *d, struct error *err) {
        _cleanup_free_ char *path = supervisor_lock_path(d->project);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (d->lock_fd < 0 || fcntl(d->lock_fd, F_SETLK, &lock) < 0)
                return err_set(err, ERR_STATE, EBUSY, "this VM has a supervisor already");
        return 0;
}

int doze_new(const struct project *p, const struct state *s, const struct config *c, struct doze **ret,
             struct error *err) {
        _cleanup_doze_ struct doze *d = xcalloc(1, sizeof(*d));
        d->project = p;
        d->lock_fd = -1;
        _cleanup_free_ struct forward *forwards = NULL;
        size_t n = forward_configured(c, &forwards);
        /* Those that the VM had, whatever the configuration says for its next start. */
        const uint16_t own[] = {s->api_port, s->ssh_port, s->web_port};
        d->listeners = xcalloc(n, sizeof(*d->listeners));
        int r = take_lock(d, err);
        for (size_t i = 0; r == 0 && i < n; i++) {
                uint16_t port = i < ELEMENTSOF(own) && own[i] ? own[i] : forwards[i].host_port;
                d->listeners[i] = (struct listening){.fd = -1, .port = port};
                d->n = i + 1;
                r = listen_on(port, &d->listeners[i].fd, err);
        }
        if (r == 0)
                *ret = TAKE_PTR(d);
        return r;
}

static void accept_all(struct doze *d, const struct listening *l) {
        while (d->n_waiting < CONNECTIONS_MAX) {
                int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd < 0)
                        return;
                d->waiting[d->n_waiting] = (struct relay){.ends = {fd, -1}};
                d->ports[d->n_waiting++] = l->port;
        }
}

/* Accepts what comes within @ms (-1: for as long as nothing does); 1: @stop_fd is readable. */
static int accept_some(struct doze *d, int ms, int stop_fd, struct error *err) {
        _cleanup_free_ struct pollfd *events = xcalloc(d->n + 2, sizeof(*events));
        for (size_t i = 0; i < d->n; i++)
                events[i] = (struct pollfd){.fd = d->listeners[i].fd, .events = POLLIN};
        events[d->n] = (struct pollfd){.fd = interrupt_fd(), .events = POLLIN};
        events[d->n + 1] = (struct pollfd){.fd = stop_fd, .events = POLLIN};
        if (poll(events, d->n + 2, ms) < 0 && errno != EINTR)
                return err_errno(err, errno, "cannot wait for a connection");
        int r = interrupt_check(err);
        for (size_t i = 0; r == 0 && i < d->n; i++)
                accept_all(d, &d->listeners[i]);
        return r < 0 ? r : events[d->n + 1].revents != 0;
}

int doze_wait(struct doze *d, struct error *err) {
        int r = 0;
        while (r == 0 && d->n_waiting == 0)
                r = accept_some(d, -1, -1, err);
        release_lock(d);
        return r;
}

/* The other end of a connection, once the VM has the port. */
static int connect_to(uint16_t port, int stop_fd, int *ret, struct error *err) {
        const struct sockaddr_in address = loopback(port);
        for (;;) {
                _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0) {
                        *ret = TAKE_FD(fd);
                        return 0;
                }
                if (errno != ECONNREFUSED)
                        return err_errno(err, errno, "cannot connect to port %u", port);
                int r = interrupt_wait(stop_fd, LOOK_MS, err);
                if (r != 0)
                        return r < 0 ? r : err_set(err, ERR_FAILED, ECHILD, "the VM does not start");
        }
}

int doze_wake(const struct state *s, struct error *err) {
        const struct sockaddr_in address = loopback(s->ssh_port);
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return err_errno(err, errno, "cannot wake the VM by its port %u", s->ssh_port);
        int r = interrupt_wait(fd, WAKE_TIMEOUT_MS, err);
        if (r > 0)
                return 0;
        return r < 0 ? r : err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the VM does not wake up");
}

int doze_hand_on(struct doze *d, int stop_fd, struct error *err) {
        /* The VM wants its ports as soon as its guest runs. */
        while (suspend_files_waiting(d->project)) {
                int r = accept_some(d, SWITCH_LOOK_MS, stop_fd, err);
                if (r < 0)
                        return r;
                if (r > 0)
                        break;
        }
        release_ports(d);
        for (size_t i = 0; i < d->n_waiting; i++) {
                int r = connect_to(d->ports[i], stop_fd, &d->waiting[i].ends[1], err);
                if (r < 0)
                        return r;
        }
        size_t n = d->n_waiting;
        d->n_waiting = 0;
        return relay_all(d->waiting, n, err);
}
