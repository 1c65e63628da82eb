/* SPDX-License-Identifier: MIT */
/* The side of a command: starting a supervisor, finding it, ending it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <k3s-vm/forward.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/vm.h>

#include "control.h"
#include "supervise.h"

#define START_TIMEOUT_MS (90U * 1000) /* the supervisor's own limits are shorter; this is for one that hangs */
#define STATUS_MAX_BYTES (256U * 1024)
#define END_GRACE_MS 2000
#define RELEASE_LOOK_MS 5U
#define LAUNCH_GRACE_MS 3000 /* the helper reads ahead what QEMU goes on from, and that may be a slow disk */

/* A memory file with @text that nobody can change any more, read from its start. */
static int sealed_memfd(const char *text, int *ret_fd, struct error *err) {
        _cleanup_close_ int fd = memfd_create("k3s-vm-launch", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return err_errno(err, errno, "cannot create a memory file");
        int r = fs_write_all(fd, text, strlen(text));
        if (r < 0)
                return err_errno(err, -r, "cannot write a memory file");
        if (lseek(fd, 0, SEEK_SET) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
                return err_errno(err, errno, "cannot seal a memory file");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Starts the supervisor; @ret_status is the pipe it reports on. */
static int spawn(const struct project *p, const struct state *s, const struct json *orders, struct process *ret,
                 int *ret_status, struct error *err) {
        _cleanup_free_ char *text = json_print(orders, false);
        _cleanup_close_ int memfd = -1, read_end = -1, write_end = -1;
        int r = sealed_memfd(text, &memfd, err);
        if (r < 0)
                return r;
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_errno(err, errno, "cannot create a pipe");
        read_end = fds[0];
        write_end = fds[1];
        fcntl(read_end, F_SETFL, O_NONBLOCK);

        /* Everything after the name is for people who look at `ps`. */
        const char *const argv[] = {"/proc/self/exe",        "supervise", "--project", p->root,
                                    s->name ? s->name : "-", s->uuid,     NULL};
        const struct proc_fd kept[] = {{write_end, SUPERVISE_STATUS_FD}, {memfd, SUPERVISE_LAUNCH_FD}};
        _cleanup_close_ int log = open(p->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = argv;
        spec.fds = kept;
        spec.n_fds = ELEMENTSOF(kept);
        spec.stderr_fd = log;
        spec.cwd = "/";
        spec.new_session = true;
        r = proc_spawn(&spec, ret, err);
        if (r < 0) {
                err_wrap(err, r, "cannot start the supervisor");
                return r;
        }
        *ret_status = TAKE_FD(read_end);
        return 0;
}

/* The next line on the status pipe as JSON; -ENODATA when the supervisor is gone. */
static int next_line(int fd, struct buf *in, uint64_t deadline, struct json **ret, struct error *err) {
        for (;;) {
                char *newline = in->len ? memchr(in->data, '\n', in->len) : NULL;
                if (newline) {
                        size_t len = (size_t)(newline - in->data);
                        int r = json_parse(in->data, len, ret, err);
                        buf_consume(in, len + 1);
                        return r;
                }
                uint64_t now = now_ms();
                if (now >= deadline)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the supervisor does not answer");
                int r = interrupt_wait(fd, (unsigned)(deadline - now), err);
                if (r < 0)
                        return r;
                ssize_t n = r > 0 ? buf_read(in, fd) : -EAGAIN;
                if (n == 0)
                        return -ENODATA;
                if (n < 0 && n != -EAGAIN)
                        return err_errno(err, (int)-n, "cannot hear the supervisor");
        }
}

/* Waits until the supervisor says that the VM runs, or why not. @ret is what it says of it. */
static int wait_running(struct process *supervisor, int status, struct json **ret, struct error *err) {
        _cleanup_buf_ struct buf in = BUF_INIT(STATUS_MAX_BYTES);
        uint64_t deadline = now_ms() + START_TIMEOUT_MS;
        for (;;) {
                _cleanup_json_ struct json *line = NULL;
                int r = next_line(status, &in, deadline, &line, err);
                const struct json *running = json_get(line, "running"), *e = json_get(line, "error");
                if (r == 0 && running) {
                        *ret = json_copy(running);
                        return 0;
                }
                if (r == 0 && !e)
                        continue;
                if (r == 0)
                        r = error_from_json(e, err);
                struct proc_result result = {0};
                if ((r == -ENODATA || e) && proc_wait(supervisor, END_GRACE_MS, &result, NULL) == 0 && !e) {
                        _cleanup_free_ char *how = proc_result_string(&result);
                        return err_set(err, ERR_FAILED, EIO, "the supervisor %s", how);
                }
                return r == -ENODATA ? err_set(err, ERR_FAILED, EIO, "the supervisor went silent") : r;
        }
}

int supervisor_start(const struct project *p, struct state *s, const struct strv *argv, struct process *ret_vm,
                     bool *ret_resumed, struct progress *progress, struct error *err) {
        /* One that waits to restart a crashed VM is not needed any more. */
        int r = supervisor_end(p, 0, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *orders = launch_to_json(p->root, s->uuid, s->name, argv);
        _cleanup_process_ struct process supervisor = PROCESS_INIT, vm = PROCESS_INIT;
        _cleanup_close_ int status = -1;
        r = spawn(p, s, orders, &supervisor, &status, err);
        if (r < 0)
                return r;
        progress_debug(progress, "the supervisor is process %d", supervisor.pid);
        _cleanup_json_ struct json *running = NULL;
        r = wait_running(&supervisor, status, &running, err);
        if (r < 0)
                return r;
        pid_t pid = (pid_t)json_u64_or(json_get(running, "pid"), 0);
        uint64_t start_time = json_u64_or(json_get(running, "start_time"), 0), check = 0;
        if (proc_open(pid, &vm.pidfd) < 0 || proc_start_time(pid, &check) < 0 || check != start_time)
                return err_set(err, ERR_FAILED, ESRCH, "QEMU ended right after its start");
        vm.pid = pid;
        progress_debug(progress, "QEMU is process %d", pid);
        const char *not_resumed = json_string(json_get(running, "not_resumed"));
        if (not_resumed)
                progress_warn(progress, "the saved state cannot be used, so the VM boots from its disk: %s",
                              not_resumed);
        *ret_resumed = json_bool_or(json_get(running, "resumed"), false);
        state_note_qemu(p, s, pid, start_time);
        *ret_vm = vm;
        vm = PROCESS_INIT;
        return 0;
}

/* The live supervisor, or who dozes in its place: the owner of its lock, if it is one by its command line. -ESRCH:
 * none. */
static int find_supervisor(const struct project *p, struct process *ret) {
        _cleanup_free_ char *path = supervisor_lock_path(p);
        _cleanup_process_ struct process v = PROCESS_INIT;
        int r = lock_owner(path, &v);
        _cleanup_strv_ struct strv cmdline = {0};
        if (r == 0 && (proc_cmdline(v.pid, &cmdline) < 0 ||
                       !(strv_contains(&cmdline, "supervise") || strv_contains(&cmdline, "doze"))))
                r = -ESRCH;
        if (r < 0)
                return r;
        *ret = v;
        v = PROCESS_INIT;
        return 0;
}

/* A project that was moved since has a supervisor that looks for its files where they were. */
static bool knows_project(const struct project *p) {
        _cleanup_process_ struct process v = PROCESS_INIT;
        _cleanup_strv_ struct strv cmdline = {0};
        return find_supervisor(p, &v) == 0 && proc_cmdline(v.pid, &cmdline) == 0 && strv_contains(&cmdline, p->root);
}

/* A QEMU that was resumed got its ports later, and its command line does not name them. */
static void name_forwards(const struct project *p, const struct state *s, struct strv *argv) {
        _cleanup_strv_ struct strv rules = {0};
        _cleanup_config_ struct config *c = NULL;
        qemu_forwards(argv, &rules);
        if (rules.len > 0 || config_load(p, &c, NULL) < 0)
                return;
        c->api_port = s->api_port;
        c->ssh_port = s->ssh_port;
        c->web_port = s->web_port;
        _cleanup_free_ struct forward *forwards = NULL;
        size_t n = forward_configured(c, &forwards);
        for (size_t i = 0; i < n; i++)
                strv_push_take(&rules, qemu_forward_rule(&forwards[i]));
        qemu_set_forwards(argv, &rules);
}

int supervisor_adopt(const struct project *p, const struct state *s, const struct process *vm, struct error *err) {
        if (supervisor_alive(p)) {
                if (knows_project(p))
                        return 0;
                int r = supervisor_end(p, 0, err);
                if (r < 0)
                        return r;
        }
        uint64_t start_time = 0;
        _cleanup_strv_ struct strv argv = {0};
        if (proc_start_time(vm->pid, &start_time) < 0 || proc_cmdline(vm->pid, &argv) < 0 || !proc_alive(vm->pidfd))
                return err_set(err, ERR_STATE, ESRCH, "the VM is gone");
        /* Should it have to be started again, it boots. */
        suspend_files_strip(&argv);
        name_forwards(p, s, &argv);
        _cleanup_json_ struct json *orders = launch_to_json(p->root, s->uuid, s->name, &argv);
        struct json *adopt = json_set_object(orders, "adopt");
        json_set_number(adopt, "pid", vm->pid);
        json_set_number(adopt, "start_time", (double)start_time);
        _cleanup_process_ struct process supervisor = PROCESS_INIT;
        _cleanup_close_ int status = -1;
        int r = spawn(p, s, orders, &supervisor, &status, err);
        _cleanup_json_ struct json *running = NULL;
        if (r == 0)
                r = wait_running(&supervisor, status, &running, err);
        if (r < 0)
                err_wrap(err, r, "cannot watch over the running VM");
        return r;
}

bool supervisor_alive(const struct project *p) {
        _cleanup_process_ struct process v = PROCESS_INIT;
        return find_supervisor(p, &v) == 0;
}

/* Until @v does not have the VM any more: 1, or 0 after @ms. It may still be there then, writing out a saved state. */
static int wait_released(const struct project *p, const struct process *v, unsigned ms, struct error *err) {
        for (uint64_t now, deadline = now_ms() + ms;;) {
                _cleanup_process_ struct process owner = PROCESS_INIT;
                if (find_supervisor(p, &owner) < 0 || owner.pid != v->pid)
                        return 1;
                now = now_ms();
                unsigned left = now < deadline ? (unsigned)(deadline - now) : 0;
                int r = interrupt_wait(v->pidfd, left < RELEASE_LOOK_MS ? left : RELEASE_LOOK_MS, err);
                if (r != 0 || left == 0)
                        return r;
        }
}

bool supervisor_dozes(const struct project *p) {
        _cleanup_process_ struct process v = PROCESS_INIT;
        _cleanup_strv_ struct strv cmdline = {0};
        return find_supervisor(p, &v) == 0 && proc_cmdline(v.pid, &cmdline) == 0 && cmdline.len > 1 &&
               str_eq(cmdline.items[1], "doze");
}

/* Whether a QEMU is about to be started. Who dozes has none, and is not about to. */
static bool launches(const struct project *p, int vm_dir_fd) {
        if (!supervisor_alive(p))
                return flock(vm_dir_fd, LOCK_EX | LOCK_NB) < 0;
        _cleanup_process_ struct process vm = PROCESS_INIT;
        return !supervisor_dozes(p) && vm_find(p, NULL, &vm, NULL) < 0;
}

void supervisor_wait_launch(const struct project *p) {
        _cleanup_close_ int fd = open(p->vm_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        uint64_t deadline = now_ms() + LAUNCH_GRACE_MS;
        while (fd >= 0 && launches(p, fd) && now_ms() < deadline)
                poll(NULL, 0, RELEASE_LOOK_MS);
}

int supervisor_end(const struct project *p, unsigned grace_ms, struct error *err) {
        _cleanup_process_ struct process v = PROCESS_INIT;
        if (find_supervisor(p, &v) < 0)
                return 0;
        static const int signals[] = {0, SIGTERM, SIGKILL};
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                if (signals[i]) {
                        int r = proc_signal(&v, signals[i], err);
                        if (r < 0) {
                                err_wrap(err, r, "cannot end the supervisor");
                                return r;
                        }
                }
                int r = wait_released(p, &v, signals[i] ? END_GRACE_MS : grace_ms, err);
                if (r < 0)
                        return r;
                if (r > 0) {
                        supervisor_wait_launch(p);
                        return 0;
                }
        }
        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the supervisor (process %d) cannot be ended", v.pid);
}

void supervisor_ensure(const struct project *p, const struct state *s, const struct process *vm) {
        _cleanup_close_ int lock = -1;
        if (supervisor_alive(p) || fs_lock(p->lock_path, 0, &lock, NULL) < 0)
                return;
        fs_lock_note(lock, "a command that gives the running VM a new supervisor");
        supervisor_adopt(p, s, vm, NULL);
}

int supervisor_ask(const struct project *p, const char *uuid, const char *verb, unsigned timeout_ms, struct json **ret,
                   struct error *err) {
        _cleanup_free_ char *runtime_dir = NULL;
        int r = project_runtime_dir(p, uuid, false, &runtime_dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = path_join(runtime_dir, SUPERVISOR_SOCKET);
        return control_ask(path, verb, timeout_ms, ret, err);
}

int supervisor_powerdown(const struct project *p) {
        _cleanup_process_ struct process v = PROCESS_INIT;
        int r = find_supervisor(p, &v);
        return r < 0 ? r : proc_signal(&v, SIGUSR1, NULL);
}
