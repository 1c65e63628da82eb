/* SPDX-License-Identifier: MIT */
/*
 * Copies, against a real sshd with OpenSSH's SFTP server, and against one that lies: called as
 * "remote_copy_test --sftp WHAT", this program is an SFTP server (version 3) whose one folder holds what a
 * guest should not be able to send.
 */
#include "sshd.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/interrupt.h>

/* The lying server. */

enum { FXP_INIT = 1, FXP_VERSION = 2, FXP_CLOSE = 4, FXP_LSTAT = 7, FXP_OPENDIR = 11, FXP_READDIR = 12, FXP_STAT = 17 };
enum { FXP_READLINK = 19, FXP_STATUS = 101, FXP_HANDLE = 102, FXP_NAME = 104, FXP_ATTRS = 105 };

static void put32(struct buf *b, uint32_t v) {
        const unsigned char bytes[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16), (unsigned char)(v >> 8),
                                        (unsigned char)v};
        buf_append(b, bytes, 4);
}

static void put_string(struct buf *b, const char *s, size_t len) {
        put32(b, (uint32_t)len);
        buf_append(b, s, len);
}

static void put_mode(struct buf *b, uint32_t mode) {
        put32(b, 4); /* permissions only */
        put32(b, mode);
}

static void answer(unsigned char type, const struct buf *payload) {
        struct buf b = BUF_INIT(0);
        put32(&b, (uint32_t)payload->len + 1);
        buf_append(&b, &type, 1);
        buf_append(&b, payload->data, payload->len);
        for (size_t at = 0; at < b.len;) {
                ssize_t n = write(1, b.data + at, b.len - at);
                if (n <= 0)
                        _exit(1);
                at += (size_t)n;
        }
        buf_free(&b);
}

static void read_all(void *to, size_t len) {
        for (size_t at = 0; at < len;) {
                ssize_t n = read(0, (char *)to + at, len - at);
                if (n <= 0)
                        _exit(0);
                at += (size_t)n;
        }
}

static const char *bad_name(const char *what) {
        return str_eq(what, "dotdot")     ? ".."
               : str_eq(what, "slash")    ? "../../evil"
               : str_eq(what, "absolute") ? "/tmp/k3s-vm-evil"
               : str_eq(what, "empty")    ? ""
               : str_eq(what, "links")    ? "link"
                                          : "deeper";
}

/* libssh wants to find the owner in it. */
#define LONG_NAME "drwxr-xr-x 2 root root 4096 Jan 1 00:00 x"

