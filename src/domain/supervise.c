/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's own main.
 *
 * It takes the supervisor lock, starts QEMU (or adopts one), reports to the command that started it, and from
 * then on sleeps in one loop until QEMU's pidfd, its monitor, a signal or a timer wakes it. The
 * monitor is always read before QEMU's end is judged: QEMU says why it goes just before it does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/loop.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/vm.h>

#include "supervise.h"

#define QMP_TIMEOUT_MS 5000
#define HOUSEKEEPING_MS (30U * 1000) /* the only wake-up when nothing happens */
#define LOG_MAX_BYTES (4 * 1024 * 1024)
#define SERIAL_MAX_BYTES (16 * 1024 * 1024)
#define RESUME_FIRST_MS 2000 /* after a pause for a failed write; doubled up to HOUSEKEEPING_MS */
#define RESUME_FREE_BYTES (64U * 1024 * 1024)
#define RESTARTS_MAX 5
#define RESTARTS_WINDOW_MS (10U * 60 * 1000)
#define RESTART_FIRST_MS 1000 /* doubled with every restart in the window */

struct supervisor {
        struct launch launch;
        const struct project *project; /* of launch */
        struct loop *loop;
        int lock_fd;
        int status_fd; /* -1 once reported */
        struct process qemu;
        bool child; /* started here, not adopted */
        pid_t pid;  /* of the last QEMU */
        uint64_t start_time;
        struct qmp *qmp; /* NULL while there is no connection */
        struct loop_source *qmp_source, *pidfd_source, *resume_timer, *restart_timer;
        /* What QEMU said about this run. */
        char *shutdown_reason;
        bool powerdown, panicked, failed_write;
        unsigned resume_delay_ms;
        uint64_t restarts[RESTARTS_MAX]; /* now_ms() of the last ones */
        size_t n_restarts;
};

static void supervisor_clear(struct supervisor *v) {
        qmp_free(v->qmp);
        loop_free(v->loop);
        process_close(&v->qemu);
        closep_(&v->lock_fd);
        closep_(&v->status_fd);
        free(v->shutdown_reason);
        launch_clear(&v->launch);
}
#define _cleanup_supervisor_ _cleanup_(supervisor_clear)

/* One line to the command that waits; one that is gone does not matter. */
static void report(struct supervisor *v, struct json *line) {
        _cleanup_json_ struct json *j = line;
        _cleanup_free_ char *text = json_print(j, false), *whole = xasprintf("%s\n", text);
        for (size_t done = 0, len = strlen(whole); v->status_fd >= 0 && done < len;) {
                ssize_t n = write(v->status_fd, whole + done, len - done);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        break;
                done += (size_t)n;
        }
}

static void report_error(struct supervisor *v, const struct error *err) {
        struct json *line = json_new_object(), *e = json_set_object(line, "error");
        json_set_number(e, "code", err->code);
        json_set_number(e, "errnum", err->errnum);
        json_set_string(e, "message", err->message);
        json_set_string(e, "hint", err->hint);
        json_set_string(e, "detail", err->detail);
        report(v, line);
}

static void report_running(struct supervisor *v) {
        struct json *line = json_new_object(), *vm = json_set_object(line, "running");
        json_set_number(vm, "pid", v->pid);
        json_set_number(vm, "start_time", (double)v->start_time);
        report(v, line);
        closep_(&v->status_fd);
        v->status_fd = -1;
}

static void event_text(struct supervisor *v, const char *event, const char *key, const char *text) {
        struct json *fields = json_new_object();
        json_set_string(fields, key, text);
        events_append(v->project, event, fields);
}

static void on_qmp_event(const char *name, const struct json *data, uint64_t time_ms, void *userdata) {
        struct supervisor *v = userdata;
        struct json *fields = json_new_object();
        json_set_number(fields, "qemu_ms", (double)time_ms);
        if (data)
                json_set(fields, "data", json_copy(data));
        _cleanup_free_ char *event = xasprintf("qmp:%s", name);
        events_append(v->project, event, fields);

        if (str_eq(name, "SHUTDOWN")) {
                free(v->shutdown_reason);
                v->shutdown_reason = xstrdup(json_string(json_get(data, "reason")));
        } else if (str_eq(name, "POWERDOWN"))
                v->powerdown = true;
        else if (str_eq(name, "GUEST_PANICKED"))
                v->panicked = true;
        else if (str_eq(name, "RESUME"))
                v->failed_write = false;
        else if (str_eq(name, "BLOCK_IO_ERROR") && str_eq(json_string(json_get(data, "action")), "stop"))
                v->failed_write = true;
}

