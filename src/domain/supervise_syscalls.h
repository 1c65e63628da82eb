/* SPDX-License-Identifier: MIT */
/*
 * The system calls a supervisor may make once its VM runs: those its loop needs, under every name that a C library
 * may know them by (glibc's and musl's, 64-bit and 32-bit time). What is not here cannot happen: no program is
 * started, no socket made or connected, no memory made executable, no user, mount or other process looked into but
 * through /proc and a pidfd. What needs more is the starter's work (starter.h).
 */
#pragma once

#include <sys/mman.h>

#include <k3s-vm/sandbox.h>

static const struct sandbox_rule supervise_syscalls[] = {
                /* the loop: descriptors, timers, signals */
                {.syscalls = "epoll_wait epoll_pwait epoll_pwait2 epoll_ctl epoll_ctl_old poll ppoll "
                             "ppoll_time64 timerfd_settime timerfd_settime64 rt_sigprocmask rt_sigreturn "
                             "restart_syscall"},
                /* QEMU's monitor, the starter, those who ask on the control socket */
                {.syscalls = "read readv write writev sendto send sendmsg recvfrom recv recvmsg accept4 "
                             "accept getsockopt shutdown close close_range fcntl fcntl64"},
                /* QEMU as a process: how it ended, which one it is */
                {.syscalls = "pidfd_open pidfd_send_signal waitid wait4 waitpid getpid getppid gettid getuid "
                             "getuid32 geteuid geteuid32"},
                /* files: state, logs, events, locks, what /proc says */
                {.syscalls = "open openat openat2 lseek _llseek pread64 pwrite64 copy_file_range stat stat64 "
                             "lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs "
                             "fstatfs64 access faccessat faccessat2 readlink readlinkat getdents getdents64 "
                             "flock ftruncate ftruncate64 fchmod fsync fdatasync rename renameat renameat2 "
                             "unlink unlinkat rmdir mkdir mkdirat"},
                /* time, memory, randomness for temporary names, the C library's own needs */
                {.syscalls = "clock_gettime clock_gettime64 clock_getres clock_getres_time64 gettimeofday time "
                             "nanosleep "
                             "clock_nanosleep clock_nanosleep_time64 brk munmap mremap madvise getrandom "
                             "futex futex_time64 rseq sysinfo exit exit_group"},
                /* memory that stays data */
                {.syscalls = "mmap mmap2 mprotect", .mask = PROT_EXEC, .argument = 2},
};
