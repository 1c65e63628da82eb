/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/image.h>
#include <k3s-vm/interrupt.h>

#include "child.h"

/* A builder that counts its builds in the file `builds` beside the scripts, and whose input is in `input` there. */
#define BUILD_HEAD "#!/bin/sh\ntop=${0%/*/*}\nif [ \"$1\" = --inputs ]; then exec cat \"$top/input\"; fi\n"
#define BUILD_OK \
        BUILD_HEAD "echo x >> \"$top/builds\"\necho 'phase making it' >&3\necho 'progress 1 2' >&3\necho working\n" \
                   "cp \"$top/input\" \"$1/made\"\ntouch \"$1/guest.json\"\n"

struct fixture {
        char *dir, *scripts, *folder, *script, *input;
        struct image_builder builder;
        struct progress progress;
        char *result;
        bool built;
        struct error err;
};

static int set_up(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        if (fs_mkdtemp("/tmp", "k3s-vm-image", &f->dir, NULL) < 0)
                return -1;
        f->scripts = path_join(f->dir, "scripts");
        f->folder = path_join(f->dir, "guests");
        f->script = path_join(f->scripts, "build");
        f->input = path_join(f->dir, "input");
        f->builder = (struct image_builder){.name = "guest", .text = "tiny guest", .complete = "guest.json"};
        if (mkdir(f->scripts, 0755) < 0 || mkdir(f->folder, 0755) < 0 ||
            fs_write_atomic(f->script, BUILD_OK, strlen(BUILD_OK), 0755, NULL) < 0 ||
            fs_write_atomic(f->input, "one\n", 4, 0644, NULL) < 0)
                return -1;
        *state = f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        int r = fs_remove_tree(f->dir, NULL);
        free(f->dir);
        free(f->scripts);
        free(f->folder);
        free(f->script);
        free(f->input);
        free(f->result);
        error_clear(&f->err);
        free(f);
        return r;
}

static void put(const char *path, const char *text, mode_t mode) {
        assert_int_equal(fs_write_atomic(path, text, strlen(text), mode, NULL), 0);
}

static void put_script(struct fixture *f, const char *rest) {
        _cleanup_free_ char *text = xasprintf("%s%s", BUILD_HEAD, rest);
        put(f->script, text, 0755);
}

static int ensure(struct fixture *f) {
        free(f->result);
        f->result = NULL;
        error_clear(&f->err);
        return image_ensure_from(f->scripts, f->folder, &f->builder, f->progress.ops ? &f->progress : NULL, &f->result,
                                 &f->built, &f->err);
}

static int64_t builds(struct fixture *f) {
        _cleanup_free_ char *path = path_join(f->dir, "builds");
        int64_t size = fs_size(path);
        return size < 0 ? 0 : size / 2;
}

/* How many entries the results' folder has whose name ends in @suffix; "": neither log nor lock. */
static size_t count(struct fixture *f, const char *suffix) {
        _cleanup_closedir_ DIR *dir = opendir(f->folder);
        size_t n = 0;
        for (const struct dirent *entry; dir && (entry = readdir(dir));) {
                const char *name = entry->d_name;
                if (str_eq(name, ".") || str_eq(name, ".."))
                        continue;
                if (*suffix ? str_ends(name, suffix) : !str_ends(name, ".log") && !str_ends(name, ".lock"))
                        n++;
        }
        return n;
}

static char *ensure_new(struct fixture *f) {
        assert_int_equal(ensure(f), 0);
        assert_true(f->built);
        return xstrdup(f->result);
}

