/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#define LOCK_RETRY_MS 20
#define SWEEP_AGE_S 10

char *path_join_(const char *first, ...) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, first);
        va_list ap;
        va_start(ap, first);
        for (const char *part = va_arg(ap, const char *); part; part = va_arg(ap, const char *)) {
                while (*part == '/')
                        part++;
                if (b.len == 0 || b.data[b.len - 1] != '/')
                        buf_puts(&b, "/");
                buf_puts(&b, part);
        }
        va_end(ap);
        return buf_take(&b);
}

const char *path_base(const char *path) {
        const char *slash = strrchr(path, '/');
        return slash ? slash + 1 : path;
}

char *path_parent(const char *path) {
        const char *slash = strrchr(path, '/');
        if (!slash)
                return xstrdup(".");
        return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

int fs_read(const char *path, size_t max, struct buf *ret, struct error *err) {
        /* O_NONBLOCK so that a FIFO in a file's place cannot hang the program. */
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return err_errno(err, errno, "cannot open %s", path);
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        if (S_ISDIR(st.st_mode))
                return err_errno(err, EISDIR, "cannot read %s", path);
        if (!S_ISREG(st.st_mode))
                return err_set(err, ERR_FAILED, EINVAL, "cannot read %s: it is not a regular file", path);
        if (st.st_size > 0 && (uint64_t)st.st_size > max)
                return err_set(err, ERR_FAILED, EFBIG, "cannot read %s: it is larger than %zu bytes", path, max);

        _cleanup_buf_ struct buf b = BUF_INIT(max + 1);
        for (;;) {
                ssize_t n = buf_read(&b, fd);
                if (n == 0)
                        break;
                if (n == -E2BIG || b.len > max)
                        return err_set(err, ERR_FAILED, EFBIG, "cannot read %s: it is larger than %zu bytes", path,
                                       max);
                if (n < 0)
                        return err_errno(err, (int)-n, "cannot read %s", path);
        }
        int r = buf_append(ret, b.data, b.len);
        if (r < 0)
                return err_set(err, ERR_FAILED, -r, "cannot read %s: there is no room for its %zu bytes", path, b.len);
        return 0;
}

int fs_write_all(int fd, const void *data, size_t len) {
        const char *p = data;
        while (len > 0) {
                ssize_t n = write(fd, p, len);
                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                p += n;
                len -= (size_t)n;
        }
        return 0;
}

static void sync_parent(const char *path) {
        _cleanup_free_ char *parent = path_parent(path);
        _cleanup_close_ int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
                fsync(fd);
}

static int replace(const char *path, const void *data, size_t len, mode_t mode, bool sync, struct error *err) {
        _cleanup_free_ char *parent = path_parent(path);
        /* The name itself may be as long as names get. */
        _cleanup_free_ char *temporary = xasprintf("%s/.%.200s.XXXXXX", parent, path_base(path));
        _cleanup_close_ int fd = mkostemp(temporary, O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot write %s", path);
        int r = fs_write_all(fd, data, len);
        if (r == 0 && (fchmod(fd, mode) < 0 || (sync && fsync(fd) < 0) || rename(temporary, path) < 0))
                r = -errno;
        if (r < 0) {
                unlink(temporary);
                return err_errno(err, -r, "cannot write %s", path);
        }
        if (sync)
                sync_parent(path);
        return 0;
}

int fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct error *err) {
        return replace(path, data, len, mode, true, err);
}

int fs_write_cache(const char *path, const void *data, size_t len, mode_t mode, struct error *err) {
        return replace(path, data, len, mode, false, err);
}

int fs_mkdir_p(const char *path, mode_t mode, struct error *err) {
        if (!*path)
                return err_errno(err, ENOENT, "cannot create a folder without a name");
        _cleanup_free_ char *copy = xstrdup(path);
        for (char *p = copy + 1;; p++) {
                if (*p != '/' && *p != '\0')
                        continue;
                char saved = *p;
                *p = '\0';
                int r = mkdir(copy, mode) < 0 ? errno : 0;
                if (r == 0)
                        chmod(copy, mode); /* what the umask took away */
                else if (r != EEXIST && (saved == '\0' || !fs_is_dir(copy)))
                        return err_errno(err, r, "cannot create the folder %s", copy);
                if (saved == '\0')
                        break;
                *p = saved;
        }
        if (!fs_is_dir(path))
                return err_errno(err, ENOTDIR, "cannot create the folder %s", path);
        return 0;
}

int fs_mkdir_private(const char *path, struct error *err) {
        if (mkdir(path, 0700) == 0) {
                chmod(path, 0700); /* what the umask took away */
                return 0;
        }
        if (errno != EEXIST)
                return err_errno(err, errno, "cannot create the folder %s", path);
        _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot check the folder %s", path);
        /* A folder of ours that does not open is one that its owner locked. */
        if (fd < 0 && (errno != EACCES || lstat(path, &st) < 0))
                st = (struct stat){0};
        if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
                int r = err_set(err, ERR_HOST, EPERM, "%s is not a folder that belongs to this user alone", path);
                _cleanup_free_ char *quoted = str_shell_quote(path);
                err_hint(err, "see whose it is, and move it away if it is in the way: ls -ld %s", quoted);
                return r;
        }
        if ((st.st_mode & 07777) != 0700 && (fd >= 0 ? fchmod(fd, 0700) : chmod(path, 0700)) < 0)
                return err_errno(err, errno, "cannot make the folder %s private", path);
        return 0;
}

