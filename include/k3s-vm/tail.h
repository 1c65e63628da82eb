/* SPDX-License-Identifier: MIT */
/*
 * The end of a text file that something else writes to, and what is added to it: `tail -n N -F` without another
 * program. A rotated file (renamed or cut, and begun anew) is followed under its name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <k3s-vm/err.h>

#define TAIL_LINE_MAX (64U * 1024) /* bytes; a longer line is handed out in pieces */
#define TAIL_ALL UINT64_MAX

/* One line without its newline. A negative return ends the reading with that value. */
typedef int tail_line_fn(const char *line, size_t len, void *userdata);

struct tail_spec {
        const char *path;
        uint64_t lines; /* how many to begin with, or TAIL_ALL */
        bool follow;    /* go on until the function ends it, or the file's folder is gone */
        int hangup_fd;  /* -1, or a descriptor (a pipe that is written to) whose hang-up ends the following */
        tail_line_fn *on_line;
        void (*on_pause)(void *userdata); /* everything there is was handed out; NULL: none */
        void *userdata;
};
/* -ENOENT when there is no such file and it is not to be followed; a followed one may still be missing, but its
 * folder must be there. */
int tail_file(const struct tail_spec *spec, struct error *err);
