/* SPDX-License-Identifier: MIT */
/*
 * HTTPS (libcurl behind it). A client keeps its connection between requests. TLS is always verified:
 * against the system's authorities (CURL_CA_BUNDLE and the proxy variables are honoured), or against
 * one given authority, as for a cluster's API. Signals of interrupt.h end any of this with -ECANCELED.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>

struct http;

struct http_identity {
        const char *ca_pem;   /* NULL: the system's authorities */
        const char *cert_pem; /* client certificate and key, both or neither */
        const char *key_pem;
};

/* The strings of @identity are copied. NULL: the system's authorities and no client certificate. */
int http_new(const struct http_identity *identity, struct http **ret, struct error *err);
void http_free(struct http *h);
DEFINE_FREEP(struct http, http_free)
#define _cleanup_http_ _cleanup_(http_freep)

struct http_request {
        const char *method;         /* NULL: GET */
        const char *url;            /* https://… ; http://… only to 127.0.0.1 */
        const char *const *headers; /* NULL or "Name: value" strings */
        const void *body;           /* NULL: none */
        size_t body_len;
        unsigned connect_timeout_ms; /* 0: 10 s */
        unsigned timeout_ms;         /* whole request; 0: 30 s */
        size_t max_body;             /* bytes; 0: 16 MiB */
        bool follow_redirects;       /* at most 10, HTTPS only */
};

struct http_response {
        long status; /* 200, 404, ... */
        struct buf body;
        char *location; /* the URL that finally answered; owned */
};
#define HTTP_RESPONSE_INIT ((struct http_response){0})
void http_response_clear(struct http_response *r);
#define _cleanup_http_response_ _cleanup_(http_response_clear)

/* 0 when a response came, whatever its status. -ECONNREFUSED, -ETIMEDOUT (ERR_TIMEOUT), -EPROTO for TLS
 * and protocol failures; -E2BIG for a body over the bound. */
int http_perform(struct http *h, const struct http_request *request, struct http_response *ret, struct error *err);

/* One of several requests that are under way at once. */
struct http_exchange {
        struct http_request request;
        struct http_response response; /* where @result is 0 */
        int result;                    /* as http_perform()'s */
        struct error error;
        bool over; /* an answer came, or none will */
};
#define HTTP_EXCHANGE_INIT ((struct http_exchange){0})
void http_exchange_clear(struct http_exchange *e); /* what came; the request stays the caller's */

/* Performs them all, at most @parallel (1 to 64) at once: over one HTTP/2 connection where the server knows that, else
 * over a few connections; they are kept for the next time. @on_done (may be NULL) is called as each one ends. Returns 0
 * whatever came of each; interrupted: -ECANCELED, and those that are not over had no answer. */
typedef void http_done_fn(struct http_exchange *e, void *userdata);
int http_perform_all(struct http *h, struct http_exchange *exchanges, size_t n, unsigned parallel,
                     http_done_fn *on_done, void *userdata, struct error *err);

struct http_download {
        const char *url;
        const char *path; /* where the whole file goes, atomically; "PATH.part" until then */
        const char *hash; /* SHA-256 or SHA-512 expected, in hexadecimal; NULL: not checked */
        mode_t mode;
        unsigned stall_timeout_ms; /* no byte for that long is a failure; 0: 30 s */
        unsigned attempts;         /* tries with growing pauses for what can pass; 0: 6 */
        unsigned pause_ms;         /* the first of the pauses, unless the server names one; 0: 500 */
        struct progress *progress;
        struct progress_phase *phase;
};
/* Downloads with resume by range, hashing while it streams. With @hash, a file already there that matches it is
 * the download. Two programs that fetch the same file at once do it once: the second waits for the first and shows
 * its progress. A wrong hash removes the partial file and is -EBADMSG; a 404 is -ENOENT; a missing network
 * -ENETUNREACH; no room on the disk -ENOSPC, found out before the download where the server tells the size. A partial
 * file is kept for the next time when the download fails for another reason. */
int http_download(struct http *h, const struct http_download *download, struct error *err);
