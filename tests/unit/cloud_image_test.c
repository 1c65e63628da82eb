/* SPDX-License-Identifier: MIT */
/* Cloud images: what IMAGE may be, where it comes from, and what becomes of it in the cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/cloud_image.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest_cloud.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>

#include "https_server.h"
#include "scratch.h"
#include "tool.h"

#define DISK_BYTES (8U << 20)
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* A disk with holes, a partition table and, unless @uefi, code that a BIOS would run. The caller frees its path. */
static char *write_disk(const struct scratch *s, const char *name, bool uefi) {
        char *path = path_join(s->dir, name);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
        if (!uefi)
                assert_int_equal(pwrite(fd, "\xfa\x31\xc0", 3, 0), 3);
        assert_int_equal(pwrite(fd, "\x55\xaa", 2, 510), 2);
        assert_int_equal(pwrite(fd, name, strlen(name), 5U << 20), (ssize_t)strlen(name));
        return path;
}

static struct config *load(const struct scratch *s) {
        struct config *c = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (config_load(s->p, &c, &err) < 0)
                fail_msg("%s", err.message);
        return c;
}

static struct config *with_image(const struct scratch *s, const char *image) {
        setenv("IMAGE", image, 1);
        struct config *c = load(s);
        unsetenv("IMAGE");
        return c;
}

static void publishers_are_found_by_name(void **state _unused_) {
        static const char *const names[] = {"ubuntu-24.04", "ubuntu-22.04", "debian-12", "debian-13", "fedora"};
        _cleanup_free_ char *all = cloud_publisher_names();
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                const struct cloud_publisher *p = cloud_publisher(names[i]);
                assert_non_null(p);
                assert_true(str_starts(p->host, "https://") && !str_ends(p->host, "/"));
                assert_true(p->folder[0] == '/' && str_ends(p->folder, "/"));
                assert_non_null(strstr(all, names[i]));
        }
        assert_non_null(cloud_publisher(CLOUD_IMAGE_DEFAULT));
        assert_null(cloud_publisher("gentoo"));
}

static void image_is_a_name_a_url_with_its_hash_or_a_path(void **state) {
        const struct scratch *s = *state;
        _cleanup_config_ struct config *none = load(s), *name = with_image(s, "debian-13"),
                                       *url = with_image(s, "https://a.example/d.img#sha256:" HASH),
                                       *longer = with_image(s, "https://a.example/d.img#sha512:" HASH HASH),
                                       *path = with_image(s, "./disk.img");
        _cleanup_free_ char *absolute = path_join(s->p->root, "disk.img");
        assert_string_equal(none->image, CLOUD_IMAGE_DEFAULT);
        assert_string_equal(name->image, "debian-13");
        assert_string_equal(cloud_url_hash(url->image), HASH);
        assert_string_equal(cloud_url_hash(longer->image), HASH HASH);
        assert_int_equal(strlen(path->image), strlen(absolute) + (strstr(path->image, "/./") ? 2 : 0));
        static const char *const wrong[][2] = {
                        {"gentoo", "must be one of ubuntu-24.04, "},
                        {"disk.img", "a path with a slash"},
                        {"https://a.example/d.img", "must begin with https:// and end with its hash"},
                        {"https://a.example/d.img#sha256:abc", "must begin with"},
                        {"https://a.example/d.img#md5:" HASH, "must begin with"},
                        {"https://a.example/d.img#sha512:" HASH, "must begin with"},
                        {"http://a.example/d.img#sha256:" HASH, "must begin with"},
                        {"~/disk.img", "without ~"},
        };
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                struct config *c = NULL;
                _cleanup_error_ struct error err = ERROR_INIT;
                setenv("IMAGE", wrong[i][0], 1);
                int r = config_load(s->p, &c, &err);
                unsetenv("IMAGE");
                if (r != -EINVAL || err.code != ERR_USAGE || !strstr(err.message, wrong[i][1]))
                        fail_msg("%s: %s", wrong[i][0], err.message ? err.message : "was accepted");
        }
}

static void auto_is_cloud_where_an_image_was_chosen_or_no_guest_can_be_built(void **state) {
        const struct scratch *s = *state;
        _cleanup_config_ struct config *plain = load(s), *chosen = with_image(s, "debian-12");
        const char *before = getenv("PATH");
        _cleanup_free_ char *saved = xstrdup(before);
        assert_true(guest_is_cloud(chosen));
        setenv("PATH", "/nonexistent", 1);
        assert_true(guest_is_cloud(plain));
        setenv("PATH", saved, 1);
        free(chosen->flavor);
        chosen->flavor = xstrdup("debian");
        assert_false(guest_is_cloud(chosen));
}