_Noreturn static void serve_sftp(const char *what) {
        bool listed = false;
        for (;;) {
                unsigned char head[9];
                read_all(head, 4);
                uint32_t len = (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
                char *packet = xcalloc(1, len + 1);
                read_all(packet, len);
                struct buf b = BUF_INIT(0);
                buf_append(&b, packet + 1, 4); /* the request's id */
                switch (packet[0]) {
                case FXP_INIT:
                        buf_clear(&b);
                        put32(&b, 3);
                        answer(FXP_VERSION, &b);
                        break;
                case FXP_STAT:
                case FXP_LSTAT:
                        put_mode(&b, S_IFDIR | 0755);
                        answer(FXP_ATTRS, &b);
                        break;
                case FXP_OPENDIR:
                        listed = false;
                        put_string(&b, "h", 1);
                        answer(FXP_HANDLE, &b);
                        break;
                case FXP_READDIR:
                        if (!listed) {
                                listed = true;
                                const char *name = bad_name(what);
                                bool links = str_eq(what, "links");
                                put32(&b, links ? 2 : 1);
                                put_string(&b, name, strlen(name));
                                put_string(&b, LONG_NAME, strlen(LONG_NAME));
                                put_mode(&b, links ? S_IFLNK | 0777 : S_IFDIR | 0755);
                                if (links) { /* and then a folder of the same name, to write through the link */
                                        put_string(&b, name, strlen(name));
                                        put_string(&b, LONG_NAME, strlen(LONG_NAME));
                                        put_mode(&b, S_IFDIR | 0755);
                                }
                                answer(FXP_NAME, &b);
                                break;
                        }
                        put32(&b, 1); /* end */
                        put_string(&b, "", 0);
                        put_string(&b, "", 0);
                        answer(FXP_STATUS, &b);
                        break;
                case FXP_READLINK:
                        put32(&b, 1);
                        put_string(&b, ".", 1); /* inside, so it is made */
                        put_string(&b, LONG_NAME, strlen(LONG_NAME));
                        put_mode(&b, S_IFLNK | 0777);
                        answer(FXP_NAME, &b);
                        break;
                default:
                        put32(&b, packet[0] == FXP_CLOSE ? 0 : 4);
                        put_string(&b, "", 0);
                        put_string(&b, "", 0);
                        answer(FXP_STATUS, &b);
                }
                buf_free(&b);
                free(packet);
        }
}

/* Passes @limit bytes on and then ends its whole process group. */
_Noreturn static void cut_off(size_t limit) {
        char chunk[4096];
        while (limit > 0) {
                ssize_t n = read(0, chunk, limit < sizeof(chunk) ? limit : sizeof(chunk));
                if (n <= 0 || write(1, chunk, (size_t)n) != n)
                        _exit(0);
                limit -= (size_t)n;
        }
        kill(0, SIGKILL);
        _exit(0);
}

/* The tests. */

struct scene {
        struct remote *remote;
        char *dir, *here, *there; /* DIR/here: this machine; DIR/there: the guest */
};

static void connect_scene(struct scene *s) {
        remote_free(TAKE_PTR(s->remote));
        s->remote = connected();
}

static int scene_setup(void **state) {
        struct scene *s = xcalloc(1, sizeof(*s));
        *state = s;
        if (!sshd)
                return 0;
        if (fs_mkdtemp("/tmp", "k3s-vm-test", &s->dir, NULL) < 0)
                return -1;
        s->here = path_join(s->dir, "here");
        s->there = path_join(s->dir, "there");
        if (mkdir(s->here, 0755) < 0 || mkdir(s->there, 0755) < 0)
                return -1;
        sshd_set_subsystem(sshd, sshd->sftp_server);
        connect_scene(s);
        return 0;
}

static int scene_teardown(void **state) {
        struct scene *s = *state;
        remote_free(s->remote);
        int r = s->dir ? fs_remove_tree(s->dir, NULL) : 0;
        free(s->dir);
        free(s->here);
        free(s->there);
        free(s);
        return r;
}

static struct scene *scene(void **state) {
        needs_sshd();
        return *state;
}

static char *here(const struct scene *s, const char *name) {
        return path_join(s->here, name);
}

static char *there(const struct scene *s, const char *name) {
        return path_join(s->there, name);
}

static void put_ok(struct scene *s, const char *local, const char *guest) {
        struct error err = ERROR_INIT;
        if (remote_put(s->remote, local, guest, NULL, NULL, &err) < 0)
                fail_msg("%s", err.message);
}

static void get_ok(struct scene *s, const char *guest, const char *local) {
        struct error err = ERROR_INIT;
        if (remote_get(s->remote, guest, local, NULL, NULL, &err) < 0)
                fail_msg("%s", err.message);
}

static void assert_text(const char *path, const char *text) {
        _cleanup_buf_ struct buf b = BUF_INIT(4096);
        if (fs_read(path, 4095, &b, NULL) < 0)
                fail_msg("%s cannot be read", path);
        assert_string_equal(buf_str(&b), text);
}

static mode_t mode_of(const char *path) {
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        return st.st_mode & 07777;
}

static size_t entries(const char *path) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        size_t n = 0;
        for (struct dirent *e; (e = readdir(dir));)
                n += !str_eq(e->d_name, ".") && !str_eq(e->d_name, "..");
        return n;
}

static void a_file_goes_there_and_back_with_its_permissions(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "a"), *b = there(s, "b"), *c = here(s, "c");
        write_text(a, "hello\n", 0751);
        put_ok(s, a, b);
        assert_text(b, "hello\n");
        assert_int_equal(mode_of(b), 0751);
        get_ok(s, b, c);
        assert_text(c, "hello\n");
        assert_int_equal(mode_of(c), 0751);
        assert_int_equal(entries(s->here), 2);
        assert_int_equal(entries(s->there), 1);
}

