/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

/* One a process, as signals are. */
static int signal_fd = -1;

static sigset_t signals(void) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        return set;
}

int interrupt_begin(struct error *err) {
        if (signal_fd >= 0)
                return 0;
        const sigset_t set = signals();
        sigprocmask(SIG_BLOCK, &set, NULL);
        signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return signal_fd < 0 ? err_errno(err, errno, "cannot receive signals") : 0;
}

void interrupt_end(void) {
        if (signal_fd < 0)
                return;
        const sigset_t set = signals();
        closep_(&signal_fd);
        signal_fd = -1;
        sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int interrupt_fd(void) {
        return signal_fd;
}

bool interrupt_pending(void) {
        struct pollfd pfd = {.fd = signal_fd, .events = POLLIN};
        return signal_fd >= 0 && poll(&pfd, 1, 0) > 0;
}

int interrupt_check(struct error *err) {
        return interrupt_pending() ? err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted") : 0;
}

int interrupt_wait(int fd, unsigned ms, struct error *err) {
        uint64_t deadline = now_ms() + ms;
        for (;;) {
                struct pollfd pfds[2] = {{.fd = fd, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
                uint64_t now = now_ms();
                int n = poll(pfds, 2, now >= deadline ? 0 : (int)(deadline - now));
                if (n < 0 && errno != EINTR)
                        return err_errno(err, errno, "cannot wait");
                if (n > 0 && pfds[1].revents)
                        return err_set(err, ERR_INTERRUPTED, ECANCELED, "interrupted");
                if (n > 0)
                        return 1;
                if (n == 0)
                        return 0;
        }
}
