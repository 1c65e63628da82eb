/* SPDX-License-Identifier: MIT */
/*
 * embed FILE FOLDER - a program of the build: packs all that is in FOLDER into FILE, for embedded.S.
 *
 * It is a 7-Zip archive with PPMd, which takes a tenth less than tar and xz for text, and nothing in it differs from
 * machine to machine: the names are in order, and a file is executable or not.
 */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void check(struct archive *a, int status) {
        if (status != ARCHIVE_OK)
                errx(1, "%s", archive_error_string(a));
}

static void add_data(struct archive *a, const char *path) {
        char data[65536];
        size_t n;
        FILE *f = fopen(path, "re");
        if (!f)
                err(1, "%s", path);
        while ((n = fread(data, 1, sizeof(data), f)) > 0)
                if (archive_write_data(a, data, n) != (la_ssize_t)n)
                        errx(1, "%s", archive_error_string(a));
        if (ferror(f))
                err(1, "%s", path);
        fclose(f);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_name(const struct dirent *e) {
        return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static void add(struct archive *a, const char *path);

static void add_folder(struct archive *a, const char *path) {
        struct dirent **entries;
        int n = scandir(path, &entries, is_name, by_name);
        if (n < 0)
                err(1, "%s", path);
        for (int i = 0; i < n; i++) {
                char *member;
                int top = strcmp(path, ".") == 0;
                if (asprintf(&member, "%s%s%s", top ? "" : path, top ? "" : "/", entries[i]->d_name) < 0)
                        err(1, "%s", path);
                add(a, member);
                free(member);
                free(entries[i]);
        }
        free(entries);
}

static void add(struct archive *a, const char *path) {
        struct stat st;
        if (stat(path, &st) < 0)
                err(1, "%s", path);
        struct archive_entry *entry = archive_entry_new();
        if (!entry)
                errx(1, "no memory");
        archive_entry_set_pathname(entry, path);
        archive_entry_set_filetype(entry, S_ISDIR(st.st_mode) ? AE_IFDIR : AE_IFREG);
        archive_entry_set_perm(entry, st.st_mode & 0111 ? 0755 : 0644);
        archive_entry_set_size(entry, S_ISDIR(st.st_mode) ? 0 : st.st_size);
        check(a, archive_write_header(a, entry));
        archive_entry_free(entry);
        if (S_ISDIR(st.st_mode))
                add_folder(a, path);
        else
                add_data(a, path);
}

int main(int argc, char **argv) {
        if (argc != 3)
                errx(2, "usage: embed FILE FOLDER");
        struct archive *a = archive_write_new();
        if (!a)
                errx(1, "no memory");
        check(a, archive_write_set_format_7zip(a));
        check(a, archive_write_set_options(a, "compression=PPMd"));
        check(a, archive_write_open_filename(a, argv[1]));
        if (chdir(argv[2]) < 0)
                err(1, "%s", argv[2]);
        add_folder(a, ".");
        check(a, archive_write_close(a));
        archive_write_free(a);
        return 0;
}
