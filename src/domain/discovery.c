/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/discovery.h>

#define RESOURCES_MAX 5000U /* of one API version */
#define VERSIONS_MAX 500U

struct version {
        char *api_version;
        struct resource **items;
        size_t n;
};

struct discovery {
        struct kube *kube;
        struct version *versions;
        size_t n;
};

struct discovery *discovery_new(struct kube *k) {
        struct discovery *d = xcalloc(1, sizeof(*d));
        d->kube = k;
        return d;
}

static void version_clear(struct version *v) {
        for (size_t i = 0; i < v->n; i++) {
                free(v->items[i]->api_version);
                free(v->items[i]->kind);
                free(v->items[i]->name);
                free(v->items[i]);
        }
        free(v->items);
        free(v->api_version);
        *v = (struct version){0};
}

void discovery_free(struct discovery *d) {
        if (!d)
                return;
        for (size_t i = 0; i < d->n; i++)
                version_clear(&d->versions[i]);
        free(d->versions);
        free(d);
}

static struct version *find_version(const struct discovery *d, const char *api_version) {
        for (size_t i = 0; i < d->n; i++)
                if (str_eq(d->versions[i].api_version, api_version))
                        return &d->versions[i];
        return NULL;
}

void discovery_forget(struct discovery *d, const char *api_version) {
        struct version *v = find_version(d, api_version);
        if (!v)
                return;
        version_clear(v);
        *v = d->versions[--d->n];
}

static bool has_verb(const struct json *resource, const char *verb) {
        for (const struct json *v = json_first(json_get(resource, "verbs")); v; v = json_next(v))
                if (str_eq(json_string(v), verb))
                        return true;
        return false;
}

void discovery_keep(struct discovery *d, const char *api_version, const struct json *list) {
        d->versions = xreallocarray(d->versions, d->n + 1, sizeof(*d->versions));
        struct version *v = &d->versions[d->n++];
        *v = (struct version){.api_version = xstrdup(api_version)};
        const struct json *resources = json_get(list, "resources");
        v->items = xcalloc(json_is_array(resources) ? json_len(resources) : 0, sizeof(*v->items));
        if (!json_is_array(resources))
                return;
        for (const struct json *r = json_first(resources); r && v->n < RESOURCES_MAX; r = json_next(r)) {
                const char *name = json_string(json_get(r, "name")), *kind = json_string(json_get(r, "kind"));
                /* With a slash it is a part of a resource: "pods/log". */
                if (!name || !kind || strchr(name, '/'))
                        continue;
                struct resource *item = xcalloc(1, sizeof(*item));
                *item = (struct resource){
                                .api_version = xstrdup(api_version),
                                .kind = xstrdup(kind),
                                .name = xstrdup(name),
                                .namespaced = json_bool_or(json_get(r, "namespaced"), false),
                                .can_list = has_verb(r, "list"),
                                .can_delete = has_verb(r, "delete"),
                };
                v->items[v->n++] = item;
        }
}

static char *version_path(const char *api_version) {
        return xasprintf("%s/%s", strchr(api_version, '/') ? "/apis" : "/api", api_version);
}

int discovery_ask(struct discovery *d, const struct strv *api_versions, struct error *err) {
        _cleanup_strv_ struct strv wanted = {0};
        for (size_t i = 0; i < api_versions->len; i++)
                if (!find_version(d, api_versions->items[i]) && !strv_contains(&wanted, api_versions->items[i]))
                        strv_push(&wanted, api_versions->items[i]);
        struct kube_call *calls = xcalloc(wanted.len, sizeof(*calls));
        for (size_t i = 0; i < wanted.len; i++)
                calls[i].path = version_path(wanted.items[i]);
        int r = kube_perform(d->kube, calls, wanted.len, NULL, NULL, err);
        for (size_t i = 0; r == 0 && i < wanted.len; i++) {
                struct kube_call *c = &calls[i];
                if (c->result < 0 && c->result != -ENOENT) {
                        r = c->result;
                        err_move(err, &c->error);
                        err_wrap(err, r, "cannot ask the API for the resources of %s", wanted.items[i]);
                } else
                        discovery_keep(d, wanted.items[i], c->answer);
        }
        kube_calls_free(calls, wanted.len);
        return r;
}

static int ask_groups(struct discovery *d, struct json **ret, struct error *err) {
        _cleanup_kube_call_ struct kube_call call = {.path = xstrdup("/apis")};
        int r = kube_perform_one(d->kube, &call, err);
        if (r < 0)
                return err_wrap(err, r, "cannot ask the API for its groups");
        *ret = TAKE_PTR(call.answer);
        return 0;
}

/* "v1" and every version of every group but @but. */
static int all_versions(struct discovery *d, const char *but, struct strv *ret, struct error *err) {
        _cleanup_json_ struct json *groups = NULL;
        int r = ask_groups(d, &groups, err);
        if (r < 0)
                return r;
        strv_push(ret, "v1");
        for (const struct json *g = json_first(json_get(groups, "groups")); g; g = json_next(g))
                for (const struct json *v = json_first(json_get(g, "versions")); v; v = json_next(v)) {
                        const char *version = json_string(json_get(v, "groupVersion"));
                        if (version && !str_eq(version, but) && ret->len < VERSIONS_MAX)
                                strv_push(ret, version);
                }
        return 0;
}

int discovery_ask_all(struct discovery *d, struct error *err) {
        _cleanup_strv_ struct strv versions = {0};
        int r = all_versions(d, NULL, &versions, err);
        return r < 0 ? r : discovery_ask(d, &versions, err);
}

static bool same_group(const char *a, const char *b) {
        size_t n = strchr(a, '/') ? strcspn(a, "/") : 0, m = strchr(b, '/') ? strcspn(b, "/") : 0;
        return n == m && strncmp(a, b, n) == 0;
}

bool discovery_is_first(const struct discovery *d, const struct resource *r) {
        const struct resource *other;
        for (size_t i = 0; (other = discovery_at(d, i)) && other != r; i++)
                if (str_eq(other->name, r->name) && same_group(other->api_version, r->api_version))
                        return false;
        return true;
}

const struct resource *discovery_find(const struct discovery *d, const char *api_version, const char *kind) {
        const struct version *v = find_version(d, api_version);
        for (size_t i = 0; v && i < v->n; i++)
                if (str_eq(v->items[i]->kind, kind))
                        return v->items[i];
        return NULL;
}

const struct resource *discovery_at(const struct discovery *d, size_t index) {
        for (size_t i = 0; i < d->n; i++) {
                if (index < d->versions[i].n)
                        return d->versions[i].items[index];
                index -= d->versions[i].n;
        }
        return NULL;
}

char *discovery_versions_of(struct discovery *d, const char *api_version, const char *kind) {
        _cleanup_strv_ struct strv versions = {0}, found = {0};
        if (all_versions(d, api_version, &versions, NULL) < 0 || discovery_ask(d, &versions, NULL) < 0)
                return NULL;
        for (size_t i = 0; i < versions.len; i++)
                if (discovery_find(d, versions.items[i], kind))
                        strv_push(&found, versions.items[i]);
        return found.len > 0 ? strv_join(&found, ", ") : NULL;
}

char *resource_path(const struct resource *r, const char *namespace, const char *name) {
        _cleanup_free_ char *base = version_path(r->api_version), *ns = namespace ? url_escape(namespace) : NULL,
                            *escaped = name ? url_escape(name) : NULL;
        return xasprintf("%s%s%s/%s%s%s", base, ns ? "/namespaces/" : "", ns ? ns : "", r->name, escaped ? "/" : "",
                         escaped ? escaped : "");
}
