/* SPDX-License-Identifier: MIT */
/* Against `openssl s_server`, whose -HTTP sends the files of a folder as whole answers, status and headers included. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/proc.h>

#define TIMEOUT_MS 30000

struct fixture {
        char *dir, *www;
        struct process server;
        uint16_t port;
        struct error err;
};

static int run(const char *const *argv) {
        struct proc_run_spec spec = PROC_RUN_SPEC_INIT;
        spec.spec.argv = argv;
        struct proc_result result = {.exit_status = -1};
        return proc_run(&spec, &result, NULL) < 0 ? -1 : result.exit_status;
}

/* A certificate that is its own authority, in DIR/NAME.crt and .key. */
static int make_certificate(const char *dir, const char *name) {
        _cleanup_free_ char *crt = xasprintf("%s/%s.crt", dir, name), *key = xasprintf("%s/%s.key", dir, name),
                            *subject = xasprintf("/CN=%s", name);
        return run((const char *const[]){"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                                         "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", subject, "-addext",
                                         "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", crt, NULL});
}

static char *read_pem(const char *dir, const char *name) {
        _cleanup_free_ char *path = path_join(dir, name);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(fs_read(path, 65536, &b, NULL), 0);
        return buf_take(&b);
}

/* Once s_server has said "ACCEPT 127.0.0.1:PORT" in the file @path; 0: it did not. */
static uint16_t wait_for_port(const char *path) {
        for (uint64_t deadline = now_ms() + TIMEOUT_MS; now_ms() < deadline; usleep(10000)) {
                _cleanup_buf_ struct buf b = BUF_INIT(0);
                fs_read(path, 65536, &b, NULL);
                const char *line = strstr(buf_str(&b), "ACCEPT 127.0.0.1:");
                if (line && strchr(line, '\n'))
                        return (uint16_t)strtol(line + strlen("ACCEPT 127.0.0.1:"), NULL, 10);
        }
        return 0;
}

/* It takes only clients with the certificate `client`. */
static int start_server(struct fixture *f) {
        _cleanup_free_ char *crt = path_join(f->dir, "server.crt"), *key = path_join(f->dir, "server.key"),
                            *ca = path_join(f->dir, "client.crt"), *out_path = path_join(f->dir, "server.out");
        _cleanup_close_ int out = open(out_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"openssl", "s_server",
                                          "-accept", "127.0.0.1:0",
                                          "-HTTP",   "-cert",
                                          crt,       "-key",
                                          key,       "-CAfile",
                                          ca,        "-Verify",
                                          "1",       "-verify_return_error",
                                          NULL};
        spec.cwd = f->www;
        spec.stdout_fd = out;
        spec.die_with_parent = true;
        if (proc_spawn(&spec, &f->server, NULL) < 0)
                return -1;
        f->port = wait_for_port(out_path);
        return f->port > 0 ? 0 : -1;
}

static int set_up_group(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        f->server = PROCESS_INIT;
        if (fs_mkdtemp("/tmp", "k3s-vm-kube", &f->dir, NULL) < 0)
                return -1;
        f->www = path_join(f->dir, "www");
        _cleanup_free_ char *v1 = path_join(f->www, "api", "v1");
        if (fs_mkdir_p(v1, 0700, NULL) < 0 || make_certificate(f->dir, "server") != 0 ||
            make_certificate(f->dir, "client") != 0 || make_certificate(f->dir, "stranger") != 0)
                return -1;
        *state = f;
        return start_server(f);
}

static int tear_down_group(void **state) {
        struct fixture *f = *state;
        proc_end(&f->server, 1000);
        error_clear(&f->err);
        int r = fs_remove_tree(f->dir, NULL);
        free(f->dir);
        free(f->www);
        free(f);
        return r;
}

/* What the server answers to @path from now on; @length is what Content-Length says. */
static void answer(struct fixture *f, const char *path, const char *status, size_t length, const char *body) {
        _cleanup_free_ char *file = path_join(f->www, path);
        _cleanup_free_ char *text = xasprintf("HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                                              "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                                              status, length, body);
        assert_int_equal(fs_write_atomic(file, text, strlen(text), 0600, NULL), 0);
}

static struct kube *connect_as(struct fixture *f, const char *authority, const char *client, uint16_t port) {
        _cleanup_free_ char *ca = xasprintf("%s.crt", authority), *crt = xasprintf("%s.crt", client),
                            *key = xasprintf("%s.key", client);
        struct kubeconfig k = {.server = xasprintf("https://127.0.0.1:%d", port),
                               .ca_pem = read_pem(f->dir, ca),
                               .cert_pem = read_pem(f->dir, crt),
                               .key_pem = read_pem(f->dir, key)};
        struct kube *kube = NULL;
        assert_int_equal(kube_new(&k, &kube, NULL), 0);
        free(k.server);
        free(k.ca_pem);
        free(k.cert_pem);
        free(k.key_pem);
        error_clear(&f->err);
        return kube;
}

