/* SPDX-License-Identifier: MIT */
/*
 * How long it takes to find out that the NixOS guest is the one that would be built, which each start does. Prints the
 * milliseconds of each of RUNS (21).
 *
 *   nixos [RUNS]
 */
#include <stdio.h>
#include <time.h>

#include <k3s-vm/guest_nixos.h>

#include "../unit/fake_nix.h"

static double now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int measure(const char *top, int runs) {
        _cleanup_project_ struct project *p = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = fake_nix(top);
        if (r == 0)
                r = project_find(top, &p, &err);
        if (r == 0)
                r = project_create_dirs(p, &err);
        /* The first one builds. */
        for (int i = 0; r == 0 && i <= runs; i++) {
                _cleanup_free_ char *dir = NULL;
                double begin = now();
                r = guest_nixos_ensure(p, NULL, NULL, &dir, &err);
                if (i > 0)
                        printf("%.3f\n", now() - begin);
        }
        if (r < 0)
                fprintf(stderr, "%s\n%s\n", err.message ? err.message : strerror(-r), err.detail ? err.detail : "");
        return r;
}

int main(int argc, char **argv) {
        _cleanup_free_ char *top = NULL;
        if (fs_mkdtemp("/tmp", "k3s-vm-bench", &top, NULL) < 0)
                return 1;
        int r = measure(top, argc > 1 ? atoi(argv[1]) : 21);
        fs_remove_tree(top, NULL);
        return r < 0;
}
