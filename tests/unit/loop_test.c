/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/loop.h>

#include "child.h"

struct fixture {
        struct loop *loop;
        int pipes[3][2];
        struct loop_source *sources[3], *timer;
        unsigned fd_calls, timer_calls, signals;
        uint32_t events;
        int last_fd, last_signal, value;
};

static int set_up(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        for (int i = 0; i < 3; i++)
                if (pipe2(f->pipes[i], O_CLOEXEC | O_NONBLOCK) < 0)
                        return -1;
        *state = f;
        return loop_new(&f->loop, NULL);
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        loop_free(f->loop);
        for (int i = 0; i < 3; i++) {
                close(f->pipes[i][0]);
                close(f->pipes[i][1]);
        }
        free(f);
        return 0;
}

static void wake(struct fixture *f, int i) {
        assert_int_equal(write(f->pipes[i][1], "x", 1), 1);
}

static void watch(struct fixture *f, int i, loop_fd_fn *fn) {
        assert_int_equal(loop_add_fd(f->loop, f->pipes[i][0], EPOLLIN, fn, f, &f->sources[i], NULL), 0);
}

static int read_and_stop(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct fixture *f = userdata;
        char c;
        f->fd_calls++;
        f->last_fd = fd;
        f->events = events;
        if (read(fd, &c, 1) != 1)
                return -EIO;
        loop_stop(loop, f->value);
        return 0;
}

static int read_only_one(struct loop *loop _unused_, int fd, uint32_t events _unused_, void *userdata) {
        struct fixture *f = userdata;
        char c;
        f->fd_calls++;
        return read(fd, &c, 1) == 1 ? 0 : -EIO;
}

static int stop(struct loop *loop, void *userdata) {
        struct fixture *f = userdata;
        f->timer_calls++;
        loop_stop(loop, f->value);
        return 0;
}

static void a_readable_descriptor_calls_back_with_its_events(void **state) {
        struct fixture *f = *state;
        watch(f, 0, read_and_stop);
        watch(f, 1, read_and_stop);
        wake(f, 1);
        f->value = 42;
        assert_int_equal(loop_run(f->loop, NULL), 42);
        assert_int_equal(f->fd_calls, 1);
        assert_int_equal(f->last_fd, f->pipes[1][0]);
        assert_int_equal(f->events, EPOLLIN);
}

static int report_events(struct loop *loop, int fd _unused_, uint32_t events, void *userdata) {
        struct fixture *f = userdata;
        f->events = events;
        loop_stop(loop, 0);
        return 0;
}

