/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#include "child.h"

static int set_up(void **state) {
        umask(022);
        return fs_mkdtemp("/tmp", "k3s-vm-fs", (char **)state, NULL);
}

static int tear_down(void **state) {
        int r = fs_remove_tree(*state, NULL);
        r |= fs_exists(*state) ? -1 : 0;
        free(*state);
        return r;
}

static void put(const char *path, const char *text) {
        assert_int_equal(fs_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

static void assert_contents(const char *path, const char *expected) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(fs_read(path, 1U << 20, &b, NULL), 0);
        assert_string_equal(buf_str(&b), expected);
}

static size_t entries_of(const char *path) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        size_t n = 0;
        while (dir && readdir(dir))
                n++;
        return n - 2; /* "." and ".." */
}

static unsigned mode_of(const char *path) {
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        return st.st_mode & 07777;
}

/* Paths. */

static void assert_path(char *path, const char *expected) {
        assert_string_equal(path, expected);
        free(path);
}

static void joined_paths_have_one_slash_between_the_parts(void **state _unused_) {
        assert_path(path_join("a", "b", "c"), "a/b/c");
        assert_path(path_join("a/", "/b"), "a/b");
        assert_path(path_join("/", "b"), "/b");
        assert_path(path_join("a"), "a");
}

static void the_base_and_the_parent_of_a_path(void **state _unused_) {
        assert_string_equal(path_base("/a/b"), "b");
        assert_string_equal(path_base("b"), "b");
        assert_path(path_parent("/a/b"), "/a");
        assert_path(path_parent("/a"), "/");
        assert_path(path_parent("a"), ".");
        assert_path(path_parent("a/b"), "a");
}

/* Reading. */

static void a_file_is_read_up_to_its_bound_and_not_beyond(void **state) {
        _cleanup_free_ char *path = path_join(*state, "file");
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        put(path, "12345");
        assert_int_equal(fs_read(path, 5, &b, NULL), 0);
        assert_string_equal(buf_str(&b), "12345");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(fs_read(path, 4, &b, &err), -EFBIG);
        assert_non_null(strstr(err.message, path));
        assert_string_equal(buf_str(&b), "12345");
        assert_int_equal(fs_read(path, 0, &b, NULL), -EFBIG);
}

static void an_empty_file_is_the_empty_string(void **state) {
        _cleanup_free_ char *path = path_join(*state, "file");
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        put(path, "");
        assert_int_equal(fs_read(path, 0, &b, NULL), 0);
        assert_string_equal(buf_str(&b), "");
}

static void files_whose_size_is_not_told_are_bounded_too(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(fs_read("/proc/self/status", 10, &b, NULL), -EFBIG);
        assert_int_equal(b.len, 0);
        assert_int_equal(fs_read("/proc/self/status", 1U << 16, &b, NULL), 0);
        assert_non_null(strstr(buf_str(&b), "\nPid:"));
}

static void a_buffer_without_room_stays_as_it_was(void **state) {
        _cleanup_free_ char *path = path_join(*state, "file");
        _cleanup_buf_ struct buf b = BUF_INIT(4);
        put(path, "12345");
        assert_int_equal(fs_read(path, 100, &b, NULL), -E2BIG);
        assert_string_equal(buf_str(&b), "");
}

static void what_is_no_file_is_not_read(void **state) {
        _cleanup_free_ char *path = path_join(*state, "fifo"), *missing = path_join(*state, "missing"),
                            *below = path_join(*state, "fifo", "x");
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(mkfifo(path, 0600), 0);
        /* Would hang if it were opened to be read. */
        assert_int_equal(fs_read(path, 100, &b, NULL), -EINVAL);
        assert_int_equal(fs_read("/dev/zero", 100, &b, NULL), -EINVAL);
        assert_int_equal(fs_read(*state, 100, &b, NULL), -EISDIR);
        assert_int_equal(fs_read(missing, 100, &b, NULL), -ENOENT);
        assert_int_equal(fs_read(below, 100, &b, NULL), -ENOTDIR);
}

/* Writing. */

