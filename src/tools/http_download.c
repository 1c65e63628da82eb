/* SPDX-License-Identifier: MIT */
/*
 * Downloads. PATH.part holds what came so far and is locked by whoever writes it; PATH.part.from beside it says
 * where it came from and which version of it that was (URL, ETag, Last-Modified, size; one a line), so that it
 * is only ever continued with more of the same (RFC 9110, sections 13.1.5 and 14). The size is for whoever waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/verified.h>

#include "http_internal.h"
#include "http_sink.h"

#define ATTEMPTS 6
#define STALL_MS 30000
#define FIRST_PAUSE_MS 500U
#define LONGEST_PAUSE_MS 8000U
/* A server that wants more time than this (Retry-After) does not get it. */
#define LONGEST_WISH_MS 60000U
/* An attempt that brought this much counts as none: the connection is bad, but it gets there. */
#define WORTHWHILE_BYTES (1U << 20)
/* Left free on the disk. */
#define ROOM_TO_SPARE (16U << 20)
#define VALIDATOR_MAX 512

/* The version of a file as its server names it; empty strings where it does not. */
struct validator {
        char etag[VALIDATOR_MAX];
        char modified[VALIDATOR_MAX];
};

struct transfer {
        const struct http_download *download;
        struct http *http;
        int fd; /* PATH.part, locked */
        char *part, *from;
        struct digest *digest; /* of the first @have bytes; NULL: start anew */
        struct sink *sink;     /* while a body comes in: what leads to @fd and @digest */
        uint64_t have;         /* bytes in PATH.part */
        uint64_t resumed_at;   /* what this attempt asked to start from */
        /* Of the response that is coming in. */
        struct validator validator;
        struct validator known; /* of what is in PATH.part */
        int64_t content_length; /* -1: not told */
        uint64_t range_start;
        bool has_range, started, encoded;
        bool continued;   /* PATH.part was made of more than one response */
        uint64_t total;   /* 0: unknown */
        uint64_t best;    /* the most there ever was */
        uint64_t wish_ms; /* how long the server asked to wait before the next attempt */
        uint64_t shown_ms;
        struct error failure; /* set in a callback, which can only say "stop" */
};

static void transfer_clear(struct transfer *t) {
        closep_(&t->fd);
        free(t->part);
        free(t->from);
        digest_freep(&t->digest);
        error_clear(&t->failure);
}

static void show(struct transfer *t, bool now) {
        uint64_t ms = now_ms();
        if (!now && ms - t->shown_ms < 100)
                return;
        t->shown_ms = ms;
        progress_update(t->download->progress, t->download->phase, path_base(t->download->path), t->have, t->total,
                        "bytes");
}

/* The partial file. */

static int start_over(struct transfer *t, struct error *err) {
        digest_freep(&t->digest);
        t->digest = NULL;
        t->have = 0;
        if (ftruncate(t->fd, 0) < 0 || lseek(t->fd, 0, SEEK_SET) < 0)
                return err_errno(err, errno, "cannot write %s", t->part);
        return digest_new_for(t->download->hash, &t->digest, err);
}

/* What the partial file came from, and how large the whole is (0: unknown); false when that cannot be told or is
 * something else. */
static bool read_origin(const struct transfer *t, struct validator *ret, uint64_t *ret_total) {
        _cleanup_buf_ struct buf text = BUF_INIT(16384);
        if (fs_read(t->from, 16383, &text, NULL) < 0)
                return false;
        char *lines[4] = {buf_str(&text)[0] ? text.data : NULL};
        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                char *end = lines[i] ? strchr(lines[i], '\n') : NULL;
                if (!end)
                        return false;
                *end = '\0';
                if (i + 1 < ELEMENTSOF(lines))
                        lines[i + 1] = end + 1;
        }
        if (!str_eq(lines[0], t->download->url) || strlen(lines[1]) >= VALIDATOR_MAX ||
            strlen(lines[2]) >= VALIDATOR_MAX)
                return false;
        stpcpy(ret->etag, lines[1]);
        stpcpy(ret->modified, lines[2]);
        *ret_total = 0;
        str_to_u64(lines[3], 0, INT64_MAX, ret_total);
        return *ret->etag || *ret->modified;
}

