/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/guest_nixos.h>

#include "fake_nix.h"

/* tests/nix/launch.bats has the rest, with the real nix. */

static int ensure(const struct scratch *s, struct error *err) {
        _cleanup_free_ char *dir = NULL, *want = path_join(s->dir, "guest");
        int r = guest_nixos_ensure(s->p, NULL, NULL, &dir, err);
        if (r == 0)
                assert_string_equal(dir, want);
        return r;
}

static size_t calls(const struct scratch *s) {
        _cleanup_free_ char *path = path_join(s->dir, "calls");
        _cleanup_buf_ struct buf b = BUF_INIT(1U << 20);
        size_t n = 0;
        if (fs_read(path, 1U << 20, &b, NULL) == 0)
                for (size_t i = 0; i < b.len; i++)
                        n += b.data[i] == '\n';
        return n;
}

static void nix_runs_when_something_changed_and_not_otherwise(void **state) {
        const struct scratch *s = *state;
        assert_int_equal(fake_nix(s->dir), 0);
        assert_false(guest_nixos_made(s->p));
        assert_int_equal(ensure(s, NULL), 0);
        assert_true(guest_nixos_made(s->p));
        size_t first = calls(s);
        assert_true(first > 0);
        assert_int_equal(ensure(s, NULL), 0);
        assert_int_equal(calls(s), first);

        _cleanup_free_ char *file = path_join(s->p->dir, "configuration.nix"), *folder = path_join(s->p->dir, "nixos"),
                            *inner = path_join(folder, "a");
        scratch_write(file, "{ }");
        assert_int_equal(ensure(s, NULL), 0);
        size_t second = calls(s);
        assert_true(second > first);
        assert_int_equal(fs_mkdir_p(folder, 0700, NULL), 0);
        scratch_write(inner, "1");
        assert_int_equal(ensure(s, NULL), 0);
        size_t third = calls(s);
        assert_true(third > second);
        scratch_write(inner, "2");
        assert_int_equal(ensure(s, NULL), 0);
        assert_true(calls(s) > third);

        third = calls(s);
        setenv("K3S_VM_NIXPKGS", "nixpkgs", 1);
        assert_int_equal(ensure(s, NULL), 0);
        unsetenv("K3S_VM_NIXPKGS");
        assert_true(calls(s) > third);
}

static void a_guest_that_is_gone_is_built_again(void **state) {
        const struct scratch *s = *state;
        assert_int_equal(fake_nix(s->dir), 0);
        assert_int_equal(ensure(s, NULL), 0);
        _cleanup_free_ char *link = path_join(s->p->vm_dir, "result");
        size_t first = calls(s);
        assert_int_equal(fs_unlink(link, NULL), 0);
        assert_int_equal(ensure(s, NULL), 0);
        assert_true(calls(s) > first);
}

static void what_fails_is_tried_again(void **state) {
        const struct scratch *s = *state;
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_free_ char *bin = path_join(s->dir, "bin");
        assert_int_equal(fake_nix(s->dir), 0);
        assert_int_equal(fake_file(bin, "nix",
                                   "#!/bin/sh\necho 'nix (Nix) 2.31.0'\necho 'error: undefined' >&2\nexit 1\n", 0755),
                         0);
        assert_true(ensure(s, &err) < 0);
        assert_false(guest_nixos_made(s->p));
        assert_int_equal(fake_nix(s->dir), 0);
        assert_int_equal(ensure(s, NULL), 0);
}

static void the_flavor_says_whether_it_is_wanted(void **state) {
        const struct scratch *s = *state;
        const struct {
                const char *flavor;
                bool wanted;
        } cases[] = {{"nixos", true}, {"debian", false}, {"cloud", false}, {"/some/folder", false}};
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_config_ struct config *c = NULL;
                setenv("FLAVOR", cases[i].flavor, 1);
                assert_int_equal(config_load(s->p, &c, NULL), 0);
                assert_int_equal(guest_nixos_wanted(c), cases[i].wanted);
        }
        unsetenv("FLAVOR");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(nix_runs_when_something_changed_and_not_otherwise),
                        scratch_test(a_guest_that_is_gone_is_built_again),
                        scratch_test(what_fails_is_tried_again),
                        scratch_test(the_flavor_says_whether_it_is_wanted),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
