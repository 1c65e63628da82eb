/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

#define archive_entry libarchive_entry
#include <archive.h>
#include <archive_entry.h>
#undef archive_entry

#include <k3s-vm/archive.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/library.h>

#define SYMBOLS(X) \
        X(archive_read_new) \
        X(archive_read_support_format_iso9660) \
        X(archive_read_open_filename) \
        X(archive_read_next_header) \
        X(archive_read_data) \
        X(archive_read_free) \
        X(archive_entry_mtime) \
        X(archive_entry_pathname) \
        X(archive_entry_perm) \
        X(archive_entry_size) \
        X(archive_entry_symlink) \
        X(archive_entry_uid)
LIBRARY_DECLARE(reader, SYMBOLS);

struct scratch {
        char *dir;
};

static int setup(void **state) {
        struct scratch *s = xcalloc(1, sizeof(*s));
        *state = s;
        return fs_mkdtemp("/tmp", "k3s-vm-archive", &s->dir, NULL);
}

static int teardown(void **state) {
        struct scratch *s = *state;
        int r = fs_remove_tree(s->dir, NULL);
        free(s->dir);
        free(s);
        return r;
}

/* One member in ustar's format. @type: '0' file, '1' hard link, '2' symlink, '3' device, '5' folder. */
static void add(struct buf *tar, const char *name, char type, unsigned mode, const char *text) {
        char head[512] = {0};
        bool link = type == '1' || type == '2';
        size_t len = type == '0' ? strlen(text) : 0;
        snprintf(head, 100, "%s", name);
        snprintf(head + 100, 8, "%07o", mode);
        snprintf(head + 108, 8, "%07o", 0U);
        snprintf(head + 116, 8, "%07o", 0U);
        snprintf(head + 124, 12, "%011o", (unsigned)len & 0777777);
        snprintf(head + 136, 12, "%011o", 0U);
        head[156] = type;
        if (link)
                snprintf(head + 157, 100, "%s", text);
        memcpy(head + 257, "ustar\00000", 8);
        memset(head + 148, ' ', 8);
        unsigned sum = 0;
        for (size_t i = 0; i < sizeof(head); i++)
                sum += (unsigned char)head[i];
        snprintf(head + 148, 7, "%06o", sum);
        buf_append(tar, head, sizeof(head));
        if (len > 0) {
                char block[512] = {0};
                assert_true(len <= sizeof(block));
                memcpy(block, text, len);
                buf_append(tar, block, sizeof(block));
        }
}

static void end(struct buf *tar) {
        static const char zeros[1024];
        buf_append(tar, zeros, sizeof(zeros));
}

static char *read_text(const char *dir, const char *name) {
        _cleanup_free_ char *path = path_join(dir, name);
        struct buf b = BUF_INIT(1U << 20);
        assert_int_equal(fs_read(path, 1U << 20, &b, NULL), 0);
        return buf_take(&b);
}

static unsigned mode_of(const char *dir, const char *name) {
        _cleanup_free_ char *path = path_join(dir, name);
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        return st.st_mode & 07777;
}

static bool exists(const char *dir, const char *name) {
        _cleanup_free_ char *path = path_join(dir, name);
        struct stat st;
        return lstat(path, &st) == 0;
}

static void only_what_is_under_the_prefix_is_unpacked(void **state) {
        struct scratch *s = *state;
        _cleanup_buf_ struct buf tar = BUF_INIT(0);
        add(&tar, "guest/", '5', 0755, "");
        add(&tar, "guest/debian/", '5', 0755, "");
        add(&tar, "guest/debian/build", '0', 0755, "#!/bin/sh\n");
        add(&tar, "guest/debian/rootfs/etc/motd", '0', 0640, "hello");
        add(&tar, "guest/debian-old/x", '0', 0644, "no");
        add(&tar, "payload/k3s/build", '0', 0755, "no");
        end(&tar);
        assert_int_equal(archive_unpack(tar.data, tar.len, "guest/debian", s->dir, NULL), 0);
        _cleanup_free_ char *build = read_text(s->dir, "build"), *motd = read_text(s->dir, "rootfs/etc/motd");
        assert_string_equal(build, "#!/bin/sh\n");
        assert_string_equal(motd, "hello");
        assert_int_equal(mode_of(s->dir, "build"), 0755);
        assert_int_equal(mode_of(s->dir, "rootfs/etc/motd"), 0640);
        assert_false(exists(s->dir, "x") || exists(s->dir, "guest") || exists(s->dir, "payload"));

        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(archive_unpack(tar.data, tar.len, "guest/nixos", s->dir, &err), -ENOENT);
        assert_int_equal(archive_unpack(tar.data, tar.len, "guest/debian/", s->dir, &err), 0);
        assert_int_equal(archive_unpack(tar.data, tar.len, "", s->dir, &err), 0);
        assert_true(exists(s->dir, "payload/k3s/build"));
}

