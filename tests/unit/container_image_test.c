/* SPDX-License-Identifier: MIT */
/* Image archives and folders, and their way over a real sshd into a program called ctr that keeps what it got. */
#include "sshd.h"

#include <k3s-vm/archive_stream.h>
#include <k3s-vm/container_image.h>

#include "folder.h"

#define CONFIG "1111111111111111111111111111111111111111111111111111111111111111"
#define MANIFEST "2222222222222222222222222222222222222222222222222222222222222222"

static void put(const char *dir, const char *name, const char *text) {
        _cleanup_free_ char *path = path_join(dir, name), *folder = path_parent(path);
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        write_text(path, text, 0644);
}

/* An image layout with a layer of 3 MB in @dir/layout; @annotation names it. The caller frees the path. */
static char *make_layout(const char *dir, const char *annotation) {
        char *layout = path_join(dir, "layout");
        _cleanup_free_ char *index = xasprintf("{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/"
                                               "vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:" MANIFEST "\","
                                               "\"size\":2,\"annotations\":{%s}}]}",
                                               annotation);
        put(layout, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
        put(layout, "index.json", index);
        _cleanup_free_ char *layer = xcalloc(1, 3000001);
        for (size_t i = 0; i < 3000000; i++)
                layer[i] = (char)('a' + i * i % 26);
        put(layout, "blobs/sha256/" MANIFEST, "{}");
        put(layout, "blobs/sha256/3333", layer);
        return layout;
}

static void make_docker(const char *dir, const char *manifest) {
        put(dir, "docker/manifest.json", manifest);
        put(dir, "docker/" CONFIG ".json", "{}");
}

/* @names of the folder as DIR/@file. The caller frees the path. */
static char *pack(const char *dir, const char *folder, const char *file) {
        _cleanup_free_ char *source = path_join(dir, folder);
        char *target = path_join(dir, file);
        _cleanup_archive_stream_ struct archive_stream *s = NULL;
        const char *const names[] = {str_eq(folder, "layout") ? "blobs" : CONFIG ".json",
                                     str_eq(folder, "layout") ? "index.json" : "manifest.json",
                                     str_eq(folder, "layout") ? "oci-layout" : NULL, NULL};
        assert_int_equal(archive_stream_folder(source, names, &s, NULL), 0);
        _cleanup_fclose_ FILE *f = fopen(target, "we");
        char block[1000];
        ssize_t n;
        while ((n = archive_stream_read(s, block, sizeof(block), NULL)) > 0)
                assert_int_equal(fwrite(block, 1, (size_t)n, f), n);
        assert_int_equal(n, 0);
        return target;
}

/* @path through gzip or zstd; the caller frees. */
static char *compress(const char *path, const char *tool, const char *ending) {
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){tool, "-q", "-k", path, NULL};
        struct process p = PROCESS_INIT;
        struct proc_result result;
        if (proc_spawn(&spec, &p, NULL) < 0)
                must_skip("gzip or zstd is not here");
        assert_int_equal(proc_wait(&p, 60000, &result, NULL), 0);
        process_close(&p);
        assert_int_equal(result.exit_status, 0);
        return xasprintf("%s%s", path, ending);
}

static struct image_archive *opened(const char *path) {
        struct image_archive *a = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (image_archive_open(path, &a, &err) < 0)
                fail_msg("%s", err.message);
        return a;
}

static void assert_refused(const char *path, int errnum, const char *part) {
        struct image_archive *a = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(image_archive_open(path, &a, &err), -errnum);
        if (!strstr(err.message, part) || !strstr(err.message, path))
                fail_msg("%s", err.message);
        assert_non_null(err.hint);
        assert_null(a);
}