static void an_existing_file_is_replaced_and_a_folder_gets_it_inside(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "a b"), *b = there(s, "b"), *inside = there(s, "a b"), *back = here(s, "b");
        write_text(a, "new\n", 0644);
        write_text(b, "old and longer\n", 0600);
        put_ok(s, a, b);
        assert_text(b, "new\n");
        put_ok(s, a, s->there);
        assert_text(inside, "new\n");
        get_ok(s, b, s->here);
        assert_text(back, "new\n");
        assert_int_equal(entries(s->there), 2);
}

static void names_may_hold_anything(void **state) {
        struct scene *s = scene(state);
        const char *const names[] = {"a b",  "it's",   "\"quoted\"",  "new\nline", "\xc3\xa4\xe2\x82\xac",
                                     "$(x)", "-rf",    "back\\slash", "*",         "caf\xe9",
                                     ";ls",  " blank", "a,b=c"};
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *a = here(s, names[i]), *b = there(s, names[i]);
                write_text(a, names[i], 0644);
                write_text(b, "in the way", 0644); /* so that it is replaced, too */
                put_ok(s, a, b);
                assert_text(b, names[i]);
                assert_int_equal(unlink(a), 0);
                get_ok(s, b, a);
                assert_text(a, names[i]);
        }
        assert_int_equal(entries(s->there), ELEMENTSOF(names));
        assert_int_equal(entries(s->here), ELEMENTSOF(names));
}

static void big_files_stay_what_they_are(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "a"), *b = there(s, "b"), *c = here(s, "c");
        size_t len = (20U << 20) + 12345;
        _cleanup_free_ char *data = xcalloc(1, len);
        for (size_t i = 0; i < len; i++)
                data[i] = (char)(i * 2654435761U >> 24);
        assert_int_equal(fs_write_atomic(a, data, len, 0600, NULL), 0);
        put_ok(s, a, b);
        get_ok(s, b, c);
        char first[SHA256_HEX_LEN + 1], last[SHA256_HEX_LEN + 1];
        assert_int_equal(digest_file(a, first, NULL), 0);
        assert_int_equal(digest_file(c, last, NULL), 0);
        assert_string_equal(first, last);
}

static void empty_files_are_copied(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "a"), *b = there(s, "b"), *c = here(s, "c");
        write_text(a, "", 0644);
        put_ok(s, a, b);
        get_ok(s, b, c);
        assert_int_equal(fs_size(c), 0);
}

static void folders_go_there_and_back_with_everything(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "tree"), *sub = here(s, "tree/sub"), *file = here(s, "tree/sub/file"),
                            *empty = here(s, "tree/empty"), *locked = here(s, "tree/locked"),
                            *inside = here(s, "tree/locked/x"), *link = here(s, "tree/link"),
                            *up = here(s, "tree/sub/up"), *back = here(s, "back"), *copy = there(s, "tree");
        assert_int_equal(mkdir(a, 0755) | mkdir(sub, 0750) | mkdir(empty, 0700) | mkdir(locked, 0755), 0);
        write_text(file, "deep\n", 0640);
        write_text(inside, "x\n", 0444);
        assert_int_equal(symlink("sub/file", link) | symlink("../link", up), 0);
        assert_int_equal(chmod(locked, 0555), 0);
        put_ok(s, a, s->there);
        get_ok(s, copy, back);

        _cleanup_free_ char *b_file = here(s, "back/sub/file"), *b_empty = here(s, "back/empty"),
                            *b_locked = here(s, "back/locked"), *b_inside = here(s, "back/locked/x"),
                            *b_link = here(s, "back/link"), *b_up = here(s, "back/sub/up"),
                            *b_sub = here(s, "back/sub");
        assert_text(b_file, "deep\n");
        assert_text(b_link, "deep\n");
        assert_text(b_up, "deep\n");
        assert_text(b_inside, "x\n");
        assert_int_equal(mode_of(b_file), 0640);
        assert_int_equal(mode_of(b_sub), 0750);
        assert_int_equal(mode_of(b_empty), 0700);
        assert_int_equal(mode_of(b_locked), 0555);
        assert_int_equal(mode_of(b_inside), 0444);
        char target[100] = "";
        assert_true(readlink(b_up, target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "../link");
        assert_int_equal(entries(back), 4);
}

