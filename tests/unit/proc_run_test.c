/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>

struct fixture {
        struct strv lines, progress;
        size_t bytes;
        struct buf out, tail;
        struct proc_run_spec run;
        struct proc_result result;
        struct error err;
        int cancel[2];         /* pipe */
        const char *cancel_at; /* the line at which the run is cancelled */
        int descriptors;
};

static int open_descriptors(void) {
        int n = 0;
        for (int fd = 0; fd < 256; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static int set_up(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        f->run = PROC_RUN_SPEC_INIT;
        f->run.userdata = f;
        f->result.exit_status = -1;
        if (pipe2(f->cancel, O_CLOEXEC) < 0)
                return -1;
        f->descriptors = open_descriptors();
        *state = f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        /* Whatever happened, nothing was left open and no child to be reaped. */
        int leaked = open_descriptors() != f->descriptors || waitpid(-1, NULL, WNOHANG) != -1;
        close(f->cancel[0]);
        close(f->cancel[1]);
        strv_free(&f->lines);
        strv_free(&f->progress);
        buf_free(&f->out);
        buf_free(&f->tail);
        error_clear(&f->err);
        free(f);
        return leaked ? -1 : 0;
}

static void on_line(const char *line, void *userdata) {
        struct fixture *f = userdata;
        f->bytes += strlen(line);
        strv_push(&f->lines, line);
        if (str_eq(line, f->cancel_at))
                (void)!write(f->cancel[1], "x", 1);
}

static void on_progress(const char *line, void *userdata) {
        struct fixture *f = userdata;
        strv_push(&f->progress, line);
}

static int run(struct fixture *f, const char *script) {
        const char *const argv[] = {"sh", "-c", script, NULL};
        f->run.spec.argv = argv;
        int r = proc_run(&f->run, &f->result, &f->err);
        f->run.spec.argv = NULL;
        return r;
}

static void assert_joined(const struct strv *v, const char *expected) {
        _cleanup_free_ char *joined = strv_join(v, "|");
        assert_string_equal(joined, expected);
}

/* Whether the process ends by itself within half a minute. */
static bool ends(const char *pid_text) {
        uint64_t pid = 0;
        int pidfd = -1;
        assert_int_equal(str_to_u64(pid_text, 2, INT32_MAX, &pid), 0);
        if (proc_open((pid_t)pid, &pidfd) < 0)
                return true;
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        bool ended = poll(&pfd, 1, 30000) == 1;
        close(pidfd);
        return ended;
}

static void lines_come_without_their_ends_and_the_last_needs_none(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "printf 'a\\nb\\r\\nc 1%%\\rc 2%%\\r\\n\\n'; printf 'd' >&2"), 0);
        assert_joined(&f->lines, "a|b|c 1%|c 2%|d");
        assert_int_equal(f->result.exit_status, 0);
}

static void a_line_that_comes_in_pieces_is_one(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "printf on; sleep 0.05; printf 'e\\ntw'; sleep 0.05; echo o"), 0);
        assert_joined(&f->lines, "one|two");
}

static void what_would_disturb_a_terminal_is_escaped(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "printf '\\033[31mred\\nx\\000y\\377\\n'"), 0);
        assert_joined(&f->lines, "\\x1b[31mred|x|y\\xff");
}

static void a_line_without_end_comes_in_bounded_pieces(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "head -c 1000000 /dev/zero | tr '\\000' x; echo; echo last"), 0);
        assert_int_equal(f->bytes, 1000004);
        for (size_t i = 0; i < f->lines.len; i++)
                assert_in_range(strlen(f->lines.items[i]), 1, 128 * 1024);
        assert_string_equal(f->lines.items[f->lines.len - 1], "last");
}

static void a_million_short_lines_all_come(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        uint64_t begin = now_ms();
        assert_int_equal(run(f, "yes | head -n 1000000"), 0);
        assert_int_equal(f->lines.len, 1000000);
        assert_int_equal(f->bytes, 1000000);
        assert_true(now_ms() - begin < 60000);
}

static void stdout_can_be_kept_apart_and_whole(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.ret_stdout = &f->out;
        assert_int_equal(run(f, "printf 'a\\n\\000b'; echo said >&2; exit 3"), 0);
        assert_int_equal(f->out.len, 4);
        assert_memory_equal(f->out.data, "a\n\0b", 4);
        assert_joined(&f->lines, "said");
        assert_int_equal(f->result.exit_status, 3);
}

