/* SPDX-License-Identifier: MIT */
/*
 * The supervisor with a real QEMU whose guest is one boot sector. This program is its own supervisor: started as
 * `supervisor_test supervise …` it becomes one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/vm.h>

#include "../../src/domain/supervise.h"
#include "boot_sectors.h"
#include "vm_fixture.h"

#define PROGRAM "qemu-system-x86_64"
/* Three from here on; by PID, as tests run side by side. */
#define PORT ((uint16_t)(20010 + getpid() % 4000 * 3))
#define DISK_BYTES (1024 * 1024) /* the firmware boots from nothing smaller */
#define PATIENCE_MS 30000        /* a busy machine */

/* Nothing of the VM may be left when a test ends, whatever way it ended. */
static int tear_down(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        supervisor_end(f->project, 0, NULL);
        while (vm_find(f->project, f->state, &vm, NULL) == 0) {
                proc_signal(&vm, SIGKILL, NULL);
                struct pollfd pfd = {.fd = vm.pidfd, .events = POLLIN};
                poll(&pfd, 1, PATIENCE_MS);
                process_close(&vm);
        }
        /* The supervisor's own stderr is in there, too. */
        if (file_has(f->project->log_path, "Sanitizer") || file_has(f->project->log_path, "runtime error")) {
                _cleanup_free_ char *words = log_tail(f->project->log_path, 0, 60);
                print_error("%s", words);
                return -1;
        }
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ; /* those the test took over as a subreaper */
        fixture_free(f);
        return 0;
}

static void need_qemu(void) {
        _cleanup_free_ char *path = fs_find_program(PROGRAM);
        if (path)
                return;
        if (getenv("K3S_VM_TEST_STRICT"))
                fail_msg(PROGRAM " is not installed");
        print_message("skipped: " PROGRAM " is not installed\n");
        skip();
}

/* The command line of a VM that boots @sector. */
static void make_argv(struct fixture *f, const unsigned char *sector, size_t len, struct strv *ret) {
        need_qemu();
        _cleanup_free_ char *image = path_join(f->project->vm_dir, "disk,1.img"), *disk = xcalloc(1, DISK_BYTES);
        memcpy(disk, sector, len);
        memcpy(disk + 510, "\x55\xaa", 2);
        assert_int_equal(fs_write_atomic(image, disk, DISK_BYTES, 0600, NULL), 0);
        _cleanup_free_ char *machine = NULL, *credential = path_join(f->project->credentials_dir, "x,y");
        assert_int_equal(fs_mkdir_p(f->project->credentials_dir, 0700, NULL), 0);
        assert_int_equal(fs_write_atomic(credential, "secret", 6, 0600, NULL), 0);
        assert_int_equal(qemu_machine(PROGRAM, f->project->cache_dir, &machine, NULL), 0);
        if (!fs_exists(f->project->data_disk))
                assert_int_equal(qemu_create_disk(f->project->data_disk, 10, NULL), 0);
        const struct qemu_credential credentials = {"k3s.config", credential};
        struct config config = {.vm_name = "k3s-vm-test",
                                .cpus = 1,
                                .memory_mib = 64,
                                .api_port = PORT,
                                .ssh_port = PORT + 1,
                                .web_port = PORT + 2,
                                .web_node_port = 30080};
        struct guest guest = {.boot_disk = image, .data_serial = "k3s-vm-data"};
        const struct qemu_spec spec = {.project = f->project,
                                       .config = &config,
                                       .guest = &guest,
                                       .program = PROGRAM,
                                       .machine = machine,
                                       .uuid = f->state->uuid,
                                       .machine_id = "6c0a2e3197d44c5e8f112b3c4d5e6f70",
                                       .credentials = &credentials,
                                       .n_credentials = 1};
        qemu_argv(&spec, ret);
}

