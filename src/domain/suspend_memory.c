/* SPDX-License-Identifier: MIT */
/*
 * The guest's memory in a file: the page at offset N of the one is at offset N of the other, and what the guest never
 * touched is a hole. A QEMU that maps the file privately has its guest's memory at once, reads it in page by page, and
 * never writes to it; so the pages that are no longer the file's are what a second save has to write, and the file is
 * as good as it was if that fails half-way.
 *
 * Which pages those are is in /proc/PID/pagemap (Linux' Documentation/admin-guide/mm/pagemap.rst), their contents in
 * /proc/PID/mem, which a parent may read.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <k3s-vm/fs.h>

#include "suspend_internal.h"

#define PAGE 4096U
#define RUN_PAGES 64U     /* copied at once; what fits into a processor's cache */
#define LOOK_PAGES 16384U /* looked at at once: 64 MiB of the guest */
#define MAPS_MAX_BYTES (4U << 20)

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)
#define PAGEMAP_FILE (1ULL << 61) /* a page of the mapped file, not a copy */

struct memory {
        int mem, pagemap; /* of the process */
        uint64_t base, bytes;
        int fd;     /* of the file */
        char *copy; /* where that is a copy, to be renamed once it is whole; else NULL */
        bool fresh; /* an empty one: nothing in it has to become zero */
        uint64_t written;
        char run[RUN_PAGES * PAGE];
};

static void memory_clear(struct memory *m) {
        closep_(&m->mem);
        closep_(&m->pagemap);
        closep_(&m->fd);
        if (m->copy)
                fs_unlink(m->copy, NULL);
        free(m->copy);
}

/* The file that is mapped from @base on, whole: its device and inode, 0 for none. */
static int find_mapping(pid_t pid, uint64_t base, uint64_t bytes, dev_t *ret_dev, ino_t *ret_ino, struct error *err) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/maps", pid);
        _cleanup_buf_ struct buf text = BUF_INIT(MAPS_MAX_BYTES + 1);
        _cleanup_strv_ struct strv lines = {0};
        int r = fs_read(path, MAPS_MAX_BYTES, &text, err);
        if (r < 0)
                return r;
        strv_split(&lines, buf_str(&text), "\n");
        for (size_t i = 0; i < lines.len; i++) {
                uint64_t from, to, offset, inode;
                unsigned major, minor;
                char mode[5];
                if (sscanf(lines.items[i], "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &from, &to, mode,
                           &offset, &major, &minor, &inode) != 7 ||
                    from != base)
                        continue;
                if (to - from != bytes || offset != 0 || !str_eq(mode, "rw-p"))
                        break;
                *ret_dev = makedev(major, minor);
                *ret_ino = (ino_t)inode;
                return 0;
        }
        return err_set(err, ERR_FAILED, ESTALE, "the guest's memory is not mapped as it should be");
}

static int create_file(struct memory *m, const char *path, struct error *err) {
        int r = fs_unlink(path, err);
        if (r < 0)
                return r;
        m->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        return m->fd < 0 ? err_errno(err, errno, "cannot write %s", path) : 0;
}