static int write_origin(struct transfer *t, struct error *err) {
        _cleanup_free_ char *text = xasprintf("%s\n%s\n%s\n%llu\n", t->download->url, t->validator.etag,
                                              t->validator.modified, (unsigned long long)t->total);
        return fs_write_atomic(t->from, text, strlen(text), 0600, err);
}

/* Hashes what an earlier run left. */
static int take_up(struct transfer *t, struct error *err) {
        int r = digest_new_for(t->download->hash, &t->digest, err);
        _cleanup_free_ char *chunk = xcalloc(1, 1U << 17);
        while (r == 0) {
                ssize_t n = pread(t->fd, chunk, 1U << 17, (off_t)t->have);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", t->part);
                if (n == 0)
                        break;
                digest_update(t->digest, chunk, (size_t)n);
                t->have += (uint64_t)n;
                r = interrupt_check(err);
        }
        if (r == 0 && lseek(t->fd, (off_t)t->have, SEEK_SET) < 0)
                r = err_errno(err, errno, "cannot read %s", t->part);
        return r;
}

/* The answer, as it comes in. */

static void copy_value(char to[static VALIDATOR_MAX], const char *value, size_t len) {
        while (len > 0 && (*value == ' ' || *value == '\t')) {
                value++;
                len--;
        }
        while (len > 0 && strchr("\r\n \t", value[len - 1]))
                len--;
        /* One that does not fit is none: half of it would name nothing. */
        if (len >= VALIDATOR_MAX || memchr(value, '\0', len) || memchr(value, '\n', len) || memchr(value, '\r', len))
                len = 0;
        memcpy(to, value, len);
        to[len] = '\0';
}

static size_t on_header(char *line, size_t size, size_t n, void *userdata) {
        struct transfer *t = userdata;
        size_t len = size * n;
        char value[VALIDATOR_MAX];
        if (len >= 5 && memcmp(line, "HTTP/", 5) == 0) { /* a redirect's headers say nothing about the file */
                t->validator = (struct validator){0};
                t->content_length = -1;
                t->has_range = t->encoded = false;
        }
        const char *colon = memchr(line, ':', len);
        if (!colon)
                return len;
        size_t name = (size_t)(colon - line);
        copy_value(value, colon + 1, len - name - 1);
        if (name == 4 && strncasecmp(line, "ETag", name) == 0) {
                /* If-Range compares strongly: a weak one never matches. */
                if (!str_starts(value, "W/"))
                        stpcpy(t->validator.etag, value);
        } else if (name == 13 && strncasecmp(line, "Last-Modified", name) == 0)
                stpcpy(t->validator.modified, value);
        else if (name == 14 && strncasecmp(line, "Content-Length", name) == 0) {
                uint64_t length = 0;
                if (str_to_u64(value, 0, INT64_MAX, &length) == 0)
                        t->content_length = (int64_t)length;
        } else if (name == 16 && strncasecmp(line, "Content-Encoding", name) == 0)
                t->encoded = *value && strcasecmp(value, "identity") != 0;
        else if (name == 13 && strncasecmp(line, "Content-Range", name) == 0 && str_starts(value, "bytes ")) {
                value[6 + strcspn(value + 6, "-")] = '\0';
                t->has_range = str_to_u64(value + 6, 0, INT64_MAX, &t->range_start) == 0;
        }
        return len;
}

static int check_room(struct transfer *t, struct error *err) {
        uint64_t room = 0;
        if (t->content_length < 0 || fs_free_bytes(t->part, &room, NULL) < 0)
                return 0;
        uint64_t needed = (uint64_t)t->content_length + ROOM_TO_SPARE;
        if (room >= needed)
                return 0;
        _cleanup_free_ char *need = str_bytes(needed), *have = str_bytes(room), *folder = path_parent(t->part);
        return err_set(err, ERR_HOST, ENOSPC, "no room for %s: it needs %s in %s, where %s are free",
                       path_base(t->download->path), need, folder, have);
}

/* What is there is no part of what the server has now. Tried again from the start. */
static int not_the_same(struct transfer *t, const char *why, struct error *err) {
        int r = start_over(t, err);
        return r < 0 ? r : err_set(err, ERR_FAILED, ESTALE, "cannot fetch %s: %s", t->download->url, why);
}

