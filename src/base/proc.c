/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>

#define EXEC_TRIES 500 /* 10 ms apart, of a program that is being written */
#define MANY_FDS 65536 /* a limit may be a billion, of which nobody has opened the last */

/* The C library may lack wrappers for these on older systems. */
static int sys_pidfd_open(pid_t pid) {
        return (int)syscall(SYS_pidfd_open, pid, 0);
}

static int sys_pidfd_send_signal(int pidfd, int signal) {
        return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/* fork(2) with our parent as the child's. The C library has no function for it: its own records of a fork are about
 * threads, of which there are none here. */
static pid_t sys_fork_sibling(void) {
        return (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);
}

void process_close(struct process *p) {
        if (p->pidfd >= 0)
                close(p->pidfd);
        *p = PROCESS_INIT;
}

/* The environment of the child: spec->env or ours, with spec->set_env replacing equal names. */
static void build_env(const struct proc_spec *spec, struct strv *ret) {
        for (const char *const *e = spec->env ? spec->env : (const char *const *)environ; e && *e; e++) {
                size_t name = strcspn(*e, "=") + 1;
                bool replaced = false;
                for (const char *const *s = spec->set_env; s && *s; s++)
                        replaced = replaced || strncmp(*s, *e, name) == 0;
                if (!replaced)
                        strv_push(ret, *e);
        }
        strv_extend(ret, spec->set_env);
}

/* One above the highest descriptor number that the child is to have. */
static int first_free_fd(const struct proc_spec *spec) {
        int high = 3;
        for (size_t i = 0; i < spec->n_fds; i++)
                if (spec->fds[i].child_fd >= high)
                        high = spec->fds[i].child_fd + 1;
        return high;
}

/* Linux before 5.11 has no close_range() that does this. */
static void mark_all_cloexec(int first) {
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > MANY_FDS)
                limit.rlim_cur = MANY_FDS;
        for (int fd = first; fd < (int)limit.rlim_cur; fd++)
                fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/*
 * Runs in the child between fork and exec: async-signal-safe calls only. All descriptors are first
 * moved to @high or above, so that no target is overwritten while it is still a source.
 */
static int set_up_child(const struct proc_spec *spec, int high) {
        int standard[3] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd};
        for (int i = 0; i < 3; i++) {
                int fd = standard[i] >= 0 ? standard[i] : open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY);
                if (fd < 0)
                        return -errno;
                standard[i] = fcntl(fd, F_DUPFD_CLOEXEC, high);
                if (standard[i] < 0)
                        return -errno;
        }
        int moved[8];
        if (spec->n_fds > ELEMENTSOF(moved))
                return -E2BIG;
        for (size_t i = 0; i < spec->n_fds; i++) {
                moved[i] = fcntl(spec->fds[i].parent_fd, F_DUPFD_CLOEXEC, high);
                if (moved[i] < 0)
                        return -errno;
        }
        int confined_by = spec->confined_by < 0 ? -1 : fcntl(spec->confined_by, F_DUPFD_CLOEXEC, high);
        for (int i = 0; i < 3; i++)
                if (dup2(standard[i], i) < 0)
                        return -errno;
        /* Whoever started us may have left descriptors open that are not close-on-exec. */
        for (int fd = 3; fd < high; fd++)
                fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (syscall(SYS_close_range, (unsigned)high, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */) < 0)
                mark_all_cloexec(high);
        for (size_t i = 0; i < spec->n_fds; i++)
                if (dup2(moved[i], spec->fds[i].child_fd) < 0)
                        return -errno;

        if (spec->new_session && setsid() < 0)
                return -errno;
        if (spec->cwd && chdir(spec->cwd) < 0)
                return -errno;
        if (spec->confined_by >= 0 &&
            (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, confined_by, 0) < 0))
                return -errno;
        return 0;
}

/* Signal dispositions other than "ignore" are reset by exec; masks and ignored signals are not. */
static void reset_signals(void) {
        /* Not by signal(2): the C library keeps two signals to itself, and whoever started us may ignore them. All
         * zeroes is the kernel's own form of "default, no flags, empty mask". */
        static const unsigned long by_default[4];
        for (int i = 1; i < NSIG; i++)
                syscall(SYS_rt_sigaction, i, by_default, NULL, sizeof(unsigned long));
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
}

