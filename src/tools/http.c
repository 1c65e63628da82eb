/* SPDX-License-Identifier: MIT */
/* Requests. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <k3s-vm/interrupt.h>
#include <k3s-vm/strv.h>

#include "http_internal.h"

struct libcurl_library libcurl;

static int load(struct error *err) {
        if (libcurl.handle_)
                return 0;
        int r = LIBRARY_LOAD(libcurl, LIBCURL_SONAME, LIBCURL_SYMBOLS, err);
        if (r < 0)
                return r;
        CURLcode code = libcurl.curl_global_init(CURL_GLOBAL_DEFAULT);
        if (code == CURLE_OK)
                return 0;
        libcurl.handle_ = NULL;
        return err_set(err, ERR_HOST, EIO, "cannot start libcurl: %s", libcurl.curl_easy_strerror(code));
}

void http_slist_freep(struct curl_slist **list) {
        if (*list)
                libcurl.curl_slist_free_all(*list);
}

void http_slist_add(struct curl_slist **list, const char *header) {
        *list = oom_check(libcurl.curl_slist_append(*list, header));
}

int http_new(const struct http_identity *identity, struct http **ret, struct error *err) {
        int r = load(err);
        if (r < 0)
                return r;
        struct http *h = xcalloc(1, sizeof(*h));
        h->easy = oom_check(libcurl.curl_easy_init());
        if (identity) {
                h->ca_pem = xstrdup(identity->ca_pem);
                h->cert_pem = xstrdup(identity->cert_pem);
                h->key_pem = xstrdup(identity->key_pem);
        }
        *ret = h;
        return 0;
}

void http_free(struct http *h) {
        if (!h)
                return;
        libcurl.curl_easy_cleanup(h->easy);
        if (h->multi)
                libcurl.curl_multi_cleanup(h->multi);
        if (h->key_pem)
                explicit_bzero(h->key_pem, strlen(h->key_pem));
        free(h->ca_pem);
        free(h->cert_pem);
        free(h->key_pem);
        free(h);
}

void http_response_clear(struct http_response *r) {
        buf_free(&r->body);
        free(r->location);
        *r = HTTP_RESPONSE_INIT;
}

/* https anywhere, http only where nobody can listen in. */
static int check_url(const char *url, bool *ret_loopback, struct error *err) {
        CURLU *parsed = oom_check(libcurl.curl_url());
        char *scheme = NULL, *host = NULL;
        bool ok = libcurl.curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
                  libcurl.curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                  libcurl.curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK;
        bool loopback = ok && str_eq(host, "127.0.0.1");
        ok = ok && (str_eq(scheme, "https") || (str_eq(scheme, "http") && loopback));
        libcurl.curl_free(scheme);
        libcurl.curl_free(host);
        libcurl.curl_url_cleanup(parsed);
        if (!ok) {
                _cleanup_free_ char *shown = str_printable(url, strnlen(url, 512));
                return err_set(err, ERR_FAILED, EINVAL, "not an https address: %s", shown);
        }
        *ret_loopback = loopback;
        return 0;
}

static void set_blob(struct http *h, CURLoption option, char *text) {
        struct curl_blob blob = {.data = text, .len = strlen(text), .flags = CURL_BLOB_NOCOPY};
        http_setopt(h, option, &blob);
}