/* Before the first byte: where does it belong? */
static int start_body(struct transfer *t, long status, struct error *err) {
        const struct validator *now = &t->validator, *known = &t->known;
        int r = 0;
        if (t->encoded)
                return err_set(err, ERR_FAILED, EPROTO,
                               "cannot fetch %s: the server sent it compressed, which nobody asked for",
                               t->download->url);
        if (status == 206 && (!t->has_range || t->range_start != t->have)) {
                static const char why[] = "the server sent another part than asked for";
                return t->have > 0 ? not_the_same(t, why, err)
                                   : err_set(err, ERR_FAILED, EPROTO, "cannot fetch %s: %s", t->download->url, why);
        }
        /* A server that does not know If-Range may continue with the bytes of another version. */
        if (status == 206 && ((*now->etag && *known->etag && !str_eq(now->etag, known->etag)) ||
                              (*now->modified && *known->modified && !str_eq(now->modified, known->modified))))
                return not_the_same(t, "it changed meanwhile", err);
        if (status == 206)
                t->continued = true;
        if (status == 200 && t->have > 0)
                r = start_over(t, err);
        if (r == 0)
                r = check_room(t, err);
        t->total = t->content_length < 0 ? 0 : t->have + (uint64_t)t->content_length;
        if (r == 0 && status == 200)
                r = write_origin(t, err);
        return r;
}

static void not_written(struct transfer *t, int r) {
        err_errno(&t->failure, -r, "cannot write %s", t->part);
        t->failure.code = ERR_HOST;
}

static size_t on_data(char *data, size_t size, size_t n, void *userdata) {
        struct transfer *t = userdata;
        size_t len = size * n;
        long status = 0;
        libcurl.curl_easy_getinfo(t->http->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200 && status != 206)
                return len; /* an error page */
        if (!t->started) {
                t->started = true;
                if (start_body(t, status, &t->failure) < 0)
                        return 0;
                t->sink = sink_new(t->fd, t->have, t->digest);
        }
        int r = sink_put(t->sink, data, len);
        if (r < 0) {
                not_written(t, r);
                return 0;
        }
        t->have += len;
        show(t, false);
        return len;
}

/* Attempts. */

static int status_error(const struct transfer *t, long status, bool *ret_passing, struct error *err) {
        *ret_passing = status >= 500 || status == 429 || status == 408;
        int e = status == 404 || status == 410   ? ENOENT
                : status == 401 || status == 403 ? EACCES
                : *ret_passing                   ? EAGAIN
                                                 : EPROTO;
        int r = err_set(err, ERR_FAILED, e, "cannot fetch %s: the server answered %ld", t->download->url, status);
        if (t->wish_ms > 0)
                err_hint(err, "the server wants to be asked again in %llu s: run the same command again then",
                         (unsigned long long)t->wish_ms / 1000);
        return r;
}

static bool can_pass(int r) {
        return r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT;
}

