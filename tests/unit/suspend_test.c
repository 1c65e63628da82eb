/* SPDX-License-Identifier: MIT */
/* Which machine a saved state belongs to, and the record of it. Real states are in tests/vm/suspend.bats. */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/proc.h>

#include "../../src/domain/suspend_internal.h"

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
        scratch_write(path, "{\"schema\":1,\"kind\":\"files\",\"tag\":\"k3s-vm-suspend-1\",\"time\":5,\"bytes\":7,"
                            "\"boot_id\":\"b\","
                            "\"synced\":1,\"machine\":[\"QEMU 7\"],\"files\":[\"data.qcow2: missing\"]}");
        assert_int_equal(suspend_load(s->p, &record, NULL), 0);
        assert_string_equal(record.tag, "k3s-vm-suspend-1");
        assert_int_equal(record.bytes, 7);
        assert_int_equal(record.time_ms, 5);
        assert_int_equal(record.machine.len, 1);
        assert_int_equal(record.kind, SUSPENDED_IN_FILES);
        assert_int_equal(record.files.len, 1);
        assert_true(record.synced);
        suspended_clear(&record);
        static const char *const damaged[] = {
                        "",
                        "{",
                        "[]",
                        "{\"schema\":2,\"kind\":\"disk\",\"tag\":\"k3s-vm-suspend-1\",\"machine\":[\"QEMU 7\"]}",
                        "{\"schema\":1,\"kind\":\"disk\",\"tag\":\"mine\",\"machine\":[\"QEMU 7\"]}",
                        "{\"schema\":1,\"kind\":\"disk\",\"tag\":\"k3s-vm-suspend-1\",\"machine\":[]}",
                        "{\"schema\":1,\"kind\":\"air\",\"tag\":\"k3s-vm-suspend-1\",\"machine\":[\"QEMU 7\"]}",
                        "{\"schema\":1,\"kind\":\"files\",\"tag\":\"k3s-vm-suspend-1\",\"machine\":[\"QEMU 7\"]}"};
        for (size_t i = 0; i < ELEMENTSOF(damaged); i++) {
                scratch_write(path, damaged[i]);
                assert_int_equal(suspend_load(s->p, &record, NULL), -EUCLEAN);
                assert_true(suspend_exists(s->p));
        }
        assert_int_equal(suspend_forget(s->p, NULL), 0);
        assert_false(suspend_exists(s->p));
}

static void arguments_of_a_resumed_qemu_can_be_taken_off_again(void **state) {
        struct scratch *s = *state;
        _cleanup_strv_ struct strv argv = {0}, resumed = {0};
        strv_extend(&argv, argv_then);
        suspend_files_arguments(s->p, &argv, &resumed);
        assert_true(resumed.len > argv.len);
        assert_true(strv_contains(&resumed, "-incoming"));
        for (int i = 0; i < 2; i++) {
                suspend_files_strip(&resumed);
                assert_int_equal(resumed.len, argv.len);
                assert_null(resumed.items[resumed.len]);
        }
}

/* A state in files: what identifies them, and whether they were written out before this machine's last boot. */
static void write_state(struct scratch *s, const char *boot_id, const char *synced) {
        _cleanup_free_ char *path = path_join(s->p->vm_dir, "suspend.json");
        _cleanup_strv_ struct strv files = {0};
        suspend_files_identify(s->p, &files);
        _cleanup_strv_ struct strv argv = {0}, machine = {0};
        strv_extend(&argv, argv_then);
        suspend_machine(&argv, "7.2.1", &machine);
        _cleanup_free_ char *lines = strv_join(&files, "\",\""), *hardware = strv_join(&machine, "\",\"");
        _cleanup_free_ char *text = xasprintf("{\"schema\": 1, \"kind\": \"files\", \"tag\": \"k3s-vm-suspend-7\", "
                                              "\"boot_id\": \"%s\", \"synced\": %s, \"machine\": [\"%s\"], "
                                              "\"files\": [\"%s\"]}",
                                              boot_id, synced, hardware, lines);
        scratch_write(path, text);
}

static int check(struct scratch *s, const char *word) {
        _cleanup_suspended_ struct suspended record = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        struct strv argv = {0};
        strv_extend(&argv, argv_then);
        int r = suspend_check(s->p, &argv, &record, &err);
        strv_free(&argv);
        if (r < 0 && !strstr(err.message, word))
                fail_msg("%s", err.message);
        return r;
}

static void a_state_in_files_is_good_while_this_machine_runs_or_once_it_is_written_out(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *boot_id = proc_boot_id(), *memory = path_join(s->p->vm_dir, "suspend.memory"),
                            *devices = path_join(s->p->vm_dir, "suspend.devices"),
                            *path = path_join(s->p->vm_dir, "suspend.json");
        scratch_write(s->p->data_disk, "disk");
        scratch_write(memory, "memory");
        scratch_write(devices, "devices");
        write_state(s, boot_id, "0");
        assert_int_equal(check(s, ""), 0);
        write_state(s, "another boot", "0");
        assert_int_equal(check(s, "went down"), -ESTALE);
        const struct suspended other = {.tag = "k3s-vm-suspend-8"}, ours = {.tag = "k3s-vm-suspend-7"};
        assert_int_equal(suspend_sync(s->p, &other, NULL), 0);
        assert_int_equal(check(s, "went down"), -ESTALE);
        assert_int_equal(suspend_sync(s->p, &ours, NULL), 0);
        assert_int_equal(check(s, ""), 0);
        /* One that was used up meanwhile does not come back. */
        assert_int_equal(suspend_forget(s->p, NULL), 0);
        assert_false(fs_exists(memory));
        scratch_write(memory, "memory");
        scratch_write(devices, "devices");
        assert_int_equal(suspend_sync(s->p, &ours, NULL), 0);
        assert_false(fs_exists(path));
        suspend_tidy(s->p);
        assert_false(fs_exists(memory) || fs_exists(devices));
}

static void a_state_whose_disk_or_files_changed_is_refused(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *boot_id = proc_boot_id(), *memory = path_join(s->p->vm_dir, "suspend.memory"),
                            *devices = path_join(s->p->vm_dir, "suspend.devices");
        const char *const paths[] = {s->p->data_disk, memory, devices};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                scratch_write(paths[i], "as it was");
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                write_state(s, boot_id, "1");
                assert_int_equal(check(s, ""), 0);
                scratch_write(paths[i], "another");
                assert_int_equal(check(s, "were changed"), -ESTALE);
                assert_int_equal(fs_unlink(paths[i], NULL), 0);
                assert_int_equal(check(s, "were changed"), -ESTALE);
                scratch_write(paths[i], "as it was");
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(name_ports_and_paths_do_not_matter),
                        cmocka_unit_test(what_the_hardware_is_made_of_matters_and_is_named),
                        cmocka_unit_test_setup_teardown(a_read_only_file_is_known_by_its_size_and_time, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(record_is_read_used_up_and_a_damaged_one_is_no_record,
                                                        scratch_setup, scratch_teardown),
                        cmocka_unit_test_setup_teardown(
                                        a_state_in_files_is_good_while_this_machine_runs_or_once_it_is_written_out,
                                        scratch_setup, scratch_teardown),
                        cmocka_unit_test_setup_teardown(arguments_of_a_resumed_qemu_can_be_taken_off_again,
                                                        scratch_setup, scratch_teardown),
                        cmocka_unit_test_setup_teardown(a_state_whose_disk_or_files_changed_is_refused, scratch_setup,
                                                        scratch_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
