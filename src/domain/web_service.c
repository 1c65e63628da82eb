/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/discovery.h>
#include <k3s-vm/forward.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/web_service.h>

#define KEPT_FILE "web-node-port"
#define FETCH_MS 1000U
#define FETCH_PAUSE_MS 250U

static char *kept_path(const struct project *p) {
        return path_join(p->vm_dir, KEPT_FILE);
}

uint16_t web_service_kept(const struct project *p) {
        _cleanup_free_ char *path = kept_path(p);
        _cleanup_buf_ struct buf b = BUF_INIT(64);
        uint64_t port = 0;
        return fs_read(path, 16, &b, NULL) == 0 && str_to_u64(buf_str(&b), 1, UINT16_MAX, &port) == 0 ? (uint16_t)port
                                                                                                      : 0;
}

/* Which NodePort. */

/* Whether the annotation names this port, the first of its Service or another. */
static bool is_named(const char *annotation, const struct json *port, bool first) {
        if (!annotation || str_eq(annotation, "false"))
                return false;
        _cleanup_free_ char *number = xasprintf("%llu", (unsigned long long)json_u64_or(json_get(port, "port"), 0));
        return (first && str_eq(annotation, "true")) || str_eq(annotation, json_string(json_get(port, "name"))) ||
               str_eq(annotation, number);
}

/* One with a LoadBalancer has NodePorts too, and is there for something else unless it says so. */
static bool has_node_ports(const struct manifest *m, const char *annotation) {
        const char *type = json_string(json_get(m->object, "spec", "type"));
        return str_eq(m->kind, "Service") && str_eq(m->api_version, "v1") &&
               (str_eq(type, "NodePort") || (annotation && str_eq(type, "LoadBalancer")));
}

size_t web_service_ports(const struct manifests *m, struct node_port **ret) {
        struct node_port *ports = NULL;
        size_t n = 0;
        for (size_t i = 0; i < m->n; i++) {
                const struct json *o = m->items[i].object;
                const char *annotation = json_string(json_get(o, "metadata", "annotations", WEB_SERVICE_ANNOTATION));
                if (!has_node_ports(&m->items[i], annotation))
                        continue;
                bool first = true;
                for (const struct json *port = json_first(json_get(o, "spec", "ports")); port; port = json_next(port)) {
                        if (!str_eq(json_string_or(json_get(port, "protocol"), "TCP"), "TCP"))
                                continue;
                        ports = xreallocarray(ports, n + 1, sizeof(*ports));
                        ports[n++] = (struct node_port){
                                        .service = &m->items[i],
                                        .port = json_u64_or(json_get(port, "port"), 0),
                                        .node_port = json_u64_or(json_get(port, "nodePort"), 0),
                                        .is_web = is_named(annotation, port, first),
                        };
                        first = false;
                }
        }
        *ret = ports;
        return n;
}

const struct node_port *web_service_choose(const struct node_port *ports, size_t n, uint16_t node_port) {
        for (size_t i = 0; i < n; i++)
                if (ports[i].is_web)
                        return &ports[i];
        for (size_t i = 0; i < n; i++)
                if (ports[i].node_port == node_port)
                        return &ports[i];
        return n == 1 ? ports : NULL;
}

/* What the cluster chose for those that were left to it. One that cannot be told stays 0. */
static int ask_cluster(const struct kubeconfig *k, struct node_port *ports, size_t n, struct error *err) {
        _cleanup_kube_ struct kube *kube = NULL;
        for (size_t i = 0; i < n; i++) {
                const struct manifest *service = ports[i].service;
                if (ports[i].node_port)
                        continue;
                int r = kube ? 0 : kube_new(k, &kube, err);
                if (r < 0)
                        return r;
                const struct resource services = {.api_version = (char *)"v1", .name = (char *)"services"};
                _cleanup_kube_call_ struct kube_call call = {
                                .path = resource_path(&services,
                                                      service->namespace ? service->namespace : kubeconfig_namespace(k),
                                                      service->name)};
                if (kube_perform_one(kube, &call, NULL) < 0)
                        continue;
                for (const struct json *port = json_first(json_get(call.answer, "spec", "ports")); port;
                     port = json_next(port))
                        if (json_u64_or(json_get(port, "port"), 0) == ports[i].port &&
                            str_eq(json_string_or(json_get(port, "protocol"), "TCP"), "TCP"))
                                ports[i].node_port = json_u64_or(json_get(port, "nodePort"), 0);
        }
        return 0;
}

