/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/summary.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/ui.h>

#define API_WAIT_MS 5000U
/* With all else `status` stays below 50 ms; libcurl is loaded and an API in a guest with KVM has answered by then. */
#define API_QUICK_MS 28U
#define SUPERVISOR_TIMEOUT_MS 1000
#define CERTIFICATE_WARNING_DAYS 30
#define DISK_WARNING_BYTES (2ULL << 30)

void summary_clear(struct summary *s) {
        free(s->kubeconfig);
        free(s->detail);
        health_clear(&s->api);
        json_free(s->supervisor);
        suspended_clear(&s->suspended);
        *s = (struct summary){0};
}

static void ask_api(struct summary *s, const struct process *vm, enum summary_patience patience) {
        _cleanup_kubeconfig_ struct kubeconfig *kubeconfig = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        s->api_asked = true;
        if (kubeconfig_read(s->kubeconfig, &kubeconfig, &err) < 0) {
                s->api = (struct health){.known = true, .problem = TAKE_PTR(err.message)};
                return;
        }
        time_t end = 0;
        if (certificate_not_after(kubeconfig->cert_pem, &end, NULL) == 0)
                s->certificate_end = end;
        bool wait = patience == SUMMARY_WAIT;
        health_ask(s->project, s->state, vm, kubeconfig, wait ? API_WAIT_MS : API_QUICK_MS, wait, &s->api);
}

void summary_gather(const struct project *p, const struct config *c, const struct state *s,
                    enum summary_patience patience, struct summary *ret) {
        *ret = (struct summary){.project = p, .config = c, .state = s};
        ret->status = vm_status_detail(p, s, &ret->detail);
        if (!s)
                return;
        if (ret->status == VM_SUSPENDED)
                suspend_load(p, &ret->suspended, NULL);
        _cleanup_process_ struct process vm = PROCESS_INIT;
        if (vm_find(p, s, &vm, NULL) == 0) {
                ret->pid = vm.pid;
                uint64_t pss = 0;
                /* The kernel walks over all of the VM's memory for it. */
                if (patience == SUMMARY_WAIT && proc_memory_kib(vm.pid, &ret->memory_used_mib, &pss) == 0)
                        ret->memory_used_mib /= 1024;
                uint64_t now = wall_ms();
                ret->uptime_ms = s->started_ms && now > s->started_ms ? now - s->started_ms : 0;
                /* Not while QEMU hangs: a new supervisor would wait for it, too. */
                if (ret->status == VM_RUNNING)
                        supervisor_ensure(p, s, &vm);
                supervisor_ask(p, s->uuid, "status", SUPERVISOR_TIMEOUT_MS, &ret->supervisor, NULL);
        }
        ret->disk_used = fs_allocated(p->data_disk);
        fs_free_bytes(p->vm_dir, &ret->disk_free, NULL);
        _cleanup_free_ char *path = kubeconfig_path(p, c);
        if (fs_exists(path))
                ret->kubeconfig = TAKE_PTR(path);
        if (ret->pid && ret->kubeconfig && s->payload_name)
                ask_api(ret, &vm, patience);
}

static void line(const char *name, const char *fmt, ...) _printf_(2, 3);
static void line(const char *name, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        printf("  %-11s ", name);
        vprintf(fmt, ap);
        putchar('\n');
        va_end(ap);
}

static enum ui_style style_of(enum vm_status status) {
        switch (status) {
        case VM_RUNNING:
                return UI_GREEN;
        case VM_DEGRADED:
        case VM_STARTING:
                return UI_YELLOW;
        case VM_CRASHED:
                return UI_RED;
        default:
                return UI_PLAIN;
        }
}

/* " 12.3 s ago", "" for what was asked just now; the caller frees. */
static char *ago(uint64_t age_ms) {
        if (age_ms == 0)
                return xstrdup("");
        _cleanup_free_ char *age = str_duration_ms(age_ms);
        return xasprintf(" %s ago", age);
}