static void drop_qmp(struct supervisor *v) {
        loop_remove(v->qmp_source);
        v->qmp_source = NULL;
        qmp_free(v->qmp);
        v->qmp = NULL;
}

/* What the events since the last look ask for; calls QEMU, so not from within its event handler. */
static void react(struct supervisor *v) {
        if (v->qmp && v->panicked) {
                /* It can do nothing any more. Its last words are in serial.log. */
                qmp_call(v->qmp, "quit", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        } else if (v->failed_write && v->resume_delay_ms == 0) {
                v->resume_delay_ms = RESUME_FIRST_MS;
                loop_arm(v->resume_timer, v->resume_delay_ms, 0);
        }
}

static int on_qmp(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        (void)fd;
        (void)events;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = qmp_process(v->qmp, &err);
        react(v);
        if (r < 0) {
                if (proc_alive(v->qemu.pidfd))
                        event_text(v, "monitor-lost", "why", err.message);
                drop_qmp(v);
        }
        return 0;
}

/* A VM that paused because the host could not take a write runs on once there is room. */
static int on_resume_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        if (!v->failed_write || !v->qmp) {
                v->resume_delay_ms = 0;
                return 0;
        }
        uint64_t room = 0;
        if (fs_free_bytes(v->project->vm_dir, &room, NULL) == 0 && room >= RESUME_FREE_BYTES &&
            qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, NULL) == 0)
                events_append(v->project, "repair:resumed-after-failed-write", NULL);
        /* Armed on: a write that fails again shows only then. */
        v->resume_delay_ms = v->resume_delay_ms * 2 < HOUSEKEEPING_MS ? v->resume_delay_ms * 2 : HOUSEKEEPING_MS;
        loop_arm(v->resume_timer, v->resume_delay_ms, 0);
        return 0;
}

static int on_housekeeping(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        log_bound(v->project->log_path, LOG_MAX_BYTES);
        log_bound(v->project->serial_path, SERIAL_MAX_BYTES);
        return 0;
}

static int on_signal(struct loop *loop, int signal, void *userdata) {
        struct supervisor *v = userdata;
        if (signal == SIGUSR1) {
                if (v->qmp)
                        qmp_call(v->qmp, "system_powerdown", NULL, QMP_TIMEOUT_MS, NULL, NULL);
                return 0;
        }
        event_text(v, "supervisor-ended", "why", "a signal; the VM goes on");
        loop_stop(loop, 0);
        return 0;
}

static int on_qemu_gone(struct loop *loop, int fd, uint32_t events, void *userdata);
static int on_restart_timer(struct loop *loop, void *userdata);

/* Watches a QEMU that was just started or adopted. */
static int watch(struct supervisor *v, struct error *err) {
        v->pid = v->qemu.pid;
        if (proc_start_time(v->pid, &v->start_time) < 0)
                return err_set(err, ERR_FAILED, ESRCH, "QEMU is gone");
        free(v->shutdown_reason);
        v->shutdown_reason = NULL;
        v->powerdown = v->panicked = v->failed_write = false;
        v->resume_delay_ms = 0;
        qmp_on_event(v->qmp, on_qmp_event, v);
        int r = loop_add_fd(v->loop, qmp_fd(v->qmp), EPOLLIN, on_qmp, v, &v->qmp_source, err);
        if (r == 0)
                r = loop_add_fd(v->loop, v->qemu.pidfd, EPOLLIN, on_qemu_gone, v, &v->pidfd_source, err);
        return r;
}

/* Lets the guest run, if it does not yet. */
static int let_run(struct supervisor *v, struct error *err) {
        _cleanup_json_ struct json *status = NULL;
        int r = qmp_call(v->qmp, "query-status", NULL, QMP_TIMEOUT_MS, &status, err);
        const char *text = json_string(json_get(status, "status"));
        if (r == 0 && str_eq(text, "prelaunch"))
                r = qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, err);
        if (r == 0 && str_eq(text, "guest-panicked"))
                v->panicked = true;
        if (r == 0 && str_eq(text, "io-error"))
                v->failed_write = true;
        react(v);
        return r;
}

