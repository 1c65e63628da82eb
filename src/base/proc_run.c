/* SPDX-License-Identifier: MIT */
/* proc_run(): a tool from its start to its end, its output split into lines as it comes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>

#define LINE_MAX_BYTES (64U * 1024)
#define TAIL_MAX_BYTES (8U * 1024)
#define END_GRACE_MS 5000
#define DRAIN_MS 200
#define N_STREAMS 3 /* stdout where it is kept apart, log, progress */

/* One pipe from the tool. */
struct stream {
        int fd;
        struct buf partial; /* a line that has not ended yet */
        struct buf *whole;  /* or everything goes here */
        proc_line_fn *on_line;
        bool keep_tail;
};

static void stream_line(const struct proc_run_spec *run, struct stream *s, const char *line) {
        if (s->on_line)
                s->on_line(line, run->userdata);
        if (!s->keep_tail)
                return;
        if (run->log_fd >= 0) {
                ssize_t n = write(run->log_fd, line, strlen(line));
                n = write(run->log_fd, "\n", 1);
                (void)n; /* a full disk must not end the tool; the tool will notice itself */
        }
        struct buf *tail = run->ret_tail;
        if (!tail)
                return;
        size_t len = strlen(line) + 1, max = tail->max && tail->max < TAIL_MAX_BYTES ? tail->max : TAIL_MAX_BYTES;
        if (len > max)
                return;
        while (tail->len + len > max) {
                const char *end = strchr(tail->data, '\n');
                buf_consume(tail, end ? (size_t)(end - tail->data) + 1 : tail->len);
        }
        buf_puts(tail, line);
        buf_puts(tail, "\n");
}

/* Hands out the whole lines; a carriage return ends a line too, as progress meters use it. */
static void stream_split(const struct proc_run_spec *run, struct stream *s, bool at_end) {
        size_t at = 0;
        while (at < s->partial.len) {
                const char *begin = s->partial.data + at;
                size_t n = strcspn(begin, "\r\n"); /* stops at a NUL as well */
                bool whole = at + n < s->partial.len;
                if (!whole && !at_end && n < LINE_MAX_BYTES)
                        break;
                _cleanup_free_ char *line = str_printable(begin, n);
                if (*line)
                        stream_line(run, s, line);
                at += n + whole;
        }
        buf_consume(&s->partial, at);
}

/* Returns 0, or -ENODATA once the stream has ended. */
static int stream_read(const struct proc_run_spec *run, struct stream *s, struct error *err) {
        struct buf *b = s->whole ? s->whole : &s->partial;
        ssize_t n = buf_read(b, s->fd);
        if (n == -EAGAIN)
                return 0;
        if (n == -E2BIG)
                return err_set(err, ERR_FAILED, E2BIG, "%s wrote more output than expected", run->spec.argv[0]);
        if (n <= 0) {
                if (!s->whole)
                        stream_split(run, s, true);
                close(s->fd);
                s->fd = -1;
                return -ENODATA;
        }
        if (!s->whole)
                stream_split(run, s, false);
        return 0;
}

static void stream_close(struct stream *s) {
        closep_(&s->fd);
        s->fd = -1;
        buf_free(&s->partial);
}

static int make_pipe(int *ret_read, int *ret_write, struct error *err) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_errno(err, errno, "cannot create a pipe");
        fcntl(fds[0], F_SETFL, O_NONBLOCK);
        *ret_read = fds[0];
        *ret_write = fds[1];
        return 0;
}

/*
 * Ends the tool with everything it started: it leads a process group of its own session. What the group writes on
 * the way is still read, and tells when the last of it is gone.
 */
static void end_group(const struct proc_run_spec *run, struct stream streams[N_STREAMS], struct process *p) {
        pid_t pid = p->pid;
        bool child_runs = true;
        /* Our own child and not reaped yet, so the group's number is still its own. */
        kill(-pid, SIGTERM);
        proc_signal(p, SIGTERM, NULL);
        for (uint64_t deadline = now_ms() + END_GRACE_MS;;) {
                struct pollfd pfds[N_STREAMS + 1];
                bool open = child_runs;
                for (int i = 0; i < N_STREAMS; i++) {
                        pfds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
                        open = open || streams[i].fd >= 0;
                }
                pfds[N_STREAMS] = (struct pollfd){.fd = child_runs ? p->pidfd : -1, .events = POLLIN};
                uint64_t now = now_ms();
                if (!open || now >= deadline)
                        break;
                int n = poll(pfds, N_STREAMS + 1, (int)(deadline - now));
                if (n < 0 && errno != EINTR)
                        break;
                if (n <= 0)
                        continue;
                for (int i = 0; i < N_STREAMS; i++)
                        if (pfds[i].revents && stream_read(run, &streams[i], NULL) == -E2BIG)
                                stream_close(&streams[i]);
                if (pfds[N_STREAMS].revents)
                        child_runs = false;
        }
        kill(-pid, SIGKILL);
        proc_signal(p, SIGKILL, NULL);
        proc_wait(p, 0, NULL, NULL);
}

