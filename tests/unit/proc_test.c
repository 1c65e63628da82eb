/* SPDX-License-Identifier: MIT */
/* Starting, waiting for, and telling processes apart. proc_run() is tested in proc_run_test.c. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>
#include <seccomp.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>

#include "child.h"
#include "folder.h"

static char *self;

/* What this program does when a test starts it: prints "NUMBER=FILE " for each descriptor it was given, then
 * whether it leads a session. */
static int probe(void) {
        char target[4096];
        for (int fd = 0; fd < 1024; fd++) {
                _cleanup_free_ char *link = xasprintf("/proc/self/fd/%d", fd);
                ssize_t n = readlink(link, target, sizeof(target));
                if (n >= 0)
                        printf("%d=%.*s ", fd, (int)n, target);
        }
        printf("%s\n", getsid(0) == getpid() ? "leader" : "follower");
        return 0;
}

static struct proc_spec probe_spec(void) {
        static const char *argv[] = {NULL, "--probe", NULL};
        argv[0] = self;
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        return spec;
}

/* Runs @spec with its stdout into a file in @dir and gives what was written there, or NULL. */
static char *output_of(const char *dir, struct proc_spec spec) {
        _cleanup_free_ char *path = path_join(dir, "out");
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        spec.stdout_fd = fd;
        _cleanup_process_ struct process p = PROCESS_INIT;
        struct proc_result result = {.exit_status = -1};
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        if (fd < 0 || proc_spawn(&spec, &p, NULL) < 0 || proc_wait(&p, 60000, &result, NULL) < 0 ||
            result.exit_status != 0 || fs_read(path, 1U << 20, &b, NULL) < 0)
                return NULL;
        return buf_take(&b);
}

static void assert_output(const char *dir, struct proc_spec spec, const char *expected) {
        _cleanup_free_ char *output = output_of(dir, spec);
        assert_non_null(output);
        assert_string_equal(output, expected);
}

static int open_at(const char *path, int number, int command) {
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        return fcntl(fd, command, number);
}

/* Starting. */

static void a_child_gets_dev_null_and_no_other_descriptor(void **state) {
        _cleanup_free_ char *leak = path_join(*state, "leak"),
                            *expected = xasprintf("0=/dev/null 1=%s/out 2=/dev/null follower\n", (char *)*state);
        int low = open_at(leak, 3, F_DUPFD), high = open_at(leak, 300, F_DUPFD);
        assert_output(*state, probe_spec(), expected);
        /* The parent keeps them as they were. */
        assert_int_equal(fcntl(low, F_GETFD), 0);
        assert_int_equal(fcntl(high, F_GETFD), 0);
        close(low);
        close(high);
}

static void descriptors_can_swap_their_numbers(void **state) {
        _cleanup_free_ char *a = path_join(*state, "a"), *b = path_join(*state, "b"),
                            *expected = xasprintf("0=%s 1=%s/out 2=%s 3=%s 40=%s 41=%s leader\n", b, (char *)*state, a,
                                                  a, b, a);
        int a_fd = open_at(a, 40, F_DUPFD_CLOEXEC), b_fd = open_at(b, 41, F_DUPFD_CLOEXEC);
        assert_int_equal(a_fd, 40);
        assert_int_equal(b_fd, 41);
        struct proc_spec spec = probe_spec();
        const struct proc_fd fds[] = {{a_fd, 41}, {b_fd, 40}, {a_fd, 3}};
        spec.fds = fds;
        spec.n_fds = ELEMENTSOF(fds);
        spec.stdin_fd = b_fd;
        spec.stderr_fd = a_fd;
        spec.new_session = true;
        assert_output(*state, spec, expected);
        assert_int_equal(fcntl(a_fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(b_fd, F_GETFD), FD_CLOEXEC);
        close(a_fd);
        close(b_fd);
}

static int spawn_with_nothing_open(void *dir) {
        _cleanup_free_ char *a = path_join(dir, "a"),
                            *expected = xasprintf("0=%s 1=%s/out 2=/dev/null 3=%s follower\n", a, (char *)dir, a);
        CHECK(close(0) == 0 && close(1) == 0);
        int fd = open(a, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        CHECK(fd == 0);
        struct proc_spec spec = probe_spec();
        const struct proc_fd fds[] = {{fd, 3}};
        spec.fds = fds;
        spec.n_fds = 1;
        spec.stdin_fd = fd;
        /* The last, so that what fails before can be said. */
        int saved = fcntl(2, F_DUPFD_CLOEXEC, 100);
        close(2);
        _cleanup_free_ char *output = output_of(dir, spec);
        dup2(saved, 2);
        CHECK(str_eq(output, expected));
        return 0;
}

static void a_parent_without_standard_descriptors_can_start_children(void **state) {
        child_run(spawn_with_nothing_open, *state);
}

static int spawn_on_an_old_kernel(void *dir) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(close_range), 0) < 0 ||
            seccomp_load(filter) < 0)
                return CHILD_SKIP;
        seccomp_release(filter);
        _cleanup_free_ char *leak = path_join(dir, "leak"),
                            *expected = xasprintf("0=/dev/null 1=%s/out 2=/dev/null follower\n", (char *)dir);
        CHECK(open_at(leak, 3, F_DUPFD) >= 3 && open_at(leak, 300, F_DUPFD) >= 300);
        _cleanup_free_ char *output = output_of(dir, probe_spec());
        CHECK(str_eq(output, expected));
        return 0;
}