static void names_are_completed_as_docker_does(void **state _unused_) {
        static const char *const names[][2] = {
                        {"nginx", "docker.io/library/nginx:latest"},
                        {"nginx:1", "docker.io/library/nginx:1"},
                        {"me/shop:1", "docker.io/me/shop:1"},
                        {"localhost/shop", "localhost/shop:latest"},
                        {"localhost:5000/shop:1", "localhost:5000/shop:1"},
                        {"ghcr.io/a/b:2", "ghcr.io/a/b:2"},
                        {"localhosts/shop:1", "docker.io/localhosts/shop:1"},
        };
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *full = image_full_name(names[i][0]);
                assert_string_equal(full, names[i][1]);
        }
}

static void a_docker_archive_is_known_by_its_manifest(void **state) {
        make_docker(*state, "[{\"Config\":\"" CONFIG ".json\",\"RepoTags\":[\"shop:1\",\"localhost/a/b:2\"],"
                            "\"Layers\":[]}]");
        _cleanup_free_ char *path = pack(*state, "docker", "image.tar");
        _cleanup_image_archive_ struct image_archive *a = opened(path);
        assert_int_equal(a->n, 2);
        assert_string_equal(a->names[0].name, "docker.io/library/shop:1");
        assert_string_equal(a->names[1].name, "localhost/a/b:2");
        assert_string_equal(a->names[0].digest, "sha256:" CONFIG);
        assert_int_equal(a->bytes, fs_size(path));
        assert_null(a->base);
}

static void a_layout_is_known_as_folder_and_tar_compressed_or_not(void **state) {
        _cleanup_free_ char *folder = make_layout(*state, "\"io.containerd.image.name\":\"localhost/shop:1\","
                                                          "\"org.opencontainers.image.ref.name\":\"1\"");
        _cleanup_free_ char *tar = pack(*state, "layout", "image.tar"), *gz = compress(tar, "gzip", ".gz"),
                            *zst = compress(tar, "zstd", ".zst");
        const char *const paths[] = {folder, tar, gz, zst};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                _cleanup_image_archive_ struct image_archive *a = opened(paths[i]);
                assert_int_equal(a->n, 1);
                assert_string_equal(a->names[0].name, "localhost/shop:1");
                assert_string_equal(a->names[0].digest, "sha256:" MANIFEST);
                assert_int_equal(a->bytes, fs_size(tar));
        }
}

static void a_tag_alone_gets_the_files_name(void **state) {
        _cleanup_free_ char *folder = make_layout(*state, "\"org.opencontainers.image.ref.name\":\"1.0\"");
        _cleanup_free_ char *tar = pack(*state, "layout", "My Shop.oci.tar");
        _cleanup_image_archive_ struct image_archive *a = opened(tar);
        assert_string_equal(a->base, "localhost/my-shop");
        assert_string_equal(a->names[0].name, "localhost/my-shop:1.0");
}

static void what_is_no_image_says_so(void **state) {
        const char *dir = *state;
        put(dir, "docker/manifest.json", "{}");
        put(dir, "docker/" CONFIG ".json", "{}");
        _cleanup_free_ char *empty = path_join(dir, "empty.tar"), *text = path_join(dir, "text.tar"),
                            *folder = path_join(dir, "docker"), *missing = path_join(dir, "missing"),
                            *odd = pack(dir, "docker", "odd.tar");
        write_text(empty, "", 0644);
        write_text(text, "this is no archive, though it is long enough to be looked at in earnest\n", 0644);
        assert_refused(empty, EBADMSG, "is no container image");
        assert_refused(text, EBADMSG, "");
        assert_refused(folder, EBADMSG, "is no container image");
        assert_refused(odd, EBADMSG, "is no container image");
        struct image_archive *a = NULL;
        assert_int_equal(image_archive_open(missing, &a, NULL), -ENOENT);

        _cleanup_free_ char *layout = make_layout(dir, "\"org.opencontainers.image.ref.name\":\"a b; reboot\"");
        assert_refused(layout, EBADMSG, "a name in its index.json");
        free(TAKE_PTR(layout));
        layout = make_layout(dir, "");
        assert_refused(layout, ENODATA, "has a name");
}