static void start(struct fixture *f, const unsigned char *sector, size_t len, struct process *ret) {
        _cleanup_strv_ struct strv argv = {0};
        make_argv(f, sector, len, &argv);
        _cleanup_error_ struct error err = ERROR_INIT;
        if (supervisor_start(f->project, f->state, &argv, ret, &(bool){false}, NULL, &err) < 0)
                fail_msg("%s\n%s", err.message, err.detail ? err.detail : "");
        free(f->state->intent);
        f->state->intent = xstrdup("running");
        assert_int_equal(state_save(f->project, f->state, NULL), 0);
}
#define START(f, sector, ret) start(f, sector, sizeof(sector), ret)

static void want_down(struct fixture *f) {
        free(f->state->intent);
        f->state->intent = xstrdup("stopped");
        assert_int_equal(state_save(f->project, f->state, NULL), 0);
}

static void wait_gone(const struct process *p) {
        struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, PATIENCE_MS), 1);
}

/* Waits for something that shows only in files. */
#define WAIT_UNTIL(condition) \
        do { \
                uint64_t deadline_ = now_ms() + PATIENCE_MS; \
                while (!(condition)) { \
                        if (now_ms() > deadline_) \
                                fail_msg("in vain: " #condition); \
                        usleep(20 * 1000); \
                } \
        } while (0)

static struct process find_supervisor(const struct fixture *f) {
        _cleanup_free_ char *path = supervisor_lock_path(f->project);
        struct process v = PROCESS_INIT;
        assert_int_equal(lock_owner(path, &v), 0);
        return v;
}

static void assert_exit(const struct fixture *f, enum vm_exit_kind kind, const char *word) {
        struct vm_exit *e = NULL;
        WAIT_UNTIL(vm_exit_load(f->project, &e, NULL) == 0);
        assert_int_equal(e->kind, kind);
        if (!strstr(e->reason, word))
                fail_msg("%s", e->reason);
        vm_exit_free(e);
}

static void started_vm_runs_and_a_forced_end_leaves_nothing(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT, found = PROCESS_INIT;
        START(f, boot_idle, &vm);
        assert_int_equal(vm.pid, f->state->pid);
        assert_true(f->state->start_time > 0);
        assert_non_null(f->state->boot_id);
        assert_int_equal(vm_find(f->project, f->state, &found, NULL), 0);
        assert_int_equal(found.pid, vm.pid);
        process_close(&found);
        assert_true(supervisor_alive(f->project));
        _cleanup_free_ char *detail = NULL;
        assert_int_equal(vm_status_detail(f->project, f->state, &detail), VM_RUNNING);
        assert_null(detail);
        struct process supervisor = find_supervisor(f);
        _cleanup_strv_ struct strv cmdline = {0};
        assert_int_equal(proc_cmdline(supervisor.pid, &cmdline), 0);
        assert_true(strv_contains(&cmdline, "supervise"));
        assert_true(strv_contains(&cmdline, f->project->root));
        assert_true(strv_contains(&cmdline, f->state->uuid));

        want_down(f);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(vm_end(f->project, f->state, &vm, false, 0, NULL, &err), 0);
        assert_false(proc_alive(vm.pidfd));
        /* It gives up its lock before its process is gone: of a suspended VM it still writes out the state. */
        assert_false(supervisor_alive(f->project));
        wait_gone(&supervisor);
        assert_int_equal(vm_find(f->project, f->state, &found, NULL), -ESRCH);
        assert_int_equal(vm_status(f->project, f->state), VM_STOPPED);
        assert_exit(f, VM_EXIT_ENDED, "quit");
        _cleanup_free_ char *runtime_dir = NULL;
        assert_int_equal(project_runtime_dir(f->project, f->state->uuid, false, &runtime_dir, NULL), 0);
        assert_false(fs_exists(runtime_dir));
        assert_false(fs_exists(f->project->pid_path));
        process_close(&supervisor);
        process_close(&vm);
}

static void any_project_path_works_and_a_guests_own_poweroff_is_told_from_a_crash(void **state) {
        (void)state;
        /* Spaces, quotes, commas, a newline, UTF-8, more than 300 characters. */
        char name[340];
        snprintf(name, sizeof(name), "a b, \"c\" 'd'\n\xc3\xa9\xe2\x82\xac,%0150d/%0150d", 7, 7);
        struct fixture *f = fixture_new(name);
        void *s = f;
        struct process vm = PROCESS_INIT;
        assert_true(strlen(f->project->root) > 300);
        START(f, boot_poweroff, &vm);
        wait_gone(&vm);
        assert_exit(f, VM_EXIT_SHUTDOWN, "powered itself off");
        assert_true(file_has(f->project->serial_path, "hello from the guest"));
        assert_int_equal(vm_status(f->project, f->state), VM_STOPPED);
        WAIT_UNTIL(!supervisor_alive(f->project));
        assert_true(file_has(f->project->events_path, "qmp:SHUTDOWN"));
        assert_true(file_has(f->project->events_path, "qemu-ended"));
        /* The VM's own folder is not the only thing that went well: nothing is left in the runtime folder. */
        _cleanup_free_ char *runtime_dir = NULL;
        assert_int_equal(project_runtime_dir(f->project, f->state->uuid, false, &runtime_dir, NULL), 0);
        assert_false(fs_exists(runtime_dir));
        process_close(&vm);
        tear_down(&s);
}

static void missing_qemu_is_a_host_error(void **state) {
        struct fixture *f = *state;
        _cleanup_strv_ struct strv argv = {0};
        strv_push(&argv, "qemu-that-is-not-there");
        struct process vm = PROCESS_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(supervisor_start(f->project, f->state, &argv, &vm, &(bool){false}, NULL, &err), -ENOENT);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, "qemu-that-is-not-there"));
        assert_false(supervisor_alive(f->project));
}

