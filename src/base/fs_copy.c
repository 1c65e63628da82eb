/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/fs.h>

#define BLOCK_BYTES (256U * 1024)

/* By way of this process, where the kernel does not copy by itself. */
static int copy_through(int from, int to, off_t at, off_t end) {
        _cleanup_free_ char *block = xcalloc(1, BLOCK_BYTES);
        while (at < end) {
                size_t want = end - at < (off_t)BLOCK_BYTES ? (size_t)(end - at) : BLOCK_BYTES;
                ssize_t n = pread(from, block, want, at);
                if (n > 0 && pwrite(to, block, (size_t)n, at) != n)
                        return errno ? -errno : -ENOSPC;
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : 0; /* shorter by now */
                at += n;
        }
        return 0;
}

static int copy_range(int from, int to, off_t at, off_t end) {
        while (at < end) {
                off_t in = at, out = at;
                ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EXDEV || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL))
                        return copy_through(from, to, at, end);
                if (n <= 0)
                        return n < 0 ? -errno : 0;
                at += n;
        }
        return 0;
}

bool bytes_are_zero(const void *data, size_t len) {
        const char *bytes = data;
        return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

int fs_copy_sparse(int from, int to) {
        off_t size = lseek(from, 0, SEEK_END);
        if (size < 0 || ftruncate(to, size) < 0)
                return -errno;
        for (off_t data, hole = 0; hole < size;) {
                data = lseek(from, hole, SEEK_DATA);
                if (data < 0)
                        return errno == ENXIO ? 0 : -errno; /* nothing but a hole is left */
                hole = lseek(from, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                int r = copy_range(from, to, data, hole);
                if (r < 0)
                        return r;
        }
        return 0;
}

int fs_copy_file(const char *from, const char *to, struct error *err) {
        _cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (in < 0)
                return err_errno(err, errno, "cannot read %s", from);
        int r = fs_unlink(to, err);
        if (r < 0)
                return r;
        _cleanup_close_ int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        r = out < 0 ? -errno : fs_copy_sparse(in, out);
        if (r < 0)
                fs_unlink(to, NULL);
        return r < 0 ? err_errno(err, -r, "cannot copy %s to %s", from, to) : 0;
}
