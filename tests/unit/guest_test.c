/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/guest.h>

#define DEBIAN \
        "{\"schema\":1,\"flavor\":\"debian\",\"system\":\"x86_64-linux\",\"version\":\"Debian 12\"," \
        "\"boot\":{\"kernel\":\"vmlinuz\",\"initrd\":\"initrd.img\",\"cmdline\":\"console=ttyS0\"}," \
        "\"root\":{\"image\":\"root.img\",\"serial\":\"k3s-vm-root\"}," \
        "\"data\":{\"serial\":\"k3s-vm-data\",\"mount\":\"/var\"}," \
        "\"provision\":\"credentials\",\"payload\":{\"attach\":\"k3s-vm-payload\"},\"agent\":true}"

static int parse(const char *text, struct guest **ret, struct error *err) {
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(json_parse(text, strlen(text), &j, NULL), 0);
        return guest_parse("/g", j, ret, err);
}

static void reads_a_guest_with_an_attached_payload(void **state) {
        (void)state;
        _cleanup_guest_ struct guest *g = NULL;
        assert_int_equal(parse(DEBIAN, &g, NULL), 0);
        assert_string_equal(g->dir, "/g");
        assert_string_equal(g->flavor, "debian");
        assert_string_equal(g->kernel, "/g/vmlinuz");
        assert_string_equal(g->initrd, "/g/initrd.img");
        assert_string_equal(g->cmdline, "console=ttyS0");
        assert_string_equal(g->root_image, "/g/root.img");
        assert_string_equal(g->data_mount, "/var");
        assert_string_equal(g->payload_serial, "k3s-vm-payload");
        assert_null(g->payload_name);
        assert_null(g->boot_disk);
        assert_true(g->agent);
}

static void reads_a_guest_that_boots_itself_with_its_payload_baked_in(void **state) {
        (void)state;
        _cleanup_guest_ struct guest *g = NULL;
        assert_int_equal(parse("{\"schema\":1,\"flavor\":\"cloud\",\"system\":\"x86_64-linux\",\"version\":\"x\","
                               "\"boot\":{\"disk\":\"a/disk.img\"},\"provision\":\"nocloud\","
                               "\"payload\":{\"baked\":{\"name\":\"k3s\",\"version\":\"v1.30.1+k3s1\"}}}",
                               &g, NULL),
                         0);
        assert_string_equal(g->boot_disk, "/g/a/disk.img");
        assert_null(g->kernel);
        assert_null(g->data_serial);
        assert_false(g->agent);
        assert_string_equal(g->payload_version, "v1.30.1+k3s1");
}

static void reads_a_guest_whose_vms_write_to_an_overlay(void **state _unused_) {
#define CLOUD(boot, more) \
        "{\"schema\":1,\"flavor\":\"cloud\",\"system\":\"x86_64-linux\",\"version\":\"x\"," \
        "\"boot\":{\"disk\":\"disk.img\"," boot "},\"provision\":\"nocloud\"" more "}"
        _cleanup_guest_ struct guest *g = NULL;
        assert_int_equal(parse(CLOUD("\"overlay\":\"qcow2\",\"uefi\":true", ""), &g, NULL), 0);
        assert_string_equal(g->boot_overlay, "qcow2");
        assert_true(g->boot_uefi);
        static const char *const wrong[] = {
                        CLOUD("\"overlay\":\"vmdk\"", ""),
                        CLOUD("\"overlay\":7", ""),
                        CLOUD("\"overlay\":\"raw\"", ",\"data\":{\"serial\":\"d\",\"mount\":\"/var\"}"),
        };
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                _cleanup_guest_ struct guest *none = NULL;
                assert_int_equal(parse(wrong[i], &none, NULL), -EINVAL);
        }
}

/* The Debian guest with @from replaced by @to must be refused with a message that holds @word. */
static void refuse(const char *from, const char *to, const char *word) {
        const char *at = strstr(DEBIAN, from);
        assert_non_null(at);
        _cleanup_free_ char *before = xstrndup(DEBIAN, (size_t)(at - DEBIAN));
        _cleanup_free_ char *text = xasprintf("%s%s%s", before, to, at + strlen(from));
        _cleanup_guest_ struct guest *g = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (parse(text, &g, &err) != -EINVAL || !strstr(err.message, word))
                fail_msg("%s: %s", text, err.message ? err.message : "was accepted");
        assert_null(g);
}