int proc_spawn(const struct proc_spec *spec, struct process *ret, struct error *err) {
        _cleanup_free_ char *program = fs_find_program(spec->argv[0]);
        if (!program)
                return err_set(err, ERR_HOST, ENOENT, "cannot run %s: it is not installed or not executable",
                               spec->argv[0]);
        _cleanup_strv_ struct strv env = {0};
        build_env(spec, &env);

        /* The child writes its errno here when anything before or in exec fails; exec closes it. */
        int status[2];
        if (pipe2(status, O_CLOEXEC) < 0)
                return err_errno(err, errno, "cannot run %s", program);
        pid_t parent = spec->as_sibling ? getppid() : getpid();
        sigset_t all, before;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, &before);
        pid_t pid = spec->as_sibling ? sys_fork_sibling() : fork();
        if (pid == 0) {
                reset_signals();
                int high = first_free_fd(spec);
                int report = fcntl(status[1], F_DUPFD_CLOEXEC, high);
                int r = report < 0 ? -errno : set_up_child(spec, high);
                if (r == 0 && spec->die_with_parent) {
                        prctl(PR_SET_PDEATHSIG, SIGTERM);
                        if (getppid() != parent)
                                _exit(127);
                }
                /* A script that was just written is open for a moment in what another thread has forked, until that
                 * execs. There is nothing to wait on for it. */
                for (int tries = 0; r == 0 || (r == -ETXTBSY && tries < EXEC_TRIES); tries++) {
                        poll(NULL, 0, r < 0 ? 10 : 0);
                        execve(program, (char *const *)spec->argv, env.items ? env.items : (char *const[]){NULL});
                        r = -errno;
                }
                ssize_t n = write(report < 0 ? status[1] : report, &r, sizeof(r));
                (void)n;
                _exit(127);
        }
        int fork_errno = errno;
        sigprocmask(SIG_SETMASK, &before, NULL);
        close(status[1]);
        _cleanup_close_ int status_fd = status[0];
        if (pid < 0)
                return err_errno(err, fork_errno, "cannot run %s", program);

        int child_error = 0;
        ssize_t n;
        do
                n = read(status_fd, &child_error, sizeof(child_error));
        while (n < 0 && errno == EINTR);
        if (n > 0) {
                waitpid(pid, NULL, 0); /* one that is no child of ours is left to its parent */
                int r = err_errno(err, -child_error, "cannot run %s", program);
                if (err)
                        err->code = ERR_HOST;
                return r;
        }
        int pidfd = sys_pidfd_open(pid);
        if (pidfd < 0) {
                int r = err_errno(err, errno, "cannot watch %s", program);
                kill(pid, SIGKILL); /* our own unreaped child: the number cannot have been reused */
                waitpid(pid, NULL, 0);
                return r;
        }
        fcntl(pidfd, F_SETFD, FD_CLOEXEC);
        *ret = (struct process){.pid = pid, .pidfd = pidfd};
        return 0;
}

char *proc_result_string(const struct proc_result *result) {
        if (result->signal)
                return xasprintf("was killed by signal %d (%s)", result->signal, strsignal(result->signal));
        return xasprintf("exited with status %d", result->exit_status);
}

static struct proc_result result_of(const siginfo_t *info) {
        if (info->si_code == CLD_EXITED)
                return (struct proc_result){.exit_status = info->si_status};
        return (struct proc_result){.exit_status = 128 + info->si_status, .signal = info->si_status};
}

int proc_wait(struct process *p, unsigned timeout_ms, struct proc_result *ret, struct error *err) {
        struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
        uint64_t deadline = now_ms() + timeout_ms;
        for (;;) {
                uint64_t now = now_ms();
                int wait_ms = timeout_ms == 0 ? -1 : now >= deadline ? 0 : (int)(deadline - now);
                int n = poll(&pfd, 1, wait_ms);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot wait for process %d", p->pid);
                if (n == 0)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "process %d is still running", p->pid);
                break;
        }
        siginfo_t info = {0};
        if (waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED) < 0)
                return err_errno(err, errno, "cannot wait for process %d", p->pid);
        if (ret)
                *ret = result_of(&info);
        process_close(p);
        return 0;
}