static int start_qemu(struct supervisor *v, struct error *err) {
        int r = launch_qemu(&v->launch, &v->qemu, &v->qmp, err);
        if (r < 0)
                return r;
        v->child = true;
        r = watch(v, err);
        if (r == 0)
                r = let_run(v, err);
        if (r < 0) {
                proc_signal(&v->qemu, SIGKILL, NULL);
                proc_wait(&v->qemu, 0, NULL, NULL);
                launch_remove_leftovers(v->project, v->launch.uuid);
                return r;
        }
        struct json *fields = json_new_object();
        json_set_number(fields, "pid", v->pid);
        json_set_number(fields, "start_time", (double)v->start_time);
        events_append(v->project, "qemu-started", fields);
        return 0;
}

/* The VM's state, if it is still about this QEMU and the VM is to run. */
static struct state *state_to_restart(struct supervisor *v) {
        _cleanup_state_ struct state *s = NULL;
        if (state_load(v->project, &s, NULL) < 0 || !str_eq(s->uuid, v->launch.uuid) || !str_eq(s->intent, "running") ||
            s->pid != v->pid || s->start_time != v->start_time)
                return NULL;
        return TAKE_PTR(s);
}

static bool wanted_down(struct supervisor *v) {
        _cleanup_state_ struct state *s = NULL;
        return state_load(v->project, &s, NULL) == 0 && str_eq(s->intent, "stopped");
}

/* Whether it may be started again; arms the timer then. */
static bool plan_restart(struct supervisor *v, enum vm_exit_kind kind, bool *ret_stays_down) {
        if (kind != VM_EXIT_CRASH && kind != VM_EXIT_PANIC)
                return false;
        _cleanup_close_ int lock = -1;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) < 0)
                return false;
        _cleanup_state_ struct state *s = state_to_restart(v);
        if (!s)
                return false;
        uint64_t now = now_ms();
        unsigned delay_ms = RESTART_FIRST_MS;
        size_t recent = 0;
        for (size_t i = 0; i < v->n_restarts; i++)
                if (now - v->restarts[i] < RESTARTS_WINDOW_MS) {
                        v->restarts[recent++] = v->restarts[i];
                        delay_ms *= 2;
                }
        v->n_restarts = recent;
        if (recent == RESTARTS_MAX) {
                *ret_stays_down = true;
                return false;
        }
        v->restarts[v->n_restarts++] = now;
        loop_arm(v->restart_timer, delay_ms, 0);
        return true;
}

/* The verdict on a QEMU that is gone. */
static struct vm_exit *judge(struct supervisor *v) {
        struct proc_result result = {0};
        bool known = v->child && proc_wait(&v->qemu, 1000, &result, NULL) == 0;
        process_close(&v->qemu);
        const struct vm_exit_facts facts = {
                        .shutdown_reason = v->shutdown_reason,
                        .powerdown = v->powerdown,
                        .panicked = v->panicked,
                        .intended = wanted_down(v),
                        .result = known ? &result : NULL,
        };
        struct vm_exit *e = xcalloc(1, sizeof(*e));
        e->kind = vm_exit_classify(&facts, &e->reason);
        e->time_ms = wall_ms();
        e->pid = v->pid;
        e->start_time = v->start_time;
        e->qemu_lines = log_tail(v->project->log_path, 0, 12);
        e->serial_lines = log_tail(v->project->serial_path, 0, 12);
        return e;
}

/* A command at work removes them itself; they may be those of its new QEMU by now. */
static void remove_leftovers(struct supervisor *v) {
        _cleanup_close_ int lock = -1;
        _cleanup_process_ struct process other = PROCESS_INIT;
        _cleanup_state_ struct state *s = NULL;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) == 0 && state_load(v->project, &s, NULL) == 0 &&
            vm_find(v->project, s, &other, NULL) == -ESRCH)
                launch_remove_leftovers(v->project, v->launch.uuid);
}

