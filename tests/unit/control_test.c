/* SPDX-License-Identifier: MIT */
/* The control socket: a server in a process of its own, and clients of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/socket.h>

#include "../../src/domain/control.h"

struct server {
        char *dir, *path;
        pid_t pid;
};

static struct json *on_verb(const char *verb, void *userdata, struct error *err) {
        unsigned *count = userdata;
        if (str_eq(verb, "count"))
                return json_new_number(++*count);
        err_set(err, ERR_USAGE, EINVAL, "there is only \"count\"");
        return NULL;
}

static int set_up(void **state) {
        struct server *s = xcalloc(1, sizeof(*s));
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-c", &s->dir, NULL), 0);
        s->path = path_join(s->dir, "s");
        int ready[2];
        assert_int_equal(pipe(ready), 0);
        s->pid = fork();
        if (s->pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                unsigned count = 0;
                struct loop *loop = NULL;
                struct control *control = NULL;
                if (loop_new(&loop, NULL) < 0 || control_new(loop, s->path, on_verb, &count, &control, NULL) < 0)
                        _exit(1);
                close(ready[1]);
                loop_run(loop, NULL);
                _exit(0);
        }
        close(ready[1]);
        char end;
        assert_int_equal(read(ready[0], &end, 1), 0);
        close(ready[0]);
        *state = s;
        return 0;
}

static int tear_down(void **state) {
        struct server *s = *state;
        kill(s->pid, SIGKILL);
        int status = 0;
        waitpid(s->pid, &status, 0);
        fs_remove_tree(s->dir, NULL);
        free(s->dir);
        free(s->path);
        free(s);
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -1;
}

static int client(const struct server *s) {
        int fd = -1;
        assert_int_equal(socket_connect(s->path, "the server", 1000, &fd, NULL), 0);
        return fd;
}

static void say(int fd, const char *text, size_t len) {
        while (len > 0) {
                ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
                struct pollfd pfd = {.fd = fd, .events = POLLOUT};
                if (n < 0 && errno != EAGAIN)
                        return;
                if (n < 0)
                        poll(&pfd, 1, 1000);
                else {
                        text += n;
                        len -= (size_t)n;
                }
        }
}

/* Whether the server hangs up within a second. */
static bool hung_up(int fd) {
        char buffer[4096];
        for (;;) {
                struct pollfd pfd = {.fd = fd, .events = POLLIN};
                if (poll(&pfd, 1, 1000) <= 0)
                        return false;
                ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return true;
        }
}

static void assert_answers(const struct server *s) {
        _cleanup_json_ struct json *answer = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (control_ask(s->path, "count", 2000, &answer, &err) < 0)
                fail_msg("%s", err.message);
        assert_true(json_u64_or(answer, 0) > 0);
}

static void verb_is_answered_and_an_unknown_one_is_an_error(void **state) {
        struct server *s = *state;
        assert_answers(s);
        _cleanup_json_ struct json *answer = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(control_ask(s->path, "sing", 2000, &answer, &err), -EREMOTEIO);
        assert_non_null(strstr(err.message, "there is only \"count\""));
        assert_null(answer);
}