int proc_signal(const struct process *p, int signal, struct error *err) {
        if (sys_pidfd_send_signal(p->pidfd, signal) < 0 && errno != ESRCH)
                return err_errno(err, errno, "cannot signal process %d", p->pid);
        return 0;
}

void proc_end(struct process *p, unsigned grace_ms) {
        if (p->pidfd < 0)
                return;
        proc_signal(p, SIGTERM, NULL);
        if (proc_wait(p, grace_ms ? grace_ms : 1, NULL, NULL) == 0)
                return;
        proc_signal(p, SIGKILL, NULL);
        proc_wait(p, 0, NULL, NULL);
}

int proc_start_time(pid_t pid, uint64_t *ret) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/stat", pid);
        _cleanup_buf_ struct buf b = BUF_INIT(8192);
        if (fs_read(path, 4096, &b, NULL) < 0)
                return -ESRCH;
        /* The command name is in parentheses and may hold anything, so fields are counted from the
         * last ')': what follows it is field 3; the start time is field 22. */
        const char *p = strrchr(buf_str(&b), ')');
        if (!p)
                return -ESRCH;
        _cleanup_strv_ struct strv fields = {0};
        strv_split(&fields, p + 1, " \n");
        if (fields.len < 20 || str_to_u64(fields.items[19], 0, UINT64_MAX, ret) < 0)
                return -ESRCH;
        return 0;
}

int proc_cmdline(pid_t pid, struct strv *ret) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/cmdline", pid);
        _cleanup_buf_ struct buf b = BUF_INIT(1U << 20);
        int r = fs_read(path, (1U << 20) - 1, &b, NULL);
        if (r < 0)
                return r == -EACCES ? -EACCES : -ESRCH;
        for (size_t i = 0; i < b.len; i += strlen(b.data + i) + 1)
                strv_push(ret, b.data + i);
        return 0;
}

int proc_open(pid_t pid, int *ret_pidfd) {
        int fd = sys_pidfd_open(pid);
        if (fd < 0)
                return -errno;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        *ret_pidfd = fd;
        return 0;
}

bool proc_alive(int pidfd) {
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        return poll(&pfd, 1, 0) == 0;
}

char *proc_boot_id(void) {
        _cleanup_buf_ struct buf b = BUF_INIT(128);
        if (fs_read("/proc/sys/kernel/random/boot_id", 64, &b, NULL) < 0 || b.len < 36)
                return NULL;
        return xstrndup(b.data, 36);
}

int proc_memory_kib(pid_t pid, uint64_t *ret_rss, uint64_t *ret_pss) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/smaps_rollup", pid);
        _cleanup_buf_ struct buf b = BUF_INIT(8192);
        int r = fs_read(path, 4096, &b, NULL);
        if (r < 0)
                return r == -EACCES ? -EACCES : -ESRCH;
        unsigned long long rss = 0, pss = 0;
        const char *p = strstr(buf_str(&b), "\nRss:"), *q = strstr(buf_str(&b), "\nPss:");
        if (!p || !q || sscanf(p, "\nRss: %llu", &rss) != 1 || sscanf(q, "\nPss: %llu", &pss) != 1)
                return -ESRCH;
        *ret_rss = rss;
        *ret_pss = pss;
        return 0;
}

int proc_anonymous_kib(pid_t pid, uint64_t *ret) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/status", pid);
        _cleanup_buf_ struct buf b = BUF_INIT(16384);
        unsigned long long anonymous = 0, swapped = 0;
        int r = fs_read(path, 16384, &b, NULL);
        const char *p = r < 0 ? NULL : strstr(buf_str(&b), "\nRssAnon:"), *q = p ? strstr(p, "\nVmSwap:") : NULL;
        if (!p || sscanf(p, "\nRssAnon: %llu", &anonymous) != 1 || (q && sscanf(q, "\nVmSwap: %llu", &swapped) != 1))
                return -ESRCH;
        *ret = anonymous + swapped;
        return 0;
}

char *proc_self_path(void) {
        char path[4096]; /* a program's own path: the kernel gives at most PATH_MAX */
        ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        if (n < 0)
                return NULL;
        return xstrndup(path, (size_t)n);
}
