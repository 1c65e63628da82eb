/* SPDX-License-Identifier: MIT */
/* tests/lib/https_server.py, running for a group of tests. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/http.h>
#include <k3s-vm/proc.h>

#include "must_skip.h"

#ifndef TESTS_DIR
#define TESTS_DIR "tests"
#endif

struct https_server {
        char *dir; /* certificates and www/ */
        struct process process;
        int input; /* closing it ends the server */
        unsigned good, expired, wronghost, client, plain;
};

/* Returns NULL where there is no Python or openssl. */
static inline struct https_server *https_server_start(void) {
        _cleanup_free_ char *python = fs_find_program("python3"), *openssl = fs_find_program("openssl");
        if (!python || !openssl)
                return NULL;
        struct https_server *s = xcalloc(1, sizeof(*s));
        s->process = PROCESS_INIT;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-test", &s->dir, NULL), 0);
        _cleanup_free_ char *www = path_join(s->dir, "www"), *ca = path_join(s->dir, "ca.pem");
        assert_int_equal(mkdir(www, 0755), 0);
        int in[2], out[2];
        assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){python, TESTS_DIR "/lib/https_server.py", s->dir, NULL};
        spec.stdin_fd = in[0];
        spec.stdout_fd = out[1];
        spec.stderr_fd = STDERR_FILENO;
        assert_int_equal(proc_spawn(&spec, &s->process, NULL), 0);
        close(in[0]);
        close(out[1]);
        s->input = in[1];
        _cleanup_buf_ struct buf line = BUF_INIT(70000);
        while (!strchr(buf_str(&line), '\n'))
                if (buf_read(&line, out[0]) <= 0)
                        fail_msg("tests/lib/https_server.py does not start");
        close(out[0]);
        assert_int_equal(sscanf(line.data, "%u %u %u %u %u", &s->good, &s->expired, &s->wronghost, &s->client,
                                &s->plain),
                         5);
        /* What the machine that runs the tests has set must not matter. */
        static const char *const variables[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
        for (size_t i = 0; i < ELEMENTSOF(variables); i++)
                unsetenv(variables[i]);
        setenv("CURL_CA_BUNDLE", ca, 1);
        return s;
}

static inline void https_server_stop(struct https_server *s) {
        if (!s)
                return;
        close(s->input);
        proc_end(&s->process, 5000);
        fs_remove_tree(s->dir, NULL);
        free(s->dir);
        free(s);
}

/* A file of the server's folder, as text; the caller frees. */
static inline char *https_server_file(const struct https_server *s, const char *name) {
        _cleanup_free_ char *path = path_join(s->dir, name);
        struct buf text = BUF_INIT(65536);
        assert_int_equal(fs_read(path, 65535, &text, NULL), 0);
        return buf_take(&text);
}

static inline char *url_of(unsigned port, const char *path) {
        return xasprintf("https://127.0.0.1:%u%s", port, path);
}

/* What the server says at @path (GET); the caller frees. */
static inline char *https_server_ask(const struct https_server *s, const char *path) {
        _cleanup_http_ struct http *h = NULL;
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        _cleanup_free_ char *url = url_of(s->good, path);
        assert_int_equal(http_new(NULL, &h, NULL), 0);
        assert_int_equal(http_perform(h, &(struct http_request){.url = url}, &response, NULL), 0);
        return buf_take(&response.body);
}

/* The one of a group of tests; NULL where there is none. */
static struct https_server *server;

static inline int https_group_setup(void **state _unused_) {
        server = https_server_start();
        return 0;
}

static inline int https_group_teardown(void **state _unused_) {
        https_server_stop(server);
        return 0;
}

static inline void needs_server(void) {
        if (!server)
                must_skip("no python3 or openssl here");
}
