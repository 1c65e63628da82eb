/* SPDX-License-Identifier: MIT */
/*
 * For what a test can only do in a process of its own: change its user, its mounts or its signals. cmocka's
 * assertions would jump into a copy of the parent there, so these functions use CHECK() and return.
 */
#pragma once

#include <grp.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SKIP 77 /* this system does not let the test do it */

#define CHECK(condition) \
        do { \
                if (!(condition)) { \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
                        return 1; \
                } \
        } while (0)

/* Starts @fn in a child, whose exit status is what it returns. */
static inline pid_t child_start(int (*fn)(void *), void *userdata) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
                int r = fn(userdata);
                fflush(stderr);
                _exit(r);
        }
        return pid;
}

static inline int child_status(pid_t pid) {
        int status = 0;
        if (waitpid(pid, &status, 0) != pid)
                return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void child_run(int (*fn)(void *), void *userdata) {
        int status = child_status(child_start(fn, userdata));
        if (status == CHILD_SKIP)
                skip();
        assert_int_equal(status, 0);
}

/* Root may do what a test wants to see refused. */
static inline int child_drop_root(void) {
        if (geteuid() != 0)
                return 0;
        return setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0 ? -1
                                                                                                                  : 0;
}
