/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/state.h>
#include <k3s-vm/verified.h>

#define UUID "0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90"

/* Makes CACHE/@name (with @complete in it; NULL: a file), last used @minutes ago. */
static void put(const struct scratch *t, const char *name, const char *complete, unsigned minutes) {
        _cleanup_free_ char *path = path_join(t->p->cache_dir, name), *parent = path_parent(path);
        assert_int_equal(fs_mkdir_p(parent, 0755, NULL), 0);
        if (complete) {
                _cleanup_free_ char *file = path_join(path, complete), *log = xasprintf("%s.log", path);
                assert_int_equal(fs_mkdir_p(path, 0755, NULL), 0);
                scratch_write(file, "{}");
                scratch_write(log, "");
        } else
                scratch_write(path, "");
        time_t then = (time_t)(wall_ms() / 1000) - (time_t)minutes * 60;
        const struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool is_there(const struct scratch *t, const char *name) {
        _cleanup_free_ char *path = path_join(t->p->cache_dir, name);
        return fs_exists(path);
}

/* The project's VM, registered, is made of these. */
static void use(const struct scratch *t, const char *guest, const char *payload, const char *version) {
        _cleanup_state_ struct state *s = state_new();
        s->uuid = xstrdup(UUID);
        s->name = xstrdup("shop");
        s->guest_dir = path_join(t->p->cache_dir, guest);
        s->payload_path = path_join(t->p->cache_dir, payload);
        s->payload_version = xstrdup(version);
        assert_int_equal(state_save(t->p, s, NULL), 0);
        assert_int_equal(registry_put(t->p, s, NULL), 0);
}

static void what_no_vm_uses_goes_but_the_two_that_were_used_last_of_each_kind(void **state) {
        struct scratch *t = *state;
        static const char *const guests[] = {"guests/a", "guests/b", "guests/c", "guests/d"},
                                 *const built[] = {"payloads/a", "payloads/b", "payloads/c", "payloads/d"},
                                 *const images[] = {"payloads/a.iso", "payloads/b.iso", "payloads/c.iso",
                                                    "payloads/d.iso"};
        for (unsigned i = 0; i < 4; i++) {
                put(t, guests[i], "guest.json", 100 + i);
                put(t, built[i], "payload.json", 100 + i);
                put(t, images[i], NULL, 100 + i);
        }
        cache_prune(t->p, NULL);
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(is_there(t, guests[i]), i < 2);
                assert_int_equal(is_there(t, built[i]), i < 2);
                assert_int_equal(is_there(t, images[i]), i < 2);
        }
        assert_false(is_there(t, "guests/c.log"));
        assert_true(is_there(t, "guests/b.log"));
}

static void what_a_vm_uses_stays_and_counts_for_nothing(void **state) {
        struct scratch *t = *state;
        put(t, "guests/used", "guest.json", 1000);
        put(t, "payloads/used", "payload.json", 1000);
        for (unsigned i = 0; i < 3; i++) {
                _cleanup_free_ char *guest = xasprintf("guests/%u", i), *payload = xasprintf("payloads/%u", i);
                put(t, guest, "guest.json", 100 + i);
                put(t, payload, "payload.json", 100 + i);
        }
        use(t, "guests/used", "payloads/used/payload.img", "v1");
        cache_prune(t->p, NULL);
        assert_true(is_there(t, "guests/used") && is_there(t, "payloads/used"));
        assert_true(is_there(t, "guests/1") && is_there(t, "payloads/1"));
        assert_false(is_there(t, "guests/2") || is_there(t, "payloads/2"));
}

static void what_was_used_in_the_last_hour_stays(void **state) {
        struct scratch *t = *state;
        static const char *const guests[] = {"guests/a", "guests/b", "guests/c", "guests/d"};
        for (unsigned i = 0; i < 4; i++)
                put(t, guests[i], "guest.json", 10 + i);
        cache_prune(t->p, NULL);
        for (unsigned i = 0; i < 4; i++)
                assert_true(is_there(t, guests[i]));
}

static void what_is_being_built_and_what_is_nobody_s_result_stays(void **state) {
        struct scratch *t = *state;
        put(t, "guests/a", "guest.json", 100);
        put(t, "guests/b", "guest.json", 101);
        put(t, "guests/locked", "guest.json", 102);
        put(t, "guests/unfinished", "something", 103);
        put(t, "guests/.building.x", "guest.json", 104);
        put(t, "payloads/file", NULL, 105);
        _cleanup_free_ char *lock_path = path_join(t->p->cache_dir, "guests/locked.lock");
        _cleanup_close_ int lock = -1;
        assert_int_equal(fs_lock(lock_path, 0, &lock, NULL), 0);
        cache_prune(t->p, NULL);
        static const char *const kept[] = {"guests/locked", "guests/unfinished", "guests/.building.x", "payloads/file"};
        for (size_t i = 0; i < ELEMENTSOF(kept); i++)
                assert_true(is_there(t, kept[i]));
}

static void nothing_goes_while_a_registered_vm_cannot_tell_what_it_uses(void **state) {
        struct scratch *t = *state;
        for (unsigned i = 0; i < 3; i++) {
                _cleanup_free_ char *guest = xasprintf("guests/%u", i);
                put(t, guest, "guest.json", 100 + i);
        }
        use(t, "guests/2", "payloads/x/payload.img", "v1");
        scratch_write(t->p->state_path, "{");
        cache_prune(t->p, NULL);
        assert_true(is_there(t, "guests/2"));
}

static void an_empty_cache_is_fine(void **state) {
        struct scratch *t = *state;
        cache_prune(t->p, NULL);
        assert_false(fs_exists(t->p->cache_dir));
}

