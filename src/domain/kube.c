/* SPDX-License-Identifier: MIT */
/* Questions to the cluster's API. Kubeconfigs are in kubeconfig.c. */
#include <errno.h>
#include <string.h>

#include "kube_internal.h"

#define NODES_MAX_BYTES (16U * 1024 * 1024)

int kube_new(const struct kubeconfig *k, struct kube **ret, struct error *err) {
        const struct http_identity identity = {.ca_pem = k->ca_pem, .cert_pem = k->cert_pem, .key_pem = k->key_pem};
        struct http *http = NULL;
        int r = http_new(&identity, &http, err);
        if (r < 0)
                return r;
        struct kube *kube = xcalloc(1, sizeof(*kube));
        *kube = (struct kube){.http = http, .server = xstrdup(k->server)};
        *ret = kube;
        return 0;
}

void kube_free(struct kube *k) {
        if (!k)
                return;
        http_free(k->http);
        free(k->server);
        free(k);
}

int kube_get(struct kube *k, const char *path, unsigned timeout_ms, struct buf *ret, struct error *err) {
        _cleanup_free_ char *url = xasprintf("%s%s", k->server, path);
        static const char *const headers[] = {"Accept: application/json", NULL};
        const struct http_request request = {
                        .url = url,
                        .headers = headers,
                        .connect_timeout_ms = timeout_ms,
                        .timeout_ms = timeout_ms,
                        .max_body = NODES_MAX_BYTES,
        };
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        int r = http_perform(k->http, &request, &response, err);
        if (r < 0)
                return r;
        if (response.status == 401 || response.status == 403)
                return err_set(err, ERR_FAILED, EACCES, "the API refuses the kubeconfig's client certificate (%ld)",
                               response.status);
        /* 429: it is overloaded and asks to come again. */
        if (response.status >= 500 || response.status == 429)
                return err_set(err, ERR_FAILED, EAGAIN, "the API answers %ld to %s", response.status, path);
        if (response.status >= 400)
                return err_set(err, ERR_FAILED, ENOENT, "the API answers %ld to %s", response.status, path);
        if (ret && buf_append(ret, response.body.data, response.body.len) < 0)
                return err_set(err, ERR_FAILED, E2BIG, "the API's answer to %s is too large", path);
        return 0;
}

const struct json *kube_condition(const struct json *object, const char *type) {
        for (const struct json *c = json_first(json_get(object, "status", "conditions")); c; c = json_next(c))
                if (str_eq(json_string(json_get(c, "type")), type))
                        return c;
        return NULL;
}

bool kube_condition_is(const struct json *condition, const char *status) {
        return str_eq(json_string(json_get(condition, "status")), status);
}

void nodes_clear(struct nodes *n) {
        for (size_t i = 0; i < n->n; i++) {
                free(n->items[i].name);
                free(n->items[i].version);
                free(n->items[i].roles);
                free(n->items[i].reason);
        }
        free(n->items);
        *n = (struct nodes){0};
}

struct json *nodes_to_json(const struct nodes *nodes) {
        struct json *list = json_new_array();
        for (size_t i = 0; i < nodes->n; i++) {
                const struct node_status *n = &nodes->items[i];
                struct json *node = json_new_object();
                json_set_string(node, "name", n->name);
                json_set_bool(node, "ready", n->ready);
                json_set_string(node, "version", n->version);
                json_set_string(node, "roles", n->roles);
                json_set_string(node, "reason", n->reason);
                json_append(list, node);
        }
        return list;
}

/* "control-plane,master" from labels like node-role.kubernetes.io/master. */
static char *roles_of(const struct json *labels) {
        static const char prefix[] = "node-role.kubernetes.io/";
        _cleanup_strv_ struct strv roles = {0};
        for (struct json *label = json_first(labels); label; label = json_next(label))
                if (json_key(label) && str_starts(json_key(label), prefix))
                        strv_push(&roles, json_key(label) + strlen(prefix));
        return strv_join(&roles, ",");
}

static void read_node(const struct json *item, struct node_status *ret) {
        *ret = (struct node_status){
                        .name = xstrdup(json_string_or(json_get(item, "metadata", "name"), "?")),
                        .version = xstrdup(json_string_or(json_get(item, "status", "nodeInfo", "kubeletVersion"), "?")),
                        .roles = roles_of(json_get(item, "metadata", "labels")),
        };
        const struct json *ready = kube_condition(item, "Ready");
        ret->ready = kube_condition_is(ready, "True");
        if (!ret->ready)
                ret->reason = xstrdup(ready ? json_string_or(json_get(ready, "message"), "not Ready")
                                            : "the kubelet has not reported yet");
}

int nodes_read(const struct json *list, struct nodes *ret, struct error *err) {
        const struct json *items = json_get(list, "items");
        if (!json_is_array(items))
                return err_set(err, ERR_FAILED, EPROTO, "the API's list of nodes has no items");
        struct nodes nodes = {.items = xcalloc(json_len(items), sizeof(struct node_status))};
        for (const struct json *item = json_first(items); item; item = json_next(item))
                read_node(item, &nodes.items[nodes.n++]);
        *ret = nodes;
        return 0;
}

int kube_nodes(struct kube *k, unsigned timeout_ms, struct nodes *ret, struct error *err) {
        _cleanup_buf_ struct buf body = BUF_INIT(NODES_MAX_BYTES);
        int r = kube_get(k, "/api/v1/nodes", timeout_ms, &body, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *list = NULL;
        r = json_parse(buf_str(&body), body.len, &list, err);
        if (r < 0)
                return err_wrap(err, r, "cannot read the list of nodes");
        return nodes_read(list, ret, err);
}
