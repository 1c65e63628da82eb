/* SPDX-License-Identifier: MIT */
/* Any file either is refused or is a disk that refers to no other file. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <k3s-vm/cloud_image.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_close_ int fd = memfd_create("disk", MFD_CLOEXEC);
        _cleanup_free_ char *path = xasprintf("/proc/self/fd/%d", fd), *base = NULL;
        struct disk_look look = {0};
        if (fd < 0 || write(fd, data, size) != (ssize_t)size)
                return 0;
        int looked = disk_look(path, &look, &err), r = disk_base(path, &base, NULL);
        if (looked == 0 && (!look.format || r < 0 || base))
                abort();
        if (looked < 0 && !err.message)
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
