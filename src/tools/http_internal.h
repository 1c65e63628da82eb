/* SPDX-License-Identifier: MIT */
/* What the files of module `http` share: libcurl, loaded once, and a client. Not for anyone else. */
#pragma once

/* Its checking macros would take the place of the members of struct libcurl_library. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include <signal.h>

#include <k3s-vm/err.h>
#include <k3s-vm/http.h>
#include <k3s-vm/library.h>

#ifndef LIBCURL_SONAME
#define LIBCURL_SONAME "libcurl.so.4"
#endif

#define LIBCURL_SYMBOLS(X) \
        X(curl_easy_cleanup) \
        X(curl_easy_getinfo) \
        X(curl_easy_init) \
        X(curl_easy_perform) \
        X(curl_easy_reset) \
        X(curl_easy_setopt) \
        X(curl_easy_strerror) \
        X(curl_global_init) \
        X(curl_multi_add_handle) \
        X(curl_multi_cleanup) \
        X(curl_multi_info_read) \
        X(curl_multi_init) \
        X(curl_multi_perform) \
        X(curl_multi_poll) \
        X(curl_multi_remove_handle) \
        X(curl_multi_setopt) \
        X(curl_multi_strerror) \
        X(curl_slist_append) \
        X(curl_slist_free_all) \
        X(curl_url) \
        X(curl_url_cleanup) \
        X(curl_url_get) \
        X(curl_url_set) \
        X(curl_free)

/* Filled in by the first http_new(). */
LIBRARY_EXTERN(libcurl, LIBCURL_SYMBOLS);

/* For options that every libcurl has: these cannot fail. */
#define http_setopt(h, option, value) ((void)libcurl.curl_easy_setopt((h)->easy, (option), (value)))

struct http {
        CURL *easy;   /* keeps the connections */
        CURLM *multi; /* keeps those of http_perform_all(); NULL until it is used */
        char *ca_pem, *cert_pem, *key_pem;
        char message[CURL_ERROR_SIZE];
};

/* Puts the handle into the state every request starts from: TLS, proxies, protocols, @url. -EINVAL for a URL
 * that is neither https nor http to 127.0.0.1. */
int http_prepare(struct http *h, const char *url, struct error *err);

/* Sets everything that @request asks for; what it points to and @response have to stay until http_end(), which also
 * gets @headers. */
int http_begin(struct http *h, const struct http_request *request, struct http_response *response,
               struct curl_slist **headers, struct error *err);
/* What came of it: fills in @response, or an error for @code. */
int http_end(struct http *h, CURLcode code, const struct http_request *request, struct http_response *response,
             struct error *err);

/* No SIGPIPE in between: TLS libraries write with write(2), and a server that hangs up would end the program. */
struct sigpipe {
        sigset_t before;
        bool was_pending;
};
void sigpipe_block(struct sigpipe *s);
void sigpipe_restore(const struct sigpipe *s);

/* curl_easy_perform() without SIGPIPE, ended by an interruption (CURLE_ABORTED_BY_CALLBACK). */
CURLcode http_run(struct http *h);

/* The error for a failed transfer. */
int http_failed(struct http *h, CURLcode code, const char *url, struct error *err);

void http_slist_freep(struct curl_slist **list);
void http_slist_add(struct curl_slist **list, const char *header);