static void disks_that_refer_to_other_files_are_refused(void **state) {
        const struct scratch *s = *state;
        struct disk_look look = {0};
        _cleanup_free_ char *raw = write_disk(s, "raw.img", false), *plain = path_join(s->dir, "plain.qcow2"),
                            *overlay = path_join(s->dir, "overlay.qcow2"), *base = NULL, *none = NULL;
        assert_int_equal(disk_look(raw, &look, NULL), 0);
        assert_string_equal(look.format, "raw");
        assert_int_equal(look.bytes, DISK_BYTES);
        assert_int_equal(qemu_create_disk(plain, 10, NULL), 0);
        assert_int_equal(disk_look(plain, &look, NULL), 0);
        assert_string_equal(look.format, "qcow2");
        assert_int_equal(look.bytes, 10ULL << 30);
        assert_int_equal(qemu_create_overlay(overlay, 12, plain, "qcow2", NULL), 0);
        assert_int_equal(disk_look(overlay, &look, NULL), -EINVAL);
        assert_int_equal(disk_base(overlay, &base, NULL), 0);
        assert_string_equal(base, plain);
        assert_int_equal(disk_base(plain, &none, NULL), 0);
        assert_null(none);
        _cleanup_free_ char *junk = path_join(s->dir, "junk");
        assert_int_equal(fs_write_atomic(junk, "<html>", 6, 0600, NULL), 0);
        assert_int_equal(disk_look(junk, &look, NULL), -EINVAL);
}

static struct guest *ensure(const struct scratch *s, const char *image) {
        _cleanup_config_ struct config *c = with_image(s, image);
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_free_ char *dir = NULL;
        struct guest *g = NULL;
        if (guest_cloud_ensure(s->p, c, NULL, &dir, &err) < 0 || guest_load(dir, &g, &err) < 0)
                fail_msg("%s: %s", image, err.message);
        return g;
}

static void same_bytes(const char *a, const char *b) {
        char one[SHA256_HEX_LEN + 1], other[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_file(a, one, NULL), 0);
        assert_int_equal(digest_file(b, other, NULL), 0);
        assert_string_equal(one, other);
}

static void files_are_taken_as_they_are_or_unpacked_with_their_holes(void **state) {
        const struct scratch *s = *state;
        static const char *const tools[][2] = {{"gzip", ".gz"}, {"xz", ".xz"}, {"zstd", ".zst"}};
        _cleanup_free_ char *raw = write_disk(s, "raw.img", false);
        _cleanup_guest_ struct guest *plain = ensure(s, raw);
        assert_string_equal(plain->boot_overlay, "raw");
        assert_false(plain->boot_uefi);
        assert_string_equal(plain->provision, "nocloud");
        same_bytes(plain->boot_disk, raw);
        for (size_t i = 0; i < ELEMENTSOF(tools); i++) {
                _cleanup_free_ char *packed = xasprintf("%s%s", raw, tools[i][1]);
                run_tool((const char *const[]){tools[i][0], "-kf", raw, NULL}, NULL);
                _cleanup_guest_ struct guest *g = ensure(s, packed);
                assert_string_not_equal(g->dir, plain->dir);
                same_bytes(g->boot_disk, raw);
                assert_true(fs_allocated(g->boot_disk) < 1 << 20);
                struct stat st;
                assert_int_equal(stat(g->boot_disk, &st), 0);
                assert_int_equal(st.st_mode & 0777, 0444);
        }
        /* Cut off. */
        _cleanup_free_ char *cut = xasprintf("%s.xz", raw), *dir = NULL;
        assert_int_equal(truncate(cut, fs_size(cut) / 2), 0);
        _cleanup_config_ struct config *c = with_image(s, cut);
        assert_true(guest_cloud_ensure(s->p, c, NULL, &dir, NULL) < 0);
        assert_null(dir);
}

static void disk_without_code_for_a_bios_boots_by_uefi(void **state) {
        const struct scratch *s = *state;
        _cleanup_free_ char *raw = write_disk(s, "uefi.img", true), *firmware = NULL;
        _cleanup_guest_ struct guest *g = ensure(s, raw);
        assert_true(g->boot_uefi);
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = guest_firmware(g, &firmware, &err);
        if (r < 0) {
                assert_int_equal(err.code, ERR_HOST);
                assert_non_null(strstr(err.message, "OVMF"));
                assert_non_null(err.hint);
        } else
                assert_true(fs_exists(firmware));
}