static void without_close_range_no_descriptor_leaks_either(void **state) {
        child_run(spawn_on_an_old_kernel, *state);
}

static int spawn_with_few_descriptors(void *dir _unused_) {
        const struct rlimit limit = {32, 32};
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        struct proc_spec spec = probe_spec();
        const struct proc_fd fds[] = {{0, 60}};
        spec.fds = fds;
        spec.n_fds = 1;
        struct process p = PROCESS_INIT;
        CHECK(proc_spawn(&spec, &p, NULL) < 0);
        CHECK(p.pid == -1);
        return 0;
}

static void a_number_above_the_limit_is_reported(void **state) {
        child_run(spawn_with_few_descriptors, *state);
}

static void on_signal(int signal _unused_) {
}

static int spawn_with_odd_signals(void *dir) {
        sigset_t set;
        sigfillset(&set);
        CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGCHLD, SIG_DFL);
        signal(SIGRTMIN + 3, SIG_IGN);
        signal(SIGTERM, on_signal);
        /* One that the C library keeps to itself; the kernel's own form of its disposition. */
        const unsigned long ignore[4] = {(unsigned long)SIG_IGN};
        CHECK(syscall(SYS_rt_sigaction, 33, ignore, NULL, sizeof(unsigned long)) == 0);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status", NULL};
        _cleanup_free_ char *output = output_of(dir, spec);
        CHECK(output);
        CHECK(strstr(output, "SigBlk:\t0000000000000000\n"));
        CHECK(strstr(output, "SigIgn:\t0000000000000000\n"));
        sigset_t now;
        CHECK(sigprocmask(SIG_BLOCK, NULL, &now) == 0);
        CHECK(sigismember(&now, SIGUSR1) == 1 && sigismember(&now, SIGTERM) == 1);
        return 0;
}

static void a_child_starts_with_signals_at_their_defaults(void **state) {
        child_run(spawn_with_odd_signals, *state);
}

static void assert_cannot_spawn(const struct proc_spec *spec, int expected, const char *named) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct process p = PROCESS_INIT;
        assert_int_equal(proc_spawn(spec, &p, &err), -expected);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, named));
        assert_int_equal(p.pid, -1);
        assert_int_equal(p.pidfd, -1);
        /* Nothing is left to be reaped. */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
}

static void what_cannot_be_run_is_an_error_that_names_it(void **state) {
        _cleanup_free_ char *plain = path_join(*state, "plain"), *garbage = path_join(*state, "garbage"),
                            *orphan = path_join(*state, "orphan");
        assert_int_equal(fs_write_atomic(plain, "#!/bin/sh\n", 10, 0644, NULL), 0);
        assert_int_equal(fs_write_atomic(garbage, "\177ELF garbage", 12, 0755, NULL), 0);
        assert_int_equal(fs_write_atomic(orphan, "#!/nowhere/sh\n", 14, 0755, NULL), 0);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"k3s-vm-no-such-program", NULL};
        assert_cannot_spawn(&spec, ENOENT, "k3s-vm-no-such-program");
        spec.argv = (const char *const[]){plain, NULL};
        assert_cannot_spawn(&spec, ENOENT, plain);
        spec.argv = (const char *const[]){garbage, NULL};
        assert_cannot_spawn(&spec, ENOEXEC, garbage);
        spec.argv = (const char *const[]){orphan, NULL};
        assert_cannot_spawn(&spec, ENOENT, orphan);
        spec.argv = (const char *const[]){*state, NULL};
        assert_cannot_spawn(&spec, EACCES, *state);
        spec.argv = (const char *const[]){"true", NULL};
        spec.cwd = plain;
        assert_cannot_spawn(&spec, ENOTDIR, "true");
        spec.cwd = NULL;
        const struct proc_fd closed[] = {{999, 3}};
        spec.fds = closed;
        spec.n_fds = 1;
        assert_cannot_spawn(&spec, EBADF, "true");
}

