/* SPDX-License-Identifier: MIT */
/*
 * Copies by SFTP. libssh 0.10 has SFTP in a blocking form only, and its reading loop takes a time limit for
 * "nothing yet, try again". So a timer sits in the session's own poll set: when the guest has not answered
 * one request for STALL_MS, or for two ticks after an interruption, it shuts the socket down, which ends any call
 * of libssh. Between requests an interruption ends the copy in good order.
 *
 * Locally everything is done relative to folders that were opened without following symlinks, so nothing
 * that the guest sends (a symlink and then a folder of the same name) leads out of the copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#include "remote_internal.h"

#define CHUNK (128U * 1024)
#define STALL_MS 60000
#define TICK_MS 1000
/* More than any real tree; what a guest sends must not exhaust descriptors or memory. */
#define DEPTH_MAX 200
#define NAMES_MAX 1000000U

struct copy {
        struct remote *remote;
        struct progress *progress;
        struct progress_phase *phase;
        uint64_t done, total;
        uint64_t shown_ms;
        unsigned depth;
        char *chunk;
        int timer_fd;
        uint64_t deadline_ms; /* of the request under way */
        bool stalled;
        int interrupted_ticks;
};

/* The session: SFTP started, time watched. */

static int on_tick(socket_t fd, _unused_ int revents, void *userdata) {
        struct copy *c = userdata;
        uint64_t ticks;
        if (read(fd, &ticks, sizeof(ticks)) < 0)
                return 0;
        c->stalled = c->stalled || now_ms() >= c->deadline_ms;
        c->interrupted_ticks += interrupt_pending();
        if (c->stalled || c->interrupted_ticks >= 2)
                shutdown(c->remote->fd, SHUT_RDWR);
        return 0;
}

/* The time for the next request starts now. */
static void start_request(struct copy *c) {
        c->deadline_ms = now_ms() + STALL_MS;
}

static sftp_session sftp(struct copy *c) {
        start_request(c);
        return c->remote->sftp;
}

static void copy_end(struct copy *c) {
        free(c->chunk);
        if (c->timer_fd < 0)
                return;
        libssh.ssh_event_remove_fd(c->remote->event, c->timer_fd);
        libssh.ssh_set_blocking(c->remote->session, 0);
        close(c->timer_fd);
}

void remote_close_sftp(struct remote *r) {
        if (!r->sftp)
                return;
        libssh.sftp_free(r->sftp);
        r->sftp = NULL;
}

/* The error for the last SFTP request, which concerned the guest's @path. */
static int failed(struct copy *c, struct error *err, const char *what, const char *path) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        if (c->interrupted_ticks > 0)
                return interrupt_check(err);
        if (c->stalled)
                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "cannot %s %s in the guest: no answer for %d s", what,
                               shown, STALL_MS / 1000);
        int e = EIO;
        switch (c->remote->sftp ? libssh.sftp_get_error(c->remote->sftp) : SSH_FX_FAILURE) {
        case SSH_FX_NO_SUCH_FILE:
        case SSH_FX_NO_SUCH_PATH:
                e = ENOENT;
                break;
        case SSH_FX_PERMISSION_DENIED:
        case SSH_FX_WRITE_PROTECT:
                e = EACCES;
                break;
        case SSH_FX_FILE_ALREADY_EXISTS:
                e = EEXIST;
                break;
        case SSH_FX_OP_UNSUPPORTED:
                e = EOPNOTSUPP;
                break;
        default:
                break;
        }
        if (e == EIO) {
                _cleanup_free_ char *text = xasprintf("cannot %s %s in the guest", what, shown);
                int r = remote_error(c->remote, err, text);
                return r == -EPROTO ? err_set(err, ERR_FAILED, EIO, "%s: the guest reports a failure", text) : r;
        }
        return err_errno(err, e, "cannot %s %s in the guest", what, shown);
}