static void print_api(const struct health *api) {
        _cleanup_free_ char *when = ago(api->age_ms);
        if (!api->known)
                line("api", "no answer at once, and none before; wait for one: k3s-vm status --verbose");
        else if (api->ready)
                line("api", "ready%s%s", when, *when ? " (wait for its answer now: k3s-vm status --verbose)" : "");
        else
                line("api", "not ready%s: %s", when, api->problem);
}

/* @when: " 12.3 s ago", or "". */
static void print_nodes(const struct summary *s, const char *when) {
        for (size_t i = 0; i < s->api.nodes.n; i++) {
                const struct node_status *n = &s->api.nodes.items[i];
                line(i == 0 ? "nodes" : "", "%s %s%s, %s%s%s", n->name, n->ready ? "Ready" : "not Ready", when,
                     n->version, *n->roles ? ", " : "", n->roles);
                if (!n->ready)
                        line("", "  %s", n->reason);
        }
}

static void print_payload(const struct state *s) {
        if (!s->payload_name)
                line("kubernetes", "none (K3S_VERSION=none)");
        else if (s->payload_description)
                line("kubernetes", "%s", s->payload_description);
        else
                line("kubernetes", "%s %s", s->payload_name, s->payload_version ? s->payload_version : "");
}

static void print_certificate(const struct summary *s) {
        if (!s->certificate_end)
                return;
        _cleanup_free_ char *end = time_rfc3339((time_t)s->certificate_end);
        int64_t days = (s->certificate_end - (int64_t)(wall_ms() / 1000)) / 86400;
        line("certificate", "%s (%" PRId64 " days)%s", end, days,
             days < CERTIFICATE_WARNING_DAYS ? " - renewed at the next start: k3s-vm restart" : "");
}

static void print_next(const struct summary *s) {
        const char *next = NULL;
        switch (s->status) {
        case VM_ABSENT:
                next = "make the VM and start it: k3s-vm";
                break;
        case VM_CREATED:
        case VM_STOPPED:
                next = "start it: k3s-vm start";
                break;
        case VM_SUSPENDED:
                next = "resume it: k3s-vm start";
                break;
        case VM_STARTING:
                next = "wait until it is Ready: k3s-vm start";
                break;
        case VM_CRASHED:
                next = "see why: k3s-vm logs vm; start it again: k3s-vm start";
                break;
        case VM_DEGRADED:
                next = "see what it says: k3s-vm logs serial; start it anew: k3s-vm restart";
                break;
        case VM_RUNNING:
                next = s->api_asked && s->api.known && !s->api.ready
                                       ? "see why the API does not answer: k3s-vm logs k3s"
                                       : "k3s-vm kubectl get pods -A";
                break;
        }
        line("next", "%s", next);
}

/* What a person wants to know of the supervisor without asking: that it is not there, or had to do something. */
static void print_supervisor(const struct summary *s, bool verbose) {
        if (!s->pid)
                return;
        if (!s->supervisor) {
                line("supervisor", "none answers - k3s-vm start gives the VM a new one");
                return;
        }
        uint64_t restarts = json_u64_or(json_get(s->supervisor, "restarts"), 0);
        _cleanup_free_ char *uptime = str_duration_ms(json_u64_or(json_get(s->supervisor, "uptime_ms"), 0));
        if (verbose)
                line("supervisor", "process %" PRIu64 " for %s%s, %s", json_u64_or(json_get(s->supervisor, "pid"), 0),
                     uptime, json_bool_or(json_get(s->supervisor, "confined"), false) ? "" : ", not confined",
                     json_bool_or(json_get(s->supervisor, "monitor"), false) ? "hears QEMU's monitor"
                                                                             : "has lost QEMU's monitor");
        if (restarts > 0)
                line("restarts", "%" PRIu64 " in %s - see why: k3s-vm logs supervisor", restarts, uptime);
}