static void a_write_replaces_contents_and_mode_whatever_the_umask(void **state) {
        _cleanup_free_ char *path = path_join(*state, "file");
        umask(077);
        assert_int_equal(fs_write_atomic(path, "one", 3, 0644, NULL), 0);
        assert_int_equal(mode_of(path), 0644);
        umask(0);
        assert_int_equal(fs_write_atomic(path, "a\0b", 3, 0600, NULL), 0);
        assert_int_equal(mode_of(path), 0600);
        assert_int_equal(fs_size(path), 3);
        assert_int_equal(entries_of(*state), 1);
}

static void a_symlink_is_replaced_and_its_target_kept(void **state) {
        _cleanup_free_ char *path = path_join(*state, "link"), *target = path_join(*state, "target");
        put(target, "target");
        assert_int_equal(symlink("target", path), 0);
        put(path, "new");
        assert_contents(target, "target");
        assert_contents(path, "new");
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        assert_true(S_ISREG(st.st_mode));
}

static void who_has_the_old_file_open_keeps_reading_it(void **state) {
        _cleanup_free_ char *path = path_join(*state, "file");
        put(path, "old");
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        put(path, "new");
        char text[4] = "";
        assert_int_equal(read(fd, text, 3), 3);
        assert_string_equal(text, "old");
}

static void a_failed_write_leaves_what_was_there_and_nothing_else(void **state) {
        _cleanup_free_ char *path = path_join(*state, "folder"), *inside = path_join(path, "kept"),
                            *missing = path_join(*state, "missing", "file");
        assert_int_equal(fs_mkdir_p(path, 0700, NULL), 0);
        put(inside, "kept");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(fs_write_atomic(path, "x", 1, 0600, &err) < 0);
        assert_non_null(strstr(err.message, path));
        assert_contents(inside, "kept");
        assert_int_equal(entries_of(*state), 1);
        assert_int_equal(fs_write_atomic(missing, "x", 1, 0600, NULL), -ENOENT);
        assert_int_equal(entries_of(*state), 1);
}

static void a_name_as_long_as_names_get_can_be_written(void **state) {
        char name[NAME_MAX + 1];
        memset(name, 'n', NAME_MAX);
        name[NAME_MAX] = '\0';
        _cleanup_free_ char *path = path_join(*state, name);
        put(path, "text");
        assert_contents(path, "text");
}

static bool write_text(const char *path, const char *text) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* Mounts a file system of 64 KiB at @path, in name spaces of this process's own. */
static int mount_tiny(const char *path) {
        _cleanup_free_ char *users = xasprintf("%d %d 1", geteuid(), geteuid()),
                            *groups = xasprintf("%d %d 1", getegid(), getegid());
        bool root = geteuid() == 0;
        if (unshare(root ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) < 0)
                return CHILD_SKIP;
        /* Files of users and groups that the name space does not know cannot be written. */
        if (!root && !(write_text("/proc/self/uid_map", users) && write_text("/proc/self/setgroups", "deny") &&
                       write_text("/proc/self/gid_map", groups)))
                return CHILD_SKIP;
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("tmpfs", path, "tmpfs", 0, "size=64k,mode=0777") < 0)
                return CHILD_SKIP;
        return 0;
}