static void big_output_comes_whole(void **state) {
        struct fixture *f = *state;
        f->run.ret_stdout = &f->out;
        assert_int_equal(run(f, "head -c 20000000 /dev/zero; echo end"), 0);
        assert_int_equal(f->out.len, 20000004);
        assert_string_equal(f->out.data + 20000000, "end\n");
}

static void more_output_than_expected_ends_the_tool(void **state) {
        struct fixture *f = *state;
        f->out = BUF_INIT(100000);
        f->run.ret_stdout = &f->out;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "echo $$ >&2; exec cat /dev/zero"), -E2BIG);
        assert_int_equal(f->out.len, 100000);
        assert_true(ends(f->lines.items[0]));
        assert_non_null(strstr(f->err.message, "sh "));
}

static void the_tail_holds_the_last_whole_lines(void **state) {
        struct fixture *f = *state;
        f->run.ret_tail = &f->tail;
        assert_int_equal(run(f, "seq 1 20000"), 0);
        assert_in_range(f->tail.len, 8000, 8192);
        assert_true(str_ends(f->tail.data, "\n19999\n20000\n"));
        uint64_t first = 0;
        *strchr(f->tail.data, '\n') = '\0';
        assert_int_equal(str_to_u64(f->tail.data, 18000, 20000, &first), 0);
}

static void a_small_tail_holds_the_last_lines_too(void **state) {
        struct fixture *f = *state;
        f->tail = BUF_INIT(12);
        f->run.ret_tail = &f->tail;
        assert_int_equal(run(f, "seq 1 2000"), 0);
        assert_string_equal(buf_str(&f->tail), "1999\n2000\n");
}

static void the_log_gets_every_line_and_the_tail_as_well(void **state) {
        struct fixture *f = *state;
        f->run.ret_tail = &f->tail;
        f->run.on_line = on_line;
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-proc", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "log");
        f->run.log_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(run(f, "echo out; echo err >&2; printf end"), 0);
        close(f->run.log_fd);
        _cleanup_buf_ struct buf log = BUF_INIT(0);
        assert_int_equal(fs_read(path, 1000, &log, NULL), 0);
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
        assert_string_equal(buf_str(&log), "out\nerr\nend\n");
        assert_string_equal(buf_str(&f->tail), "out\nerr\nend\n");
        assert_joined(&f->lines, "out|err|end");
}

static void progress_comes_on_descriptor_3_and_nowhere_else(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.on_progress = on_progress;
        f->run.ret_tail = &f->tail;
        assert_int_equal(run(f, "echo 'phase one' >&3; echo line; echo 'progress 1 2' >&3"), 0);
        assert_joined(&f->progress, "phase one|progress 1 2");
        assert_joined(&f->lines, "line");
        assert_string_equal(buf_str(&f->tail), "line\n");
}

static void without_a_listener_descriptor_3_is_closed(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "test -e /proc/self/fd/3 && echo open || echo closed"), 0);
        assert_joined(&f->lines, "closed");
}

static void stdin_is_what_the_spec_says(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        assert_int_equal(run(f, "cat; echo end"), 0);
        int fds[2];
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(write(fds[1], "given\n", 6), 6);
        close(fds[1]);
        f->run.spec.stdin_fd = fds[0];
        assert_int_equal(run(f, "cat"), 0);
        close(fds[0]);
        assert_joined(&f->lines, "end|given");
}

static void a_killed_tool_has_run(void **state) {
        struct fixture *f = *state;
        assert_int_equal(run(f, "kill -KILL $$"), 0);
        assert_int_equal(f->result.signal, SIGKILL);
        assert_int_equal(f->result.exit_status, 128 + SIGKILL);
}

static void a_missing_tool_is_an_error(void **state) {
        struct fixture *f = *state;
        f->run.ret_stdout = &f->out;
        f->run.on_progress = on_progress;
        const char *const argv[] = {"k3s-vm-no-such-program", NULL};
        f->run.spec.argv = argv;
        assert_int_equal(proc_run(&f->run, &f->result, &f->err), -ENOENT);
        assert_int_equal(f->err.code, ERR_HOST);
        assert_int_equal(f->result.exit_status, -1);
}

