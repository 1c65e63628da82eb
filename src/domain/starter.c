/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/socket.h>
#include <k3s-vm/suspend.h>

#include "starter.h"

#define ANSWER_MAX_BYTES (64U * 1024)
#define ANSWER_TIMEOUT_MS 30000 /* starting a program from a slow disk */
#define CONNECT_TIMEOUT_MS 1000

enum order {
        ORDER_LAUNCH = 'l',
        ORDER_RESUME = 'r',
        ORDER_CONNECT = 'c',
        ORDER_CONNECT_GDB = 'g',
        ORDER_SET_CLOCK = 't',
        ORDER_DOZE = 'd'
};

/* The helper's side. */

static int connect_qemu(const struct launch *l, const char *name, int *ret_fd, struct error *err) {
        _cleanup_free_ char *path = launch_socket_path(l, name);
        if (!path)
                return err_set(err, ERR_FAILED, ENOENT, "there is no folder for sockets");
        return socket_connect(path, "QEMU", CONNECT_TIMEOUT_MS, ret_fd, err);
}

/* By this program itself, as SSH and everything that comes with it has no place here. @last is the one before: while it
 * is still at work there is nothing to add, as it takes the time when it sets it. */
static int set_clock(const struct launch *l, struct process *last, struct error *err) {
        if (last->pidfd >= 0 && proc_alive(last->pidfd))
                return 0;
        process_close(last);
        const char *const argv[] = {"/proc/self/exe", "set-clock", "--project", l->project->root, NULL};
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        spec.cwd = "/";
        spec.new_session = true;
        return proc_spawn(&spec, last, err);
}

/* It outlives the supervisor, and this process with it. */
static int doze(const struct launch *l, struct error *err) {
        const char *const argv[] = {"/proc/self/exe", "doze", "--project", l->project->root, l->name, NULL};
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        spec.cwd = "/";
        spec.new_session = true;
        _cleanup_process_ struct process dozing = PROCESS_INIT;
        return proc_spawn(&spec, &dozing, err);
}

static void carry_out(enum order order, const struct launch *l, struct process *clock, int socket) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *answer = json_new_object();
        _cleanup_close_ int fd = -1;
        int r;
        if (order == ORDER_LAUNCH || order == ORDER_RESUME) {
                struct launched launched = {0};
                r = launch_qemu(l, order == ORDER_RESUME, &launched, &err);
                if (r == 0) {
                        fd = launched.qmp_fd;
                        json_set_number(answer, "pid", launched.pid);
                        json_set_number(answer, "log_start", (double)launched.log_start);
                }
        } else if (order == ORDER_CONNECT || order == ORDER_CONNECT_GDB)
                r = connect_qemu(l, order == ORDER_CONNECT ? QEMU_QMP_SUPERVISOR : QEMU_GDB, &fd, &err);
        else if (order == ORDER_SET_CLOCK)
                r = set_clock(l, clock, &err);
        else if (order == ORDER_DOZE)
                r = doze(l, &err);
        else
                r = err_set(&err, ERR_FAILED, EINVAL, "there is no such order");
        if (r < 0)
                json_set(answer, "error", error_to_json(&err));
        _cleanup_free_ char *text = json_print(answer, false);
        socket_send_message(socket, text, strlen(text), fd);
}

static _Noreturn void serve(const struct launch *l, int socket) {
        prctl(PR_SET_NAME, "k3s-vm-starter");
        /* It ends with the supervisor, not before: a signal to the whole group is for those who can act on it. */
        static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
        for (size_t i = 0; i < ELEMENTSOF(ignored); i++)
                signal(ignored[i], SIG_IGN);
        signal(SIGCHLD, SIG_IGN); /* its own children are nobody's to wait for */
        struct process clock = PROCESS_INIT;
        for (;;) {
                char order = 0;
                int fd = -1;
                if (socket_receive_message(socket, &order, sizeof(order), &fd) <= 0)
                        _exit(0);
                closep_(&fd);
                carry_out((enum order)order, l, &clock, socket);
                if (order == ORDER_RESUME)
                        suspend_files_read_ahead(l->project);
                if (order == ORDER_RESUME || order == ORDER_LAUNCH)
                        suspend_files_sweep(l->project);
        }
}

