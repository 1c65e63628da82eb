/* SPDX-License-Identifier: MIT */
/* QEMU's argument vector against golden files: one argument a line. K3S_VM_UPDATE_GOLDEN=1 writes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/qemu.h>

#include "folder.h"
#include "golden.h"

static struct forward forwards[] = {{8080, 80}, {21890, 30090}};

/* A whole specification whose parts a test changes. */
struct fixture {
        struct project project;
        struct config config;
        struct guest guest;
        struct qemu_spec spec;
};
static const struct qemu_credential credentials[] = {
                {"ssh.authorized_keys.root", "/p/.k3s-vm/vm/credentials/ssh.authorized_keys.root"},
                {"ssh.host_key", "/p/.k3s-vm/vm/credentials/ssh.host_key"},
};

static void fixture_init(struct fixture *f) {
        *f = (struct fixture){
                        .project = {.root = "/p",
                                    .pid_path = "/p/.k3s-vm/vm.pid",
                                    .serial_path = "/p/.k3s-vm/vm/serial.log",
                                    .data_disk = "/p/.k3s-vm/vm/data.qcow2"},
                        .config = {.vm_name = "k3s-vm-demo",
                                   .dns = "",
                                   .cpus = 2,
                                   .memory_mib = 4096,
                                   .api_port = 6443,
                                   .ssh_port = 2666,
                                   .web_port = 30080,
                                   .web_node_port = 30080},
                        .guest = {.dir = "/g",
                                  .kernel = "/g/vmlinuz",
                                  .initrd = "/g/initrd.img",
                                  .cmdline = "console=ttyS0 quiet",
                                  .root_image = "/g/root.img",
                                  .root_serial = "k3s-vm-root",
                                  .data_serial = "k3s-vm-data",
                                  .data_mount = "/var",
                                  .payload_serial = "k3s-vm-payload"},
        };
        f->spec = (struct qemu_spec){.project = &f->project,
                                     .config = &f->config,
                                     .guest = &f->guest,
                                     .program = "qemu-system-x86_64",
                                     .machine = "pc-q35-7.2",
                                     .uuid = "6c0a2e31-97d4-4c5e-8f11-2b3c4d5e6f70",
                                     .runtime_dir = "/run/user/1000/k3s-vm/6c0a2e31-97d",
                                     .payload_path = "/c/payload.img",
                                     .machine_id = "6c0a2e3197d44c5e8f112b3c4d5e6f70",
                                     .credentials = credentials,
                                     .n_credentials = ELEMENTSOF(credentials)};
}

static void compare(const struct fixture *f, const char *name) {
        _cleanup_strv_ struct strv argv = {0};
        qemu_argv(&f->spec, &argv);
        _cleanup_free_ char *joined = strv_join(&argv, "\n"), *text = xasprintf("%s\n", joined);
        _cleanup_free_ char *file = xasprintf("qemu-%s.argv", name);
        golden_compare(text, file);
}

static void argv_of_a_direct_kernel_boot_under_tcg(void **state) {
        (void)state;
        struct fixture f;
        fixture_init(&f);
        compare(&f, "direct-tcg");
}

static void argv_of_a_disk_that_boots_itself_under_kvm(void **state) {
        (void)state;
        struct fixture f;
        fixture_init(&f);
        f.guest = (struct guest){.boot_disk = "/g/disk.img"};
        f.spec.kvm = true;
        f.spec.payload_path = NULL;
        f.spec.n_credentials = 0;
        f.config.forwards = forwards;
        f.config.n_forwards = ELEMENTSOF(forwards);
        compare(&f, "disk-kvm");
}

static void argv_of_an_overlay_on_a_cloud_image(void **state _unused_) {
        struct fixture f;
        fixture_init(&f);
        f.guest = (struct guest){
                        .boot_disk = "/g/disk.img", .boot_overlay = "qcow2", .payload_serial = "k3s-vm-payload"};
        f.spec.seed_path = "/p/.k3s-vm/vm/seed.iso";
        f.spec.firmware = "/usr/share/ovmf/OVMF.fd";
        f.spec.n_credentials = 0;
        compare(&f, "overlay");
}

static void argv_doubles_commas_in_paths_and_keeps_every_other_byte(void **state) {
        (void)state;
        struct fixture f;
        fixture_init(&f);
        f.project.pid_path = "/a,b \"c\" 'd'/\xc3\xa9/.k3s-vm/vm.pid";
        f.project.serial_path = "/a,b \"c\" 'd'/\xc3\xa9/.k3s-vm/vm/serial.log";
        f.project.data_disk = "/a,b \"c\" 'd'/\xc3\xa9/.k3s-vm/vm/data.qcow2";
        f.guest.kernel = "/g,h/vmlinuz";
        f.guest.root_image = "/g,,h/root=1.img";
        const struct qemu_credential odd = {"k3s.config", "/a,b/k3s.config"};
        f.spec.credentials = &odd;
        f.spec.n_credentials = 1;
        compare(&f, "commas");
}