static void unpacking_replaces_files_and_not_what_links_point_to(void **state) {
        struct scratch *s = *state;
        _cleanup_buf_ struct buf tar = BUF_INIT(0);
        add(&tar, "./f", '0', 0444, "new");
        add(&tar, "g", '0', 04755, "");
        add(&tar, "ro/", '5', 0555, "");
        add(&tar, "ro/x", '0', 0600, "x");
        end(&tar);
        _cleanup_free_ char *f = path_join(s->dir, "f"), *victim = path_join(s->dir, "victim");
        assert_int_equal(fs_write_atomic(victim, "old", 3, 0600, NULL), 0);
        assert_int_equal(symlink("victim", f), 0);
        assert_int_equal(archive_unpack(tar.data, tar.len, "", s->dir, NULL), 0);
        assert_int_equal(archive_unpack(tar.data, tar.len, "", s->dir, NULL), 0);
        _cleanup_free_ char *text = read_text(s->dir, "f"), *old = read_text(s->dir, "victim");
        assert_string_equal(text, "new");
        assert_string_equal(old, "old");
        assert_int_equal(mode_of(s->dir, "f"), 0444);
        assert_int_equal(mode_of(s->dir, "g"), 0755);
        assert_int_equal(mode_of(s->dir, "ro"), 0755);
}

static void links_that_stay_inside_are_kept(void **state) {
        struct scratch *s = *state;
        _cleanup_buf_ struct buf tar = BUF_INIT(0);
        add(&tar, "p/a/file", '0', 0644, "x");
        add(&tar, "p/a/b/up", '2', 0777, "../file");
        add(&tar, "p/here", '2', 0777, "a/file");
        add(&tar, "p/hard", '1', 0644, "p/a/file");
        end(&tar);
        assert_int_equal(archive_unpack(tar.data, tar.len, "p", s->dir, NULL), 0);
        _cleanup_free_ char *up = read_text(s->dir, "a/b/up"), *here = read_text(s->dir, "here"),
                            *hard = read_text(s->dir, "hard");
        assert_string_equal(up, "x");
        assert_string_equal(here, "x");
        assert_string_equal(hard, "x");
}

static void what_leads_out_is_refused(void **state) {
        struct scratch *s = *state;
        static const struct {
                const char *name, *target;
                char type;
        } bad[] = {{"/abs", "x", '0'},   {"../out", "x", '0'}, {"a/../../out", "x", '0'}, {"a/./b", "x", '0'},
                   {"l", "/etc", '2'},   {"l", "..", '2'},     {"a/l", "../../x", '2'},   {"l", "a/../..", '2'},
                   {"l", "a/../b", '2'}, {"h", "../out", '1'}, {"h", "/etc/passwd", '1'}, {"dev", "", '3'}};
        _cleanup_free_ char *inner = path_join(s->dir, "inner");
        assert_int_equal(mkdir(inner, 0755), 0);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_buf_ struct buf tar = BUF_INIT(0);
                _cleanup_error_ struct error err = ERROR_INIT;
                add(&tar, bad[i].name, bad[i].type, 0644, bad[i].target);
                end(&tar);
                assert_int_equal(archive_unpack(tar.data, tar.len, "", inner, &err), -EPERM);
                assert_false(exists(s->dir, "out") || exists(inner, "l") || exists(inner, "h") || exists(inner, "dev"));
        }
}

static void nothing_is_written_through_a_symlink(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *inner = path_join(s->dir, "inner"), *outer = path_join(s->dir, "outer"),
                            *link = path_join(inner, "link");
        assert_int_equal(mkdir(inner, 0755), 0);
        assert_int_equal(mkdir(outer, 0755), 0);
        assert_int_equal(symlink("../outer", link), 0);
        _cleanup_buf_ struct buf tar = BUF_INIT(0);
        add(&tar, "link/file", '0', 0644, "x");
        end(&tar);
        assert_true(archive_unpack(tar.data, tar.len, "", inner, NULL) < 0);
        assert_false(exists(outer, "file"));
}

