/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

static int64_t read_ms(clockid_t clock) {
        struct timespec t;
        clock_gettime(clock, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void clock_read(struct clock_reading *ret) {
        *ret = (struct clock_reading){.real = read_ms(CLOCK_REALTIME),
                                      .boottime = read_ms(CLOCK_BOOTTIME),
                                      .monotonic = read_ms(CLOCK_MONOTONIC)};
}

bool clock_jumped(const struct clock_reading *before, const struct clock_reading *now, struct clock_jump *ret) {
        /* The one clock runs on in a suspended machine, the other does not; else they go together, and slewing by a
         * time server changes their speed alike. */
        int64_t suspended = (now->boottime - before->boottime) - (now->monotonic - before->monotonic);
        int64_t set = (now->real - before->real) - (now->boottime - before->boottime);
        if (llabs(suspended) < CLOCK_JUMP_MS && llabs(set) < CLOCK_JUMP_MS)
                return false;
        *ret = (struct clock_jump){.suspended_ms = suspended, .set_ms = set};
        return true;
}

int clock_watch(int *ret_fd, struct error *err) {
        _cleanup_close_ int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
        /* It is never to expire; that it is cancelled by a change of the clock is what it is for. */
        struct itimerspec never = {.it_value.tv_sec = (time_t)0x1ffffffff}; /* in 2242 */
        if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0)
                return err_errno(err, errno, "cannot watch the clock");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

void clock_watch_drain(int fd) {
        uint64_t expirations;
        ssize_t n = read(fd, &expirations, sizeof(expirations));
        (void)n; /* -ECANCELED is what is expected */
}
