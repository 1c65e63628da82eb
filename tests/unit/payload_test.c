/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <k3s-vm/confine.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/payload.h>

#include "https_server.h"

#define VERSION "v1.33.5+k3s1"
#define NEWER "v1.34.1+k3s1"
#define PROGRAM "\177ELF not really, but the bytes of release " VERSION "\n"

/* Progress that counts and keeps what is said. */
static struct {
        struct progress progress;
        unsigned notes;
        char last[512];
} heard;

static struct progress_phase *on_begin(_unused_ struct progress *p, _unused_ const char *name,
                                       _unused_ const char *text) {
        return (struct progress_phase *)&heard;
}

static void on_update(_unused_ struct progress_phase *phase, _unused_ const char *text, _unused_ uint64_t done,
                      _unused_ uint64_t total, _unused_ const char *unit) {
}

static void on_end(_unused_ struct progress_phase *phase, _unused_ int ok, _unused_ const char *text) {
}

static void on_note(_unused_ struct progress *p, _unused_ int warning, const char *text) {
        heard.notes++;
        snprintf(heard.last, sizeof(heard.last), "%s", text);
}

static void on_debug(_unused_ struct progress *p, _unused_ const char *text) {
}

static const struct progress_ops heard_ops = {
                .begin = on_begin, .update = on_update, .end = on_end, .note = on_note, .debug = on_debug};

/* Each test has its own folder on the server. */
static char *release_folder;

static char *mirror; /* what MIRROR_K3S says */

static void set_mirror(const char *url) {
        free(mirror);
        mirror = xstrdup(url);
}

static void set_servers(bool reachable) {
        _cleanup_free_ char *base =
                        xasprintf("https://127.0.0.1:%u/github/%s", server->good, path_base(release_folder));
        set_mirror(reachable ? base : "https://127.0.0.1:1/releases");
}

/* From now on what the release server's redirects lead to cannot be reached. */
static void take_releases_away(void) {
        _cleanup_free_ char *path = path_join(release_folder, "away");
        scratch_write(path, "");
}

static int setup(void **state) {
        if (scratch_setup(state) < 0)
                return -1;
        heard.progress.ops = &heard_ops;
        heard.notes = 0;
        heard.last[0] = '\0';
        if (!server)
                return 0;
        _cleanup_free_ char *www = path_join(server->dir, "www");
        free(release_folder);
        release_folder = NULL;
        int r = fs_mkdtemp(www, "releases", &release_folder, NULL);
        set_servers(true);
        return r;
}

static int teardown(void **state) {
        set_mirror(NULL);
        free(release_folder);
        release_folder = NULL;
        return scratch_teardown(state);
}

static bool is_arm(void) {
        struct utsname name;
        return uname(&name) == 0 && str_eq(name.machine, "aarch64");
}

static void serve_channels(const char *json) {
        _cleanup_free_ char *path = path_join(release_folder, "channels");
        scratch_write(path, json);
}

static void serve_stable(const char *version) {
        _cleanup_free_ char *json = xasprintf("{\"type\":\"collection\",\"data\":["
                                              "{\"id\":\"latest\",\"latest\":\"v1.99.0+k3s1\"},"
                                              "{\"id\":\"stable\",\"name\":\"stable\",\"latest\":\"%s\"},"
                                              "{\"id\":\"v1.20\",\"latest\":\"v1.20.15+k3s1\"}]}",
                                              version);
        serve_channels(json);
}

/* Puts a release on the server, with a list of hashes that says @sha256 (NULL: the truth). */
static void serve_release(const char *version, const char *program, const char *sha256) {
        _cleanup_free_ char *folder = path_join(release_folder, version);
        const char *asset = is_arm() ? "k3s-arm64" : "k3s";
        _cleanup_free_ char *path = path_join(folder, asset);
        _cleanup_free_ char *list = path_join(folder, is_arm() ? "sha256sum-arm64.txt" : "sha256sum-amd64.txt");
        char hex[SHA256_HEX_LEN + 1];
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        scratch_write(path, program);
        assert_int_equal(digest_bytes(program, strlen(program), hex, NULL), 0);
        _cleanup_free_ char *text =
                        xasprintf("%064d  k3s-airgap-images-amd64.tar\n%s  %s\n", 0, sha256 ? sha256 : hex, asset);
        scratch_write(list, text);
}

