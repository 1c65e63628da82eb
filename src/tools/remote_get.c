/* SPDX-License-Identifier: MIT */
/*
 * Copies from the guest. Everything local is done relative to folders that were opened without following
 * symlinks, so nothing that the guest sends (a symlink and then a folder of the same name) leads out of the copy.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#include "remote_copy.h"

#define NAMES_MAX 1000000U

static int get_data(struct copy *c, sftp_file file, const char *guest, int fd, const char *name, struct error *err) {
        for (;;) {
                int r = interrupt_check(err);
                if (r < 0)
                        return r;
                copy_start_request(c);
                ssize_t n = libssh.sftp_read(file, c->chunk, COPY_CHUNK);
                if (n < 0)
                        return copy_failed(c, err, "read", guest);
                if (n == 0)
                        return 0;
                r = fs_write_all(fd, c->chunk, (size_t)n);
                if (r < 0)
                        return err_errno(err, -r, "cannot write %s", name);
                copy_progress(c, (size_t)n, name);
        }
}

static int get_file(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err) {
        sftp_file file = libssh.sftp_open(copy_sftp(c), guest, O_RDONLY, 0);
        if (!file)
                return copy_failed(c, err, "read", guest);
        _cleanup_free_ char *temporary = copy_temporary_name();
        int fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
                fs_hold(fd);
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
        copy_start_request(c);
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
        char *target = libssh.sftp_readlink(copy_sftp(c), guest);
        if (!target)
                return copy_failed(c, err, "read", guest);
        int r = 0;
        _cleanup_free_ char *temporary = copy_temporary_name();
        if (!stays_inside(target, c->depth - 1))
                copy_skipped(c, guest, "it is a symlink that leads out of the copied folder");
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
        sftp_dir dir = libssh.sftp_opendir(copy_sftp(c), guest);
        if (!dir)
                return copy_failed(c, err, "read", guest);
        int r = 0;
        for (;;) {
                _cleanup_attributes_ sftp_attributes a = libssh.sftp_readdir(copy_sftp(c), dir);
                if (!a) {
                        if (!libssh.sftp_dir_eof(dir))
                                r = copy_failed(c, err, "read", guest);
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
        copy_start_request(c);
        libssh.sftp_closedir(dir);
        return r;
}

static int get_entry(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err);

static int get_folder(struct copy *c, const char *guest, mode_t mode, int dir_fd, const char *name, struct error *err) {
        if (c->depth >= COPY_DEPTH_MAX)
                return copy_too_deep(err);
        bool made = mkdirat(dir_fd, name, 0700) == 0;
        if (!made && errno != EEXIST)
                return err_errno(err, errno, "cannot create the folder %s", name);
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot write into %s", name);
        _cleanup_(names_clear) struct names list = {0};
        int r = list_folder(c, guest, &list, err);
        c->depth++;
        if (!made)
                copy_sweep(fd);
        for (size_t i = 0; i < list.names.len && r == 0; i++) {
                _cleanup_free_ char *path = path_join(guest, list.names.items[i]);
                mode_t entry_mode = list.modes[i];
                if ((entry_mode & S_IFMT) == 0) {
                        _cleanup_attributes_ sftp_attributes a = libssh.sftp_lstat(copy_sftp(c), path);
                        if (!a)
                                r = copy_failed(c, err, "read", path);
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
                copy_skipped(c, guest, "it is no file, folder or symlink");
                return 0;
        }
}

/* Where @local leads: into it when it is a folder, else to that name in its parent. */
static int local_target(const char *local, const char *guest, int *ret_fd, char **ret_name, struct error *err) {
        _cleanup_free_ char *name = NULL;
        _cleanup_free_ char *folder = NULL;
        if (fs_is_dir(local)) {
                name = copy_name_of(guest);
                folder = xstrdup(local);
                if (!name)
                        return err_set(err, ERR_USAGE, EINVAL, "cannot tell what to call the copy of %s: name it",
                                       guest);
        } else {
                name = copy_name_of(local);
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
        guest = copy_guest_path(guest);
        _cleanup_close_ int dir_fd = -1;
        _cleanup_free_ char *name = NULL;
        int rc = local_target(local, guest, &dir_fd, &name, err);
        if (rc == 0)
                rc = copy_begin(&c, err);
        if (rc < 0)
                return rc;
        _cleanup_attributes_ sftp_attributes a = libssh.sftp_stat(copy_sftp(&c), guest);
        if (!a)
                return copy_failed(&c, err, "read", guest);
        if (!copy_guest_is(a, S_IFREG) && !copy_guest_is(a, S_IFDIR))
                return err_set(err, ERR_FAILED, EINVAL, "cannot copy %s: it is no file or folder", guest);
        if (str_ends(local, "/") && !fs_is_dir(local) && !copy_guest_is(a, S_IFDIR))
                return err_errno(err, ENOTDIR, "cannot write %s", local);
        if (copy_guest_is(a, S_IFREG)) {
                c.total = a->size;
                uint64_t room = UINT64_MAX;
                _cleanup_free_ char *folder = path_parent(local);
                if (fs_free_bytes(fs_is_dir(local) ? local : folder, &room, NULL) == 0 && room < a->size)
                        return err_errno(err, ENOSPC, "cannot write %s", local);
        }
        copy_sweep(dir_fd);
        return get_entry(&c, guest, a->permissions, dir_fd, name, err);
}