static void qemus_own_words_are_in_the_error(void **state) {
        struct fixture *f = *state;
        _cleanup_strv_ struct strv argv = {0};
        make_argv(f, boot_idle, sizeof(boot_idle), &argv);
        strv_push(&argv, "-device");
        strv_push(&argv, "flux-capacitor");
        struct process vm = PROCESS_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(supervisor_start(f->project, f->state, &argv, &vm, &(bool){false}, NULL, &err), -EIO);
        assert_int_equal(vm.pid, -1);
        assert_non_null(strstr(err.message, "exited with status 1"));
        assert_non_null(strstr(err.message, "flux-capacitor"));
        assert_null(strstr(err.message, "qemu-system-x86_64:"));
        assert_non_null(strstr(err.detail, "flux-capacitor"));
        assert_true(file_has(f->project->log_path, "flux-capacitor"));
        assert_false(supervisor_alive(f->project));
}

static void port_taken_at_the_last_moment_is_a_port_error(void **state) {
        struct fixture *f = *state;
        _cleanup_strv_ struct strv argv = {0};
        make_argv(f, boot_idle, sizeof(boot_idle), &argv);
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in address = {
                        .sin_family = AF_INET, .sin_port = htons(PORT + 1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 1), 0);
        struct process vm = PROCESS_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(supervisor_start(f->project, f->state, &argv, &vm, &(bool){false}, NULL, &err), -EADDRINUSE);
        assert_int_equal(err.code, ERR_PORT);
        _cleanup_free_ char *named = xasprintf("127.0.0.1:%u", PORT + 1);
        assert_non_null(strstr(err.message, named));
        assert_non_null(err.hint);
}

static void killed_qemu_is_started_again(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT, again = PROCESS_INIT;
        START(f, boot_idle, &vm);
        proc_signal(&vm, SIGKILL, NULL);
        wait_gone(&vm);
        assert_exit(f, VM_EXIT_CRASH, "signal 9");
        assert_int_equal(vm_status(f->project, f->state), VM_CRASHED);
        WAIT_UNTIL(vm_find(f->project, f->state, &again, NULL) == 0);
        assert_int_not_equal(again.pid, vm.pid);
        WAIT_UNTIL(file_has(f->project->events_path, "repair:restarted"));
        struct state *s = NULL;
        assert_int_equal(state_load(f->project, &s, NULL), 0);
        assert_int_equal(s->pid, again.pid);
        assert_int_equal(vm_status(f->project, s), VM_RUNNING);
        state_free(s);
        want_down(f);
        assert_int_equal(vm_end(f->project, f->state, &again, false, 0, NULL, NULL), 0);
        process_close(&vm);
        process_close(&again);
}

