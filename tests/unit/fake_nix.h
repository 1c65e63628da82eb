/* SPDX-License-Identifier: MIT */
/* A program `nix` first on PATH, which "builds" the guest in TOP/guest and adds a line to TOP/calls, and that guest. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include <k3s-vm/fs.h>

static inline int fake_file(const char *folder, const char *name, const char *text, mode_t mode) {
        _cleanup_free_ char *path = path_join(folder, name);
        return fs_write_atomic(path, text, strlen(text), mode, NULL);
}

static inline int fake_nix(const char *top) {
        _cleanup_free_ char *bin = path_join(top, "bin"), *guest = path_join(top, "guest");
        const char *before = getenv("PATH");
        _cleanup_free_ char *path = xasprintf("%s:%s", bin, before ? before : "");
        _cleanup_free_ char *script = xasprintf(
                        "#!/bin/sh\n[ \"$1\" != --version ] || exec echo 'nix (Nix) 2.31.0'\necho \"$*\" >>'%s/calls'\n"
                        "while [ $# -gt 1 ]; do [ \"$1\" != --out-link ] || ln -sfn '%s' \"$2\"; shift; done\n",
                        top, guest);
        setenv("PATH", path, 1);
        int r = fs_mkdir_p(bin, 0755, NULL);
        if (r == 0)
                r = fs_mkdir_p(guest, 0755, NULL);
        if (r == 0)
                r = fake_file(bin, "nix", script, 0755);
        if (r == 0)
                r = fake_file(guest, "kernel", "x", 0644);
        if (r == 0)
                r = fake_file(guest, "guest.json",
                              "{\"schema\":1,\"flavor\":\"nixos\",\"system\":\"x86_64-linux\",\"version\":\"1\","
                              "\"boot\":{\"kernel\":\"kernel\",\"cmdline\":\"quiet\"},\"provision\":\"credentials\"}",
                              0644);
        return r;
}
