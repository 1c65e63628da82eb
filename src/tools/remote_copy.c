/* SPDX-License-Identifier: MIT */
/*
 * Copies by SFTP. libssh 0.10 has SFTP in a blocking form only, and its reading loop takes a time limit for
 * "nothing yet, try again". So a timer sits in the session's own poll set: when the guest has not answered
 * one request for STALL_MS, or for two ticks after an interruption, it shuts the socket down, which ends any call
 * of libssh. Between requests an interruption ends the copy in good order.
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

#include "remote_copy.h"

#define STALL_MS 60000
#define TICK_MS 1000

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
void copy_start_request(struct copy *c) {
        c->deadline_ms = now_ms() + STALL_MS;
}

sftp_session copy_sftp(struct copy *c) {
        copy_start_request(c);
        return c->remote->sftp;
}

void copy_end(struct copy *c) {
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
int copy_failed(struct copy *c, struct error *err, const char *what, const char *path) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        if (c->interrupted_ticks > 0)
                return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted");
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

int copy_begin(struct copy *c, struct error *err) {
        c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (c->timer_fd < 0)
                return err_errno(err, errno, "cannot make a timer");
        libssh.ssh_set_blocking(c->remote->session, 1);
        if (libssh.ssh_event_add_fd(c->remote->event, c->timer_fd, POLLIN, on_tick, c) != SSH_OK)
                return err_set(err, ERR_FAILED, EIO, "cannot watch a timer");
        const struct itimerspec ticks = {.it_value.tv_sec = TICK_MS / 1000, .it_interval.tv_sec = TICK_MS / 1000};
        copy_start_request(c);
        timerfd_settime(c->timer_fd, 0, &ticks, NULL);
        c->chunk = xcalloc(1, COPY_CHUNK);
        if (c->remote->sftp)
                return 0;
        c->remote->sftp = libssh.sftp_new(c->remote->session);
        if (!c->remote->sftp || libssh.sftp_init(c->remote->sftp) < 0) {
                int r = remote_error(c->remote, err, "cannot start a copy with the guest");
                remote_close_sftp(c->remote);
                if (c->interrupted_ticks > 0)
                        return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted");
                return c->stalled ? err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the guest did not start the copy in time")
                                  : r;
        }
        return 0;
}

void copy_progress(struct copy *c, size_t more, const char *name) {
        c->done += more;
        uint64_t now = now_ms();
        if (!c->phase || (now - c->shown_ms < 100 && c->done != c->total))
                return;
        c->shown_ms = now;
        _cleanup_free_ char *shown = str_printable(name, strlen(name));
        progress_update(c->progress, c->phase, shown, c->done, c->total, "bytes");
}

void copy_skipped(struct copy *c, const char *path, const char *why) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        progress_warn(c->progress, "%s is not copied: %s", shown, why);
}

int copy_too_deep(struct error *err) {
        return err_set(err, ERR_FAILED, ELOOP, "cannot copy: more than %d folders in each other", COPY_DEPTH_MAX);
}

char *copy_temporary_name(void) {
        _cleanup_free_ char *random = random_hex(8);
        return xasprintf(".k3s-vm-%s.part", random);
}

void copy_sweep(int dir_fd) {
        fs_sweep(dir_fd, ".k3s-vm-", ".part");
}

bool copy_guest_is(sftp_attributes a, mode_t type) {
        return a && (a->flags & SSH_FILEXFER_ATTR_PERMISSIONS) && (a->permissions & S_IFMT) == type;
}

/* SFTP has no "~"; what is relative starts in the home folder there. */
const char *copy_guest_path(const char *guest) {
        if (str_starts(guest, "~/"))
                guest += 2 + strspn(guest + 2, "/");
        else if (str_eq(guest, "~"))
                guest = "";
        return *guest ? guest : ".";
}

char *copy_name_of(const char *path) {
        size_t n = strlen(path);
        while (n > 0 && path[n - 1] == '/')
                n--;
        _cleanup_free_ char *trimmed = xstrndup(path, n);
        const char *name = path_base(trimmed);
        return !*name || str_eq(name, ".") || str_eq(name, "..") ? NULL : xstrdup(name);
}

/* To the guest. */

static int no_room(struct copy *c, const char *folder, int r, struct error *err) {
        if (r != -EIO)
                return r;
        /* SFTP version 3 has no error for a full disk. */
        sftp_statvfs_t st = libssh.sftp_statvfs(copy_sftp(c), folder);
        bool full = st && st->f_bavail * st->f_frsize < COPY_CHUNK;
        if (st)
                libssh.sftp_statvfs_free(st);
        return full ? err_set(err, ERR_FAILED, ENOSPC, "cannot write to the guest: no space left on its disk") : r;
}

