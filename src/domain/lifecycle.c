/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/agent.h>
#include <k3s-vm/credentials.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest_cloud.h>
#include <k3s-vm/host.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/ports.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/seed.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/vm.h>
#include <k3s-vm/web_env.h>

#include "lifecycle_internal.h"

#define SHUTDOWN_GRACE_MS (60U * 1000) /* K3s ends its pods; under TCG that takes ten seconds */
#define MONITOR_TIMEOUT_MS 3000
#define SYNC_CONNECT_TIMEOUT_MS 3000 /* to a guest that is to write out its disks before its state is saved */
#define SYNC_TIMEOUT_MS 10000
#define SUSPEND_TIMEOUT_MS (11U * 60 * 1000) /* the supervisor's own limit is shorter */
#define QEMU_END_TIMEOUT_MS 10000
#define PROGRAM "qemu-system-x86_64"

/* One port the VM listens on. */
struct port_use {
        const char *key;
        uint16_t *port;
        const bool *is_default;
};

/* Moves a port that nobody chose to the next free one and keeps that in the configuration. */
static int move_port(const struct lifecycle *l, const struct port_use *use, struct port_scan *scan,
                     const struct registry *registry, const struct port_holder *holder, struct error *err) {
        uint16_t port = port_next_free(scan, (uint16_t)(*use->port + 1), registry);
        if (port == 0)
                return port_error(holder, use->key, err);
        _cleanup_free_ char *assignment = xasprintf("%s=%u", use->key, port);
        /* The guest's side stays what the manifests name. */
        _cleanup_free_ char *node_port = xasprintf("WEB_NODE_PORT=%u", l->config->web_node_port);
        bool web = str_eq(use->key, "WEB_PORT");
        const char *const assignments[] = {assignment, web ? node_port : NULL, NULL};
        int r = project_create_dirs(l->project, err);
        if (r == 0)
                r = config_set(l->project, assignments, err);
        if (r < 0)
                return r;
        progress_note(l->progress, "port %u belongs to the VM of %s; this one uses %u (%s in %s)", *use->port,
                      holder->vm_project ? holder->vm_project : "another project", port, use->key,
                      l->project->config_path);
        *use->port = port;
        return 0;
}

/* Whether another VM of this user is registered with the port, running or not; fills in @ret like port_taken(). */
static bool port_registered(const struct registry *registry, const char *uuid, uint16_t port, struct port_holder *ret) {
        for (size_t i = 0; i < registry->n; i++) {
                const struct registry_entry *e = &registry->entries[i];
                if (str_eq(e->uuid, uuid) || (e->api_port != port && e->ssh_port != port && e->web_port != port))
                        continue;
                *ret = (struct port_holder){.port = port,
                                            .vm_uuid = xstrdup(e->uuid),
                                            .vm_name = xstrdup(e->name),
                                            .vm_project = xstrdup(e->project)};
                return true;
        }
        return false;
}

int lifecycle_check_ports(const struct lifecycle *l, const struct state *s, struct error *err) {
        struct config *c = l->config;
        _cleanup_registry_ struct registry registry = {0};
        int r = registry_load(l->project, &registry, err);
        _cleanup_port_scan_ struct port_scan *scan = NULL;
        if (r == 0)
                r = port_scan_new(&scan, err);
        if (r < 0)
                return r;
        const struct port_use uses[] = {
                        {"API_PORT", &c->api_port, &c->api_port_default},
                        {"SSH_PORT", &c->ssh_port, &c->ssh_port_default},
                        {"WEB_PORT", &c->web_port, &c->web_port_default},
        };
        for (size_t i = 0; i < ELEMENTSOF(uses) + c->n_forwards; i++) {
                struct port_holder holder = {0};
                static const bool chosen = false;
                struct port_use forward = {"FORWARDS", NULL, &chosen};
                const struct port_use *use = i < ELEMENTSOF(uses) ? &uses[i] : &forward;
                if (use == &forward)
                        forward.port = &c->forwards[i - ELEMENTSOF(uses)].host_port;
                bool taken = port_taken(scan, *use->port, &registry, &holder);
                bool others = taken && holder.vm_uuid && !str_eq(holder.vm_uuid, s->uuid);
                if (!taken && *use->is_default)
                        others = port_registered(&registry, s->uuid, *use->port, &holder);
                if (others && *use->is_default)
                        r = move_port(l, use, scan, &registry, &holder, err);
                else if (taken && (others || !holder.vm_uuid))
                        r = port_error(&holder, use->key, err);
                port_holder_clear(&holder);
                if (r < 0)
                        return r;
        }
        return 0;
}