static void set_authorities(struct http *h) {
        if (h->ca_pem) {
                /* One authority is trusted, so the system's folder of them must not be looked at. */
                set_blob(h, CURLOPT_CAINFO_BLOB, h->ca_pem);
                http_setopt(h, CURLOPT_CAPATH, NULL);
        } else {
                /* libcurl leaves these variables to the curl program. */
                static const char *const variables[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE", "NIX_SSL_CERT_FILE"};
                for (size_t i = 0; i < ELEMENTSOF(variables); i++) {
                        const char *path = getenv(variables[i]);
                        if (path && *path) {
                                http_setopt(h, CURLOPT_CAINFO, path);
                                http_setopt(h, CURLOPT_CAPATH, NULL);
                                break;
                        }
                }
        }
        if (h->cert_pem && h->key_pem) {
                set_blob(h, CURLOPT_SSLCERT_BLOB, h->cert_pem);
                set_blob(h, CURLOPT_SSLKEY_BLOB, h->key_pem);
        }
}

int http_prepare(struct http *h, const char *url, struct error *err) {
        bool loopback = false;
        int r = check_url(url, &loopback, err);
        if (r < 0)
                return r;
        libcurl.curl_easy_reset(h->easy); /* connections and TLS sessions stay */
        h->message[0] = '\0';
        http_setopt(h, CURLOPT_ERRORBUFFER, h->message);
        http_setopt(h, CURLOPT_URL, url);
        http_setopt(h, CURLOPT_USERAGENT, "k3s-vm/" K3S_VM_VERSION);
        http_setopt(h, CURLOPT_NOSIGNAL, 1L);
        /* One request at a time gains nothing from HTTP/2, whose set-up costs a slow server more. */
        http_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        http_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
        http_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
        http_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
        http_setopt(h, CURLOPT_MAXREDIRS, 10L);
        if (libcurl.curl_easy_setopt(h->easy, CURLOPT_REDIR_PROTOCOLS_STR, "https") != CURLE_OK) {
                /* Before libcurl 7.85. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
                http_setopt(h, CURLOPT_REDIR_PROTOCOLS, (long)CURLPROTO_HTTPS);
#pragma GCC diagnostic pop
        }
        /* A proxy from the environment cannot reach this machine's own ports. */
        if (loopback)
                http_setopt(h, CURLOPT_PROXY, "");
        set_authorities(h);
        return 0;
}

/* Called with each piece of data, and about once a second when there is none. */
static int on_tick(_unused_ void *userdata, _unused_ curl_off_t a, _unused_ curl_off_t b, _unused_ curl_off_t c,
                   _unused_ curl_off_t d) {
        return interrupt_pending();
}

void sigpipe_block(struct sigpipe *s) {
        sigset_t pipe_only, pending;
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        sigpending(&pending);
        s->was_pending = sigismember(&pending, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_only, &s->before);
}

void sigpipe_restore(const struct sigpipe *s) {
        sigset_t pipe_only;
        sigemptyset(&pipe_only);
        sigaddset(&pipe_only, SIGPIPE);
        if (!s->was_pending)
                while (sigtimedwait(&pipe_only, NULL, &(struct timespec){0}) == SIGPIPE)
                        ;
        pthread_sigmask(SIG_SETMASK, &s->before, NULL);
}

CURLcode http_run(struct http *h) {
        http_setopt(h, CURLOPT_NOPROGRESS, 0L);
        http_setopt(h, CURLOPT_XFERINFOFUNCTION, on_tick);
        struct sigpipe sigpipe;
        sigpipe_block(&sigpipe);
        CURLcode code = libcurl.curl_easy_perform(h->easy);
        sigpipe_restore(&sigpipe);
        return code;
}

/* The errno that says best what happened; ECONNRESET is "it went away in the middle". */
static int errno_of(struct http *h, CURLcode code) {
        long os_errno = 0;
        libcurl.curl_easy_getinfo(h->easy, CURLINFO_OS_ERRNO, &os_errno);
        switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
                return ENETUNREACH;
        case CURLE_COULDNT_CONNECT:
                return os_errno == ENETUNREACH || os_errno == EHOSTUNREACH ? ENETUNREACH : ECONNREFUSED;
        case CURLE_OPERATION_TIMEDOUT:
                return ETIMEDOUT;
        case CURLE_GOT_NOTHING:
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
        case CURLE_PARTIAL_FILE:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
                return ECONNRESET;
        case CURLE_SSL_CONNECT_ERROR:
                /* A forwarded port accepts before anything listens behind it. */
                return os_errno == ECONNRESET || strstr(h->message, "SSL_ERROR_SYSCALL") ||
                                                       strstr(h->message, "unexpected eof") ||
                                                       strstr(h->message, "reset by peer")
                                       ? ECONNRESET
                                       : EPROTO;
        case CURLE_TOO_MANY_REDIRECTS:
                return ELOOP;
        case CURLE_OUT_OF_MEMORY:
                return ENOMEM;
        default:
                return EPROTO;
        }
}

int http_failed(struct http *h, CURLcode code, const char *url, struct error *err) {
        if (code == CURLE_ABORTED_BY_CALLBACK)
                return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted while fetching %s", url);
        int e = errno_of(h, code);
        const char *text = h->message[0] ? h->message : libcurl.curl_easy_strerror(code);
        _cleanup_free_ char *shown = str_printable(text, strlen(text));
        int r = err_set(err, code == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT : ERR_FAILED, e, "cannot fetch %s: %s", url,
                        shown);
        if (code == CURLE_PEER_FAILED_VERIFICATION && !h->ca_pem)
                err_hint(err,
                         "the server's certificate is not trusted here; with a proxy that brings its own authority,\n"
                         "set CURL_CA_BUNDLE to a file with that authority's certificate");
        return r;
}

static size_t on_body(char *data, size_t size, size_t n, void *userdata) {
        struct buf *b = userdata;
        return buf_append(b, data, size * n) < 0 ? 0 : size * n;
}

static bool has_header(const char *const *headers, const char *name) {
        size_t n = strlen(name);
        for (; headers && *headers; headers++)
                if (strncasecmp(*headers, name, n) == 0 && (*headers)[n] == ':')
                        return true;
        return false;
}

static void set_method(struct http *h, const struct http_request *q, struct curl_slist **headers) {
        if (str_eq(q->method, "HEAD"))
                http_setopt(h, CURLOPT_NOBODY, 1L);
        else if (q->body) {
                http_setopt(h, CURLOPT_POST, 1L);
                http_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
                http_setopt(h, CURLOPT_POSTFIELDS, q->body);
                /* Waiting for "100 Continue" is a round trip for nothing. */
                http_slist_add(headers, "Expect:");
                if (!has_header(q->headers, "Content-Type"))
                        http_slist_add(headers, "Content-Type:");
        }
        if (q->method && !str_eq(q->method, "GET") && !str_eq(q->method, "HEAD"))
                http_setopt(h, CURLOPT_CUSTOMREQUEST, q->method);
}

int http_begin(struct http *h, const struct http_request *request, struct http_response *response,
               struct curl_slist **headers, struct error *err) {
        int r = http_prepare(h, request->url, err);
        if (r < 0)
                return r;
        set_method(h, request, headers);
        for (const char *const *header = request->headers; header && *header; header++)
                http_slist_add(headers, *header);
        response->body = BUF_INIT(request->max_body ? request->max_body : 16U << 20);
        http_setopt(h, CURLOPT_HTTPHEADER, *headers);
        http_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
        http_setopt(h, CURLOPT_WRITEDATA, &response->body);
        http_setopt(h, CURLOPT_FOLLOWLOCATION, request->follow_redirects ? 1L : 0L);
        http_setopt(h, CURLOPT_CONNECTTIMEOUT_MS,
                    (long)(request->connect_timeout_ms ? request->connect_timeout_ms : 10000));
        http_setopt(h, CURLOPT_TIMEOUT_MS, (long)(request->timeout_ms ? request->timeout_ms : 30000));
        return 0;
}

int http_end(struct http *h, CURLcode code, const struct http_request *request, struct http_response *response,
             struct error *err) {
        int r = 0;
        if (code == CURLE_WRITE_ERROR)
                r = err_set(err, ERR_FAILED, E2BIG, "the answer of %s is larger than %zu bytes", request->url,
                            response->body.max);
        else if (code != CURLE_OK)
                r = http_failed(h, code, request->url, err);
        /* The handle outlives what it points to here. */
        http_setopt(h, CURLOPT_HTTPHEADER, NULL);
        http_setopt(h, CURLOPT_WRITEDATA, NULL);
        http_setopt(h, CURLOPT_POSTFIELDS, NULL);
        if (r < 0)
                return r;
        char *location = NULL;
        libcurl.curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &response->status);
        libcurl.curl_easy_getinfo(h->easy, CURLINFO_EFFECTIVE_URL, &location);
        response->location = xstrdup(location);
        return 0;
}

int http_perform(struct http *h, const struct http_request *request, struct http_response *ret, struct error *err) {
        _cleanup_(http_slist_freep) struct curl_slist *headers = NULL;
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        int r = http_begin(h, request, &response, &headers, err);
        if (r == 0)
                r = http_end(h, http_run(h), request, &response, err);
        if (r < 0)
                return r;
        http_response_clear(ret);
        *ret = response;
        response = HTTP_RESPONSE_INIT;
        return 0;
}
