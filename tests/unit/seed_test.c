/* SPDX-License-Identifier: MIT */
/* The seed for cloud-init: its texts against golden files, and the volume as others read it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/archive_stream.h>
#include <k3s-vm/credentials.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/remote.h>
#include <k3s-vm/seed.h>

#include "golden.h"
#include "must_skip.h"
#include "scratch.h"
#include "tool.h"

static const struct seed_input input = {
                .uuid = "6c0a2e31-97d4-4c5e-8f11-2b3c4d5e6f70",
                .name = "k3s-vm-demo",
                .dns = "",
                .key = "ssh-ed25519 AAAAC3Nza k3s-vm",
                .host_key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----\n",
                .host_key_pub = "ssh-ed25519 AAAAC3Nzb k3s-vm-demo",
                .k3s_config = "disable: \"traefik\"\n",
                .files = "src/guest/cloud",
};

static void texts_are_the_golden_ones(void **state _unused_) {
        _cleanup_seed_ struct seed s = {0};
        assert_int_equal(seed_compose(&input, &s, NULL), 0);
        golden_compare(s.user_data, "seed-user-data");
        golden_compare(s.meta_data, "seed-meta-data");
        golden_compare(s.network_config, "seed-network-config");
}

static char *instance(const struct seed_input *i) {
        _cleanup_seed_ struct seed s = {0};
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(seed_compose(i, &s, NULL), 0);
        assert_int_equal(json_parse(s.meta_data, strlen(s.meta_data), &j, NULL), 0);
        return xstrdup(json_string(json_get(j, "instance-id")));
}

static void instance_is_another_one_when_anything_is_other(void **state _unused_) {
        _cleanup_free_ char *first = instance(&input), *again = instance(&input);
        assert_string_equal(first, again);
        struct seed_input others[] = {input, input, input, input, input, input, input};
        others[0].uuid = "6c0a2e31-97d4-4c5e-8f11-2b3c4d5e6f71";
        others[1].name = "k3s-vm-other";
        others[2].dns = "192.0.2.53";
        others[3].key = "ssh-ed25519 AAAAC3Nzc k3s-vm";
        others[4].host_key_pub = "ssh-ed25519 AAAAC3Nzd k3s-vm-demo";
        others[5].k3s_config = "# K3S_ARGS is empty.\n";
        others[6].registries = "mirrors: {}\n";
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                _cleanup_free_ char *other = instance(&others[i]);
                assert_string_not_equal(first, other);
        }
}

static void registries_are_files_beside_the_configuration(void **state _unused_) {
        struct seed_input with = input;
        _cleanup_seed_ struct seed s = {0}, without = {0};
        with.registries = "{\"mirrors\":{}}";
        with.registry_ca = "-----BEGIN CERTIFICATE-----\n";
        assert_int_equal(seed_compose(&with, &s, NULL), 0);
        assert_int_equal(seed_compose(&input, &without, NULL), 0);
        const char *const paths[] = {credential_names[CREDENTIAL_REGISTRIES], credential_names[CREDENTIAL_REGISTRY_CA]};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                assert_non_null(strstr(s.user_data, paths[i]));
                assert_null(strstr(without.user_data, paths[i]));
        }
        assert_non_null(strstr(s.user_data, "BEGIN CERTIFICATE"));
}

static char *read_text(const char *path) {
        struct buf b = BUF_INIT(0);
        assert_int_equal(fs_read(path, 4U << 20, &b, NULL), 0);
        return buf_take(&b);
}

static void run(const char *const *argv, struct buf *ret) {
        _cleanup_free_ char *program = fs_find_program(argv[0]);
        if (!program)
                must_skip(argv[0]);
        run_tool(argv, ret);
}

static void check_folder(const char *folder, const struct seed *s) {
        const char *const files[][2] = {{"user-data", s->user_data},
                                        {"meta-data", s->meta_data},
                                        {"network-config", s->network_config}};
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                _cleanup_free_ char *path = path_join(folder, files[i][0]), *text = read_text(path);
                assert_string_equal(text, files[i][1]);
        }
}

static void volume_is_the_same_to_the_byte(void **state) {
        const struct scratch *scratch = *state;
        _cleanup_seed_ struct seed s = {0};
        _cleanup_free_ char *a = path_join(scratch->dir, "a.iso"), *b = path_join(scratch->dir, "b.iso");
        assert_int_equal(seed_compose(&input, &s, NULL), 0);
        assert_int_equal(seed_write_iso(&s, a, NULL), 0);
        setenv("TZ", "Asia/Tokyo", 1);
        assert_int_equal(seed_write_iso(&s, b, NULL), 0);
        unsetenv("TZ");
        _cleanup_buf_ struct buf first = BUF_INIT(0), second = BUF_INIT(0);
        assert_int_equal(fs_read(a, 4U << 20, &first, NULL), 0);
        assert_int_equal(fs_read(b, 4U << 20, &second, NULL), 0);
        assert_int_equal(first.len, second.len);
        assert_memory_equal(first.data, second.data, first.len);
}

static char *write_volume(const struct scratch *scratch, struct seed *ret) {
        char *path = path_join(scratch->dir, "seed.iso");
        assert_int_equal(seed_compose(&input, ret, NULL), 0);
        assert_int_equal(seed_write_iso(ret, path, NULL), 0);
        return path;
}

static void volume_is_read_back_by_libarchive(void **state) {
        const struct scratch *scratch = *state;
        _cleanup_seed_ struct seed s = {0};
        _cleanup_free_ char *iso = write_volume(scratch, &s), *folder = path_join(scratch->dir, "unpacked");
        assert_int_equal(mkdir(folder, 0700), 0);
        run((const char *const[]){"bsdtar", "-x", "-C", folder, "-f", iso, NULL}, NULL);
        check_folder(folder, &s);
}

static void volume_is_read_back_by_isoinfo(void **state) {
        const struct scratch *scratch = *state;
        _cleanup_seed_ struct seed s = {0};
        _cleanup_free_ char *iso = write_volume(scratch, &s);
        _cleanup_buf_ struct buf about = BUF_INIT(0);
        run((const char *const[]){"isoinfo", "-d", "-i", iso, NULL}, &about);
        assert_non_null(strstr(buf_str(&about), "Volume id: CIDATA\n"));
        assert_non_null(strstr(buf_str(&about), "Rock Ridge"));
        assert_non_null(strstr(buf_str(&about), "Joliet"));
        /* By Rock Ridge's names and by Joliet's. */
        static const char *const ways[] = {"-R", "-J"};
        for (size_t i = 0; i < ELEMENTSOF(ways); i++) {
                _cleanup_buf_ struct buf text = BUF_INIT(0);
                run((const char *const[]){"isoinfo", ways[i], "-x", "/user-data", "-i", iso, NULL}, &text);
                assert_string_equal(buf_str(&text), s.user_data);
        }
}