static int copy_begin(struct copy *c, struct error *err) {
        c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (c->timer_fd < 0)
                return err_errno(err, errno, "cannot make a timer");
        libssh.ssh_set_blocking(c->remote->session, 1);
        if (libssh.ssh_event_add_fd(c->remote->event, c->timer_fd, POLLIN, on_tick, c) != SSH_OK)
                return err_set(err, ERR_FAILED, EIO, "cannot watch a timer");
        const struct itimerspec ticks = {.it_value.tv_sec = TICK_MS / 1000, .it_interval.tv_sec = TICK_MS / 1000};
        start_request(c);
        timerfd_settime(c->timer_fd, 0, &ticks, NULL);
        c->chunk = xcalloc(1, CHUNK);
        if (c->remote->sftp)
                return 0;
        c->remote->sftp = libssh.sftp_new(c->remote->session);
        if (!c->remote->sftp || libssh.sftp_init(c->remote->sftp) < 0) {
                bool stalled = c->stalled;
                if (c->interrupted_ticks > 0) {
                        remote_close_sftp(c->remote);
                        return interrupt_check(err);
                }
                int r = remote_error(c->remote, err, "cannot start a copy with the guest");
                remote_close_sftp(c->remote);
                return stalled ? err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the guest did not start the copy in time") : r;
        }
        return 0;
}

static void show_progress(struct copy *c, size_t more, const char *name) {
        c->done += more;
        uint64_t now = now_ms();
        if (!c->phase || (now - c->shown_ms < 100 && c->done != c->total))
                return;
        c->shown_ms = now;
        _cleanup_free_ char *shown = str_printable(name, strlen(name));
        progress_update(c->progress, c->phase, shown, c->done, c->total, "bytes");
}

static void skipped(struct copy *c, const char *path, const char *why) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        progress_warn(c->progress, "%s is not copied: %s", shown, why);
}

static int too_deep(struct error *err) {
        return err_set(err, ERR_FAILED, ELOOP, "cannot copy: more than %d folders in each other", DEPTH_MAX);
}

static char *temporary_name(void) {
        _cleanup_free_ char *random = random_hex(8);
        return xasprintf(".k3s-vm-%s.part", random);
}

static void attributes_freep(sftp_attributes *a) {
        if (*a)
                libssh.sftp_attributes_free(*a);
}
#define _cleanup_attributes_ _cleanup_(attributes_freep)

static bool guest_is(sftp_attributes a, mode_t type) {
        return a && (a->flags & SSH_FILEXFER_ATTR_PERMISSIONS) && (a->permissions & S_IFMT) == type;
}

/* To the guest. */

static int no_room(struct copy *c, const char *folder, int r, struct error *err) {
        if (r != -EIO)
                return r;
        /* SFTP version 3 has no error for a full disk. */
        sftp_statvfs_t st = libssh.sftp_statvfs(sftp(c), folder);
        bool full = st && st->f_bavail * st->f_frsize < CHUNK;
        if (st)
                libssh.sftp_statvfs_free(st);
        return full ? err_set(err, ERR_FAILED, ENOSPC, "cannot write to the guest: no space left on its disk") : r;
}

/* Renames over what is there, which SFTP version 3 refuses to do. */
static int replace(struct copy *c, const char *from, const char *to, struct error *err) {
        if (libssh.sftp_rename(sftp(c), from, to) == 0)
                return 0;
        _cleanup_attributes_ sftp_attributes there = libssh.sftp_lstat(sftp(c), to);
        if (!there)
                return failed(c, err, "write", to);
        if (guest_is(there, S_IFDIR))
                return err_errno(err, EISDIR, "cannot replace %s in the guest", to);
        _cleanup_free_ char *quoted_from = str_shell_quote(from);
        _cleanup_free_ char *quoted_to = str_shell_quote(to);
        _cleanup_free_ char *command = xasprintf("mv -fT -- %s %s", quoted_from, quoted_to);
        int status = 0;
        c->deadline_ms = UINT64_MAX; /* remote_exec() has its own */
        libssh.ssh_set_blocking(c->remote->session, 0);
        int r = remote_exec(c->remote, &(struct remote_exec){.command = command}, &status, err);
        libssh.ssh_set_blocking(c->remote->session, 1);
        start_request(c);
        if (r == 0 && status != 0)
                r = err_set(err, ERR_FAILED, EIO, "cannot replace %s in the guest", to);
        return r;
}

