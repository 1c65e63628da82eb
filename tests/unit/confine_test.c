/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/confine.h>
#include <k3s-vm/proc.h>

#include "must_skip.h"

/* Runs @script in a shell that may write to DIR/in alone; its status, or -1 where the kernel cannot confine it. */
static int run(struct scratch *s, const char *script) {
        _cleanup_free_ char *in = path_join(s->dir, "in");
        assert_int_equal(fs_mkdir_p(in, 0755, NULL), 0);
        _cleanup_close_ int confinement = -1;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (confine_writes(in, &confinement, &err) < 0) {
                assert_int_equal(err.code, ERR_HOST);
                must_skip("this kernel has no Landlock");
        }
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){"sh", "-c", script, NULL};
        run.spec.cwd = s->dir;
        run.spec.confined_by = confinement;
        run.timeout_ms = 30000;
        struct proc_result result = {.exit_status = -1};
        assert_int_equal(proc_run(&run, &result, NULL), 0);
        return result.exit_status;
}

static bool there(struct scratch *s, const char *name) {
        _cleanup_free_ char *path = path_join(s->dir, name);
        return fs_exists(path);
}

static void a_confined_program_works_in_its_folder(void **state) {
        struct scratch *s = *state;
        assert_int_equal(run(s, "cat /proc/self/stat >/dev/null && mkdir in/a && echo x >in/a/b && ln -s b in/a/c && "
                                "mv in/a in/d && echo y >in/d/b && rm in/d/c"),
                         0);
        assert_true(there(s, "in/d/b"));
        assert_false(there(s, "in/d/c"));
}

static void it_makes_changes_and_removes_nothing_elsewhere(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *file = path_join(s->dir, "file");
        scratch_write(file, "whole");
        static const char *const scripts[] = {
                        "echo x >new",         "mkdir new",
                        "ln -s file new",      "mkfifo new",
                        "echo x >>file",       "rm file",
                        "mv file in/file",     ": >file",
                        "echo x >in/../new",   "ln -s .. in/up; echo x >in/up/new",
                        "sh -c 'echo x >new'",
        };
        for (size_t i = 0; i < ELEMENTSOF(scripts); i++) {
                if (run(s, scripts[i]) == 0)
                        fail_msg("\"%s\" was let", scripts[i]);
                assert_false(there(s, "new"));
                _cleanup_free_ char *text = scratch_read(file);
                assert_string_equal(text, "whole");
        }
}

static void a_folder_that_is_not_there_is_an_error(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *missing = path_join(s->dir, "missing");
        int fd = 77;
        assert_true(confine_writes(missing, &fd, NULL) < 0);
        assert_int_equal(fd, 77);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, scratch_setup, scratch_teardown)
        const struct CMUnitTest tests[] = {
                        TEST(a_confined_program_works_in_its_folder),
                        TEST(it_makes_changes_and_removes_nothing_elsewhere),
                        TEST(a_folder_that_is_not_there_is_an_error),
        };
        return cmocka_run_group_tests_name("confine", tests, NULL, NULL);
}