static int get(struct fixture *f, const char *path, struct buf *ret) {
        _cleanup_kube_ struct kube *kube = connect_as(f, "server", "client", f->port);
        return kube_get(kube, path, TIMEOUT_MS, ret, &f->err);
}

static int get_nodes(struct fixture *f, const char *body, struct nodes *ret) {
        answer(f, "api/v1/nodes", "200 OK", strlen(body), body);
        _cleanup_kube_ struct kube *kube = connect_as(f, "server", "client", f->port);
        return kube_nodes(kube, TIMEOUT_MS, ret, &f->err);
}

static void an_answer_is_given_as_it_is(void **state) {
        struct fixture *f = *state;
        answer(f, "readyz", "200 OK", 2, "ok");
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(get(f, "/readyz", &b), 0);
        assert_string_equal(buf_str(&b), "ok");
        assert_int_equal(get(f, "/readyz", NULL), 0);
        /* Several with one client. */
        _cleanup_kube_ struct kube *kube = connect_as(f, "server", "client", f->port);
        for (int i = 0; i < 3; i++)
                assert_int_equal(kube_get(kube, "/readyz", TIMEOUT_MS, &b, NULL), 0);
        assert_string_equal(buf_str(&b), "okokokok");
}

static void a_refused_client_is_told_from_an_api_that_is_not_ready(void **state) {
        static const struct {
                const char *status;
                int expected;
        } cases[] = {{"401 Unauthorized", -EACCES},
                     {"403 Forbidden", -EACCES},
                     {"404 Not Found", -ENOENT},
                     {"429 Too Many Requests", -EAGAIN},
                     {"500 Internal Server Error", -EAGAIN},
                     {"503 Service Unavailable", -EAGAIN}};
        struct fixture *f = *state;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_buf_ struct buf b = BUF_INIT(0);
                answer(f, "readyz", cases[i].status, 3, "not");
                assert_int_equal(get(f, "/readyz", &b), cases[i].expected);
                _cleanup_free_ char *number = xstrndup(cases[i].status, 3);
                assert_non_null(strstr(f->err.message, number));
                assert_int_equal(b.len, 0);
        }
}

static void an_answer_without_end_is_not_read(void **state) {
        struct fixture *f = *state;
        const size_t size = 17U << 20;
        char *body = xcalloc(size + 1, 1);
        memset(body, 'x', size);
        answer(f, "readyz", "200 OK", size, body);
        free(body);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(get(f, "/readyz", &b), -E2BIG);
        assert_int_equal(b.len, 0);
        /* And one that does not fit what the caller takes. */
        answer(f, "readyz", "200 OK", 6, "larger");
        b.max = 5;
        assert_int_equal(get(f, "/readyz", &b), -E2BIG);
        assert_int_equal(b.len, 0);
}

static void an_answer_cut_short_is_an_error(void **state) {
        struct fixture *f = *state;
        answer(f, "readyz", "200 OK", 100, "ok");
        assert_int_equal(get(f, "/readyz", NULL), -ECONNRESET);
}

static void only_the_cluster_s_own_authority_is_believed(void **state) {
        struct fixture *f = *state;
        answer(f, "readyz", "200 OK", 2, "ok");
        _cleanup_kube_ struct kube *kube = connect_as(f, "stranger", "client", f->port);
        assert_int_equal(kube_get(kube, "/readyz", TIMEOUT_MS, NULL, &f->err), -EPROTO);
}

static void a_client_without_the_right_certificate_gets_nothing(void **state) {
        struct fixture *f = *state;
        answer(f, "readyz", "200 OK", 2, "ok");
        _cleanup_kube_ struct kube *kube = connect_as(f, "server", "stranger", f->port);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_true(kube_get(kube, "/readyz", TIMEOUT_MS, &b, &f->err) < 0);
        assert_int_equal(b.len, 0);
}

static int listen_on_loopback(uint16_t *ret_port) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(address);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
        *ret_port = ntohs(address.sin_port);
        return fd;
}

static void nobody_there_is_refused_and_somebody_silent_takes_too_long(void **state) {
        struct fixture *f = *state;
        uint16_t port = 0;
        _cleanup_close_ int fd = listen_on_loopback(&port);
        _cleanup_kube_ struct kube *kube = connect_as(f, "server", "client", port);
        assert_int_equal(kube_get(kube, "/readyz", TIMEOUT_MS, NULL, &f->err), -ECONNREFUSED);
        assert_int_equal(listen(fd, 4), 0);
        uint64_t begin = now_ms();
        assert_int_equal(kube_get(kube, "/readyz", 200, NULL, &f->err), -ETIMEDOUT);
        assert_int_equal(f->err.code, ERR_TIMEOUT);
        assert_true(now_ms() - begin < TIMEOUT_MS);
}

/* Nodes. */