static int put_data(struct copy *c, int fd, const char *name, sftp_file file, const char *guest, struct error *err) {
        for (;;) {
                ssize_t n = read(fd, c->chunk, CHUNK);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", name);
                if (n == 0)
                        return 0;
                int r = interrupt_check(err);
                if (r < 0)
                        return r;
                start_request(c);
                if (libssh.sftp_write(file, c->chunk, (size_t)n) != n) {
                        _cleanup_free_ char *folder = path_parent(guest);
                        return no_room(c, folder, failed(c, err, "write", guest), err);
                }
                show_progress(c, (size_t)n, name);
        }
}

static int put_file(struct copy *c, int fd, const char *name, mode_t mode, const char *guest, struct error *err) {
        _cleanup_free_ char *folder = path_parent(guest);
        _cleanup_free_ char *temporary_base = temporary_name();
        _cleanup_free_ char *temporary = path_join(folder, temporary_base);
        sftp_file file = libssh.sftp_open(sftp(c), temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (!file)
                return no_room(c, folder, failed(c, err, "write", guest), err);
        int r = put_data(c, fd, name, file, guest, err);
        start_request(c);
        if (libssh.sftp_close(file) < 0 && r == 0)
                r = failed(c, err, "write", guest);
        if (r == 0 && libssh.sftp_chmod(sftp(c), temporary, mode & 0777) < 0)
                r = failed(c, err, "set the permissions of", guest);
        if (r == 0)
                r = replace(c, temporary, guest, err);
        if (r < 0 && libssh.ssh_is_connected(c->remote->session))
                libssh.sftp_unlink(sftp(c), temporary);
        return r;
}

static int put_symlink(struct copy *c, int dir_fd, const char *name, const char *guest, struct error *err) {
        char target[4096]; /* PATH_MAX: the kernel has no longer ones */
        ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);
        if (n < 0)
                return err_errno(err, errno, "cannot read %s", name);
        target[n] = '\0';
        _cleanup_free_ char *folder = path_parent(guest);
        _cleanup_free_ char *temporary_base = temporary_name();
        _cleanup_free_ char *temporary = path_join(folder, temporary_base);
        if (libssh.sftp_symlink(sftp(c), target, temporary) < 0)
                return failed(c, err, "write", guest);
        int r = replace(c, temporary, guest, err);
        if (r < 0 && libssh.ssh_is_connected(c->remote->session))
                libssh.sftp_unlink(sftp(c), temporary);
        return r;
}

static int put_entry(struct copy *c, int dir_fd, const char *name, bool follow, const char *guest, struct error *err);

static int put_below(struct copy *c, int fd, const char *guest, struct error *err) {
        _cleanup_closedir_ DIR *dir = fdopendir(fd);
        if (!dir) {
                int r = err_errno(err, errno, "cannot read a folder");
                close(fd);
                return r;
        }
        struct dirent *entry;
        while ((errno = 0, entry = readdir(dir))) {
                if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
                        continue;
                _cleanup_free_ char *path = path_join(guest, entry->d_name);
                int r = put_entry(c, dirfd(dir), entry->d_name, false, path, err);
                if (r < 0)
                        return r;
        }
        return errno ? err_errno(err, errno, "cannot read a folder") : 0;
}

/* Consumes @fd. */
static int put_folder(struct copy *c, int fd, mode_t mode, const char *guest, struct error *err) {
        _cleanup_close_ int folder_fd = fd;
        if (c->depth >= DEPTH_MAX)
                return too_deep(err);
        /* Its own permission bits come last: they may forbid writing into it. */
        bool made = libssh.sftp_mkdir(sftp(c), guest, 0700) == 0;
        if (!made) {
                int r = failed(c, err, "create", guest);
                _cleanup_attributes_ sftp_attributes there = libssh.sftp_stat(sftp(c), guest);
                if (!guest_is(there, S_IFDIR))
                        return r;
                error_clear(err);
        }
        c->depth++;
        int r = put_below(c, TAKE_FD(folder_fd), guest, err);
        c->depth--;
        if (r == 0 && made && libssh.sftp_chmod(sftp(c), guest, mode & 0777) < 0)
                r = failed(c, err, "set the permissions of", guest);
        return r;
}

