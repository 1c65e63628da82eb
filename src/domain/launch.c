/* SPDX-License-Identifier: MIT */
/* The launch description, and QEMU's start by it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/socket.h>
#include <k3s-vm/suspend.h>

#include "supervise.h"

#define QEMU_START_TIMEOUT_MS (60U * 1000) /* until the monitor answers; some 100 ms on an idle machine */
#define QEMU_CONNECT_TIMEOUT_MS 1000
#define ADOPT_TIMEOUT_MS (5U * 1000)
#define LOG_MAX_BYTES (1024 * 1024)    /* of vm.log at a start */
#define SERIAL_MAX_BYTES (4096 * 1024) /* of serial.log at a start */

void launch_clear(struct launch *l) {
        project_free(l->project);
        free(l->uuid);
        free(l->name);
        strv_free(&l->argv);
        *l = (struct launch){0};
}

struct json *launch_to_json(const char *root, const char *uuid, const char *name, const struct strv *argv) {
        struct json *j = json_new_object();
        json_set_string(j, "project", root);
        json_set_string(j, "uuid", uuid);
        json_set_string(j, "name", name);
        struct json *array = json_set_array(j, "argv");
        for (size_t i = 0; i < argv->len; i++)
                json_append_string(array, argv->items[i]);
        return j;
}

int launch_parse(const struct json *j, struct launch *ret, struct error *err) {
        _cleanup_launch_ struct launch l = {0};
        const char *root = json_string(json_get(j, "project"));
        l.uuid = xstrdup(json_string(json_get(j, "uuid")));
        l.name = xstrdup(json_string_or(json_get(j, "name"), ""));
        l.adopt_pid = (pid_t)json_u64_or(json_get(j, "adopt", "pid"), 0);
        l.adopt_start_time = json_u64_or(json_get(j, "adopt", "start_time"), 0);
        for (const struct json *arg = json_first(json_get(j, "argv")); arg; arg = json_next(arg))
                if (json_string(arg))
                        strv_push(&l.argv, json_string(arg));
        if (!root || !l.uuid || l.argv.len == 0)
                return err_set(err, ERR_FAILED, EINVAL, "the supervisor was started without orders");
        int r = project_find(root, &l.project, err);
        if (r < 0)
                return r;
        *ret = l;
        l = (struct launch){0};
        return 0;
}

struct json *error_to_json(const struct error *err) {
        struct json *j = json_new_object();
        json_set_number(j, "code", err->code);
        json_set_number(j, "errnum", err->errnum);
        json_set_string(j, "message", err->message);
        json_set_string(j, "hint", err->hint);
        json_set_string(j, "detail", err->detail);
        return j;
}

int error_from_json(const struct json *j, struct error *err) {
        uint64_t code = json_u64_or(json_get(j, "code"), ERR_FAILED), errnum = json_u64_or(json_get(j, "errnum"), EIO);
        int r = err_set(err, (enum err_code)code, (int)errnum, "%s",
                        json_string_or(json_get(j, "message"), "the supervisor failed"));
        if (json_string(json_get(j, "hint")))
                err_hint(err, "%s", json_string(json_get(j, "hint")));
        err_detail(err, json_string(json_get(j, "detail")));
        return r;
}

/* "-msg timestamp=on" and QEMU's own name in front of its messages help in a log, not in an error. */
static const char *skip_prefix(const char *line) {
        const char *p = line;
        if (strspn(p, "0123456789-") == 10 && p[10] == 'T') {
                const char *blank = strchr(p, ' ');
                p = blank ? blank + 1 : p;
        }
        const char *colon = strstr(p, ": ");
        if (colon && str_starts(p, "qemu"))
                p = colon + 2;
        return p;
}