static int on_qemu_gone(struct loop *loop, int fd, uint32_t events, void *userdata) {
        struct supervisor *v = userdata;
        (void)fd;
        (void)events;
        while (v->qmp && qmp_process(v->qmp, NULL) == 0)
                ; /* until it says that the connection is closed: QEMU's last events are in there */
        drop_qmp(v);
        loop_remove(v->pidfd_source);
        v->pidfd_source = NULL;

        _cleanup_vm_exit_ struct vm_exit *e = judge(v);
        bool again = plan_restart(v, e->kind, &e->stays_down);
        /* A VM that was removed meanwhile leaves no files. */
        if (!fs_is_dir(v->project->vm_dir)) {
                loop_stop(loop, 0);
                return 0;
        }
        vm_exit_save(v->project, e, NULL);
        struct json *fields = json_new_object();
        json_set_string(fields, "why", e->reason);
        json_set_bool(fields, "restarts", again);
        json_set_string(fields, "qemu", e->kind == VM_EXIT_CRASH ? e->qemu_lines : NULL);
        json_set_string(fields, "serial", e->kind == VM_EXIT_PANIC ? e->serial_lines : NULL);
        events_append(v->project, e->stays_down ? "qemu-stays-down" : "qemu-ended", fields);
        if (!again) {
                remove_leftovers(v);
                loop_stop(loop, 0);
        }
        return 0;
}

static int on_restart_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *s = NULL;
        if (fs_lock(v->project->lock_path, 0, &lock, NULL) == 0)
                s = state_to_restart(v);
        _cleanup_process_ struct process other = PROCESS_INIT;
        if (!s || vm_find(v->project, s, &other, NULL) == 0) {
                loop_stop(loop, 0); /* somebody else deals with it */
                return 0;
        }
        fs_lock_note(lock, "the VM's supervisor, which restarts it");
        _cleanup_error_ struct error err = ERROR_INIT;
        if (start_qemu(v, &err) < 0) {
                event_text(v, "restart-failed", "why", err.message);
                const struct vm_exit e = {.kind = VM_EXIT_CRASH,
                                          .reason = err.message,
                                          .time_ms = wall_ms(),
                                          .qemu_lines = err.detail,
                                          .stays_down = true};
                vm_exit_save(v->project, &e, NULL);
                loop_stop(loop, ERR_FAILED);
                return 0;
        }
        s->pid = v->pid;
        s->start_time = v->start_time;
        s->started_ms = wall_ms();
        state_save(v->project, s, NULL);
        events_append(v->project, "repair:restarted", NULL);
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

static int begin(struct supervisor *v, struct error *err) {
        int r = read_orders(v, err);
        if (r == 0)
                r = take_lock(v, err);
        if (r == 0)
                r = loop_new(&v->loop, err);
        if (r == 0)
                r = loop_add_timer(v->loop, 0, 0, on_resume_timer, v, &v->resume_timer, err);
        if (r == 0)
                r = loop_add_timer(v->loop, 0, 0, on_restart_timer, v, &v->restart_timer, err);
        if (r == 0)
                r = loop_add_timer(v->loop, HOUSEKEEPING_MS, HOUSEKEEPING_MS, on_housekeeping, v, NULL, err);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGHUP);
        sigaddset(&set, SIGUSR1);
        if (r == 0)
                r = loop_add_signals(v->loop, &set, on_signal, v, err);
        if (r < 0)
                return r;
        if (v->launch.adopt_pid == 0)
                return start_qemu(v, err);
        r = launch_adopt(&v->launch, &v->qemu, &v->qmp, err);
        if (r == 0)
                r = watch(v, err);
        if (r == 0)
                r = let_run(v, err);
        if (r == 0)
                events_append(v->project, "repair:adopted", NULL);
        return r;
}

int supervisor_main(void) {
        _cleanup_supervisor_ struct supervisor v = {
                        .lock_fd = -1, .status_fd = SUPERVISE_STATUS_FD, .qemu = PROCESS_INIT};
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
                        event_text(&v, "start-failed", "why", err.message);
                report_error(&v, &err);
                return err.code ? (int)err.code : ERR_FAILED;
        }
        report_running(&v);
        int r = loop_run(v.loop, &err);
        return r < 0 ? ERR_FAILED : r;
}