/* The supervisor's side. */

int starter_new(const struct launch *l, const int *close_fds, struct starter *ret, struct error *err) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return err_errno(err, errno, "cannot create a socket");
        /* The helper's until its end, and its children's until they are QEMU: supervisor_wait_launch(). */
        _cleanup_close_ int hold = fs_hold_path(l->project->vm_dir);
        pid_t pid = fork();
        if (pid == 0) {
                (void)TAKE_FD(hold);
                close(ends[0]);
                for (; *close_fds >= 0; close_fds++)
                        close(*close_fds);
                serve(l, ends[1]);
        }
        int fork_errno = errno;
        close(ends[1]);
        if (pid < 0) {
                close(ends[0]);
                return err_errno(err, fork_errno, "cannot start the supervisor's helper");
        }
        *ret = (struct starter){.pid = pid, .socket = ends[0]};
        return 0;
}

void starter_end(struct starter *s) {
        closep_(&s->socket);
        siginfo_t info;
        if (s->pid > 0)
                while (waitid(P_PID, (id_t)s->pid, &info, WEXITED) < 0 && errno == EINTR)
                        ;
        *s = STARTER_INIT;
}

static int give_order(const struct starter *s, enum order order, struct json **ret, int *ret_fd, struct error *err) {
        char byte = (char)order;
        int r = socket_send_message(s->socket, &byte, sizeof(byte), -1);
        struct pollfd pfd = {.fd = s->socket, .events = POLLIN};
        if (r < 0 || poll(&pfd, 1, ANSWER_TIMEOUT_MS) <= 0)
                return err_set(err, ERR_FAILED, EPIPE, "the supervisor's helper is gone or hangs");
        _cleanup_free_ char *text = xcalloc(1, ANSWER_MAX_BYTES);
        _cleanup_close_ int fd = -1;
        _cleanup_json_ struct json *answer = NULL;
        ssize_t n = socket_receive_message(s->socket, text, ANSWER_MAX_BYTES, &fd);
        if (n <= 0 || json_parse(text, (size_t)n, &answer, NULL) < 0)
                return err_set(err, ERR_FAILED, EPIPE, "the supervisor's helper is gone");
        if (json_get(answer, "error"))
                return error_from_json(json_get(answer, "error"), err);
        *ret = TAKE_PTR(answer);
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int starter_launch(const struct starter *s, bool resume, struct launched *ret, struct error *err) {
        _cleanup_json_ struct json *answer = NULL;
        int fd = -1, r = give_order(s, resume ? ORDER_RESUME : ORDER_LAUNCH, &answer, &fd, err);
        if (r == 0)
                *ret = (struct launched){.pid = (pid_t)json_u64_or(json_get(answer, "pid"), 0),
                                         .qmp_fd = fd,
                                         .log_start = (off_t)json_u64_or(json_get(answer, "log_start"), 0)};
        return r;
}

int starter_connect(const struct starter *s, int *ret_qmp_fd, struct error *err) {
        _cleanup_json_ struct json *answer = NULL;
        return give_order(s, ORDER_CONNECT, &answer, ret_qmp_fd, err);
}

int starter_connect_gdb(const struct starter *s, int *ret_fd, struct error *err) {
        _cleanup_json_ struct json *answer = NULL;
        return give_order(s, ORDER_CONNECT_GDB, &answer, ret_fd, err);
}

int starter_doze(const struct starter *s, struct error *err) {
        _cleanup_json_ struct json *answer = NULL;
        _cleanup_close_ int fd = -1;
        return give_order(s, ORDER_DOZE, &answer, &fd, err);
}

int starter_set_clock(const struct starter *s, struct error *err) {
        _cleanup_json_ struct json *answer = NULL;
        _cleanup_close_ int fd = -1;
        return give_order(s, ORDER_SET_CLOCK, &answer, &fd, err);
}