static void a_result_is_built_once_and_found_afterwards(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *first = ensure_new(f), *made = path_join(first, "made");
        assert_true(str_starts(first, f->folder));
        assert_int_equal(strlen(path_base(first)), 16);
        assert_true(fs_exists(made));
        assert_int_equal(ensure(f), 0);
        assert_false(f->built);
        assert_string_equal(f->result, first);
        assert_int_equal(builds(f), 1);
        assert_int_equal(count(f, ""), 1);
        struct stat st;
        assert_int_equal(stat(first, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0755);
}

static void another_user_of_the_same_scripts_finds_it_too(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *first = ensure_new(f), *copy = path_join(f->dir, "copy");
        assert_int_equal(rename(f->scripts, copy), 0);
        free(f->scripts);
        f->scripts = xstrdup(copy);
        assert_int_equal(ensure(f), 0);
        assert_false(f->built);
        assert_string_equal(f->result, first);
}

static void a_changed_file_name_mode_place_or_input_is_another_result(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *file = path_join(f->scripts, "y", "z"), *folder = path_join(f->scripts, "y"),
                            *moved = path_join(f->scripts, "z"), *renamed = path_join(f->scripts, "zz");
        _cleanup_strv_ struct strv seen = {0};
        for (int change = 0; change < 8; change++) {
                switch (change) {
                case 1:
                        assert_int_equal(mkdir(folder, 0755), 0);
                        break;
                case 2:
                        put(file, "one", 0644);
                        break;
                case 3:
                        put(file, "two", 0644);
                        break;
                case 4:
                        assert_int_equal(chmod(file, 0755), 0);
                        break;
                case 5: /* out of its folder, so that the order of all names is the same */
                        assert_int_equal(rename(file, moved), 0);
                        break;
                case 6:
                        assert_int_equal(rename(moved, renamed), 0);
                        break;
                case 7:
                        put(f->input, "two\n", 0644);
                        break;
                default:
                        break;
                }
                char *result = ensure_new(f);
                assert_false(strv_contains(&seen, result));
                strv_push_take(&seen, result);
        }
        put(f->input, "one\n", 0644);
        assert_int_equal(ensure(f), 0);
        assert_false(f->built);
}

static void a_failure_leaves_nothing_and_shows_the_last_lines_and_where_the_log_is(void **state) {
        struct fixture *f = *state;
        put_script(f, "touch \"$1/guest.json\"; seq 1 5000; echo 'no such mirror' >&2; exit 3\n");
        assert_int_equal(ensure(f), -EIO);
        assert_null(f->result);
        assert_int_equal(f->err.code, ERR_FAILED);
        assert_string_equal(f->err.message, "the tiny guest could not be built: its builder exited with status 3");
        assert_true(str_ends(f->err.detail, "\n4999\n5000\nno such mirror\n"));
        assert_int_equal(count(f, ""), 0);
        assert_int_equal(count(f, ".log"), 1);
        const char *log_path = strstr(f->err.hint, f->folder);
        _cleanup_buf_ struct buf log = BUF_INIT(0);
        assert_int_equal(fs_read(log_path, 1U << 20, &log, NULL), 0);
        assert_true(str_starts(buf_str(&log), "1\n2\n"));
        assert_true(str_ends(buf_str(&log), "no such mirror\n"));
        /* And the next time it is built anew. */
        put(f->script, BUILD_OK, 0755);
        free(ensure_new(f));
}

static void what_the_host_lacks_is_the_host_s_failure(void **state) {
        struct fixture *f = *state;
        put_script(f, "echo 'mkfs is not installed' >&2; exit 6\n");
        assert_int_equal(ensure(f), -EIO);
        assert_int_equal(f->err.code, ERR_HOST);
        assert_string_equal(f->err.detail, "mkfs is not installed\n");
        put(f->script, "#!/bin/sh\necho 'no apt here'; exit 6\n", 0755);
        assert_int_equal(ensure(f), -EIO);
        assert_int_equal(f->err.code, ERR_HOST);
        assert_string_equal(f->err.message, "the tiny guest cannot be built on this machine");
        put(f->script, "#!/bin/sh\necho broken >&2; exit 1\n", 0755);
        assert_int_equal(ensure(f), -EIO);
        assert_int_equal(f->err.code, ERR_FAILED);
        assert_string_equal(f->err.detail, "broken\n");
        assert_int_equal(count(f, ""), 0);
}

static void a_builder_that_leaves_no_complete_file_has_failed(void **state) {
        struct fixture *f = *state;
        put_script(f, "touch \"$1/root.img\"\n");
        assert_int_equal(ensure(f), -EIO);
        assert_non_null(strstr(f->err.message, "guest.json"));
        assert_int_equal(count(f, ""), 0);
}

static void a_result_without_its_complete_file_is_built_again(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *first = ensure_new(f), *complete = path_join(first, "guest.json"),
                            *junk = path_join(first, "junk");
        assert_int_equal(unlink(complete), 0);
        put(junk, "", 0644);
        assert_int_equal(ensure(f), 0);
        assert_true(f->built);
        assert_string_equal(f->result, first);
        assert_true(fs_exists(complete));
        assert_false(fs_exists(junk));
        assert_int_equal(builds(f), 2);
}

static void too_little_room_is_said_before_anything_is_built(void **state) {
        struct fixture *f = *state;
        f->builder.room_bytes = UINT64_MAX;
        assert_int_equal(ensure(f), -ENOSPC);
        assert_int_equal(f->err.code, ERR_HOST);
        assert_non_null(f->err.hint);
        assert_int_equal(builds(f), 0);
        assert_int_equal(count(f, ""), 0);
}

/* Interruption. */

static int interrupt_a_build(void *userdata) {
        struct fixture *f = userdata;
        CHECK(interrupt_begin(NULL) == 0);
        CHECK(ensure(f) == -ECANCELED);
        CHECK(f->err.code == ERR_INTERRUPTED);
        CHECK(count(f, "") == 0);
        return 0;
}

static void an_interrupted_build_leaves_nothing_running_or_built(void **state) {
        struct fixture *f = *state;
        /* Interrupts who runs it, when it is in the middle. */
        put_script(f, "touch \"$1/guest.json\"\nsleep 1000 &\necho $! > \"$top/sleeper\"\nkill -TERM $PPID\nwait\n");
        child_run(interrupt_a_build, f);
        _cleanup_free_ char *path = path_join(f->dir, "sleeper");
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(fs_read(path, 100, &b, NULL), 0);
        pid_t sleeper = (pid_t)strtol(buf_str(&b), NULL, 10);
        assert_true(sleeper > 1);
        for (int i = 0; i < 1000 && kill(sleeper, 0) == 0; i++) {
                _cleanup_free_ char *stat_path = xasprintf("/proc/%d/stat", sleeper);
                _cleanup_buf_ struct buf stat_text = BUF_INIT(0);
                if (fs_read(stat_path, 4096, &stat_text, NULL) < 0 || strstr(buf_str(&stat_text), ") Z "))
                        return; /* gone, or waiting for init to notice */
                usleep(20000);
        }
        assert_int_equal(kill(sleeper, 0), -1);
}

/* Two at once. */

static int ensure_in_child(void *userdata) {
        struct fixture *f = userdata;
        CHECK(ensure(f) == 0);
        return f->built ? 10 : 11;
}

static void two_at_once_build_once(void **state) {
        struct fixture *f = *state;
        put_script(f, "echo x >> \"$top/builds\"\nsleep 0.5\ntouch \"$1/guest.json\"\n");
        pid_t a = child_start(ensure_in_child, f), b = child_start(ensure_in_child, f);
        assert_int_equal(child_status(a) + child_status(b), 21);
        assert_int_equal(builds(f), 1);
        assert_int_equal(count(f, ""), 1);
}

static void interrupt_once_it_waits(struct progress *p _unused_, int warning _unused_, const char *text) {
        if (strstr(text, "waiting"))
                kill(getpid(), SIGINT);
}

static int wait_interrupted(void *userdata) {
        struct fixture *f = userdata;
        static const struct progress_ops ops = {.note = interrupt_once_it_waits};
        f->progress.ops = &ops;
        CHECK(interrupt_begin(NULL) == 0);
        CHECK(ensure(f) == -ECANCELED);
        CHECK(f->err.code == ERR_INTERRUPTED);
        return 0;
}

static void waiting_for_another_build_can_be_interrupted(void **state) {
        struct fixture *f = *state;
        put_script(f, "touch \"$top/started\"\nwhile [ ! -e \"$top/go\" ]; do sleep 0.05; done\ntouch "
                      "\"$1/guest.json\"\n");
        _cleanup_free_ char *started = path_join(f->dir, "started"), *go = path_join(f->dir, "go");
        pid_t builder = child_start(ensure_in_child, f);
        for (int i = 0; i < 1500 && !fs_exists(started); i++)
                usleep(20000);
        assert_true(fs_exists(started));
        child_run(wait_interrupted, f);
        put(go, "", 0644);
        assert_int_equal(child_status(builder), 10);
}

/* Leftovers. */

static void what_killed_builds_left_is_swept_by_the_next_one(void **state) {
        struct fixture *f = *state;
        _cleanup_free_ char *old = path_join(f->folder, ".building.old"),
                            *busy = path_join(f->folder, ".building.busy"), *foreign = path_join(f->folder, "older");
        const struct timespec times[2] = {{.tv_sec = time(NULL) - 60}, {.tv_sec = time(NULL) - 60}};
        assert_int_equal(mkdir(old, 0700) | mkdir(busy, 0700), 0);
        assert_int_equal(utimensat(AT_FDCWD, old, times, 0) | utimensat(AT_FDCWD, busy, times, 0), 0);
        _cleanup_close_ int hold _unused_ = fs_hold_path(busy);
        assert_int_equal(mkdir(foreign, 0700) | utimensat(AT_FDCWD, foreign, times, 0), 0);
        free(ensure_new(f));
        assert_false(fs_exists(old));
        assert_true(fs_exists(busy));
        assert_true(fs_exists(foreign));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(a_result_is_built_once_and_found_afterwards),
                        TEST(another_user_of_the_same_scripts_finds_it_too),
                        TEST(a_changed_file_name_mode_place_or_input_is_another_result),
                        TEST(a_failure_leaves_nothing_and_shows_the_last_lines_and_where_the_log_is),
                        TEST(what_the_host_lacks_is_the_host_s_failure),
                        TEST(a_builder_that_leaves_no_complete_file_has_failed),
                        TEST(a_result_without_its_complete_file_is_built_again),
                        TEST(too_little_room_is_said_before_anything_is_built),
                        TEST(an_interrupted_build_leaves_nothing_running_or_built),
                        TEST(two_at_once_build_once),
                        TEST(waiting_for_another_build_can_be_interrupted),
                        TEST(what_killed_builds_left_is_swept_by_the_next_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