/* Opens the folder @name in @parent_fd to remove what is in it. Its owner may have no right to (a root tree in a
 * cache), so it is given. Never follows a symlink. */
static int open_to_remove(int parent_fd, const char *name) {
        _cleanup_close_ int path_fd = openat(parent_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (path_fd < 0)
                return -errno;
        struct stat st;
        if (fstat(path_fd, &st) == 0 && (st.st_mode & 0700) != 0700) {
                /* By descriptor, but chmod() takes no O_PATH descriptor in any other way. */
                _cleanup_free_ char *link = xasprintf("/proc/self/fd/%d", path_fd);
                chmod(link, 0700);
        }
        int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* Removes @name in @parent_fd, a file or a whole tree. Missing is fine. */
static int remove_at(int parent_fd, const char *name) {
        if (unlinkat(parent_fd, name, 0) == 0 || errno == ENOENT)
                return 0;
        int unlink_errno = errno;
        if (unlink_errno != EISDIR && unlink_errno != EPERM)
                return -unlink_errno;
        int fd = open_to_remove(parent_fd, name);
        if (fd == -ENOTDIR || fd == -ELOOP)
                return -unlink_errno; /* a file that may not be removed */
        if (fd < 0)
                return fd;
        _cleanup_closedir_ DIR *dir = fdopendir(fd);
        if (!dir) {
                int r = -errno;
                close(fd);
                return r;
        }
        struct dirent *entry;
        while ((errno = 0, entry = readdir(dir))) {
                if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
                        continue;
                int r = remove_at(dirfd(dir), entry->d_name);
                if (r < 0)
                        return r;
        }
        if (errno != 0)
                return -errno;
        return unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int fs_remove_tree(const char *path, struct error *err) {
        int r = remove_at(AT_FDCWD, path);
        return r < 0 ? err_errno(err, -r, "cannot remove %s", path) : 0;
}

int fs_unlink(const char *path, struct error *err) {
        if (unlink(path) < 0 && errno != ENOENT)
                return err_errno(err, errno, "cannot remove %s", path);
        return 0;
}

bool fs_exists(const char *path) {
        return access(path, F_OK) == 0;
}

bool fs_is_dir(const char *path) {
        struct stat st;
        return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int64_t fs_size(const char *path) {
        struct stat st;
        return stat(path, &st) < 0 ? -errno : st.st_size;
}

int64_t fs_allocated(const char *path) {
        struct stat st;
        return stat(path, &st) < 0 ? -errno : (int64_t)st.st_blocks * 512;
}

int fs_free_bytes(const char *path, uint64_t *ret, struct error *err) {
        _cleanup_free_ char *existing = xstrdup(path);
        while (!fs_exists(existing) && !str_eq(existing, "/") && !str_eq(existing, ".")) {
                char *parent = path_parent(existing);
                free(existing);
                existing = parent;
        }
        struct statvfs st;
        if (statvfs(existing, &st) < 0)
                return err_errno(err, errno, "cannot tell the free space of %s", existing);
        *ret = (uint64_t)st.f_bavail * st.f_frsize;
        return 0;
}

int fs_lock(const char *path, unsigned timeout_ms, int *ret_fd, struct error *err) {
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_errno(err, errno, "cannot open the lock %s", path);
        uint64_t deadline = now_ms() + timeout_ms;
        while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno == EINTR)
                        continue;
                if (errno != EWOULDBLOCK)
                        return err_errno(err, errno, "cannot lock %s", path);
                if (timeout_ms == 0)
                        return err_set(err, ERR_FAILED, EWOULDBLOCK, "%s is locked", path);
                if (now_ms() >= deadline)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s stayed locked", path);
                /* flock has no time limit of its own, a signal-based one would touch process state, and the event of
                 * a closed file comes before its lock is released. */
                int r = interrupt_wait(-1, LOCK_RETRY_MS, err);
                if (r < 0)
                        return r;
        }
        *ret_fd = TAKE_FD(fd);
        return 0;
}

void fs_lock_note(int fd, const char *text) {
        if (ftruncate(fd, 0) < 0 || pwrite(fd, text, strlen(text), 0) < 0)
                return; /* only those who wait would have read it */
}

int fs_mkdtemp(const char *parent, const char *prefix, char **ret_path, struct error *err) {
        _cleanup_free_ char *path = xasprintf("%s/%s.XXXXXX", parent, prefix);
        if (!mkdtemp(path))
                return err_errno(err, errno, "cannot create a temporary folder in %s", parent);
        *ret_path = TAKE_PTR(path);
        return 0;
}

void fs_hold(int fd) {
        while (flock(fd, LOCK_SH) < 0 && errno == EINTR)
                ; /* where there are no locks, age has to do */
}

int fs_hold_path(const char *path) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0)
                fs_hold(fd);
        return fd;
}

