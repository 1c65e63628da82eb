/* SPDX-License-Identifier: MIT */
/* Commands in the guest: their input, output and end, between memory or this process's own descriptors. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#include "remote_internal.h"

#define CHUNK 32768U
/* How long a step of opening the channel may take where no other limit is given. */
#define OPEN_TIMEOUT_MS 30000U
/* How long a command that was interrupted gets to end by itself. */
#define INTERRUPT_GRACE_MS 1000U
/* A guest that was reset does not know the connection any more, and says so once it gets something. */
#define ALIVE_INTERVAL_MS 15000U
#define NO_STATUS (-1)

/* Where one stream of the command goes: into a buffer, to a descriptor, or nowhere. */
struct sink {
        struct buf *memory;
        int fd; /* -1: none */
        char *pending;
        size_t start, len; /* what @fd has not taken yet */
};

struct source {
        const char *data;
        size_t len;            /* bytes left at @data */
        int fd;                /* -1: only what is in memory */
        remote_input_fn *read; /* NULL, or where more comes from */
        void *userdata;
        unsigned timeout_ms; /* for @read: how long the guest may take nothing */
        char *chunk;
        bool eof_sent;
};

struct run {
        struct remote *remote;
        ssh_channel channel;
        struct ssh_channel_callbacks_struct callbacks;
        struct sink sinks[2]; /* stdout, stderr */
        struct source source;
        int signal_fd; /* -1: none */
        bool tty;
        int status; /* NO_STATUS until the guest has told it */
        uint64_t deadline_ms;
        bool interrupted;
        bool arrived; /* output came in since this was last cleared */
        bool source_ready, sink_ready[2];
};

static void run_clear(struct run *run) {
        for (size_t i = 0; i < ELEMENTSOF(run->sinks); i++)
                free(run->sinks[i].pending);
        free(run->source.chunk);
        if (!run->channel)
                return;
        /* libssh keeps a channel until the guest has closed it too, longer than these callbacks live. */
        libssh.ssh_remove_channel_callbacks(run->channel, &run->callbacks);
        libssh.ssh_channel_free(run->channel);
}

static void on_exit_status(_unused_ ssh_session session, _unused_ ssh_channel channel, int status, void *userdata) {
        struct run *run = userdata;
        run->status = status & 0xff;
}

/* Takes nothing: what came stays in the channel until it is read. */
static int on_output(_unused_ ssh_session session, _unused_ ssh_channel channel, _unused_ void *data,
                     _unused_ uint32_t len, _unused_ int is_stderr, void *userdata) {
        struct run *run = userdata;
        run->arrived = true;
        return 0;
}

/* Names of RFC 4254, section 6.10, as a shell's 128 + number. */
static void on_exit_signal(_unused_ ssh_session session, _unused_ ssh_channel channel, const char *name,
                           _unused_ int core, _unused_ const char *message, _unused_ const char *language,
                           void *userdata) {
        static const struct {
                const char *name;
                int number;
        } signals[] = {
                        {"ABRT", SIGABRT}, {"ALRM", SIGALRM}, {"FPE", SIGFPE},   {"HUP", SIGHUP},   {"ILL", SIGILL},
                        {"INT", SIGINT},   {"KILL", SIGKILL}, {"PIPE", SIGPIPE}, {"QUIT", SIGQUIT}, {"SEGV", SIGSEGV},
                        {"TERM", SIGTERM}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2},
        };
        struct run *run = userdata;
        run->status = 255;
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                if (str_eq(name, signals[i].name))
                        run->status = 128 + signals[i].number;
}

/* Opening. */

static int open_timed_out(struct error *err) {
        if (interrupt_pending())
                return interrupt_check(err);
        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the guest did not start the command in time");
}

static void window_size(int *columns, int *rows) {
        struct winsize size = {0};
        if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
                size = (struct winsize){.ws_col = 80, .ws_row = 24};
        *columns = size.ws_col;
        *rows = size.ws_row;
}