static void a_damaged_archive_is_an_error(void **state) {
        struct scratch *s = *state;
        _cleanup_buf_ struct buf tar = BUF_INIT(0);
        add(&tar, "file", '0', 0644, "x");
        end(&tar);
        assert_true(archive_unpack(tar.data, 600, "", s->dir, NULL) < 0);
        assert_true(archive_unpack("junk", 4, "", s->dir, NULL) < 0);
        tar.data[150] ^= 1;
        assert_true(archive_unpack(tar.data, tar.len, "", s->dir, NULL) < 0);
        _cleanup_free_ char *missing = path_join(s->dir, "missing");
        assert_int_equal(archive_unpack(tar.data, tar.len, "", missing, NULL), -ENOENT);
}

/* What is in an image, a line a member: name, mode, owner, time, size, first bytes. */
static char *list_image(const char *path) {
        struct buf b = BUF_INIT(0);
        assert_int_equal(LIBRARY_LOAD(reader, "libarchive.so.13", SYMBOLS, NULL), 0);
        struct archive *a = reader.archive_read_new();
        assert_int_equal(reader.archive_read_support_format_iso9660(a), ARCHIVE_OK);
        assert_int_equal(reader.archive_read_open_filename(a, path, 65536), ARCHIVE_OK);
        struct libarchive_entry *entry;
        while (reader.archive_read_next_header(a, &entry) == ARCHIVE_OK) {
                char text[64] = {0};
                const char *link = reader.archive_entry_symlink(entry);
                if (link)
                        snprintf(text, sizeof(text), "-> %s", link);
                else
                        reader.archive_read_data(a, text, 8);
                buf_printf(&b, "%s %o %d %d %d %s\n", reader.archive_entry_pathname(entry),
                           (unsigned)reader.archive_entry_perm(entry), (int)reader.archive_entry_uid(entry),
                           (int)reader.archive_entry_mtime(entry), (int)reader.archive_entry_size(entry), text);
        }
        reader.archive_read_free(a);
        return buf_take(&b);
}

static void assert_listed(const char *listing, const char *line) {
        if (!strstr(listing, line))
                fail_msg("no \"%s\" in\n%s", line, listing);
}

static void an_image_keeps_names_modes_and_contents(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *image = path_join(s->dir, "a.iso"), *source = path_join(s->dir, "source");
        size_t len = 3 * 1024 * 1024 + 5;
        _cleanup_free_ char *big = xcalloc(len, 1);
        memset(big, 'k', len);
        assert_int_equal(fs_write_atomic(source, big, len, 0600, NULL), 0);
        char longest[5 + 255 + 1] = "long/";
        memset(longest + 5, 'x', 255);
        const struct archive_entry entries[] = {
                        {.name = "bin/k3s", .source_path = source, .mode = 0755},
                        {.name = "meta-data", .data = "id: 1\n", .len = 6, .mode = 0600},
                        {.name = "empty", .data = "", .mode = 0640},
                        {.name = "secret/key", .data = "k", .len = 1, .mode = 0400},
                        {.name = "secret", .mode = 0700},
                        {.name = "a/b/c/d/e/f/g/h/i/j", .data = "deep", .len = 4, .mode = 0444},
                        {.name = longest, .data = "l", .len = 1, .mode = 0111},
        };
        _cleanup_error_ struct error err = ERROR_INIT;
        if (archive_write_iso(image, "cidata", entries, ELEMENTSOF(entries), &err) < 0)
                fail_msg("%s", err.message);
        _cleanup_free_ char *listing = list_image(image);
        assert_listed(listing, "bin/k3s 755 0 0 3145733 kkkkkkkk\n");
        assert_listed(listing, "meta-data 600 0 0 6 id: 1\n");
        assert_listed(listing, "empty 640 0 0 0 \n");
        assert_listed(listing, "secret/key 400 0 0 1 k\n");
        assert_listed(listing, "secret 700 0 0 ");
        assert_listed(listing, "bin 755 0 0 ");
        assert_listed(listing, "/j 444 0 0 4 deep\n");
        assert_listed(listing, longest);
        assert_int_equal(mode_of(s->dir, "a.iso"), 0644);
}

static void an_image_keeps_symlinks(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *image = path_join(s->dir, "a.iso");
        char far[400];
        memset(far, 'x', sizeof(far));
        for (size_t i = 0; i < sizeof(far); i += 40)
                far[i] = '/';
        far[sizeof(far) - 1] = '\0';
        const struct archive_entry entries[] = {
                        {.name = "bin/kubectl", .link = "k3s", .mode = 0777},
                        {.name = "bin/up", .link = "../lib/./x", .mode = 0777},
                        {.name = "current", .link = "/var/lib/nowhere", .mode = 0777},
                        {.name = "far", .link = far, .mode = 0777}, /* longer than a directory record */
        };
        assert_int_equal(archive_write_iso(image, "X", entries, ELEMENTSOF(entries), NULL), 0);
        _cleanup_free_ char *listing = list_image(image);
        assert_listed(listing, "bin/kubectl 777 0 0 0 -> k3s\n");
        assert_listed(listing, "bin/up 777 0 0 0 -> ../lib/./x\n");
        assert_listed(listing, "current 777 0 0 0 -> /var/lib/nowhere\n");
        assert_listed(listing, "far 777 0 0 0 -> /xxx");
}