static void print_verbose(const struct summary *s) {
        const struct state *state = s->state;
        line("uuid", "%s", state->uuid);
        if (s->pid)
                line("qemu", "process %d, %s, %s, %" PRIu64 " MiB resident", s->pid,
                     state->machine ? state->machine : "?", state->accel ? state->accel : "?", s->memory_used_mib);
        line("guest", "%s", state->guest_version ? state->guest_version : "not made yet");
        if (state->guest_dir)
                line("", "%s", state->guest_dir);
        if (state->payload_path)
                line("payload", "%s", state->payload_path);
        line("disk file", "%s", s->project->data_disk);
        line("logs", "%s, %s", s->project->log_path, s->project->serial_path);
        for (size_t i = 0; i < state->n_phases; i++) {
                _cleanup_free_ char *ms = str_duration_ms(state->phases[i].ms);
                line(i == 0 ? "last start" : "", "%-6s after %s", state->phases[i].name, ms);
        }
}

void summary_print(const struct summary *s, bool verbose) {
        const struct config *c = s->config;
        printf("%s%s%s: %s%s%s", ui_style(STDOUT_FILENO, UI_BOLD), s->state ? s->state->name : c->vm_name,
               ui_style(STDOUT_FILENO, UI_PLAIN), ui_style(STDOUT_FILENO, style_of(s->status)),
               vm_status_string(s->status), ui_style(STDOUT_FILENO, UI_PLAIN));
        if (s->uptime_ms) {
                _cleanup_free_ char *uptime = str_duration_ms(s->uptime_ms);
                printf(", for %s", uptime);
        }
        if (s->suspended.tag) {
                _cleanup_free_ char *since = time_rfc3339((time_t)(s->suspended.time_ms / 1000)),
                                    *size = str_bytes(s->suspended.bytes);
                printf(" since %s, its state is %s", since, size);
        }
        putchar('\n');
        line("project", "%s", s->project->root);
        if (s->state) {
                print_payload(s->state);
                line("resources", "%u CPUs, %u MiB memory, %u GiB disk", c->cpus, c->memory_mib, c->disk_gib);
                line("ports", "API %u, SSH %u, web %u -> %u", c->api_port, c->ssh_port, c->web_port, c->web_node_port);
                if (s->disk_used >= 0) {
                        _cleanup_free_ char *used = str_bytes((uint64_t)s->disk_used),
                                            *available = str_bytes(s->disk_free);
                        line("disk", "%s used on the host, %s free there%s", used, available,
                             s->disk_free < DISK_WARNING_BYTES ? " - make room, or the VM pauses when it is full" : "");
                }
                if (s->api_asked)
                        print_api(&s->api);
                _cleanup_free_ char *when = ago(s->api.nodes_age_ms);
                print_nodes(s, when);
                if (s->kubeconfig)
                        line("kubeconfig", "%s", s->kubeconfig);
                print_certificate(s);
                if (s->detail)
                        line(s->pid ? "trouble" : "ended", "%s", s->detail);
                print_supervisor(s, verbose);
                if (verbose)
                        print_verbose(s);
        }
        print_next(s);
}

