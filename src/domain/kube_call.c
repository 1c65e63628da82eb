/* SPDX-License-Identifier: MIT */
/* Requests of any kind, many at once. */
#include <errno.h>
#include <string.h>

#include <k3s-vm/interrupt.h>

#include "kube_internal.h"

#define PARALLEL 16U
#define ANSWER_MAX_BYTES (16U * 1024 * 1024)
#define TIMEOUT_MS 60000U
#define MESSAGE_MAX_BYTES 2000U
/* Half a second, then twice as long each time: the API may be gone for nearly eight seconds. */
#define TRIES 5U
#define FIRST_PAUSE_MS 500U

void kube_call_clear(struct kube_call *c) {
        free(c->path);
        free(c->body);
        json_free(c->answer);
        free(c->answer_text);
        error_clear(&c->error);
        *c = KUBE_CALL_INIT;
}

void kube_calls_free(struct kube_call *calls, size_t n) {
        for (size_t i = 0; i < n; i++)
                kube_call_clear(&calls[i]);
        free(calls);
}

char *url_escape(const char *s) {
        static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, "");
        for (; *s; s++) {
                if (strchr(plain, *s))
                        buf_append(&b, s, 1);
                else
                        buf_printf(&b, "%%%02X", (unsigned char)*s);
        }
        return buf_take(&b);
}

static const char *const headers_all[] = {"Accept: application/json", "Content-Type: application/json", NULL};
static const char *const headers_metadata[] = {
                "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json",
                "Content-Type: application/json", NULL};
static const char *const headers_list[] = {
                "Accept: application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json", NULL};
/* JSON is YAML; there is no other name for the type in the API. */
static const char *const headers_apply[] = {"Accept: application/json", "Content-Type: application/apply-patch+yaml",
                                            NULL};
static const char *const headers_apply_metadata[] = {
                "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json",
                "Content-Type: application/apply-patch+yaml", NULL};
static const char *const headers_text[] = {"Accept: text/plain, */*", NULL};

static const char *const *headers_for(const struct kube_call *c) {
        if (c->text)
                return headers_text;
        if (str_eq(c->method, "PATCH"))
                return c->metadata_only ? headers_apply_metadata : headers_apply;
        /* Only lists are asked for their metadata without a method. */
        if (c->metadata_only)
                return c->method ? headers_metadata : headers_list;
        return headers_all;
}

static int errno_of_status(long status) {
        return status == 404                    ? ENOENT
               : status == 409                  ? EBUSY
               : status == 401 || status == 403 ? EACCES
               : status >= 500 || status == 429 ? EAGAIN
                                                : EINVAL;
}

/* Takes what the API said. */
static void read_answer(struct kube_call *c, const struct http_exchange *e) {
        const struct buf *body = &e->response.body;
        c->status = e->response.status;
        if (c->text && c->status < 400) {
                c->answer_text = xstrndup(buf_str(body), body->len);
                return;
        }
        int parsed = body->len > 0 ? json_parse(buf_str(body), body->len, &c->answer, &c->error) : 0;
        if (c->status < 400) {
                c->result = parsed < 0 ? err_wrap(&c->error, parsed, "cannot read the API's answer to %s", c->path) : 0;
                return;
        }
        const char *said = json_string(json_get(c->answer, "message"));
        _cleanup_free_ char *message = said ? xstrndup(said, MESSAGE_MAX_BYTES) : NULL;
        for (char *p = message; p && *p; p++)
                if (*p == '\n')
                        *p = ' ';
        _cleanup_free_ char *text = message ? str_printable(message, strlen(message))
                                            : xasprintf("the API answers %ld to %s", c->status, c->path);
        c->result = err_set(&c->error, ERR_FAILED, errno_of_status(c->status), "%s", text);
}

static bool is_worth_another_try(int result) {
        return result == -EAGAIN || result == -ECONNRESET || result == -ECONNREFUSED;
}

struct round {
        struct kube_call **calls;
        struct http_exchange *exchanges;
        bool last;
        kube_done_fn *on_done;
        void *userdata;
};

static void on_exchange(struct http_exchange *e, void *userdata) {
        struct round *round = userdata;
        struct kube_call *c = round->calls[e - round->exchanges];
        error_clear(&c->error);
        json_free(TAKE_PTR(c->answer));
        c->status = 0;
        c->result = e->result;
        if (e->result < 0)
                err_move(&c->error, &e->error);
        else
                read_answer(c, e);
        http_response_clear(&e->response);
        if (round->on_done && (round->last || !is_worth_another_try(c->result)))
                round->on_done(c, round->userdata);
}

static int perform_round(struct kube *k, struct round *round, size_t n, struct error *err) {
        _cleanup_free_ struct http_exchange *exchanges = xcalloc(n, sizeof(*exchanges));
        _cleanup_strv_ struct strv urls = {0};
        for (size_t i = 0; i < n; i++) {
                const struct kube_call *c = round->calls[i];
                strv_pushf(&urls, "%s%s", k->server, c->path);
                exchanges[i].request = (struct http_request){
                                .method = c->method,
                                .url = urls.items[i],
                                .headers = headers_for(c),
                                .body = c->body,
                                .body_len = c->body ? strlen(c->body) : 0,
                                .timeout_ms = c->timeout_ms ? c->timeout_ms : TIMEOUT_MS,
                                .max_body = ANSWER_MAX_BYTES,
                };
        }
        round->exchanges = exchanges;
        int r = http_perform_all(k->http, exchanges, n, PARALLEL, on_exchange, round, err);
        for (size_t i = 0; i < n; i++)
                http_exchange_clear(&exchanges[i]);
        return r;
}

int kube_perform(struct kube *k, struct kube_call *calls, size_t n, kube_done_fn *on_done, void *userdata,
                 struct error *err) {
        _cleanup_free_ struct kube_call **left = xcalloc(n, sizeof(*left));
        size_t n_left = n;
        for (size_t i = 0; i < n; i++)
                left[i] = &calls[i];
        unsigned pause_ms = FIRST_PAUSE_MS;
        for (unsigned i = 1; n_left > 0; i++, pause_ms *= 2) {
                struct round round = {.calls = left, .last = i == TRIES, .on_done = on_done, .userdata = userdata};
                int r = perform_round(k, &round, n_left, err);
                if (r < 0 || round.last)
                        return r;
                size_t n_again = 0;
                for (size_t j = 0; j < n_left; j++)
                        if (is_worth_another_try(left[j]->result))
                                left[n_again++] = left[j];
                n_left = n_again;
                if (n_left > 0 && (r = interrupt_wait(-1, pause_ms, err)) < 0)
                        return r;
        }
        return 0;
}

int kube_perform_one(struct kube *k, struct kube_call *call, struct error *err) {
        int r = kube_perform(k, call, 1, NULL, NULL, err);
        if (r == 0 && call->result < 0) {
                r = call->result;
                err_move(err, &call->error);
        }
        return r;
}