static void a_script_that_somebody_holds_open_for_a_moment_is_waited_for(void **state) {
        _cleanup_free_ char *path = path_join(*state, "script");
        assert_int_equal(fs_write_atomic(path, "#!/bin/sh\nexit 7\n", 17, 0755, NULL), 0);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        pid_t holder = fork();
        if (holder == 0) {
                poll(NULL, 0, 300);
                _exit(0);
        }
        close(fd);
        const char *const argv[] = {path, NULL};
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        _cleanup_process_ struct process p = PROCESS_INIT;
        struct proc_result result = {0};
        assert_int_equal(proc_spawn(&spec, &p, NULL), 0);
        assert_int_equal(proc_wait(&p, 60000, &result, NULL), 0);
        assert_int_equal(result.exit_status, 7);
        assert_int_equal(waitpid(holder, NULL, 0), holder);
}

static void variables_are_added_and_replace_those_of_the_same_name(void **state) {
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"env", NULL};
        spec.env = (const char *const[]){"A=old", "AB=kept", "B=kept", "A_=kept", NULL};
        spec.set_env = (const char *const[]){"A=new", "C=a=b", NULL};
        assert_output(*state, spec, "AB=kept\nB=kept\nA_=kept\nA=new\nC=a=b\n");
        spec.env = (const char *const[]){NULL};
        spec.set_env = NULL;
        assert_output(*state, spec, "");
}

static void without_an_environment_the_parent_s_is_inherited(void **state) {
        setenv("K3S_VM_TEST_A", "from the parent", 1);
        setenv("K3S_VM_TEST_B", "from the parent", 1);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"sh", "-c", "echo $K3S_VM_TEST_A, $K3S_VM_TEST_B", NULL};
        spec.set_env = (const char *const[]){"K3S_VM_TEST_B=set", NULL};
        assert_output(*state, spec, "from the parent, set\n");
        assert_string_equal(getenv("K3S_VM_TEST_B"), "from the parent");
        unsetenv("K3S_VM_TEST_A");
        unsetenv("K3S_VM_TEST_B");
}

static void a_child_starts_in_its_folder(void **state) {
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"pwd", "-P", NULL};
        spec.cwd = *state;
        _cleanup_free_ char *resolved = realpath(*state, NULL), *expected = xasprintf("%s\n", resolved);
        assert_output(*state, spec, expected);
}

/* Waiting and ending. */

static struct process start(const char *script) {
        struct process p = PROCESS_INIT;
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"sh", "-c", script, "name", "", "two\nwords", NULL};
        spec.new_session = true;
        assert_int_equal(proc_spawn(&spec, &p, NULL), 0);
        return p;
}

static void assert_result(const char *script, int status, int signal, const char *text) {
        struct process p = start(script);
        struct proc_result result = {0};
        assert_int_equal(proc_wait(&p, 60000, &result, NULL), 0);
        assert_int_equal(result.exit_status, status);
        assert_int_equal(result.signal, signal);
        _cleanup_free_ char *shown = proc_result_string(&result);
        assert_string_equal(shown, text);
        assert_int_equal(p.pidfd, -1);
}

static void the_result_says_how_a_child_ended(void **state _unused_) {
        assert_result("exit 0", 0, 0, "exited with status 0");
        assert_result("exit 255", 255, 0, "exited with status 255");
        assert_result("kill -9 $$", 137, 9, "was killed by signal 9 (Killed)");
}

