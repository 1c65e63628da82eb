/* SPDX-License-Identifier: MIT */
/*
 * How long the scan before a start takes among N processes (500): the orphans of a VM, and who holds its three ports.
 * Prints, for each of RUNS (21), the milliseconds with free ports, and those with a port whose holder takes longest
 * to find: it is the last process, and the descriptor lies beyond a gap.
 *
 *   scan [PROCESSES [RUNS]]
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <k3s-vm/ports.h>

#define UUID "01234567-89ab-4cde-8f01-23456789abcd"
#define FAR_DESCRIPTOR 100

static double now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int listen_anywhere(uint16_t *ret_port) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t len = sizeof(a);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, 1) < 0 ||
            getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
                perror("a listening socket");
                exit(1);
        }
        *ret_port = ntohs(a.sin_port);
        return fd;
}

/* A process that waits for its parent's end and holds no descriptor but the standard ones and, far from them, a copy
 * of @fd. */
static void spawn(int fd) {
        pid_t parent = getpid(), pid = fork();
        if (pid < 0) {
                perror("fork");
                exit(1);
        }
        if (pid > 0)
                return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if ((fd >= 0 && dup2(fd, FAR_DESCRIPTOR) < 0) || close_range(3, FAR_DESCRIPTOR - 1, 0) < 0 ||
            close_range(FAR_DESCRIPTOR + (fd >= 0), ~0U, 0) < 0)
                _exit(1);
        while (getppid() == parent)
                pause();
        _exit(0);
}

static double scan(const uint16_t ports[static 3], bool expect_taken) {
        double begin = now();
        _cleanup_free_ pid_t *pids = NULL;
        _cleanup_port_scan_ struct port_scan *s = NULL;
        size_t n = 0;
        bool taken = false;
        if (vm_processes(UUID, &pids, &n) < 0 || n != 0 || port_scan_new(&s, NULL) < 0)
                exit(1);
        for (size_t i = 0; i < 3; i++) {
                struct port_holder h = {0};
                if (port_taken(s, ports[i], NULL, &h))
                        taken = h.pid > 0;
                port_holder_clear(&h);
        }
        double ms = now() - begin;
        if (taken != expect_taken) {
                fprintf(stderr, "the port is taken: %d\n", taken);
                exit(1);
        }
        return ms;
}

int main(int argc, char **argv) {
        int processes = argc > 1 ? atoi(argv[1]) : 500, runs = argc > 2 ? atoi(argv[2]) : 21;
        uint16_t ports[3], held;
        for (size_t i = 0; i < 3; i++)
                close(listen_anywhere(&ports[i]));
        for (int i = 0; i < processes; i++)
                spawn(-1);
        int fd = listen_anywhere(&held);
        spawn(fd);
        close(fd);
        const uint16_t with_held[3] = {ports[0], ports[1], held};
        for (int i = 0; i < runs; i++)
                printf("%.3f %.3f\n", scan(ports, false), scan(with_held, true));
        return 0;
}
