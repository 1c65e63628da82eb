/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's own main.
 *
 *   1. its orders, the supervisor's lock
 *   2. the starter is forked: a helper that keeps the right to start programs
 *   3. the control socket is made, QEMU started by it (or one is adopted), its monitor connected
 *   4. the system call filter: from here on no program can be started and no socket connected
 *   5. the report to the command that started it
 *   6. one loop, asleep until QEMU's pidfd, its monitor, the control socket, a signal, the clock or a timer wakes it
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/supervisor.h>

#include "supervise_internal.h"
#include "supervise_syscalls.h"

#define LOG_MAX_BYTES (4 * 1024 * 1024)
#define SERIAL_MAX_BYTES (16 * 1024 * 1024)

static void supervisor_clear(struct supervisor *v) {
        control_free(v->control);
        qmp_free(v->qmp);
        loop_free(v->loop);
        process_close(&v->qemu);
        starter_end(&v->starter);
        closep_(&v->lock_fd);
        closep_(&v->status_fd);
        closep_(&v->clock_fd);
        free(v->shutdown_reason);
        free(v->last_event);
        free(v->not_resumed);
        suspended_clear(&v->state);
        launch_clear(&v->launch);
}
#define _cleanup_supervisor_ _cleanup_(supervisor_clear)

/* One line to the command that waits; one that is gone does not matter. */
static void report(struct supervisor *v, struct json *line) {
        _cleanup_json_ struct json *j = line;
        _cleanup_free_ char *text = json_print(j, false), *whole = xasprintf("%s\n", text);
        if (v->status_fd >= 0)
                fs_write_all(v->status_fd, whole, strlen(whole));
}

static void report_error(struct supervisor *v, const struct error *err) {
        struct json *line = json_new_object();
        json_set(line, "error", error_to_json(err));
        report(v, line);
}

static void report_running(struct supervisor *v) {
        struct json *line = json_new_object(), *vm = json_set_object(line, "running");
        json_set_number(vm, "pid", v->pid);
        json_set_number(vm, "start_time", (double)v->start_time);
        json_set_bool(vm, "resumed", v->resumed);
        json_set_string(vm, "not_resumed", v->not_resumed);
        report(v, line);
        closep_(&v->status_fd);
        v->status_fd = -1;
}

void supervise_note(struct supervisor *v, const char *event, struct json *fields) {
        events_append(v->project, event, fields);
        free(v->last_event);
        v->last_event = xstrdup(event);
        v->last_event_ms = wall_ms();
}

void supervise_note_text(struct supervisor *v, const char *event, const char *key, const char *text) {
        struct json *fields = json_new_object();
        json_set_string(fields, key, text);
        supervise_note(v, event, fields);
}

/* After this machine slept, or its clock was set, the guest's is wrong. */
static void check_clocks(struct supervisor *v) {
        struct clock_reading now;
        struct clock_jump jump;
        clock_read(&now);
        if (!clock_jumped(&v->clocks, &now, &jump))
                return;
        v->clocks = now;
        struct json *fields = json_new_object();
        json_set_number(fields, "suspended_ms", (double)jump.suspended_ms);
        json_set_number(fields, "set_ms", (double)jump.set_ms);
        supervise_note(v, "clock-jumped", fields);
        supervise_set_clock(v);
}

static int on_clock(struct loop *loop, int fd, uint32_t events, void *userdata) {
        (void)loop;
        (void)events;
        clock_watch_drain(fd);
        check_clocks(userdata);
        return 0;
}

static int on_housekeeping(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        log_bound(v->project->log_path, LOG_MAX_BYTES);
        log_bound(v->project->serial_path, SERIAL_MAX_BYTES);
        check_clocks(v); /* where the kernel's word of it did not come: a machine that is itself a guest */
        if (v->qmp)
                v->monitor_delay_ms = 0;
        supervise_idle_look(v);
        if (!v->boot.timed)
                supervise_boot_look(v);
        return 0;
}

