/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/archive_stream.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/strv.h>

#include "archive_internal.h"

#define PATHS_MAX 100000U

struct archive_stream {
        char *path;
        int fd; /* of the file that is being read; -1 none */

        struct archive *reader; /* of a file */

        struct archive *writer; /* of a folder, into @pending */
        struct strv names;      /* files of it */
        size_t next;            /* of them */
        uint64_t left;          /* bytes of the current file that are still to come */
        struct buf pending;
        size_t taken; /* of @pending */
        bool closed;
};

static int open_file(const char *path, int *ret, struct error *err) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot open %s", path);
        if (!S_ISREG(st.st_mode))
                return err_set(err, ERR_FAILED, EINVAL, "cannot read %s: it is not a file", path);
        *ret = TAKE_FD(fd);
        return 0;
}

static int damaged(struct archive *a, const char *path, struct error *err) {
        const char *message = libarchive.archive_error_string(a);
        _cleanup_free_ char *shown = str_printable(message ? message : "", message ? strnlen(message, 200) : 0);
        return err_set(err, ERR_FAILED, EBADMSG, "%s cannot be read to its end%s%s", path, *shown ? ": " : "", shown);
}

static void add_filters(struct archive *a) {
        /* One that this libarchive lacks answers with a warning and would run a program instead. */
        libarchive.archive_read_support_filter_gzip(a);
        libarchive.archive_read_support_filter_zstd(a);
        libarchive.archive_read_support_filter_xz(a);
        libarchive.archive_read_support_filter_bzip2(a);
}

int archive_stream_open(const char *path, struct archive_stream **ret, struct error *err) {
        int r = archive_load(err);
        if (r < 0)
                return r;
        _cleanup_archive_stream_ struct archive_stream *s = xcalloc(1, sizeof(*s));
        s->fd = -1;
        s->path = xstrdup(path);
        r = open_file(path, &s->fd, err);
        if (r < 0)
                return r;
        s->reader = oom_check(libarchive.archive_read_new());
        add_filters(s->reader);
        libarchive.archive_read_support_format_raw(s->reader);
        libarchive.archive_read_support_format_empty(s->reader);
        struct libarchive_entry *entry;
        if (libarchive.archive_read_open_fd(s->reader, s->fd, BLOCK_BYTES) != ARCHIVE_OK ||
            libarchive.archive_read_next_header(s->reader, &entry) < ARCHIVE_WARN)
                return damaged(s->reader, path, err);
        *ret = TAKE_PTR(s);
        return 0;
}

void archive_stream_free(struct archive_stream *s) {
        if (!s)
                return;
        if (s->reader)
                libarchive.archive_read_free(s->reader);
        /* Its end would be written into what is freed below. */
        s->closed = true;
        if (s->writer)
                libarchive.archive_write_free(s->writer);
        closep_(&s->fd);
        strv_free(&s->names);
        buf_free(&s->pending);
        free(s->path);
        free(s);
}

/* The zeros at the start of each block of a file system's size become holes. */
static int write_sparse(int fd, const char *data, size_t len) {
        const size_t block = 4096;
        for (size_t n; len > 0; data += n, len -= n) {
                n = len < block ? len : block;
                if (bytes_are_zero(data, n)) {
                        if (lseek(fd, (off_t)n, SEEK_CUR) < 0)
                                return -errno;
                        continue;
                }
                while (n < len && (len - n < block || !bytes_are_zero(data + n, block)))
                        n += len - n < block ? len - n : block;
                int r = fs_write_all(fd, data, n);
                if (r < 0)
                        return r;
        }
        return 0;
}

int archive_expand(const char *from, const char *to, struct progress *progress, struct progress_phase *phase,
                   struct error *err) {
        _cleanup_archive_stream_ struct archive_stream *s = NULL;
        int r = archive_stream_open(from, &s, err);
        if (r < 0)
                return r;
        _cleanup_close_ int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(err, errno, "cannot write %s", to);
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        int64_t size = fs_size(from);
        uint64_t total = size > 0 ? (uint64_t)size : 0;
        ssize_t n;
        while ((n = archive_stream_read(s, block, BLOCK_BYTES, err)) > 0) {
                r = interrupt_check(err);
                if (r < 0)
                        return r;
                r = write_sparse(fd, block, (size_t)n);
                if (r < 0)
                        return err_errno(err, -r, "cannot write %s", to);
                off_t read_bytes = lseek(s->fd, 0, SEEK_CUR);
                progress_update(progress, phase, "unpacking", read_bytes > 0 ? (uint64_t)read_bytes : 0, total,
                                "bytes");
        }
        if (n == 0 && ftruncate(fd, lseek(fd, 0, SEEK_CUR)) < 0)
                return err_errno(err, errno, "cannot write %s", to);
        return (int)n;
}