static struct json *summary_json(const struct summary *s) {
        const struct config *c = s->config;
        const struct state *state = s->state;
        struct json *j = json_new_object();
        json_set_number(j, "schema", 1);
        json_set_string(j, "name", state ? state->name : c->vm_name);
        json_set_string(j, "state", vm_status_string(s->status));
        json_set_string(j, "project", s->project->root);
        struct json *resources = json_set_object(j, "resources");
        json_set_number(resources, "cpus", c->cpus);
        json_set_number(resources, "memory_mib", c->memory_mib);
        json_set_number(resources, "disk_gib", c->disk_gib);
        struct json *ports = json_set_object(j, "ports");
        json_set_number(ports, "api", c->api_port);
        json_set_number(ports, "ssh", c->ssh_port);
        json_set_number(ports, "web", c->web_port);
        json_set_number(ports, "web_node_port", c->web_node_port);
        if (!state)
                return j;
        json_set_string(j, "uuid", state->uuid);
        if (s->pid) {
                json_set_number(j, "pid", s->pid);
                json_set_number(j, "uptime_ms", (double)s->uptime_ms);
                json_set_number(j, "host_memory_mib", (double)s->memory_used_mib);
                json_set_string(j, "accel", state->accel);
                json_set(j, "supervisor", s->supervisor ? json_copy(s->supervisor) : NULL);
        }
        if (s->suspended.tag) {
                struct json *suspended = json_set_object(j, "suspended");
                json_set_number(suspended, "since_ms", (double)s->suspended.time_ms);
                json_set_number(suspended, "bytes", (double)s->suspended.bytes);
        }
        struct json *guest = json_set_object(j, "guest");
        json_set_string(guest, "version", state->guest_version);
        json_set_string(guest, "dir", state->guest_dir);
        if (state->payload_name) {
                struct json *kubernetes = json_set_object(j, "kubernetes");
                json_set_string(kubernetes, "name", state->payload_name);
                json_set_string(kubernetes, "version", state->payload_version);
                json_set_string(kubernetes, "description", state->payload_description);
        }
        struct json *disk = json_set_object(j, "disk");
        json_set_string(disk, "path", s->project->data_disk);
        json_set_number(disk, "used_bytes", (double)(s->disk_used > 0 ? s->disk_used : 0));
        json_set_number(disk, "host_free_bytes", (double)s->disk_free);
        json_set_string(j, "kubeconfig", s->kubeconfig);
        if (s->api_asked) {
                struct json *api = json_set_object(j, "api");
                if (s->api.known) {
                        json_set_bool(api, "ready", s->api.ready);
                        json_set_number(api, "ms", s->api.ms);
                        json_set_number(api, "age_ms", (double)s->api.age_ms);
                        json_set_string(api, "problem", s->api.problem);
                }
                json_set(j, "nodes", nodes_to_json(&s->api.nodes));
                json_set_number(j, "nodes_age_ms", (double)s->api.nodes_age_ms);
        }
        if (s->web_asked)
                json_set_number(j, "web_status", (double)s->web_status);
        if (s->certificate_end) {
                _cleanup_free_ char *end = time_rfc3339((time_t)s->certificate_end);
                json_set_string(j, "certificate_not_after", end);
        }
        json_set_string(j, "detail", s->detail);
        struct json *phases = json_set_object(j, "last_start_ms");
        for (size_t i = 0; i < state->n_phases; i++)
                json_set_number(phases, state->phases[i].name, (double)state->phases[i].ms);
        return j;
}

void summary_print_json(const struct summary *s) {
        _cleanup_json_ struct json *j = summary_json(s);
        ui_print_json(j);
}

void summary_print_ready(const struct summary *s) {
        const struct config *c = s->config;
        printf("\n%s%s is %s.%s\n", ui_style(STDOUT_FILENO, UI_BOLD), s->state->name,
               s->state->payload_name ? "Ready" : "running", ui_style(STDOUT_FILENO, UI_PLAIN));
        print_payload(s->state);
        if (s->kubeconfig) {
                line("kubeconfig", "%s", s->kubeconfig);
                line("api", "https://127.0.0.1:%u", c->api_port);
        }
        line("ssh", "k3s-vm ssh   (port %u)", c->ssh_port);
        _cleanup_free_ char *answer = !s->web_asked   ? xstrdup("")
                                      : s->web_status ? xasprintf(" (answers: HTTP %ld)", s->web_status)
                                                      : xstrdup(" (nothing answers there yet)");
        line("web", "http://127.0.0.1:%u -> NodePort %u%s", c->web_port, c->web_node_port, answer);
        print_nodes(s, ""); /* they were waited for */
        if (s->state->n_phases > 0) {
                _cleanup_buf_ struct buf times = BUF_INIT(0);
                for (size_t i = 0; i < s->state->n_phases; i++) {
                        _cleanup_free_ char *ms = str_duration_ms(s->state->phases[i].ms);
                        buf_printf(&times, "%s%s %s", i ? ", " : "", s->state->phases[i].name, ms);
                }
                line("times", "%s from the start of QEMU (%s)", buf_str(&times), s->state->accel);
        }
        line("next", "%s", s->state->payload_name ? "k3s-vm kubectl get pods -A" : "k3s-vm ssh");
}