static void overlay_belongs_to_its_base(void **state) {
        const struct scratch *s = *state;
        _cleanup_free_ char *raw = write_disk(s, "raw.img", false), *data = path_join(s->dir, "data.qcow2"),
                            *other = path_join(s->dir, "other.qcow2");
        _cleanup_guest_ struct guest *g = ensure(s, raw);
        assert_int_equal(qemu_create_overlay(data, 10, g->boot_disk, g->boot_overlay, NULL), 0);
        assert_int_equal(qemu_create_disk(other, 10, NULL), 0);
        assert_int_equal(guest_check_base(g, data, NULL), 0);
        assert_int_equal(guest_check_base(g, other, NULL), -ESTALE);
        g->boot_overlay = (free(g->boot_overlay), NULL);
        assert_int_equal(guest_check_base(g, data, NULL), -ESTALE);
        assert_int_equal(guest_check_base(g, other, NULL), 0);
}

/* It is read-only, and looked at before each start. */
static void base_that_changed_is_noticed(void **state) {
        const struct scratch *s = *state;
        _cleanup_free_ char *raw = write_disk(s, "raw.img", false);
        _cleanup_guest_ struct guest *g = ensure(s, raw);
        assert_int_equal(cache_check_used(s->p, g->dir, NULL, NULL), 0);
        assert_int_equal(chmod(g->boot_disk, 0644), 0);
        _cleanup_close_ int fd = open(g->boot_disk, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "x", 1, 6U << 20), 1);
        assert_true(cache_check_used(s->p, g->dir, NULL, NULL) < 0);
}

/* The tree of a publisher on the server, with @hash in its list. */
static void publish(const char *disk, const char *hash) {
        const struct cloud_publisher *p = cloud_publisher("debian-12");
        _cleanup_free_ char *folder = xasprintf("%s/www%s", server->dir, p->folder), *file = path_join(folder, p->file),
                            *list = path_join(folder, p->hashes), *line = xasprintf("%s  %s\n", hash, p->file);
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        assert_int_equal(fs_copy_file(disk, file, NULL), 0);
        assert_int_equal(fs_write_atomic(list, line, strlen(line), 0644, NULL), 0);
}

static void names_are_fetched_from_the_publisher_verified_and_kept(void **state) {
        const struct scratch *s = *state;
        needs_server();
        char hex[SHA256_HEX_LEN + 1];
        _cleanup_free_ char *raw = write_disk(s, "raw.img", false), *mirror = url_of(server->good, "/static"),
                            *wrong = NULL;
        assert_int_equal(digest_file(raw, hex, NULL), 0);
        setenv("MIRROR_IMAGES", mirror, 1);

        /* Never seen, and nobody there. */
        setenv("MIRROR_IMAGES", "https://127.0.0.1:1", 1);
        _cleanup_config_ struct config *nowhere = with_image(s, "debian-12");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(guest_cloud_ensure(s->p, nowhere, NULL, &wrong, &err) < 0);
        assert_non_null(strstr(err.message, "Debian 12"));
        assert_non_null(strstr(err.hint, "IMAGE=./"));
        error_clear(&err);

        /* Not what the publisher's list says. */
        setenv("MIRROR_IMAGES", mirror, 1);
        publish(raw, HASH);
        _cleanup_config_ struct config *c = with_image(s, "debian-12");
        assert_int_equal(guest_cloud_ensure(s->p, c, NULL, &wrong, &err), -EBADMSG);
        assert_null(wrong);

        publish(raw, hex);
        _cleanup_guest_ struct guest *g = ensure(s, "debian-12");
        same_bytes(g->boot_disk, raw);
        assert_non_null(strstr(g->version, "Debian 12"));

        /* The same by its address and hash is the same in the cache, without a download; so is it offline. */
        _cleanup_free_ char *url = xasprintf("https://127.0.0.1:1/disk.img#sha256:%s", hex);
        _cleanup_guest_ struct guest *by_url = ensure(s, url);
        assert_string_equal(by_url->dir, g->dir);
        setenv("MIRROR_IMAGES", "https://127.0.0.1:1", 1);
        _cleanup_guest_ struct guest *offline = ensure(s, "debian-12");
        assert_string_equal(offline->dir, g->dir);
        unsetenv("MIRROR_IMAGES");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(publishers_are_found_by_name),
                        scratch_test(image_is_a_name_a_url_with_its_hash_or_a_path),
                        scratch_test(auto_is_cloud_where_an_image_was_chosen_or_no_guest_can_be_built),
                        scratch_test(disks_that_refer_to_other_files_are_refused),
                        scratch_test(files_are_taken_as_they_are_or_unpacked_with_their_holes),
                        scratch_test(disk_without_code_for_a_bios_boots_by_uefi),
                        scratch_test(overlay_belongs_to_its_base),
                        scratch_test(base_that_changed_is_noticed),
                        scratch_test(names_are_fetched_from_the_publisher_verified_and_kept),
        };
        return cmocka_run_group_tests_name("cloud_image", tests, https_group_setup, https_group_teardown);
}