/* Reads from the streams of @pfds that have something. */
static int read_streams(const struct proc_run_spec *run, struct stream streams[N_STREAMS], const struct pollfd *pfds,
                        struct error *err) {
        for (int i = 0; i < N_STREAMS; i++) {
                int r = pfds[i].revents ? stream_read(run, &streams[i], err) : 0;
                if (r < 0 && r != -ENODATA)
                        return r;
        }
        return 0;
}

static int pump(const struct proc_run_spec *run, struct stream streams[N_STREAMS], struct process *p,
                struct error *err) {
        uint64_t deadline = run->timeout_ms > 0 ? now_ms() + run->timeout_ms : UINT64_MAX;
        bool child_runs = true;
        while (child_runs || streams[0].fd >= 0 || streams[1].fd >= 0 || streams[2].fd >= 0) {
                struct pollfd pfds[N_STREAMS + 2];
                for (int i = 0; i < N_STREAMS; i++)
                        pfds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
                pfds[N_STREAMS] = (struct pollfd){.fd = child_runs ? p->pidfd : -1, .events = POLLIN};
                pfds[N_STREAMS + 1] = (struct pollfd){.fd = run->cancel_fd ? *run->cancel_fd : -1, .events = POLLIN};
                uint64_t now = now_ms();
                if (child_runs && now >= deadline) {
                        _cleanup_free_ char *limit = str_duration_ms(run->timeout_ms);
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s took longer than %s", run->spec.argv[0], limit);
                }
                uint64_t left = now >= deadline ? 0 : deadline - now;
                int n = poll(pfds, N_STREAMS + 2, left > INT_MAX ? -1 : (int)left);
                if (n < 0 && errno != EINTR)
                        return err_errno(err, errno, "cannot wait for %s", run->spec.argv[0]);
                if (n < 0)
                        continue;
                if (pfds[N_STREAMS + 1].revents)
                        return err_set(err, ERR_INTERRUPTED, ECANCELED, "%s was interrupted", run->spec.argv[0]);
                int r = read_streams(run, streams, pfds, err);
                if (r < 0)
                        return r;
                if (pfds[N_STREAMS].revents) {
                        child_runs = false;
                        /* A grandchild may hold the pipes open after the tool itself has ended: what that writes is
                         * waited for only a moment. */
                        deadline = now_ms() + DRAIN_MS;
                } else if (!child_runs && now >= deadline)
                        break;
        }
        return 0;
}

int proc_run(const struct proc_run_spec *run, struct proc_result *ret, struct error *err) {
        struct stream streams[N_STREAMS] = {
                        {.fd = -1, .partial = BUF_INIT(LINE_MAX_BYTES * 2), .whole = run->ret_stdout},
                        {.fd = -1, .partial = BUF_INIT(LINE_MAX_BYTES * 2), .on_line = run->on_line, .keep_tail = true},
                        {.fd = -1, .partial = BUF_INIT(LINE_MAX_BYTES * 2), .on_line = run->on_progress},
        };
        _cleanup_close_ int out = -1, log = -1, progress = -1;
        struct proc_spec spec = run->spec;
        struct proc_fd progress_fd;
        _cleanup_process_ struct process p = PROCESS_INIT;
        int r = make_pipe(&streams[1].fd, &log, err);
        if (r == 0 && run->ret_stdout)
                r = make_pipe(&streams[0].fd, &out, err);
        if (r == 0 && run->on_progress) {
                r = make_pipe(&streams[2].fd, &progress, err);
                progress_fd = (struct proc_fd){.parent_fd = progress, .child_fd = 3};
                spec.fds = &progress_fd;
                spec.n_fds = 1;
        }
        if (r == 0) {
                spec.stdout_fd = run->ret_stdout ? out : log;
                spec.stderr_fd = log;
                spec.new_session = true;
                r = proc_spawn(&spec, &p, err);
        }
        closep_(&out);
        closep_(&log);
        closep_(&progress);
        out = log = progress = -1;
        if (r == 0) {
                r = pump(run, streams, &p, err);
                if (r < 0)
                        end_group(run, streams, &p);
                else
                        r = proc_wait(&p, 0, ret, err);
        }
        for (int i = 0; i < N_STREAMS; i++) {
                if (!streams[i].whole)
                        stream_split(run, &streams[i], true);
                stream_close(&streams[i]);
        }
        return r;
}
