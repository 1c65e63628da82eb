/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/agent.h>
#include <k3s-vm/banner.h>
#include <k3s-vm/clock_guest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/health.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/web_env.h>

#define KVM_TIMEOUT_MS (180U * 1000)
#define TCG_TIMEOUT_MS (600U * 1000)
#define PROBE_INTERVAL_MS 250U
#define LOGIN_TIMEOUT_MS 20000
#define SUPERVISOR_TIMEOUT_MS 1000
#define API_TIMEOUT_MS 10000U /* one answer of an API server that is busy starting under TCG */
#define UNIT_CHECK_INTERVAL_MS 20000U
#define UNIT_RESTARTS_MAX 5U
#define KUBECONFIG_MAX_BYTES (1U << 20)
#define K3S_KUBECONFIG "/etc/rancher/k3s/k3s.yaml"

struct wait {
        const struct ready *ready;
        uint64_t begin_ms, deadline_ms;
        struct progress_phase *phase;
        struct remote *remote;
        struct kubeconfig *kubeconfig;
        struct kube *kube;
        uint64_t unit_checked_ms;
        struct agent_request clock; /* the one to set it */
};

struct remote_address ready_ssh_address(const struct project *p, const struct config *c) {
        return (struct remote_address){
                        .host = "127.0.0.1",
                        .port = c->ssh_port,
                        .user = "root",
                        .key_path = p->key_path,
                        .host_key_pub = p->host_key_pub_path,
        };
}

char *kubeconfig_path(const struct project *p, const struct config *c) {
        return c->kubeconfig_path[0] == '/' ? xstrdup(c->kubeconfig_path) : path_join(p->root, c->kubeconfig_path);
}

static void begin_phase(struct wait *w, const char *name, const char *text) {
        w->phase = progress_begin(w->ready->progress, name, "%s", text);
}

/* Ends the phase and keeps its time, counted from the start of QEMU. */
static void end_phase(struct wait *w, const char *name, const char *text) {
        progress_end(w->ready->progress, w->phase, 1, "%s", text);
        w->phase = NULL;
        if (!w->ready->quick)
                state_set_phase(w->ready->state, name, now_ms() - w->begin_ms);
}

static int died(const struct wait *w, struct error *err) {
        int r = err_set(err, ERR_FAILED, ECHILD, "the VM ended while it was starting");
        _cleanup_free_ char *detail = diagnose(w->ready->project, w->ready->config, false);
        err_detail(err, detail);
        err_hint(err, "look at everything it said: k3s-vm logs serial\ntry again: k3s-vm start");
        return r;
}

static int too_long(const struct wait *w, const char *what, const struct error *last, struct error *err) {
        _cleanup_free_ char *limit = str_duration_ms(w->deadline_ms - w->begin_ms);
        int r = err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s within %s%s%s", what, limit, last->message ? ": " : "",
                        last->message ? last->message : "");
        _cleanup_free_ char *detail = diagnose(w->ready->project, w->ready->config, w->remote != NULL);
        err_detail(err, detail);
        err_hint(err,
                 "the VM goes on; wait longer: k3s-vm start --timeout 1200\nlook inside: k3s-vm logs k3s, k3s-vm ssh");
        return r;
}

/* The pause between two probes, ended early by what ends the whole wait. */
static int pause_probe(struct wait *w, const char *what, const struct error *last, struct error *err) {
        progress_update(w->ready->progress, w->phase, NULL, 0, 0, NULL);
        progress_debug(w->ready->progress, "%s", last->message);
        int r = interrupt_wait(w->ready->vm->pidfd, PROBE_INTERVAL_MS, err);
        if (r < 0)
                return r;
        if (r > 0)
                return died(w, err);
        if (now_ms() >= w->deadline_ms)
                return too_long(w, what, last, err);
        return 0;
}

