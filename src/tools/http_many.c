/* SPDX-License-Identifier: MIT */
/* Several requests at once. Each has a handle of its own that borrows the client's identity; the connections belong to
 * the client's multi handle, so that they outlast a round. */
#include <errno.h>

#include <k3s-vm/interrupt.h>

#include "http_internal.h"

#define PARALLEL_MAX 64U
#define CONNECTIONS_MAX 6L /* for a server without HTTP/2 */
#define POLL_MS 1000

struct transfer {
        struct http http; /* its identity is borrowed */
        struct curl_slist *headers;
        struct http_exchange *exchange; /* NULL: idle */
};

struct round {
        struct http *http;
        struct transfer transfers[PARALLEL_MAX];
        struct http_exchange *next, *end;
        size_t n_running;
        http_done_fn *on_done;
        void *userdata;
};

void http_exchange_clear(struct http_exchange *e) {
        http_response_clear(&e->response);
        error_clear(&e->error);
        e->result = 0;
        e->over = false;
}

static void finish(struct round *round, struct transfer *t, CURLcode code) {
        struct http_exchange *e = t->exchange;
        libcurl.curl_multi_remove_handle(round->http->multi, t->http.easy);
        e->result = http_end(&t->http, code, &e->request, &e->response, &e->error);
        http_slist_freep(&t->headers);
        t->headers = NULL;
        t->exchange = NULL;
        e->over = true;
        round->n_running--;
        if (round->on_done)
                round->on_done(e, round->userdata);
}

static void start(struct round *round, struct transfer *t, struct http_exchange *e) {
        http_exchange_clear(e);
        if (!t->http.easy) {
                t->http = *round->http;
                t->http.easy = oom_check(libcurl.curl_easy_init());
        }
        e->result = http_begin(&t->http, &e->request, &e->response, &t->headers, &e->error);
        if (e->result < 0) {
                http_slist_freep(&t->headers);
                t->headers = NULL;
                e->over = true;
                if (round->on_done)
                        round->on_done(e, round->userdata);
                return;
        }
        http_setopt(&t->http, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
        /* Rather wait for the first connection's handshake, and share it, than make one each. */
        http_setopt(&t->http, CURLOPT_PIPEWAIT, 1L);
        http_setopt(&t->http, CURLOPT_PRIVATE, t);
        t->exchange = e;
        round->n_running++;
        if (libcurl.curl_multi_add_handle(round->http->multi, t->http.easy) != CURLM_OK)
                finish(round, t, CURLE_OUT_OF_MEMORY);
}

static void fill(struct round *round, unsigned parallel) {
        for (unsigned i = 0; i < parallel && round->next < round->end; i++)
                while (!round->transfers[i].exchange && round->next < round->end)
                        start(round, &round->transfers[i], round->next++);
}

static void collect(struct round *round) {
        int left;
        for (CURLMsg *m; (m = libcurl.curl_multi_info_read(round->http->multi, &left));) {
                if (m->msg != CURLMSG_DONE)
                        continue;
                CURLcode code = m->data.result;
                char *t = NULL;
                libcurl.curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &t);
                finish(round, (struct transfer *)(void *)t, code);
        }
}

static int run(struct round *round, unsigned parallel, struct error *err) {
        for (;;) {
                fill(round, parallel);
                if (round->n_running == 0)
                        return 0;
                int running = 0;
                CURLMcode code = libcurl.curl_multi_perform(round->http->multi, &running);
                collect(round);
                if (code == CURLM_OK && round->n_running > 0 && (size_t)running == round->n_running) {
                        int fd = interrupt_fd();
                        struct curl_waitfd also = {.fd = fd, .events = CURL_WAIT_POLLIN};
                        code = libcurl.curl_multi_poll(round->http->multi, &also, fd >= 0, POLL_MS, NULL);
                }
                if (code != CURLM_OK)
                        return err_set(err, ERR_FAILED, EIO, "libcurl failed: %s", libcurl.curl_multi_strerror(code));
                int r = interrupt_check(err);
                if (r < 0)
                        return r;
        }
}

int http_perform_all(struct http *h, struct http_exchange *exchanges, size_t n, unsigned parallel,
                     http_done_fn *on_done, void *userdata, struct error *err) {
        if (!h->multi) {
                h->multi = oom_check(libcurl.curl_multi_init());
                libcurl.curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, CONNECTIONS_MAX);
        }
        struct round round = {
                        .http = h, .next = exchanges, .end = exchanges + n, .on_done = on_done, .userdata = userdata};
        struct sigpipe sigpipe;
        sigpipe_block(&sigpipe);
        int r = run(&round, parallel < PARALLEL_MAX ? parallel : PARALLEL_MAX, err);
        for (size_t i = 0; i < PARALLEL_MAX; i++) {
                struct transfer *t = &round.transfers[i];
                if (t->exchange) {
                        libcurl.curl_multi_remove_handle(h->multi, t->http.easy);
                        http_response_clear(&t->exchange->response);
                }
                http_slist_freep(&t->headers);
                if (t->http.easy)
                        libcurl.curl_easy_cleanup(t->http.easy);
        }
        sigpipe_restore(&sigpipe);
        return r;
}
