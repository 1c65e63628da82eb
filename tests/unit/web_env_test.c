/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/web_env.h>

static struct config *load_config(struct scratch *s) {
        struct config *c = NULL;
        assert_int_equal(config_load(s->p, &c, NULL), 0);
        return c;
}

/* As kubeconfig_adapt() leaves one, for the VM called @name. */
static struct kubeconfig *kubeconfig_of(const char *name) {
        struct kubeconfig *k = xcalloc(1, sizeof(*k));
        k->document = json_new_object();
        json_set_string(k->document, "current-context", name);
        json_set_string(k->document, "kind", "Config");
        return k;
}

static char *web(const struct scratch *s, const char *name) {
        return path_join(s->root, "web", name);
}

static void make_web(const struct scratch *s) {
        _cleanup_free_ char *kube = web(s, ".kube"), *config = web(s, ".kube/config");
        assert_int_equal(fs_mkdir_p(kube, 0755, NULL), 0);
        scratch_write(config, "kubeconfig\n");
}

static int write_env(struct scratch *s, const char *name, struct error *err) {
        _cleanup_config_ struct config *c = load_config(s);
        _cleanup_kubeconfig_ struct kubeconfig *k = kubeconfig_of(name ? name : c->vm_name);
        return web_env_write(s->p, c, k, NULL, err);
}

static void remove_env(struct scratch *s) {
        _cleanup_config_ struct config *c = load_config(s);
        web_env_remove(s->p, c, NULL);
}

/* The lines for the VM called @name; the caller frees. */
static char *lines_of(const char *name, const char *line_end) {
        _cleanup_kubeconfig_ struct kubeconfig *k = kubeconfig_of(name);
        _cleanup_free_ char *json = json_print(k->document, false), *encoded = base64_encode(json, strlen(json));
        return xasprintf("KUBECONFIG=./kubeconfig.yaml%sKUBECONFIG_PRIMARY=%s", line_end, encoded);
}

static mode_t mode_of(const char *path) {
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        return st.st_mode & 07777;
}

static void a_missing_file_is_made_private_with_its_symlink_and_goes_again(void **state) {
        struct scratch *s = *state;
        make_web(s);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *path = web(s, ".env"), *text = scratch_read(path), *want = lines_of("k3s-vm-shop", "\n");
        assert_true(str_starts(text, want));
        assert_string_equal(text + strlen(want), "\n");
        assert_int_equal(mode_of(path), 0600);
        _cleanup_free_ char *link = web(s, "kubeconfig.yaml"), *through = scratch_read(link);
        assert_string_equal(through, "kubeconfig\n");
        char target[32] = "";
        assert_int_equal(readlink(link, target, sizeof(target)), strlen(".kube/config"));
        assert_memory_equal(target, ".kube/config", strlen(".kube/config"));

        remove_env(s);
        assert_false(fs_exists(path));
        assert_false(fs_exists(link));
}

static void without_its_folder_nothing_is_made(void **state) {
        struct scratch *s = *state;
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *folder = path_join(s->root, "web");
        assert_false(fs_exists(folder));
}