static void a_wait_that_takes_too_long_leaves_the_child_running(void **state _unused_) {
        struct process p = start("exec sleep 1000");
        _cleanup_error_ struct error err = ERROR_INIT;
        uint64_t begin = now_ms();
        assert_int_equal(proc_wait(&p, 50, NULL, &err), -ETIMEDOUT);
        assert_true(now_ms() - begin >= 50);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_true(proc_alive(p.pidfd));
        proc_end(&p, 60000);
        assert_int_equal(p.pid, -1);
        proc_end(&p, 1); /* nothing to end */
}

static void a_child_that_ignores_sigterm_is_killed(void **state _unused_) {
        int ready[2];
        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        struct process p = PROCESS_INIT;
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"sh", "-c", "trap '' TERM; echo; exec sleep 1000", NULL};
        spec.stdout_fd = ready[1];
        assert_int_equal(proc_spawn(&spec, &p, NULL), 0);
        char c;
        assert_int_equal(read(ready[0], &c, 1), 1);
        int pidfd = -1;
        assert_int_equal(proc_open(p.pid, &pidfd), 0);
        assert_int_equal(proc_signal(&p, SIGTERM, NULL), 0);
        assert_int_equal(proc_wait(&p, 50, NULL, NULL), -ETIMEDOUT);
        proc_end(&p, 50);
        assert_false(proc_alive(pidfd));
        close(pidfd);
        close(ready[0]);
        close(ready[1]);
}

static void signalling_who_is_gone_is_no_error(void **state _unused_) {
        struct process p = start("exit 0");
        struct process copy = p;
        copy.pidfd = fcntl(p.pidfd, F_DUPFD_CLOEXEC, 3);
        assert_int_equal(proc_wait(&p, 60000, NULL, NULL), 0);
        assert_int_equal(proc_signal(&copy, SIGTERM, NULL), 0);
        assert_false(proc_alive(copy.pidfd));
        int pidfd = -1;
        assert_int_equal(proc_open(copy.pid, &pidfd), -ESRCH);
        process_close(&copy);
}

static int start_a_bound_child(void *pipe_fd) {
        struct process p = PROCESS_INIT;
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){"sleep", "1000", NULL};
        spec.die_with_parent = true;
        CHECK(proc_spawn(&spec, &p, NULL) == 0);
        CHECK(write(*(int *)pipe_fd, &p.pid, sizeof(p.pid)) == sizeof(p.pid));
        for (;;)
                pause();
}

static void a_bound_child_dies_with_its_parent(void **state _unused_) {
        int fds[2], pidfd = -1;
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid_t parent = child_start(start_a_bound_child, &fds[1]), bound = 0;
        assert_int_equal(read(fds[0], &bound, sizeof(bound)), sizeof(bound));
        assert_int_equal(proc_open(bound, &pidfd), 0);
        assert_true(proc_alive(pidfd));
        assert_int_equal(fcntl(pidfd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(kill(parent, SIGKILL), 0);
        assert_int_equal(child_status(parent), 128 + SIGKILL);
        struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 30000), 1);
        assert_false(proc_alive(pidfd));
        close(pidfd);
        close(fds[0]);
        close(fds[1]);
}

/* Identity. */

static int read_start_time_under_odd_names(void *userdata _unused_) {
        static const char *const names[] = {"a) R 1 2 3", ") ) ) (", "x)\n(y", "((", " "};
        uint64_t before = 0, now = 0;
        CHECK(proc_start_time(getpid(), &before) == 0);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                CHECK(prctl(PR_SET_NAME, names[i]) == 0);
                CHECK(proc_start_time(getpid(), &now) == 0);
                CHECK(now == before);
        }
        /* Against another source: seconds since boot. */
        struct timespec uptime;
        CHECK(clock_gettime(CLOCK_BOOTTIME, &uptime) == 0);
        uint64_t seconds = before / (uint64_t)sysconf(_SC_CLK_TCK);
        CHECK(seconds <= (uint64_t)uptime.tv_sec + 1 && seconds + 600 > (uint64_t)uptime.tv_sec);
        return 0;
}

static void the_start_time_is_found_behind_any_process_name(void **state _unused_) {
        child_run(read_start_time_under_odd_names, NULL);
}

static void the_command_line_of_another_process_is_read_as_it_is(void **state _unused_) {
        struct process p = start("sleep 1000 & wait");
        _cleanup_strv_ struct strv argv = {0};
        assert_int_equal(proc_cmdline(p.pid, &argv), 0);
        assert_int_equal(argv.len, 6);
        assert_string_equal(argv.items[2], "sleep 1000 & wait");
        assert_string_equal(argv.items[4], "");
        assert_string_equal(argv.items[5], "two\nwords");
        kill(-p.pid, SIGKILL);
        assert_int_equal(proc_wait(&p, 60000, NULL, NULL), 0);
}