/* Whether the program that made it is gone. One that has only just made it may not hold it yet. */
static bool is_left_over(int folder_fd, const char *name) {
        _cleanup_close_ int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;
        return fd >= 0 && fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
               st.st_uid == geteuid() && st.st_mtime + SWEEP_AGE_S < time(NULL) && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

void fs_sweep(int folder_fd, const char *prefix, const char *suffix) {
        int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_closedir_ DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        for (struct dirent *entry; dir && (entry = readdir(dir));)
                if (str_starts(entry->d_name, prefix) && str_ends(entry->d_name, suffix) &&
                    is_left_over(folder_fd, entry->d_name))
                        remove_at(folder_fd, entry->d_name);
}

void fs_sweep_path(const char *folder, const char *prefix, const char *suffix) {
        _cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0)
                fs_sweep(fd, prefix, suffix);
}

char *fs_find_program(const char *name) {
        if (strchr(name, '/'))
                return access(name, X_OK) == 0 ? xstrdup(name) : NULL;
        const char *search = getenv("PATH");
        _cleanup_strv_ struct strv folders = {0};
        strv_split(&folders, search ? search : "/usr/local/bin:/usr/bin:/bin", ":");
        for (size_t i = 0; i < folders.len; i++) {
                _cleanup_free_ char *path = path_join(folders.items[i], name);
                struct stat st;
                if (stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
                        return TAKE_PTR(path);
        }
        return NULL;
}

static uint64_t clock_ms(clockid_t clock) {
        struct timespec ts;
        clock_gettime(clock, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t now_ms(void) {
        return clock_ms(CLOCK_MONOTONIC);
}

uint64_t boot_ms(void) {
        return clock_ms(CLOCK_BOOTTIME);
}

uint64_t wall_ms(void) {
        return clock_ms(CLOCK_REALTIME);
}

char *time_rfc3339(time_t t) {
        struct tm tm;
        char text[sizeof("-2147481748-12-31T23:59:59Z")];
        if (!gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                return xstrdup("?");
        return xstrdup(text);
}
