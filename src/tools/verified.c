/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/verified.h>

#define NOTE_MAX 512

static char *note_path(const char *path) {
        _cleanup_free_ char *folder = path_parent(path);
        return xasprintf("%s/.%s.verified", folder, path_base(path));
}

/* The line of a file with @hash that is as @st says. */
static char *note_line(const char *hash, const struct stat *st) {
        return xasprintf("%s %lld %lld.%09ld %llu\n", hash, (long long)st->st_size, (long long)st->st_mtim.tv_sec,
                         st->st_mtim.tv_nsec, (unsigned long long)st->st_ino);
}

static void write_note(const char *path, const char *hash, const struct stat *st) {
        _cleanup_free_ char *note = note_path(path), *line = note_line(hash, st);
        fs_write_cache(note, line, strlen(line), 0644, NULL);
}

void verified_note(const char *path, const char *hash) {
        struct stat st;
        if (stat(path, &st) == 0)
                write_note(path, hash, &st);
}

int verified_note_file(const char *path, struct error *err) {
        char hex[DIGEST_HEX_MAX + 1];
        int r = digest_file(path, hex, err);
        if (r == 0)
                verified_note(path, hex);
        return r;
}

/* The whole line, or NULL. */
static char *read_note(const char *path) {
        _cleanup_free_ char *note = note_path(path);
        _cleanup_buf_ struct buf text = BUF_INIT(NOTE_MAX + 1);
        return fs_read(note, NOTE_MAX, &text, NULL) < 0 ? NULL : buf_take(&text);
}

/* The hash in the note, or NULL. */
static char *noted_hash(const char *path) {
        _cleanup_free_ char *line = read_note(path);
        size_t n = line ? strspn(line, "0123456789abcdefABCDEF") : 0;
        return n == SHA256_HEX_LEN || n == SHA512_HEX_LEN ? xstrndup(line, n) : NULL;
}

int verified_check(const char *path, const char *hash, bool thorough, struct error *err) {
        struct stat before, after;
        if (stat(path, &before) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        _cleanup_free_ char *known = read_note(path), *wanted = note_line(hash, &before);
        if (!thorough && known && strcasecmp(known, wanted) == 0)
                return 1;
        int r = digest_check(path, hash, err);
        /* It may have changed while it was read; then it is read again the next time. */
        if (r > 0 && !str_eq(known, wanted) && stat(path, &after) == 0 && after.st_size == before.st_size &&
            after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
                write_note(path, hash, &before);
        return r;
}

bool verified_is_noted(const char *path) {
        _cleanup_free_ char *note = note_path(path);
        return fs_exists(note);
}

int verified_check_noted(const char *path, bool thorough, struct error *err) {
        _cleanup_free_ char *hash = noted_hash(path);
        return hash ? verified_check(path, hash, thorough, err) : -ENODATA;
}

void verified_renew(const char *path) {
        _cleanup_free_ char *hash = noted_hash(path);
        if (hash)
                verified_note(path, hash);
}

int verified_remove(const char *path, struct error *err) {
        _cleanup_free_ char *note = note_path(path);
        fs_unlink(note, NULL);
        return fs_unlink(path, err);
}