static void a_command_line_without_bound_is_not_read(void **state _unused_) {
        _cleanup_strv_ struct strv argv = {0}, read_argv = {0};
        strv_extend(&argv, (const char *const[]){"sh", "-c", "exec 0<&-; sleep 1000 & wait", NULL});
        char *part = xcalloc(1, 100001);
        memset(part, 'x', 100000);
        for (int i = 0; i < 11; i++)
                strv_push(&argv, part);
        free(part);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const *)argv.items;
        spec.new_session = true;
        struct process p = PROCESS_INIT;
        assert_int_equal(proc_spawn(&spec, &p, NULL), 0);
        assert_true(proc_cmdline(p.pid, &read_argv) < 0);
        assert_int_equal(read_argv.len, 0);
        kill(-p.pid, SIGKILL);
        assert_int_equal(proc_wait(&p, 60000, NULL, NULL), 0);
}

static void of_a_process_that_is_gone_nothing_is_known(void **state _unused_) {
        struct process p = start("exit 0");
        pid_t pid = p.pid;
        assert_int_equal(proc_wait(&p, 60000, NULL, NULL), 0);
        uint64_t n = 7, m = 7;
        _cleanup_strv_ struct strv argv = {0};
        assert_int_equal(proc_start_time(pid, &n), -ESRCH);
        assert_int_equal(proc_cmdline(pid, &argv), -ESRCH);
        assert_int_equal(proc_memory_kib(pid, &n, &m), -ESRCH);
        assert_int_equal(n, 7);
        assert_int_equal(m, 7);
        assert_int_equal(argv.len, 0);
}

static void this_process_knows_itself(void **state _unused_) {
        uint64_t rss = 0, pss = 0;
        assert_int_equal(proc_memory_kib(getpid(), &rss, &pss), 0);
        assert_true(rss >= pss && pss > 0);
        _cleanup_free_ char *path = proc_self_path(), *boot_id = proc_boot_id(), *again = proc_boot_id();
        assert_string_equal(path_base(path), "proc_test");
        assert_int_equal(path[0], '/');
        assert_int_equal(strlen(boot_id), 36);
        assert_string_equal(boot_id, again);
}

int main(int argc, char **argv) {
        if (argc > 1 && str_eq(argv[1], "--probe"))
                return probe();
        const struct CMUnitTest tests[] = {
                        folder_test(a_child_gets_dev_null_and_no_other_descriptor),
                        folder_test(descriptors_can_swap_their_numbers),
                        folder_test(a_parent_without_standard_descriptors_can_start_children),
                        folder_test(without_close_range_no_descriptor_leaks_either),
                        folder_test(a_number_above_the_limit_is_reported),
                        folder_test(a_child_starts_with_signals_at_their_defaults),
                        folder_test(what_cannot_be_run_is_an_error_that_names_it),
                        folder_test(a_script_that_somebody_holds_open_for_a_moment_is_waited_for),
                        folder_test(variables_are_added_and_replace_those_of_the_same_name),
                        folder_test(without_an_environment_the_parent_s_is_inherited),
                        folder_test(a_child_starts_in_its_folder),
                        cmocka_unit_test(the_result_says_how_a_child_ended),
                        cmocka_unit_test(a_wait_that_takes_too_long_leaves_the_child_running),
                        cmocka_unit_test(a_child_that_ignores_sigterm_is_killed),
                        cmocka_unit_test(signalling_who_is_gone_is_no_error),
                        cmocka_unit_test(a_bound_child_dies_with_its_parent),
                        cmocka_unit_test(the_start_time_is_found_behind_any_process_name),
                        cmocka_unit_test(the_command_line_of_another_process_is_read_as_it_is),
                        cmocka_unit_test(a_command_line_without_bound_is_not_read),
                        cmocka_unit_test(of_a_process_that_is_gone_nothing_is_known),
                        cmocka_unit_test(this_process_knows_itself),
        };
        self = proc_self_path();
        int r = cmocka_run_group_tests(tests, NULL, NULL);
        free(self);
        return r;
}