static int resolve(struct scratch *s, const char *wanted, struct payload_choice *ret, struct error *err) {
        const struct config c = {.k3s_version = (char *)wanted, .k3s_images = (char *)"", .mirror_k3s = mirror};
        return payload_resolve(s->p, &c, &heard.progress, ret, err);
}

static int fetch(struct scratch *s, const struct payload_choice *choice, const char *images, struct payload *ret,
                 struct error *err) {
        const struct config c = {.k3s_version = (char *)"stable", .k3s_images = (char *)images, .mirror_k3s = mirror};
        return payload_fetch(s->p, &c, choice, &heard.progress, ret, err);
}

static void assert_holds(const char *path, const char *text) {
        _cleanup_buf_ struct buf b = BUF_INIT(16U << 20);
        assert_int_equal(fs_read(path, (16U << 20) - 1, &b, NULL), 0);
        if (!memmem(b.data, b.len, text, strlen(text)))
                fail_msg("%s does not hold \"%s\"", path, text);
}

static void words_and_exact_versions_need_no_network(void **state) {
        struct scratch *s = *state;
        set_mirror("https://127.0.0.1:1");
        _cleanup_payload_choice_ struct payload_choice a = {0}, b = {0}, c = {0};
        assert_int_equal(resolve(s, "none", &a, NULL), 0);
        assert_int_equal(a.kind, PAYLOAD_NONE);
        assert_int_equal(resolve(s, "offline", &b, NULL), 0);
        assert_int_equal(b.kind, PAYLOAD_OFFLINE);
        assert_int_equal(resolve(s, "v1.30.4-rc1+k3s2", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_RELEASE);
        assert_string_equal(c.version, "v1.30.4-rc1+k3s2");
        assert_null(c.channel);
        assert_int_equal(heard.notes, 0);
}

static void a_path_must_lead_to_a_file(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *program = path_join(s->root, "my k3s"), *empty = path_join(s->root, "empty");
        scratch_write(program, "x");
        scratch_write(empty, "");
        _cleanup_payload_choice_ struct payload_choice c = {0};
        assert_int_equal(resolve(s, "./my k3s", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_BINARY);
        assert_true(c.binary[0] == '/' && str_ends(c.binary, "/my k3s"));
        static const char *const wrong[] = {"./nothing", "./empty", "./", "/dev/null"};
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                struct payload_choice none = {0};
                assert_true(resolve(s, wrong[i], &none, &err) < 0);
                assert_int_equal(err.code, ERR_USAGE);
                assert_null(none.binary);
        }
}

static void nonsense_is_a_usage_error(void **state) {
        struct scratch *s = *state;
        static const char *const wrong[] = {"", "..", "two words", "v1.2.3+k3s1;x", "\xc3\xa4", "v1.2+\n"};
        for (size_t i = 0; i < ELEMENTSOF(wrong); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                struct payload_choice c = {0};
                assert_true(resolve(s, wrong[i], &c, &err) < 0);
                assert_int_equal(err.code, ERR_USAGE);
        }
}

static void a_channel_leads_to_its_release(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_stable(VERSION);
        serve_release(VERSION, PROGRAM, NULL);
        _cleanup_payload_choice_ struct payload_choice c = {0};
        assert_int_equal(resolve(s, "stable", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_RELEASE);
        assert_string_equal(c.version, VERSION);
        assert_string_equal(c.channel, "stable");
        assert_int_equal(heard.notes, 0);
}

static void a_channel_that_does_not_exist_is_a_usage_error_that_lists_them(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_stable(VERSION);
        _cleanup_error_ struct error err = ERROR_INIT;
        struct payload_choice c = {0};
        assert_int_equal(resolve(s, "v1.11", &c, &err), -ENOENT);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.hint, "latest, stable, v1.20"));
}

