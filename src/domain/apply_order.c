/* SPDX-License-Identifier: MIT */
/* Manifests in the order in which they are sent, and as they are sent. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "apply_internal.h"

static enum wave wave_of(const char *kind) {
        static const char *const foundations[] = {"Namespace", "CustomResourceDefinition", NULL};
        static const char *const workloads[] = {"Pod",        "Deployment", "StatefulSet",           "DaemonSet",
                                                "ReplicaSet", "Job",        "ReplicationController", "CronJob",
                                                NULL};
        /* The ones that could keep the others out until what they call is there. */
        static const char *const webhooks[] = {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration",
                                               "ValidatingAdmissionPolicyBinding", "APIService", NULL};
        return str_is_one_of(kind, foundations) ? WAVE_FOUNDATIONS
               : str_is_one_of(kind, workloads) ? WAVE_WORKLOADS
               : str_is_one_of(kind, webhooks)  ? WAVE_WEBHOOKS
                                                : WAVE_OTHERS;
}

char *object_key(const char *api_version, const char *kind, const char *namespace, const char *name) {
        return xasprintf("%s/%s/%s/%s", api_version, kind, namespace ? namespace : "", name);
}

char *object_title(const char *api_version, const char *kind, const char *name) {
        _cleanup_free_ char *lower = xstrdup(kind), *printable = NULL;
        for (char *p = lower; *p; p++)
                *p = (char)tolower((unsigned char)*p);
        size_t group = strcspn(api_version, "/");
        bool core = api_version[group] == '\0';
        _cleanup_free_ char *title =
                        xasprintf("%s%s%.*s/%s", lower, core ? "" : ".", core ? 0 : (int)group, api_version, name);
        printable = str_printable(title, strlen(title));
        return TAKE_PTR(printable);
}

void items_free(struct item *items, size_t n) {
        for (size_t i = 0; items && i < n; i++) {
                free(items[i].title);
                free(items[i].key);
                free(items[i].body);
                free(items[i].uid);
                free(items[i].version);
                error_clear(&items[i].error);
        }
        free(items);
}

static int compare_identities(const void *a, const void *b) {
        const struct manifest *x = *(const struct manifest *const *)a, *y = *(const struct manifest *const *)b;
        size_t group_x = strchr(x->api_version, '/') ? strcspn(x->api_version, "/") : 0;
        size_t group_y = strchr(y->api_version, '/') ? strcspn(y->api_version, "/") : 0;
        if (group_x != group_y)
                return group_x < group_y ? -1 : 1;
        int r = strncmp(x->api_version, y->api_version, group_x);
        if (r == 0)
                r = strcmp(x->kind, y->kind);
        if (r == 0)
                r = strcmp(x->namespace ? x->namespace : "", y->namespace ? y->namespace : "");
        return r ? r : strcmp(x->name, y->name);
}

/* Two manifests for the same object would overwrite each other for ever. */
static int check_clashes(const struct manifests *m, struct error *err) {
        _cleanup_free_ const struct manifest **sorted = xcalloc(m->n, sizeof(const struct manifest *));
        for (size_t i = 0; i < m->n; i++)
                sorted[i] = &m->items[i];
        if (m->n > 1)
                qsort(sorted, m->n, sizeof(*sorted), compare_identities);
        for (size_t i = 1; i < m->n; i++) {
                if (compare_identities(&sorted[i - 1], &sorted[i]) != 0)
                        continue;
                /* In the order of the files. */
                const struct manifest *a = sorted[i - 1] < sorted[i] ? sorted[i - 1] : sorted[i];
                const struct manifest *b = a == sorted[i] ? sorted[i - 1] : sorted[i];
                _cleanup_free_ char *first = manifest_where(a, ".metadata.name"),
                                    *second = manifest_where(b, ".metadata.name"),
                                    *title = object_title(a->api_version, a->kind, a->name);
                int r = err_set(err, ERR_USAGE, EEXIST, "%s: %s is there already, in %s", second, title, first);
                err_hint(err, "remove one of them, or give it another metadata.name or metadata.namespace");
                return r;
        }
        return 0;
}

int items_make(const struct apply *a, struct item **ret, size_t *ret_n, struct error *err) {
        const struct manifests *m = a->manifests;
        int r = check_clashes(m, err);
        if (r < 0)
                return r;
        struct item *items = xcalloc(m->n, sizeof(*items));
        for (size_t i = 0; i < m->n; i++)
                items[i] = (struct item){
                                .manifest = &m->items[i],
                                .wave = wave_of(m->items[i].kind),
                                .title = object_title(m->items[i].api_version, m->items[i].kind, m->items[i].name),
                };
        *ret = items;
        *ret_n = m->n;
        return 0;
}

static void default_protocols(struct json *ports) {
        for (struct json *port = json_first(ports); port; port = json_next(port))
                if (json_is_object(port) && !json_get(port, "protocol"))
                        json_set_string(port, "protocol", "TCP");
}

/* Before Kubernetes 1.21 the API does not know the default of a port's protocol when it merges lists by it, and refuses
 * ports without one. */
static void spell_out_protocols(struct json *object, const char *kind) {
        if (str_eq(kind, "Service"))
                default_protocols(json_get(object, "spec", "ports"));
        struct json *spec = json_get(object, "spec");
        struct json *template = json_get(object, "spec", "template", "spec");
        if (str_eq(kind, "CronJob"))
                template = json_get(object, "spec", "jobTemplate", "spec", "template", "spec");
        struct json *pod = str_eq(kind, "Pod") ? spec : template;
        static const char *const lists[] = {"containers", "initContainers"};
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                for (struct json *c = json_first(json_get(pod, lists[i])); c; c = json_next(c))
                        default_protocols(json_get(c, "ports"));
}

/* The manifest with the namespace and the label that everything gets. */
static char *make_body(const struct item *i, const char *label) {
        _cleanup_json_ struct json *object = json_copy(i->manifest->object);
        struct json *metadata = json_get(object, "metadata"), *labels = json_get(metadata, "labels");
        json_set_string(metadata, "namespace", i->namespace);
        if (!labels || json_is_null(labels))
                labels = json_set_object(metadata, "labels");
        json_set_string(labels, APPLY_LABEL, label);
        if (i->wave == WAVE_WORKLOADS || str_eq(i->manifest->kind, "Service"))
                spell_out_protocols(object, i->manifest->kind);
        return json_print(object, false);
}

int item_resolve(struct run *run, struct item *i, struct error *err) {
        const struct manifest *m = i->manifest;
        i->resource = discovery_find(run->discovery, m->api_version, m->kind);
        if (!i->resource) {
                _cleanup_free_ char *kind = str_printable(m->kind, strlen(m->kind));
                return err_set(err, ERR_FAILED, ENOENT, "the cluster has no %s in %s", kind, m->api_version);
        }
        if (i->resource->namespaced)
                i->namespace = m->namespace ? m->namespace : kubeconfig_namespace(run->a->kubeconfig);
        else
                i->namespace = m->namespace; /* the API says what is wrong with that */
        free(i->key);
        free(i->body);
        i->key = object_key(m->api_version, m->kind, i->namespace, m->name);
        i->body = make_body(i, run->a->whole_project ? LABEL_PROJECT : LABEL_FILES);
        return digest_bytes(i->body, strlen(i->body), i->hash, err);
}
