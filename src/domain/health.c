/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/health.h>

#define FILE_NAME "health.json"
#define FILE_MAX_BYTES (4U << 20)
#define SCHEMA 1
#define LEAST_PATIENCE_MS 3U

void health_clear(struct health *h) {
        free(h->problem);
        nodes_clear(&h->nodes);
        *h = (struct health){0};
}

/* The caller frees; NULL: there is no place for it. */
static char *file_path(const struct project *p, const char *uuid) {
        _cleanup_free_ char *folder = NULL;
        return project_runtime_dir(p, uuid, false, &folder, NULL) < 0 ? NULL : path_join(folder, FILE_NAME);
}

static void nodes_from_json(const struct json *list, struct nodes *ret) {
        struct nodes nodes = {.items = xcalloc(json_is_array(list) ? json_len(list) : 0, sizeof(struct node_status))};
        for (const struct json *node = json_is_array(list) ? json_first(list) : NULL; node; node = json_next(node)) {
                struct node_status *n = &nodes.items[nodes.n++];
                n->name = xstrdup(json_string_or(json_get(node, "name"), "?"));
                n->version = xstrdup(json_string_or(json_get(node, "version"), "?"));
                n->roles = xstrdup(json_string_or(json_get(node, "roles"), ""));
                n->ready = json_bool_or(json_get(node, "ready"), false);
                n->reason = n->ready ? NULL : xstrdup(json_string_or(json_get(node, "reason"), "not Ready"));
        }
        *ret = nodes;
}

/* The time since @then on this clock; false for one that is still to come, which no answer can have. */
static bool age_of(const struct json *then, uint64_t *ret) {
        uint64_t now = boot_ms(), at = json_u64_or(then, UINT64_MAX);
        if (at > now)
                return false;
        *ret = now - at;
        return true;
}

/* What was kept of this very QEMU; @ret stays empty where there is nothing. */
static void recall(const struct project *p, const struct state *s, const struct process *vm, struct health *ret) {
        _cleanup_free_ char *path = file_path(p, s->uuid);
        _cleanup_json_ struct json *j = NULL;
        uint64_t start_time = 0;
        if (!path || proc_start_time(vm->pid, &start_time) < 0 || json_read_file(path, FILE_MAX_BYTES, &j, NULL) < 0)
                return;
        struct health h = {.known = true};
        if (json_u64_or(json_get(j, "schema"), 0) != SCHEMA ||
            json_u64_or(json_get(j, "pid"), 0) != (uint64_t)vm->pid ||
            json_u64_or(json_get(j, "start_time"), 0) != start_time || !age_of(json_get(j, "asked_ms"), &h.age_ms))
                return;
        h.ready = json_bool_or(json_get(j, "ready"), false);
        h.ms = (unsigned)json_u64_or(json_get(j, "ms"), 0);
        if (!h.ready)
                h.problem = xstrdup(json_string_or(json_get(j, "problem"), "it did not answer"));
        if (age_of(json_get(j, "nodes_asked_ms"), &h.nodes_age_ms))
                nodes_from_json(json_get(j, "nodes"), &h.nodes);
        *ret = h;
}

void health_keep(const struct project *p, const struct state *s, const struct process *vm, const struct health *h) {
        _cleanup_free_ char *path = file_path(p, s->uuid);
        uint64_t start_time = 0, now = boot_ms();
        if (!path || proc_start_time(vm->pid, &start_time) < 0)
                return;
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", SCHEMA);
        json_set_number(j, "pid", vm->pid);
        json_set_number(j, "start_time", (double)start_time);
        json_set_number(j, "asked_ms", (double)(now - h->age_ms));
        json_set_bool(j, "ready", h->ready);
        json_set_number(j, "ms", h->ms);
        json_set_string(j, "problem", h->problem);
        if (h->nodes.n > 0) {
                json_set_number(j, "nodes_asked_ms", (double)(now - h->nodes_age_ms));
                json_set(j, "nodes", nodes_to_json(&h->nodes));
        }
        _cleanup_free_ char *text = json_print(j, false);
        fs_write_cache(path, text, strlen(text), 0600, NULL);
}

void health_forget(const struct project *p, const char *uuid) {
        _cleanup_free_ char *path = file_path(p, uuid);
        if (path)
                fs_unlink(path, NULL);
}

/* What is left of the time; a moment always is, or nothing would ever be asked. */
static unsigned left_of(uint64_t deadline_ms) {
        uint64_t now = now_ms();
        return deadline_ms > now + LEAST_PATIENCE_MS ? (unsigned)(deadline_ms - now) : LEAST_PATIENCE_MS;
}

/* One round of questions. Returns whether there was an answer; with @wait there always is. */
static bool ask(const struct kubeconfig *k, unsigned patience_ms, bool wait, struct health *ret) {
        _cleanup_(kube_freep) struct kube *kube = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        uint64_t deadline = now_ms() + patience_ms; /* loading libcurl counts */
        int r = kube_new(k, &kube, &err);
        uint64_t begin = now_ms();
        if (r == 0)
                r = kube_get(kube, "/readyz", left_of(deadline), NULL, &err);
        if (r == -ETIMEDOUT && !wait)
                return false;
        *ret = (struct health){.known = true, .ready = r == 0, .ms = (unsigned)(now_ms() - begin)};
        if (r == -ETIMEDOUT) {
                _cleanup_free_ char *limit = str_duration_ms(patience_ms);
                ret->problem = xasprintf("no answer within %s", limit);
        } else if (r < 0)
                ret->problem = TAKE_PTR(err.message);
        else
                kube_nodes(kube, wait ? patience_ms : left_of(deadline), &ret->nodes, NULL);
        return true;
}

void health_ask(const struct project *p, const struct state *s, const struct process *vm, const struct kubeconfig *k,
                unsigned patience_ms, bool wait, struct health *ret) {
        _cleanup_health_ struct health last = {0}, now = {0};
        recall(p, s, vm, &last);
        if (!ask(k, patience_ms, wait, &now)) {
                *ret = last;
                last = (struct health){0};
                return;
        }
        if (now.ready && now.nodes.n == 0) {
                /* The list did not come in time. */
                now.nodes = last.nodes;
                now.nodes_age_ms = last.nodes_age_ms;
                last.nodes = (struct nodes){0};
        }
        health_keep(p, s, vm, &now);
        *ret = now;
        now = (struct health){0};
}