int launch_error(const char *how, const char *words, struct error *err) {
        int r;
        static const char rule[] = "Could not set up host forwarding rule 'tcp:";
        const char *forward = words ? strstr(words, rule) : NULL;
        if (forward) {
                const char *from = forward + strlen(rule);
                _cleanup_free_ char *address = xstrndup(from, strcspn(from, "-'\n"));
                r = err_set(err, ERR_PORT, EADDRINUSE, "QEMU cannot listen on %s: the port is taken", address);
                err_hint(err, "run the command again: it names the process that holds the port");
        } else if (words && *words) {
                _cleanup_free_ char *first = xstrndup(words, strcspn(words, "\n"));
                r = err_set(err, ERR_FAILED, EIO, "QEMU %s: %s", how, skip_prefix(first));
        } else
                r = err_set(err, ERR_FAILED, EIO, "QEMU %s and did not say why", how);
        if (words && *words)
                err_detail(err, words);
        return r;
}

/* After a failed handshake: why. QEMU is gone afterwards. */
static int explain_failure(const struct launch *l, struct process *qemu, off_t log_start, struct error *err) {
        bool silent = err && err->errnum == ETIMEDOUT;
        struct proc_result result = {0};
        _cleanup_free_ char *how = NULL;
        /* The connection breaks a moment before the process is gone. */
        if (!silent && proc_wait(qemu, 5000, &result, NULL) == 0)
                how = proc_result_string(&result);
        else {
                proc_signal(qemu, SIGKILL, NULL);
                proc_wait(qemu, 0, NULL, NULL);
                how = xstrdup("did not answer on its monitor");
        }
        _cleanup_free_ char *words = log_tail(l->project->log_path, log_start, 12);
        return launch_error(how, words, err);
}

static int remove_stale_pid_file(const struct project *p, struct error *err) {
        /* Whoever starts QEMU has made sure that nobody holds its lock; QEMU itself would follow a symlink. */
        return fs_unlink(p->pid_path, err);
}

char *launch_socket_path(const struct launch *l, const char *name) {
        _cleanup_free_ char *runtime_dir = NULL;
        if (project_runtime_dir(l->project, l->uuid, false, &runtime_dir, NULL) < 0)
                return NULL;
        return path_join(runtime_dir, name);
}

