/* SPDX-License-Identifier: MIT */
/*
 * The main of a fuzz target that is built without libFuzzer: it runs the target once for every file that it is
 * given, or that lies in a folder it is given. A target includes this file under FUZZ_REPLAY.
 */
#include <stdio.h>
#include <string.h>

#include <k3s-vm/fs.h>

#define REPLAY_MAX_BYTES (64U * 1024 * 1024)

static int replay_file(const char *path) {
        _cleanup_buf_ struct buf b = BUF_INIT(REPLAY_MAX_BYTES);
        _cleanup_error_ struct error err = ERROR_INIT;
        if (fs_read(path, REPLAY_MAX_BYTES, &b, &err) < 0) {
                fprintf(stderr, "%s\n", err.message);
                return 1;
        }
        /* A copy of exactly that size, so that a sanitizer sees a read past the end. */
        _cleanup_free_ uint8_t *copy = xcalloc(b.len, 1);
        if (b.len > 0)
                memcpy(copy, b.data, b.len);
        return LLVMFuzzerTestOneInput(copy, b.len);
}

static int replay_folder(const char *path, unsigned *n) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        if (!dir) {
                fprintf(stderr, "cannot open %s\n", path);
                return 1;
        }
        for (const struct dirent *entry; (entry = readdir(dir));) {
                if (entry->d_name[0] == '.')
                        continue;
                _cleanup_free_ char *file = path_join(path, entry->d_name);
                if (replay_file(file) != 0)
                        return 1;
                (*n)++;
        }
        return 0;
}

int main(int argc, char **argv) {
        unsigned n = 0;
        for (int i = 1; i < argc; i++) {
                int r = fs_is_dir(argv[i]) ? replay_folder(argv[i], &n) : replay_file(argv[i]);
                if (r != 0)
                        return r;
                n += !fs_is_dir(argv[i]);
        }
        printf("%s: %u inputs\n", argv[0], n);
        /* Nothing replayed is nothing tested. */
        return n == 0;
}
