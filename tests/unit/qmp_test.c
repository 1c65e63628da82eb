/* SPDX-License-Identifier: MIT */
/* The QMP client against a server that misbehaves in every way a dead, hung or foreign one could. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/qmp.h>

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n"
#define OK(id) "{\"return\": {}, \"id\": " #id "}\r\n"

/* What the server does once somebody connects. */
typedef void script_fn(int fd);

struct server {
        char *dir, *path;
        int listen_fd;
        pthread_t thread;
        script_fn *script;
};

static void say(int fd, const char *text) {
        size_t len = strlen(text);
        while (len > 0) {
                ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
                if (n <= 0)
                        return;
                text += n;
                len -= (size_t)n;
        }
}

/* Reads one line and throws it away; false at the end. */
static bool hear(int fd) {
        char c;
        while (read(fd, &c, 1) == 1)
                if (c == '\n')
                        return true;
        return false;
}

static void *serve(void *userdata) {
        struct server *s = userdata;
        int fd = accept(s->listen_fd, NULL, NULL);
        if (fd >= 0) {
                s->script(fd);
                close(fd);
        }
        return NULL;
}

static struct server *server_new(script_fn *script) {
        struct server *s = xcalloc(1, sizeof(*s));
        s->script = script;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-qmp-test", &s->dir, NULL), 0);
        s->path = path_join(s->dir, "qmp.sock");
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        memcpy(address.sun_path, s->path, strlen(s->path) + 1);
        s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(s->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(s->listen_fd, 1), 0);
        assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
        return s;
}

static void server_free(struct server *s) {
        shutdown(s->listen_fd, SHUT_RDWR); /* wakes an accept that nobody came to */
        pthread_join(s->thread, NULL);
        close(s->listen_fd);
        fs_remove_tree(s->dir, NULL);
        free(s->path);
        free(s->dir);
        free(s);
}

/* Counts events and keeps the last name. */
struct seen {
        unsigned n;
        char last[64];
        uint64_t time_ms;
        char *reason;
};

static void on_event(const char *name, const struct json *data, uint64_t time_ms, void *userdata) {
        struct seen *seen = userdata;
        seen->n++;
        snprintf(seen->last, sizeof(seen->last), "%s", name);
        seen->time_ms = time_ms;
        free(seen->reason);
        seen->reason = xstrdup(json_string(json_get(data, "reason")));
}

static void wait_readable(const struct qmp *q) {
        struct pollfd pfd = {.fd = qmp_fd(q), .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 5000), 1);
}

/* The end of the conversation: waits until the client hangs up. */
static void until_closed(int fd) {
        while (hear(fd))
                ;
}

static void script_polite(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        say(fd, "{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n");
        hear(fd);
        say(fd, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no \\u001b[31msuch thing\"}, \"id\": 3}\r\n");
        hear(fd);
        say(fd, "{\"return\": \"info text\", \"id\": 4}\r\n");
        until_closed(fd);
}

static void answers_commands_and_passes_qemus_errors_on(void **state) {
        (void)state;
        struct server *s = server_new(script_polite);
        _cleanup_error_ struct error err = ERROR_INIT;
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, &err), 0);
        struct json *answer = NULL;
        assert_int_equal(qmp_call(q, "query-status", NULL, 5000, &answer, &err), 0);
        assert_string_equal(json_string(json_get(answer, "status")), "running");
        json_free(answer);
        assert_int_equal(qmp_call(q, "nonsense", json_new_object(), 5000, NULL, &err), -EREMOTEIO);
        assert_non_null(strstr(err.message, "such thing"));
        assert_null(strchr(err.message, '\033'));
        char *text = NULL;
        assert_int_equal(qmp_human(q, "info x", 5000, &text, &err), 0);
        assert_string_equal(text, "info text");
        free(text);
        qmp_free(q);
        server_free(s);
}

static void script_events_in_handshake(int fd) {
        say(fd, GREETING);
        say(fd, "{\"timestamp\": {\"seconds\": 5, \"microseconds\": 250000}, \"event\": \"EARLY\"}\r\n");
        hear(fd);
        say(fd, "{\"timestamp\": {\"seconds\": 6, \"microseconds\": 0}, \"event\": \"RESUME\"}\r\n" OK(1));
        hear(fd);
        say(fd, "{\"event\": \"SHUTDOWN\", \"timestamp\": {\"seconds\": 7, \"microseconds\": 1000}, \"data\": "
                "{\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n" OK(2));
        say(fd, "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 8, \"microseconds\": 0}}\r\n");
}

