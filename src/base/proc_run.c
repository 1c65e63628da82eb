/* SPDX-License-Identifier: MIT */
/* proc_run(): a tool from its start to its end, its output split into lines as it comes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>

#define LINE_MAX_BYTES (64U * 1024)
#define TAIL_MAX_BYTES (8U * 1024)

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
        if (run->ret_tail) {
                size_t len = strlen(line) + 1;
                if (len > TAIL_MAX_BYTES)
                        return;
                while (run->ret_tail->len + len > TAIL_MAX_BYTES) {
                        const char *end = strchr(run->ret_tail->data, '\n');
                        buf_consume(run->ret_tail, end ? (size_t)(end - run->ret_tail->data) + 1 : run->ret_tail->len);
                }
                buf_puts(run->ret_tail, line);
                buf_puts(run->ret_tail, "\n");
        }
}

/* Hands out the whole lines; a carriage return ends a line too, as progress meters use it. */
static void stream_split(const struct proc_run_spec *run, struct stream *s, bool at_end) {
        for (;;) {
                size_t n = s->partial.len ? strcspn(s->partial.data, "\r\n") : 0;
                bool whole = n < s->partial.len;
                if (!whole && !(at_end && s->partial.len > 0) && s->partial.len < LINE_MAX_BYTES)
                        return;
                _cleanup_free_ char *line = str_printable(s->partial.data, n);
                buf_consume(&s->partial, whole ? n + 1 : n);
                if (*line)
                        stream_line(run, s, line);
                if (s->partial.len == 0)
                        return;
        }
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

/* Ends the tool with everything it started: it leads a process group of its own session. */
static void end_group(struct process *p) {
        pid_t pid = p->pid;
        /* Our own child and not reaped yet, so the group's number is still its own. */
        kill(-pid, SIGTERM);
        proc_signal(p, SIGTERM, NULL);
        if (proc_wait(p, 5000, NULL, NULL) < 0) {
                kill(-pid, SIGKILL);
                proc_wait(p, 0, NULL, NULL);
        }
}

static int pump(const struct proc_run_spec *run, struct stream streams[3], struct process *p, struct error *err) {
        uint64_t deadline = now_ms() + run->timeout_ms;
        bool child_runs = true;
        while (child_runs || streams[0].fd >= 0 || streams[1].fd >= 0 || streams[2].fd >= 0) {
                struct pollfd pfds[5];
                for (int i = 0; i < 3; i++)
                        pfds[i] = (struct pollfd){.fd = streams[i].fd, .events = POLLIN};
                pfds[3] = (struct pollfd){.fd = child_runs ? p->pidfd : -1, .events = POLLIN};
                pfds[4] = (struct pollfd){.fd = run->cancel_fd ? *run->cancel_fd : -1, .events = POLLIN};
                int wait_ms = -1;
                if (run->timeout_ms > 0) {
                        uint64_t now = now_ms();
                        if (now >= deadline)
                                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s took longer than %u s",
                                               run->spec.argv[0], run->timeout_ms / 1000);
                        wait_ms = (int)(deadline - now);
                }
                /* A grandchild may hold the pipes open after the tool itself has ended: that output is
                 * waited for only a moment. */
                if (!child_runs)
                        wait_ms = 200;
                int n = poll(pfds, 5, wait_ms);
                if (n < 0 && errno != EINTR)
                        return err_errno(err, errno, "cannot wait for %s", run->spec.argv[0]);
                if (n == 0 && !child_runs)
                        return 0;
                if (n <= 0)
                        continue;
                if (pfds[4].revents)
                        return err_set(err, ERR_INTERRUPTED, ECANCELED, "%s was interrupted", run->spec.argv[0]);
                for (int i = 0; i < 3; i++) {
                        if (!pfds[i].revents)
                                continue;
                        int r = stream_read(run, &streams[i], err);
                        if (r < 0 && r != -ENODATA)
                                return r;
                }
                if (pfds[3].revents)
                        child_runs = false;
        }
        return 0;
}

int proc_run(const struct proc_run_spec *run, struct proc_result *ret, struct error *err) {
        struct stream streams[3] = {
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
                        end_group(&p);
                else
                        r = proc_wait(&p, 0, ret, err);
        }
        for (int i = 0; i < 3; i++)
                stream_close(&streams[i]);
        return r;
}