static void symlinks_to_the_guest_stay_symlinks_and_a_named_one_is_followed(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *file = here(s, "file"), *link = here(s, "link"), *tree = here(s, "tree"),
                            *out = here(s, "tree/out"), *copy = there(s, "link"), *t_out = there(s, "tree/out");
        write_text(file, "text\n", 0644);
        assert_int_equal(symlink("file", link) | mkdir(tree, 0755) | symlink("/etc/passwd", out), 0);
        put_ok(s, link, s->there);
        put_ok(s, tree, s->there);
        struct stat st;
        assert_int_equal(lstat(copy, &st), 0);
        assert_true(S_ISREG(st.st_mode));
        char target[100] = "";
        assert_int_equal(readlink(t_out, target, sizeof(target) - 1), 11);
        assert_string_equal(target, "/etc/passwd");
}

static void symlinks_that_lead_out_do_not_come_from_the_guest(void **state) {
        struct scene *s = scene(state);
        static const struct {
                const char *name, *target;
                bool comes;
        } links[] = {
                        {"absolute", "/etc/passwd", false},
                        {"up", "../here", false},
                        {"far", "../../../../tmp", false},
                        {"around", "sub/../../here", false},
                        {"sneaky", "sub/..", false}, /* stays inside, but could climb once "sub" were a symlink */
                        {"good", "sub/file", true},
                        {"dangling", "nowhere", true},
                        {"self", ".", true},
        };
        _cleanup_free_ char *tree = there(s, "tree"), *sub = there(s, "tree/sub"), *in_sub = there(s, "tree/sub/top"),
                            *too_far = there(s, "tree/sub/far"), *back = here(s, "back");
        assert_int_equal(mkdir(tree, 0755) | mkdir(sub, 0755), 0);
        assert_int_equal(symlink("../good", in_sub) | symlink("../../here", too_far), 0);
        for (size_t i = 0; i < ELEMENTSOF(links); i++) {
                _cleanup_free_ char *path = path_join(tree, links[i].name);
                assert_int_equal(symlink(links[i].target, path), 0);
        }
        get_ok(s, tree, back);
        struct stat st;
        for (size_t i = 0; i < ELEMENTSOF(links); i++) {
                _cleanup_free_ char *path = path_join(back, links[i].name);
                if ((lstat(path, &st) == 0) != links[i].comes)
                        fail_msg("%s -> %s", links[i].name, links[i].target);
        }
        _cleanup_free_ char *top = here(s, "back/sub/top"), *far = here(s, "back/sub/far");
        assert_int_equal(lstat(top, &st), 0);
        assert_int_equal(lstat(far, &st), -1);
}

static void special_files_are_left_out(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *tree = here(s, "tree"), *fifo = here(s, "tree/fifo"), *file = here(s, "tree/file"),
                            *copy = there(s, "tree"), *t_fifo = there(s, "tree/fifo2"), *back = here(s, "back"),
                            *b_file = here(s, "back/file");
        assert_int_equal(mkdir(tree, 0755) | mkfifo(fifo, 0644), 0);
        write_text(file, "x", 0644);
        put_ok(s, tree, s->there);
        assert_int_equal(entries(copy), 1);
        assert_int_equal(mkfifo(t_fifo, 0644), 0);
        get_ok(s, copy, back);
        assert_int_equal(entries(back), 1);
        assert_text(b_file, "x");
        assert_int_equal(remote_put(s->remote, fifo, copy, NULL, NULL, NULL), -EINVAL);
        assert_int_equal(remote_get(s->remote, t_fifo, s->here, NULL, NULL, NULL), -EINVAL);
}

static void what_is_missing_is_named(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *a = here(s, "nothing"), *b = there(s, "nothing"), *c = there(s, "no/folder"),
                            *file = here(s, "file");
        _cleanup_error_ struct error err = ERROR_INIT;
        write_text(file, "x", 0644);
        assert_int_equal(remote_put(s->remote, a, b, NULL, NULL, &err), -ENOENT);
        assert_non_null(strstr(err.message, "nothing"));
        assert_int_equal(remote_get(s->remote, b, a, NULL, NULL, &err), -ENOENT);
        assert_non_null(strstr(err.message, b));
        assert_int_equal(remote_put(s->remote, file, c, NULL, NULL, &err), -ENOENT);
        assert_int_equal(remote_get(s->remote, s->there, c, NULL, NULL, &err), -ENOENT);
        assert_int_equal(entries(s->there), 0);
        assert_int_equal(entries(s->here), 1);
}