static void nodes_come_with_version_roles_and_why_they_are_not_ready(void **state) {
        struct fixture *f = *state;
        _cleanup_nodes_ struct nodes n = {0};
        assert_int_equal(get_nodes(f,
                                   "{\"kind\":\"NodeList\",\"items\":["
                                   "{\"metadata\":{\"name\":\"shop\",\"labels\":{\"a\":\"b\","
                                   "\"node-role.kubernetes.io/control-plane\":\"true\","
                                   "\"node-role.kubernetes.io/master\":\"true\"}},"
                                   "\"status\":{\"nodeInfo\":{\"kubeletVersion\":\"v1.33.5+k3s1\"},\"conditions\":["
                                   "{\"type\":\"MemoryPressure\",\"status\":\"True\"},"
                                   "{\"type\":\"Ready\",\"status\":\"True\",\"message\":\"fine\"}]}},"
                                   "{\"metadata\":{\"name\":\"second\"},\"status\":{\"conditions\":["
                                   "{\"type\":\"Ready\",\"status\":\"False\",\"message\":\"no network plugin\"}]}},"
                                   "{\"metadata\":{\"name\":\"third\"}}]}",
                                   &n),
                         0);
        assert_int_equal(n.n, 3);
        assert_string_equal(n.items[0].name, "shop");
        assert_string_equal(n.items[0].version, "v1.33.5+k3s1");
        assert_string_equal(n.items[0].roles, "control-plane,master");
        assert_true(n.items[0].ready);
        assert_null(n.items[0].reason);
        assert_string_equal(n.items[1].name, "second");
        assert_string_equal(n.items[1].version, "?");
        assert_string_equal(n.items[1].roles, "");
        assert_false(n.items[1].ready);
        assert_string_equal(n.items[1].reason, "no network plugin");
        assert_false(n.items[2].ready);
        assert_non_null(strstr(n.items[2].reason, "not reported"));
}

static void no_nodes_yet_is_no_error(void **state) {
        struct fixture *f = *state;
        _cleanup_nodes_ struct nodes n = {0};
        assert_int_equal(get_nodes(f, "{\"items\":[]}", &n), 0);
        assert_int_equal(n.n, 0);
}

static void what_is_no_list_of_nodes_is_an_error(void **state) {
        static const char *const junk[] = {"",   "<html>",         "{\"items\":[", "[]",
                                           "{}", "{\"items\":{}}", "null",         "\"items\""};
        struct fixture *f = *state;
        for (size_t i = 0; i < ELEMENTSOF(junk); i++) {
                struct nodes n = {0};
                assert_true(get_nodes(f, junk[i], &n) < 0);
                assert_non_null(strstr(f->err.message, "list of nodes"));
                assert_int_equal(n.n, 0);
                assert_null(n.items);
        }
}

static void nodes_of_odd_shapes_are_unknown_and_not_ready(void **state) {
        static const char *const odd[] = {"1",
                                          "null",
                                          "[]",
                                          "{\"metadata\":[]}",
                                          "{\"metadata\":{\"name\":7,\"labels\":[\"x\",{}]}}",
                                          "{\"status\":{\"conditions\":{\"type\":\"Ready\",\"status\":\"True\"}}}",
                                          "{\"status\":{\"conditions\":[1,{\"type\":\"Ready\"},{\"type\":1}]}}",
                                          "{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"Unknown\"},"
                                          "{\"type\":\"Ready\",\"status\":\"Unknown\",\"message\":\"again\"}]}}"};
        struct fixture *f = *state;
        for (size_t i = 0; i < ELEMENTSOF(odd); i++) {
                _cleanup_free_ char *body = xasprintf("{\"items\":[%s]}", odd[i]);
                _cleanup_nodes_ struct nodes n = {0};
                assert_int_equal(get_nodes(f, body, &n), 0);
                assert_int_equal(n.n, 1);
                assert_string_equal(n.items[0].name, "?");
                assert_false(n.items[0].ready);
                assert_non_null(n.items[0].reason);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(an_answer_is_given_as_it_is),
                        cmocka_unit_test(a_refused_client_is_told_from_an_api_that_is_not_ready),
                        cmocka_unit_test(an_answer_without_end_is_not_read),
                        cmocka_unit_test(an_answer_cut_short_is_an_error),
                        cmocka_unit_test(only_the_cluster_s_own_authority_is_believed),
                        cmocka_unit_test(a_client_without_the_right_certificate_gets_nothing),
                        cmocka_unit_test(nobody_there_is_refused_and_somebody_silent_takes_too_long),
                        cmocka_unit_test(nodes_come_with_version_roles_and_why_they_are_not_ready),
                        cmocka_unit_test(no_nodes_yet_is_no_error),
                        cmocka_unit_test(what_is_no_list_of_nodes_is_an_error),
                        cmocka_unit_test(nodes_of_odd_shapes_are_unknown_and_not_ready),
        };
        return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
