/* SPDX-License-Identifier: MIT */
/* A dry run: the API itself says what would become of each object, and the difference to what it has is shown. */
#include <errno.h>
#include <string.h>

#include "apply_internal.h"

#define VALUE_MAX_BYTES 200U

/* Members that differ after every write or are not the user's. */
static bool is_noise(const char *path) {
        static const char *const paths[] = {".metadata.managedFields",
                                            ".metadata.resourceVersion",
                                            ".metadata.generation",
                                            ".metadata.uid",
                                            ".metadata.creationTimestamp",
                                            ".metadata.selfLink",
                                            ".status",
                                            NULL};
        return str_is_one_of(path, paths);
}

struct differ {
        struct buf *out;
        bool secret; /* values are not shown */
};

static void print_value(struct differ *d, const struct json *value, struct buf *b) {
        if (d->secret && json_string(value)) {
                buf_puts(b, "(not shown)");
                return;
        }
        _cleanup_free_ char *text = json_print(value, false);
        size_t len = strlen(text);
        _cleanup_free_ char *shown = str_printable(text, len < VALUE_MAX_BYTES ? len : VALUE_MAX_BYTES);
        buf_printf(b, "%s%s", shown, len > VALUE_MAX_BYTES ? "…" : "");
}

static void print_line(struct differ *d, char mark, const char *path, const struct json *before,
                       const struct json *after) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        buf_printf(d->out, "  %c %s: ", mark, shown + (*shown == '.'));
        if (before)
                print_value(d, before, d->out);
        if (before && after)
                buf_puts(d->out, " -> ");
        if (after)
                print_value(d, after, d->out);
        buf_puts(d->out, "\n");
}

static void compare(struct differ *d, const char *path, const struct json *before, const struct json *after);

static void compare_objects(struct differ *d, const char *path, const struct json *before, const struct json *after) {
        for (const struct json *m = json_first(before); m; m = json_next(m)) {
                _cleanup_free_ char *below = xasprintf("%s.%s", path, json_key(m));
                compare(d, below, m, json_get(after, json_key(m)));
        }
        for (const struct json *m = json_first(after); m; m = json_next(m)) {
                _cleanup_free_ char *below = xasprintf("%s.%s", path, json_key(m));
                if (!json_get(before, json_key(m)))
                        compare(d, below, NULL, m);
        }
}

/* Items with names are compared by name, others by position. */
static const struct json *partner(const struct json *item, size_t index, const struct json *other) {
        const char *name = json_string(json_get(item, "name"));
        if (!name)
                return json_at(other, index);
        const struct json *found = json_first(other);
        while (found && !str_eq(json_string(json_get(found, "name")), name))
                found = json_next(found);
        return found;
}

static void compare_arrays(struct differ *d, const char *path, const struct json *before, const struct json *after) {
        size_t i = 0;
        for (const struct json *m = json_first(before); m; m = json_next(m), i++) {
                const char *name = json_string(json_get(m, "name"));
                _cleanup_free_ char *below =
                                name ? xasprintf("%s[name=%s]", path, name) : xasprintf("%s[%zu]", path, i);
                compare(d, below, m, partner(m, i, after));
        }
        i = 0;
        for (const struct json *m = json_first(after); m; m = json_next(m), i++) {
                const char *name = json_string(json_get(m, "name"));
                _cleanup_free_ char *below =
                                name ? xasprintf("%s[name=%s]", path, name) : xasprintf("%s[%zu]", path, i);
                if (!partner(m, i, before))
                        compare(d, below, NULL, m);
        }
}

static void compare(struct differ *d, const char *path, const struct json *before, const struct json *after) {
        if (is_noise(path))
                return;
        if (json_is_object(before) && json_is_object(after))
                compare_objects(d, path, before, after);
        else if (json_is_array(before) && json_is_array(after))
                compare_arrays(d, path, before, after);
        else if (!before || !after)
                print_line(d, before ? '-' : '+', path, before, after);
        else {
                _cleanup_free_ char *a = json_print(before, false), *b = json_print(after, false);
                if (!str_eq(a, b))
                        print_line(d, '~', path, before, after);
        }
}

char *apply_diff(const struct json *before, const struct json *after) {
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        struct differ d = {.out = &out, .secret = str_eq(json_string(json_get(after, "kind")), "Secret")};
        compare(&d, "", before, after);
        return out.len > 0 ? buf_take(&out) : NULL;
}

/* Whether the object lies in what the same manifests would make first: the API cannot try that. */
static bool waits_for_another(const struct run *run, const struct item *i) {
        for (size_t j = 0; j < run->n; j++) {
                const struct item *other = &run->items[j];
                if (other->wave != WAVE_FOUNDATIONS || other->result != APPLY_CREATED)
                        continue;
                const struct json *o = other->manifest->object;
                if (str_eq(other->manifest->kind, "Namespace") && str_eq(other->manifest->name, i->namespace))
                        return true;
                if (str_eq(json_string(json_get(o, "spec", "names", "kind")), i->manifest->kind))
                        return true;
        }
        return false;
}

static void preview_item(struct run *run, struct item *i, struct kube_call *now, struct kube_call *then) {
        _cleanup_free_ char *diff = NULL;
        i->over = true;
        bool absent = now->result == -ENOENT;
        if (then->result == -ENOENT && waits_for_another(run, i))
                i->result = APPLY_CREATED;
        else if (then->result < 0 || (now->result < 0 && !absent)) {
                i->result = APPLY_FAILED;
                send_failed(i, then->result < 0 ? then : now);
                run_fail(run, i);
                return;
        } else if (absent)
                i->result = APPLY_CREATED;
        else {
                diff = apply_diff(now->answer, then->answer);
                i->result = diff ? APPLY_CONFIGURED : APPLY_UNCHANGED;
        }
        run_report(run, i, diff);
}

int preview_wave(struct run *run, enum wave wave, struct error *err) {
        struct kube_call *calls = xcalloc(2 * run->n, sizeof(*calls));
        struct item **items = xcalloc(run->n, sizeof(*items));
        size_t n = 0;
        for (size_t j = 0; j < run->n; j++) {
                struct item *i = &run->items[j];
                if (i->wave != wave)
                        continue;
                if (i->over) { /* of a kind that will not be there */
                        run_fail(run, i);
                        continue;
                }
                if (!i->resource) { /* of a kind that would be there by then */
                        i->result = APPLY_CREATED;
                        i->over = true;
                        run_report(run, i, NULL);
                        continue;
                }
                _cleanup_free_ char *path = resource_path(i->resource, i->namespace, i->manifest->name);
                calls[2 * n] = (struct kube_call){.path = xstrdup(path)};
                calls[2 * n + 1] = (struct kube_call){
                                .method = "PATCH",
                                .path = xasprintf("%s?fieldManager=" FIELD_MANAGER "&force=%s&dryRun=All", path,
                                                  run->a->force_conflicts ? "true" : "false"),
                                .body = TAKE_PTR(i->body),
                };
                items[n++] = i;
        }
        int r = kube_perform(run->kube, calls, 2 * n, NULL, NULL, err);
        for (size_t j = 0; r == 0 && j < n; j++)
                preview_item(run, items[j], &calls[2 * j], &calls[2 * j + 1]);
        kube_calls_free(calls, 2 * n);
        free(items);
        return r;
}