/* One request. @ret_passing: whether trying again may help. */
static int attempt(struct transfer *t, bool *ret_passing, struct error *err) {
        const struct http_download *d = t->download;
        *ret_passing = false;
        int r = http_prepare(t->http, d->url, err);
        if (r < 0)
                return r;
        t->known = (struct validator){0};
        t->wish_ms = 0;
        if (t->have > 0 && !read_origin(t, &t->known, &t->total))
                r = start_over(t, err);
        if (r < 0)
                return r;
        _cleanup_(http_slist_freep) struct curl_slist *headers = NULL;
        _cleanup_free_ char *range = NULL;
        http_slist_add(&headers, "Accept-Encoding: identity");
        if (t->have > 0) {
                range = xasprintf("%llu-", (unsigned long long)t->have);
                _cleanup_free_ char *if_range =
                                xasprintf("If-Range: %s", *t->known.etag ? t->known.etag : t->known.modified);
                http_slist_add(&headers, if_range);
                http_setopt(t->http, CURLOPT_RANGE, range);
        }
        t->started = false;
        t->resumed_at = t->have;
        unsigned stall_ms = d->stall_timeout_ms ? d->stall_timeout_ms : STALL_MS;
        http_setopt(t->http, CURLOPT_HTTPHEADER, headers);
        http_setopt(t->http, CURLOPT_FOLLOWLOCATION, 1L);
        http_setopt(t->http, CURLOPT_CONNECTTIMEOUT_MS, (long)(stall_ms < 10000 ? stall_ms : 10000));
        http_setopt(t->http, CURLOPT_LOW_SPEED_LIMIT, 1L);
        http_setopt(t->http, CURLOPT_LOW_SPEED_TIME, (long)((stall_ms + 999) / 1000));
        http_setopt(t->http, CURLOPT_BUFFERSIZE, 256L * 1024);
        http_setopt(t->http, CURLOPT_HEADERFUNCTION, on_header);
        http_setopt(t->http, CURLOPT_HEADERDATA, t);
        http_setopt(t->http, CURLOPT_WRITEFUNCTION, on_data);
        http_setopt(t->http, CURLOPT_WRITEDATA, t);
        CURLcode code = http_run(t->http);
        http_setopt(t->http, CURLOPT_HTTPHEADER, NULL);
        r = t->sink ? sink_settle(t->sink) : 0;
        sink_freep(&t->sink);
        t->sink = NULL;
        if (r < 0 && !t->failure.code)
                not_written(t, r);

        long status = 0;
        libcurl.curl_easy_getinfo(t->http->easy, CURLINFO_RESPONSE_CODE, &status);
        if (t->failure.code) {
                *ret_passing = t->failure.errnum == ESTALE;
                return err_move(err, &t->failure);
        }
        if (code != CURLE_OK) {
                r = http_failed(t->http, code, d->url, err);
                *ret_passing = can_pass(r);
                return r;
        }
        if (status == 416 && t->resumed_at > 0) {
                /* Nothing follows what is there, and it was not the whole, or it would have been taken. */
                *ret_passing = true;
                err_set(err, ERR_FAILED, EPROTO, "cannot fetch %s: the partial file does not fit", d->url);
                return start_over(t, NULL) < 0 ? -EIO : -EPROTO;
        }
        if (status != 200 && status != 206) {
                curl_off_t wish_s = 0;
                libcurl.curl_easy_getinfo(t->http->easy, CURLINFO_RETRY_AFTER, &wish_s);
                t->wish_ms = wish_s > 0 ? (uint64_t)wish_s * 1000 : 0;
                return status_error(t, status, ret_passing, err);
        }
        /* An empty file never got to on_data(). */
        return t->started || status != 200 ? 0 : start_body(t, status, err);
}

/* The bytes are all there: are they the right ones? -EBADMSG: no, and they are gone now. */
static int finish(struct transfer *t, struct error *err) {
        const struct http_download *d = t->download;
        char hex[DIGEST_HEX_MAX + 1];
        digest_final(t->digest, hex);
        digest_freep(&t->digest);
        t->digest = NULL;
        if (d->hash && strcasecmp(hex, d->hash) != 0) {
                fs_unlink(t->part, NULL);
                fs_unlink(t->from, NULL);
                return err_set(err, ERR_FAILED, EBADMSG, "%s is not what was expected: its hash is %s, not %s", d->url,
                               hex, d->hash);
        }
        show(t, true);
        if (fchmod(t->fd, d->mode ? d->mode : 0644) < 0 || fsync(t->fd) < 0 || rename(t->part, d->path) < 0)
                return err_errno(err, errno, "cannot write %s", d->path);
        fs_unlink(t->from, NULL);
        verified_note(d->path, hex);
        return 0;
}

/* What is there already may be the whole: a program that was killed before it could rename it. */
static bool is_whole(const struct transfer *t) {
        char hex[DIGEST_HEX_MAX + 1];
        digest_peek(t->digest, hex);
        return t->download->hash && t->have > 0 && strcasecmp(hex, t->download->hash) == 0;
}