/* The supervisor looks after the boot (supervise_boot.c). Says so if it had to help the guest along. */
static void end_boot(const struct wait *w, bool reached) {
        _cleanup_json_ struct json *supervisor = NULL;
        supervisor_ask(w->ready->project, w->ready->state->uuid, reached ? "booted" : "status", SUPERVISOR_TIMEOUT_MS,
                       &supervisor, NULL);
        if (json_u64_or(json_get(supervisor, "standstills"), 0) > 0)
                progress_note(w->ready->progress, "the guest stood still while it booted, a fault of QEMU without "
                                                  "KVM: it was reset");
}

/* Waits for the SSH server's greeting. */
static int wait_banner(struct wait *w, struct error *err) {
        uint64_t now = now_ms();
        const struct banner_wait wait = {
                        .port = w->ready->config->ssh_port,
                        .serial_path = w->ready->project->serial_path,
                        .serial_from = w->ready->state->serial_from,
                        .stop_fd = w->ready->vm->pidfd,
                        .timeout_ms = now < w->deadline_ms ? (unsigned)(w->deadline_ms - now) : 0,
                        .progress = w->ready->progress,
                        .phase = w->phase,
        };
        int r = banner_wait(&wait, err);
        if (r <= 0)
                end_boot(w, r == 0);
        return r;
}

static int wait_ssh(struct wait *w, struct error *err) {
        begin_phase(w, "boot", "booting the guest");
        int r = wait_banner(w, err);
        if (r > 0)
                return died(w, err);
        if (r == -ETIMEDOUT) {
                error_clear(err);
                return too_long(w, "the guest did not answer on SSH", &(struct error){0}, err);
        }
        if (r < 0)
                return r;
        end_phase(w, "boot", "guest booted, SSH answers");
        return 0;
}

/* A resumed VM needs it only where something is wrong. */
static int log_in(struct wait *w, struct error *err) {
        const struct remote_address address = ready_ssh_address(w->ready->project, w->ready->config);
        return w->remote ? 0 : remote_connect(&address, LOGIN_TIMEOUT_MS, &w->remote, err);
}

static int wait_login(struct wait *w, struct error *err) {
        for (;;) {
                _cleanup_error_ struct error last = ERROR_INIT;
                int r = log_in(w, &last);
                if (r == 0)
                        return 0;
                if (r == -EKEYREJECTED || r == -EACCES)
                        return err_move(err, &last);
                r = pause_probe(w, "the guest did not let us in over SSH", &last, err);
                if (r < 0)
                        return r;
        }
}

/* One round of asking the guest for its kubeconfig; the guest itself waits a little for the file to appear. */
static int read_kubeconfig(struct wait *w, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(KUBECONFIG_MAX_BYTES);
        const struct remote_exec exec = {
                        .command = "i=0; while [ ! -s " K3S_KUBECONFIG
                                   " ] && [ $i -lt 5 ]; do sleep 0.4; i=$((i+1)); done; "
                                   "cat " K3S_KUBECONFIG,
                        .ret_stdout = &out,
                        .timeout_ms = 30000,
        };
        int status = 0;
        int r = log_in(w, err);
        if (r == 0)
                r = remote_exec(w->remote, &exec, &status, err);
        if (r < 0)
                return r;
        if (status != 0)
                return err_set(err, ERR_FAILED, EAGAIN, "K3s has not written its kubeconfig yet");
        struct kubeconfig *kubeconfig = NULL;
        r = kubeconfig_parse(buf_str(&out), out.len, &kubeconfig, err);
        if (r == 0)
                r = kubeconfig_adapt(kubeconfig, w->ready->config->api_port, w->ready->config->vm_name, err);
        if (r < 0) {
                kubeconfig_free(kubeconfig);
                return r;
        }
        kubeconfig_free(w->kubeconfig);
        w->kubeconfig = kubeconfig;
        kube_free(w->kube);
        w->kube = NULL;
        return kube_new(kubeconfig, &w->kube, err);
}

