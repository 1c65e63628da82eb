/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/archive.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/strv.h>

#include "archive_internal.h"
#include "archive_iso.h"

struct libarchive_library libarchive;

int archive_load(struct error *err) {
        return LIBRARY_LOAD(libarchive, LIBARCHIVE_SONAME, LIBARCHIVE_SYMBOLS, err);
}

void archive_reader_freep(struct archive **a) {
        if (*a)
                libarchive.archive_read_free(*a);
}

const char *archive_member_name(const char *name) {
        while (str_starts(name, "./"))
                name += 2;
        return name;
}

static int fail(struct archive *a, struct error *err, const char *what) {
        int errnum = libarchive.archive_errno(a);
        const char *message = libarchive.archive_error_string(a);
        /* libarchive's own error numbers (a bad format) are negative or plain EINVAL and the like. */
        return err_set(err, ERR_FAILED, errnum > 0 ? errnum : EBADMSG, "%s: %s", what, message ? message : "no reason");
}

/* Whether every component of the relative path @name is a plain name. */
static bool is_plain_path(const char *name) {
        for (const char *p = name;; p++) {
                size_t n = strcspn(p, "/");
                if (n == 0 || n > NAME_MAX || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
                        return false;
                p += n;
                if (*p == '\0')
                        return true;
        }
}

/* Unpacking. */

/* Where member @name goes below the folder: a path, "" for the folder itself, or NULL for a member that is not
 * under @prefix. Owned by the caller. */
static char *below_prefix(const char *name, const char *prefix) {
        name = archive_member_name(name);
        size_t n = strlen(prefix);
        while (n > 0 && prefix[n - 1] == '/')
                n--;
        if (n > 0) {
                if (strncmp(name, prefix, n) != 0 || (name[n] != '/' && name[n] != '\0'))
                        return NULL;
                name += n + (name[n] == '/');
        }
        size_t len = strlen(name);
        while (len > 0 && name[len - 1] == '/')
                len--;
        return xstrndup(name, len);
}

/* Opens the folder that holds @path below @root, making what is missing and never following a symlink. */
static int open_parent(int root, const char *path, int *ret_fd, struct error *err) {
        _cleanup_close_ int fd = fcntl(root, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return err_errno(err, errno, "cannot unpack %s", path);
        for (const char *p = path, *slash; (slash = strchr(p, '/')); p = slash + 1) {
                _cleanup_free_ char *name = xstrndup(p, (size_t)(slash - p));
                bool made = mkdirat(fd, name, 0755) == 0;
                if (made ? fchmodat(fd, name, 0755, 0) < 0 : errno != EEXIST)
                        return err_errno(err, errno, "cannot unpack %s", path);
                int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (next < 0)
                        return err_errno(err, errno, "cannot unpack %s", path);
                close(fd);
                fd = next;
        }
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int unpack_folder(int parent, const char *path, mode_t mode, struct error *err) {
        const char *name = path_base(path);
        if (mkdirat(parent, name, 0700) < 0 && errno != EEXIST)
                return err_errno(err, errno, "cannot unpack %s", path);
        _cleanup_close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        /* Its owner has to be able to fill it, whatever the archive says. */
        if (fd < 0 || fchmod(fd, mode | 0700) < 0)
                return err_errno(err, errno, "cannot unpack %s", path);
        return 0;
}

static int unpack_file(struct archive *a, int parent, const char *path, mode_t mode, struct error *err) {
        _cleanup_close_ int fd =
                        openat(parent, path_base(path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_errno(err, errno, "cannot unpack %s", path);
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        for (;;) {
                la_ssize_t n = libarchive.archive_read_data(a, block, BLOCK_BYTES);
                if (n == ARCHIVE_RETRY)
                        continue;
                if (n < 0)
                        return fail(a, err, "cannot unpack the archive");
                if (n == 0)
                        break;
                int r = fs_write_all(fd, block, (size_t)n);
                if (r < 0)
                        return err_errno(err, -r, "cannot unpack %s", path);
        }
        if (fchmod(fd, mode) < 0)
                return err_errno(err, errno, "cannot unpack %s", path);
        return 0;
}

/* A target may go up, at its start only, and not further than to the folder that is unpacked into. Going up later
 * would be relative to wherever another link had led. */
static bool link_stays_inside(const char *path, const char *target) {
        if (target[0] == '/' || target[0] == '\0')
                return false;
        size_t depth = 0;
        for (const char *p = path; (p = strchr(p, '/')); p++)
                depth++;
        while (str_starts(target, "../") || str_eq(target, "..")) {
                if (depth-- == 0)
                        return false;
                target += target[2] == '/' ? 3 : 2;
        }
        return target[0] == '\0' || str_eq(target, ".") || is_plain_path(target);
}

static int unpack_hard_link(int root, int parent, const char *path, const char *target, const char *prefix,
                            struct error *err) {
        _cleanup_free_ char *from = below_prefix(target, prefix);
        if (!from || !is_plain_path(from))
                return err_set(err, ERR_FAILED, EPERM, "cannot unpack %s: its link leads out of the folder", path);
        _cleanup_close_ int from_parent = -1;
        int r = open_parent(root, from, &from_parent, err);
        if (r < 0)
                return r;
        if (linkat(from_parent, path_base(from), parent, path_base(path), 0) < 0)
                return err_errno(err, errno, "cannot unpack %s", path);
        return 0;
}

static int unpack_member(struct archive *a, struct libarchive_entry *entry, const char *prefix, int root, size_t *n,
                         struct error *err) {
        const char *name = libarchive.archive_entry_pathname(entry);
        if (!name)
                return err_set(err, ERR_FAILED, EBADMSG, "cannot unpack the archive: a member without a name");
        if (name[0] == '/')
                return err_set(err, ERR_FAILED, EPERM, "cannot unpack %s: the name is absolute", name);
        _cleanup_free_ char *path = below_prefix(name, prefix);
        if (!path || *path == '\0')
                return 0;
        if (!is_plain_path(path))
                return err_set(err, ERR_FAILED, EPERM, "cannot unpack %s: the name leads out of the folder", name);

        _cleanup_close_ int parent = -1;
        int r = open_parent(root, path, &parent, err);
        if (r < 0)
                return r;
        (*n)++;
        mode_t mode = libarchive.archive_entry_perm(entry) & 0777;
        bool folder = libarchive.archive_entry_filetype(entry) == AE_IFDIR;
        if (folder)
                return unpack_folder(parent, path, mode, err);
        if (unlinkat(parent, path_base(path), 0) < 0 && errno != ENOENT)
                return err_errno(err, errno, "cannot unpack %s", path);
        const char *hard_link = libarchive.archive_entry_hardlink(entry);
        if (hard_link)
                return unpack_hard_link(root, parent, path, hard_link, prefix, err);
        switch (libarchive.archive_entry_filetype(entry)) {
        case AE_IFREG:
                return unpack_file(a, parent, path, mode, err);
        case AE_IFLNK: {
                const char *target = libarchive.archive_entry_symlink(entry);
                if (!target || !link_stays_inside(path, target))
                        return err_set(err, ERR_FAILED, EPERM, "cannot unpack %s: its link leads out of the folder",
                                       name);
                if (symlinkat(target, parent, path_base(path)) < 0)
                        return err_errno(err, errno, "cannot unpack %s", path);
                return 0;
        }
        default:
                return err_set(err, ERR_FAILED, EPERM, "cannot unpack %s: it is neither file, folder nor link", name);
        }
}

int archive_unpack(const void *data, size_t len, const char *prefix, const char *folder, struct error *err) {
        int r = archive_load(err);
        if (r < 0)
                return r;
        _cleanup_close_ int root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_errno(err, errno, "cannot unpack into %s", folder);
        _cleanup_(archive_reader_freep) struct archive *a = oom_check(libarchive.archive_read_new());
        if (libarchive.archive_read_support_format_7zip(a) != ARCHIVE_OK ||
            libarchive.archive_read_support_format_tar(a) != ARCHIVE_OK ||
            libarchive.archive_read_open_memory(a, data, len) != ARCHIVE_OK)
                return fail(a, err, "cannot read the archive");
        size_t n = 0;
        for (;;) {
                struct libarchive_entry *entry;
                int status = libarchive.archive_read_next_header(a, &entry);
                if (status == ARCHIVE_EOF)
                        break;
                if (status == ARCHIVE_RETRY)
                        continue;
                if (status < ARCHIVE_WARN)
                        return fail(a, err, "cannot read the archive");
                r = unpack_member(a, entry, prefix, root, &n, err);
                if (r < 0)
                        return r;
        }
        if (n == 0)
                return err_set(err, ERR_FAILED, ENOENT, "the archive has nothing under %s", *prefix ? prefix : "it");
        return 0;
}

/* Images. */

struct image {
        struct archive *a;
        struct strv written; /* names of the folders and files that are in it */
};

static void image_clear(struct image *image) {
        if (image->a)
                libarchive.archive_write_free(image->a);
        strv_free(&image->written);
}

static void entry_freep(struct libarchive_entry **entry) {
        if (*entry)
                libarchive.archive_entry_free(*entry);
}

static int image_fail(struct image *image, struct error *err) {
        return fail(image->a, err, "cannot write the image");
}

/* Of type @type (AE_IFREG, AE_IFDIR, AE_IFLNK); @size is a file's, @link a link's. */
static int write_header(struct image *image, const char *name, unsigned type, mode_t mode, uint64_t size,
                        const char *link, struct error *err) {
        _cleanup_(entry_freep) struct libarchive_entry *entry = oom_check(libarchive.archive_entry_new());
        libarchive.archive_entry_set_pathname(entry, name);
        libarchive.archive_entry_set_filetype(entry, type);
        libarchive.archive_entry_set_perm(entry, mode & 07777);
        libarchive.archive_entry_set_nlink(entry, type == AE_IFDIR ? 2 : 1);
        libarchive.archive_entry_set_uid(entry, 0);
        libarchive.archive_entry_set_gid(entry, 0);
        libarchive.archive_entry_set_mtime(entry, 0, 0);
        if (type == AE_IFREG)
                libarchive.archive_entry_set_size(entry, (la_int64_t)size);
        if (type == AE_IFLNK)
                libarchive.archive_entry_set_symlink(entry, link);
        /* A warning: the Joliet name lost a character that the locale lacks. The Rock Ridge name is whole. */
        if (libarchive.archive_write_header(image->a, entry) < ARCHIVE_WARN)
                return image_fail(image, err);
        strv_push(&image->written, name);
        return 0;
}

static int write_block(struct image *image, const void *data, size_t len, struct error *err) {
        for (const char *p = data; len > 0;) {
                la_ssize_t n = libarchive.archive_write_data(image->a, p, len);
                if (n <= 0)
                        return image_fail(image, err);
                p += n;
                len -= (size_t)n;
        }
        return 0;
}

static int write_source(struct image *image, const struct archive_entry *e, struct error *err) {
        _cleanup_close_ int fd = open(e->source_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot read %s", e->source_path);
        if (!S_ISREG(st.st_mode))
                return err_set(err, ERR_FAILED, EINVAL, "cannot read %s: it is not a regular file", e->source_path);
        uint64_t left = (uint64_t)st.st_size;
        int r = write_header(image, e->name, AE_IFREG, e->mode, left, NULL, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        while (left > 0) {
                ssize_t n = read(fd, block, left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", e->source_path);
                if (n == 0)
                        return err_set(err, ERR_FAILED, EIO, "%s became shorter while it was read", e->source_path);
                r = write_block(image, block, (size_t)n, err);
                if (r < 0)
                        return r;
                left -= (uint64_t)n;
        }
        return 0;
}

static bool is_folder(const struct archive_entry *e) {
        return !e->source_path && !e->data && !e->link;
}

/* Writes the folders above @name that are not there yet, each with the mode of its own entry if it has one. */
static int write_parents(struct image *image, const char *name, const struct archive_entry *entries, size_t n,
                         struct error *err) {
        for (const char *slash = name; (slash = strchr(slash, '/')); slash++) {
                _cleanup_free_ char *folder = xstrndup(name, (size_t)(slash - name));
                if (strv_contains(&image->written, folder))
                        continue;
                mode_t mode = 0755;
                for (size_t i = 0; i < n; i++)
                        if (is_folder(&entries[i]) && str_eq(entries[i].name, folder))
                                mode = entries[i].mode;
                int r = write_header(image, folder, AE_IFDIR, mode, 0, NULL, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int write_entry(struct image *image, const struct archive_entry *e, struct error *err) {
        if (e->source_path)
                return write_source(image, e, err);
        if (e->link)
                return write_header(image, e->name, AE_IFLNK, 0777, 0, e->link, err);
        if (is_folder(e)) {
                bool written = strv_contains(&image->written, e->name); /* as a parent */
                return written ? 0 : write_header(image, e->name, AE_IFDIR, e->mode, 0, NULL, err);
        }
        int r = write_header(image, e->name, AE_IFREG, e->mode, e->len, NULL, err);
        return r < 0 ? r : write_block(image, e->data, e->len, err);
}

static int check_entries(const struct archive_entry *entries, size_t n, struct error *err) {
        for (size_t i = 0; i < n; i++) {
                if (!is_plain_path(entries[i].name))
                        return err_set(err, ERR_FAILED, EINVAL, "cannot put \"%s\" into an image: not a relative path",
                                       entries[i].name);
                for (size_t j = 0; j < i; j++)
                        if (str_eq(entries[i].name, entries[j].name))
                                return err_set(err, ERR_FAILED, EEXIST, "cannot put %s into an image twice",
                                               entries[i].name);
        }
        return 0;
}

static int write_image(int fd, const char *volume, const struct archive_entry *entries, size_t n, struct error *err) {
        _cleanup_(image_clear) struct image image = {.a = oom_check(libarchive.archive_write_new())};
        struct archive *a = image.a;
        /* Level 3 lets a file be larger than 4 GiB; strict keeps the permission bits as they are given; the padding
         * is for the read-ahead of real drives; libarchive's own application id has its version in it. */
        const char *const options[][2] = {
                        {"iso-level", "3"},           {"rockridge", "strict"}, {"pad", NULL},
                        {"application-id", "K3S-VM"}, {"volume-id", volume},
        };
        if (libarchive.archive_write_set_format_iso9660(a) != ARCHIVE_OK ||
            libarchive.archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK)
                return image_fail(&image, err);
        for (size_t i = 0; i < ELEMENTSOF(options); i++)
                if (libarchive.archive_write_set_format_option(a, "iso9660", options[i][0], options[i][1]) !=
                    ARCHIVE_OK)
                        return image_fail(&image, err);
        if (libarchive.archive_write_open_fd(a, fd) != ARCHIVE_OK)
                return image_fail(&image, err);
        for (size_t i = 0; i < n; i++) {
                int r = write_parents(&image, entries[i].name, entries, n, err);
                if (r == 0)
                        r = write_entry(&image, &entries[i], err);
                if (r < 0)
                        return r;
        }
        if (libarchive.archive_write_close(a) != ARCHIVE_OK)
                return image_fail(&image, err);
        return 0;
}

int archive_write_iso(const char *path, const char *volume, const struct archive_entry *entries, size_t n,
                      struct error *err) {
        int r = archive_load(err);
        if (r == 0)
                r = check_entries(entries, n, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *parent = path_parent(path);
        _cleanup_free_ char *temporary = xasprintf("%s/.%s.XXXXXX.part", parent, path_base(path));
        fs_sweep_path(parent, ".", ".part");
        _cleanup_close_ int fd = mkostemps(temporary, strlen(".part"), O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot write %s", path);
        fs_hold(fd);
        r = write_image(fd, volume, entries, n, err);
        if (r == 0)
                r = archive_iso_pin(fd, err);
        if (r < 0)
                err_wrap(err, r, "cannot write %s", path);
        else if (fchmod(fd, 0644) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0)
                r = err_errno(err, errno, "cannot write %s", path);
        if (r < 0)
                unlink(temporary);
        return r;
}
