/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

/* Finds the project from the working folder @cwd and gives its root. */
static char *root_from(const char *cwd) {
        char *before = getcwd(NULL, 0);
        assert_int_equal(chdir(cwd), 0);
        _cleanup_project_ struct project *p = NULL;
        assert_int_equal(project_find(NULL, &p, NULL), 0);
        assert_int_equal(chdir(before), 0);
        free(before);
        return xstrdup(p->root);
}

static void finds_the_nearest_ancestor_with_a_k3s_vm_folder(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *deep = path_join(s->root, "a/b"), *git = path_join(s->root, "a/.git");
        assert_int_equal(fs_mkdir_p(deep, 0755, NULL), 0);
        assert_int_equal(fs_mkdir_p(git, 0755, NULL), 0);
        _cleanup_free_ char *root = root_from(deep);
        assert_string_equal(root, s->root);
}

static void finds_the_git_root_when_there_is_no_k3s_vm_folder(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *repo = path_join(s->dir, "repo"), *deep = path_join(repo, "x/y"),
                            *git = path_join(repo, ".git");
        assert_int_equal(fs_mkdir_p(deep, 0755, NULL), 0);
        scratch_write(git, "gitdir: elsewhere\n"); /* a work tree's .git is a file */
        _cleanup_free_ char *root = root_from(deep);
        assert_string_equal(root, repo);
}

static void takes_the_working_folder_when_nothing_marks_a_project(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *plain = path_join(s->dir, "plain/inner");
        assert_int_equal(fs_mkdir_p(plain, 0755, NULL), 0);
        _cleanup_free_ char *root = root_from(plain);
        assert_string_equal(root, plain);
}

static void a_given_folder_overrides_the_search_and_is_resolved(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *link = path_join(s->dir, "link"), *inner = path_join(s->root, "inner");
        assert_int_equal(mkdir(inner, 0755), 0);
        assert_int_equal(symlink(inner, link), 0);
        _cleanup_project_ struct project *p = NULL;
        assert_int_equal(project_find(link, &p, NULL), 0);
        assert_string_equal(p->root, inner);
        assert_false(fs_exists(p->dir));
}

static void a_missing_folder_or_a_file_is_a_usage_error(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *file = path_join(s->dir, "file"), *missing = path_join(s->dir, "missing");
        scratch_write(file, "");
        struct project *p = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(project_find(missing, &p, &err), -ENOENT);
        assert_int_equal(err.code, ERR_USAGE);
        assert_int_equal(project_find(file, &p, &err), -ENOTDIR);
        assert_int_equal(err.code, ERR_USAGE);
        assert_null(p);
}

static void any_path_works_as_a_project(void **state) {
        struct scratch *s = *state;
        char longest[241];
        memset(longest, 'x', sizeof(longest) - 1);
        longest[sizeof(longest) - 1] = '\0';
        _cleanup_free_ char *strange = path_join(s->dir, "a b, \"c\" 'd'\n\xc3\xa4\xe6\xbc\xa2 $(x)"),
                            *deep = path_join(strange, longest, longest);
        assert_int_equal(fs_mkdir_p(deep, 0755, NULL), 0);
        _cleanup_project_ struct project *p = NULL;
        assert_int_equal(project_find(deep, &p, NULL), 0);
        assert_int_equal(project_create_dirs(p, NULL), 0);
        assert_string_equal(p->root, deep);
        assert_true(fs_is_dir(p->vm_dir));
        /* Sockets must be reachable from any project. */
        _cleanup_free_ char *runtime = NULL;
        assert_int_equal(project_runtime_dir(p, "0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90", true, &runtime, NULL), 0);
        assert_true(strlen(runtime) < 80);
}

