/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/tail.h>

struct fixture {
        char *dir, *path;
        struct strv lines;
        const char *stop_at;            /* ends the reading with -ECANCELED */
        void (*step)(struct fixture *); /* called once everything was read, for what happens next */
        unsigned steps;
};

static int set_up(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        if (fs_mkdtemp("/tmp", "k3s-vm-tail", &f->dir, NULL) < 0)
                return -1;
        f->path = path_join(f->dir, "log");
        *state = f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        fs_remove_tree(f->dir, NULL);
        strv_free(&f->lines);
        free(f->dir);
        free(f->path);
        free(f);
        return 0;
}

static void add(const char *path, const char *text, size_t len) {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, len), (ssize_t)len);
        close(fd);
}

static void add_text(const char *path, const char *text) {
        add(path, text, strlen(text));
}

static int on_line(const char *line, size_t len, void *userdata) {
        struct fixture *f = userdata;
        strv_push_take(&f->lines, xstrndup(line, len));
        return f->stop_at && strlen(f->stop_at) == len && memcmp(line, f->stop_at, len) == 0 ? -ECANCELED : 0;
}

static void on_pause(void *userdata) {
        struct fixture *f = userdata;
        if (f->step)
                f->step(f);
}

static int run(struct fixture *f, uint64_t lines, bool follow) {
        const struct tail_spec spec = {.path = f->path,
                                       .lines = lines,
                                       .follow = follow,
                                       .hangup_fd = -1,
                                       .on_line = on_line,
                                       .on_pause = on_pause,
                                       .userdata = f};
        return tail_file(&spec, NULL);
}

static void assert_lines(struct fixture *f, const char *expected) {
        _cleanup_free_ char *joined = strv_join(&f->lines, "|");
        assert_string_equal(joined, expected);
}

static void gives_the_last_lines_and_a_last_one_without_newline(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "a\n\nb\nc");
        assert_int_equal(run(f, 2, false), 0);
        assert_lines(f, "b|c");
}

static void a_newline_at_the_end_begins_no_line(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "a\nb\n");
        assert_int_equal(run(f, 1, false), 0);
        assert_lines(f, "b");
}

static void gives_all_lines_of_a_file_that_has_fewer(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "a\nb\n");
        assert_int_equal(run(f, 10, false), 0);
        assert_lines(f, "a|b");
}

static void no_lines_are_none(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "a\nb\n");
        assert_int_equal(run(f, 0, false), 0);
        assert_int_equal(f->lines.len, 0);
}

static void counts_lines_across_blocks(void **state) {
        struct fixture *f = *state;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        for (int i = 0; i < 30000; i++)
                buf_printf(&text, "%d\n", i);
        add(f->path, text.data, text.len);
        assert_int_equal(run(f, 20000, false), 0);
        assert_int_equal(f->lines.len, 20000);
        assert_string_equal(f->lines.items[0], "10000");
        assert_string_equal(f->lines.items[19999], "29999");
}

static void cuts_a_line_without_end_into_pieces(void **state) {
        struct fixture *f = *state;
        size_t len = 3 * (size_t)TAIL_LINE_MAX + 5;
        _cleanup_free_ char *text = xcalloc(1, len);
        memset(text, 'x', len);
        add(f->path, text, len);
        assert_int_equal(run(f, TAIL_ALL, false), 0);
        assert_int_equal(f->lines.len, 4);
        assert_int_equal(strlen(f->lines.items[0]), TAIL_LINE_MAX);
        assert_int_equal(strlen(f->lines.items[3]), 5);
}

static void a_missing_file_is_an_error_unless_followed(void **state) {
        struct fixture *f = *state;
        assert_int_equal(run(f, 1, false), -ENOENT);
}

static void a_fifo_or_a_folder_is_an_error(void **state) {
        struct fixture *f = *state;
        assert_int_equal(mkfifo(f->path, 0600), 0);
        assert_int_equal(run(f, 1, false), -EINVAL);
        assert_int_equal(unlink(f->path), 0);
        assert_int_equal(mkdir(f->path, 0700), 0);
        assert_int_equal(run(f, 1, false), -EINVAL);
}

static void the_callback_ends_it(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "a\nstop\nb\n");
        f->stop_at = "stop";
        assert_int_equal(run(f, TAIL_ALL, false), -ECANCELED);
        assert_lines(f, "a|stop");
}

static void rotate(struct fixture *f) {
        _cleanup_free_ char *old = path_join(f->dir, "log.1");
        switch (f->steps++) {
        case 0: /* appears */
                add_text(f->path, "one\nha");
                break;
        case 1: /* grows */
                add_text(f->path, "lf\n");
                break;
        case 2: /* is renamed, written to once more, and begun anew */
                assert_int_equal(rename(f->path, old), 0);
                add_text(old, "late\n");
                add_text(f->path, "new\n");
                break;
        case 3: /* is cut */
                assert_int_equal(truncate(f->path, 0), 0);
                add_text(f->path, "x\n");
                break;
        case 4: /* is removed and comes back */
                assert_int_equal(unlink(f->path), 0);
                add_text(f->path, "stop\n");
                break;
        default:
                break;
        }
}

static void follows_a_file_through_everything_that_happens_to_it(void **state) {
        struct fixture *f = *state;
        f->step = rotate;
        f->stop_at = "stop";
        assert_int_equal(run(f, TAIL_ALL, true), -ECANCELED);
        assert_lines(f, "one|half|late|new|x|stop");
}

static void remove_all(struct fixture *f) {
        fs_remove_tree(f->dir, NULL);
}

static void following_ends_with_the_folder(void **state) {
        struct fixture *f = *state;
        add_text(f->path, "one\n");
        f->step = remove_all;
        assert_int_equal(run(f, TAIL_ALL, true), 0);
        assert_lines(f, "one");
}

static void following_ends_when_the_reader_hangs_up(void **state) {
        struct fixture *f = *state;
        int fds[2];
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        close(fds[0]);
        add_text(f->path, "one\n");
        const struct tail_spec spec = {.path = f->path,
                                       .lines = TAIL_ALL,
                                       .follow = true,
                                       .hangup_fd = fds[1],
                                       .on_line = on_line,
                                       .userdata = f};
        assert_int_equal(tail_file(&spec, NULL), 0);
        close(fds[1]);
        assert_lines(f, "one");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(gives_the_last_lines_and_a_last_one_without_newline),
                        TEST(a_newline_at_the_end_begins_no_line),
                        TEST(gives_all_lines_of_a_file_that_has_fewer),
                        TEST(no_lines_are_none),
                        TEST(counts_lines_across_blocks),
                        TEST(cuts_a_line_without_end_into_pieces),
                        TEST(a_missing_file_is_an_error_unless_followed),
                        TEST(a_fifo_or_a_folder_is_an_error),
                        TEST(the_callback_ends_it),
                        TEST(follows_a_file_through_everything_that_happens_to_it),
                        TEST(following_ends_with_the_folder),
                        TEST(following_ends_when_the_reader_hangs_up),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