/* A folder as a tar. */

static la_ssize_t on_write(struct archive *a _unused_, void *userdata, const void *data, size_t len) {
        struct archive_stream *s = userdata;
        if (!s->closed && buf_append(&s->pending, data, len) < 0)
                return -1;
        return (la_ssize_t)len;
}

/* Adds the files at @name, in the order of their names, so that the same folder is the same tar. */
static int collect(struct archive_stream *s, const char *name, struct error *err) {
        _cleanup_free_ char *path = path_join(s->path, name);
        struct stat st;
        if (lstat(path, &st) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        if (S_ISREG(st.st_mode)) {
                if (s->names.len >= PATHS_MAX)
                        return err_set(err, ERR_FAILED, E2BIG, "%s has more than %u files", s->path, PATHS_MAX);
                strv_push(&s->names, name);
                return 0;
        }
        if (!S_ISDIR(st.st_mode))
                return err_set(err, ERR_FAILED, EPERM, "%s is neither a file nor a folder", path);
        struct dirent **entries = NULL;
        int n = scandir(path, &entries, NULL, alphasort), r = 0;
        if (n < 0)
                return err_errno(err, errno, "cannot read %s", path);
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *child = path_join(name, entries[i]->d_name);
                if (r == 0 && !str_eq(entries[i]->d_name, ".") && !str_eq(entries[i]->d_name, ".."))
                        r = collect(s, child, err);
                free(entries[i]);
        }
        free(entries);
        return r;
}

int archive_stream_folder(const char *path, const char *const *names, struct archive_stream **ret, struct error *err) {
        int r = archive_load(err);
        _cleanup_archive_stream_ struct archive_stream *s = xcalloc(1, sizeof(*s));
        s->fd = -1;
        s->path = xstrdup(path);
        s->pending = BUF_INIT(4 * BLOCK_BYTES);
        for (; r == 0 && *names; names++)
                r = collect(s, *names, err);
        if (r < 0)
                return r;
        s->writer = oom_check(libarchive.archive_write_new());
        libarchive.archive_write_set_format_ustar(s->writer);
        libarchive.archive_write_set_bytes_per_block(s->writer, 0);
        libarchive.archive_write_set_bytes_in_last_block(s->writer, 1);
        if (libarchive.archive_write_open(s->writer, s, NULL, on_write, NULL) != ARCHIVE_OK)
                return damaged(s->writer, path, err);
        *ret = TAKE_PTR(s);
        return 0;
}

static int begin_member(struct archive_stream *s, struct error *err) {
        const char *name = s->names.items[s->next++];
        _cleanup_free_ char *path = path_join(s->path, name);
        closep_(&s->fd);
        s->fd = -1;
        int r = open_file(path, &s->fd, err);
        struct stat st;
        if (r == 0 && fstat(s->fd, &st) < 0)
                r = err_errno(err, errno, "cannot read %s", path);
        if (r < 0)
                return r;
        struct libarchive_entry *entry = oom_check(libarchive.archive_entry_new());
        libarchive.archive_entry_set_pathname(entry, name);
        libarchive.archive_entry_set_filetype(entry, S_IFREG);
        libarchive.archive_entry_set_perm(entry, 0644);
        libarchive.archive_entry_set_size(entry, st.st_size);
        r = libarchive.archive_write_header(s->writer, entry);
        libarchive.archive_entry_free(entry);
        s->left = (uint64_t)st.st_size;
        return r < ARCHIVE_WARN ? damaged(s->writer, path, err) : 0;
}