static const char *phase(const struct supervisor *v) {
        if (v->restart_planned)
                return "restarting";
        return v->paused_ms || v->failed_write ? "paused" : "running";
}

static struct json *describe(const struct supervisor *v) {
        struct json *j = json_new_object();
        json_set_number(j, "pid", getpid());
        json_set_number(j, "uptime_ms", (double)(now_ms() - v->started_ms));
        json_set_bool(j, "confined", v->confined);
        json_set_bool(j, "adopted", !v->child);
        json_set_string(j, "phase", phase(v));
        json_set_number(j, "restarts", v->restarts_total);
        json_set_number(j, "standstills", v->boot.standstill.resets);
        json_set_bool(j, "monitor", v->qmp);
        struct json *qemu = json_set_object(j, "qemu");
        json_set_number(qemu, "pid", v->pid);
        json_set_number(qemu, "start_time", (double)v->start_time);
        struct json *event = json_set_object(j, "last_event");
        json_set_string(event, "event", v->last_event);
        json_set_number(event, "ms", (double)v->last_event_ms);
        return j;
}

static struct json *on_request(const char *verb, void *userdata, struct error *err) {
        struct supervisor *v = userdata;
        if (str_eq(verb, "status"))
                return describe(v);
        if (str_eq(verb, "booted")) {
                struct json *answer = describe(v);
                supervise_boot_ended(v);
                v->boot.standstill.resets = 0;
                return answer;
        }
        if (str_eq(verb, "ping"))
                return json_new_object();
        if (str_eq(verb, "reconnect")) {
                v->monitor_delay_ms = 0;
                if (v->pidfd_source)
                        supervise_monitor_lost(v, "a new connection was asked for");
                return json_new_object();
        }
        if (str_eq(verb, "suspend"))
                return supervise_suspend(v, err);
        if (str_eq(verb, "snapshot"))
                return supervise_snapshot(v, err);
        if (str_eq(verb, "unsuspend"))
                return supervise_unsuspend(v, err);
        err_set(err, ERR_USAGE, EINVAL, "there are ping, status, booted, reconnect, suspend, unsuspend and snapshot");
        return NULL;
}

static int on_signal(struct loop *loop, int signal, void *userdata) {
        struct supervisor *v = userdata;
        if (signal == SIGUSR1) {
                if (v->qmp)
                        qmp_call(v->qmp, "system_powerdown", NULL, QMP_TIMEOUT_MS, NULL, NULL);
                return 0;
        }
        supervise_note_text(v, "supervisor-ended", "why", "a signal; the VM goes on");
        loop_stop(loop, 0);
        return 0;
}

char *supervisor_lock_path(const struct project *p) {
        return path_join(p->vm_dir, "supervisor.lock");
}

/* An fcntl lock, as its owner's PID can be asked for; it goes with the process, whatever way that ends. */
static int take_lock(struct supervisor *v, struct error *err) {
        _cleanup_free_ char *path = supervisor_lock_path(v->project);
        _cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_errno(err, errno, "cannot open %s", path);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_SETLK, &lock) < 0)
                return err_set(err, ERR_STATE, EBUSY, "this VM has a supervisor already");
        v->lock_fd = TAKE_FD(fd);
        return 0;
}

static int read_orders(struct supervisor *v, struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(LAUNCH_JSON_MAX);
        ssize_t n;
        while ((n = buf_read(&text, SUPERVISE_LAUNCH_FD)) > 0)
                ;
        if (n < 0)
                return err_errno(err, (int)-n, "cannot read the supervisor's orders");
        close(SUPERVISE_LAUNCH_FD);
        _cleanup_json_ struct json *j = NULL;
        int r = json_parse(buf_str(&text), text.len, &j, err);
        if (r == 0)
                r = launch_parse(j, &v->launch, err);
        v->project = v->launch.project;
        return r;
}

static int add_signals(struct supervisor *v, struct error *err) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGUSR1);
        return loop_add_signals(v->loop, &set, on_signal, v, err);
}