static void killed_qemu_stays_down_when_the_vm_was_to_be_stopped(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        want_down(f);
        proc_signal(&vm, SIGKILL, NULL);
        assert_exit(f, VM_EXIT_ENDED, "signal 9");
        WAIT_UNTIL(!supervisor_alive(f->project));
        assert_int_equal(vm_status(f->project, f->state), VM_STOPPED);
        process_close(&vm);
}

static void killed_qemu_is_left_to_a_command_that_holds_the_lock(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        _cleanup_close_ int lock = -1;
        assert_int_equal(vm_lock(f->project, "start", 0, NULL, &lock, NULL), 0);
        proc_signal(&vm, SIGKILL, NULL);
        assert_exit(f, VM_EXIT_CRASH, "signal 9");
        WAIT_UNTIL(!supervisor_alive(f->project));
        assert_int_equal(vm_status(f->project, f->state), VM_CRASHED);
        process_close(&vm);
}

static void guest_panic_is_recorded_as_one(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_panic, &vm);
        want_down(f); /* or it would be started again and panic again */
        assert_exit(f, VM_EXIT_PANIC, "panicked");
        wait_gone(&vm);
        assert_true(file_has(f->project->events_path, "qmp:GUEST_PANICKED"));
        process_close(&vm);
}

/* The data disk's first write fails as on a full file system. */
static void make_first_write_fail(struct fixture *f, struct strv *argv) {
        for (size_t i = 0; i < argv->len; i++) {
                if (!strstr(argv->items[i], "node-name=data,"))
                        continue;
                free(argv->items[i]);
                argv->items[i] = xasprintf("driver=qcow2,node-name=data,discard=unmap,file.driver=blkdebug,"
                                           "file.image.driver=file,file.image.filename=%s,"
                                           "file.inject-error.0.event=write_aio,file.inject-error.0.errno=28,"
                                           "file.inject-error.0.once=on",
                                           f->project->data_disk);
                return;
        }
        fail_msg("no data disk");
}

static void vm_paused_by_a_full_host_disk_runs_on_without_the_guest_noticing(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        _cleanup_strv_ struct strv argv = {0};
        make_argv(f, boot_write, sizeof(boot_write), &argv);
        make_first_write_fail(f, &argv);
        assert_int_equal(supervisor_start(f->project, f->state, &argv, &vm, &(bool){false}, NULL, NULL), 0);
        WAIT_UNTIL(file_has(f->project->events_path, "qmp:BLOCK_IO_ERROR"));
        _cleanup_free_ char *detail = NULL;
        assert_int_equal(vm_status_detail(f->project, f->state, &detail), VM_DEGRADED);
        assert_non_null(strstr(detail, "write"));
        wait_gone(&vm);
        assert_exit(f, VM_EXIT_SHUTDOWN, "powered itself off");
        assert_true(file_has(f->project->serial_path, "W"));
        assert_true(file_has(f->project->events_path, "repair:resumed-after-failed-write"));
        /* It stood still meanwhile, and its clock with it. */
        WAIT_UNTIL(file_has(f->project->events_path, "test:set-clock"));
        process_close(&vm);
}

/* Those that take longer than a unit test should: with K3S_VM_TEST_SLOW=1, and in CI. */
static void need_time(void) {
        if (!getenv("K3S_VM_TEST_SLOW") && !getenv("K3S_VM_TEST_STRICT")) {
                print_message("skipped: takes long; K3S_VM_TEST_SLOW=1 runs it\n");
                skip();
        }
}