/* A K3s that keeps failing will not become Ready by waiting: say so at once. */
static int check_unit(struct wait *w, struct error *err) {
        if (now_ms() - w->unit_checked_ms < UNIT_CHECK_INTERVAL_MS)
                return 0;
        w->unit_checked_ms = now_ms();
        _cleanup_buf_ struct buf out = BUF_INIT(4096);
        const struct remote_exec exec = {
                        .command = "systemctl show -p NRestarts --value k3s", .ret_stdout = &out, .timeout_ms = 10000};
        int status = 0;
        uint64_t restarts = 0;
        if (log_in(w, NULL) < 0 || remote_exec(w->remote, &exec, &status, NULL) < 0)
                return 0;
        while (out.len > 0 && out.data[out.len - 1] == '\n')
                out.data[--out.len] = '\0';
        if (str_to_u64(buf_str(&out), 0, UINT32_MAX, &restarts) < 0 || restarts < UNIT_RESTARTS_MAX)
                return 0;
        int r = err_set(err, ERR_FAILED, ECHILD, "K3s ended and was started again %u times since the guest booted",
                        (unsigned)restarts);
        _cleanup_free_ char *detail = diagnose(w->ready->project, w->ready->config, true);
        err_detail(err, detail);
        err_hint(err, "look at its log: k3s-vm logs k3s\nits arguments are K3S_ARGS: k3s-vm configure K3S_ARGS");
        return r;
}

static int wait_api(struct wait *w, struct error *err) {
        begin_phase(w, "api", "starting Kubernetes");
        bool ready = false;
        while (!ready) {
                _cleanup_error_ struct error last = ERROR_INIT;
                int r = 0;
                if (!w->kube)
                        r = read_kubeconfig(w, &last);
                if (r == 0)
                        r = kube_get(w->kube, "/readyz", API_TIMEOUT_MS, NULL, &last);
                ready = r == 0;
                if (r == -EACCES) { /* certificates were renewed since the file was read */
                        kube_free(w->kube);
                        w->kube = NULL;
                }
                if (ready)
                        break;
                r = check_unit(w, err);
                if (r == 0)
                        r = pause_probe(w, "the API did not become ready", &last, err);
                if (r < 0)
                        return r;
        }
        end_phase(w, "api", "the API is ready");
        return 0;
}

static int write_kubeconfig(struct wait *w, struct error *err) {
        _cleanup_free_ char *path = kubeconfig_path(w->ready->project, w->ready->config);
        kubeconfig_keep_namespace(w->kubeconfig, path);
        int r = kubeconfig_write(w->kubeconfig, path, err);
        if (r < 0)
                return r;
        return web_env_write(w->ready->project, w->ready->config, w->kubeconfig, w->ready->progress, err);
}

/* The file as K3s left it once it was up: it may have renewed its certificates on the way. */
static int keep_kubeconfig(struct wait *w, struct error *err) {
        int r = read_kubeconfig(w, err);
        return r < 0 ? err_wrap(err, r, "cannot read the cluster's kubeconfig") : write_kubeconfig(w, err);
}

static int nodes_ready(struct wait *w, struct error *err) {
        _cleanup_nodes_ struct nodes nodes = {0};
        int r = kube_nodes(w->kube, API_TIMEOUT_MS, &nodes, err);
        if (r < 0)
                return r;
        if (nodes.n == 0)
                return err_set(err, ERR_FAILED, EAGAIN, "no node has registered yet");
        for (size_t i = 0; i < nodes.n; i++)
                if (!nodes.items[i].ready)
                        return err_set(err, ERR_FAILED, EAGAIN, "node %s: %s", nodes.items[i].name,
                                       nodes.items[i].reason);
        /* The API said before that it is ready, and has answered again. */
        const struct health health = {.known = true, .ready = true, .nodes = nodes};
        health_keep(w->ready->project, w->ready->state, w->ready->vm, &health);
        return 0;
}

