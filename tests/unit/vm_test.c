/* SPDX-License-Identifier: MIT */
/* Who is this VM's QEMU, and what state a VM without one is in. Real QEMUs are in supervisor_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/vm.h>

#include "vm_fixture.h"

/* A process that holds a lock on @path until it is killed; with @program it runs that under the given arguments. */
static pid_t lock_by_other(const char *path, const char *const *argv) {
        int ready[2];
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                int fd = open(path, O_RDWR | O_CREAT, 0600);
                struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
                if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                if (argv)
                        execv(argv[0], (char *const *)argv + 1);
                pause();
                _exit(1);
        }
        char c;
        assert_int_equal(read(ready[0], &c, 1), 1);
        close(ready[0]);
        close(ready[1]);
        return pid;
}

static void end(pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

/* Waits until the process shows the command line it was given. */
static void wait_for_cmdline(pid_t pid, const char *word) {
        for (int i = 0; i < 500; i++) {
                _cleanup_strv_ struct strv cmdline = {0};
                if (proc_cmdline(pid, &cmdline) == 0 && strv_contains(&cmdline, word))
                        return;
                usleep(10 * 1000);
        }
        fail_msg("process %d never showed %s", pid, word);
}

static void assert_not_found(const struct fixture *f) {
        struct process vm = PROCESS_INIT;
        assert_int_equal(vm_find(f->project, f->state, &vm, NULL), -ESRCH);
        assert_int_equal(vm.pid, -1);
}

static void lock_owner_is_the_process_that_holds_the_lock(void **state) {
        struct fixture *f = *state;
        struct process owner = PROCESS_INIT;
        assert_int_equal(lock_owner(f->project->pid_path, &owner), -ESRCH);
        pid_t pid = lock_by_other(f->project->pid_path, NULL);
        assert_int_equal(lock_owner(f->project->pid_path, &owner), 0);
        assert_int_equal(owner.pid, pid);
        assert_true(proc_alive(owner.pidfd));
        end(pid);
        assert_false(proc_alive(owner.pidfd));
        process_close(&owner);
        assert_int_equal(lock_owner(f->project->pid_path, &owner), -ESRCH);
}

static void pid_file_without_a_lock_is_never_believed(void **state) {
        struct fixture *f = *state;
        const char *path = f->project->pid_path;
        _cleanup_free_ char *own = xasprintf("%d\n", getpid()), *target = path_join(f->top, "target");
        const char *const contents[] = {"", "1\n", own, "junk", "99999999999999999999\n", "-1\n"};
        for (size_t i = 0; i < ELEMENTSOF(contents); i++) {
                assert_int_equal(fs_write_atomic(path, contents[i], strlen(contents[i]), 0600, NULL), 0);
                assert_not_found(f);
        }
        assert_int_equal(fs_unlink(path, NULL), 0);
        assert_int_equal(symlink(target, path), 0);
        pid_t pid = lock_by_other(target, NULL);
        assert_not_found(f);
        end(pid);
        fs_unlink(path, NULL);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_not_found(f);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_not_found(f);
}

static void lock_of_an_innocent_process_is_not_this_vm(void **state) {
        struct fixture *f = *state;
        pid_t pid = lock_by_other(f->project->pid_path, NULL);
        assert_not_found(f);
        end(pid);
        /* One with another VM's UUID. */
        const char *const other[] = {"/bin/sleep", "qemu-system-x86_64", "1000000", NULL};
        pid = lock_by_other(f->project->pid_path, other);
        wait_for_cmdline(pid, "1000000");
        assert_not_found(f);
        end(pid);
}

static void lock_and_uuid_together_are_this_vm(void **state) {
        struct fixture *f = *state;
        /* A shell that waits on a pipe stands in for QEMU: only lock and command line are looked at. */
        const char *const argv[] = {"/bin/sh", "qemu-system-x86_64", "-c",       "kill -STOP $$",      "sh",
                                    "-uuid",   f->state->uuid,       "-pidfile", f->project->pid_path, NULL};
        pid_t pid = lock_by_other(f->project->pid_path, argv);
        wait_for_cmdline(pid, f->state->uuid);
        struct process vm = PROCESS_INIT;
        assert_int_equal(vm_find(f->project, f->state, &vm, NULL), 0);
        assert_int_equal(vm.pid, pid);
        process_close(&vm);
        /* A damaged state.json does not hide it. */
        assert_int_equal(vm_find(f->project, NULL, &vm, NULL), 0);
        assert_int_equal(vm.pid, pid);
        process_close(&vm);
        f->state->uuid[0] = f->state->uuid[0] == 'f' ? 'e' : 'f';
        assert_not_found(f);
        end(pid);
}

static void status_without_a_process_tells_created_stopped_and_crashed_apart(void **state) {
        struct fixture *f = *state;
        struct state *s = f->state;
        assert_int_equal(vm_status(f->project, NULL), VM_ABSENT);
        assert_int_equal(vm_status(f->project, s), VM_CREATED);

        /* It ran and left no record. */
        s->pid = 1;
        s->intent = xstrdup("running");
        s->boot_id = proc_boot_id();
        assert_int_equal(vm_status(f->project, s), VM_CRASHED);
        s->boot_id[0] = s->boot_id[0] == '0' ? '1' : '0';
        _cleanup_free_ char *detail = NULL;
        assert_int_equal(vm_status_detail(f->project, s, &detail), VM_STOPPED);
        assert_non_null(strstr(detail, "restarted"));

        struct vm_exit e = {.kind = VM_EXIT_CRASH, .reason = "QEMU was killed by signal 9 (Killed)"};
        assert_int_equal(vm_exit_save(f->project, &e, NULL), 0);
        _cleanup_free_ char *why = NULL;
        assert_int_equal(vm_status_detail(f->project, s, &why), VM_CRASHED);
        assert_string_equal(why, e.reason);
        e.kind = VM_EXIT_PANIC;
        assert_int_equal(vm_exit_save(f->project, &e, NULL), 0);
        assert_int_equal(vm_status(f->project, s), VM_CRASHED);
        e.kind = VM_EXIT_SHUTDOWN;
        assert_int_equal(vm_exit_save(f->project, &e, NULL), 0);
        assert_int_equal(vm_status(f->project, s), VM_STOPPED);
        e.kind = VM_EXIT_CRASH;
        assert_int_equal(vm_exit_save(f->project, &e, NULL), 0);
        free(s->intent);
        s->intent = xstrdup("stopped");
        assert_int_equal(vm_status(f->project, s), VM_STOPPED);
}

static void exit_record_survives_saving_and_a_damaged_one_says_so(void **state) {
        struct fixture *f = *state;
        _cleanup_vm_exit_ struct vm_exit *back = NULL;
        assert_int_equal(vm_exit_load(f->project, &back, NULL), -ENOENT);
        const struct vm_exit e = {.kind = VM_EXIT_PANIC,
                                  .reason = "the guest's kernel panicked",
                                  .time_ms = 1700000000123,
                                  .pid = 42,
                                  .start_time = 777,
                                  .serial_lines = "Kernel panic - not syncing\n",
                                  .stays_down = true};
        assert_int_equal(vm_exit_save(f->project, &e, NULL), 0);
        assert_int_equal(vm_exit_load(f->project, &back, NULL), 0);
        assert_int_equal(back->kind, VM_EXIT_PANIC);
        assert_string_equal(back->reason, e.reason);
        assert_int_equal(back->time_ms, e.time_ms);
        assert_int_equal(back->pid, 42);
        assert_int_equal(back->start_time, 777);
        assert_string_equal(back->serial_lines, e.serial_lines);
        assert_null(back->qemu_lines);
        assert_true(back->stays_down);
        _cleanup_free_ char *path = path_join(f->project->vm_dir, "exit.json");
        static const char *const damaged[] = {"", "{", "[]", "{\"kind\":\"eaten\",\"reason\":\"x\"}", "{\"kind\":3}"};
        for (size_t i = 0; i < ELEMENTSOF(damaged); i++) {
                struct vm_exit *none = NULL;
                assert_int_equal(fs_write_atomic(path, damaged[i], strlen(damaged[i]), 0600, NULL), 0);
                assert_int_equal(vm_exit_load(f->project, &none, NULL), -EUCLEAN);
                assert_null(none);
        }
        assert_int_equal(vm_exit_remove(f->project, NULL), 0);
        assert_int_equal(vm_exit_load(f->project, &back, NULL), -ENOENT);
}

static void exit_is_classified_by_what_qemu_said_before_how_it_ended(void **state) {
        (void)state;
        const struct proc_result zero = {0}, killed = {.exit_status = 137, .signal = 9}, failed = {.exit_status = 1};
        const struct {
                struct vm_exit_facts facts;
                enum vm_exit_kind kind;
                const char *word;
        } cases[] = {
                        {{.shutdown_reason = "guest-shutdown", .result = &zero}, VM_EXIT_SHUTDOWN, "powered itself"},
                        {{.shutdown_reason = "guest-shutdown", .powerdown = true}, VM_EXIT_SHUTDOWN, "was shut down"},
                        {{.shutdown_reason = "host-qmp-quit", .result = &zero}, VM_EXIT_ENDED, "quit"},
                        {{.shutdown_reason = "host-signal", .result = &zero}, VM_EXIT_ENDED, "from outside"},
                        {{.shutdown_reason = "guest-reset", .result = &zero}, VM_EXIT_REBOOT, "reboots"},
                        {{.shutdown_reason = "host-qmp-system-reset", .result = &zero}, VM_EXIT_REBOOT, "reboots"},
                        {{.panicked = true, .shutdown_reason = "host-qmp-quit"}, VM_EXIT_PANIC, "panicked"},
                        {{.shutdown_reason = "guest-panic"}, VM_EXIT_PANIC, "panicked"},
                        {{.result = &killed}, VM_EXIT_CRASH, "signal 9"},
                        {{.result = &failed}, VM_EXIT_CRASH, "status 1"},
                        {{.result = &zero}, VM_EXIT_CRASH, "status 0"},
                        {{.result = &zero, .unheard = true}, VM_EXIT_SHUTDOWN, "not heard"},
                        {{.result = &failed, .unheard = true}, VM_EXIT_CRASH, "status 1"},
                        {{.unheard = true}, VM_EXIT_CRASH, "without saying why"},
                        {{.result = NULL}, VM_EXIT_CRASH, "without saying why"},
                        {{.result = &killed, .intended = true}, VM_EXIT_ENDED, "signal 9"},
                        {{.result = NULL, .intended = true}, VM_EXIT_ENDED, "was to be stopped"},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *reason = NULL;
                assert_int_equal(vm_exit_classify(&cases[i].facts, &reason), cases[i].kind);
                if (!strstr(reason, cases[i].word))
                        fail_msg("case %zu: %s", i, reason);
        }
}

/* Keeps what was noted. */
struct notes {
        struct progress progress;
        struct strv lines;
};

static void keep_note(struct progress *p, int warning, const char *text) {
        (void)warning;
        strv_push(&((struct notes *)p)->lines, text);
}

static const struct progress_ops notes_ops = {.note = keep_note};

static void second_command_waits_and_says_for_whom(void **state) {
        struct fixture *f = *state;
        _cleanup_close_ int first = -1;
        assert_int_equal(vm_lock(f->project, "start", 0, NULL, &first, NULL), 0);
        struct notes notes = {.progress = {.ops = &notes_ops}};
        _cleanup_error_ struct error err = ERROR_INIT;
        int second = -1;
        assert_int_equal(vm_lock(f->project, "stop", 300, &notes.progress, &second, &err), -ETIMEDOUT);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_non_null(strstr(err.message, "k3s-vm start"));
        assert_int_equal(second, -1);
        assert_int_equal(notes.lines.len, 1);
        assert_non_null(strstr(notes.lines.items[0], "k3s-vm start"));
        close(TAKE_FD(first));
        assert_int_equal(vm_lock(f->project, "stop", 300, &notes.progress, &second, &err), 0);
        close(second);
        strv_free(&notes.lines);
}

static void lock_goes_with_the_process_that_held_it(void **state) {
        struct fixture *f = *state;
        int ready[2];
        assert_int_equal(pipe(ready), 0);
        pid_t pid = fork();
        if (pid == 0) {
                int fd = -1;
                if (vm_lock(f->project, "reset", 0, NULL, &fd, NULL) < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                pause();
                _exit(1);
        }
        char c;
        assert_int_equal(read(ready[0], &c, 1), 1);
        int fd = -1;
        assert_int_equal(vm_lock(f->project, "start", 0, NULL, &fd, NULL), -ETIMEDOUT);
        end(pid);
        assert_int_equal(vm_lock(f->project, "start", 0, NULL, &fd, NULL), 0);
        close(fd);
        close(ready[0]);
        close(ready[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                        TEST(lock_owner_is_the_process_that_holds_the_lock),
                        TEST(pid_file_without_a_lock_is_never_believed),
                        TEST(lock_of_an_innocent_process_is_not_this_vm),
                        TEST(lock_and_uuid_together_are_this_vm),
                        TEST(status_without_a_process_tells_created_stopped_and_crashed_apart),
                        TEST(exit_record_survives_saving_and_a_damaged_one_says_so),
                        cmocka_unit_test(exit_is_classified_by_what_qemu_said_before_how_it_ended),
                        TEST(second_command_waits_and_says_for_whom),
                        TEST(lock_goes_with_the_process_that_held_it),
        };
        return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
