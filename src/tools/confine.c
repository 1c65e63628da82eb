/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <k3s-vm/cleanup.h>
#include <k3s-vm/confine.h>

/* Newer than the headers of Linux 5.13. */
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif

/* What changes something, as far as a kernel that speaks version @abi of the interface knows of it. */
static uint64_t writes(long abi) {
        uint64_t access = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                          LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
                          LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                          LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;
        if (abi >= 2)
                access |= LANDLOCK_ACCESS_FS_REFER;
        if (abi >= 3)
                access |= LANDLOCK_ACCESS_FS_TRUNCATE;
        return access;
}

static int allow(int ruleset, const char *path, uint64_t access, struct error *err) {
        _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
        if (fd < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
                return err_errno(err, errno, "cannot confine a program to %s", path);
        return 0;
}

int confine_writes(const char *folder, int *ret_fd, struct error *err) {
        long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
        uint64_t access = writes(abi);
        const struct landlock_ruleset_attr attributes = {.handled_access_fs = access};
        _cleanup_close_ int fd =
                        abi < 0 ? -1 : (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
        if (fd < 0)
                return err_set(err, ERR_HOST, errno, "this kernel cannot confine a program to a folder (Landlock)");
        int r = allow(fd, folder, access, err);
        if (r == 0)
                r = allow(fd, "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE | (access & LANDLOCK_ACCESS_FS_TRUNCATE), err);
        if (r == 0)
                *ret_fd = TAKE_FD(fd);
        return r;
}