static int wait_nodes(struct wait *w, struct error *err) {
        begin_phase(w, "node", "waiting for the node");
        for (;;) {
                _cleanup_error_ struct error last = ERROR_INIT;
                int r = nodes_ready(w, &last);
                if (r == 0)
                        break;
                r = check_unit(w, err);
                if (r == 0)
                        r = pause_probe(w, "the node did not become Ready", &last, err);
                if (r < 0)
                        return r;
        }
        end_phase(w, "node", "the node is Ready");
        return 0;
}

/* What the guest calls now is when it was suspended. Where it has an agent, it is told before the API is asked
 * anything, and asked at the end whether that worked: its answer takes as long as the API's. */
static void begin_clock(struct wait *w) {
        const struct clock_guest guest = {.project = w->ready->project, .state = w->ready->state};
        if (agent_is_there(w->ready->state))
                clock_guest_begin(&guest, &w->clock, NULL);
}

/* The supervisor sees to it if this does not succeed. */
static int finish_clock(struct wait *w, struct error *err) {
        _cleanup_error_ struct error why = ERROR_INIT;
        if (w->clock.fd >= 0 && clock_guest_finish(&w->clock, &why) == 0)
                return 0;
        int r = wait_login(w, err);
        if (r < 0)
                return r;
        const struct clock_guest guest = {.remote = w->remote};
        if (clock_guest_set(&guest, &why) < 0)
                progress_debug(w->ready->progress, "the guest's clock: %s", why.message);
        return 0;
}

/* The cluster is as it was, and so are its credentials: those that the project has are good, at this VM's port. */
static void keep_known_kubeconfig(struct wait *w) {
        _cleanup_free_ char *path = kubeconfig_path(w->ready->project, w->ready->config);
        _cleanup_kubeconfig_ struct kubeconfig *k = NULL;
        const struct config *c = w->ready->config;
        if (kubeconfig_read(path, &k, NULL) < 0 ||
            !str_eq(json_string(json_get(k->document, "current-context")), c->vm_name) ||
            kubeconfig_adapt(k, c->api_port, c->vm_name, NULL) < 0 || kube_new(k, &w->kube, NULL) < 0)
                return;
        w->kubeconfig = TAKE_PTR(k);
}

/* Resumed: a moment, not a boot. */
static int wait_resumed(struct wait *w, struct error *err) {
        begin_phase(w, "resume", "resuming the VM");
        begin_clock(w);
        if (w->ready->state->payload_name)
                keep_known_kubeconfig(w);
        int r = w->kube ? 0 : finish_clock(w, err);
        if (r == 0)
                end_phase(w, "resume", "the VM goes on where it was");
        return r;
}

int ready_wait(const struct ready *ready, struct error *err) {
        bool kvm = str_eq(ready->state->accel, "kvm");
        unsigned limit = ready->timeout_ms ? ready->timeout_ms : kvm ? KVM_TIMEOUT_MS : TCG_TIMEOUT_MS;
        uint64_t now = now_ms();
        struct wait w = {.ready = ready,
                         .begin_ms = now,
                         .deadline_ms = now + limit,
                         .unit_checked_ms = now,
                         .clock = AGENT_REQUEST_INIT};
        bool payload = ready->state->payload_name != NULL;

        int r = ready->resumed ? wait_resumed(&w, err) : wait_ssh(&w, err);
        bool known = w.kube != NULL;
        if (r == 0 && payload && !known && !w.remote)
                r = wait_login(&w, err);
        if (r == 0 && payload)
                r = wait_api(&w, err);
        if (r == 0 && payload)
                r = known && w.kube ? write_kubeconfig(&w, err) : keep_kubeconfig(&w, err);
        if (r == 0 && payload)
                r = wait_nodes(&w, err);
        if (r == 0 && ready->resumed && known)
                r = finish_clock(&w, err);
        progress_end(ready->progress, w.phase, 0, NULL);
        kube_free(w.kube);
        kubeconfig_free(w.kubeconfig);
        remote_free(w.remote);
        agent_request_clear(&w.clock);
        return r;
}