static int put_entry(struct copy *c, int dir_fd, const char *name, bool follow, const char *guest, struct error *err) {
        struct stat st;
        if (fstatat(dir_fd, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
                return err_errno(err, errno, "cannot read %s", name);
        if (S_ISLNK(st.st_mode))
                return put_symlink(c, dir_fd, name, guest, err);
        if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) {
                if (follow)
                        return err_set(err, ERR_FAILED, EINVAL, "cannot copy %s: it is no file, folder or symlink",
                                       name);
                skipped(c, name, "it is no file, folder or symlink");
                return 0;
        }
        _cleanup_close_ int fd =
                        openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (follow ? 0 : O_NOFOLLOW));
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot read %s", name);
        if (S_ISDIR(st.st_mode))
                return put_folder(c, TAKE_FD(fd), st.st_mode, guest, err);
        if (c->depth == 0)
                c->total = (uint64_t)st.st_size;
        return put_file(c, fd, name, st.st_mode, guest, err);
}

/* SFTP has no "~"; what is relative starts in the home folder there. */
static const char *guest_path(const char *guest) {
        if (str_starts(guest, "~/"))
                guest += 2 + strspn(guest + 2, "/");
        else if (str_eq(guest, "~"))
                guest = "";
        return *guest ? guest : ".";
}

/* The last component of a path that may end in slashes, or NULL where that is no name ("/", "..", "."). The
 * caller frees. */
static char *name_of(const char *path) {
        size_t n = strlen(path);
        while (n > 0 && path[n - 1] == '/')
                n--;
        _cleanup_free_ char *trimmed = xstrndup(path, n);
        const char *name = path_base(trimmed);
        return !*name || str_eq(name, ".") || str_eq(name, "..") ? NULL : xstrdup(name);
}

int remote_put(struct remote *r, const char *local, const char *guest, struct progress *p, struct progress_phase *phase,
               struct error *err) {
        _cleanup_(copy_end) struct copy c = {.remote = r, .progress = p, .phase = phase, .timer_fd = -1};
        int rc = copy_begin(&c, err);
        if (rc < 0)
                return rc;
        guest = guest_path(guest);
        _cleanup_attributes_ sftp_attributes there = libssh.sftp_stat(sftp(&c), guest);
        _cleanup_free_ char *inside = NULL;
        if (guest_is(there, S_IFDIR)) {
                _cleanup_free_ char *name = name_of(local);
                if (name)
                        guest = inside = path_join(guest, name);
        } else if (str_ends(guest, "/") && !fs_is_dir(local))
                return err_errno(err, ENOTDIR, "cannot write %s in the guest", guest);
        return put_entry(&c, AT_FDCWD, local, true, guest, err);
}

/* From the guest. */

static int get_data(struct copy *c, sftp_file file, const char *guest, int fd, const char *name, struct error *err) {
        for (;;) {
                int r = interrupt_check(err);
                if (r < 0)
                        return r;
                start_request(c);
                ssize_t n = libssh.sftp_read(file, c->chunk, CHUNK);
                if (n < 0)
                        return failed(c, err, "read", guest);
                if (n == 0)
                        return 0;
                for (ssize_t at = 0; at < n;) {
                        ssize_t written = write(fd, c->chunk + at, (size_t)(n - at));
                        if (written < 0 && errno == EINTR)
                                continue;
                        if (written < 0)
                                return err_errno(err, errno, "cannot write %s", name);
                        at += written;
                }
                show_progress(c, (size_t)n, name);
        }
}

static int get_file(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err) {
        sftp_file file = libssh.sftp_open(sftp(c), guest, O_RDONLY, 0);
        if (!file)
                return failed(c, err, "read", guest);
        _cleanup_free_ char *temporary = temporary_name();
        int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        int r = fd < 0 ? err_errno(err, errno, "cannot write %s", name) : get_data(c, file, guest, fd, name, err);
        if (r == 0 && fchmod(fd, mode & 0777) < 0)
                r = err_errno(err, errno, "cannot set the permissions of %s", name);
        /* Some file systems tell of a full disk only now. */
        if (fd >= 0 && close(fd) < 0 && r == 0)
                r = err_errno(err, errno, "cannot write %s", name);
        if (r == 0 && renameat(dir_fd, temporary, dir_fd, name) < 0)
                r = err_errno(err, errno, "cannot write %s", name);
        if (r < 0 && fd >= 0)
                unlinkat(dir_fd, temporary, 0);
        start_request(c);
        libssh.sftp_close(file);
        return r;
}