/* The kernel's own reader, where this user may mount and there are loop devices. */
static void volume_is_read_back_by_the_kernel(void **state) {
        const struct scratch *scratch = *state;
        _cleanup_seed_ struct seed s = {0};
        _cleanup_free_ char *iso = write_volume(scratch, &s), *folder = path_join(scratch->dir, "mnt");
        assert_int_equal(mkdir(folder, 0700), 0);
        const char *const argv[] = {"mount", "-t", "iso9660", "-o", "ro,loop", iso, folder, NULL};
        struct proc_run_spec spec = PROC_RUN_SPEC_INIT;
        struct proc_result result = {0};
        spec.spec.argv = argv;
        spec.timeout_ms = 60000;
        if (geteuid() != 0 || proc_run(&spec, &result, NULL) < 0 || result.exit_status != 0) {
                /* No failure under STRICT: tests/e2e/cloud.bats has a guest's kernel read it in any case. */
                print_message("nothing can be mounted here\n");
                return;
        }
        check_folder(folder, &s);
        assert_int_equal(umount(folder), 0);
}

static void write_credential(const struct project *p, enum credential which, const char *text) {
        _cleanup_free_ char *path = path_join(p->credentials_dir, credential_names[which]);
        scratch_write(path, text);
}

static void seed_is_written_once_and_for_its_owner_only(void **state) {
        const struct scratch *scratch = *state;
        struct project *p = scratch->p;
        _cleanup_config_ struct config *c = NULL;
        assert_int_equal(project_create_dirs(p, NULL), 0);
        assert_int_equal(config_load(p, &c, NULL), 0);
        assert_int_equal(remote_make_key(p->host_key_path, "shop", NULL), 0);
        assert_int_equal(fs_mkdir_p(p->credentials_dir, 0700, NULL), 0);
        write_credential(p, CREDENTIAL_AUTHORIZED_KEYS, "ssh-ed25519 AAAAC3Nza k3s-vm\n");
        write_credential(p, CREDENTIAL_HOST_KEY, input.host_key);
        write_credential(p, CREDENTIAL_K3S_CONFIG, input.k3s_config);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(seed_write(p, c, input.uuid, &err), 0);
        _cleanup_free_ char *path = seed_path(p);
        struct stat before, after;
        assert_int_equal(stat(path, &before), 0);
        assert_int_equal(before.st_mode & 0777, 0600);
        assert_int_equal(seed_write(p, c, input.uuid, &err), 0);
        assert_int_equal(stat(path, &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
        write_credential(p, CREDENTIAL_REGISTRIES, "mirrors: {}\n");
        assert_int_equal(seed_write(p, c, input.uuid, &err), 0);
        assert_int_equal(stat(path, &after), 0);
        assert_int_not_equal(before.st_ino, after.st_ino);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(texts_are_the_golden_ones),
                        cmocka_unit_test(instance_is_another_one_when_anything_is_other),
                        cmocka_unit_test(registries_are_files_beside_the_configuration),
                        scratch_test(volume_is_the_same_to_the_byte),
                        scratch_test(volume_is_read_back_by_libarchive),
                        scratch_test(volume_is_read_back_by_isoinfo),
                        scratch_test(volume_is_read_back_by_the_kernel),
                        scratch_test(seed_is_written_once_and_for_its_owner_only),
        };
        return cmocka_run_group_tests_name("seed", tests, NULL, NULL);
}
