/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/tail.h>

#define BLOCK 65536

struct tail {
        const struct tail_spec *spec;
        int fd;             /* -1 while the file is missing */
        off_t offset;       /* up to where it was read */
        struct buf partial; /* a line that has not ended yet */
        int inotify_fd, file_watch, folder_watch;
};

static int emit(struct tail *t, const char *line, size_t len) {
        int r = t->spec->on_line(line, len, t->spec->userdata);
        return r < 0 ? r : 0;
}

/* Hands out the whole lines that were read, and what is longer than a line may be. */
static int emit_lines(struct tail *t) {
        size_t begin = 0;
        int r = 0;
        while (r == 0) {
                const char *data = t->partial.data + begin;
                size_t left = t->partial.len - begin;
                const char *newline = left ? memchr(data, '\n', left) : NULL;
                size_t len = newline ? (size_t)(newline - data) : left;
                if (len > TAIL_LINE_MAX) {
                        len = TAIL_LINE_MAX;
                        newline = NULL;
                } else if (!newline && len < TAIL_LINE_MAX)
                        break;
                r = emit(t, data, len);
                begin += len + (newline ? 1 : 0);
        }
        buf_consume(&t->partial, begin);
        return r;
}

/* The last line may lack its newline: it is shown when nothing more can come. */
static int emit_rest(struct tail *t) {
        if (t->partial.len == 0)
                return 0;
        int r = emit(t, t->partial.data, t->partial.len);
        buf_clear(&t->partial);
        return r;
}

