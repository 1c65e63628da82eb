/* SPDX-License-Identifier: MIT */
/* The system call filter, and the supervisor's list of what it may call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <k3s-vm/fs.h>

#include "../../src/domain/supervise_syscalls.h"

#define EXIT_CONFINED 0
#define EXIT_NO_FILTER 77

/* What a child does under the supervisor's filter. */
typedef void deed(void);

/* Whether there are filters in this build at all: not where a sanitizer is, and that has to be said. */
static bool has_filters(void) {
        pid_t pid = fork();
        if (pid == 0) {
                int r = sandbox_enter(supervise_syscalls, ELEMENTSOF(supervise_syscalls), NULL);
                _exit(r == 0 ? EXIT_CONFINED : r == -ENOSYS ? EXIT_NO_FILTER : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) &&
                    (WEXITSTATUS(status) == EXIT_CONFINED || WEXITSTATUS(status) == EXIT_NO_FILTER));
        return WEXITSTATUS(status) == EXIT_CONFINED;
}

/* How the child ended, as waitpid(2) has it. */
static int confined(deed *fn) {
        pid_t pid = fork();
        if (pid == 0) {
                if (sandbox_enter(supervise_syscalls, ELEMENTSOF(supervise_syscalls), NULL) < 0)
                        _exit(1);
                fn();
                _exit(EXIT_CONFINED);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static void do_nothing(void) {
}
static void run_a_program(void) {
        char *argv[] = {(char *)"true", NULL};
        execv("/bin/true", argv);
}
static void fork_a_process(void) {
        if (fork() == 0)
                _exit(0);
}
static void make_a_tcp_socket(void) {
        socket(AF_INET, SOCK_STREAM, 0);
}
static void make_a_unix_socket(void) {
        socket(AF_UNIX, SOCK_STREAM, 0);
}
static void make_memory_executable(void) {
        mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void signal_by_number(void) {
        kill(getpid(), 0);
}
static void look_into_a_process(void) {
        ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}
static void change_the_owner(void) {
        if (chown("/tmp/k3s-vm-no-such-file", 0, 0) < 0)
                return;
}
static void write_a_file(void) {
        _cleanup_free_ char *path = xasprintf("/tmp/k3s-vm-sandbox.%d", getppid());
        if (fs_write_atomic(path, "x", 1, 0600, NULL) < 0 || fs_unlink(path, NULL) < 0)
                _exit(1);
}
static void use_much_memory(void) {
        for (size_t size = 16; size < 8U * 1024 * 1024; size *= 2) {
                _cleanup_free_ char *p = xcalloc(1, size);
                p = xreallocarray(p, 2, size);
                p[size] = 1;
        }
}

static void forbidden_calls_end_the_process_at_once(void **state) {
        (void)state;
        static const struct {
                const char *name;
                deed *fn;
        } forbidden[] = {
                        {"execve", run_a_program},
                        {"fork", fork_a_process},
                        {"socket(AF_INET)", make_a_tcp_socket},
                        {"socket(AF_UNIX)", make_a_unix_socket},
                        {"mmap(PROT_EXEC)", make_memory_executable},
                        {"kill", signal_by_number},
                        {"ptrace", look_into_a_process},
                        {"chown", change_the_owner},
        };
        for (size_t i = 0; has_filters() && i < ELEMENTSOF(forbidden); i++) {
                int status = confined(forbidden[i].fn);
                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
                        fail_msg("%s was not stopped (wait status %d)", forbidden[i].name, status);
        }
}

static void what_a_supervisor_does_is_allowed(void **state) {
        (void)state;
        deed *const allowed[] = {do_nothing, write_a_file, use_much_memory};
        for (size_t i = 0; has_filters() && i < ELEMENTSOF(allowed); i++) {
                int status = confined(allowed[i]);
                if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_CONFINED)
                        fail_msg("deed %zu: wait status %d", i, status);
        }
}

static void only_a_build_with_a_sanitizer_lacks_filters(void **state) {
        (void)state;
#if defined(__SANITIZE_ADDRESS__)
        assert_false(has_filters());
#elif defined(__has_feature)
#if !__has_feature(address_sanitizer)
        assert_true(has_filters());
#endif
#else
        assert_true(has_filters());
#endif
}

static void names_that_nobody_knows_are_left_out(void **state) {
        (void)state;
        pid_t pid = fork();
        if (pid == 0) {
                const struct sandbox_rule rules[] = {{.syscalls = "no_such_call exit_group"}};
                int r = sandbox_enter(rules, ELEMENTSOF(rules), NULL);
                _exit(r == 0 || r == -ENOSYS ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(forbidden_calls_end_the_process_at_once),
                        cmocka_unit_test(what_a_supervisor_does_is_allowed),
                        cmocka_unit_test(only_a_build_with_a_sanitizer_lacks_filters),
                        cmocka_unit_test(names_that_nobody_knows_are_left_out),
        };
        return cmocka_run_group_tests_name("sandbox", tests, NULL, NULL);
}