static void keeps_events_of_the_handshake_and_those_before_an_answer(void **state) {
        (void)state;
        struct server *s = server_new(script_events_in_handshake);
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        struct seen seen = {0};
        qmp_on_event(q, on_event, &seen);
        assert_int_equal(seen.n, 2);
        assert_string_equal(seen.last, "RESUME");
        assert_int_equal(qmp_call(q, "cont", NULL, 5000, NULL, NULL), 0);
        assert_true(seen.n >= 3);
        /* The rest comes through the loop's side, then the end. */
        int r = 0;
        while (r == 0) {
                wait_readable(q);
                r = qmp_process(q, NULL);
        }
        assert_int_equal(r, -ECONNRESET);
        assert_int_equal(seen.n, 4);
        assert_string_equal(seen.last, "STOP");
        assert_int_equal(seen.time_ms, 8000);
        assert_int_equal(qmp_call(q, "cont", NULL, 5000, NULL, NULL), -ECONNRESET);
        free(seen.reason);
        qmp_free(q);
        server_free(s);
}

static void script_junk(int fd) {
        say(fd, "SSH-2.0-OpenSSH_9.2\r\n");
        until_closed(fd);
}

static void script_json_that_is_no_qmp(int fd) {
        say(fd, "{\"hello\": 1}\r\n");
        until_closed(fd);
}

static void script_array(int fd) {
        say(fd, "[1, 2]\r\n");
        until_closed(fd);
}

static void script_binary(int fd) {
        char junk[4096];
        for (size_t i = 0; i < sizeof(junk); i++)
                junk[i] = (char)(i * 37);
        ssize_t n = write(fd, junk, sizeof(junk));
        (void)n;
        until_closed(fd);
}

static void refuses_what_is_not_qmp(void **state) {
        (void)state;
        script_fn *const scripts[] = {script_junk, script_json_that_is_no_qmp, script_array, script_binary};
        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                struct server *s = server_new(scripts[i]);
                struct qmp *q = NULL;
                assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), -EPROTO);
                assert_null(q);
                server_free(s);
        }
}

static void script_silence(int fd) {
        until_closed(fd);
}

static void script_half_greeting(int fd) {
        say(fd, "{\"QMP\": {\"version\"");
        until_closed(fd);
}

static void gives_up_on_silence_in_time(void **state) {
        (void)state;
        script_fn *const scripts[] = {script_silence, script_half_greeting};
        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                struct server *s = server_new(scripts[i]);
                struct qmp *q = NULL;
                uint64_t before = now_ms();
                assert_int_equal(qmp_connect(s->path, 100, &q, NULL), -ETIMEDOUT);
                assert_in_range(now_ms() - before, 90, 4000);
                server_free(s);
        }
}

static void script_hang_up(int fd) {
        say(fd, "{\"QMP\": {}");
}

static void notices_a_hang_up_in_the_handshake(void **state) {
        (void)state;
        struct server *s = server_new(script_hang_up);
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), -ECONNRESET);
        server_free(s);
}

static void says_when_nobody_is_there(void **state) {
        (void)state;
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect("/tmp/k3s-vm-no-such-socket", 1000, &q, NULL), -ENOENT);
        char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-qmp-test", &dir, NULL), 0);
        char *path = path_join(dir, "dead.sock");
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        memcpy(address.sun_path, path, strlen(path) + 1);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        close(fd);
        assert_int_equal(qmp_connect(path, 1000, &q, NULL), -ECONNREFUSED);
        char *long_path = xcalloc(1, 201);
        memset(long_path, 'x', 200);
        assert_int_equal(qmp_connect(long_path, 1000, &q, NULL), -ENAMETOOLONG);
        free(long_path);
        fs_remove_tree(dir, NULL);
        free(path);
        free(dir);
}

static void script_twenty_mib(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        say(fd, "{\"return\": \"");
        char *block = xcalloc(1, 1024 * 1024 + 1);
        memset(block, 'a', 1024 * 1024);
        for (int i = 0; i < 20; i++)
                say(fd, block);
        free(block);
        say(fd, "\", \"id\": 2}\r\n");
        until_closed(fd);
}