static void argv_tells_the_guest_its_name_server(void **state _unused_) {
        struct fixture f;
        fixture_init(&f);
        f.config.dns = (char *)"192.0.2.53";
        _cleanup_strv_ struct strv argv = {0};
        qemu_argv(&f.spec, &argv);
        _cleanup_free_ char *all = strv_join(&argv, " ");
        assert_non_null(strstr(all, " k3s-vm.dns=192.0.2.53 "));
}

static void argv_leaves_the_payload_out_when_there_is_none(void **state) {
        (void)state;
        struct fixture f;
        fixture_init(&f);
        f.spec.payload_path = NULL;
        _cleanup_strv_ struct strv without = {0}, with = {0};
        qemu_argv(&f.spec, &without);
        f.spec.payload_path = "/c/payload.img";
        qemu_argv(&f.spec, &with);
        assert_int_equal(with.len, without.len + 4);
        /* What is left keeps its place on the bus. */
        size_t found = 0;
        for (size_t i = 0; i < without.len; i++)
                found += strv_contains(&with, without.items[i]);
        assert_int_equal(found, without.len);
}

static void argv_never_binds_anything_but_loopback(void **state) {
        (void)state;
        struct fixture f;
        fixture_init(&f);
        f.config.forwards = forwards;
        f.config.n_forwards = ELEMENTSOF(forwards);
        _cleanup_strv_ struct strv argv = {0};
        qemu_argv(&f.spec, &argv);
        _cleanup_free_ char *all = strv_join(&argv, " ");
        size_t n = 0;
        for (const char *p = all; (p = strstr(p, "hostfwd=")); p++, n++)
                assert_true(str_starts(p, "hostfwd=tcp:127.0.0.1:"));
        assert_int_equal(n, 5);
        assert_null(strstr(all, "PRIVATE KEY"));
}

static void newest_machine_is_by_number_not_by_text(void **state) {
        (void)state;
        _cleanup_free_ char *machine = qemu_newest_q35("Supported machines are:\n"
                                                       "q35                  Standard PC (alias of pc-q35-10.0)\n"
                                                       "pc-q35-9.2           Standard PC (Q35 + ICH9, 2009)\n"
                                                       "pc-q35-10.0          Standard PC (Q35 + ICH9, 2009)\n"
                                                       "pc-q35-4.0.1         Standard PC (Q35 + ICH9, 2009)\n"
                                                       "pc-q35-rhel9.6.0     RHEL\n"
                                                       "pc-i440fx-11.0       Standard PC\n");
        assert_string_equal(machine, "pc-q35-10.0");
        assert_null(qemu_newest_q35("none   empty machine\n"));
        assert_null(qemu_newest_q35(""));
}

/* A program that counts how often it was run and prints like QEMU. */
static char *fake_qemu(const char *dir, const char *machine) {
        _cleanup_free_ char *text = xasprintf("#!/bin/sh\necho x >>'%s/runs'\necho '%s   Standard PC'\n", dir, machine);
        char *path = path_join(dir, "qemu");
        assert_int_equal(fs_write_atomic(path, text, strlen(text), 0755, NULL), 0);
        return path;
}

static int64_t runs(const char *dir) {
        _cleanup_free_ char *path = path_join(dir, "runs");
        return fs_size(path) / 2;
}

static void machine_is_asked_once_until_qemu_changes(void **state) {
        const char *dir = *state;
        _cleanup_free_ char *cache = path_join(dir, "cache"), *a = NULL, *b = NULL, *c = NULL;
        _cleanup_free_ char *program = fake_qemu(dir, "pc-q35-8.1");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(qemu_machine(program, cache, &a, &err), 0);
        assert_int_equal(qemu_machine(program, cache, &b, &err), 0);
        assert_string_equal(a, "pc-q35-8.1");
        assert_string_equal(b, "pc-q35-8.1");
        assert_int_equal(runs(dir), 1);
        free(TAKE_PTR(program));
        program = fake_qemu(dir, "pc-q35-10.2");
        assert_int_equal(qemu_machine(program, cache, &c, &err), 0);
        assert_string_equal(c, "pc-q35-10.2");
        assert_int_equal(runs(dir), 2);
}

static void machine_cache_that_is_junk_is_ignored(void **state) {
        const char *dir = *state;
        _cleanup_free_ char *program = fake_qemu(dir, "pc-q35-8.1"), *machine = NULL;
        _cleanup_free_ char *cache = path_join(dir, "qemu-machine.json");
        assert_int_equal(fs_write_atomic(cache, "\0\1{", 3, 0600, NULL), 0);
        assert_int_equal(qemu_machine(program, dir, &machine, NULL), 0);
        assert_string_equal(machine, "pc-q35-8.1");
}

static void machine_of_a_missing_or_broken_qemu_is_a_host_error(void **state) {
        const char *dir = *state;
        _cleanup_free_ char *machine = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(qemu_machine("/no/such/qemu", dir, &machine, &err), -ENOENT);
        assert_int_equal(err.code, ERR_HOST);
        assert_true(qemu_machine("/bin/false", dir, &machine, &err) < 0);
        assert_int_equal(err.code, ERR_HOST);
        assert_null(machine);
}

