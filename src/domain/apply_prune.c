/* SPDX-License-Identifier: MIT */
/*
 * What this project applied before and no longer lists. It is found by the label that every applied object has and by
 * this field manager's entry in it: controllers copy labels to objects of their own (a Service's to its Endpoints), and
 * those are not ours to delete. So a lost record loses nothing.
 */
#include <errno.h>
#include <string.h>

#include "apply_internal.h"

struct candidate {
        struct resource resource; /* its strings belong to the discovery */
        char *namespace, *name, *uid;
};

static bool is_applied(const struct json *object) {
        for (const struct json *m = json_first(json_get(object, "metadata", "managedFields")); m; m = json_next(m))
                if (str_eq(json_string(json_get(m, "manager")), FIELD_MANAGER) &&
                    str_eq(json_string(json_get(m, "operation")), "Apply"))
                        return true;
        return false;
}

static bool is_listed(const struct run *run, const struct resource *r, const char *namespace, const char *name,
                      const char *uid) {
        for (size_t i = 0; i < run->n; i++) {
                const struct item *item = &run->items[i];
                if (item->uid && str_eq(item->uid, uid))
                        return true;
                /* In a dry run what would be made has no uid. */
                if (item->resource == r && str_eq(item->namespace, namespace) && str_eq(item->manifest->name, name))
                        return true;
        }
        return false;
}

static bool is_known(const struct candidate *candidates, size_t n, const char *uid) {
        for (size_t i = 0; i < n; i++)
                if (str_eq(candidates[i].uid, uid))
                        return true;
        return false;
}

static void collect(const struct run *run, const struct resource *r, const struct json *list,
                    struct candidate **candidates, size_t *n) {
        for (const struct json *o = json_first(json_get(list, "items")); o; o = json_next(o)) {
                const char *name = json_string(json_get(o, "metadata", "name")),
                           *namespace = json_string(json_get(o, "metadata", "namespace")),
                           *uid = json_string(json_get(o, "metadata", "uid"));
                /* The same object may be in several groups (Ingress). What is going already needs no push. */
                if (!name || !uid || !is_applied(o) || json_get(o, "metadata", "deletionTimestamp") ||
                    is_listed(run, r, namespace, name, uid) || is_known(*candidates, *n, uid))
                        continue;
                *candidates = xreallocarray(*candidates, *n + 1, sizeof(**candidates));
                (*candidates)[(*n)++] = (struct candidate){.resource = *r,
                                                           .namespace = xstrdup(namespace),
                                                           .name = xstrdup(name),
                                                           .uid = xstrdup(uid)};
        }
}

static int find(struct run *run, struct candidate **candidates, size_t *n, struct error *err) {
        int r = discovery_ask_all(run->discovery, err);
        if (r < 0)
                return r;
        size_t n_resources = 0, n_calls = 0;
        while (discovery_at(run->discovery, n_resources))
                n_resources++;
        struct kube_call *calls = xcalloc(n_resources, sizeof(*calls));
        const struct resource **resources = xcalloc(n_resources, sizeof(*resources));
        _cleanup_free_ char *query = url_escape(APPLY_LABEL "=" LABEL_PROJECT);
        for (size_t i = 0; i < n_resources; i++) {
                const struct resource *resource = discovery_at(run->discovery, i);
                if (!resource->can_list || !resource->can_delete || !discovery_is_first(run->discovery, resource))
                        continue;
                _cleanup_free_ char *path = resource_path(resource, NULL, NULL);
                resources[n_calls] = resource;
                calls[n_calls++] = (struct kube_call){.path = xasprintf("%s?labelSelector=%s", path, query),
                                                      .metadata_only = true};
        }
        r = kube_perform(run->kube, calls, n_calls, NULL, NULL, err);
        for (size_t i = 0; r == 0 && i < n_calls; i++) {
                /* An aggregated API that is down must not keep the rest from being pruned. */
                if (calls[i].result == 0)
                        collect(run, resources[i], calls[i].answer, candidates, n);
                else if (calls[i].result != -ENOENT)
                        progress_warn(run->a->progress, "cannot look for %s to prune: %s", resources[i]->name,
                                      calls[i].error.message);
        }
        kube_calls_free(calls, n_calls);
        free(resources);
        return r;
}

static void report(struct run *run, const struct candidate *c, struct kube_call *call) {
        _cleanup_free_ char *title = object_title(c->resource.api_version, c->resource.kind, c->name);
        struct item i = {.title = title, .namespace = c->namespace, .result = APPLY_PRUNED};
        /* Gone, or replaced by another of that name: not there any more. */
        if (call && call->result < 0 && call->result != -ENOENT && call->result != -EBUSY) {
                i.result = APPLY_FAILED;
                err_move(&i.error, &call->error);
                err_wrap(&i.error, -1, "cannot prune %s", title);
                run_fail(run, &i);
                error_clear(&i.error);
                return;
        }
        run_report(run, &i, NULL);
}

static int remove_all(struct run *run, const struct candidate *candidates, size_t n, struct error *err) {
        struct kube_call *calls = xcalloc(n, sizeof(*calls));
        for (size_t i = 0; i < n; i++) {
                const struct candidate *c = &candidates[i];
                _cleanup_json_ struct json *options = json_new_object();
                json_set_string(options, "apiVersion", "v1");
                json_set_string(options, "kind", "DeleteOptions");
                json_set_string(options, "propagationPolicy", "Background");
                json_set_string(json_set_object(options, "preconditions"), "uid", c->uid);
                calls[i] = (struct kube_call){.method = "DELETE",
                                              .path = resource_path(&c->resource, c->namespace, c->name),
                                              .body = json_print(options, false)};
        }
        int r = kube_perform(run->kube, calls, n, NULL, NULL, err);
        for (size_t i = 0; r == 0 && i < n; i++)
                report(run, &candidates[i], &calls[i]);
        kube_calls_free(calls, n);
        return r;
}

int prune(struct run *run, struct error *err) {
        struct candidate *candidates = NULL;
        size_t n = 0;
        int r = find(run, &candidates, &n, err);
        if (r == 0 && run->a->dry_run)
                for (size_t i = 0; i < n; i++)
                        report(run, &candidates[i], NULL);
        else if (r == 0)
                r = remove_all(run, candidates, n, err);
        for (size_t i = 0; i < n; i++) {
                free(candidates[i].namespace);
                free(candidates[i].name);
                free(candidates[i].uid);
        }
        free(candidates);
        return r < 0 ? err_wrap(err, r, "cannot prune") : 0;
}