static void the_list_has_what_is_kept_and_who_uses_it(void **state) {
        struct scratch *t = *state;
        put(t, "guests/used", "guest.json", 100);
        put(t, "guests/other", "guest.json", 200);
        put(t, "payloads/a.iso", NULL, 100);
        put(t, "downloads/k3s/v1.33.5+k3s1", "k3s", 100);
        put(t, "downloads/k3s/v1.32.1+k3s1", "k3s", 50);
        put(t, "downloads/k3s/channels", "stable", 100);
        put(t, "downloads/images/a.img.part", NULL, 100);
        put(t, "downloads/images/a.img.part.from", NULL, 100);
        put(t, "downloads/images/b.img", NULL, 200);
        put(t, "downloads/images/ubuntu-24.04", NULL, 100); /* a note of which image that was */
        _cleanup_free_ char *whole = path_join(t->p->cache_dir, "downloads/images/b.img");
        assert_int_equal(verified_note_file(whole, NULL), 0);
        use(t, "guests/used", "payloads/a.iso", "v1.33.5+k3s1");
        _cleanup_cache_entries_ struct cache_entries all = {0};
        assert_int_equal(cache_list(t->p, &all, NULL), 0);
        static const struct {
                const char *kind, *name;
                bool in_use;
        } expected[] = {{"guest", "used", true},           {"guest", "other", false},
                        {"payload", "a.iso", true},        {"release", "v1.32.1+k3s1", false},
                        {"release", "v1.33.5+k3s1", true}, {"image", "a.img.part", false},
                        {"image", "b.img", false}};
        assert_int_equal(all.n, ELEMENTSOF(expected));
        for (size_t i = 0; i < all.n; i++) {
                assert_string_equal(all.items[i].kind, expected[i].kind);
                assert_string_equal(path_base(all.items[i].path), expected[i].name);
                assert_int_equal(all.items[i].in_use, expected[i].in_use);
        }
        /* What somebody is downloading stays. */
        const struct cache_entry *part = &all.items[5], *release = &all.items[3];
        _cleanup_free_ char *from = xasprintf("%s.from", part->path), *half = path_join(release->path, "k3s.part");
        _cleanup_close_ int lock = -1, other = -1;
        assert_int_equal(fs_lock(part->path, 0, &lock, NULL), 0);
        assert_int_equal(cache_remove(part, NULL), -EWOULDBLOCK);
        close(TAKE_FD(lock));
        assert_int_equal(cache_remove(part, NULL), 0);
        assert_false(fs_exists(part->path) || fs_exists(from));
        assert_int_equal(fs_lock(half, 0, &other, NULL), 0);
        assert_int_equal(cache_remove(release, NULL), -EWOULDBLOCK);
        close(TAKE_FD(other));
        assert_int_equal(cache_remove(release, NULL), 0);
        assert_false(fs_exists(release->path));
}

struct found {
        unsigned good, damaged, unknown;
};

static void on_verified(_unused_ const char *path, int result, void *userdata) {
        struct found *f = userdata;
        f->good += result > 0;
        f->damaged += result == 0;
        f->unknown += result == -ENODATA;
}

static void damage_is_found_before_a_start_if_the_time_tells_and_always_by_verifying(void **state) {
        struct scratch *t = *state;
        put(t, "guests/a", "guest.json", 100);
        _cleanup_free_ char *dir = path_join(t->p->cache_dir, "guests/a"), *file = path_join(dir, "root.img"),
                            *late = path_join(dir, "late");
        scratch_write(file, "the guest");
        assert_int_equal(cache_note_folder(dir, NULL), 0);
        scratch_write(late, "");
        const struct cache_entry e = {.path = dir};
        struct found before = {0}, after = {0}, quiet = {0};
        assert_int_equal(cache_verify(&e, on_verified, &before, NULL), 0);
        assert_int_equal(before.good, 2);
        assert_int_equal(before.unknown, 1);
        assert_int_equal(cache_check_used(t->p, dir, NULL, NULL), 0);

        scratch_write(file, "the gueSt");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(cache_check_used(t->p, dir, NULL, &err), -EBADMSG);
        assert_non_null(strstr(err.message, "root.img is damaged"));
        assert_int_equal(cache_verify(&e, on_verified, &after, NULL), 0);
        assert_int_equal(after.damaged, 1);

        /* Under the eyes of nobody: the size, the time and the inode are the same. */
        scratch_write(file, "the guest");
        assert_int_equal(cache_check_used(t->p, dir, NULL, NULL), 0);
        struct stat st;
        assert_int_equal(stat(file, &st), 0);
        _cleanup_close_ int fd = open(file, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "S", 1, 7), 1);
        const struct timespec times[2] = {st.st_atim, st.st_mtim};
        assert_int_equal(futimens(fd, times), 0);
        assert_int_equal(cache_check_used(t->p, dir, NULL, NULL), 0);
        assert_int_equal(cache_verify(&e, on_verified, &quiet, NULL), 0);
        assert_int_equal(quiet.damaged, 1);
        /* What is the user's own is the user's to change. */
        assert_int_equal(cache_check_used(t->p, t->root, NULL, NULL), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(what_no_vm_uses_goes_but_the_two_that_were_used_last_of_each_kind),
                        scratch_test(what_a_vm_uses_stays_and_counts_for_nothing),
                        scratch_test(what_was_used_in_the_last_hour_stays),
                        scratch_test(what_is_being_built_and_what_is_nobody_s_result_stays),
                        scratch_test(nothing_goes_while_a_registered_vm_cannot_tell_what_it_uses),
                        scratch_test(the_list_has_what_is_kept_and_who_uses_it),
                        scratch_test(damage_is_found_before_a_start_if_the_time_tells_and_always_by_verifying),
                        scratch_test(an_empty_cache_is_fine),
        };
        return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