static void the_folder_is_private_and_ignored_by_git(void **state) {
        struct scratch *s = *state;
        struct stat st;
        _cleanup_free_ char *ignore = path_join(s->p->dir, ".gitignore"), *text = scratch_read(ignore);
        assert_string_equal(text, "*\n");
        assert_int_equal(stat(s->p->dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        assert_int_equal(stat(s->p->vm_dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
}

static void a_folder_made_by_hand_is_tightened_and_its_gitignore_kept(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *ignore = path_join(s->p->dir, ".gitignore");
        scratch_write(ignore, "vm\n");
        assert_int_equal(chmod(s->p->dir, 0777), 0);
        assert_int_equal(project_create_dirs(s->p, NULL), 0);
        struct stat st;
        assert_int_equal(stat(s->p->dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        _cleanup_free_ char *text = scratch_read(ignore);
        assert_string_equal(text, "vm\n");
}

static void a_file_in_the_folders_place_is_an_error(void **state) {
        struct scratch *s = *state;
        assert_int_equal(fs_remove_tree(s->p->dir, NULL), 0);
        scratch_write(s->p->dir, "");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(project_create_dirs(s->p, &err), -ENOTDIR);
        assert_int_equal(err.code, ERR_HOST);
}

static void the_runtime_folder_is_the_xdg_one_when_it_is_ours_and_short(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *want = path_join(s->runtime, "k3s-vm");
        assert_string_equal(s->p->runtime_base, want);
}

static void the_runtime_folder_falls_back_when_xdg_is_relative_missing_or_too_long(void **state) {
        struct scratch *s = *state;
        char name[101];
        memset(name, 'r', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        _cleanup_free_ char *too_long = path_join(s->dir, name), *missing = path_join(s->dir, "none");
        assert_int_equal(mkdir(too_long, 0700), 0);
        const char *values[] = {"run", missing, too_long};
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                setenv("XDG_RUNTIME_DIR", values[i], 1);
                _cleanup_project_ struct project *p = NULL;
                assert_int_equal(project_find(s->root, &p, NULL), 0);
                assert_false(str_starts(p->runtime_base, s->dir));
                assert_true(strlen(p->runtime_base) < 40);
        }
}

static void a_relative_xdg_folder_is_ignored(void **state) {
        struct scratch *s = *state;
        setenv("XDG_CACHE_HOME", "cache", 1);
        _cleanup_project_ struct project *p = NULL;
        assert_int_equal(project_find(s->root, &p, NULL), 0);
        _cleanup_free_ char *want = path_join(s->dir, ".cache/k3s-vm");
        assert_string_equal(p->cache_dir, want);
}

static void the_vms_runtime_folder_is_private_and_refused_to_strangers(void **state) {
        struct scratch *s = *state;
        const char *uuid = "0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90";
        _cleanup_free_ char *dir = NULL, *again = NULL;
        assert_int_equal(project_runtime_dir(s->p, uuid, true, &dir, NULL), 0);
        assert_string_equal(path_base(dir), "0d6e1dd4-7f5");
        struct stat st;
        assert_int_equal(stat(dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
        /* Someone was first with a symlink. */
        assert_int_equal(rmdir(dir), 0);
        assert_int_equal(symlink(s->root, dir), 0);
        assert_int_equal(project_runtime_dir(s->p, uuid, true, &again, NULL), -EPERM);
        assert_null(again);
        assert_int_equal(project_runtime_dir(s->p, "../../../../etc", true, &again, NULL), -EINVAL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(finds_the_nearest_ancestor_with_a_k3s_vm_folder),
                        scratch_test(finds_the_git_root_when_there_is_no_k3s_vm_folder),
                        scratch_test(takes_the_working_folder_when_nothing_marks_a_project),
                        scratch_test(a_given_folder_overrides_the_search_and_is_resolved),
                        scratch_test(a_missing_folder_or_a_file_is_a_usage_error),
                        scratch_test(any_path_works_as_a_project),
                        scratch_test(the_folder_is_private_and_ignored_by_git),
                        scratch_test(a_folder_made_by_hand_is_tightened_and_its_gitignore_kept),
                        scratch_test(a_file_in_the_folders_place_is_an_error),
                        scratch_test(the_runtime_folder_is_the_xdg_one_when_it_is_ours_and_short),
                        scratch_test(the_runtime_folder_falls_back_when_xdg_is_relative_missing_or_too_long),
                        scratch_test(a_relative_xdg_folder_is_ignored),
                        scratch_test(the_vms_runtime_folder_is_private_and_refused_to_strangers),
        };
        return cmocka_run_group_tests_name("project", tests, NULL, NULL);
}