static void every_other_byte_and_the_mode_stay(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        static const char before[] = "# mine\r\n\r\nA='x\r\ny' # $HOME\r\nB=2";
        scratch_write(path, before);
        assert_int_equal(chmod(path, 0640), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *text = scratch_read(path), *lines = lines_of("k3s-vm-shop", "\r\n"),
                            *want = xasprintf("%s\r\n%s", before, lines);
        assert_string_equal(text, want);
        assert_int_equal(mode_of(path), 0640);

        struct stat first, second;
        assert_int_equal(stat(path, &first), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        assert_int_equal(stat(path, &second), 0);
        assert_int_equal(first.st_ino, second.st_ino); /* nothing changed, nothing written */

        remove_env(s);
        _cleanup_free_ char *after = scratch_read(path);
        assert_string_equal(after, before);
        assert_int_equal(mode_of(path), 0640);
}

static void lines_of_the_user_are_changed_in_place(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        scratch_write(path, "export KUBECONFIG=\"\" # cluster\nKUBECONFIG_PRIMARY=\nPORT=1\n");
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *text = scratch_read(path);
        assert_true(str_starts(text, "export KUBECONFIG=./kubeconfig.yaml # cluster\nKUBECONFIG_PRIMARY=ey"));
        assert_true(str_ends(text, "\nPORT=1\n"));
        remove_env(s);
        _cleanup_free_ char *after = scratch_read(path);
        assert_string_equal(after, "export KUBECONFIG= # cluster\nPORT=1\n");
}

static void another_clusters_credentials_stay_when_the_vm_goes(void **state) {
        struct scratch *s = *state;
        make_web(s);
        assert_int_equal(write_env(s, "production", NULL), 0);
        _cleanup_free_ char *path = web(s, ".env"), *before = scratch_read(path);
        remove_env(s);
        _cleanup_free_ char *after = scratch_read(path);
        assert_string_equal(before, after);
}

static void a_symlink_is_followed(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env"), *target = path_join(s->root, "shared.env");
        scratch_write(target, "A=1\n");
        assert_int_equal(symlink("../shared.env", path), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *text = scratch_read(target);
        assert_true(str_starts(text, "A=1\nKUBECONFIG="));
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        assert_true(S_ISLNK(st.st_mode));
}

static void a_real_kubeconfig_yaml_stays_and_is_not_named(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env"), *link = web(s, "kubeconfig.yaml");
        scratch_write(link, "mine\n");
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *text = scratch_read(path), *mine = scratch_read(link);
        assert_string_equal(mine, "mine\n");
        assert_true(str_starts(text, "KUBECONFIG=./.kube/config\n"));
        remove_env(s);
        assert_false(fs_exists(path));
        assert_true(fs_exists(link));
}

static void a_symlink_elsewhere_stays_but_one_to_nothing_is_replaced(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *link = web(s, "kubeconfig.yaml"), *other = web(s, "other.yaml");
        scratch_write(other, "other\n");
        assert_int_equal(symlink("other.yaml", link), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *through = scratch_read(link);
        assert_string_equal(through, "other\n");
        assert_int_equal(unlink(other), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        _cleanup_free_ char *again = scratch_read(link);
        assert_string_equal(again, "kubeconfig\n");
}

static void paths_may_be_anywhere_below_the_project(void **state) {
        struct scratch *s = *state;
        const char *const paths[] = {"WEB_ENV_PATH=apps/api/.env", "KUBECONFIG_PATH=apps/kube/config", NULL};
        assert_int_equal(config_set(s->p, paths, NULL), 0);
        _cleanup_free_ char *api = path_join(s->root, "apps/api"), *env = path_join(api, ".env"),
                            *link = path_join(api, "kubeconfig.yaml");
        assert_int_equal(fs_mkdir_p(api, 0755, NULL), 0);
        assert_int_equal(write_env(s, NULL, NULL), 0);
        char target[32] = "";
        assert_true(readlink(link, target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "../kube/config");
        assert_true(fs_exists(env));
}

static void assert_untouched_error(struct scratch *s, int errnum, const char *part) {
        _cleanup_config_ struct config *c = load_config(s);
        for (int i = 0; i < 2; i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_int_equal(i == 0 ? web_env_check(s->p, c, &err) : write_env(s, NULL, &err), -errnum);
                assert_int_equal(err.code, ERR_USAGE);
                assert_non_null(strstr(err.message, "web/.env"));
                if (!strstr(err.message, part))
                        fail_msg("%s", err.message);
                assert_non_null(strstr(err.hint, "WEB_ENV_PATH"));
        }
        _cleanup_free_ char *link = web(s, "kubeconfig.yaml");
        struct stat st;
        assert_int_equal(lstat(link, &st), -1);
}

static void a_folder_is_an_error(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        assert_int_equal(mkdir(path, 0755), 0);
        assert_untouched_error(s, EISDIR, "it is a folder");
        assert_true(fs_is_dir(path));
}

static void a_malformed_file_is_an_error_with_its_line(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        scratch_write(path, "A=1\nwhat is this\n");
        assert_untouched_error(s, EINVAL, "web/.env:2: expected KEY=VALUE");
        _cleanup_free_ char *after = scratch_read(path);
        assert_string_equal(after, "A=1\nwhat is this\n");
}

static void a_huge_file_is_an_error_and_not_read(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        scratch_write(path, "");
        assert_int_equal(truncate(path, 100 << 20), 0);
        assert_untouched_error(s, EFBIG, "larger than 1 MiB");
}

static void an_unreadable_file_is_an_error(void **state) {
        struct scratch *s = *state;
        make_web(s);
        if (geteuid() == 0)
                return; /* root may read everything */
        _cleanup_free_ char *path = web(s, ".env");
        scratch_write(path, "A=1\n");
        assert_int_equal(chmod(path, 0), 0);
        assert_untouched_error(s, EACCES, "Permission denied");
}

static void a_symlink_to_nothing_is_an_error(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        assert_int_equal(symlink("nowhere", path), 0);
        assert_untouched_error(s, ENOENT, "symlink");
}

static void a_read_only_file_is_not_written(void **state) {
        struct scratch *s = *state;
        make_web(s);
        _cleanup_free_ char *path = web(s, ".env");
        scratch_write(path, "A=1\n");
        assert_int_equal(chmod(path, 0444), 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(write_env(s, NULL, &err), -EACCES);
        assert_non_null(strstr(err.hint, "chmod u+w"));
        _cleanup_free_ char *after = scratch_read(path);
        assert_string_equal(after, "A=1\n");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(a_missing_file_is_made_private_with_its_symlink_and_goes_again),
                        scratch_test(without_its_folder_nothing_is_made),
                        scratch_test(every_other_byte_and_the_mode_stay),
                        scratch_test(lines_of_the_user_are_changed_in_place),
                        scratch_test(another_clusters_credentials_stay_when_the_vm_goes),
                        scratch_test(a_symlink_is_followed),
                        scratch_test(a_real_kubeconfig_yaml_stays_and_is_not_named),
                        scratch_test(a_symlink_elsewhere_stays_but_one_to_nothing_is_replaced),
                        scratch_test(paths_may_be_anywhere_below_the_project),
                        scratch_test(a_folder_is_an_error),
                        scratch_test(a_malformed_file_is_an_error_with_its_line),
                        scratch_test(a_huge_file_is_an_error_and_not_read),
                        scratch_test(an_unreadable_file_is_an_error),
                        scratch_test(a_symlink_to_nothing_is_an_error),
                        scratch_test(a_read_only_file_is_not_written),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