/*
 * Whether a symlink @depth folders below the top of the copy stays inside it. ".." only at the beginning:
 * further on it would climb from wherever another symlink led to. What is left can at most pass through
 * symlinks of this same copy, which hold to the same rule.
 */
static bool stays_inside(const char *target, unsigned depth) {
        if (*target == '/' || !*target)
                return false;
        bool climbing = true;
        for (const char *p = target; *p; p += strspn(p, "/")) {
                size_t n = strcspn(p, "/");
                if (n == 2 && p[0] == '.' && p[1] == '.') {
                        if (!climbing || depth == 0)
                                return false;
                        depth--;
                } else if (n != 1 || p[0] != '.')
                        climbing = false;
                p += n;
        }
        return true;
}

static int get_symlink(struct copy *c, const char *guest, int dir_fd, const char *name, struct error *err) {
        char *target = libssh.sftp_readlink(sftp(c), guest);
        if (!target)
                return failed(c, err, "read", guest);
        int r = 0;
        _cleanup_free_ char *temporary = temporary_name();
        if (!stays_inside(target, c->depth - 1))
                skipped(c, guest, "it is a symlink that leads out of the copied folder");
        else if (symlinkat(target, dir_fd, temporary) < 0)
                r = err_errno(err, errno, "cannot write %s", name);
        else if (renameat(dir_fd, temporary, dir_fd, name) < 0) {
                r = err_errno(err, errno, "cannot write %s", name);
                unlinkat(dir_fd, temporary, 0);
        }
        libssh.ssh_string_free_char(target);
        return r;
}

/* A name that the guest sent becomes one component of a local path. */
static int check_name(const char *name, const char *guest, struct error *err) {
        if (*name && !strchr(name, '/') && strlen(name) <= 255)
                return 0;
        _cleanup_free_ char *shown = str_printable(name, strnlen(name, 300));
        return err_set(err, ERR_FAILED, EBADMSG, "the guest sent \"%s\" as the name of a file in %s", shown, guest);
}

struct names {
        struct strv names;
        mode_t *modes; /* 0: not told */
};

static void names_clear(struct names *n) {
        strv_free(&n->names);
        free(n->modes);
}

static int list_folder(struct copy *c, const char *guest, struct names *ret, struct error *err) {
        sftp_dir dir = libssh.sftp_opendir(sftp(c), guest);
        if (!dir)
                return failed(c, err, "read", guest);
        int r = 0;
        for (;;) {
                _cleanup_attributes_ sftp_attributes a = libssh.sftp_readdir(sftp(c), dir);
                if (!a) {
                        if (!libssh.sftp_dir_eof(dir))
                                r = failed(c, err, "read", guest);
                        break;
                }
                if (str_eq(a->name, ".") || str_eq(a->name, ".."))
                        continue;
                r = check_name(a->name ? a->name : "", guest, err);
                if (r == 0 && ret->names.len >= NAMES_MAX)
                        r = err_set(err, ERR_FAILED, E2BIG, "%s in the guest holds too many files", guest);
                if (r < 0)
                        break;
                size_t n = ret->names.len;
                if ((n & (n - 1)) == 0) /* room for twice as many */
                        ret->modes = xreallocarray(ret->modes, n ? 2 * n : 1, sizeof(*ret->modes));
                ret->modes[n] = a->flags & SSH_FILEXFER_ATTR_PERMISSIONS ? a->permissions : 0;
                strv_push(&ret->names, a->name);
        }
        start_request(c);
        libssh.sftp_closedir(dir);
        return r;
}

static int get_entry(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err);