static int open_channel(struct run *run, const char *command, struct error *err) {
        struct remote *r = run->remote;
        uint64_t deadline = now_ms() + OPEN_TIMEOUT_MS;
        if (deadline > run->deadline_ms)
                deadline = run->deadline_ms;
        run->channel = libssh.ssh_channel_new(r->session);
        if (!run->channel)
                return remote_error(r, err, "cannot run a command in the guest");
        run->callbacks = (struct ssh_channel_callbacks_struct){
                        .userdata = run,
                        .channel_data_function = on_output,
                        .channel_exit_status_function = on_exit_status,
                        .channel_exit_signal_function = on_exit_signal,
        };
        ssh_callbacks_init(&run->callbacks);
        libssh.ssh_set_channel_callbacks(run->channel, &run->callbacks);

        int rc;
        while ((rc = libssh.ssh_channel_open_session(run->channel)) == SSH_AGAIN)
                if (remote_wait(r, deadline) < 0)
                        return open_timed_out(err);
        if (rc == SSH_OK && run->tty) {
                const char *term = getenv("TERM");
                int columns, rows;
                window_size(&columns, &rows);
                while ((rc = libssh.ssh_channel_request_pty_size(run->channel, term && *term ? term : "xterm", columns,
                                                                 rows)) == SSH_AGAIN)
                        if (remote_wait(r, deadline) < 0)
                                return open_timed_out(err);
        }
        if (rc == SSH_OK)
                while ((rc = libssh.ssh_channel_request_exec(run->channel, command)) == SSH_AGAIN)
                        if (remote_wait(r, deadline) < 0)
                                return open_timed_out(err);
        return rc == SSH_OK ? 0 : remote_error(r, err, "cannot run a command in the guest");
}

/* Moving bytes. Each step returns 1 when it did something, 0 when it could not, or a negative errno. */

/* As a shell shows the end of a command whose reader went away. */
static int reader_gone(struct run *run) {
        run->status = 128 + SIGPIPE;
        return -EPIPE;
}

static int flush_sink(struct run *run, int i) {
        struct sink *sink = &run->sinks[i];
        if (sink->len == 0 || !run->sink_ready[i])
                return 0;
        run->sink_ready[i] = false;
        /* The descriptor is shared with others and may be blocking: a pipe that polls writable takes this much. */
        size_t n = sink->len < 4096 ? sink->len : 4096;
        ssize_t written = write(sink->fd, sink->pending + sink->start, n);
        if (written < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        sink->start += (size_t)written;
        sink->len -= (size_t)written;
        return 1;
}

/* What the descriptor has not taken stays in the channel, whose window then makes the guest wait. */
static int fill_sink(struct run *run, int i, struct error *err) {
        struct sink *sink = &run->sinks[i];
        if (sink->len > 0)
                return 0;
        int n = libssh.ssh_channel_read_nonblocking(run->channel, sink->pending, CHUNK, i);
        if (n == SSH_ERROR)
                return remote_error(run->remote, err, "the command in the guest was cut off");
        if (n <= 0)
                return 0;
        if (sink->fd >= 0) {
                sink->start = 0;
                sink->len = (size_t)n;
        } else if (sink->memory && buf_append(sink->memory, sink->pending, (size_t)n) < 0)
                return err_set(err, ERR_FAILED, E2BIG, "the command in the guest wrote more output than expected");
        return 1;
}

/* 1, or 0 at the end. */
static int pull_source(struct source *source, struct error *err) {
        ssize_t n = source->read(source->chunk, CHUNK, source->userdata, err);
        if (n < 0)
                return (int)n;
        source->data = source->chunk;
        source->len = (size_t)n;
        return n > 0;
}

static int read_source(struct source *source) {
        ssize_t n = read(source->fd, source->chunk, CHUNK);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                source->fd = -1;
                return 1;
        }
        source->data = source->chunk;
        source->len = (size_t)n;
        return 1;
}

static int feed_source(struct run *run, struct error *err) {
        struct source *source = &run->source;
        if (source->eof_sent)
                return 0;
        if (libssh.ssh_channel_is_closed(run->channel)) {
                source->eof_sent = true;
                return 1;
        }
        if (source->len == 0) {
                if (source->fd >= 0) {
                        if (!run->source_ready)
                                return 0;
                        run->source_ready = false;
                        return read_source(source);
                }
                if (source->read) {
                        int r = pull_source(source, err);
                        if (r != 0)
                                return r;
                }
                libssh.ssh_channel_send_eof(run->channel);
                source->eof_sent = true;
                return 1;
        }
        /* libssh would take everything and queue it in memory. */
        uint32_t window = libssh.ssh_channel_window_size(run->channel);
        if (window == 0 || (libssh.ssh_get_poll_flags(run->remote->session) & SSH_WRITE_PENDING))
                return 0;
        uint32_t n = source->len < CHUNK ? (uint32_t)source->len : CHUNK;
        int written = libssh.ssh_channel_write(run->channel, source->data, n < window ? n : window);
        if (written < 0) {
                /* The command may have ended without reading it all, which is its right. A connection
                 * that is gone shows when reading. */
                source->eof_sent = true;
                return 1;
        }
        source->data += written;
        source->len -= (size_t)written;
        if (written > 0 && source->read)
                run->deadline_ms = now_ms() + source->timeout_ms;
        return written > 0;
}

