/* SPDX-License-Identifier: MIT */
/* What the supervisor writes down, and keeping it and QEMU's own output bounded. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/supervisor.h>

#include "supervise.h"

#define EVENTS_MAX_BYTES (4 * 1024 * 1024)
#define EVENT_MAX_BYTES (64U * 1024)
#define TAIL_BYTES (16U * 1024)
#define KEPT_BYTES (1024 * 1024) /* of a log that was cut */

void events_append(const struct project *p, const char *event, struct json *fields) {
        _cleanup_json_ struct json *given = fields, *line = json_new_object();
        uint64_t now = wall_ms();
        _cleanup_free_ char *time = time_rfc3339((time_t)(now / 1000));
        json_set_string(line, "time", time);
        json_set_number(line, "ms", (double)now);
        json_set_string(line, "event", event);
        for (const struct json *f = json_first(given); f; f = json_next(f))
                json_set(line, json_key(f), json_copy(f));
        _cleanup_free_ char *text = json_print(line, false);
        _cleanup_free_ char *whole = xasprintf("%s\n", text);
        if (strlen(whole) > EVENT_MAX_BYTES)
                return;

        if (fs_size(p->events_path) > EVENTS_MAX_BYTES) {
                _cleanup_free_ char *old = xasprintf("%s.1", p->events_path);
                rename(p->events_path, old);
        }
        /* One write to a file opened for appending: lines of several processes do not mix. A disk that takes no more
         * must not stop a supervisor, so nothing is said. */
        _cleanup_close_ int fd = open(p->events_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return;
        ssize_t n = write(fd, whole, strlen(whole));
        (void)n;
}

/* The end of a file from @from on, at most @max bytes. */
static int read_end(const char *path, off_t from, size_t max, struct buf *ret) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return -ENOENT;
        if (from > st.st_size)
                from = 0; /* it was cut meanwhile */
        if (st.st_size - from > (off_t)max)
                from = st.st_size - (off_t)max;
        if (lseek(fd, from, SEEK_SET) < 0)
                return -errno;
        while (ret->len < max) {
                ssize_t n = buf_read(ret, fd);
                if (n == 0)
                        break;
                if (n < 0)
                        return (int)n;
        }
        return 0;
}

char *log_tail(const char *path, off_t from, unsigned lines) {
        _cleanup_buf_ struct buf text = BUF_INIT(TAIL_BYTES), out = BUF_INIT(0);
        if (read_end(path, from, TAIL_BYTES, &text) < 0)
                return NULL;
        _cleanup_strv_ struct strv all = {0};
        strv_split(&all, buf_str(&text), "\r\n"); /* a NUL among them ends it: what is left is enough to tell */
        for (size_t i = all.len > lines ? all.len - lines : 0; i < all.len; i++) {
                _cleanup_free_ char *line = str_printable(all.items[i], strlen(all.items[i]));
                buf_printf(&out, "%s\n", line);
        }
        return out.len > 0 ? buf_take(&out) : NULL;
}

void log_bound(const char *path, off_t max) {
        if (fs_size(path) <= max)
                return;
        _cleanup_buf_ struct buf kept = BUF_INIT(KEPT_BYTES);
        _cleanup_free_ char *old = xasprintf("%s.1", path);
        if (read_end(path, 0, KEPT_BYTES, &kept) == 0)
                fs_write_atomic(old, kept.data, kept.len, 0600, NULL);
        /* Cut, not renamed: the writer keeps its descriptor and, appending, goes on at the start. */
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 && ftruncate(fd, 0) < 0)
                return;
}
