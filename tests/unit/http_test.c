/* SPDX-License-Identifier: MIT */
/* Requests. Downloads are in http_download_test.c. */
#include "https_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <k3s-vm/digest.h>

#define DATA_LEN 3000000U

struct scene {
        struct http *http;
};

static int scene_setup(void **state) {
        struct scene *s = xcalloc(1, sizeof(*s));
        *state = s;
        return http_new(NULL, &s->http, NULL);
}

static int scene_teardown(void **state) {
        struct scene *s = *state;
        http_free(s->http);
        free(s);
        return 0;
}

static struct scene *scene(void **state) {
        needs_server();
        return *state;
}

static int get(struct http *h, unsigned port, const char *path, struct http_response *ret, struct error *err) {
        _cleanup_free_ char *url = url_of(port, path);
        return http_perform(h, &(struct http_request){.url = url}, ret, err);
}

static void any_status_is_an_answer(void **state) {
        struct scene *s = scene(state);
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(get(s->http, server->good, "/data", &r, NULL), 0);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.body.len, DATA_LEN);
        assert_int_equal(get(s->http, server->good, "/nothing-here", &r, NULL), 0);
        assert_int_equal(r.status, 404);
        assert_string_equal(buf_str(&r.body), "no such page\n");
        assert_int_equal(get(s->http, server->good, "/error", &r, NULL), 0);
        assert_int_equal(r.status, 500);
}

static void method_headers_and_body_arrive(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/echo");
        size_t len = 2U << 20; /* where curl would ask for "100 Continue" */
        _cleanup_free_ char *body = xcalloc(1, len);
        char hex[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_bytes(body, len, hex, NULL), 0);
        const char *const headers[] = {"Content-Type: application/apply-patch+yaml", "X-Test: yes", NULL};
        const struct http_request q = {
                        .method = "PATCH", .url = url, .headers = headers, .body = body, .body_len = len};
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(http_perform(s->http, &q, &r, NULL), 0);
        _cleanup_free_ char *expected = xasprintf("PATCH\nnobody\napplication/apply-patch+yaml\nyes\n-\n%s\n", hex);
        assert_int_equal(r.status, 201);
        assert_string_equal(buf_str(&r.body), expected);
        /* And nothing of it in the next one. */
        assert_int_equal(get(s->http, server->good, "/echo", &r, NULL), 0);
        assert_true(str_starts(buf_str(&r.body), "GET\nnobody\n-\n-\n-\n"));
        assert_int_equal(http_perform(s->http,
                                      &(struct http_request){
                                                      .url = url,
                                                      .method = "POST",
                                                      .body = "",
                                      },
                                      &r, NULL),
                         0);
        assert_true(str_starts(buf_str(&r.body), "POST\nnobody\n-\n-\n-\n"));
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url, .method = "HEAD"}, &r, NULL), 0);
        assert_int_equal(r.body.len, 0);
}

static void connections_are_used_again(void **state) {
        struct scene *s = scene(state);
        _cleanup_http_response_ struct http_response a = HTTP_RESPONSE_INIT, b = HTTP_RESPONSE_INIT;
        assert_int_equal(get(s->http, server->good, "/connection", &a, NULL), 0);
        for (int i = 0; i < 20; i++) {
                assert_int_equal(get(s->http, server->good, "/connection", &b, NULL), 0);
                assert_string_equal(buf_str(&a.body), buf_str(&b.body));
        }
}