static void on_signals(struct run *run) {
        struct signalfd_siginfo info;
        while (read(run->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                int columns, rows;
                switch (info.ssi_signo) {
                case SIGWINCH:
                        if (run->tty) {
                                window_size(&columns, &rows);
                                libssh.ssh_channel_change_pty_size(run->channel, columns, rows);
                        }
                        break;
                case SIGPIPE:
                        break; /* seen as EPIPE where it belongs */
                default:
                        /* An sshd passes signals on only where it can; the rest is closing the channel. */
                        libssh.ssh_channel_request_send_signal(run->channel, info.ssi_signo == SIGINT   ? "INT"
                                                                             : info.ssi_signo == SIGHUP ? "HUP"
                                                                                                        : "TERM");
                        run->interrupted = true;
                        if (run->deadline_ms > now_ms() + INTERRUPT_GRACE_MS)
                                run->deadline_ms = now_ms() + INTERRUPT_GRACE_MS;
                }
        }
}

/* Waits for anything that lets run_step() go on. -EPIPE: the reader of stdout is gone. */
static int run_wait(struct run *run, struct error *err) {
        int flags = libssh.ssh_get_poll_flags(run->remote->session);
        struct source *source = &run->source;
        bool wants_input = !source->eof_sent && source->len == 0;
        struct pollfd pfds[] = {
                        {.fd = run->remote->fd, .events = (short)(POLLIN | (flags & SSH_WRITE_PENDING ? POLLOUT : 0))},
                        {.fd = wants_input ? source->fd : -1, .events = POLLIN},
                        /* Watched without anything to write as well, for a reader that goes away. */
                        {.fd = run->sinks[0].fd, .events = run->sinks[0].len > 0 ? POLLOUT : 0},
                        {.fd = run->sinks[1].len > 0 ? run->sinks[1].fd : -1, .events = POLLOUT},
                        {.fd = run->signal_fd, .events = POLLIN},
                        /* With signals of its own, a run deals with them first. */
                        {.fd = run->signal_fd < 0 ? interrupt_fd() : -1, .events = POLLIN},
        };
        uint64_t now = now_ms();
        uint64_t left = now < run->deadline_ms ? run->deadline_ms - now : 0;
        int n = poll(pfds, ELEMENTSOF(pfds), (int)(left < ALIVE_INTERVAL_MS ? left : ALIVE_INTERVAL_MS));
        if (n < 0 && errno != EINTR)
                return err_errno(err, errno, "cannot wait for the command in the guest");
        if (n == 0 && now_ms() < run->deadline_ms) {
                libssh.ssh_send_ignore(run->remote->session, "");
                return 0;
        }
        if (n == 0 && run->interrupted)
                return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted");
        if (n == 0)
                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the command in the guest took too long");
        if (n < 0)
                return 0;
        if (pfds[5].revents)
                return interrupt_check(err);
        run->source_ready = pfds[1].revents != 0;
        run->sink_ready[0] = pfds[2].revents != 0;
        run->sink_ready[1] = pfds[3].revents != 0;
        if (pfds[4].revents)
                on_signals(run);
        if (!(pfds[2].revents & POLLERR) || run->sinks[0].len > 0)
                return 0;
        return run->interrupted ? err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted") : reader_gone(run);
}

/* One round over everything. 1 when something moved, 0 when all wait, or a negative errno. */
static int run_step(struct run *run, struct error *err) {
        int moved = 0;
        run->arrived = false;
        /* Reading from a channel moves packets too, but not once its data has ended, and the exit status may
         * come long after that. A failure shows when reading. */
        libssh.ssh_event_dopoll(run->remote->event, 0);
        for (int i = 0; i < 2; i++) {
                int r = flush_sink(run, i);
                if (r == -EPIPE)
                        return reader_gone(run);
                if (r < 0)
                        return err_errno(err, -r, "cannot write the command's output");
                moved |= r;
                r = fill_sink(run, i, err);
                if (r < 0)
                        return r;
                moved |= r;
        }
        int fed = feed_source(run, err);
        if (fed < 0)
                return fed;
        moved |= fed;
        /* Any call of libssh may have taken in what belongs to a stream that was looked at before it, and
         * nothing more may come from the socket. */
        return moved || run->arrived;
}

static int run_to_end(struct run *run, const char *command, int *ret_status, struct error *err) {
        for (size_t i = 0; i < ELEMENTSOF(run->sinks); i++)
                run->sinks[i].pending = xcalloc(1, CHUNK);
        if (run->source.fd >= 0 || run->source.read)
                run->source.chunk = xcalloc(1, CHUNK);
        int r = open_channel(run, command, err);
        if (r < 0)
                return r;
        for (;;) {
                r = run_step(run, err);
                if (r == -EPIPE)
                        break;
                if (r < 0)
                        return r;
                if (r > 0) {
                        /* Without this a command that never stops writing would outlast its time limit. */
                        if (now_ms() < run->deadline_ms)
                                continue;
                } else if (run->sinks[0].len == 0 && run->sinks[1].len == 0 &&
                           libssh.ssh_channel_is_closed(run->channel))
                        break;
                r = run_wait(run, err);
                if (r == -EPIPE)
                        break;
                if (r < 0)
                        return r;
        }
        if (run->status == NO_STATUS && !libssh.ssh_is_connected(run->remote->session))
                return err_set(err, ERR_FAILED, ECONNRESET,
                               "the command in the guest was cut off: the connection was "
                               "lost");
        if (run->status == NO_STATUS)
                return err_set(err, ERR_FAILED, EPROTO, "the guest did not say how the command ended");
        *ret_status = run->status;
        return 0;
}

int remote_exec(struct remote *r, const struct remote_exec *exec, int *ret_status, struct error *err) {
        unsigned timeout_ms = exec->timeout_ms ? exec->timeout_ms : 60000;
        _cleanup_(run_clear) struct run run = {
                        .remote = r,
                        .sinks = {{.memory = exec->ret_stdout, .fd = -1}, {.memory = exec->ret_stderr, .fd = -1}},
                        .source = {.data = exec->input,
                                   .len = exec->input_len,
                                   .fd = -1,
                                   .read = exec->read_input,
                                   .userdata = exec->userdata,
                                   .timeout_ms = timeout_ms},
                        .signal_fd = -1,
                        .status = NO_STATUS,
                        .deadline_ms = now_ms() + timeout_ms,
        };
        return run_to_end(&run, exec->command, ret_status, err);
}

/* The terminal and the signals, put back whatever happens. */
struct stdio_state {
        sigset_t before;
        int signal_fd;
        bool raw;
        struct termios termios;
};

static void stdio_restore(struct stdio_state *s) {
        if (s->raw)
                tcsetattr(STDIN_FILENO, TCSADRAIN, &s->termios);
        if (s->signal_fd >= 0)
                close(s->signal_fd);
        /* A SIGPIPE that was kept back has been dealt with and must not end the program now. */
        sigset_t pipe_only;
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        if (!sigismember(&s->before, SIGPIPE))
                while (sigtimedwait(&pipe_only, NULL, &(struct timespec){0}) == SIGPIPE)
                        ;
        pthread_sigmask(SIG_SETMASK, &s->before, NULL);
}

static int stdio_take(struct stdio_state *s, bool tty, struct error *err) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGWINCH);
        sigaddset(&set, SIGPIPE);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (s->signal_fd < 0)
                return err_errno(err, errno, "cannot watch signals");
        if (!tty || !isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &s->termios) < 0)
                return 0;
        struct termios raw = s->termios;
        cfmakeraw(&raw);
        if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0)
                return err_errno(err, errno, "cannot set the terminal up");
        s->raw = true;
        return 0;
}

int remote_exec_stdio(struct remote *r, const char *command, bool tty, int *ret_status, struct error *err) {
        _cleanup_(stdio_restore) struct stdio_state state = {.signal_fd = -1};
        pthread_sigmask(SIG_SETMASK, NULL, &state.before);
        int rc = stdio_take(&state, tty, err);
        if (rc < 0)
                return rc;
        _cleanup_(run_clear) struct run run = {
                        .remote = r,
                        .sinks = {{.fd = STDOUT_FILENO}, {.fd = STDERR_FILENO}},
                        .source = {.fd = STDIN_FILENO},
                        .signal_fd = state.signal_fd,
                        .tty = tty,
                        .status = NO_STATUS,
                        .deadline_ms = UINT64_MAX,
        };
        return run_to_end(&run, command, ret_status, err);
}