static void hung_qemu_is_degraded_and_can_be_ended(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        need_time();
        START(f, boot_idle, &vm);
        proc_signal(&vm, SIGSTOP, NULL);
        _cleanup_free_ char *detail = NULL;
        assert_int_equal(vm_status_detail(f->project, f->state, &detail), VM_DEGRADED);
        assert_non_null(strstr(detail, "does not answer"));
        want_down(f);
        assert_int_equal(vm_end(f->project, f->state, &vm, true, 1000, NULL, NULL), 0);
        assert_false(proc_alive(vm.pidfd));
        assert_exit(f, VM_EXIT_ENDED, "signal 9");
        process_close(&vm);
}

static void vm_that_crashes_again_and_again_stays_down(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        need_time();
        START(f, boot_idle, &vm);
        for (int i = 0; i < 6; i++) {
                pid_t last = vm.pid;
                proc_signal(&vm, SIGKILL, NULL);
                wait_gone(&vm);
                process_close(&vm);
                if (i == 5)
                        break;
                uint64_t deadline = now_ms() + PATIENCE_MS;
                while (vm_find(f->project, f->state, &vm, NULL) < 0 && now_ms() < deadline)
                        usleep(20 * 1000);
                assert_int_not_equal(vm.pid, last);
                /* Killed before the restart was complete, it would count as one that failed. */
                _cleanup_free_ char *pid = xasprintf("\"pid\": %d,", vm.pid);
                WAIT_UNTIL(file_has(f->project->state_path, pid));
        }
        WAIT_UNTIL(!supervisor_alive(f->project));
        struct vm_exit *e = NULL;
        assert_int_equal(vm_exit_load(f->project, &e, NULL), 0);
        assert_int_equal(e->kind, VM_EXIT_CRASH);
        assert_true(e->stays_down);
        vm_exit_free(e);
        assert_true(file_has(f->project->events_path, "qemu-stays-down"));
        assert_int_equal(vm_status(f->project, f->state), VM_CRASHED);
}

static void vm_survives_its_supervisor_and_gets_a_new_one(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT, found = PROCESS_INIT;
        START(f, boot_idle, &vm);
        struct process first = find_supervisor(f);
        proc_signal(&first, SIGKILL, NULL);
        wait_gone(&first);
        assert_false(supervisor_alive(f->project));
        assert_int_equal(vm_find(f->project, f->state, &found, NULL), 0);
        assert_int_equal(found.pid, vm.pid);
        assert_int_equal(vm_status(f->project, f->state), VM_RUNNING);

        _cleanup_error_ struct error err = ERROR_INIT;
        if (supervisor_adopt(f->project, f->state, &found, &err) < 0)
                fail_msg("%s", err.message);
        assert_true(supervisor_alive(f->project));
        struct process second = find_supervisor(f);
        assert_int_not_equal(first.pid, second.pid);
        assert_true(file_has(f->project->events_path, "repair:adopted"));

        /* SIGTERM ends a supervisor, never the VM. */
        proc_signal(&second, SIGTERM, NULL);
        wait_gone(&second);
        assert_true(proc_alive(vm.pidfd));
        assert_true(file_has(f->project->events_path, "supervisor-ended"));
        assert_int_equal(supervisor_adopt(f->project, f->state, &found, &err), 0);
        want_down(f);
        assert_int_equal(vm_end(f->project, f->state, &found, false, 0, NULL, NULL), 0);
        assert_exit(f, VM_EXIT_ENDED, "quit");
        process_close(&first);
        process_close(&second);
        process_close(&found);
        process_close(&vm);
}