static void bounds_a_message(void **state) {
        (void)state;
        struct server *s = server_new(script_twenty_mib);
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        assert_int_equal(qmp_call(q, "query-qmp-schema", NULL, 20000, NULL, NULL), -EPROTO);
        assert_int_equal(qmp_call(q, "query-status", NULL, 5000, NULL, NULL), -EPROTO);
        qmp_free(q);
        server_free(s);
}

static void script_large_answer(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        say(fd, "{\"return\": \"");
        char *block = xcalloc(1, 1024 * 1024 + 1);
        memset(block, 'a', 1024 * 1024);
        say(fd, block);
        free(block);
        say(fd, "\", \"id\": 2}\r\n");
        until_closed(fd);
}

static void takes_a_large_answer_in_pieces(void **state) {
        (void)state;
        struct server *s = server_new(script_large_answer);
        struct qmp *q = NULL;
        struct json *answer = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        assert_int_equal(qmp_call(q, "query-qmp-schema", NULL, 20000, &answer, NULL), 0);
        assert_int_equal(strlen(json_string(answer)), 1024 * 1024);
        json_free(answer);
        qmp_free(q);
        server_free(s);
}

static void script_late_answer(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        /* Says nothing until the next command comes. */
        hear(fd);
        say(fd, "{\"return\": \"late\", \"id\": 2}\r\n{\"return\": \"right\", \"id\": 3}\r\n");
        until_closed(fd);
}

static void drops_the_answer_to_a_command_that_was_given_up(void **state) {
        (void)state;
        struct server *s = server_new(script_late_answer);
        struct qmp *q = NULL;
        struct json *answer = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        assert_int_equal(qmp_call(q, "first", NULL, 50, NULL, NULL), -ETIMEDOUT);
        assert_int_equal(qmp_call(q, "second", NULL, 5000, &answer, NULL), 0);
        assert_string_equal(json_string(answer), "right");
        json_free(answer);
        qmp_free(q);
        server_free(s);
}

static void script_disconnect_in_call(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        say(fd, "{\"return\": ");
}

static void fails_a_call_when_qemu_goes(void **state) {
        (void)state;
        struct server *s = server_new(script_disconnect_in_call);
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        assert_int_equal(qmp_call(q, "quit", NULL, 5000, NULL, NULL), -ECONNRESET);
        qmp_free(q);
        server_free(s);
}

static void script_answer_and_go(int fd) {
        say(fd, GREETING);
        hear(fd);
        say(fd, OK(1));
        hear(fd);
        say(fd, OK(2));
}

static void counts_an_answer_that_came_right_before_the_end(void **state) {
        (void)state;
        struct server *s = server_new(script_answer_and_go);
        struct qmp *q = NULL;
        assert_int_equal(qmp_connect(s->path, 5000, &q, NULL), 0);
        assert_int_equal(qmp_call(q, "quit", NULL, 5000, NULL, NULL), 0);
        qmp_free(q);
        server_free(s);
}

static void waits_for_its_turn_on_a_taken_monitor(void **state) {
        (void)state;
        /* The one client that the server takes is us; the next ones stay in its queue. */
        struct server *s = server_new(script_polite);
        struct qmp *first = NULL, *others[3] = {0};
        assert_int_equal(qmp_connect(s->path, 5000, &first, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                assert_int_equal(qmp_connect(s->path, 50, &others[i], NULL), -ETIMEDOUT);
        qmp_free(first);
        server_free(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(answers_commands_and_passes_qemus_errors_on),
                        cmocka_unit_test(keeps_events_of_the_handshake_and_those_before_an_answer),
                        cmocka_unit_test(refuses_what_is_not_qmp),
                        cmocka_unit_test(gives_up_on_silence_in_time),
                        cmocka_unit_test(notices_a_hang_up_in_the_handshake),
                        cmocka_unit_test(says_when_nobody_is_there),
                        cmocka_unit_test(bounds_a_message),
                        cmocka_unit_test(takes_a_large_answer_in_pieces),
                        cmocka_unit_test(drops_the_answer_to_a_command_that_was_given_up),
                        cmocka_unit_test(fails_a_call_when_qemu_goes),
                        cmocka_unit_test(counts_an_answer_that_came_right_before_the_end),
                        cmocka_unit_test(waits_for_its_turn_on_a_taken_monitor),
        };
        return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