static void a_client_certificate_and_one_authority_come_from_memory(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *ca = https_server_file(server, "ca.pem"), *cert = https_server_file(server, "client.pem"),
                            *key = https_server_file(server, "client.key");
        _cleanup_free_ char *bundle = xstrdup(getenv("CURL_CA_BUNDLE"));
        unsetenv("CURL_CA_BUNDLE");
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        const struct http_identity identity = {.ca_pem = ca, .cert_pem = cert, .key_pem = key};
        _cleanup_http_ struct http *h = NULL;
        assert_int_equal(http_new(&identity, &h, NULL), 0);
        int with = get(h, server->client, "/echo", &r, NULL);
        /* Without a certificate the server ends it. */
        _cleanup_http_ struct http *anonymous = NULL;
        assert_int_equal(http_new(&(struct http_identity){.ca_pem = ca}, &anonymous, NULL), 0);
        _cleanup_http_response_ struct http_response none = HTTP_RESPONSE_INIT;
        int without = get(anonymous, server->client, "/echo", &none, NULL);
        /* And without the authority nothing is trusted. */
        int untrusted = get(s->http, server->good, "/echo", &none, NULL);
        /* A given authority is the only one: a server that another one vouches for is a stranger. */
        _cleanup_http_ struct http *other = NULL;
        assert_int_equal(http_new(&(struct http_identity){.ca_pem = cert}, &other, NULL), 0);
        setenv("CURL_CA_BUNDLE", bundle, 1);
        int stranger = get(other, server->good, "/echo", &none, NULL);
        assert_int_equal(with, 0);
        assert_true(str_starts(buf_str(&r.body), "GET\nclient\n"));
        assert_true(without < 0);
        assert_int_equal(untrusted, -EPROTO);
        assert_int_equal(stranger, -EPROTO);
}

static void expired_certificates_and_other_hosts_are_refused(void **state) {
        struct scene *s = scene(state);
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(get(s->http, server->expired, "/data", &r, &err), -EPROTO);
        assert_non_null(strstr(err.message, "expired"));
        assert_int_equal(get(s->http, server->wronghost, "/data", &r, &err), -EPROTO);
        assert_int_equal(r.status, 0);
}

static void plain_http_is_for_this_machine_only(void **state) {
        struct scene *s = scene(state);
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        _cleanup_free_ char *url = xasprintf("http://127.0.0.1:%u/error", server->plain);
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url}, &r, NULL), 0);
        static const char *const refused[] = {"http://example.com/",
                                              "ftp://127.0.0.1/",
                                              "file:///etc/passwd",
                                              "http://127.0.0.1.example.com/",
                                              "http://127.0.0.1@example.com/",
                                              "",
                                              "nonsense"};
        for (size_t i = 0; i < ELEMENTSOF(refused); i++)
                assert_int_equal(http_perform(s->http, &(struct http_request){.url = refused[i]}, &r, NULL), -EINVAL);
}

static void redirects_are_followed_where_asked_and_only_to_https(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/redirect/redirect/error"),
                            *loop = url_of(server->good, "/loop"), *down = url_of(server->good, "/to-http");
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url}, &r, NULL), 0);
        assert_int_equal(r.status, 302);
        const struct http_request follow = {.url = url, .follow_redirects = true};
        assert_int_equal(http_perform(s->http, &follow, &r, NULL), 0);
        assert_int_equal(r.status, 500);
        assert_true(str_ends(r.location, "/error"));
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = loop, .follow_redirects = true}, &r, NULL),
                         -ELOOP);
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = down, .follow_redirects = true}, &r, NULL),
                         -EPROTO);
}

static void a_body_has_a_bound(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/data");
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url, .max_body = 1000}, &r, NULL), -E2BIG);
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url, .max_body = DATA_LEN}, &r, NULL), 0);
}

static void time_limits_hold(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->good, "/delay");
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        uint64_t before = now_ms();
        assert_int_equal(http_perform(s->http, &(struct http_request){.url = url, .timeout_ms = 400}, &r, &err),
                         -ETIMEDOUT);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_in_range(now_ms() - before, 350, 2000);
}