static void one_that_is_cut_off_is_found_out_before_it_is_sent(void **state) {
        _cleanup_free_ char *folder = make_layout(*state, "\"io.containerd.image.name\":\"localhost/shop:1\"");
        _cleanup_free_ char *tar = pack(*state, "layout", "image.tar"), *gz = compress(tar, "gzip", ".gz");
        const char *const paths[] = {tar, gz};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                assert_int_equal(truncate(paths[i], fs_size(paths[i]) / 2), 0);
                assert_refused(paths[i], EBADMSG, "cannot be read to its end");
        }
}

static void a_symlink_in_a_folder_is_refused(void **state) {
        _cleanup_free_ char *folder = make_layout(*state, "\"io.containerd.image.name\":\"localhost/shop:1\"");
        _cleanup_free_ char *link = path_join(folder, "blobs/sha256/4444");
        assert_int_equal(symlink("/etc/passwd", link), 0);
        struct image_archive *a = NULL;
        assert_int_equal(image_archive_open(folder, &a, NULL), -EPERM);
}

static void containerds_list_is_read(void **state _unused_) {
        struct guest_images images = {0};
        guest_images_parse("REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
                           "docker.io/library/shop:1 application/vnd.oci.image.manifest.v1+json sha256:" MANIFEST
                           " 1.2 MiB linux/amd64 io.cri-containerd.image=managed\n"
                           "sha256:" CONFIG " application/x sha256:" MANIFEST " 1.2 MiB linux/amd64 -\n"
                           "cut\n\nbad;name x sha256:" MANIFEST " 1 B - -\n",
                           &images);
        assert_int_equal(images.n, 2);
        assert_string_equal(images.items[0].name, "docker.io/library/shop:1");
        assert_string_equal(images.items[0].size, "1.2 MiB");

        struct image_name docker = {(char *)"docker.io/library/shop:1", (char *)"sha256:" CONFIG},
                          oci = {(char *)"docker.io/library/shop:1", (char *)"sha256:" MANIFEST},
                          other = {(char *)"docker.io/library/shop:2", (char *)"sha256:" MANIFEST};
        assert_true(image_archive_is_there(&(struct image_archive){.names = &docker, .n = 1}, &images));
        assert_true(image_archive_is_there(&(struct image_archive){.names = &oci, .n = 1}, &images));
        assert_false(image_archive_is_there(&(struct image_archive){.names = &other, .n = 1}, &images));
        other.name = oci.name;
        other.digest = (char *)"sha256:4444444444444444444444444444444444444444444444444444444444444444";
        assert_false(image_archive_is_there(&(struct image_archive){.names = &other, .n = 1}, &images));
        guest_images_clear(&images);
}

/* Over SSH. */

/* What `ctr` does from now on. */
static void set_ctr(const char *script) {
        _cleanup_free_ char *path = sshd_path(sshd, "bin/ctr"), *folder = path_parent(path),
                            *text = xasprintf("#!/bin/sh\ncd %s\n%s\n", sshd->dir, script);
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        write_text(path, text, 0755);
}

static void assert_same_file(const char *a, const char *b) {
        _cleanup_buf_ struct buf first = BUF_INIT(16U << 20), second = BUF_INIT(16U << 20);
        assert_int_equal(fs_read(a, 16U << 20, &first, NULL), 0);
        assert_int_equal(fs_read(b, 16U << 20, &second, NULL), 0);
        assert_int_equal(first.len, second.len);
        assert_memory_equal(first.data, second.data, first.len);
}