/* The forward. */

static bool is_forwarded(const struct forward *live, size_t n, uint64_t guest_port) {
        for (size_t i = 0; i < n; i++)
                if (live[i].guest_port == guest_port)
                        return true;
        return false;
}

/* Leads WEB_PORT to @web, in the VM that runs and from now on. */
static int move_forward(const struct project *p, struct config *c, const struct state *s, const struct node_port *web,
                        struct forward *live, size_t n_live, struct progress *progress, struct error *err) {
        const struct forward wanted = {.host_port = s->web_port, .guest_port = (uint16_t)web->node_port};
        _cleanup_free_ char *path = kept_path(p), *text = xasprintf("%u", wanted.guest_port);
        if (web_service_kept(p) != wanted.guest_port) {
                int r = fs_write_atomic(path, text, strlen(text), 0600, err);
                if (r < 0)
                        return r;
        }
        c->web_node_port = wanted.guest_port;
        for (size_t i = 0; i < n_live; i++) {
                if (live[i].host_port != wanted.host_port || live[i].guest_port == wanted.guest_port)
                        continue;
                int r = forward_close(p, s, wanted.host_port, err);
                if (r == 0)
                        r = forward_open(p, s, &wanted, err);
                if (r < 0)
                        return r;
                live[i] = wanted;
                progress_note(progress, "127.0.0.1:%u leads to NodePort %u of service/%s now", wanted.host_port,
                              wanted.guest_port, web->service->name);
        }
        return 0;
}

int web_service_follow(const struct project *p, struct config *c, const struct state *s, const struct kubeconfig *k,
                       const struct manifests *m, bool whole_project, struct progress *progress, struct error *err) {
        _cleanup_free_ struct node_port *ports = NULL;
        _cleanup_free_ struct forward *live = NULL;
        size_t n_live = 0, n = web_service_ports(m, &ports);
        if (n == 0)
                return 0;
        int r = ask_cluster(k, ports, n, err);
        if (r == 0)
                r = forward_list(p, s, &live, &n_live, err);
        const struct node_port *web = web_service_choose(ports, n, c->web_node_port);
        const char *source = config_source(c, "WEB_NODE_PORT");
        bool by_number = str_eq(source, "config") || str_eq(source, "environment");
        if (r == 0 && whole_project && !by_number && web && web->node_port)
                r = move_forward(p, c, s, web, live, n_live, progress, err);
        for (size_t i = 0; i < n && r == 0; i++) {
                unsigned long long number = ports[i].node_port;
                if (number && !is_forwarded(live, n_live, number))
                        progress_note(progress, "NodePort %llu of service/%s is not forwarded: k3s-vm ports add %llu",
                                      number, ports[i].service->name, number);
        }
        return r;
}

/* The page. */

long web_service_fetch(uint16_t port, unsigned timeout_ms) {
        _cleanup_http_ struct http *h = NULL;
        _cleanup_free_ char *url = xasprintf("http://127.0.0.1:%u/", port);
        const struct http_request request = {.url = url, .connect_timeout_ms = FETCH_MS, .timeout_ms = FETCH_MS};
        if (http_new(NULL, &h, NULL) < 0)
                return 0;
        for (uint64_t deadline = now_ms() + timeout_ms;;) {
                _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
                int r = http_perform(h, &request, &response, NULL);
                if (r == 0 || r == -E2BIG)
                        return r == 0 ? response.status : 200;
                if (now_ms() >= deadline || interrupt_wait(-1, FETCH_PAUSE_MS, NULL) < 0)
                        return 0;
        }
}