static void equal_input_gives_equal_bytes(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *one = path_join(s->dir, "1.iso"), *two = path_join(s->dir, "2.iso");
        const struct archive_entry entries[] = {{.name = "a/b/c/d/e/f/g/h/i/j", .data = "x", .len = 1, .mode = 0644},
                                                {.name = "f", .data = "y", .len = 1, .mode = 0644},
                                                {.name = "l", .link = "a/b/c", .mode = 0777}};
        setenv("TZ", "Asia/Tokyo", 1);
        assert_int_equal(archive_write_iso(one, "SEED", entries, 3, NULL), 0);
        setenv("TZ", "America/Lima", 1);
        assert_int_equal(archive_write_iso(two, "SEED", entries, 3, NULL), 0);
        unsetenv("TZ");
        tzset();
        _cleanup_buf_ struct buf a = BUF_INIT(0), b = BUF_INIT(0);
        assert_int_equal(fs_read(one, 1U << 20, &a, NULL), 0);
        assert_int_equal(fs_read(two, 1U << 20, &b, NULL), 0);
        assert_int_equal(a.len, b.len);
        assert_memory_equal(a.data, b.data, a.len);
        /* The times of the volume, and nowhere the year or the writer's version as text. */
        assert_memory_equal(a.data + 16 * 2048 + 813, "1970010100000000", 17);
        time_t now = time(NULL);
        struct tm tm;
        gmtime_r(&now, &tm);
        _cleanup_free_ char *year = xasprintf("%d", tm.tm_year + 1900);
        assert_null(memmem(a.data, a.len, year, strlen(year)));
        assert_null(memmem(a.data, a.len, "libarchive", 10));
        _cleanup_free_ char *listing = list_image(one);
        assert_listed(listing, ". 555 0 0 ");
}

static void a_failed_image_leaves_nothing_and_keeps_the_old_one(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *image = path_join(s->dir, "out/a.iso"), *out = path_join(s->dir, "out"),
                            *missing = path_join(s->dir, "missing");
        assert_int_equal(mkdir(out, 0755), 0);
        assert_int_equal(fs_write_atomic(image, "old", 3, 0600, NULL), 0);
        const struct archive_entry no_source = {.name = "f", .source_path = missing, .mode = 0644};
        const struct archive_entry folder = {.name = "f", .source_path = s->dir, .mode = 0644};
        const struct archive_entry twice[] = {{.name = "f", .data = "", .mode = 0644}, {.name = "f", .data = ""}};
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(archive_write_iso(image, "X", &no_source, 1, &err), -ENOENT);
        assert_non_null(strstr(err.message, missing));
        assert_int_equal(archive_write_iso(image, "X", &folder, 1, &err), -EINVAL);
        assert_int_equal(archive_write_iso(image, "X", twice, 2, &err), -EEXIST);
        static const char *const bad[] = {"", "/a", "a/", "../a", "a//b", ".", "a/.."};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                const struct archive_entry entry = {.name = bad[i], .data = "", .mode = 0644};
                assert_int_equal(archive_write_iso(image, "X", &entry, 1, &err), -EINVAL);
        }
        _cleanup_free_ char *old = read_text(s->dir, "out/a.iso");
        assert_string_equal(old, "old");
        assert_int_equal(unlink(image), 0);
        assert_int_equal(rmdir(out), 0);
        assert_int_equal(archive_write_iso(image, "X", twice, 1, &err), -ENOENT);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)
        const struct CMUnitTest tests[] = {
                        TEST(only_what_is_under_the_prefix_is_unpacked),
                        TEST(unpacking_replaces_files_and_not_what_links_point_to),
                        TEST(links_that_stay_inside_are_kept),
                        TEST(what_leads_out_is_refused),
                        TEST(nothing_is_written_through_a_symlink),
                        TEST(a_damaged_archive_is_an_error),
                        TEST(an_image_keeps_names_modes_and_contents),
                        TEST(an_image_keeps_symlinks),
                        TEST(equal_input_gives_equal_bytes),
                        TEST(a_failed_image_leaves_nothing_and_keeps_the_old_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