static int write_to_a_full_disk(void *dir) {
        int r = mount_tiny(dir);
        if (r != 0)
                return r;
        _cleanup_free_ char *path = path_join(dir, "file"), *large = xcalloc(1, 1U << 20);
        CHECK(fs_write_atomic(path, "old", 3, 0600, NULL) == 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        CHECK(fs_write_atomic(path, large, 1U << 20, 0600, &err) == -ENOSPC);
        CHECK(err.message && strstr(err.message, "No space left"));
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        CHECK(fs_read(path, 10, &b, NULL) == 0 && str_eq(buf_str(&b), "old"));
        CHECK(entries_of(dir) == 1);
        uint64_t room = 0;
        CHECK(fs_free_bytes(path, &room, NULL) == 0);
        CHECK(room > 0 && room < 64U * 1024);
        return 0;
}

static void a_full_disk_leaves_the_old_file_whole(void **state) {
        child_run(write_to_a_full_disk, *state);
}

/* A pipe takes far less at once. */
#define MUCH_BYTES (1U << 20)
#define ENOUGH_SIGNALS 20

struct writer {
        int fd;
        int told; /* gets a byte for each signal */
};
static int told_fd;

static void on_alarm(int signal_number _unused_) {
        ssize_t n = write(told_fd, "", 1);
        (void)n;
}

static int write_much(void *userdata) {
        struct writer *w = userdata;
        _cleanup_free_ char *data = xcalloc(1, MUCH_BYTES);
        memset(data, 'x', MUCH_BYTES);
        told_fd = w->told;
        /* Without SA_RESTART. */
        struct sigaction action = {.sa_handler = on_alarm};
        struct itimerval often = {{0, 1000}, {0, 1000}}, never = {0};
        CHECK(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
        CHECK(fs_write_all(w->fd, data, MUCH_BYTES) == 0);
        CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
        return 0;
}

static void all_is_written_in_parts_and_in_spite_of_signals(void **state _unused_) {
        int data[2], told[2];
        assert_int_equal(pipe(data), 0);
        assert_int_equal(pipe(told), 0);
        pid_t pid = child_start(write_much, &(struct writer){data[1], told[1]});
        close(data[1]);
        close(told[1]);
        /* The pipe is full meanwhile, so these come in the midst of writing. */
        char byte;
        for (int i = 0; i < ENOUGH_SIGNALS; i++)
                assert_int_equal(read(told[0], &byte, 1), 1);
        _cleanup_buf_ struct buf b = BUF_INIT(2 * MUCH_BYTES);
        while (buf_read(&b, data[0]) > 0)
                ;
        assert_int_equal(child_status(pid), 0);
        assert_int_equal(b.len, MUCH_BYTES);
        assert_int_equal(strspn(buf_str(&b), "x"), MUCH_BYTES);
        close(data[0]);
        close(told[0]);
}

static void a_write_that_fails_says_why(void **state _unused_) {
        int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(fs_write_all(fd, "x", 1), -ENOSPC);
        assert_int_equal(fs_write_all(fd, "", 0), 0);
        close(fd);
        assert_int_equal(fs_write_all(-1, "x", 1), -EBADF);
}

/* Folders. */

static void folders_are_made_with_their_mode_and_existing_ones_left(void **state) {
        _cleanup_free_ char *a = path_join(*state, "a"), *c = path_join(*state, "a", "b", "c");
        umask(077);
        assert_int_equal(fs_mkdir_p(c, 0755, NULL), 0);
        assert_int_equal(mode_of(a), 0755);
        assert_int_equal(mode_of(c), 0755);
        assert_int_equal(fs_mkdir_p(c, 0700, NULL), 0);
        assert_int_equal(mode_of(c), 0755);
        _cleanup_free_ char *slashes = xasprintf("%s//a//x/", (char *)*state), *x = path_join(*state, "a", "x");
        assert_int_equal(fs_mkdir_p(slashes, 0700, NULL), 0);
        assert_true(fs_is_dir(x));
        assert_int_equal(fs_mkdir_p("/", 0700, NULL), 0);
        assert_int_equal(fs_mkdir_p("", 0700, NULL), -ENOENT);
}

static void a_file_in_the_way_of_a_folder_is_an_error(void **state) {
        _cleanup_free_ char *file = path_join(*state, "file"), *below = path_join(*state, "file", "x");
        put(file, "");
        assert_int_equal(fs_mkdir_p(file, 0700, NULL), -ENOTDIR);
        assert_int_equal(fs_mkdir_p(below, 0700, NULL), -ENOTDIR);
}

static void a_private_folder_is_made_and_accepted_again(void **state) {
        _cleanup_free_ char *path = path_join(*state, "private");
        umask(0777);
        assert_int_equal(fs_mkdir_private(path, NULL), 0);
        umask(022);
        assert_int_equal(mode_of(path), 0700);
        assert_int_equal(fs_mkdir_private(path, NULL), 0);
        assert_int_equal(mode_of(path), 0700);
}

static void a_folder_that_others_may_enter_or_its_owner_may_not_is_made_private(void **state) {
        _cleanup_free_ char *path = path_join(*state, "private");
        static const mode_t modes[] = {0755, 0770, 0702, 01777, 0500, 0};
        assert_int_equal(mkdir(path, 0700), 0);
        for (size_t i = 0; i < ELEMENTSOF(modes); i++) {
                assert_int_equal(chmod(path, modes[i]), 0);
                assert_int_equal(fs_mkdir_private(path, NULL), 0);
                assert_int_equal(mode_of(path), 0700);
        }
}

static void what_is_no_folder_of_this_user_is_not_private(void **state) {
        _cleanup_free_ char *target = path_join(*state, "target"), *link = path_join(*state, "link"),
                            *file = path_join(*state, "file");
        assert_int_equal(mkdir(target, 0700), 0);
        assert_int_equal(symlink(target, link), 0);
        put(file, "");
        assert_int_equal(fs_mkdir_private(link, NULL), -EPERM);
        assert_int_equal(fs_mkdir_private(file, NULL), -EPERM);
        if (geteuid() == 0)
                assert_int_equal(chown(target, 65534, 65534), 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(fs_mkdir_private(geteuid() == 0 ? target : "/", &err), -EPERM);
        assert_int_equal(err.code, ERR_HOST);
}

/* As if it had been made a minute ago. */
static void make_older(const char *path) {
        const struct timespec times[2] = {{.tv_sec = time(NULL) - 60}, {.tv_sec = time(NULL) - 60}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void what_killed_programs_left_is_swept_and_what_somebody_holds_is_not(void **state) {
        _cleanup_free_ char *tree = path_join(*state, ".x.tree"), *in_tree = path_join(tree, "file"),
                            *file = path_join(*state, ".x.file.part"), *held = path_join(*state, ".x.held"),
                            *fresh = path_join(*state, ".x.new"), *other = path_join(*state, "y"),
                            *outside = path_join(*state, "outside"), *link = path_join(*state, ".x.link");
        assert_int_equal(mkdir(tree, 0700) | mkdir(held, 0700) | mkdir(fresh, 0700) | mkdir(outside, 0700), 0);
        put(in_tree, "");
        put(file, "");
        put(other, "");
        assert_int_equal(symlink(outside, link), 0);
        const char *const old[] = {tree, file, held, other, outside, link};
        for (size_t i = 0; i < ELEMENTSOF(old); i++)
                make_older(old[i]);
        {
                _cleanup_close_ int hold = fs_hold_path(held);
                assert_true(hold >= 0);
                fs_sweep_path(*state, ".x.", ".part");
                assert_true(fs_exists(tree) && !fs_exists(file));
                fs_sweep_path(*state, ".x.", "");
                assert_false(fs_exists(tree));
                assert_true(fs_exists(held) && fs_exists(fresh) && fs_exists(other) && fs_exists(outside));
        }
        fs_sweep_path(*state, ".x.", "");
        assert_false(fs_exists(held));
        assert_int_equal(access(outside, F_OK), 0);
}

static void two_temporary_folders_are_never_the_same(void **state) {
        _cleanup_free_ char *a = NULL, *b = NULL, *missing = path_join(*state, "missing"), *c = NULL;
        assert_int_equal(fs_mkdtemp(*state, "t", &a, NULL), 0);
        assert_int_equal(fs_mkdtemp(*state, "t", &b, NULL), 0);
        assert_string_not_equal(a, b);
        assert_int_equal(mode_of(a), 0700);
        assert_int_equal(fs_mkdtemp(missing, "t", &c, NULL), -ENOENT);
        assert_null(c);
}

/* Removing. */

static void a_tree_is_removed_and_what_its_links_lead_to_stays(void **state) {
        _cleanup_free_ char *tree = path_join(*state, "tree"), *below = path_join(tree, "a", "b"),
                            *outside = path_join(*state, "outside"), *kept = path_join(outside, "kept"),
                            *link = path_join(below, "link"), *dangling = path_join(tree, "dangling"),
                            *fifo = path_join(tree, "fifo"), *file = path_join(below, "file");
        assert_int_equal(fs_mkdir_p(below, 0700, NULL), 0);
        assert_int_equal(fs_mkdir_p(outside, 0700, NULL), 0);
        put(kept, "kept");
        put(file, "x");
        assert_int_equal(symlink(outside, link), 0);
        assert_int_equal(symlink("nowhere", dangling), 0);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        assert_int_equal(fs_remove_tree(tree, NULL), 0);
        assert_false(fs_exists(tree));
        assert_contents(kept, "kept");
}

static void a_link_in_the_tree_s_place_is_removed_itself(void **state) {
        _cleanup_free_ char *outside = path_join(*state, "outside"), *kept = path_join(outside, "kept"),
                            *link = path_join(*state, "link"), *slash = xasprintf("%s/", link);
        assert_int_equal(fs_mkdir_p(outside, 0700, NULL), 0);
        put(kept, "kept");
        assert_int_equal(symlink(outside, link), 0);
        fs_remove_tree(slash, NULL);
        assert_contents(kept, "kept");
        assert_int_equal(fs_remove_tree(link, NULL), 0);
        assert_int_equal(access(link, F_OK), -1);
        assert_contents(kept, "kept");
}

static void removing_what_is_missing_is_fine(void **state) {
        _cleanup_free_ char *missing = path_join(*state, "missing"), *below = path_join(*state, "missing", "x");
        assert_int_equal(fs_remove_tree(missing, NULL), 0);
        assert_int_equal(fs_remove_tree(below, NULL), 0);
        assert_int_equal(fs_unlink(missing, NULL), 0);
        assert_true(fs_unlink(*state, NULL) < 0);
        assert_true(fs_is_dir(*state));
}

static int remove_locked_folders(void *userdata _unused_) {
        if (child_drop_root() < 0)
                return CHILD_SKIP;
        _cleanup_free_ char *tree = NULL;
        CHECK(fs_mkdtemp("/tmp", "k3s-vm-fs", &tree, NULL) == 0);
        _cleanup_free_ char *a = path_join(tree, "a"), *b = path_join(a, "b"), *file = path_join(b, "file");
        CHECK(fs_mkdir_p(b, 0700, NULL) == 0);
        CHECK(fs_write_atomic(file, "x", 1, 0400, NULL) == 0);
        CHECK(chmod(b, 0) == 0 && chmod(a, 0300) == 0 && chmod(tree, 0555) == 0);
        CHECK(fs_remove_tree(tree, NULL) == 0);
        CHECK(!fs_exists(tree));
        return 0;
}

static void folders_that_their_owner_locked_are_removed(void **state _unused_) {
        child_run(remove_locked_folders, NULL);
}

static int remove_from_a_foreign_folder(void *file) {
        if (child_drop_root() < 0)
                return CHILD_SKIP;
        _cleanup_error_ struct error err = ERROR_INIT;
        CHECK(fs_remove_tree(file, &err) == -EPERM || err.errnum == EACCES);
        CHECK(strstr(err.message, file));
        CHECK(fs_exists(file));
        return 0;
}

static void a_file_that_may_not_be_removed_is_named_with_the_reason(void **state) {
        _cleanup_free_ char *dir = path_join(*state, "sticky"), *file = path_join(dir, "file");
        assert_int_equal(chmod(*state, 0755), 0);
        assert_int_equal(mkdir(dir, 0700), 0);
        put(file, "x");
        /* In a sticky folder only root's own child can be refused. */
        assert_int_equal(chmod(dir, geteuid() == 0 ? 01777 : 0555), 0);
        child_run(remove_from_a_foreign_folder, file);
}

/* Facts. */

static void sizes_and_what_is_really_allocated(void **state) {
        _cleanup_free_ char *path = path_join(*state, "sparse"), *missing = path_join(*state, "missing", "x");
        put(path, "x");
        assert_int_equal(truncate(path, 100L << 20), 0);
        assert_int_equal(fs_size(path), 100L << 20);
        assert_in_range(fs_allocated(path), 0, 1L << 20);
        assert_int_equal(fs_size(missing), -ENOENT);
        assert_int_equal(fs_allocated(missing), -ENOENT);
        uint64_t room = 0;
        assert_int_equal(fs_free_bytes(missing, &room, NULL), 0);
        assert_true(room > 0);
}

static void programs_are_found_on_path_if_they_can_be_run(void **state) {
        _cleanup_free_ char *first = path_join(*state, "first"), *second = path_join(*state, "second"),
                            *plain = path_join(first, "tool"), *tool = path_join(second, "tool"),
                            *folder = path_join(first, "folder"), *before = xstrdup(getenv("PATH")),
                            *search = xasprintf("%s::%s", first, second);
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        assert_int_equal(fs_mkdir_p(second, 0755, NULL), 0);
        put(plain, "not executable");
        assert_int_equal(fs_write_atomic(tool, "#!/bin/sh\n", 10, 0755, NULL), 0);
        setenv("PATH", search, 1);
        _cleanup_free_ char *found = fs_find_program("tool"), *none = fs_find_program("folder"),
                            *direct = fs_find_program(tool), *not_direct = fs_find_program(plain);
        setenv("PATH", before, 1);
        assert_string_equal(found, tool);
        assert_null(none);
        assert_string_equal(direct, tool);
        assert_null(not_direct);
}

static void times_are_written_as_rfc_3339(void **state _unused_) {
        assert_path(time_rfc3339(0), "1970-01-01T00:00:00Z");
        assert_path(time_rfc3339(1769862896), "2026-01-31T12:34:56Z");
        assert_path(time_rfc3339((time_t)INT64_MAX), "?");
}

/* Locks. */

struct holder {
        const char *path;
        int locked[2], release[2];
};

static int hold_lock(void *userdata) {
        struct holder *h = userdata;
        int fd = -1;
        close(h->release[1]);
        CHECK(fs_lock(h->path, 0, &fd, NULL) == 0);
        fs_lock_note(fd, "a note that is longer");
        fs_lock_note(fd, "`start` (process 1)");
        CHECK(write(h->locked[1], "x", 1) == 1);
        char c;
        CHECK(read(h->release[0], &c, 1) == 0); /* until the other end is closed */
        return 0;
}

static pid_t holder_start(struct holder *h, const char *path) {
        h->path = path;
        assert_int_equal(pipe2(h->locked, O_CLOEXEC), 0);
        assert_int_equal(pipe2(h->release, O_CLOEXEC), 0);
        pid_t pid = child_start(hold_lock, h);
        close(h->locked[1]);
        close(h->release[0]);
        char c;
        assert_int_equal(read(h->locked[0], &c, 1), 1);
        close(h->locked[0]);
        return pid;
}

static void a_lock_keeps_another_process_out_and_its_note_says_who_holds_it(void **state) {
        _cleanup_free_ char *path = path_join(*state, "lock");
        struct holder h;
        pid_t pid = holder_start(&h, path);
        int fd = -1;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(fs_lock(path, 0, &fd, &err), -EWOULDBLOCK);
        assert_non_null(err.message);
        assert_contents(path, "`start` (process 1)");
        uint64_t begin = now_ms();
        assert_int_equal(fs_lock(path, 60, &fd, &err), -ETIMEDOUT);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_true(now_ms() - begin >= 60);
        assert_int_equal(fd, -1);
        close(h.release[1]);
        assert_int_equal(fs_lock(path, 30000, &fd, NULL), 0);
        assert_int_equal(child_status(pid), 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(mode_of(path), 0600);
        close(fd);
        assert_int_equal(fs_lock(path, 0, &fd, NULL), 0);
        close(fd);
}

static void a_killed_holder_holds_nothing(void **state) {
        _cleanup_free_ char *path = path_join(*state, "lock");
        struct holder h;
        pid_t pid = holder_start(&h, path);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(child_status(pid), 128 + SIGKILL);
        _cleanup_close_ int fd = -1;
        assert_int_equal(fs_lock(path, 0, &fd, NULL), 0);
        close(h.release[1]);
}

static int wait_interrupted(void *path) {
        CHECK(interrupt_begin(NULL) == 0);
        _cleanup_close_ int fd = -1;
        kill(getpid(), SIGTERM);
        _cleanup_error_ struct error err = ERROR_INIT;
        CHECK(fs_lock(path, 60000, &fd, &err) == -ECANCELED);
        CHECK(err.code == ERR_INTERRUPTED);
        return 0;
}

static void an_interruption_ends_the_waiting_for_a_lock(void **state) {
        _cleanup_free_ char *path = path_join(*state, "lock");
        struct holder h;
        pid_t pid = holder_start(&h, path);
        uint64_t begin = now_ms();
        child_run(wait_interrupted, path);
        assert_true(now_ms() - begin < 30000);
        close(h.release[1]);
        assert_int_equal(child_status(pid), 0);
}

static void a_link_in_a_lock_s_place_is_refused(void **state) {
        _cleanup_free_ char *path = path_join(*state, "lock"), *target = path_join(*state, "target");
        assert_int_equal(symlink(target, path), 0);
        int fd = -1;
        assert_int_equal(fs_lock(path, 0, &fd, NULL), -ELOOP);
        assert_false(fs_exists(target));
}

/* "data" at 0 and at 5 MiB of 8 MiB, and nothing else. */
static void put_sparse(const char *path) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, "data", 4, 0), 4);
        assert_int_equal(pwrite(fd, "data", 4, 5 << 20), 4);
        assert_int_equal(ftruncate(fd, 8 << 20), 0);
}

static void a_copy_has_the_same_data_and_the_same_holes(void **state) {
        _cleanup_free_ char *from = path_join(*state, "from"), *to = path_join(*state, "to");
        put_sparse(from);
        put(to, "what was there");
        assert_int_equal(fs_copy_file(from, to, NULL), 0);
        assert_int_equal(fs_size(to), 8 << 20);
        assert_true(fs_allocated(to) < 1 << 20);
        _cleanup_close_ int fd = open(to, O_RDONLY | O_CLOEXEC);
        char text[5] = "";
        assert_int_equal(pread(fd, text, 4, 5 << 20), 4);
        assert_string_equal(text, "data");
        assert_int_equal(pread(fd, text, 4, 1 << 20), 4);
        assert_memory_equal(text, "\0\0\0\0", 4);
        struct stat st;
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
}

static void a_copy_that_cannot_be_made_is_not_there(void **state) {
        _cleanup_free_ char *from = path_join(*state, "from"), *to = path_join(*state, "to"),
                            *link = path_join(*state, "link"), *nowhere = path_join(*state, "no/to");
        assert_int_equal(fs_copy_file(from, to, NULL), -ENOENT);
        put(from, "text");
        assert_int_equal(symlink("from", link), 0);
        assert_int_equal(fs_copy_file(link, to, NULL), -ELOOP);
        assert_int_equal(fs_copy_file(from, nowhere, NULL), -ENOENT);
        assert_false(fs_exists(to));
        assert_contents(from, "text");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(joined_paths_have_one_slash_between_the_parts),
                        cmocka_unit_test(the_base_and_the_parent_of_a_path),
                        TEST(a_file_is_read_up_to_its_bound_and_not_beyond),
                        TEST(an_empty_file_is_the_empty_string),
                        TEST(files_whose_size_is_not_told_are_bounded_too),
                        TEST(a_buffer_without_room_stays_as_it_was),
                        TEST(what_is_no_file_is_not_read),
                        TEST(a_write_replaces_contents_and_mode_whatever_the_umask),
                        TEST(a_symlink_is_replaced_and_its_target_kept),
                        TEST(who_has_the_old_file_open_keeps_reading_it),
                        TEST(a_failed_write_leaves_what_was_there_and_nothing_else),
                        TEST(a_name_as_long_as_names_get_can_be_written),
                        TEST(a_full_disk_leaves_the_old_file_whole),
                        cmocka_unit_test(all_is_written_in_parts_and_in_spite_of_signals),
                        cmocka_unit_test(a_write_that_fails_says_why),
                        TEST(a_copy_has_the_same_data_and_the_same_holes),
                        TEST(a_copy_that_cannot_be_made_is_not_there),
                        TEST(folders_are_made_with_their_mode_and_existing_ones_left),
                        TEST(a_file_in_the_way_of_a_folder_is_an_error),
                        TEST(a_private_folder_is_made_and_accepted_again),
                        TEST(a_folder_that_others_may_enter_or_its_owner_may_not_is_made_private),
                        TEST(what_is_no_folder_of_this_user_is_not_private),
                        TEST(what_killed_programs_left_is_swept_and_what_somebody_holds_is_not),
                        TEST(two_temporary_folders_are_never_the_same),
                        TEST(a_tree_is_removed_and_what_its_links_lead_to_stays),
                        TEST(a_link_in_the_tree_s_place_is_removed_itself),
                        TEST(removing_what_is_missing_is_fine),
                        TEST(folders_that_their_owner_locked_are_removed),
                        TEST(a_file_that_may_not_be_removed_is_named_with_the_reason),
                        TEST(sizes_and_what_is_really_allocated),
                        TEST(programs_are_found_on_path_if_they_can_be_run),
                        cmocka_unit_test(times_are_written_as_rfc_3339),
                        TEST(a_lock_keeps_another_process_out_and_its_note_says_who_holds_it),
                        TEST(a_killed_holder_holds_nothing),
                        TEST(an_interruption_ends_the_waiting_for_a_lock),
                        TEST(a_link_in_a_lock_s_place_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