static void a_hangup_calls_back_too(void **state) {
        struct fixture *f = *state;
        watch(f, 0, report_events);
        close(f->pipes[0][1]);
        f->pipes[0][1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_true(f->events & EPOLLHUP);
}

static void events_can_be_changed(void **state) {
        struct fixture *f = *state;
        watch(f, 0, read_and_stop);
        assert_int_equal(loop_set_events(f->sources[0], 0), 0);
        wake(f, 0);
        assert_int_equal(loop_add_timer(f->loop, 20, 0, stop, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 0);
        assert_int_equal(loop_set_events(f->sources[0], EPOLLIN), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 1);
}

static int fail_now(struct loop *loop _unused_, int fd _unused_, uint32_t events _unused_, void *userdata) {
        struct fixture *f = userdata;
        f->fd_calls++;
        return -EPROTO;
}

static void a_negative_value_ends_the_loop_before_the_other_callbacks(void **state) {
        struct fixture *f = *state;
        for (int i = 0; i < 3; i++) {
                watch(f, i, fail_now);
                wake(f, i);
        }
        assert_int_equal(loop_run(f->loop, NULL), -EPROTO);
        assert_int_equal(f->fd_calls, 1);
        /* It can be run again. */
        assert_int_equal(loop_run(f->loop, NULL), -EPROTO);
        assert_int_equal(f->fd_calls, 2);
}

static void what_cannot_be_watched_is_an_error(void **state) {
        struct fixture *f = *state;
        struct loop_source *source = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(loop_add_fd(f->loop, -1, EPOLLIN, fail_now, f, &source, &err), -EBADF);
        assert_non_null(err.message);
        assert_null(source);
        watch(f, 0, fail_now);
        assert_int_equal(loop_add_fd(f->loop, f->pipes[0][0], EPOLLIN, fail_now, f, NULL, NULL), -EEXIST);
}

/* Removal. */

/* Removes all, itself included, of which every other one has an event in the same batch. */
static int remove_all(struct loop *loop, int fd _unused_, uint32_t events _unused_, void *userdata) {
        struct fixture *f = userdata;
        f->fd_calls++;
        for (int i = 0; i < 3; i++) {
                loop_remove(f->sources[i]);
                loop_remove(f->sources[i]); /* again does nothing */
        }
        (void)loop;
        return 0;
}

static void a_callback_can_remove_itself_and_others_with_pending_events(void **state) {
        struct fixture *f = *state;
        for (int i = 0; i < 3; i++) {
                watch(f, i, remove_all);
                wake(f, i);
        }
        assert_int_equal(loop_add_timer(f->loop, 30, 0, stop, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 1);
        /* The descriptors stay the caller's, open and free to be watched anew. */
        watch(f, 0, read_and_stop);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 2);
}

static int replace_itself(struct loop *loop, int fd, uint32_t events _unused_, void *userdata) {
        struct fixture *f = userdata;
        f->fd_calls++;
        loop_remove(f->sources[0]);
        return loop_add_fd(loop, fd, EPOLLIN, read_and_stop, f, &f->sources[0], NULL);
}

static void a_callback_can_replace_itself(void **state) {
        struct fixture *f = *state;
        watch(f, 0, replace_itself);
        wake(f, 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 2);
}

static int remove_timer(struct loop *loop _unused_, void *userdata) {
        struct fixture *f = userdata;
        f->timer_calls++;
        loop_remove(f->timer);
        return 0;
}

static void a_timer_can_remove_itself(void **state) {
        struct fixture *f = *state;
        assert_int_equal(loop_add_timer(f->loop, 1, 1, remove_timer, f, &f->timer, NULL), 0);
        assert_int_equal(loop_add_timer(f->loop, 50, 0, stop, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->timer_calls, 2); /* once each */
}

static void a_source_can_be_removed_while_nothing_runs(void **state) {
        struct fixture *f = *state;
        watch(f, 0, fail_now);
        wake(f, 0);
        loop_remove(f->sources[0]);
        loop_remove(NULL);
        assert_int_equal(loop_add_timer(f->loop, 20, 0, stop, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 0);
}

/* Timers. */

static int third_time(struct loop *loop, void *userdata) {
        struct fixture *f = userdata;
        if (++f->timer_calls == 3)
                loop_stop(loop, 7);
        return 0;
}

static void a_timer_waits_and_comes_again(void **state) {
        struct fixture *f = *state;
        uint64_t begin = now_ms();
        assert_int_equal(loop_add_timer(f->loop, 30, 10, third_time, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 7);
        assert_true(now_ms() - begin >= 49);
}

static void a_timer_sleeps_until_it_is_armed_and_after_it_was_disarmed(void **state) {
        struct fixture *f = *state;
        struct loop_source *late = NULL;
        assert_int_equal(loop_add_timer(f->loop, 0, 0, third_time, f, &f->timer, NULL), 0);
        assert_int_equal(loop_add_timer(f->loop, 30, 0, stop, f, &late, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->timer_calls, 1); /* the late one */
        f->timer_calls = 2;
        loop_arm(f->timer, 1, 0);
        assert_int_equal(loop_run(f->loop, NULL), 7);
        loop_arm(f->timer, 1, 1);
        loop_arm(f->timer, 0, 0);
        loop_arm(late, 30, 0);
        f->timer_calls = 10;
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->timer_calls, 11);
}

/* Signals. */

static int on_signal(struct loop *loop, int signal, void *userdata) {
        struct fixture *f = userdata;
        f->last_signal = signal;
        if (++f->signals == 2)
                loop_stop(loop, 5);
        return 0;
}

static int receive_signals(void *userdata) {
        struct fixture *f = userdata;
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGUSR1);
        CHECK(loop_add_signals(f->loop, &set, on_signal, f, NULL) == 0);
        /* Would end the process if they were delivered. */
        kill(getpid(), SIGTERM);
        kill(getpid(), SIGUSR1);
        CHECK(loop_run(f->loop, NULL) == 5);
        CHECK(f->signals == 2);
        CHECK(f->last_signal == SIGTERM || f->last_signal == SIGUSR1);
        return 0;
}

static void signals_become_callbacks(void **state) {
        child_run(receive_signals, *state);
}

static void bytes_left_unread_call_back_again(void **state) {
        struct fixture *f = *state;
        watch(f, 0, read_only_one);
        wake(f, 0);
        wake(f, 0);
        wake(f, 0);
        assert_int_equal(loop_add_timer(f->loop, 50, 0, stop, f, NULL, NULL), 0);
        assert_int_equal(loop_run(f->loop, NULL), 0);
        assert_int_equal(f->fd_calls, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(a_readable_descriptor_calls_back_with_its_events),
                        TEST(a_hangup_calls_back_too),
                        TEST(events_can_be_changed),
                        TEST(a_negative_value_ends_the_loop_before_the_other_callbacks),
                        TEST(what_cannot_be_watched_is_an_error),
                        TEST(a_callback_can_remove_itself_and_others_with_pending_events),
                        TEST(a_callback_can_replace_itself),
                        TEST(a_timer_can_remove_itself),
                        TEST(a_source_can_be_removed_while_nothing_runs),
                        TEST(a_timer_waits_and_comes_again),
                        TEST(a_timer_sleeps_until_it_is_armed_and_after_it_was_disarmed),
                        TEST(signals_become_callbacks),
                        TEST(bytes_left_unread_call_back_again),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