static void ctr_gets_the_plain_tar_whatever_the_file(void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *folder = make_layout(*state, "\"org.opencontainers.image.ref.name\":\"1\"");
        _cleanup_free_ char *tar = pack(*state, "layout", "image.tar"), *zst = compress(tar, "zstd", ".zst"),
                            *got = sshd_path(sshd, "got"), *arguments = sshd_path(sshd, "arguments");
        set_ctr("echo \"$*\" >arguments; cat >got");
        const char *const paths[] = {tar, zst, folder}, *const bases[] = {"image", "image", "layout"};
        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                _cleanup_image_archive_ struct image_archive *a = opened(paths[i]);
                _cleanup_error_ struct error err = ERROR_INIT;
                if (image_archive_send(a, r, NULL, NULL, &err) < 0)
                        fail_msg("%s", err.message);
                assert_same_file(got, tar);
                _cleanup_buf_ struct buf text = BUF_INIT(4096);
                assert_int_equal(fs_read(arguments, 4096, &text, NULL), 0);
                _cleanup_free_ char *want = xasprintf("-n k8s.io images import --base-name localhost/%s -\n", bases[i]);
                assert_string_equal(buf_str(&text), want);
        }
}

static void what_ctr_says_is_the_error(void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *folder = make_layout(*state, "\"io.containerd.image.name\":\"localhost/shop:1\"");
        _cleanup_image_archive_ struct image_archive *a = opened(folder);
        static const struct {
                const char *script;
                enum err_code code;
                const char *message;
        } cases[] = {
                        {"cat >/dev/null; echo 'ctr: unrecognized image format' >&2; exit 1", ERR_FAILED,
                         "unrecognized image format"},
                        {"echo 'ctr: failed to dial \"/run/k3s/containerd/containerd.sock\"' >&2; exit 1", ERR_STATE,
                         "does not answer"},
                        {"exit 127", ERR_STATE, "no containerd"},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                set_ctr(cases[i].script);
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_true(image_archive_send(a, r, NULL, NULL, &err) < 0);
                assert_int_equal(err.code, cases[i].code);
                if (!strstr(err.message, cases[i].message))
                        fail_msg("%s", err.message);
        }
        struct guest_images images;
        set_ctr("echo 'ctr: no' >&2; exit 1");
        assert_true(guest_images_list(r, &images, NULL) < 0);
}

static void a_file_that_goes_bad_on_the_way_ends_the_command(void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *folder = make_layout(*state, "\"io.containerd.image.name\":\"localhost/shop:1\"");
        _cleanup_image_archive_ struct image_archive *a = opened(folder);
        _cleanup_free_ char *index = path_join(folder, "index.json");
        assert_int_equal(unlink(index), 0);
        set_ctr("cat >got; echo whole >>arguments");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(image_archive_send(a, r, NULL, NULL, &err), -ENOENT);
        assert_non_null(strstr(err.message, "index.json"));
}

static void the_guests_images_are_listed(void **state _unused_) {
        _cleanup_remote_ struct remote *r = connected();
        set_ctr("[ \"$*\" = '-n k8s.io images ls' ] || exit 9\necho 'REF TYPE DIGEST SIZE PLATFORMS LABELS'\n"
                "echo 'localhost/shop:1 application/x sha256:" MANIFEST " 3.0 MiB linux/amd64 -'");
        _cleanup_guest_images_ struct guest_images images = {0};
        assert_int_equal(guest_images_list(r, &images, NULL), 0);
        assert_int_equal(images.n, 1);
        assert_string_equal(images.items[0].digest, "sha256:" MANIFEST);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(names_are_completed_as_docker_does),
                        folder_test(a_docker_archive_is_known_by_its_manifest),
                        folder_test(a_layout_is_known_as_folder_and_tar_compressed_or_not),
                        folder_test(a_tag_alone_gets_the_files_name),
                        folder_test(what_is_no_image_says_so),
                        folder_test(one_that_is_cut_off_is_found_out_before_it_is_sent),
                        folder_test(a_symlink_in_a_folder_is_refused),
                        cmocka_unit_test(containerds_list_is_read),
                        folder_test(ctr_gets_the_plain_tar_whatever_the_file),
                        folder_test(what_ctr_says_is_the_error),
                        folder_test(a_file_that_goes_bad_on_the_way_ends_the_command),
                        cmocka_unit_test(the_guests_images_are_listed),
        };
        return cmocka_run_group_tests_name("container_image", tests, sshd_group_setup, sshd_group_teardown);
}
