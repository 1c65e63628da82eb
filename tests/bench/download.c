/* SPDX-License-Identifier: MIT */
/* download URL PATH HASH: by http_download(), for tests/bench/download. */
#include <stdio.h>

#include <k3s-vm/http.h>

int main(int argc, char **argv) {
        if (argc != 4)
                return 2;
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_http_ struct http *h = NULL;
        const struct http_download d = {.url = argv[1], .path = argv[2], .hash = argv[3], .attempts = 1};
        int r = http_new(NULL, &h, &err);
        if (r == 0)
                r = http_download(h, &d, &err);
        if (r < 0)
                fprintf(stderr, "%s\n", err.message);
        return r < 0;
}