static int copy_block(struct archive_stream *s, struct error *err) {
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        ssize_t n = read(s->fd, block, s->left < BLOCK_BYTES ? s->left : BLOCK_BYTES);
        if (n < 0 && errno == EINTR)
                return 0;
        if (n <= 0)
                return err_set(err, ERR_FAILED, EBADMSG, "%s/%s became shorter while it was read", s->path,
                               s->names.items[s->next - 1]);
        s->left -= (uint64_t)n;
        if (libarchive.archive_write_data(s->writer, block, (size_t)n) != n)
                return damaged(s->writer, s->path, err);
        return 0;
}

static int produce(struct archive_stream *s, struct error *err) {
        buf_clear(&s->pending);
        s->taken = 0;
        while (s->pending.len == 0 && !s->closed) {
                int r = 0;
                if (s->left > 0)
                        r = copy_block(s, err);
                else if (s->next < s->names.len)
                        r = begin_member(s, err);
                else {
                        if (libarchive.archive_write_close(s->writer) != ARCHIVE_OK)
                                r = damaged(s->writer, s->path, err);
                        s->closed = true;
                }
                if (r < 0)
                        return r;
        }
        return 0;
}

ssize_t archive_stream_read(struct archive_stream *s, void *data, size_t len, struct error *err) {
        if (s->reader) {
                la_ssize_t n;
                while ((n = libarchive.archive_read_data(s->reader, data, len)) == ARCHIVE_RETRY)
                        ;
                return n < 0 ? damaged(s->reader, s->path, err) : (ssize_t)n;
        }
        if (s->taken == s->pending.len) {
                int r = produce(s, err);
                if (r < 0)
                        return r;
        }
        size_t left = s->pending.len - s->taken, n = len < left ? len : left;
        if (n > 0)
                memcpy(data, s->pending.data + s->taken, n);
        s->taken += n;
        return (ssize_t)n;
}

/* Scanning. */

static int read_member(struct archive *a, const char *path, struct archive_member *m, struct error *err) {
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        buf_clear(&m->contents);
        m->contents.max = m->max;
        m->found = 1;
        for (;;) {
                la_ssize_t n = libarchive.archive_read_data(a, block, BLOCK_BYTES);
                if (n == ARCHIVE_RETRY)
                        continue;
                if (n < 0)
                        return damaged(a, path, err);
                if (n == 0)
                        return 0;
                if (buf_append(&m->contents, block, (size_t)n) < 0)
                        return err_set(err, ERR_FAILED, E2BIG, "%s in %s is larger than %zu bytes", m->name, path,
                                       m->max);
        }
}

int archive_scan(const char *path, struct archive_member *members, size_t n, uint64_t *ret_bytes, struct error *err) {
        int r = archive_load(err);
        _cleanup_close_ int fd = -1;
        if (r == 0)
                r = open_file(path, &fd, err);
        if (r < 0)
                return r;
        _cleanup_(archive_reader_freep) struct archive *a = oom_check(libarchive.archive_read_new());
        add_filters(a);
        libarchive.archive_read_support_format_tar(a);
        libarchive.archive_read_support_format_empty(a);
        if (libarchive.archive_read_open_fd(a, fd, BLOCK_BYTES) != ARCHIVE_OK)
                return damaged(a, path, err);
        struct libarchive_entry *entry;
        size_t seen = 0;
        int status;
        while ((status = libarchive.archive_read_next_header(a, &entry)) != ARCHIVE_EOF) {
                if (status == ARCHIVE_RETRY)
                        continue;
                if (status < ARCHIVE_WARN && seen == 0)
                        return err_set(err, ERR_FAILED, EBADMSG, "%s is no tar archive", path);
                if (status < ARCHIVE_WARN)
                        return damaged(a, path, err);
                seen++;
                const char *name = libarchive.archive_entry_pathname(entry);
                for (size_t i = 0; i < n && name; i++)
                        if (str_eq(archive_member_name(name), members[i].name) &&
                            libarchive.archive_entry_filetype(entry) == S_IFREG) {
                                r = read_member(a, path, &members[i], err);
                                if (r < 0)
                                        return r;
                        }
        }
        /* It leaps over what it is not asked for, past the end of the file too. */
        struct stat st;
        if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_CUR) > st.st_size)
                return err_set(err, ERR_FAILED, EBADMSG, "%s cannot be read to its end: it is cut off", path);
        *ret_bytes = (uint64_t)libarchive.archive_filter_bytes(a, 0);
        return 0;
}