static int listen_for_requests(struct supervisor *v, struct error *err) {
        _cleanup_free_ char *runtime_dir = NULL;
        int r = project_runtime_dir(v->project, v->launch.uuid, true, &runtime_dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = path_join(runtime_dir, SUPERVISOR_SOCKET);
        return control_new(v->loop, path, on_request, v, &v->control, err);
}

static int watch_clock(struct supervisor *v, struct error *err) {
        clock_read(&v->clocks);
        int r = clock_watch(&v->clock_fd, err);
        return r < 0 ? r : loop_add_fd(v->loop, v->clock_fd, EPOLLIN, on_clock, v, NULL, err);
}

/* Once everything is open that will ever be. A VM whose supervisor cannot be confined is better than none. */
static void confine(struct supervisor *v) {
        _cleanup_error_ struct error err = ERROR_INIT;
        v->confined = sandbox_enter(supervise_syscalls, ELEMENTSOF(supervise_syscalls), &err) == 0;
        if (!v->confined)
                supervise_note_text(v, "not-confined", "why", err.message);
}

static int begin(struct supervisor *v, struct error *err) {
        int r = read_orders(v, err);
        if (r == 0)
                r = take_lock(v, err);
        if (r < 0)
                return r;
        /* While this process is small. */
        const int own_fds[] = {v->lock_fd, v->status_fd, -1};
        r = starter_new(&v->launch, own_fds, &v->starter, err);
        if (r == 0)
                r = loop_new(&v->loop, err);
        if (r == 0)
                r = supervise_qemu_begin(v, err);
        if (r == 0)
                r = loop_add_timer(v->loop, HOUSEKEEPING_MS, HOUSEKEEPING_MS, on_housekeeping, v, NULL, err);
        if (r == 0)
                r = add_signals(v, err);
        if (r == 0)
                r = watch_clock(v, err);
        if (r == 0)
                r = listen_for_requests(v, err);
        if (r == 0)
                r = v->launch.adopt_pid ? supervise_qemu_adopt(v, err) : supervise_qemu_start(v, err);
        supervise_idle_begin(v);
        if (r == 0)
                confine(v);
        return r;
}

int supervisor_main(void) {
        _cleanup_supervisor_ struct supervisor v = {.lock_fd = -1,
                                                    .status_fd = SUPERVISE_STATUS_FD,
                                                    .clock_fd = -1,
                                                    .starter = STARTER_INIT,
                                                    .qemu = PROCESS_INIT,
                                                    .started_ms = now_ms()};
        _cleanup_error_ struct error err = ERROR_INIT;
        /* Started by hand there are no such descriptors, or they are something else. */
        struct stat st;
        if (fstat(SUPERVISE_STATUS_FD, &st) < 0 || !S_ISFIFO(st.st_mode) || fstat(SUPERVISE_LAUNCH_FD, &st) < 0 ||
            fcntl(SUPERVISE_LAUNCH_FD, F_GET_SEALS) < 0) {
                v.status_fd = -1;
                return ERR_USAGE;
        }
        fcntl(SUPERVISE_STATUS_FD, F_SETFD, FD_CLOEXEC);
        fcntl(SUPERVISE_LAUNCH_FD, F_SETFD, FD_CLOEXEC);
        prctl(PR_SET_NAME, "k3s-vm");
        signal(SIGPIPE, SIG_IGN);
        /* Sockets, PID file and logs that QEMU makes are this user's alone. */
        umask(0077);

        if (begin(&v, &err) < 0) {
                if (v.project)
                        supervise_note_text(&v, "start-failed", "why", err.message);
                if (v.control) {
                        _cleanup_free_ char *path = launch_socket_path(&v.launch, SUPERVISOR_SOCKET);
                        fs_unlink(path, NULL);
                }
                report_error(&v, &err);
                supervise_suspend_end(&v);
                return err.code ? (int)err.code : ERR_FAILED;
        }
        report_running(&v);
        int r = loop_run(v.loop, &err);
        supervise_suspend_end(&v);
        return r < 0 ? ERR_FAILED : r;
}