static void orphan_without_any_of_its_files_is_found_and_ended(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT, found = PROCESS_INIT;
        START(f, boot_idle, &vm);
        supervisor_end(f->project, 0, NULL);
        assert_int_equal(fs_unlink(f->project->pid_path, NULL), 0);
        _cleanup_free_ char *runtime_dir = NULL;
        assert_int_equal(project_runtime_dir(f->project, f->state->uuid, false, &runtime_dir, NULL), 0);
        assert_int_equal(fs_remove_tree(runtime_dir, NULL), 0);
        assert_int_equal(vm_find(f->project, f->state, &found, NULL), 0);
        assert_int_equal(found.pid, vm.pid);
        _cleanup_free_ char *detail = NULL;
        assert_int_equal(vm_status_detail(f->project, f->state, &detail), VM_DEGRADED);
        assert_non_null(strstr(detail, "monitor"));
        want_down(f);
        assert_int_equal(vm_end(f->project, f->state, &found, true, 1000, NULL, NULL), 0);
        assert_false(proc_alive(vm.pidfd));
        process_close(&found);
        process_close(&vm);
}

static void guest_that_ignores_the_power_button_is_switched_off(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        want_down(f);
        uint64_t before = now_ms();
        assert_int_equal(vm_end(f->project, f->state, &vm, true, 500, NULL, NULL), 0);
        assert_true(now_ms() - before >= 500);
        assert_true(file_has(f->project->events_path, "qmp:POWERDOWN"));
        assert_exit(f, VM_EXIT_ENDED, "quit");
        process_close(&vm);
}

static void supervisor_presses_the_button_when_the_monitor_is_gone(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        _cleanup_free_ char *runtime_dir = NULL;
        assert_int_equal(project_runtime_dir(f->project, f->state->uuid, false, &runtime_dir, NULL), 0);
        assert_int_equal(fs_remove_tree(runtime_dir, NULL), 0);
        assert_int_equal(supervisor_powerdown(f->project), 0);
        WAIT_UNTIL(file_has(f->project->events_path, "qmp:POWERDOWN"));
        process_close(&vm);
}

static void second_supervisor_does_not_start_beside_the_first(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        assert_int_equal(supervisor_adopt(f->project, f->state, &vm, NULL), 0);
        struct process v = find_supervisor(f);
        assert_true(proc_alive(v.pidfd));
        process_close(&v);
        process_close(&vm);
}

static struct json *ask(const struct fixture *f, const char *verb) {
        struct json *answer = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (supervisor_ask(f->project, f->state->uuid, verb, PATIENCE_MS, &answer, &err) < 0)
                fail_msg("%s", err.message);
        return answer;
}

static void supervisor_answers_on_its_own_socket_under_its_filter(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT, again = PROCESS_INIT;
        START(f, boot_idle, &vm);
        struct process supervisor = find_supervisor(f);
        _cleanup_json_ struct json *pong = ask(f, "ping"), *before = ask(f, "status");
        assert_true(json_is_object(pong));
        assert_int_equal(json_u64_or(json_get(before, "pid"), 0), supervisor.pid);
        assert_int_equal(json_u64_or(json_get(before, "qemu", "pid"), 0), vm.pid);
        assert_int_equal(json_u64_or(json_get(before, "restarts"), 7), 0);
        assert_true(json_bool_or(json_get(before, "monitor"), false));
        assert_string_equal(json_string(json_get(before, "phase")), "running");
        assert_int_not_equal(json_bool_or(json_get(before, "confined"), false),
                             file_has(f->project->events_path, "not-confined"));
        assert_true(json_u64_or(json_get(before, "uptime_ms"), UINT64_MAX) < PATIENCE_MS);

        proc_signal(&vm, SIGKILL, NULL);
        WAIT_UNTIL(file_has(f->project->events_path, "repair:restarted"));
        _cleanup_json_ struct json *after = ask(f, "status");
        assert_int_equal(json_u64_or(json_get(after, "pid"), 0), supervisor.pid);
        assert_int_equal(json_u64_or(json_get(after, "restarts"), 7), 1);
        assert_int_equal(vm_find(f->project, f->state, &again, NULL), 0);
        assert_int_equal(json_u64_or(json_get(after, "qemu", "pid"), 0), again.pid);
        process_close(&supervisor);
        process_close(&again);
        process_close(&vm);
}