static void a_folder_in_a_file_s_place_is_not_replaced(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *tree = here(s, "tree"), *file = there(s, "tree");
        assert_int_equal(mkdir(tree, 0755), 0);
        write_text(file, "file\n", 0644);
        assert_true(remote_put(s->remote, tree, file, NULL, NULL, NULL) < 0);
        assert_text(file, "file\n");
        _cleanup_free_ char *local = here(s, "local");
        write_text(local, "local\n", 0644);
        assert_true(remote_get(s->remote, s->there, local, NULL, NULL, NULL) < 0);
        assert_text(local, "local\n");
}

/* In a child, whose files may not grow beyond @limit: as a disk that is full. */
static int get_with_little_room(const char *guest, const char *local, rlim_t limit) {
        pid_t pid = fork();
        if (pid == 0) {
                const struct remote_address address = sshd_address(sshd);
                struct remote *r = NULL;
                signal(SIGXFSZ, SIG_IGN);
                if (remote_connect(&address, 10000, &r, NULL) < 0)
                        _exit(99);
                setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
                _exit(-remote_get(r, guest, local, NULL, NULL, NULL));
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WEXITSTATUS(status);
}

static void a_full_disk_leaves_nothing_behind(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *b = there(s, "b"), *a = here(s, "a"), *old = here(s, "old");
        _cleanup_free_ char *data = xcalloc(1, 1U << 20);
        assert_int_equal(fs_write_atomic(b, data, 1U << 20, 0644, NULL), 0);
        write_text(old, "old\n", 0644);
        assert_int_equal(get_with_little_room(b, a, 300000), EFBIG);
        assert_int_equal(get_with_little_room(b, old, 300000), EFBIG);
        assert_false(fs_exists(a));
        assert_text(old, "old\n");
        assert_int_equal(entries(s->here), 1);
}

static void what_a_killed_copy_left_here_is_removed_by_the_next(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *b = there(s, "b"), *a = here(s, "a"), *left = here(s, ".k3s-vm-0123456789abcdef.part"),
                            *busy = here(s, ".k3s-vm-1123456789abcdef.part"), *theirs = here(s, "x.part");
        const char *const files[] = {b, left, busy, theirs};
        const struct timespec times[2] = {{.tv_sec = time(NULL) - 60}, {.tv_sec = time(NULL) - 60}};
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                write_text(files[i], "text\n", 0644);
                assert_int_equal(utimensat(AT_FDCWD, files[i], times, 0), 0);
        }
        _cleanup_close_ int hold _unused_ = fs_hold_path(busy);
        assert_int_equal(remote_get(s->remote, b, a, NULL, NULL, NULL), 0);
        assert_text(a, "text\n");
        assert_false(fs_exists(left));
        assert_true(fs_exists(busy) && fs_exists(theirs));
}

static void a_server_that_dies_in_a_copy_leaves_nothing_behind(void **state) {
        struct scene *s = scene(state);
        /* The server, a process group of its own, ends once it has sent 300 kB. */
        _cleanup_free_ char *self = proc_self_path();
        _cleanup_free_ char *command = xasprintf("%s | \"%s\" --cut 300000", sshd->sftp_server, self);
        _cleanup_free_ char *wrapped = xasprintf("sh -c '%s'", command);
        sshd_set_subsystem(sshd, wrapped);
        connect_scene(s);
        _cleanup_free_ char *b = there(s, "b"), *a = here(s, "a");
        _cleanup_free_ char *data = xcalloc(1, 2U << 20);
        assert_int_equal(fs_write_atomic(b, data, 2U << 20, 0644, NULL), 0);
        uint64_t before = now_ms();
        assert_true(remote_get(s->remote, b, a, NULL, NULL, NULL) < 0);
        assert_true(now_ms() - before < 10000);
        assert_int_equal(entries(s->here), 0);
}

