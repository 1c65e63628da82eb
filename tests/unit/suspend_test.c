/* SPDX-License-Identifier: MIT */
/* Which machine a saved state belongs to, and the record of it. Real states are in tests/vm/suspend.bats. */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/suspend.h>

static const char *const argv_then[] = {"qemu-system-x86_64",
                                        "-name",
                                        "guest=a",
                                        "-machine",
                                        "pc-q35-7.2",
                                        "-accel",
                                        "tcg",
                                        "-smp",
                                        "2",
                                        "-m",
                                        "2048",
                                        "-nodefaults",
                                        "-netdev",
                                        "user,id=net0,hostfwd=tcp:127.0.0.1:6443-10.0.2.15:6443",
                                        "-blockdev",
                                        "driver=qcow2,node-name=data,file.filename=/a/data.qcow2",
                                        "-device",
                                        "virtio-blk-pci,drive=data",
                                        "-pidfile",
                                        "/a/vm.pid",
                                        NULL};

/* The difference between that machine and the one with word @at replaced by @word; the caller frees. */
static char *difference(size_t at, const char *word, const char *version) {
        struct strv argv = {0}, then = {0}, now = {0};
        strv_extend(&argv, argv_then);
        suspend_machine(&argv, "7.2.1", &then);
        free(argv.items[at]);
        argv.items[at] = xstrdup(word);
        suspend_machine(&argv, version, &now);
        char *text = suspend_difference(&then, &now);
        strv_free(&argv);
        strv_free(&then);
        strv_free(&now);
        return text;
}

static void expect_difference(size_t at, const char *word, const char *version, const char *expected) {
        _cleanup_free_ char *text = difference(at, word, version);
        if (expected)
                assert_string_equal(text, expected);
        else
                assert_null(text);
}

static void name_ports_and_paths_do_not_matter(void **state) {
        (void)state;
        expect_difference(2, "guest=b", "7.2.1", NULL);
        expect_difference(13, "user,id=net0,hostfwd=tcp:127.0.0.1:7443-10.0.2.15:6443", "7.2.1", NULL);
        expect_difference(15, "driver=qcow2,node-name=data,file.filename=/b/data.qcow2", "7.2.1", NULL);
        expect_difference(19, "/b/vm.pid", "7.2.1", NULL);
}

static void what_the_hardware_is_made_of_matters_and_is_named(void **state) {
        (void)state;
        expect_difference(2, "guest=a", "8.0.0", "QEMU was 7.2.1 and is 8.0.0 now");
        expect_difference(4, "pc-q35-8.0", "7.2.1", "the machine type changed");
        expect_difference(6, "tcg,thread=single", "7.2.1", "the acceleration changed");
        expect_difference(8, "4", "7.2.1", "the number of CPUs was 2 and is 4 now");
        expect_difference(10, "4096", "7.2.1", "the memory size in MiB was 2048 and is 4096 now");
        expect_difference(17, "virtio-blk-pci,drive=data,addr=9", "7.2.1", "the VM's hardware changed");
}

static void a_read_only_file_is_known_by_its_size_and_time(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *image = path_join(s->dir, "a,b.img");
        _cleanup_free_ char *drive =
                        xasprintf("driver=raw,node-name=root,read-only=on,file.filename=%s/a,,b.img", s->dir);
        const char *const words[] = {"qemu", "-blockdev", drive, NULL};
        struct strv argv = {0}, before = {0}, same = {0}, after = {0};
        strv_extend(&argv, words);
        scratch_write(image, "one");
        suspend_machine(&argv, "7", &before);
        suspend_machine(&argv, "7", &same);
        scratch_write(image, "three");
        suspend_machine(&argv, "7", &after);
        assert_null(suspend_difference(&before, &same));
        _cleanup_free_ char *text = suspend_difference(&before, &after);
        assert_string_equal(text, "a read-only disk of the guest changed");
        assert_null(strstr(before.items[1], "missing"));
        strv_free(&argv);
        strv_free(&before);
        strv_free(&same);
        strv_free(&after);
}

static void record_is_read_used_up_and_a_damaged_one_is_no_record(void **state) {
        struct scratch *s = *state;
        assert_int_equal(project_create_dirs(s->p, NULL), 0);
        _cleanup_free_ char *path = path_join(s->p->vm_dir, "suspend.json");
        struct suspended record = {0};
        assert_int_equal(suspend_load(s->p, &record, NULL), -ENOENT);
        assert_int_equal(suspend_forget(s->p, NULL), 0);
        scratch_write(path,
                      "{\"schema\":1,\"tag\":\"k3s-vm-suspend-1\",\"time\":5,\"bytes\":7,\"machine\":[\"QEMU 7\"]}");
        assert_int_equal(suspend_load(s->p, &record, NULL), 0);
        assert_string_equal(record.tag, "k3s-vm-suspend-1");
        assert_int_equal(record.bytes, 7);
        assert_int_equal(record.time_ms, 5);
        assert_int_equal(record.machine.len, 1);
        suspended_clear(&record);
        static const char *const damaged[] = {"",
                                              "{",
                                              "[]",
                                              "{\"schema\":2,\"tag\":\"k3s-vm-suspend-1\",\"machine\":[\"QEMU 7\"]}",
                                              "{\"schema\":1,\"tag\":\"mine\",\"machine\":[\"QEMU 7\"]}",
                                              "{\"schema\":1,\"tag\":\"k3s-vm-suspend-1\",\"machine\":[]}"};
        for (size_t i = 0; i < ELEMENTSOF(damaged); i++) {
                scratch_write(path, damaged[i]);
                assert_int_equal(suspend_load(s->p, &record, NULL), -EUCLEAN);
                assert_true(suspend_exists(s->p));
        }
        assert_int_equal(suspend_forget(s->p, NULL), 0);
        assert_false(suspend_exists(s->p));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(name_ports_and_paths_do_not_matter),
                        cmocka_unit_test(what_the_hardware_is_made_of_matters_and_is_named),
                        cmocka_unit_test_setup_teardown(a_read_only_file_is_known_by_its_size_and_time, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(record_is_read_used_up_and_a_damaged_one_is_no_record,
                                                        scratch_setup, scratch_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