static void lost_monitor_is_connected_again(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        json_free(ask(f, "reconnect"));
        assert_true(file_has(f->project->events_path, "monitor-lost"));
        WAIT_UNTIL(file_has(f->project->events_path, "repair:monitor"));
        _cleanup_json_ struct json *status = ask(f, "status");
        assert_true(json_bool_or(json_get(status, "monitor"), false));
        /* The new connection serves: the supervisor hears of the button and of the end. */
        assert_int_equal(supervisor_powerdown(f->project), 0);
        WAIT_UNTIL(file_has(f->project->events_path, "qmp:POWERDOWN"));
        want_down(f);
        assert_int_equal(vm_end(f->project, f->state, &vm, false, 0, NULL, NULL), 0);
        assert_exit(f, VM_EXIT_ENDED, "quit");
        process_close(&vm);
}

static void running_vm_without_a_supervisor_gets_one_unless_a_command_is_at_work(void **state) {
        struct fixture *f = *state;
        struct process vm = PROCESS_INIT;
        START(f, boot_idle, &vm);
        assert_int_equal(supervisor_end(f->project, 0, NULL), 0);
        int lock = -1;
        assert_int_equal(vm_lock(f->project, "stop", 0, NULL, &lock, NULL), 0);
        supervisor_ensure(f->project, f->state, &vm);
        assert_false(supervisor_alive(f->project));
        close(lock);
        supervisor_ensure(f->project, f->state, &vm);
        assert_true(supervisor_alive(f->project));
        assert_true(file_has(f->project->events_path, "repair:adopted"));
        /* QEMU is no child of this supervisor; it is restarted all the same. */
        proc_signal(&vm, SIGKILL, NULL);
        WAIT_UNTIL(file_has(f->project->events_path, "repair:restarted"));
        process_close(&vm);
}

/* What the program would set the guest's clock by. */
static int set_clock_was_called(const char *root) {
        _cleanup_project_ struct project *p = NULL;
        if (project_find(root, &p, NULL) == 0)
                events_append(p, "test:set-clock", NULL);
        return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, tear_down)

int main(int argc, char **argv) {
        if (argc > 1 && str_eq(argv[1], "supervise"))
                return supervisor_main();
        if (argc > 3 && str_eq(argv[1], "set-clock"))
                return set_clock_was_called(argv[3]);
        /* A QEMU whose supervisor was killed comes to us instead of to an init that may not reap. */
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        const struct CMUnitTest tests[] = {
                        TEST(started_vm_runs_and_a_forced_end_leaves_nothing),
                        cmocka_unit_test(any_project_path_works_and_a_guests_own_poweroff_is_told_from_a_crash),
                        TEST(missing_qemu_is_a_host_error),
                        TEST(qemus_own_words_are_in_the_error),
                        TEST(port_taken_at_the_last_moment_is_a_port_error),
                        TEST(killed_qemu_is_started_again),
                        TEST(killed_qemu_stays_down_when_the_vm_was_to_be_stopped),
                        TEST(killed_qemu_is_left_to_a_command_that_holds_the_lock),
                        TEST(guest_panic_is_recorded_as_one),
                        TEST(vm_paused_by_a_full_host_disk_runs_on_without_the_guest_noticing),
                        TEST(hung_qemu_is_degraded_and_can_be_ended),
                        TEST(vm_that_crashes_again_and_again_stays_down),
                        TEST(vm_survives_its_supervisor_and_gets_a_new_one),
                        TEST(orphan_without_any_of_its_files_is_found_and_ended),
                        TEST(guest_that_ignores_the_power_button_is_switched_off),
                        TEST(supervisor_presses_the_button_when_the_monitor_is_gone),
                        TEST(second_supervisor_does_not_start_beside_the_first),
                        TEST(supervisor_answers_on_its_own_socket_under_its_filter),
                        TEST(lost_monitor_is_connected_again),
                        TEST(running_vm_without_a_supervisor_gets_one_unless_a_command_is_at_work),
        };
        return cmocka_run_group_tests_name("supervisor", tests, NULL, NULL);
}