static void what_is_not_up_yet_is_told_apart(void **state) {
        struct scene *s = scene(state);
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(get(s->http, 1, "/", &r, NULL), -ECONNREFUSED);
        /* A forwarded port that accepts and hangs up. */
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        for (uint16_t port = 21699; port > 21600; port--) {
                a.sin_port = htons(port);
                if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
                        break;
        }
        assert_int_equal(listen(fd, 4), 0);
        pid_t pid = fork();
        if (pid == 0) {
                close(accept(fd, NULL, NULL)); /* with what the client said unread: a reset, or an end */
                _exit(0);
        }
        assert_int_equal(get(s->http, ntohs(a.sin_port), "/", &r, NULL), -ECONNRESET);
        waitpid(pid, NULL, 0);
        close(fd);
        assert_int_equal(get(s->http, server->good, "/hangup", &r, NULL), -ECONNRESET);
}

static void count(struct http_exchange *e, void *userdata) {
        assert_true(e->over);
        ++*(unsigned *)userdata;
}

static void many_requests_each_get_their_own_answer(void **state) {
        struct scene *s = scene(state);
        static const char *const paths[] = {"/data", "/nothing-here", "/error", "/cut-always", "/echo"};
        struct http_exchange exchanges[40] = {0};
        _cleanup_strv_ struct strv urls = {0};
        for (size_t i = 0; i < ELEMENTSOF(exchanges); i++) {
                strv_push_take(&urls, url_of(server->good, paths[i % ELEMENTSOF(paths)]));
                exchanges[i].request.url = urls.items[i];
        }
        exchanges[39].request.url = "ftp://127.0.0.1/";
        unsigned n = 0;
        assert_int_equal(http_perform_all(s->http, exchanges, 40, 8, count, &n, NULL), 0);
        assert_int_equal(n, 40);
        assert_int_equal(exchanges[39].result, -EINVAL);
        for (size_t i = 0; i < 39; i++) {
                const struct http_exchange *e = &exchanges[i];
                static const long status[] = {200, 404, 500, 0, 201};
                assert_int_equal(e->result, i % 5 == 3 ? -ECONNRESET : 0);
                assert_int_equal(e->response.status, status[i % 5]);
                if (i % 5 == 0)
                        assert_int_equal(e->response.body.len, DATA_LEN);
        }
        for (size_t i = 0; i < ELEMENTSOF(exchanges); i++)
                http_exchange_clear(&exchanges[i]);
        /* And the client goes on with single ones. */
        _cleanup_http_response_ struct http_response r = HTTP_RESPONSE_INIT;
        assert_int_equal(get(s->http, server->good, "/error", &r, NULL), 0);
        assert_int_equal(r.status, 500);
}

static void no_request_at_all_is_done_at_once(void **state) {
        struct scene *s = scene(state);
        assert_int_equal(http_perform_all(s->http, NULL, 0, 8, NULL, NULL, NULL), 0);
}

static void many_requests_to_a_stranger_are_all_refused(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *url = url_of(server->wronghost, "/data");
        struct http_exchange exchanges[5] = {0};
        for (size_t i = 0; i < ELEMENTSOF(exchanges); i++)
                exchanges[i].request.url = url;
        assert_int_equal(http_perform_all(s->http, exchanges, 5, 5, NULL, NULL, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(exchanges); i++) {
                assert_int_equal(exchanges[i].result, -EPROTO);
                http_exchange_clear(&exchanges[i]);
        }
}

int main(void) {
#define scene_test(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)
        const struct CMUnitTest tests[] = {
                        scene_test(any_status_is_an_answer),
                        scene_test(method_headers_and_body_arrive),
                        scene_test(connections_are_used_again),
                        scene_test(a_client_certificate_and_one_authority_come_from_memory),
                        scene_test(expired_certificates_and_other_hosts_are_refused),
                        scene_test(plain_http_is_for_this_machine_only),
                        scene_test(redirects_are_followed_where_asked_and_only_to_https),
                        scene_test(a_body_has_a_bound),
                        scene_test(time_limits_hold),
                        scene_test(what_is_not_up_yet_is_told_apart),
                        scene_test(many_requests_each_get_their_own_answer),
                        scene_test(no_request_at_all_is_done_at_once),
                        scene_test(many_requests_to_a_stranger_are_all_refused),
        };
        return cmocka_run_group_tests_name("http", tests, https_group_setup, https_group_teardown);
}
