/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <sys/wait.h>

#include <k3s-vm/host.h>
#include <k3s-vm/proc.h>

static void a_missing_device_says_how_to_get_one(void **state) {
        struct scratch *s = *state;
        _cleanup_accel_ struct accel a = {0};
        _cleanup_free_ char *missing = path_join(s->dir, "kvm");
        accel_probe(missing, NULL, &a);
        assert_false(a.kvm);
        assert_non_null(strstr(a.problem, "is missing"));
        assert_non_null(a.fix);
        assert_non_null(strstr(a.reason, a.fix));
        assert_null(strchr(a.reason, '\n'));
}

static void a_device_that_is_no_kvm_is_not_used(void **state _unused_) {
        _cleanup_accel_ struct accel a = {0};
        accel_probe("/dev/null", NULL, &a);
        assert_false(a.kvm);
        assert_non_null(a.reason);
}

static void missing_permission_names_the_group(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *device = path_join(s->dir, "kvm");
        scratch_write(device, "");
        assert_int_equal(chmod(device, 0), 0);
        assert_int_equal(chmod(s->dir, 0755), 0);
        pid_t pid = fork(); /* root may open anything */
        if (pid == 0) {
                struct accel a = {0};
                if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
                        _exit(2);
                accel_probe(device, NULL, &a);
                bool ok = !a.kvm && strstr(a.problem, "may not open") &&
                          (strstr(a.fix, "sudo usermod -aG ") || strstr(a.fix, "extraGroups"));
                accel_clear(&a);
                _exit(ok ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void the_real_device_gives_one_answer_soon_and_leaves_no_child(void **state) {
        struct scratch *s = *state;
        _cleanup_accel_ struct accel a = {0}, b = {0};
        uint64_t begun = now_ms();
        assert_int_equal(accel_choose("auto", s->p->runtime_base, &a, NULL), 0);
        assert_true(now_ms() - begun < 5000);
        assert_int_equal(a.kvm, a.reason == NULL);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        assert_int_equal(accel_choose("auto", s->p->runtime_base, &b, NULL), 0);
        assert_int_equal(a.kvm, b.kvm);
}

static void write_answer(struct scratch *s, const char *boot_id, const char *stamp, int result) {
        _cleanup_free_ char *path = path_join(s->p->runtime_base, "accel.json");
        _cleanup_free_ char *text =
                        xasprintf("{\"boot_id\":\"%s\",\"device\":\"%s\",\"result\":%d}", boot_id, stamp, result);
        assert_int_equal(fs_mkdir_p(s->p->runtime_base, 0700, NULL), 0);
        scratch_write(path, text);
}

static bool kvm_of_null_device(struct scratch *s) {
        _cleanup_accel_ struct accel a = {0};
        accel_probe("/dev/null", s->p->runtime_base, &a);
        return a.kvm;
}

static void the_answer_is_kept_for_this_boot_and_this_device(void **state) {
        struct scratch *s = *state;
#if defined(__x86_64__)
        /* /dev/null is no KVM, so only a kept answer can make it one. */
        struct stat st;
        assert_int_equal(stat("/dev/null", &st), 0);
        _cleanup_free_ char *stamp = xasprintf("%lld.%09ld", (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
        _cleanup_free_ char *boot_id = proc_boot_id();
        write_answer(s, boot_id, stamp, 0);
        assert_true(kvm_of_null_device(s));
        write_answer(s, "another boot", stamp, 0);
        assert_false(kvm_of_null_device(s));
        write_answer(s, boot_id, "another device", 0);
        assert_false(kvm_of_null_device(s));
        write_answer(s, boot_id, stamp, 99);
        assert_false(kvm_of_null_device(s));
#else
        assert_false(kvm_of_null_device(s));
#endif
}

static void a_damaged_answer_is_not_believed(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->p->runtime_base, "accel.json");
        assert_int_equal(fs_mkdir_p(s->p->runtime_base, 0700, NULL), 0);
        scratch_write(path, "{\"boot_id\":");
        assert_false(kvm_of_null_device(s));
}

static void tcg_is_taken_when_it_is_asked_for(void **state _unused_) {
        _cleanup_accel_ struct accel a = {0};
        assert_int_equal(accel_choose("tcg", NULL, &a, NULL), 0);
        assert_false(a.kvm);
        assert_string_equal(a.reason, "ACCEL is tcg");
}

static void kvm_that_does_not_work_is_an_error_when_it_is_asked_for(void **state _unused_) {
        _cleanup_accel_ struct accel works = {0}, a = {0};
        accel_probe("/dev/kvm", NULL, &works);
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = accel_choose("kvm", NULL, &a, &err);
        if (works.kvm)
                assert_int_equal(r, 0);
        else {
                assert_true(r < 0);
                assert_int_equal(err.code, ERR_HOST);
                assert_non_null(strstr(err.message, works.problem));
                assert_non_null(strstr(err.hint, "ACCEL=auto"));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(a_missing_device_says_how_to_get_one),
                        scratch_test(a_device_that_is_no_kvm_is_not_used),
                        scratch_test(missing_permission_names_the_group),
                        scratch_test(the_real_device_gives_one_answer_soon_and_leaves_no_child),
                        scratch_test(the_answer_is_kept_for_this_boot_and_this_device),
                        scratch_test(a_damaged_answer_is_not_believed),
                        scratch_test(tcg_is_taken_when_it_is_asked_for),
                        scratch_test(kvm_that_does_not_work_is_an_error_when_it_is_asked_for),
        };
        return cmocka_run_group_tests_name("accel", tests, NULL, NULL);
}