static void refuses_what_it_cannot_run(void **state) {
        (void)state;
        refuse("\"schema\":1", "\"schema\":2", "newer");
        refuse("\"schema\":1", "\"schema\":\"1\"", "schema");
        refuse("x86_64-linux", "aarch64-linux", "x86_64-linux");
        refuse("\"flavor\":\"debian\"", "\"flavor\":7", "flavor");
        refuse("\"version\":\"Debian 12\",", "", "version is missing");
        refuse("\"credentials\"", "\"floppy\"", "provision");
        refuse("{\"attach\":\"k3s-vm-payload\"}", "{}", "payload");
        refuse("{\"attach\":\"k3s-vm-payload\"}", "{\"attach\":\"a\",\"baked\":{}}", "payload");
}

static void refuses_files_outside_its_folder(void **state) {
        (void)state;
        refuse("\"vmlinuz\"", "\"../vmlinuz\"", "leave");
        refuse("\"vmlinuz\"", "\"a/../../vmlinuz\"", "leave");
        refuse("\"vmlinuz\"", "\"/boot/vmlinuz\"", "relative");
        refuse("\"vmlinuz\"", "\"\"", "boot.kernel");
        refuse("\"root.img\"", "\"/dev/sda\"", "relative");
        refuse("\"root.img\"", "\".\"", "leave");
}

static void refuses_serials_that_qemu_would_misread(void **state) {
        (void)state;
        refuse("\"k3s-vm-root\"", "\"a,readonly=off\"", "root.serial");
        refuse("\"k3s-vm-root\"", "\"twenty-one-characters\"", "too long");
        refuse("\"k3s-vm-root\"", "\"k3s-vm-data\"", "same serial");
        refuse("\"k3s-vm-data\",", "\"k3s-vm-payload\",", "same serial");
}

static void refuses_a_command_line_of_several_lines_or_too_long(void **state) {
        (void)state;
        refuse("console=ttyS0", "a\\nb", "control");
        _cleanup_free_ char *longest = xcalloc(1, 1802);
        memset(longest, 'x', 1801);
        refuse("console=ttyS0", longest, "too long");
        refuse("\"/var\"", "\"var\"", "absolute");
}

static void write_file(const char *dir, const char *name, const char *text) {
        _cleanup_free_ char *path = path_join(dir, name);
        assert_int_equal(fs_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

static void loads_only_when_every_file_is_there(void **state) {
        (void)state;
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-guest-test", &dir, NULL), 0);
        _cleanup_guest_ struct guest *g = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(guest_load(dir, &g, &err), -ENOENT);
        write_file(dir, "guest.json", DEBIAN);
        write_file(dir, "vmlinuz", "k");
        write_file(dir, "initrd.img", "i");
        assert_int_equal(guest_load(dir, &g, &err), -ENOENT);
        assert_non_null(strstr(err.message, "root.img"));
        write_file(dir, "root.img", "");
        assert_int_equal(guest_load(dir, &g, &err), -EINVAL);
        assert_non_null(strstr(err.message, "empty"));
        write_file(dir, "root.img", "r");
        assert_int_equal(guest_load(dir, &g, &err), 0);
        assert_string_equal(g->dir, dir);
        write_file(dir, "guest.json", "{\"schema\":1");
        struct guest *other = NULL;
        assert_true(guest_load(dir, &other, &err) < 0);
        assert_null(other);
        fs_remove_tree(dir, NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(reads_a_guest_with_an_attached_payload),
                        cmocka_unit_test(reads_a_guest_that_boots_itself_with_its_payload_baked_in),
                        cmocka_unit_test(reads_a_guest_whose_vms_write_to_an_overlay),
                        cmocka_unit_test(refuses_what_it_cannot_run),
                        cmocka_unit_test(refuses_files_outside_its_folder),
                        cmocka_unit_test(refuses_serials_that_qemu_would_misread),
                        cmocka_unit_test(refuses_a_command_line_of_several_lines_or_too_long),
                        cmocka_unit_test(loads_only_when_every_file_is_there),
        };
        return cmocka_run_group_tests_name("guest", tests, NULL, NULL);
}
