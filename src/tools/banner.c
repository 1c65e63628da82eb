/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <k3s-vm/banner.h>
#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#define LOOK_MS 100      /* how often the serial log is looked at, and a refusing port asked */
#define PATIENCE_MS 3000 /* an accepted connection is given that long before another one is made */
#define CONNECTIONS 8    /* the older ones are kept: the first to be greeted ends the wait */
#define SERIAL_CHUNK 65536U

struct waiting {
        const struct banner_wait *spec;
        struct sockaddr_in address;
        int fds[CONNECTIONS]; /* -1: free */
        unsigned oldest;      /* the next to be given up for a new one */
        uint64_t tried_ms;    /* when the newest was made */
        int serial_fd;        /* -1: not there yet */
        struct buf serial;    /* the end of what was read: the words may come in two parts */
        bool network_up;
};

static void waiting_clear(struct waiting *w) {
        for (unsigned i = 0; i < CONNECTIONS; i++)
                closep_(&w->fds[i]);
        closep_(&w->serial_fd);
        buf_free(&w->serial);
}

/* Starts one more connection, in the place of the oldest if need be. */
static void try_connect(struct waiting *w) {
        int *place = &w->fds[w->oldest];
        w->oldest = (w->oldest + 1) % CONNECTIONS;
        w->tried_ms = now_ms();
        closep_(place);
        *place = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (*place >= 0 && connect(*place, (const struct sockaddr *)&w->address, sizeof(w->address)) < 0 &&
            errno != EINPROGRESS) {
                close(*place);
                *place = -1;
        }
}

static int open_serial(const char *path, uint64_t from) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0)
                lseek(fd, lseek(fd, 0, SEEK_END) < (off_t)from ? 0 : (off_t)from, SEEK_SET);
        return fd;
}

/* Whether @words come in what is still to be read; @text is what was read just before. */
static bool find_words(int fd, struct buf *text, const char *words) {
        size_t len = strlen(words);
        while (buf_read(text, fd) > 0) {
                if (memmem(text->data, text->len, words, len))
                        return true;
                if (text->len > len)
                        buf_consume(text, text->len - len);
        }
        return false;
}

static void read_serial(struct waiting *w) {
        if (w->network_up)
                return;
        if (w->serial_fd < 0)
                w->serial_fd = open_serial(w->spec->serial_path, w->spec->serial_from);
        if (w->serial_fd >= 0)
                w->network_up = find_words(w->serial_fd, &w->serial, GUEST_NETWORK_UP);
}

/* Whether the server greeted on a readable connection. One that ended or says something else is closed. */
static bool greeted(int *fd) {
        char greeting[4];
        ssize_t n = recv(*fd, greeting, sizeof(greeting), MSG_PEEK);
        if (n == (ssize_t)sizeof(greeting) && memcmp(greeting, "SSH-", sizeof(greeting)) == 0)
                return true;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return false;
        close(*fd);
        *fd = -1;
        return false;
}

/* A new connection is due when the network is known to be up and the newest was refused, or after a while. */
static bool try_is_due(const struct waiting *w) {
        uint64_t age = now_ms() - w->tried_ms;
        int newest = w->fds[(w->oldest + CONNECTIONS - 1) % CONNECTIONS];
        return age >= PATIENCE_MS || (w->network_up && newest < 0 && age >= LOOK_MS);
}

/* 1: greeted; 2: the caller's descriptor; 0: neither. */
static int look(struct waiting *w, struct error *err) {
        struct pollfd pfds[CONNECTIONS + 2];
        for (unsigned i = 0; i < CONNECTIONS; i++)
                pfds[i] = (struct pollfd){.fd = w->fds[i], .events = POLLIN};
        pfds[CONNECTIONS] = (struct pollfd){.fd = w->spec->stop_fd, .events = POLLIN};
        pfds[CONNECTIONS + 1] = (struct pollfd){.fd = interrupt_fd(), .events = POLLIN};
        int n = poll(pfds, ELEMENTSOF(pfds), LOOK_MS);
        if (n < 0 && errno != EINTR)
                return err_errno(err, errno, "cannot wait for the SSH server");
        if (n <= 0)
                return 0;
        if (pfds[CONNECTIONS + 1].revents)
                return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted");
        if (pfds[CONNECTIONS].revents)
                return 2;
        for (unsigned i = 0; i < CONNECTIONS; i++)
                if (pfds[i].revents && greeted(&w->fds[i]))
                        return 1;
        return 0;
}

static void waiting_init(struct waiting *w, const struct banner_wait *spec) {
        *w = (struct waiting){
                        .spec = spec,
                        .address = {.sin_family = AF_INET,
                                    .sin_port = htons(spec->port),
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)},
                        .tried_ms = now_ms(),
                        .serial_fd = -1,
                        .serial = BUF_INIT(SERIAL_CHUNK * 2),
        };
        for (unsigned i = 0; i < CONNECTIONS; i++)
                w->fds[i] = -1;
}

bool serial_says(const char *serial_path, uint64_t serial_from, const char *words) {
        _cleanup_close_ int fd = open_serial(serial_path, serial_from);
        _cleanup_buf_ struct buf text = BUF_INIT(SERIAL_CHUNK * 2);
        return fd >= 0 && find_words(fd, &text, words);
}

int banner_wait(const struct banner_wait *wait, struct error *err) {
        _cleanup_(waiting_clear) struct waiting w;
        waiting_init(&w, wait);
        uint64_t deadline = now_ms() + wait->timeout_ms;
        while (now_ms() < deadline) {
                bool was_up = w.network_up;
                read_serial(&w);
                if (w.network_up != was_up || try_is_due(&w))
                        try_connect(&w);
                int r = look(&w, err);
                if (r != 0)
                        return r < 0 ? r : r - 1;
                progress_update(wait->progress, wait->phase, NULL, 0, 0, NULL);
        }
        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "nothing greets as an SSH server on port %u", wait->port);
}
