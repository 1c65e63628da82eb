/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <k3s-vm/loop.h>

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNALS };

struct loop_source {
        struct loop *loop;
        struct loop_source *next;
        enum source_kind kind;
        int fd; /* owned for timers and signals */
        union {
                loop_fd_fn *on_fd;
                loop_timer_fn *on_timer;
                loop_signal_fn *on_signal;
        };
        void *userdata;
        bool removed; /* freed once no event of the current batch can name it */
};

struct loop {
        int epoll_fd;
        struct loop_source *sources;
        bool stopped;
        int value;
        bool sweep;
};

int loop_new(struct loop **ret, struct error *err) {
        int fd = epoll_create1(EPOLL_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot create an event loop");
        struct loop *loop = xcalloc(1, sizeof(*loop));
        loop->epoll_fd = fd;
        *ret = loop;
        return 0;
}

static void source_free(struct loop_source *s) {
        if (s->kind != SOURCE_FD && s->fd >= 0)
                close(s->fd);
        free(s);
}

void loop_free(struct loop *loop) {
        if (!loop)
                return;
        while (loop->sources) {
                struct loop_source *s = loop->sources;
                loop->sources = s->next;
                source_free(s);
        }
        close(loop->epoll_fd);
        free(loop);
}

/* Registers @source, taking it over; frees it on failure. */
static int add_source(struct loop *loop, struct loop_source *source, uint32_t events, struct loop_source **ret,
                      struct error *err) {
        struct epoll_event event = {.events = events, .data.ptr = source};
        if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0) {
                int r = err_errno(err, errno, "cannot watch a descriptor");
                source_free(source);
                return r;
        }
        source->loop = loop;
        source->next = loop->sources;
        loop->sources = source;
        if (ret)
                *ret = source;
        return 0;
}

int loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn *fn, void *userdata, struct loop_source **ret,
                struct error *err) {
        struct loop_source *source = xcalloc(1, sizeof(*source));
        *source = (struct loop_source){.kind = SOURCE_FD, .fd = fd, .on_fd = fn, .userdata = userdata};
        return add_source(loop, source, events, ret, err);
}

int loop_set_events(struct loop_source *source, uint32_t events) {
        struct epoll_event event = {.events = events, .data.ptr = source};
        return epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0 ? -errno : 0;
}

static struct timespec timespec_of_ms(uint64_t ms) {
        return (struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
}

void loop_arm(struct loop_source *timer, uint64_t delay_ms, uint64_t interval_ms) {
        struct itimerspec spec = {.it_value = timespec_of_ms(delay_ms), .it_interval = timespec_of_ms(interval_ms)};
        timerfd_settime(timer->fd, 0, &spec, NULL);
}

int loop_add_timer(struct loop *loop, uint64_t delay_ms, uint64_t interval_ms, loop_timer_fn *fn, void *userdata,
                   struct loop_source **ret, struct error *err) {
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
                return err_errno(err, errno, "cannot create a timer");
        struct loop_source *source = xcalloc(1, sizeof(*source));
        *source = (struct loop_source){.kind = SOURCE_TIMER, .fd = fd, .on_timer = fn, .userdata = userdata};
        struct loop_source *added = NULL;
        int r = add_source(loop, source, EPOLLIN, &added, err);
        if (r < 0)
                return r;
        loop_arm(added, delay_ms, interval_ms);
        if (ret)
                *ret = added;
        return 0;
}

int loop_add_signals(struct loop *loop, const sigset_t *set, loop_signal_fn *fn, void *userdata, struct error *err) {
        sigprocmask(SIG_BLOCK, set, NULL);
        int fd = signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (fd < 0)
                return err_errno(err, errno, "cannot receive signals");
        struct loop_source *source = xcalloc(1, sizeof(*source));
        *source = (struct loop_source){.kind = SOURCE_SIGNALS, .fd = fd, .on_signal = fn, .userdata = userdata};
        return add_source(loop, source, EPOLLIN, NULL, err);
}

void loop_remove(struct loop_source *source) {
        if (!source || source->removed)
                return;
        epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
        source->removed = true;
        source->loop->sweep = true;
}

static void sweep(struct loop *loop) {
        struct loop_source **link = &loop->sources;
        while (*link) {
                struct loop_source *s = *link;
                if (s->removed) {
                        *link = s->next;
                        source_free(s);
                } else
                        link = &s->next;
        }
        loop->sweep = false;
}

static int dispatch(struct loop *loop, struct loop_source *s, uint32_t events) {
        if (s->kind == SOURCE_FD)
                return s->on_fd(loop, s->fd, events, s->userdata);
        if (s->kind == SOURCE_TIMER) {
                uint64_t expirations;
                if (read(s->fd, &expirations, sizeof(expirations)) != sizeof(expirations))
                        return 0;
                return s->on_timer(loop, s->userdata);
        }
        struct signalfd_siginfo info;
        if (read(s->fd, &info, sizeof(info)) != sizeof(info))
                return 0;
        return s->on_signal(loop, (int)info.ssi_signo, s->userdata);
}

void loop_stop(struct loop *loop, int value) {
        loop->stopped = true;
        loop->value = value;
}

int loop_run(struct loop *loop, struct error *err) {
        loop->stopped = false;
        while (!loop->stopped) {
                struct epoll_event events[16];
                int n = epoll_wait(loop->epoll_fd, events, ELEMENTSOF(events), -1);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot wait for events");
                for (int i = 0; i < n && !loop->stopped; i++) {
                        struct loop_source *source = events[i].data.ptr;
                        if (source->removed)
                                continue;
                        int r = dispatch(loop, source, events[i].events);
                        if (r < 0)
                                loop_stop(loop, r);
                }
                if (loop->sweep)
                        sweep(loop);
        }
        return loop->value;
}