int launch_qemu(const struct launch *l, bool resume, struct launched *ret, struct error *err) {
        const struct project *p = l->project;
        _cleanup_free_ char *runtime_dir = NULL;
        int r = project_runtime_dir(p, l->uuid, true, &runtime_dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *supervisor_path = path_join(runtime_dir, QEMU_QMP_SUPERVISOR);
        _cleanup_free_ char *commands_path = path_join(runtime_dir, QEMU_QMP_COMMANDS);
        _cleanup_free_ char *agent_path = path_join(runtime_dir, QEMU_AGENT);
        _cleanup_close_ int supervisor_fd = -1, commands_fd = -1, agent_fd = -1, qmp_fd = -1;
        r = socket_listen(supervisor_path, &supervisor_fd, err);
        if (r == 0)
                r = socket_listen(commands_path, &commands_fd, err);
        if (r == 0)
                r = socket_listen(agent_path, &agent_fd, err);
        if (r == 0)
                r = remove_stale_pid_file(p, err);
        if (r == 0)
                r = vm_exit_remove(p, err);
        if (r < 0)
                return r;
        log_bound(p->log_path, LOG_MAX_BYTES);
        log_bound(p->serial_path, SERIAL_MAX_BYTES);
        _cleanup_close_ int log = open(p->log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (log < 0)
                return err_errno(err, errno, "cannot write %s", p->log_path);
        off_t log_start = lseek(log, 0, SEEK_END);
        /* Before there is a QEMU: the connection waits in the socket's queue until it is answered. */
        r = socket_connect(supervisor_path, "QEMU", QEMU_CONNECT_TIMEOUT_MS, &qmp_fd, err);
        if (r < 0)
                return r;

        _cleanup_strv_ struct strv argv = {0};
        _cleanup_config_ struct config *config = NULL;
        _cleanup_close_ int devices_fd = -1;
        if (resume) {
                suspend_files_arguments(p, &l->argv, &argv);
                r = suspend_files_open(p, &devices_fd, err);
                if (r < 0)
                        return r;
        } else {
                strv_extend(&argv, (const char *const *)l->argv.items);
                /* They may be others than when the orders were given, if this QEMU takes the place of one that crashed.
                 */
                if (config_load(p, &config, NULL) == 0)
                        qemu_update_forwards(&argv, config);
        }
        const struct proc_fd fds[] = {{supervisor_fd, QEMU_FD_SUPERVISOR},
                                      {commands_fd, QEMU_FD_COMMANDS},
                                      {agent_fd, QEMU_FD_AGENT},
                                      {devices_fd, QEMU_FD_DEVICES}};
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const *)argv.items;
        spec.stdout_fd = log;
        spec.stderr_fd = log;
        spec.fds = fds;
        spec.n_fds = resume ? 4 : 3;
        spec.cwd = "/";
        spec.new_session = true; /* a signal to the supervisor's group does not reach the VM */
        spec.as_sibling = true;
        _cleanup_process_ struct process qemu = PROCESS_INIT;
        r = proc_spawn(&spec, &qemu, err);
        if (r < 0)
                return r;
        /* The listening sockets are QEMU's alone when this returns: when it dies, whoever waits on them learns it. */
        *ret = (struct launched){.pid = qemu.pid, .qmp_fd = TAKE_FD(qmp_fd), .log_start = log_start};
        return 0;
}

int launch_handshake(const struct launch *l, struct process *qemu, int qmp_fd, off_t log_start, struct qmp **ret,
                     struct error *err) {
        _cleanup_error_ struct error why = ERROR_INIT;
        int r = qmp_open(qmp_fd, QEMU_START_TIMEOUT_MS, ret, &why);
        if (r < 0) {
                r = explain_failure(l, qemu, log_start, &why);
                err_move(err, &why);
        }
        return r;
}

int launch_adopt(const struct launch *l, struct process *ret_qemu, struct qmp **ret_qmp, struct error *err) {
        _cleanup_process_ struct process qemu = {.pid = l->adopt_pid, .pidfd = -1};
        uint64_t start_time = 0;
        _cleanup_strv_ struct strv cmdline = {0};
        if (proc_open(l->adopt_pid, &qemu.pidfd) < 0 || proc_start_time(l->adopt_pid, &start_time) < 0 ||
            start_time != l->adopt_start_time || proc_cmdline(l->adopt_pid, &cmdline) < 0 ||
            !strv_contains(&cmdline, l->uuid) || !proc_alive(qemu.pidfd))
                return err_set(err, ERR_STATE, ESRCH, "process %d is not this VM", l->adopt_pid);
        _cleanup_free_ char *path = launch_socket_path(l, QEMU_QMP_SUPERVISOR);
        if (!path)
                return err_set(err, ERR_FAILED, ENOENT, "there is no folder for sockets");
        int r = qmp_connect(path, ADOPT_TIMEOUT_MS, ret_qmp, err);
        if (r < 0)
                return r;
        *ret_qemu = qemu;
        qemu = PROCESS_INIT;
        return 0;
}

void launch_remove_leftovers(const struct project *p, const char *uuid) {
        _cleanup_free_ char *runtime_dir = NULL;
        if (project_runtime_dir(p, uuid, false, &runtime_dir, NULL) < 0)
                return;
        static const char *const sockets[] = {QEMU_QMP_SUPERVISOR, QEMU_QMP_COMMANDS, QEMU_AGENT, QEMU_GDB,
                                              SUPERVISOR_SOCKET};
        for (size_t i = 0; i < ELEMENTSOF(sockets); i++) {
                _cleanup_free_ char *path = path_join(runtime_dir, sockets[i]);
                fs_unlink(path, NULL);
        }
        fs_unlink(p->pid_path, NULL);
        suspend_tidy(p);
        rmdir(runtime_dir);
}