static void skip_without(const char *program) {
        _cleanup_free_ char *path = fs_find_program(program);
        if (path)
                return;
        if (getenv("K3S_VM_TEST_STRICT"))
                fail_msg("%s is not installed", program);
        print_message("skipped: %s is not installed\n", program);
        skip();
}

static uint64_t virtual_gib(const char *path) {
        /* qcow2's header: the size is a big-endian number at offset 24. */
        _cleanup_fclose_ FILE *file = fopen(path, "re");
        unsigned char header[32];
        assert_non_null(file);
        assert_int_equal(fread(header, 1, sizeof(header), file), sizeof(header));
        uint64_t size = 0;
        for (int i = 24; i < 32; i++)
                size = size << 8 | header[i];
        return size >> 30;
}

static void disk_is_created_once_and_grows_but_never_shrinks(void **state) {
        skip_without("qemu-img");
        _cleanup_free_ char *dir = path_join(*state, "a,b \"c\":d\ne"), *disk = path_join(dir, "data.qcow2");
        assert_int_equal(fs_mkdir_p(dir, 0700, NULL), 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(qemu_create_disk(disk, 10, &err), 0);
        assert_int_equal(virtual_gib(disk), 10);
        struct stat st;
        assert_int_equal(stat(disk, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(qemu_create_disk(disk, 20, &err), -EEXIST);
        assert_int_equal(virtual_gib(disk), 10);
        assert_int_equal(qemu_grow_disk(disk, 12, &err), 0);
        assert_int_equal(virtual_gib(disk), 12);
        assert_true(qemu_grow_disk(disk, 10, &err) < 0);
        assert_non_null(err.detail);
        assert_int_equal(virtual_gib(disk), 12);
}

static void half_a_disk_of_a_killed_run_is_no_obstacle(void **state) {
        const char *dir = *state;
        skip_without("qemu-img");
        _cleanup_free_ char *disk = path_join(dir, "data.qcow2"), *half = path_join(dir, "data.qcow2.new");
        assert_int_equal(fs_write_atomic(half, "junk", 4, 0600, NULL), 0);
        assert_int_equal(qemu_create_disk(disk, 10, NULL), 0);
        assert_false(fs_exists(half));
        _cleanup_free_ char *nowhere = path_join(dir, "none/data.qcow2");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(qemu_create_disk(nowhere, 10, &err) < 0);
        assert_non_null(err.message);
}

static void forwards_are_brought_up_to_date_behind_the_fixed_ones(void **state) {
        (void)state;
        struct forward more[] = {{8080, 80}, {9090, 90}};
        struct config c = {.forwards = more, .n_forwards = 2, .web_node_port = 31234};
#define WEB(node_port) "hostfwd=tcp:127.0.0.1:3-10.0.2.15:" node_port
#define BEFORE "user,id=net0,hostfwd=a,hostfwd=b," WEB("30080")
#define FIXED "user,id=net0,hostfwd=a,hostfwd=b," WEB("31234")
        static const struct {
                const char *before;
                size_t n;
                const char *after;
        } cases[] = {
                        {BEFORE, 0, FIXED},
                        {BEFORE, 1, FIXED ",hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80"},
                        {BEFORE ",hostfwd=old,hostfwd=older", 0, FIXED},
                        {BEFORE ",hostfwd=old", 2,
                         FIXED ",hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80,hostfwd=tcp:127.0.0.1:9090-10.0.2.15:90"},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_ struct strv argv = {0};
                const char *const words[] = {"qemu", "-S", "-netdev", cases[i].before, "-device", "x", NULL};
                strv_extend(&argv, words);
                c.n_forwards = cases[i].n;
                qemu_update_forwards(&argv, &c);
                assert_string_equal(argv.items[3], cases[i].after);
                assert_int_equal(argv.len, 6);
        }
        _cleanup_strv_ struct strv without = {0};
        strv_push(&without, "qemu");
        qemu_update_forwards(&without, &c);
        assert_int_equal(without.len, 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(forwards_are_brought_up_to_date_behind_the_fixed_ones),
                        cmocka_unit_test(argv_of_a_direct_kernel_boot_under_tcg),
                        cmocka_unit_test(argv_of_a_disk_that_boots_itself_under_kvm),
                        cmocka_unit_test(argv_of_an_overlay_on_a_cloud_image),
                        cmocka_unit_test(argv_doubles_commas_in_paths_and_keeps_every_other_byte),
                        cmocka_unit_test(argv_tells_the_guest_its_name_server),
                        cmocka_unit_test(argv_leaves_the_payload_out_when_there_is_none),
                        cmocka_unit_test(argv_never_binds_anything_but_loopback),
                        cmocka_unit_test(newest_machine_is_by_number_not_by_text),
                        folder_test(machine_is_asked_once_until_qemu_changes),
                        folder_test(machine_cache_that_is_junk_is_ignored),
                        folder_test(machine_of_a_missing_or_broken_qemu_is_a_host_error),
                        folder_test(disk_is_created_once_and_grows_but_never_shrinks),
                        folder_test(half_a_disk_of_a_killed_run_is_no_obstacle),
        };
        return cmocka_run_group_tests_name("qemu", tests, NULL, NULL);
}
