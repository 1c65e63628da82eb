/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>

#include <k3s-vm/fs.h>

#include "http_sink.h"

/* Enough that neither side waits for the other when the scheduler leaves it out for a moment. */
#define PIECES 8
#define PIECE_BYTES (512U * 1024)
#define FLUSH_BYTES (16U << 20)
/* What comes slowly is not kept until there is a whole piece of it: the program may be killed. */
#define LONGEST_WAIT_NS 5000000L

struct sink {
        int fd;
        struct digest *digest;
        uint64_t at;      /* bytes in the file */
        uint64_t flushed; /* of them the kernel was told to write that many to the disk */
        char *pieces;     /* a ring of them */
        pthread_t thread;
        bool threaded;
        pthread_mutex_t lock; /* for the rest */
        pthread_cond_t changed;
        size_t lens[PIECES]; /* 0 of those that are free */
        unsigned filled;     /* pieces that may be written; the next one is being filled */
        unsigned done;       /* pieces that were written and hashed */
        int failure;         /* a negative errno, of the first write that failed */
        bool ending;
};

static size_t *open_len(struct sink *s) {
        return &s->lens[s->filled % PIECES];
}

static char *piece_data(struct sink *s, unsigned piece) {
        return s->pieces + (size_t)(piece % PIECES) * PIECE_BYTES;
}

static int put_down(struct sink *s, const char *data, size_t len) {
        int r = fs_write_all(s->fd, data, len);
        if (r < 0)
                return r;
        digest_update(s->digest, data, len);
        s->at += len;
        /* The disk is kept busy meanwhile, so that there is little left to wait for at the end. */
        if (s->at - s->flushed >= FLUSH_BYTES) {
                sync_file_range(s->fd, (off_t)s->flushed, (off_t)(s->at - s->flushed), SYNC_FILE_RANGE_WRITE);
                s->flushed = s->at;
        }
        return 0;
}

/* The functions from here to sink_main() are called with the lock. */

static void do_next(struct sink *s) {
        size_t *len = &s->lens[s->done % PIECES];
        int r = s->failure; /* after one the file would have a hole */
        pthread_mutex_unlock(&s->lock);
        if (r == 0)
                r = put_down(s, piece_data(s, s->done), *len);
        pthread_mutex_lock(&s->lock);
        s->failure = r;
        *len = 0;
        s->done++;
        pthread_cond_signal(&s->changed);
}

/* Until there is a whole piece, or for LONGEST_WAIT_NS with some of one. */
static void wait_for_piece(struct sink *s) {
        while (s->filled == s->done && !s->ending) {
                if (*open_len(s) == 0) {
                        pthread_cond_wait(&s->changed, &s->lock);
                        continue;
                }
                struct timespec until;
                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_nsec += LONGEST_WAIT_NS;
                until.tv_sec += until.tv_nsec / 1000000000;
                until.tv_nsec %= 1000000000;
                if (pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT && s->filled == s->done)
                        s->filled++;
        }
}

static void *sink_main(void *userdata) {
        struct sink *s = userdata;
        pthread_mutex_lock(&s->lock);
        for (wait_for_piece(s); s->filled != s->done; wait_for_piece(s))
                do_next(s);
        pthread_mutex_unlock(&s->lock);
        return NULL;
}

struct sink *sink_new(int fd, uint64_t at, struct digest *digest) {
        struct sink *s = xcalloc(1, sizeof(*s));
        *s = (struct sink){
                        .fd = fd,
                        .digest = digest,
                        .at = at,
                        .flushed = at,
                        .pieces = xcalloc(PIECES, PIECE_BYTES),
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER,
        };
        s->threaded = pthread_create(&s->thread, NULL, sink_main, s) == 0;
        return s;
}

/* Waits until no more than @left pieces are to be written; with the lock. */
static int wait_until(struct sink *s, unsigned left) {
        while (s->filled - s->done > left)
                if (s->threaded)
                        pthread_cond_wait(&s->changed, &s->lock);
                else
                        do_next(s);
        return s->failure;
}

int sink_put(struct sink *s, const void *data, size_t len) {
        pthread_mutex_lock(&s->lock);
        int r = s->failure;
        for (const char *p = data; r == 0 && len > 0;) {
                r = wait_until(s, PIECES - 1);
                size_t *filled = open_len(s), room = PIECE_BYTES - *filled, n = len < room ? len : room;
                memcpy(piece_data(s, s->filled) + *filled, p, n);
                bool first = *filled == 0, full = n == room;
                *filled += n;
                p += n;
                len -= n;
                if (full)
                        s->filled++;
                if (first || full)
                        pthread_cond_signal(&s->changed);
        }
        pthread_mutex_unlock(&s->lock);
        return r;
}

int sink_settle(struct sink *s) {
        pthread_mutex_lock(&s->lock);
        bool all_full = s->filled - s->done == PIECES;
        if (!all_full && *open_len(s) > 0)
                s->filled++;
        pthread_cond_signal(&s->changed);
        int r = wait_until(s, 0);
        pthread_mutex_unlock(&s->lock);
        return r;
}

void sink_free(struct sink *s) {
        if (!s)
                return;
        if (s->threaded) {
                pthread_mutex_lock(&s->lock);
                s->ending = true;
                pthread_cond_signal(&s->changed);
                pthread_mutex_unlock(&s->lock);
                pthread_join(s->thread, NULL);
        }
        free(s->pieces);
        free(s);
}