static void socket_is_this_users_alone(void **state) {
        struct server *s = *state;
        struct stat st;
        assert_int_equal(stat(s->path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
}

static void one_connection_takes_several_requests_in_pieces(void **state) {
        struct server *s = *state;
        _cleanup_close_ int fd = client(s);
        static const char text[] = "{\"execute\":\"count\"}\n{\"execute\":\"count\"}\njunk\n{}\n";
        for (size_t i = 0; i < strlen(text); i++)
                say(fd, text + i, 1);
        _cleanup_buf_ struct buf in = BUF_INIT(4096);
        for (size_t lines = 0; lines < 4;) {
                struct pollfd pfd = {.fd = fd, .events = POLLIN};
                assert_int_equal(poll(&pfd, 1, 2000), 1);
                assert_true(buf_read(&in, fd) > 0);
                lines = 0;
                for (size_t i = 0; i < in.len; i++)
                        lines += in.data[i] == '\n';
        }
        assert_true(str_starts(buf_str(&in), "{\"return\":1}\n{\"return\":2}\n{\"error\":"));
}

static void silent_clients_do_not_keep_others_out(void **state) {
        struct server *s = *state;
        int silent[40];
        for (size_t i = 0; i < ELEMENTSOF(silent); i++)
                silent[i] = client(s);
        say(silent[39], "{\"exe", 6);
        assert_answers(s);
        assert_true(hung_up(silent[0])); /* the one that was silent longest had to go */
        for (size_t i = 0; i < ELEMENTSOF(silent); i++)
                close(silent[i]);
        assert_answers(s);
}

static void request_without_an_end_is_cut_off(void **state) {
        struct server *s = *state;
        _cleanup_close_ int fd = client(s);
        char *text = xcalloc(1, 300000);
        memset(text, 'x', 300000);
        say(fd, text, 300000);
        free(text);
        assert_true(hung_up(fd));
        assert_answers(s);
}

static void client_that_reads_no_answers_is_dropped(void **state) {
        struct server *s = *state;
        _cleanup_close_ int fd = client(s);
        bool dropped = false;
        for (uint64_t end = now_ms() + 10000; !dropped && now_ms() < end;) {
                ssize_t n = send(fd, "{}\n{}\n{}\n", 9, MSG_NOSIGNAL);
                dropped = n < 0 && errno != EAGAIN;
                if (n < 0 && errno == EAGAIN)
                        usleep(1000);
        }
        assert_true(dropped);
        assert_answers(s);
}

static void nobody_listening_is_told_from_somebody_silent(void **state) {
        struct server *s = *state;
        _cleanup_free_ char *none = path_join(s->dir, "none"), *mute = path_join(s->dir, "mute");
        assert_int_equal(control_ask(none, "count", 1000, NULL, NULL), -ENOENT);
        _cleanup_close_ int fd = -1;
        assert_int_equal(socket_listen(mute, &fd, NULL), 0);
        assert_int_equal(control_ask(mute, "count", 100, NULL, NULL), -ETIMEDOUT);
        close(TAKE_FD(fd));
        assert_int_equal(control_ask(mute, "count", 100, NULL, NULL), -ECONNREFUSED);
}

static void path_too_long_for_an_address_is_refused_with_what_mends_it(void **state) {
        struct server *s = *state;
        _cleanup_free_ char *longest = xasprintf("%s/%0*d", s->dir, (int)(106 - strlen(s->dir)), 7),
                            *longer = xasprintf("%s/%0*d", s->dir, (int)(107 - strlen(s->dir)), 7);
        assert_int_equal(strlen(longest), 107);
        _cleanup_close_ int fd = -1;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(socket_listen(longest, &fd, NULL), 0);
        assert_int_equal(socket_listen(longer, &fd, &err), -ENAMETOOLONG);
        assert_non_null(strstr(err.hint, "XDG_RUNTIME_DIR"));
        assert_int_equal(socket_connect(longer, "x", 100, &fd, NULL), -ENAMETOOLONG);
}

static void messages_carry_a_descriptor(void **state) {
        (void)state;
        int ends[2], file[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        assert_int_equal(pipe(file), 0);
        assert_int_equal(socket_send_message(ends[0], "hello", 5, file[1]), 0);
        assert_int_equal(socket_send_message(ends[0], "again", 5, -1), 0);
        close(file[1]);
        char text[4];
        int fd = -1;
        assert_int_equal(socket_receive_message(ends[1], text, sizeof(text), &fd), -EMSGSIZE);
        assert_int_equal(fd, -1);
        struct pollfd pfd = {.fd = file[0]};
        assert_int_equal(poll(&pfd, 1, 0), 1); /* the descriptor on the message that was refused is closed */
        assert_int_equal(pipe(file), 0);
        char more[8];
        assert_int_equal(socket_receive_message(ends[1], more, sizeof(more), &fd), 5);
        assert_int_equal(fd, -1);
        assert_int_equal(socket_send_message(ends[0], "x", 1, file[1]), 0);
        assert_int_equal(socket_receive_message(ends[1], more, sizeof(more), &fd), 1);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, "y", 1), 1);
        assert_int_equal(read(file[0], more, 8), 1);
        close(fd);
        close(ends[0]);
        assert_int_equal(socket_receive_message(ends[1], more, sizeof(more), &fd), 0);
        close(ends[1]);
        close(file[0]);
        close(file[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(verb_is_answered_and_an_unknown_one_is_an_error),
                        TEST(socket_is_this_users_alone),
                        TEST(one_connection_takes_several_requests_in_pieces),
                        TEST(silent_clients_do_not_keep_others_out),
                        TEST(request_without_an_end_is_cut_off),
                        TEST(client_that_reads_no_answers_is_dropped),
                        TEST(nobody_listening_is_told_from_somebody_silent),
                        TEST(path_too_long_for_an_address_is_refused_with_what_mends_it),
                        cmocka_unit_test(messages_carry_a_descriptor),
        };
        return cmocka_run_group_tests_name("control", tests, NULL, NULL);
}