static int fetch(struct transfer *t, struct error *err) {
        const struct http_download *d = t->download;
        int r = take_up(t, err);
        if (r < 0)
                return r;
        if (is_whole(t))
                return finish(t, err);
        unsigned attempts = d->attempts ? d->attempts : ATTEMPTS;
        unsigned first_ms = d->pause_ms ? d->pause_ms : FIRST_PAUSE_MS, pause_ms = first_ms;
        t->best = t->have;
        for (unsigned n = 1;; n++) {
                _cleanup_error_ struct error failure = ERROR_INIT;
                bool passing = false;
                r = attempt(t, &passing, &failure);
                if (r == 0)
                        return finish(t, err);
                /* More than ever before: one that starts over each time does not get anywhere. */
                if (t->have >= t->best + WORTHWHILE_BYTES) {
                        t->best = t->have;
                        n = 0;
                        pause_ms = first_ms;
                }
                unsigned wait_ms = t->wish_ms > pause_ms ? (unsigned)t->wish_ms : pause_ms;
                if (!passing || n >= attempts || t->wish_ms > LONGEST_WISH_MS)
                        return err_move(err, &failure);
                progress_debug(d->progress, "%s; trying again in %u ms", failure.message, wait_ms);
                if (wait_ms >= 2000)
                        progress_update(d->progress, d->phase, "waiting for the server, then trying again", t->have,
                                        t->total, "bytes");
                r = interrupt_wait(-1, wait_ms, err);
                if (r < 0)
                        return r;
                pause_ms = pause_ms * 2 < LONGEST_PAUSE_MS ? pause_ms * 2 : LONGEST_PAUSE_MS;
        }
}

/* Locks. */

static bool same_file(const struct stat *a, const struct stat *b) {
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* How far another program is, as its files tell. */
static void show_other(const struct transfer *t) {
        struct validator ignored;
        uint64_t total = 0;
        int64_t done = fs_size(t->part);
        _cleanup_free_ char *text = xasprintf("%s, which another k3s-vm downloads", path_base(t->download->path));
        read_origin(t, &ignored, &total);
        progress_update(t->download->progress, t->download->phase, text, done > 0 ? (uint64_t)done : 0, total, "bytes");
}

/*
 * Locks PATH.part. 0, or 1 when somebody else held the lock and has put the file in its place meanwhile.
 * @before is what was at PATH at first (zeros: nothing).
 */
static int lock_part(struct transfer *t, const struct stat *before, struct error *err) {
        const struct http_download *d = t->download;
        for (bool said = false;;) {
                _cleanup_error_ struct error failure = ERROR_INIT;
                _cleanup_close_ int fd = -1;
                int r = fs_lock(t->part, said ? 200 : 0, &fd, &failure);
                if (r == -EWOULDBLOCK || r == -ETIMEDOUT) {
                        said = true;
                        show_other(t);
                        r = interrupt_check(err);
                        if (r < 0)
                                return r;
                        continue;
                }
                if (r < 0)
                        return err_move(err, &failure);
                struct stat now, part, locked;
                if (stat(d->path, &now) == 0 && !same_file(&now, before)) {
                        /* Our opening may have made a new, empty .part. */
                        if (fstat(fd, &locked) == 0 && locked.st_size == 0 && !same_file(&locked, &now))
                                fs_unlink(t->part, NULL);
                        return 1;
                }
                /* The lock is on the file, not on its name: what was locked may be gone by now. */
                if (stat(t->part, &part) < 0 || fstat(fd, &locked) < 0 || !same_file(&part, &locked))
                        continue;
                t->fd = TAKE_FD(fd);
                return 0;
        }
}

int http_download(struct http *h, const struct http_download *download, struct error *err) {
        struct stat before = {0};
        bool again = false;
        for (;;) {
                if (stat(download->path, &before) < 0)
                        before = (struct stat){0};
                else if (download->hash) {
                        int is_good = verified_check(download->path, download->hash, false, NULL);
                        if (is_good > 0)
                                return 0;
                        if (is_good == 0)
                                progress_warn(download->progress, "%s is not the published file; it is fetched anew",
                                              download->path);
                }
                _cleanup_(transfer_clear) struct transfer t = {
                                .download = download,
                                .http = h,
                                .fd = -1,
                                .part = xasprintf("%s.part", download->path),
                                .from = xasprintf("%s.part.from", download->path),
                };
                int r = lock_part(&t, &before, err);
                if (r < 0)
                        return r;
                if (r == 1) {
                        if (!download->hash)
                                return 0;
                        continue;
                }
                r = fetch(&t, err);
                /* Pieces that do not make up the whole: once more, from the start. */
                if (r != -EBADMSG || !t.continued || again)
                        return r;
                again = true;
                error_clear(err);
        }
}