/* Reads everything from the offset to the end of what is there now. */
static int drain(struct tail *t, struct error *err) {
        while (t->fd >= 0) {
                char block[BLOCK];
                ssize_t n = pread(t->fd, block, sizeof(block), t->offset);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", t->spec->path);
                if (n == 0)
                        return 0;
                t->offset += n;
                buf_append(&t->partial, block, (size_t)n);
                int r = emit_lines(t);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Where the last @lines lines begin. A newline at the very end ends the last line and begins none. */
static int find_start(int fd, uint64_t lines, off_t size, off_t *ret) {
        uint64_t found = 0;
        off_t end = size;
        while (end > 0 && lines != TAIL_ALL) {
                char block[BLOCK];
                size_t len = end < BLOCK ? (size_t)end : BLOCK;
                off_t begin = end - (off_t)len;
                ssize_t n = pread(fd, block, len, begin);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if ((size_t)n < len) {
                        /* It was cut while we looked: begin with what is left. */
                        *ret = 0;
                        return 0;
                }
                for (size_t i = len; i-- > 0;) {
                        if (block[i] != '\n' || begin + (off_t)i == size - 1)
                                continue;
                        if (++found == lines) {
                                *ret = begin + (off_t)i + 1;
                                return 0;
                        }
                }
                end = begin;
        }
        *ret = 0;
        return 0;
}

static int open_file(struct tail *t, struct error *err) {
        /* O_NONBLOCK so that a FIFO in the file's place cannot hang the program. */
        int fd = open(t->spec->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return err_errno(err, errno, "cannot open %s", t->spec->path);
        struct stat st;
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
                close(fd);
                return err_set(err, ERR_FAILED, EINVAL, "cannot read %s: it is not a regular file", t->spec->path);
        }
        t->fd = fd;
        t->offset = 0;
        return 0;
}

static void watch_file(struct tail *t) {
        if (t->file_watch >= 0)
                inotify_rm_watch(t->inotify_fd, t->file_watch);
        t->file_watch = t->fd >= 0 ? inotify_add_watch(t->inotify_fd, t->spec->path, IN_MODIFY | IN_ATTRIB) : -1;
}

static int watch_begin(struct tail *t, struct error *err) {
        t->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (t->inotify_fd < 0) {
                int r = err_errno(err, errno, "cannot watch %s", t->spec->path);
                if (r == -EMFILE)
                        err_hint(err, "too many programs watch files: sudo sysctl fs.inotify.max_user_instances=512");
                return r;
        }
        _cleanup_free_ char *folder = path_parent(t->spec->path);
        t->folder_watch = inotify_add_watch(t->inotify_fd, folder,
                                            IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
        if (t->folder_watch < 0)
                return err_errno(err, errno, "cannot watch %s", folder);
        return 0;
}

/* Goes on at the beginning of a file that was cut, and with the new one of a file that was replaced. */
static int check_rotation(struct tail *t, struct error *err) {
        struct stat now, open_one;
        bool there = stat(t->spec->path, &now) == 0;
        if (t->fd >= 0 && fstat(t->fd, &open_one) == 0) {
                if (open_one.st_size < t->offset) {
                        int r = emit_rest(t);
                        if (r < 0)
                                return r;
                        t->offset = 0;
                }
                bool same = there && now.st_dev == open_one.st_dev && now.st_ino == open_one.st_ino;
                /* Renamed away, with none in its place yet: what writes to it may go on for a while. One that was
                 * removed is let go, because an open file keeps its folder's removal from being reported. */
                if (same || (!there && open_one.st_nlink > 0))
                        return 0;
                /* The old one may have got its last lines since it was drained. */
                int r = drain(t, err);
                if (r == 0)
                        r = emit_rest(t);
                if (r < 0)
                        return r;
                closep_(&t->fd);
                t->fd = -1;
        }
        if (there && t->fd < 0 && open_file(t, NULL) == 0)
                watch_file(t);
        return 0;
}

/* Waits for something to happen. 1: it did; 0: the folder or the reader is gone. */
static int wait_for_change(struct tail *t, struct error *err) {
        struct pollfd pfds[2] = {{.fd = t->inotify_fd, .events = POLLIN}, {.fd = t->spec->hangup_fd, .events = 0}};
        int n = poll(pfds, 2, -1);
        if (n < 0 && errno != EINTR)
                return err_errno(err, errno, "cannot wait for %s", t->spec->path);
        if (n > 0 && pfds[1].revents)
                return 0;
        char events[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
                        __attribute__((aligned(__alignof__(struct inotify_event))));
        bool gone = false;
        ssize_t len;
        while ((len = read(t->inotify_fd, events, sizeof(events))) > 0)
                for (char *p = events; p < events + len;) {
                        const struct inotify_event *event = (const struct inotify_event *)p;
                        if (event->wd == t->folder_watch &&
                            (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT)))
                                gone = true;
                        p += sizeof(*event) + event->len;
                }
        return gone ? 0 : 1;
}

static int follow(struct tail *t, struct error *err) {
        watch_file(t);
        for (;;) {
                int r = check_rotation(t, err);
                if (r == 0)
                        r = drain(t, err);
                if (r < 0)
                        return r;
                if (t->spec->on_pause)
                        t->spec->on_pause(t->spec->userdata);
                r = wait_for_change(t, err);
                if (r <= 0)
                        return r;
        }
}

static int tail_run(struct tail *t, struct error *err) {
        const struct tail_spec *spec = t->spec;
        /* Watching begins before reading, so that nothing can be added in between unseen. */
        int r = spec->follow ? watch_begin(t, err) : 0;
        if (r == 0)
                r = open_file(t, err);
        if (r == -ENOENT && spec->follow) {
                error_clear(err);
                return follow(t, err);
        }
        if (r < 0)
                return r;
        struct stat st;
        if (fstat(t->fd, &st) < 0)
                return err_errno(err, errno, "cannot read %s", spec->path);
        if (spec->lines == 0)
                t->offset = st.st_size;
        else {
                r = find_start(t->fd, spec->lines, st.st_size, &t->offset);
                if (r < 0)
                        return err_errno(err, -r, "cannot read %s", spec->path);
        }
        r = drain(t, err);
        if (r == 0)
                r = spec->follow ? follow(t, err) : 0;
        return r == 0 ? emit_rest(t) : r;
}

int tail_file(const struct tail_spec *spec, struct error *err) {
        struct tail t = {.spec = spec,
                         .fd = -1,
                         .partial = BUF_INIT(TAIL_LINE_MAX + 2 * BLOCK),
                         .inotify_fd = -1,
                         .file_watch = -1,
                         .folder_watch = -1};
        int r = tail_run(&t, err);
        closep_(&t.fd);
        closep_(&t.inotify_fd);
        buf_free(&t.partial);
        return r;
}