static void an_interruption_leaves_nothing_behind(void **state) {
        struct scene *s = scene(state);
        _cleanup_free_ char *b = there(s, "b"), *a = here(s, "a"), *c = there(s, "c");
        int fd = open(b, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_int_equal(ftruncate(fd, 1LL << 32), 0); /* takes long enough to send */
        close(fd);
        for (int i = 0; i < 2; i++) {
                pid_t pid = fork();
                if (pid == 0) {
                        const struct remote_address address = sshd_address(sshd);
                        struct remote *r = NULL;
                        interrupt_begin(NULL);
                        if (remote_connect(&address, 10000, &r, NULL) < 0)
                                _exit(99);
                        _exit(i ? -remote_put(r, b, c, NULL, NULL, NULL) : -remote_get(r, b, a, NULL, NULL, NULL));
                }
                uint64_t deadline = now_ms() + 10000;
                while (entries(s->here) + entries(s->there) < 2 && now_ms() < deadline)
                        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
                kill(pid, SIGTERM);
                int status = 0;
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), ECANCELED);
                assert_int_equal(entries(s->here), 0);
                assert_int_equal(entries(s->there), 1);
        }
}

/* Makes SFTP lie from now on. */
static void lie(struct scene *s, const char *what) {
        _cleanup_free_ char *self = proc_self_path();
        _cleanup_free_ char *quoted = str_shell_quote(self);
        _cleanup_free_ char *command = xasprintf("%s --sftp %s", quoted, what);
        sshd_set_subsystem(sshd, command);
        connect_scene(s);
}

static void names_that_lead_out_are_refused(void **state) {
        struct scene *s = scene(state);
        static const char *const names[] = {"slash", "absolute", "empty"};
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                lie(s, names[i]);
                _cleanup_free_ char *copy = here(s, names[i]);
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_int_equal(remote_get(s->remote, "/x", copy, NULL, NULL, &err), -EBADMSG);
                assert_int_equal(entries(copy), 0);
        }
        assert_int_equal(access("/tmp/k3s-vm-evil", F_OK), -1);
        lie(s, "dotdot"); /* every folder lists it, so it is passed over */
        _cleanup_free_ char *copy = here(s, "dotdot");
        get_ok(s, "/x", copy);
        assert_int_equal(entries(copy), 0);
}

static void a_symlink_and_then_a_folder_of_its_name_is_refused(void **state) {
        struct scene *s = scene(state);
        lie(s, "links");
        _cleanup_free_ char *copy = here(s, "copy");
        assert_true(remote_get(s->remote, "/x", copy, NULL, NULL, NULL) < 0);
        assert_int_equal(entries(copy), 1);
}

static void folders_without_end_come_to_an_end(void **state) {
        struct scene *s = scene(state);
        lie(s, "endless");
        _cleanup_free_ char *copy = here(s, "copy");
        assert_int_equal(remote_get(s->remote, "/x", copy, NULL, NULL, NULL), -ELOOP);
}

int main(int argc, char **argv) {
        if (argc == 3 && str_eq(argv[1], "--sftp"))
                serve_sftp(argv[2]);
        if (argc == 3 && str_eq(argv[1], "--cut"))
                cut_off(strtoul(argv[2], NULL, 10));
#define copy_test(f) cmocka_unit_test_setup_teardown(f, scene_setup, scene_teardown)
        const struct CMUnitTest tests[] = {
                        copy_test(a_file_goes_there_and_back_with_its_permissions),
                        copy_test(an_existing_file_is_replaced_and_a_folder_gets_it_inside),
                        copy_test(names_may_hold_anything),
                        copy_test(big_files_stay_what_they_are),
                        copy_test(empty_files_are_copied),
                        copy_test(folders_go_there_and_back_with_everything),
                        copy_test(symlinks_to_the_guest_stay_symlinks_and_a_named_one_is_followed),
                        copy_test(symlinks_that_lead_out_do_not_come_from_the_guest),
                        copy_test(special_files_are_left_out),
                        copy_test(what_is_missing_is_named),
                        copy_test(a_folder_in_a_file_s_place_is_not_replaced),
                        copy_test(a_full_disk_leaves_nothing_behind),
                        copy_test(what_a_killed_copy_left_here_is_removed_by_the_next),
                        copy_test(a_server_that_dies_in_a_copy_leaves_nothing_behind),
                        copy_test(an_interruption_leaves_nothing_behind),
                        copy_test(names_that_lead_out_are_refused),
                        copy_test(a_symlink_and_then_a_folder_of_its_name_is_refused),
                        copy_test(folders_without_end_come_to_an_end),
        };
        return cmocka_run_group_tests_name("remote_copy", tests, sshd_group_setup, sshd_group_teardown);
}