static void without_a_network_and_a_cache_it_is_the_offline_payload(void **state) {
        struct scratch *s = *state;
        needs_server();
        set_servers(false);
        _cleanup_payload_choice_ struct payload_choice c = {0};
        assert_int_equal(resolve(s, "stable", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_OFFLINE);
        assert_int_equal(heard.notes, 1);
        assert_null(strchr(heard.last, '\n'));
}

static void a_channel_server_without_a_release_server_is_no_network(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_stable(VERSION);
        take_releases_away();
        _cleanup_payload_choice_ struct payload_choice c = {0};
        assert_int_equal(resolve(s, "stable", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_OFFLINE);
        assert_int_equal(heard.notes, 1);
}

static void answers_that_make_no_sense_count_as_none(void **state) {
        struct scratch *s = *state;
        needs_server();
        static const char *const answers[] = {
                        "",
                        "<html>login to the hotel</html>",
                        "{}",
                        "{\"data\":{}}",
                        "{\"data\":[{\"id\":\"stable\"}]}",
                        "{\"data\":[{\"id\":\"stable\",\"latest\":\"v1.2.3/../../../../etc+x\"}]}",
                        "{\"data\":[{\"id\":\"stable\",\"latest\":7}]}",
        };
        for (size_t i = 0; i < ELEMENTSOF(answers); i++) {
                serve_channels(answers[i]);
                _cleanup_payload_choice_ struct payload_choice c = {0};
                assert_int_equal(resolve(s, "stable", &c, NULL), 0);
                assert_int_equal(c.kind, PAYLOAD_OFFLINE);
        }
}

static void a_silent_channel_server_costs_five_seconds_at_most(void **state) {
        struct scratch *s = *state;
        needs_server();
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        for (uint16_t port = 21699; port > 21600; port--) {
                a.sin_port = htons(port);
                if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
                        break;
        }
        assert_int_equal(listen(fd, 4), 0);
        _cleanup_free_ char *url = xasprintf("https://127.0.0.1:%u", ntohs(a.sin_port));
        set_mirror(url);
        uint64_t before = now_ms();
        _cleanup_payload_choice_ struct payload_choice c = {0};
        assert_int_equal(resolve(s, "stable", &c, NULL), 0);
        assert_int_equal(c.kind, PAYLOAD_OFFLINE);
        assert_in_range(now_ms() - before, 4500, 7500);
        close(fd);
}

static void a_release_becomes_an_image_and_is_kept(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_stable(VERSION);
        serve_release(VERSION, PROGRAM, NULL);
        _cleanup_payload_choice_ struct payload_choice c = {0}, later = {0}, newer = {0};
        _cleanup_payload_ struct payload p = {0}, again = {0};
        assert_int_equal(resolve(s, "stable", &c, NULL), 0);
        assert_int_equal(fetch(s, &c, "", &p, NULL), 0);
        assert_string_equal(p.name, "k3s");
        assert_string_equal(p.version, VERSION);
        assert_string_equal(p.description, "K3s " VERSION);
        assert_true(str_starts(p.image_path, s->p->cache_dir));
        assert_true(str_ends(p.image_path, ".iso"));
        assert_holds(p.image_path, PROGRAM);
        assert_holds(p.image_path, "#!/bin/sh\nexec /opt/k3s/bin/k3s kubectl \"$@\"\n");
        assert_holds(p.image_path, "#!/bin/sh\nexec /opt/k3s/bin/k3s ctr \"$@\"\n");
        assert_holds(p.image_path, "#!/bin/sh\nexec /opt/k3s/bin/k3s crictl \"$@\"\n");
        assert_holds(p.image_path, "ExecStart=/opt/k3s/bin/k3s");
        assert_holds(p.image_path, "\"version\":");

        /* From now on without a network; and with one that has a newer release that cannot be reached. */
        set_servers(false);
        assert_int_equal(resolve(s, "stable", &later, NULL), 0);
        assert_int_equal(later.kind, PAYLOAD_RELEASE);
        assert_string_equal(later.version, VERSION);
        assert_int_equal(heard.notes, 1);
        assert_int_equal(fetch(s, &later, "", &again, NULL), 0);
        assert_string_equal(again.image_path, p.image_path);
        set_servers(true);
        serve_stable(NEWER);
        take_releases_away();
        assert_int_equal(resolve(s, "stable", &newer, NULL), 0);
        assert_string_equal(newer.version, VERSION);
        /* Another channel has nothing to fall back on. */
        set_servers(false);
        _cleanup_payload_choice_ struct payload_choice other = {0};
        assert_int_equal(resolve(s, "latest", &other, NULL), 0);
        assert_int_equal(other.kind, PAYLOAD_OFFLINE);
}

static void a_program_that_is_not_the_published_one_is_refused(void **state) {
        struct scratch *s = *state;
        needs_server();
        char wrong[65];
        memset(wrong, 'a', 64);
        wrong[64] = '\0';
        serve_release(VERSION, PROGRAM, wrong);
        const struct payload_choice c = {.kind = PAYLOAD_RELEASE, .version = (char *)VERSION};
        struct payload p = {0};
        assert_int_equal(fetch(s, &c, "", &p, NULL), -EBADMSG);
        assert_null(p.image_path);
        _cleanup_free_ char *kept = path_join(s->p->cache_dir, "downloads", "k3s", VERSION, "k3s");
        assert_false(fs_exists(kept));
}

static void a_release_that_does_not_exist_is_a_usage_error(void **state) {
        struct scratch *s = *state;
        needs_server();
        const struct payload_choice c = {.kind = PAYLOAD_RELEASE, .version = (char *)"v1.2.3+k3s9"};
        struct payload p = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(fetch(s, &c, "", &p, &err), -ENOENT);
        assert_int_equal(err.code, ERR_USAGE);
        set_servers(false);
        assert_int_equal(fetch(s, &c, "", &p, &err), -ECONNREFUSED);
}

static void a_damaged_program_in_the_cache_is_fetched_anew(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_release(VERSION, PROGRAM, NULL);
        const struct payload_choice c = {.kind = PAYLOAD_RELEASE, .version = (char *)VERSION};
        _cleanup_payload_ struct payload p = {0}, again = {0};
        assert_int_equal(fetch(s, &c, "", &p, NULL), 0);
        _cleanup_free_ char *kept =
                        path_join(s->p->cache_dir, "downloads", "k3s", VERSION, is_arm() ? "k3s-arm64" : "k3s");
        scratch_write(kept, "damaged");
        assert_int_equal(fetch(s, &c, "", &again, NULL), 0);
        assert_string_equal(again.image_path, p.image_path);
        assert_holds(kept, PROGRAM);
}

static void a_damaged_image_archive_in_the_cache_is_refused(void **state) {
        struct scratch *s = *state;
        needs_server();
        serve_release(VERSION, PROGRAM, NULL);
        const struct payload_choice c = {.kind = PAYLOAD_RELEASE, .version = (char *)VERSION};
        _cleanup_free_ char *folder = path_join(s->p->cache_dir, "downloads", "k3s", VERSION);
        _cleanup_free_ char *images = path_join(folder, is_arm() ? "k3s-airgap-images-arm64.tar.zst"
                                                                 : "k3s-airgap-images-amd64.tar.zst");
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        scratch_write(images, "half an archive");
        struct payload p = {0};
        assert_int_equal(fetch(s, &c, "", &p, NULL), -EBADMSG);
        /* One that the user gives takes its place. */
        _cleanup_payload_ struct payload with = {0};
        _cleanup_free_ char *own = path_join(s->root, "own images.tar");
        scratch_write(own, "the user's images");
        assert_int_equal(unlink(images), 0);
        assert_int_equal(fetch(s, &c, "own images.tar", &with, NULL), 0);
        assert_holds(with.image_path, "the user's images");
        assert_true(fetch(s, &c, "no such.tar", &p, NULL) < 0);
}

static void a_binary_says_its_version_or_is_custom(void **state) {
        struct scratch *s = *state;
        static const struct {
                const char *script, *version;
        } binaries[] = {
                        {"#!/bin/sh\necho \"${0##*/} version v1.21.2+k3s1 (5a67e8dc)\"; echo 'go version go1.16'\n",
                         "v1.21.2+k3s1"},
                        {"#!/bin/sh\necho 'kubectl version 3'\n", "custom"},
                        {"#!/bin/sh\necho 'k3s-arm64 version v9'; exit 1\n", "custom"},
                        {"#!/bin/sh\nprintf 'k3s-arm64 version \\033[31mred\\n'\n", "\\x1b[31mred"},
                        {"\177ELF for another machine", "custom"},
        };
        /* K3s calls itself what its file is called, and releases are called this, too. */
        _cleanup_free_ char *path = path_join(s->root, "k3s-arm64"), *first = NULL;
        for (size_t i = 0; i < ELEMENTSOF(binaries); i++) {
                assert_int_equal(fs_write_atomic(path, binaries[i].script, strlen(binaries[i].script), 0755, NULL), 0);
                _cleanup_payload_choice_ struct payload_choice c = {0};
                _cleanup_payload_ struct payload p = {0}, again = {0};
                assert_int_equal(resolve(s, path, &c, NULL), 0);
                assert_int_equal(fetch(s, &c, "", &p, NULL), 0);
                assert_string_equal(p.version, binaries[i].version);
                assert_holds(p.image_path, binaries[i].script);
                assert_int_equal(fetch(s, &c, "", &again, NULL), 0);
                assert_string_equal(p.image_path, again.image_path);
                if (first)
                        assert_string_not_equal(first, p.image_path);
                else
                        first = xstrdup(p.image_path);
        }
}

/* What stands for K3s, whose compressed programs these are. */
#define UNPACKING \
        "#!/bin/sh\n[ \"$1\" = ctr ] || exit 0\nt=$K3S_DATA_DIR/data/%064d/bin\n" \
        "mkdir -p $t && printf 'unpacked %%s' contents >$t/k3s && chmod 755 $t/k3s\n"

static void what_k3s_unpacks_goes_into_the_image_and_is_unpacked_once(void **state) {
        struct scratch *s = *state;
        _cleanup_close_ int confinement = -1;
        if (confine_writes(s->dir, &confinement, NULL) < 0)
                must_skip("this kernel has no Landlock");
        _cleanup_free_ char *path = path_join(s->root, "k3s"), *script = xasprintf(UNPACKING, 7);
        assert_int_equal(fs_write_atomic(path, script, strlen(script), 0755, NULL), 0);
        _cleanup_payload_choice_ struct payload_choice c = {0};
        _cleanup_payload_ struct payload p = {0}, again = {0};
        struct stat before, after;
        assert_int_equal(resolve(s, path, &c, NULL), 0);
        assert_int_equal(fetch(s, &c, "", &p, NULL), 0);
        assert_holds(p.image_path, "unpacked contents");
        assert_holds(p.image_path, "ExecStart=/opt/k3s/lib/k3s-data");
        assert_holds(p.image_path, "mount -t overlay");
        assert_int_equal(stat(p.image_path, &before), 0);
        assert_int_equal(fetch(s, &c, "", &again, NULL), 0);
        assert_int_equal(stat(again.image_path, &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
        _cleanup_free_ char *folder = path_parent(p.image_path);
        _cleanup_closedir_ DIR *dir = opendir(folder);
        for (struct dirent *entry; (entry = readdir(dir));)
                if (str_starts(entry->d_name, ".unpacked"))
                        fail_msg("%s is left", entry->d_name);
}

int main(void) {
#define payload_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                        payload_test(words_and_exact_versions_need_no_network),
                        payload_test(a_path_must_lead_to_a_file),
                        payload_test(nonsense_is_a_usage_error),
                        payload_test(a_channel_leads_to_its_release),
                        payload_test(a_channel_that_does_not_exist_is_a_usage_error_that_lists_them),
                        payload_test(without_a_network_and_a_cache_it_is_the_offline_payload),
                        payload_test(a_channel_server_without_a_release_server_is_no_network),
                        payload_test(answers_that_make_no_sense_count_as_none),
                        payload_test(a_silent_channel_server_costs_five_seconds_at_most),
                        payload_test(a_release_becomes_an_image_and_is_kept),
                        payload_test(a_program_that_is_not_the_published_one_is_refused),
                        payload_test(a_release_that_does_not_exist_is_a_usage_error),
                        payload_test(a_damaged_program_in_the_cache_is_fetched_anew),
                        payload_test(a_damaged_image_archive_in_the_cache_is_refused),
                        payload_test(a_binary_says_its_version_or_is_custom),
                        payload_test(what_k3s_unpacks_goes_into_the_image_and_is_unpacked_once),
        };
        return cmocka_run_group_tests_name("payload", tests, https_group_setup, https_group_teardown);
}