static int open_file(struct memory *m, pid_t pid, const char *mapped, const char *path, struct error *err) {
        dev_t dev = 0;
        ino_t ino = 0;
        struct stat st;
        int r = find_mapping(pid, m->base, m->bytes, &dev, &ino, err);
        if (r < 0)
                return r;
        m->fresh = ino == 0;
        if (m->fresh) {
                r = create_file(m, path, err);
                if (r == 0 && ftruncate(m->fd, (off_t)m->bytes) < 0)
                        r = err_errno(err, errno, "cannot write %s", path);
                return r;
        }
        _cleanup_close_ int fd = open(mapped, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(err, errno, "cannot write %s", mapped);
        if (st.st_dev != dev || st.st_ino != ino)
                return err_set(err, ERR_FAILED, ESTALE, "%s is not the guest's memory any more", mapped);
        /* What has another name, too, is a snapshot's, and stays as it is. */
        if (str_eq(mapped, path) && st.st_nlink == 1) {
                m->fd = TAKE_FD(fd);
                return 0;
        }
        m->copy = xasprintf("%s.new", path);
        r = create_file(m, m->copy, err);
        if (r < 0)
                return r;
        r = fs_copy_sparse(fd, m->fd);
        return r < 0 ? err_errno(err, -r, "cannot copy %s", mapped) : 0;
}

static int finish_file(struct memory *m, const char *path, struct error *err) {
        if (!m->copy)
                return 0;
        if (rename(m->copy, path) < 0)
                return err_errno(err, errno, "cannot write %s", path);
        free(m->copy);
        m->copy = NULL;
        return 0;
}

static int open_process(struct memory *m, pid_t pid, struct error *err) {
        _cleanup_free_ char *mem = xasprintf("/proc/%d/mem", pid), *pagemap = xasprintf("/proc/%d/pagemap", pid);
        m->mem = open(mem, O_RDONLY | O_CLOEXEC);
        m->pagemap = open(pagemap, O_RDONLY | O_CLOEXEC);
        if (m->mem < 0 || m->pagemap < 0)
                return err_errno(err, errno, "cannot read QEMU's memory");
        return 0;
}

static int write_pages(struct memory *m, const char *from, size_t n, uint64_t page, struct error *err) {
        ssize_t done = pwrite(m->fd, from, n * PAGE, (off_t)(page * PAGE));
        if (done != (ssize_t)(n * PAGE))
                return err_errno(err, done < 0 ? errno : ENOSPC, "cannot write the guest's memory");
        m->written += n * PAGE;
        return 0;
}

static int copy_run(struct memory *m, uint64_t page, size_t n, struct error *err) {
        if (pread(m->mem, m->run, n * PAGE, (off_t)(m->base + page * PAGE)) != (ssize_t)(n * PAGE))
                return err_errno(err, errno ? errno : EIO, "cannot read QEMU's memory");
        if (!m->fresh)
                return write_pages(m, m->run, n, page, err);
        for (size_t i = 0, end; i < n; i = end + 1) {
                for (end = i; end < n && !bytes_are_zero(m->run + end * PAGE, PAGE); end++)
                        ;
                int r = end > i ? write_pages(m, m->run + i * PAGE, end - i, page + i, err) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool is_wanted(uint64_t entry) {
        return (entry & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) && !(entry & PAGEMAP_FILE);
}

static int copy_part(struct memory *m, const uint64_t *entries, uint64_t first, size_t n, struct error *err) {
        for (size_t i = 0; i < n;) {
                size_t end = i;
                while (end < n && end - i < RUN_PAGES && is_wanted(entries[end]))
                        end++;
                int r = end > i ? copy_run(m, first + i, end - i, err) : 0;
                if (r < 0)
                        return r;
                i = end > i ? end : i + 1;
        }
        return 0;
}

static int copy_all(struct memory *m, struct error *err) {
        _cleanup_free_ uint64_t *entries = xcalloc(LOOK_PAGES, sizeof(*entries));
        uint64_t pages = m->bytes / PAGE, first_entry = m->base / PAGE;
        for (uint64_t page = 0; page < pages; page += LOOK_PAGES) {
                size_t n = pages - page < LOOK_PAGES ? (size_t)(pages - page) : LOOK_PAGES;
                ssize_t got = pread(m->pagemap, entries, n * sizeof(*entries),
                                    (off_t)((first_entry + page) * sizeof(*entries)));
                if (got != (ssize_t)(n * sizeof(*entries)))
                        return err_errno(err, got < 0 ? errno : EIO, "cannot tell which pages the guest uses");
                int r = copy_part(m, entries, page, n, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int suspend_memory_save(pid_t pid, uint64_t base, uint64_t bytes, const char *mapped, const char *path, uint64_t *ret,
                        struct error *err) {
        struct memory *m = xcalloc(1, sizeof(*m));
        *m = (struct memory){.mem = -1, .pagemap = -1, .fd = -1, .base = base, .bytes = bytes};
        int r = sysconf(_SC_PAGESIZE) == PAGE && base % PAGE == 0
                                ? open_process(m, pid, err)
                                : err_set(err, ERR_FAILED, ENOTSUP, "this machine has pages of another size");
        if (r == 0)
                r = open_file(m, pid, mapped, path, err);
        if (r == 0)
                r = copy_all(m, err);
        if (r == 0)
                r = finish_file(m, path, err);
        if (r < 0 && m->fresh)
                fs_unlink(path, NULL);
        *ret = m->written;
        memory_clear(m);
        free(m);
        return r;
}