/* Renames over what is there, which SFTP version 3 refuses to do. */
static int replace(struct copy *c, const char *from, const char *to, struct error *err) {
        if (libssh.sftp_rename(copy_sftp(c), from, to) == 0)
                return 0;
        _cleanup_attributes_ sftp_attributes there = libssh.sftp_lstat(copy_sftp(c), to);
        if (!there)
                return copy_failed(c, err, "write", to);
        if (copy_guest_is(there, S_IFDIR))
                return err_errno(err, EISDIR, "cannot replace %s in the guest", to);
        _cleanup_free_ char *quoted_from = str_shell_quote(from);
        _cleanup_free_ char *quoted_to = str_shell_quote(to);
        _cleanup_free_ char *command = xasprintf("mv -fT -- %s %s", quoted_from, quoted_to);
        int status = 0;
        c->deadline_ms = UINT64_MAX; /* remote_exec() has its own */
        libssh.ssh_set_blocking(c->remote->session, 0);
        int r = remote_exec(c->remote, &(struct remote_exec){.command = command}, &status, err);
        libssh.ssh_set_blocking(c->remote->session, 1);
        copy_start_request(c);
        if (r == 0 && status != 0)
                r = err_set(err, ERR_FAILED, EIO, "cannot replace %s in the guest", to);
        return r;
}

static int put_data(struct copy *c, int fd, const char *name, sftp_file file, const char *guest, struct error *err) {
        for (;;) {
                ssize_t n = read(fd, c->chunk, COPY_CHUNK);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", name);
                if (n == 0)
                        return 0;
                int r = interrupt_check(err);
                if (r < 0)
                        return r;
                copy_start_request(c);
                if (libssh.sftp_write(file, c->chunk, (size_t)n) != n) {
                        _cleanup_free_ char *folder = path_parent(guest);
                        return no_room(c, folder, copy_failed(c, err, "write", guest), err);
                }
                copy_progress(c, (size_t)n, name);
        }
}

static int put_file(struct copy *c, int fd, const char *name, mode_t mode, const char *guest, struct error *err) {
        _cleanup_free_ char *folder = path_parent(guest);
        _cleanup_free_ char *temporary_base = copy_temporary_name();
        _cleanup_free_ char *temporary = path_join(folder, temporary_base);
        sftp_file file = libssh.sftp_open(copy_sftp(c), temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (!file)
                return no_room(c, folder, copy_failed(c, err, "write", guest), err);
        int r = put_data(c, fd, name, file, guest, err);
        copy_start_request(c);
        if (libssh.sftp_close(file) < 0 && r == 0)
                r = copy_failed(c, err, "write", guest);
        if (r == 0 && libssh.sftp_chmod(copy_sftp(c), temporary, mode & 0777) < 0)
                r = copy_failed(c, err, "set the permissions of", guest);
        if (r == 0)
                r = replace(c, temporary, guest, err);
        if (r < 0 && libssh.ssh_is_connected(c->remote->session))
                libssh.sftp_unlink(copy_sftp(c), temporary);
        return r;
}

static int put_symlink(struct copy *c, int dir_fd, const char *name, const char *guest, struct error *err) {
        char target[4096]; /* PATH_MAX: the kernel has no longer ones */
        ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);
        if (n < 0)
                return err_errno(err, errno, "cannot read %s", name);
        target[n] = '\0';
        _cleanup_free_ char *folder = path_parent(guest);
        _cleanup_free_ char *temporary_base = copy_temporary_name();
        _cleanup_free_ char *temporary = path_join(folder, temporary_base);
        if (libssh.sftp_symlink(copy_sftp(c), target, temporary) < 0)
                return copy_failed(c, err, "write", guest);
        int r = replace(c, temporary, guest, err);
        if (r < 0 && libssh.ssh_is_connected(c->remote->session))
                libssh.sftp_unlink(copy_sftp(c), temporary);
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
        if (c->depth >= COPY_DEPTH_MAX)
                return copy_too_deep(err);
        /* Its own permission bits come last: they may forbid writing into it. */
        bool made = libssh.sftp_mkdir(copy_sftp(c), guest, 0700) == 0;
        if (!made) {
                int r = copy_failed(c, err, "create", guest);
                _cleanup_attributes_ sftp_attributes there = libssh.sftp_stat(copy_sftp(c), guest);
                if (!copy_guest_is(there, S_IFDIR))
                        return r;
                error_clear(err);
        }
        c->depth++;
        int r = put_below(c, TAKE_FD(folder_fd), guest, err);
        c->depth--;
        if (r == 0 && made && libssh.sftp_chmod(copy_sftp(c), guest, mode & 0777) < 0)
                r = copy_failed(c, err, "set the permissions of", guest);
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
                copy_skipped(c, name, "it is no file, folder or symlink");
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

int remote_put(struct remote *r, const char *local, const char *guest, struct progress *p, struct progress_phase *phase,
               struct error *err) {
        _cleanup_(copy_end) struct copy c = {.remote = r, .progress = p, .phase = phase, .timer_fd = -1};
        int rc = copy_begin(&c, err);
        if (rc < 0)
                return rc;
        guest = copy_guest_path(guest);
        _cleanup_attributes_ sftp_attributes there = libssh.sftp_stat(copy_sftp(&c), guest);
        _cleanup_free_ char *inside = NULL;
        if (copy_guest_is(there, S_IFDIR)) {
                _cleanup_free_ char *name = copy_name_of(local);
                if (name)
                        guest = inside = path_join(guest, name);
        } else if (str_ends(guest, "/") && !fs_is_dir(local))
                return err_errno(err, ENOTDIR, "cannot write %s in the guest", guest);
        return put_entry(&c, AT_FDCWD, local, true, guest, err);
}
