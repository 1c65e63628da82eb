/* SPDX-License-Identifier: MIT */
/* Requests to a guest's agent, which is a child here; and the clock by it. The real one is in tests/vm/suspend.bats. */
#include "scratch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <k3s-vm/clock_guest.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/socket.h>

struct fixture {
        struct scratch *scratch;
        struct state vm;
        int listener;
        pid_t agent;
};

static int setup(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        void *scratch = NULL;
        if (scratch_setup(&scratch) < 0)
                return -1;
        f->scratch = scratch;
        f->vm.uuid = "11111111-2222-4333-8444-555555555555";
        _cleanup_free_ char *folder = NULL;
        if (project_runtime_dir(f->scratch->p, f->vm.uuid, true, &folder, NULL) < 0)
                return -1;
        _cleanup_free_ char *path = path_join(folder, QEMU_AGENT);
        *state = f;
        return socket_listen(path, &f->listener, NULL);
}

static int teardown(void **state) {
        struct fixture *f = *state;
        if (f->agent > 0) {
                kill(f->agent, SIGKILL);
                waitpid(f->agent, NULL, 0);
        }
        close(f->listener);
        void *scratch = f->scratch;
        free(f);
        return scratch_teardown(&scratch);
}

/* An agent that reads a request and answers as @format has it, in which %s is the request's number. NULL: never. */
static void answer(struct fixture *f, const char *format) {
        f->agent = fork();
        if (f->agent != 0)
                return;
        int fd = accept(f->listener, NULL, NULL);
        char line[256] = "", number[64] = "";
        ssize_t n = read(fd, line, sizeof(line) - 1);
        if (n > 0 && sscanf(line, "%63s", number) == 1 && format) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                dprintf(fd, format, number, number, number);
#pragma GCC diagnostic pop
        }
        for (;;)
                pause();
}

static int ask(struct fixture *f, unsigned timeout_ms, char **ret) {
        return agent_ask(f->scratch->p, &f->vm, "sync", NULL, timeout_ms, ret, NULL);
}

static void answer_is_the_line_with_the_requests_number(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *text = NULL;
        answer(f, "%s sync\r\n17 old\n%snot ours\n\n%s done\r\nmore");
        assert_int_equal(ask(f, 5000, &text), 0);
        /* The first one is what a line that still echoes says. */
        assert_string_equal(text, "sync");
}

static void what_it_says_is_made_printable(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *text = NULL;
        answer(f, "%s \033[2Jdone\n");
        assert_int_equal(ask(f, 5000, &text), 0);
        assert_null(strchr(text, '\033'));
}

static void silence_junk_without_an_end_and_a_lost_line_are_errors(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *text = NULL;
        answer(f, NULL);
        assert_int_equal(ask(f, 100, &text), -ETIMEDOUT);
        teardown(state);
        assert_int_equal(setup(state), 0);
        f = *state;
        answer(f, "%5000s");
        assert_int_equal(ask(f, 5000, &text), -ECONNRESET);
        assert_null(text);
}

static void clock_is_right_when_the_answer_is_of_now(void **state) {
        struct fixture *f = *state;
        const struct clock_guest guest = {.project = f->scratch->p, .state = &f->vm};
        _cleanup_free_ char *format = xasprintf("%%s %llu.%03u\n", (unsigned long long)(wall_ms() / 1000),
                                                (unsigned)(wall_ms() % 1000));
        answer(f, format);
        assert_int_equal(clock_guest_set(&guest, NULL), 0);
}

static void clock_that_stayed_wrong_is_an_error(void **state) {
        struct fixture *f = *state;
        const struct clock_guest guest = {.project = f->scratch->p, .state = &f->vm};
        _cleanup_error_ struct error err = ERROR_INIT;
        answer(f, "%s 1700000000.000000000\n");
        assert_int_equal(clock_guest_set(&guest, &err), -EIO);
        assert_non_null(strstr(err.message, "still"));
}

static void date_without_fractions_is_not_taken_for_wrong(void **state) {
        struct fixture *f = *state;
        const struct clock_guest guest = {.project = f->scratch->p, .state = &f->vm};
        int64_t off_ms = 5;
        /* It is somewhere in this second. */
        _cleanup_free_ char *format = xasprintf("%%s %llu\n", (unsigned long long)(wall_ms() / 1000));
        answer(f, format);
        assert_int_equal(clock_guest_correct(&guest, &off_ms, NULL), 0);
        assert_true(off_ms >= -CLOCK_RIGHT_MS && off_ms <= CLOCK_RIGHT_MS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test_setup_teardown(answer_is_the_line_with_the_requests_number, setup, teardown),
                        cmocka_unit_test_setup_teardown(what_it_says_is_made_printable, setup, teardown),
                        cmocka_unit_test_setup_teardown(silence_junk_without_an_end_and_a_lost_line_are_errors, setup,
                                                        teardown),
                        cmocka_unit_test_setup_teardown(clock_is_right_when_the_answer_is_of_now, setup, teardown),
                        cmocka_unit_test_setup_teardown(clock_that_stayed_wrong_is_an_error, setup, teardown),
                        cmocka_unit_test_setup_teardown(date_without_fractions_is_not_taken_for_wrong, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