static int get_folder(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err) {
        if (c->depth >= DEPTH_MAX)
                return too_deep(err);
        bool made = mkdirat(dir_fd, name, 0700) == 0;
        if (!made && errno != EEXIST)
                return err_errno(err, errno, "cannot create the folder %s", name);
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot write into %s", name);
        _cleanup_(names_clear) struct names list = {0};
        int r = list_folder(c, guest, &list, err);
        c->depth++;
        for (size_t i = 0; i < list.names.len && r == 0; i++) {
                _cleanup_free_ char *path = path_join(guest, list.names.items[i]);
                mode_t entry_mode = list.modes[i];
                if ((entry_mode & S_IFMT) == 0) {
                        _cleanup_attributes_ sftp_attributes a = libssh.sftp_lstat(sftp(c), path);
                        if (!a)
                                r = failed(c, err, "read", path);
                        else
                                entry_mode = a->permissions;
                }
                if (r == 0)
                        r = get_entry(c, path, entry_mode, fd, list.names.items[i], err);
        }
        c->depth--;
        if (r == 0 && made && fchmod(fd, mode & 0777) < 0)
                r = err_errno(err, errno, "cannot set the permissions of %s", name);
        return r;
}

static int get_entry(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err) {
        switch (mode & S_IFMT) {
        case S_IFREG:
                return get_file(c, guest, mode, dir_fd, name, err);
        case S_IFDIR:
                return get_folder(c, guest, mode, dir_fd, name, err);
        case S_IFLNK:
                return get_symlink(c, guest, dir_fd, name, err);
        default:
                skipped(c, guest, "it is no file, folder or symlink");
                return 0;
        }
}

/* Where @local leads: into it when it is a folder, else to that name in its parent. */
static int local_target(const char *local, const char *guest, int *ret_fd, char **ret_name, struct error *err) {
        _cleanup_free_ char *name = NULL;
        _cleanup_free_ char *folder = NULL;
        if (fs_is_dir(local)) {
                name = name_of(guest);
                folder = xstrdup(local);
                if (!name)
                        return err_set(err, ERR_USAGE, EINVAL, "cannot tell what to call the copy of %s: name it",
                                       guest);
        } else {
                name = name_of(local);
                size_t n = strlen(local);
                while (n > 0 && local[n - 1] == '/')
                        n--;
                _cleanup_free_ char *trimmed = xstrndup(local, n);
                folder = path_parent(trimmed);
                if (!name)
                        return err_errno(err, ENOENT, "cannot write %s", local);
        }
        int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot write into %s", folder);
        *ret_fd = fd;
        *ret_name = TAKE_PTR(name);
        return 0;
}

int remote_get(struct remote *r, const char *guest, const char *local, struct progress *p, struct progress_phase *phase,
               struct error *err) {
        _cleanup_(copy_end) struct copy c = {.remote = r, .progress = p, .phase = phase, .timer_fd = -1};
        guest = guest_path(guest);
        _cleanup_close_ int dir_fd = -1;
        _cleanup_free_ char *name = NULL;
        int rc = local_target(local, guest, &dir_fd, &name, err);
        if (rc == 0)
                rc = copy_begin(&c, err);
        if (rc < 0)
                return rc;
        _cleanup_attributes_ sftp_attributes a = libssh.sftp_stat(sftp(&c), guest);
        if (!a)
                return failed(&c, err, "read", guest);
        if (!guest_is(a, S_IFREG) && !guest_is(a, S_IFDIR))
                return err_set(err, ERR_FAILED, EINVAL, "cannot copy %s: it is no file or folder", guest);
        if (str_ends(local, "/") && !fs_is_dir(local) && !guest_is(a, S_IFDIR))
                return err_errno(err, ENOTDIR, "cannot write %s", local);
        if (guest_is(a, S_IFREG)) {
                c.total = a->size;
                uint64_t room = UINT64_MAX;
                _cleanup_free_ char *folder = path_parent(local);
                if (fs_free_bytes(fs_is_dir(local) ? local : folder, &room, NULL) == 0 && room < a->size)
                        return err_errno(err, ENOSPC, "cannot write %s", local);
        }
        return get_entry(&c, guest, a->permissions, dir_fd, name, err);
}