int lifecycle_save_intent(const struct lifecycle *l, struct state *s, const char *intent, struct error *err) {
        free(s->intent);
        s->intent = xstrdup(intent);
        return state_save(l->project, s, err);
}

/* The intent "stopped", on a full disk too: stopping and destroying VMs is how room is made. A VM that comes down in
 * order, or under a command's lock, stays down without it. */
static int save_stopped(const struct lifecycle *l, struct state *s, struct error *err) {
        int r = lifecycle_save_intent(l, s, "stopped", err);
        if (r != -ENOSPC && r != -EDQUOT)
                return r;
        progress_warn(l->progress, "the disk of the project is full: %s is not up to date", l->project->state_path);
        error_clear(err);
        return 0;
}

/* Builds the command line and has a supervisor start QEMU with it. */
static int launch(const struct lifecycle *l, struct state *s, struct process *ret_vm, bool *ret_resumed,
                  struct error *err) {
        const struct project *p = l->project;
        struct accel accel = {0};
        int r = accel_choose(l->config->accel, p->runtime_base, &accel, err);
        if (r < 0)
                return r;
        if (accel.reason)
                progress_note(l->progress, "no KVM, so QEMU translates the guest's code (slower): %s", accel.reason);
        free(s->accel);
        s->accel = xstrdup(accel.kvm ? "kvm" : "tcg");
        bool kvm = accel.kvm;
        accel_clear(&accel);

        _cleanup_guest_ struct guest *guest = NULL;
        r = guest_load(s->guest_dir, &guest, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *runtime_dir = NULL;
        r = project_runtime_dir(p, s->uuid, true, &runtime_dir, err);
        if (r < 0)
                return r;
        /* The machine id is the UUID without its dashes, so that both can be recognised. */
        _cleanup_strv_ struct strv parts = {0};
        strv_split(&parts, s->uuid, "-");
        _cleanup_free_ char *machine_id = strv_join(&parts, "");
        bool seeded = str_eq(guest->provision, "nocloud");
        _cleanup_free_ char *seed = seed_path(p), *firmware = NULL;
        r = guest_firmware(guest, &firmware, err);
        if (r < 0)
                return r;
        _cleanup_strv_ struct strv paths = {0};
        struct qemu_credential credentials[CREDENTIAL_MAX];
        size_t n_credentials = 0;
        for (size_t i = 0; i < CREDENTIAL_MAX; i++) {
                strv_push_take(&paths, path_join(p->credentials_dir, credential_names[i]));
                if (fs_exists(paths.items[i]))
                        credentials[n_credentials++] =
                                        (struct qemu_credential){.name = credential_names[i], .path = paths.items[i]};
        }
        const struct qemu_spec spec = {
                        .project = p,
                        .config = l->config,
                        .guest = guest,
                        .program = PROGRAM,
                        .machine = s->machine,
                        .uuid = s->uuid,
                        .runtime_dir = runtime_dir,
                        .payload_path = guest->payload_serial ? s->payload_path : NULL,
                        .seed_path = seeded ? seed : NULL,
                        .firmware = firmware,
                        .machine_id = machine_id,
                        .kvm = kvm,
                        .credentials = credentials,
                        .n_credentials = seeded ? 0 : n_credentials,
        };
        _cleanup_strv_ struct strv argv = {0};
        qemu_argv(&spec, &argv);
        return supervisor_start(p, s, &argv, ret_vm, ret_resumed, l->progress, err);
}

int lifecycle_settle(const struct lifecycle *l, struct state *s, struct process *vm, struct error *err) {
        const struct project *p = l->project;
        _cleanup_free_ char *snapshot = snapshot_folder(p, SNAPSHOT_NEW);
        if (!suspend_exists(p) && !str_eq(s->intent, "suspended") && !fs_exists(snapshot))
                return 0;
        int r = 0;
        if (!supervisor_alive(p)) {
                if (suspend_exists(p))
                        r = vm_end(p, s, vm, false, 0, l->progress, err);
                else
                        r = supervisor_adopt(p, s, vm, err);
                if (r < 0)
                        return r;
        }
        /* A supervisor that is still at it answers when it is done, or ends with its QEMU. */
        if (proc_alive(vm->pidfd) && supervisor_ask(p, s->uuid, "unsuspend", SUSPEND_TIMEOUT_MS, NULL, NULL) < 0) {
                r = interrupt_wait(vm->pidfd, QEMU_END_TIMEOUT_MS, err);
                if (r < 0)
                        return r;
        }
        if (!proc_alive(vm->pidfd))
                process_close(vm);
        return fs_remove_tree(snapshot, err);
}

/* A live QEMU of this VM is used as it is, with a supervisor if it lost its own. One whose monitor is dead is ended,
 * so that a new one can be started: @ret_vm is left empty. One that is paused is the user's to decide about. */
static int take_over(const struct lifecycle *l, struct state *s, struct process *vm, struct error *err) {
        int r = lifecycle_settle(l, s, vm, err);
        if (r < 0 || vm->pidfd < 0)
                return r;
        _cleanup_qmp_ struct qmp *monitor = NULL;
        if (vm_connect(l->project, s, MONITOR_TIMEOUT_MS, &monitor, NULL) < 0) {
                progress_warn(l->progress, "the VM's QEMU (process %d) does not answer; it is ended and started again",
                              vm->pid);
                r = lifecycle_save_intent(l, s, "stopped", err);
                if (r == 0)
                        r = vm_end(l->project, s, vm, false, 0, l->progress, err);
                process_close(vm);
                return r;
        }
        qmp_free(TAKE_PTR(monitor));
        _cleanup_free_ char *detail = NULL;
        if (vm_status_detail(l->project, s, &detail) == VM_DEGRADED) {
                r = err_set(err, ERR_STATE, EBUSY, "the VM is there but does not run: %s", detail ? detail : "paused");
                err_hint(err,
                         "once there is room on the disk it goes on by itself\nstart it anew: k3s-vm restart --force");
                return r;
        }
        if (supervisor_adopt(l->project, s, vm, NULL) == 0)
                progress_debug(l->progress, "process %d is the VM's QEMU", vm->pid);
        return lifecycle_save_intent(l, s, "running", err);
}

/* A port that was free before QEMU was started and is not now: QEMU knows only that. */
static int name_port_holder(const struct lifecycle *l, const struct state *s, int r, struct error *err) {
        _cleanup_error_ struct error holder = ERROR_INIT;
        return lifecycle_check_ports(l, s, &holder) < 0 ? err_move(err, &holder) : r;
}

static int start_qemu(const struct lifecycle *l, struct state *s, struct process *ret_vm, bool *ret_resumed,
                      struct error *err) {
        /* That of a command that was killed may be about to start QEMU, and its helper does so yet. */
        bool launches = supervisor_alive(l->project) && !supervisor_dozes(l->project);
        int r = supervisor_end(l->project, 0, err);
        _cleanup_process_ struct process other = PROCESS_INIT;
        if (r == 0 && launches && vm_find(l->project, s, &other, NULL) == 0)
                r = vm_end(l->project, s, &other, false, 0, l->progress, err);
        if (r < 0)
                return r;
        state_clear_phases(s);
        r = launch(l, s, ret_vm, ret_resumed, err);
        if (r == -EADDRINUSE)
                r = name_port_holder(l, s, r, err);
        if (r < 0) {
                lifecycle_save_intent(l, s, "stopped", NULL);
                return err_wrap(err, r, "cannot start the VM");
        }
        r = lifecycle_save_intent(l, s, "running", err);
        return r < 0 ? r : registry_put(l->project, s, err);
}

static int wait_ready(const struct lifecycle *l, struct state *s, const struct process *vm, bool was_running,
                      bool resumed, struct error *err) {
        const struct ready ready = {
                        .project = l->project,
                        .config = l->config,
                        .state = s,
                        .vm = vm,
                        .progress = was_running && s->ready_once ? NULL : l->progress,
                        .timeout_ms = l->timeout_ms,
                        .quick = was_running,
                        .resumed = resumed,
        };
        return ready_wait(&ready, err);
}

/* For `reset --warm`. A VM without it is as good. */
static void keep_first_ready(const struct lifecycle *l, struct state *s) {
        _cleanup_error_ struct error why = ERROR_INIT;
        struct progress_phase *phase = progress_begin(l->progress, "keep", "keeping the first Ready state");
        int r = lifecycle_snapshot_save(l, s, SNAPSHOT_WARM, &why);
        progress_end(l->progress, phase, r == 0, r == 0 ? "kept for reset --warm" : NULL);
        if (r < 0)
                progress_warn(l->progress, "the first Ready state is not kept for `reset --warm`: %s", why.message);
}

int lifecycle_start(const struct lifecycle *l, struct state *s, bool *ret_was_running, struct error *err) {
        _cleanup_process_ struct process vm = PROCESS_INIT;
        int r = vm_find(l->project, s, &vm, NULL) == 0 ? take_over(l, s, &vm, err) : 0;
        bool was_running = vm.pidfd >= 0, resumed = false;
        if (r == 0 && !was_running)
                r = start_qemu(l, s, &vm, &resumed, err);
        if (r == 0)
                r = wait_ready(l, s, &vm, was_running, resumed, err);
        if (r == -ECHILD && was_running && !proc_alive(vm.pidfd)) {
                /* A stop that was interrupted had reached the guest already. */
                progress_note(l->progress, "the VM was on its way down; it is started again");
                error_clear(err);
                process_close(&vm);
                was_running = false;
                r = start_qemu(l, s, &vm, &resumed, err);
                if (r == 0)
                        r = wait_ready(l, s, &vm, false, resumed, err);
        }
        if (r < 0)
                return r;
        if (!s->ready_once && s->payload_name && str_eq(l->config->warm_reset, "on"))
                keep_first_ready(l, s);
        s->ready_once = true;
        r = state_save(l->project, s, err);
        if (r == 0)
                *ret_was_running = was_running;
        return r;
}

void lifecycle_sync_guest(const struct lifecycle *l, const struct state *s) {
        _cleanup_free_ char *answer = NULL;
        if (agent_is_there(s) && agent_ask(l->project, s, "sync", NULL, SYNC_TIMEOUT_MS, &answer, NULL) == 0)
                return;
        struct remote_address address = ready_ssh_address(l->project, l->config);
        address.port = s->ssh_port;
        _cleanup_error_ struct error why = ERROR_INIT;
        _cleanup_remote_ struct remote *remote = NULL;
        const struct remote_exec exec = {.command = "sync", .timeout_ms = SYNC_TIMEOUT_MS};
        int status = 0, r = remote_connect(&address, SYNC_CONNECT_TIMEOUT_MS, &remote, &why);
        if (r == 0)
                r = remote_exec(remote, &exec, &status, &why);
        if (r < 0)
                progress_debug(l->progress, "the guest does not write out its disks: %s", why.message);
}

/* Before the guest is asked to write anything: how much the state takes is known later. */
static int check_headroom(const struct project *p, struct error *err) {
        uint64_t room = 0;
        int r = fs_free_bytes(p->vm_dir, &room, err);
        if (r < 0 || room >= SUSPEND_HEADROOM_BYTES)
                return r;
        _cleanup_free_ char *have = str_bytes(room);
        return err_set(err, ERR_HOST, ENOSPC, "%s free in %s, and the state may take more", have, p->vm_dir);
}

/* Has the supervisor save the state and ends QEMU. */
static int suspend(const struct lifecycle *l, struct state *s, struct process *vm, struct error *err) {
        int r = check_headroom(l->project, err);
        if (r < 0)
                return r;
        lifecycle_sync_guest(l, s);
        r = interrupt_check(err);
        if (r == 0)
                r = supervisor_adopt(l->project, s, vm, err);
        if (r == 0)
                r = lifecycle_save_intent(l, s, "suspended", err);
        if (r < 0)
                return r;
        r = supervisor_ask(l->project, s->uuid, "suspend", SUSPEND_TIMEOUT_MS, NULL, err);
        /* One that hung up has ended with its QEMU. Whether the state is whole is what counts. */
        if (r < 0 && !suspend_exists(l->project)) {
                lifecycle_save_intent(l, s, "running", NULL);
                return r;
        }
        error_clear(err);
        /* It was told to quit. */
        r = interrupt_wait(vm->pidfd, QEMU_END_TIMEOUT_MS, err);
        return r < 0 ? r : vm_end(l->project, s, vm, false, 0, l->progress, err);
}

static int stop_suspend(const struct lifecycle *l, struct state *s, struct process *vm, struct error *err) {
        struct progress_phase *phase = progress_begin(l->progress, "stop", "saving the VM's state");
        int r = suspend(l, s, vm, err);
        if (r < 0) {
                progress_end(l->progress, phase, 0, NULL);
                err_wrap(err, r, "cannot suspend the VM, so it runs on");
                if (r != -ECANCELED)
                        err_hint(err, "shut it down instead: k3s-vm stop --shutdown");
                return r;
        }
        _cleanup_suspended_ struct suspended saved = {0};
        suspend_load(l->project, &saved, NULL);
        _cleanup_free_ char *size = str_bytes(saved.bytes);
        progress_end(l->progress, phase, 1, "the VM is suspended, its state is %s", size);
        return 0;
}

/* A VM without a process. */
static int stop_gone(const struct lifecycle *l, struct state *s, enum stop_how how, struct process *ret_vm,
                     struct error *err) {
        bool suspended = suspend_exists(l->project), resumed = false;
        if (suspended && how == STOP_SHUTDOWN) {
                progress_note(l->progress, "the VM is suspended; it is woken up to be shut down");
                return start_qemu(l, s, ret_vm, &resumed, err);
        }
        /* One that crashed may be about to be started again. */
        lifecycle_save_intent(l, s, "stopped", NULL);
        supervisor_end(l->project, 0, NULL);
        if (suspended && how == STOP_FORCE) {
                progress_note(l->progress, "the saved state is dropped; the disk is kept");
                int r = suspend_forget(l->project, err);
                suspend_files_sweep(l->project);
                return r;
        }
        int r = err_set(err, ERR_STATE, ESRCH, suspended ? "the VM is suspended already" : "the VM is not running");
        err_hint(err, "start it: k3s-vm start");
        return r;
}

int lifecycle_stop(const struct lifecycle *l, struct state *s, enum stop_how how, struct error *err) {
        _cleanup_process_ struct process vm = PROCESS_INIT;
        int r = vm_find(l->project, s, &vm, NULL) == 0 ? lifecycle_settle(l, s, &vm, err) : 0;
        if (r < 0)
                return r;
        if (vm.pidfd < 0) {
                r = stop_gone(l, s, how, &vm, err);
                if (r < 0 || vm.pidfd < 0)
                        return r;
        }
        if (how == STOP_SUSPEND)
                return stop_suspend(l, s, &vm, err);
        r = save_stopped(l, s, err);
        if (r < 0)
                return r;
        unsigned grace_ms = l->timeout_ms ? l->timeout_ms : SHUTDOWN_GRACE_MS;
        struct progress_phase *phase = progress_begin(l->progress, "stop",
                                                      how == STOP_FORCE ? "ending the VM" : "shutting the guest down");
        r = vm_end(l->project, s, &vm, how == STOP_SHUTDOWN, grace_ms, l->progress, err);
        progress_end(l->progress, phase, r == 0, r == 0 ? "the VM is stopped" : NULL);
        return r;
}

/* The kubeconfig is removed only if it is this VM's: somebody may have put their own there. */
static void remove_kubeconfig(const struct lifecycle *l) {
        _cleanup_free_ char *path = kubeconfig_path(l->project, l->config);
        _cleanup_kubeconfig_ struct kubeconfig *k = NULL;
        if (kubeconfig_read(path, &k, NULL) < 0)
                return;
        if (str_eq(json_string(json_get(k->document, "current-context")), l->config->vm_name))
                fs_unlink(path, NULL);
}

int lifecycle_destroy(const struct lifecycle *l, bool all, struct error *err) {
        const struct project *p = l->project;
        _cleanup_state_ struct state *s = NULL;
        int r = state_load(p, &s, NULL);
        if (r == -ENOENT && !fs_is_dir(p->vm_dir) && !all)
                return err_set(err, ERR_NO_VM, ENOENT, "the project %s has no VM", p->root);

        _cleanup_process_ struct process vm = PROCESS_INIT;
        r = s ? save_stopped(l, s, err) : 0;
        if (r == 0 && vm_find(p, s, &vm, NULL) == 0)
                r = vm_end(p, s, &vm, false, 0, l->progress, err);
        else if (r == 0)
                r = supervisor_end(p, 0, err);
        if (r < 0)
                return r;
        if (s) {
                _cleanup_free_ char *runtime_dir = NULL;
                if (project_runtime_dir(p, s->uuid, false, &runtime_dir, NULL) == 0)
                        fs_remove_tree(runtime_dir, NULL);
                r = registry_remove(p, s->uuid, err);
                if (r < 0)
                        return r;
        }
        remove_kubeconfig(l);
        web_env_remove(p, l->config, l->progress);
        const char *const files[] = {p->pid_path, p->log_path, p->events_path};
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                r = fs_unlink(files[i], err);
                if (r < 0)
                        return r;
        }
        /* The state goes last: until then an interrupted destroy can be repeated. */
        _cleanup_closedir_ DIR *dir = opendir(p->vm_dir);
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
                _cleanup_free_ char *path = path_join(p->vm_dir, entry->d_name);
                if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..") || str_eq(path, p->state_path))
                        continue;
                r = fs_remove_tree(path, err);
                if (r < 0)
                        return r;
        }
        r = fs_remove_tree(p->vm_dir, err);
        if (r == 0 && all)
                r = fs_unlink(p->config_path, err);
        return r;
}
