/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/ports.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/qmp.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/vm.h>

#define STATUS_TIMEOUT_MS 3000 /* another command may be using the monitor */
#define LOCK_SLICE_MS 250
#define LOCK_NOTE_MAX 256

const char *vm_status_string(enum vm_status s) {
        static const char *const names[] = {
                        [VM_ABSENT] = "absent",   [VM_CREATED] = "created",   [VM_STARTING] = "starting",
                        [VM_RUNNING] = "running", [VM_DEGRADED] = "degraded", [VM_SUSPENDED] = "suspended",
                        [VM_STOPPED] = "stopped", [VM_CRASHED] = "crashed",
        };
        return names[s];
}

/* The PID that F_GETLK names, 0 when nobody holds a lock. */
static pid_t lock_pid(int fd) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        if (fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK || lock.l_pid <= 0)
                return 0;
        return lock.l_pid;
}

int lock_owner(const char *path, struct process *ret) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return -ESRCH;
        _cleanup_process_ struct process owner = PROCESS_INIT;
        owner.pid = lock_pid(fd);
        /* Asked again once the pidfd is open: if the same process still holds the lock, the pidfd is its. */
        if (owner.pid == 0 || proc_open(owner.pid, &owner.pidfd) < 0 || lock_pid(fd) != owner.pid)
                return -ESRCH;
        *ret = owner;
        owner = PROCESS_INIT;
        return 0;
}

/* The value that follows @option on a command line, or NULL. */
static const char *option_value(const struct strv *cmdline, const char *option) {
        for (size_t i = 1; i + 1 < cmdline->len; i++)
                if (str_eq(cmdline->items[i], option))
                        return cmdline->items[i + 1];
        return NULL;
}