static void a_timeout_ends_the_tool_and_what_it_started(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.timeout_ms = 300;
        uint64_t begin = now_ms();
        assert_int_equal(run(f, "sleep 1000 & echo $!; echo $$; wait"), -ETIMEDOUT);
        assert_true(now_ms() - begin >= 300);
        assert_int_equal(f->err.code, ERR_TIMEOUT);
        assert_non_null(strstr(f->err.message, "0.3 s"));
        assert_int_equal(f->lines.len, 2);
        assert_true(ends(f->lines.items[0]));
        assert_true(ends(f->lines.items[1]));
}

static void what_a_tool_started_is_ended_even_if_it_ignores_sigterm(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.cancel_fd = &f->cancel[0];
        f->cancel_at = "ready";
        assert_int_equal(run(f, "(trap '' TERM; exec sleep 1000 >/dev/null 2>&1) & echo $!; echo ready; wait"),
                         -ECANCELED);
        assert_true(ends(f->lines.items[0]));
}

static void a_cancelled_tool_may_clean_up_and_say_so(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.cancel_fd = &f->cancel[0];
        f->cancel_at = "ready";
        /* A group of which the first ends at once, and another needs a moment. */
        assert_int_equal(run(f, "(trap 'sleep 0.2; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done) "
                                "& wait"),
                         -ECANCELED);
        assert_int_equal(f->err.code, ERR_INTERRUPTED);
        assert_true(strv_contains(&f->lines, "cleaned"));
}

static void a_tool_that_fills_its_pipe_while_it_ends_is_not_stuck(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.cancel_fd = &f->cancel[0];
        f->cancel_at = "ready";
        assert_int_equal(
                        run(f, "trap 'seq 1 50000; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done"),
                        -ECANCELED);
        assert_true(strv_contains(&f->lines, "50000"));
        assert_true(strv_contains(&f->lines, "cleaned"));
}

static void who_stays_with_the_pipe_in_hand_is_not_waited_for(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        f->run.timeout_ms = 600000;
        uint64_t begin = now_ms();
        assert_int_equal(run(f, "sleep 1000 & echo $!; printf 'no newline'; exit 4"), 0);
        assert_true(now_ms() - begin < 60000);
        assert_int_equal(f->result.exit_status, 4);
        assert_int_equal(f->lines.len, 2);
        assert_string_equal(f->lines.items[1], "no newline");
        uint64_t pid = 0;
        assert_int_equal(str_to_u64(f->lines.items[0], 2, INT32_MAX, &pid), 0);
        /* It was no part of the run any more, so nobody ended it. */
        assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
}

static void who_writes_for_ever_is_not_listened_to_for_ever(void **state) {
        struct fixture *f = *state;
        f->run.on_line = on_line;
        uint64_t begin = now_ms();
        assert_int_equal(run(f, "(while :; do echo noise; sleep 0.01; done) & echo last; exit 0"), 0);
        assert_true(now_ms() - begin < 60000);
        assert_true(strv_contains(&f->lines, "last"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(lines_come_without_their_ends_and_the_last_needs_none),
                        TEST(a_line_that_comes_in_pieces_is_one),
                        TEST(what_would_disturb_a_terminal_is_escaped),
                        TEST(a_line_without_end_comes_in_bounded_pieces),
                        TEST(a_million_short_lines_all_come),
                        TEST(stdout_can_be_kept_apart_and_whole),
                        TEST(big_output_comes_whole),
                        TEST(more_output_than_expected_ends_the_tool),
                        TEST(the_tail_holds_the_last_whole_lines),
                        TEST(a_small_tail_holds_the_last_lines_too),
                        TEST(the_log_gets_every_line_and_the_tail_as_well),
                        TEST(progress_comes_on_descriptor_3_and_nowhere_else),
                        TEST(without_a_listener_descriptor_3_is_closed),
                        TEST(stdin_is_what_the_spec_says),
                        TEST(a_killed_tool_has_run),
                        TEST(a_missing_tool_is_an_error),
                        TEST(a_timeout_ends_the_tool_and_what_it_started),
                        TEST(what_a_tool_started_is_ended_even_if_it_ignores_sigterm),
                        TEST(a_cancelled_tool_may_clean_up_and_say_so),
                        TEST(a_tool_that_fills_its_pipe_while_it_ends_is_not_stuck),
                        TEST(who_stays_with_the_pipe_in_hand_is_not_waited_for),
                        TEST(who_writes_for_ever_is_not_listened_to_for_ever),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
