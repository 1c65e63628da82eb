/* SPDX-License-Identifier: MIT */
/* One wave of objects to the cluster, many at once, and what the API says against them. */
#include <errno.h>
#include <string.h>

#include "apply_internal.h"

#define CAUSES_SHOWN 4U

/* ".spec.replicas" of a Status: in its causes, or in the message of a value that does not fit the schema. */
static char *field_of(const struct json *status) {
        const char *field = json_string(json_get(json_first(json_get(status, "details", "causes")), "field"));
        if (field && *field)
                return xasprintf("%s%s", *field == '.' ? "" : ".", field);
        const char *message = json_string_or(json_get(status, "message"), "");
        for (const char *p = strstr(message, " ."); p; p = strstr(p + 1, " .")) {
                size_t n = strcspn(p + 1, ": ");
                if (n > 1 && p[1 + n] == ':')
                        return xstrndup(p + 1, n);
        }
        return NULL;
}

static bool is_conflict(const struct json *status) {
        return str_eq(json_string(json_get(json_first(json_get(status, "details", "causes")), "reason")),
                      "FieldManagerConflict");
}

/* "field .spec.replicas belongs to "kubectl"" for each. */
static void explain_conflict(struct item *i, const struct json *status) {
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        const struct json *causes = json_get(status, "details", "causes");
        unsigned n = 0;
        for (const struct json *c = json_first(causes); c && n < CAUSES_SHOWN; c = json_next(c), n++) {
                const char *message = json_string_or(json_get(c, "message"), "another manager");
                if (str_starts(message, "conflict with "))
                        message += strlen("conflict with ");
                _cleanup_free_ char *owner = str_printable(message, strnlen(message, 200));
                const char *field = json_string_or(json_get(c, "field"), "?");
                _cleanup_free_ char *shown = str_printable(field, strnlen(field, 200));
                buf_printf(&text, "%sfield %s belongs to %s", n ? ", " : "", shown, owner);
        }
        if (json_len(causes) > n)
                buf_printf(&text, " and %zu more", json_len(causes) - n);
        err_set(&i->error, ERR_FAILED, EBUSY, "%s", buf_str(&text));
        err_hint(&i->error,
                 "leave those fields out of the manifest, or take them over: k3s-vm apply --force-conflicts");
}

static void add_hint(struct item *i, const struct json *status, long code) {
        const struct manifest *m = i->manifest;
        const char *kind = json_string_or(json_get(status, "details", "kind"), "");
        const char *message = json_string_or(json_get(status, "message"), "");
        if (code == 404 && str_eq(kind, "namespaces"))
                err_hint(&i->error, "add a Namespace to the manifests, or make it: k3s-vm kubectl create namespace %s",
                         json_string_or(json_get(status, "details", "name"), ""));
        else if (strstr(message, "immutable") || strstr(message, "updates to statefulset spec for fields other than"))
                err_hint(&i->error, "the object has to be made anew: k3s-vm kubectl delete %s %s%s%s && k3s-vm apply",
                         i->resource->name, m->name, i->namespace ? " -n " : "", i->namespace ? i->namespace : "");
        else if (code == 0)
                err_hint(&i->error, "k3s-vm status says how the cluster is; what was applied stays");
}

/* "web.yaml:7: deployment.apps/web: field …: …" */
static void locate(struct item *i, const struct json *status) {
        _cleanup_free_ char *field = field_of(status), *place = manifest_where(i->manifest, field);
        /* The message names the field in most cases, and that of a conflict always. */
        bool named = !field || is_conflict(status) || strstr(i->error.message, field + 1);
        _cleanup_free_ char *shown = named ? NULL : str_printable(field, strlen(field));
        err_wrap(&i->error, -1, "%s: %s%s%s", place, i->title, shown ? ": field " : "", shown ? shown : "");
}

void send_failed(struct item *i, struct kube_call *c) {
        if (c->status == 409 && is_conflict(c->answer))
                explain_conflict(i, c->answer);
        else {
                err_move(&i->error, &c->error);
                add_hint(i, c->answer, c->status);
        }
        locate(i, c->answer);
}

static void take_object(struct run *run, struct item *i, const struct kube_call *c) {
        i->uid = xstrdup(json_string(json_get(c->answer, "metadata", "uid")));
        i->version = xstrdup(json_string(json_get(c->answer, "metadata", "resourceVersion")));
        _cleanup_free_ char *now = xasprintf("%s %s", i->uid ? i->uid : "", i->version ? i->version : "");
        i->result = c->status == 201                                         ? APPLY_CREATED
                    : str_eq(json_string(json_get(run->known, i->key)), now) ? APPLY_UNCHANGED
                                                                             : APPLY_CONFIGURED;
}

struct sending {
        struct run *run;
        struct kube_call *calls;
        struct item **items; /* of each call */
        enum wave wave;
        size_t next; /* the first of all items that was not reported yet */
};

/* In the order of the manifests, as far as it is known. */
static void report_ready(struct sending *s) {
        for (; s->next < s->run->n; s->next++) {
                struct item *i = &s->run->items[s->next];
                if (i->wave != s->wave)
                        continue;
                if (!i->over)
                        return;
                if (i->result == APPLY_FAILED)
                        run_fail(s->run, i);
                else
                        run_report(s->run, i, NULL);
        }
}

static void on_call(struct kube_call *c, void *userdata) {
        struct sending *s = userdata;
        struct item *i = s->items[c - s->calls];
        i->over = true;
        if (c->result < 0) {
                i->result = APPLY_FAILED;
                send_failed(i, c);
        } else
                take_object(s->run, i, c);
        json_free(TAKE_PTR(c->answer)); /* hundreds of them need not be kept */
        report_ready(s);
}

/* Known to be as it should: nothing is sent. */
static void take_known(struct run *run, struct item *i) {
        const char *known = json_string(json_get(run->known, i->key));
        size_t n = strcspn(known, " ");
        i->uid = xstrndup(known, n);
        i->version = xstrdup(known + n + (known[n] == ' '));
        i->result = APPLY_UNCHANGED;
        i->over = true;
}

int send_wave(struct run *run, enum wave wave, struct error *err) {
        struct sending s = {.run = run, .wave = wave};
        s.calls = xcalloc(run->n, sizeof(*s.calls));
        s.items = xcalloc(run->n, sizeof(*s.items));
        size_t n = 0;
        for (size_t j = 0; j < run->n; j++) {
                struct item *i = &run->items[j];
                if (i->wave != wave || i->over)
                        continue;
                if (record_holds(run, i)) {
                        take_known(run, i);
                        continue;
                }
                _cleanup_free_ char *path = resource_path(i->resource, i->namespace, i->manifest->name);
                s.items[n] = i;
                s.calls[n++] = (struct kube_call){
                                .method = "PATCH",
                                .path = xasprintf("%s?fieldManager=" FIELD_MANAGER "&force=%s", path,
                                                  run->a->force_conflicts ? "true" : "false"),
                                .body = TAKE_PTR(i->body),
                                .metadata_only = true,
                };
        }
        report_ready(&s);
        int r = kube_perform(run->kube, s.calls, n, on_call, &s, err);
        kube_calls_free(s.calls, n);
        free(s.items);
        return r;
}