static bool same_file(const char *a, const char *b) {
        struct stat x, y;
        return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether a live process, pinned by its pidfd, is this VM's QEMU by its command line. */
static bool is_this_vm(const struct project *p, const struct state *s, const struct process *process) {
        _cleanup_strv_ struct strv cmdline = {0};
        if (proc_cmdline(process->pid, &cmdline) < 0 || !proc_alive(process->pidfd))
                return false;
        if (s)
                return str_eq(option_value(&cmdline, "-uuid"), s->uuid);
        const char *pid_file = option_value(&cmdline, "-pidfile");
        return pid_file && (str_eq(pid_file, p->pid_path) || same_file(pid_file, p->pid_path));
}

int vm_find(const struct project *p, const struct state *s, struct process *ret, struct error *err) {
        _cleanup_process_ struct process found = PROCESS_INIT;
        if (lock_owner(p->pid_path, &found) == 0 && is_this_vm(p, s, &found)) {
                *ret = found;
                found = PROCESS_INIT;
                return 0;
        }
        _cleanup_free_ pid_t *pids = NULL;
        size_t n = 0;
        if (s && s->uuid && vm_processes(s->uuid, &pids, &n) == 0)
                for (size_t i = 0; i < n; i++) {
                        process_close(&found);
                        found.pid = pids[i];
                        if (proc_open(pids[i], &found.pidfd) < 0 || !is_this_vm(p, s, &found))
                                continue;
                        *ret = found;
                        found = PROCESS_INIT;
                        return 0;
                }
        return err_set(err, ERR_STATE, ESRCH, "the VM is not running");
}

int vm_connect(const struct project *p, const struct state *s, unsigned timeout_ms, struct qmp **ret,
               struct error *err) {
        _cleanup_free_ char *runtime_dir = NULL;
        int r = project_runtime_dir(p, s->uuid, false, &runtime_dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = path_join(runtime_dir, QEMU_QMP_COMMANDS);
        return qmp_connect(path, timeout_ms, ret, err);
}

/* The state of a live QEMU. */
static enum vm_status status_of_running(const struct project *p, const struct state *s, char **ret_detail) {
        static const struct {
                const char *run_state; /* of query-status */
                enum vm_status status;
                const char *detail;
        } table[] = {
                        {"running", VM_RUNNING, NULL},
                        {"save-vm", VM_RUNNING, "its state is being saved"},
                        {"finish-migrate", VM_RUNNING, "its state is being saved"},
                        {"prelaunch", VM_STARTING, NULL},
                        {"inmigrate", VM_STARTING, NULL},
                        {"restore-vm", VM_STARTING, NULL},
                        {"io-error", VM_DEGRADED, "paused: the host could not take a write to the VM's disk"},
                        {"guest-panicked", VM_DEGRADED, "the guest's kernel panicked"},
                        {"internal-error", VM_DEGRADED, "paused: QEMU ran into an internal error"},
                        {"paused", VM_DEGRADED, "paused through its monitor"},
                        {"suspended", VM_DEGRADED, "the guest put itself to sleep"},
                        {"shutdown", VM_DEGRADED, "the guest is off, and QEMU stays"},
        };
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_qmp_ struct qmp *q = NULL;
        _cleanup_json_ struct json *answer = NULL;
        int r = vm_connect(p, s, STATUS_TIMEOUT_MS, &q, &err);
        if (r == 0)
                r = qmp_call(q, "query-status", NULL, STATUS_TIMEOUT_MS, &answer, &err);
        if (r < 0) {
                *ret_detail = xasprintf("its monitor does not answer (%s)", err.message);
                return VM_DEGRADED;
        }
        const char *run_state = json_string_or(json_get(answer, "status"), "?");
        if (str_eq(run_state, "paused") && str_eq(s->intent, "suspended")) {
                *ret_detail = xstrdup("paused while its state was being saved; k3s-vm start lets it go on");
                return VM_DEGRADED;
        }
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (str_eq(table[i].run_state, run_state)) {
                        *ret_detail = xstrdup(table[i].detail);
                        return table[i].status;
                }
        *ret_detail = xasprintf("QEMU is in the state \"%s\"", run_state);
        return VM_DEGRADED;
}

/* The state of a VM without a process. */
static enum vm_status status_of_gone(const struct project *p, const struct state *s, char **ret_detail) {
        if (s->pid == 0)
                return VM_CREATED;
        _cleanup_suspended_ struct suspended suspended = {0};
        int r = suspend_load(p, &suspended, NULL);
        if (r == 0)
                return VM_SUSPENDED;
        if (r == -EUCLEAN)
                *ret_detail = xstrdup("its saved state is damaged: it will boot from its disk");
        if (r == -EUCLEAN)
                return VM_SUSPENDED;
        bool wanted_down = str_eq(s->intent, "stopped");
        _cleanup_vm_exit_ struct vm_exit *e = NULL;
        if (vm_exit_load(p, &e, NULL) == 0) {
                *ret_detail = e->stays_down ? xasprintf("%s, too often to be restarted", e->reason)
                                            : xstrdup(e->reason);
                return wanted_down || e->kind == VM_EXIT_SHUTDOWN || e->kind == VM_EXIT_ENDED ? VM_STOPPED : VM_CRASHED;
        }
        if (wanted_down)
                return VM_STOPPED;
        _cleanup_free_ char *boot_id = proc_boot_id();
        if (s->boot_id && boot_id && !str_eq(s->boot_id, boot_id)) {
                *ret_detail = xstrdup("this machine was restarted while the VM ran");
                return VM_STOPPED;
        }
        *ret_detail = xstrdup("QEMU and its supervisor are gone without a word");
        return VM_CRASHED;
}

enum vm_status vm_status_detail(const struct project *p, const struct state *s, char **ret_detail) {
        *ret_detail = NULL;
        if (!s)
                return VM_ABSENT;
        _cleanup_process_ struct process vm = PROCESS_INIT;
        if (vm_find(p, s, &vm, NULL) == 0) {
                enum vm_status status = status_of_running(p, s, ret_detail);
                if (proc_alive(vm.pidfd))
                        return status;
                /* It ended while it was asked. */
                free(*ret_detail);
                *ret_detail = NULL;
        }
        return status_of_gone(p, s, ret_detail);
}

enum vm_status vm_status(const struct project *p, const struct state *s) {
        _cleanup_free_ char *detail = NULL;
        return vm_status_detail(p, s, &detail);
}

/* Who holds the lock, as they wrote it there; the caller frees. */
static char *lock_holder(const struct project *p) {
        _cleanup_buf_ struct buf note = BUF_INIT(LOCK_NOTE_MAX + 1);
        if (fs_read(p->lock_path, LOCK_NOTE_MAX, &note, NULL) < 0 || note.len == 0)
                return xstrdup("another command");
        return str_printable(note.data, note.len);
}

int vm_lock(const struct project *p, const char *command, unsigned timeout_ms, struct progress *progress, int *ret_fd,
            struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        _cleanup_free_ char *said = NULL;
        _cleanup_close_ int fd = -1;
        for (unsigned slice = 0;; slice = LOCK_SLICE_MS) {
                int r = fs_lock(p->lock_path, slice, &fd, err);
                if (r == 0)
                        break;
                if (r != -EWOULDBLOCK && r != -ETIMEDOUT)
                        return r;
                r = interrupt_check(err);
                if (r < 0)
                        return r;
                _cleanup_free_ char *holder = lock_holder(p);
                if (now_ms() >= deadline) {
                        r = err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s is still working on this VM", holder);
                        err_hint(err, "wait for it to end, or end it, and run the command again");
                        return r;
                }
                if (!str_eq(said, holder)) {
                        progress_note(progress, "waiting for %s", holder);
                        free(said);
                        said = TAKE_PTR(holder);
                }
        }
        _cleanup_free_ char *note = xasprintf("`k3s-vm %s` (process %d)", command, getpid());
        fs_lock_note(fd, note);
        *ret_fd = TAKE_FD(fd);
        return 0;
}
