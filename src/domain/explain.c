/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <string.h>

#include <k3s-vm/explain.h>

#define EVENTS_SHOWN 5U
#define LOG_LINES 10U
#define LINE_MAX_BYTES 300U
#define RESTARTS_HOPELESS 4U

/* Selectors. */

static void add_term(struct buf *b, const char *fmt, ...) _printf_(2, 3);
static void add_term(struct buf *b, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        if (b->len > 0)
                buf_puts(b, ",");
        buf_vprintf(b, fmt, ap);
        va_end(ap);
}

/* One of matchExpressions, as the query takes it. */
static void add_expression(struct buf *b, const struct json *e) {
        const char *key = json_string_or(json_get(e, "key"), ""), *op = json_string_or(json_get(e, "operator"), "");
        _cleanup_strv_ struct strv values = {0};
        for (const struct json *v = json_first(json_get(e, "values")); v; v = json_next(v))
                strv_push(&values, json_string_or(v, ""));
        _cleanup_free_ char *list = strv_join(&values, ",");
        if (str_eq(op, "Exists"))
                add_term(b, "%s", key);
        else if (str_eq(op, "DoesNotExist"))
                add_term(b, "!%s", key);
        else if (str_eq(op, "In") || str_eq(op, "NotIn"))
                add_term(b, "%s %s (%s)", key, str_eq(op, "In") ? "in" : "notin", list ? list : "");
}

char *explain_pods_path(const struct json *workload) {
        const char *namespace = json_string(json_get(workload, "metadata", "namespace"));
        const struct json *selector = json_get(workload, "spec", "selector");
        _cleanup_buf_ struct buf b = BUF_INIT(65536);
        for (const struct json *l = json_first(json_get(selector, "matchLabels")); l; l = json_next(l))
                add_term(&b, "%s=%s", json_key(l), json_string_or(l, ""));
        for (const struct json *e = json_first(json_get(selector, "matchExpressions")); e; e = json_next(e))
                add_expression(&b, e);
        if (!namespace || b.len == 0)
                return NULL;
        _cleanup_free_ char *ns = url_escape(namespace), *query = url_escape(buf_str(&b));
        return xasprintf("/api/v1/namespaces/%s/pods?labelSelector=%s", ns, query);
}

/* Trouble. */

/* The longer one waits for it the less it helps; 0: that is how pods start. */
static unsigned weight_of(const char *reason) {
        static const char *const never[] = {"ErrImageNeverPull", "InvalidImageName", NULL};
        static const char *const stuck[] = {
                        "ImagePullBackOff",  "ErrImagePull",     "CreateContainerConfigError", "CreateContainerError",
                        "RunContainerError", "CrashLoopBackOff", "RegistryUnavailable",        NULL};
        return str_is_one_of(reason, never) ? 3 : str_is_one_of(reason, stuck) ? 2 : 0;
}

static unsigned look_at_containers(const struct json *pod, const struct json *statuses, struct pod_trouble *ret) {
        unsigned worst = 0;
        for (const struct json *c = json_first(statuses); c; c = json_next(c)) {
                const struct json *waiting = json_get(c, "state", "waiting");
                const struct json *ended = json_get(c, "state", "terminated");
                const struct json *state = waiting ? waiting : ended;
                const char *reason = json_string_or(json_get(state, "reason"), "");
                uint64_t restarts = json_u64_or(json_get(c, "restartCount"), 0);
                unsigned weight = weight_of(reason);
                if (ended && json_u64_or(json_get(ended, "exitCode"), 0) != 0)
                        weight = 2;
                if (weight <= worst)
                        continue;
                worst = weight;
                *ret = (struct pod_trouble){
                                .pod = pod,
                                .container = json_string_or(json_get(c, "name"), "?"),
                                .image = json_string_or(json_get(c, "image"), "?"),
                                .reason = reason,
                                .message = json_string(json_get(state, "message")),
                                .restarts = restarts,
                                .hopeless = weight == 3 ||
                                            (str_eq(reason, "CrashLoopBackOff") && restarts >= RESTARTS_HOPELESS),
                };
        }
        return worst;
}

static unsigned look_at_pod(const struct json *pod, struct pod_trouble *ret) {
        struct pod_trouble other = {0};
        unsigned worst = look_at_containers(pod, json_get(pod, "status", "initContainerStatuses"), ret);
        unsigned weight = look_at_containers(pod, json_get(pod, "status", "containerStatuses"), &other);
        if (weight > worst) {
                *ret = other;
                worst = weight;
        }
        const struct json *scheduled = kube_condition(pod, "PodScheduled");
        if (worst == 0 && kube_condition_is(scheduled, "False")) {
                worst = 1;
                *ret = (struct pod_trouble){
                                .pod = pod,
                                .reason = json_string_or(json_get(scheduled, "reason"), "Unschedulable"),
                                .message = json_string(json_get(scheduled, "message")),
                };
        }
        return worst;
}

void explain_trouble(const struct json *pods, struct pod_trouble *ret) {
        unsigned worst = 0;
        *ret = (struct pod_trouble){0};
        for (const struct json *pod = json_first(json_get(pods, "items")); pod; pod = json_next(pod)) {
                /* One that is on its way out says nothing about the new ones. */
                if (json_get(pod, "metadata", "deletionTimestamp"))
                        continue;
                struct pod_trouble t = {0};
                unsigned weight = look_at_pod(pod, &t);
                if (weight > worst) {
                        worst = weight;
                        *ret = t;
                }
        }
}

/* The screen. */

static void add_line(struct buf *b, const char *prefix, const char *text, size_t len) {
        _cleanup_free_ char *line = str_printable(text, len < LINE_MAX_BYTES ? len : LINE_MAX_BYTES);
        buf_printf(b, "%s%s%s\n", prefix, line, len > LINE_MAX_BYTES ? "…" : "");
}

static void add_lines(struct buf *b, const char *prefix, const char *text) {
        while (*text) {
                size_t n = strcspn(text, "\n");
                if (n > 0)
                        add_line(b, prefix, text, n);
                text += n + (text[n] == '\n');
        }
}

static const char *event_time(const struct json *e) {
        const char *t = json_string(json_get(e, "lastTimestamp"));
        return t ? t : json_string_or(json_get(e, "eventTime"), "");
}

static int compare_events(const void *a, const void *b) {
        return strcmp(event_time(*(const struct json *const *)b), event_time(*(const struct json *const *)a));
}

static void add_events(struct kube *k, const struct json *object, struct buf *b) {
        const char *namespace = json_string_or(json_get(object, "metadata", "namespace"), "default");
        const char *uid = json_string_or(json_get(object, "metadata", "uid"), "");
        _cleanup_free_ char *ns = url_escape(namespace), *id = url_escape(uid);
        _cleanup_kube_call_ struct kube_call call = {
                        .path = xasprintf("/api/v1/namespaces/%s/events?fieldSelector=involvedObject.uid%%3D%s", ns,
                                          id)};
        if (kube_perform_one(k, &call, NULL) < 0)
                return;
        const struct json *items = json_get(call.answer, "items");
        size_t n = json_is_array(items) ? json_len(items) : 0, i = 0;
        if (n == 0)
                return;
        _cleanup_free_ const struct json **sorted = xcalloc(n, sizeof(const struct json *));
        for (const struct json *e = json_first(items); e; e = json_next(e))
                sorted[i++] = e;
        qsort(sorted, n, sizeof(*sorted), compare_events);
        buf_puts(b, "last events:\n");
        for (size_t shown = n < EVENTS_SHOWN ? n : EVENTS_SHOWN; shown > 0; shown--) {
                const struct json *e = sorted[shown - 1];
                _cleanup_free_ char *text =
                                xasprintf("%s %s: %s", event_time(e), json_string_or(json_get(e, "reason"), "?"),
                                          json_string_or(json_get(e, "message"), ""));
                for (char *p = text; *p; p++)
                        if (*p == '\n')
                                *p = ' ';
                add_line(b, "  ", text, strlen(text));
        }
}

static void add_log(struct kube *k, const struct pod_trouble *t, struct buf *b) {
        _cleanup_free_ char *ns = url_escape(json_string_or(json_get(t->pod, "metadata", "namespace"), "")),
                            *pod = url_escape(json_string_or(json_get(t->pod, "metadata", "name"), "")),
                            *container = url_escape(t->container);
        bool previous = str_eq(t->reason, "CrashLoopBackOff");
        _cleanup_kube_call_ struct kube_call call = {
                        .path = xasprintf("/api/v1/namespaces/%s/pods/%s/log?container=%s&tailLines=%u%s", ns, pod,
                                          container, LOG_LINES, previous ? "&previous=true" : ""),
                        .text = true};
        if (kube_perform_one(k, &call, NULL) < 0 || !call.answer_text || !*call.answer_text)
                return;
        buf_puts(b, "last lines of its log:\n");
        add_lines(b, "  ", call.answer_text);
}

static void hint_for(const struct pod_trouble *t, struct error *err) {
        const char *namespace = json_string_or(json_get(t->pod, "metadata", "namespace"), "default");
        const char *name = json_string_or(json_get(t->pod, "metadata", "name"), "");
        static const char *const image[] = {"ImagePullBackOff", "ErrImagePull",        "ErrImageNeverPull",
                                            "InvalidImageName", "RegistryUnavailable", NULL};
        _cleanup_free_ char *shown = str_printable(t->image ? t->image : "", t->image ? strlen(t->image) : 0);
        if (str_is_one_of(t->reason, image))
                err_hint(err,
                         "the image %s is neither in the VM nor to be had from its registry; bring it in from a file:\n"
                         "k3s-vm load IMAGE.tar   (docker save %s -o IMAGE.tar)",
                         shown, shown);
        else if (!t->container)
                err_hint(err,
                         "give the VM more with k3s-vm configure VM_CPUS=… VM_MEMORY=…, or ask for less in the "
                         "manifest\nk3s-vm kubectl describe pod %s -n %s",
                         name, namespace);
        else if (str_starts(t->reason, "CreateContainer"))
                err_hint(err, "correct what the manifest refers to, and apply it again: k3s-vm apply");
        else
                err_hint(err,
                         "correct the program or its arguments; all of its log:\n"
                         "k3s-vm kubectl logs %s -n %s -c %s --previous",
                         name, namespace, t->container);
}

/* Without a pod: why the controller makes none. */
static void explain_without_pod(struct kube *k, const struct json *workload, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        const struct json *conditions = json_get(workload, "status", "conditions");
        for (const struct json *c = json_first(conditions); c; c = json_next(c)) {
                const char *type = json_string_or(json_get(c, "type"), ""),
                           *status = json_string_or(json_get(c, "status"), "");
                /* Of these two kinds, "True" is the bad one. */
                bool bad = str_eq(status,
                                  str_starts(type, "ReplicaFailure") || str_eq(type, "Failed") ? "True" : "False");
                const char *message = json_string(json_get(c, "message"));
                if (bad && message)
                        add_line(&b, "", message, strlen(message));
        }
        add_events(k, workload, &b);
        if (b.len > 0)
                err_detail(err, buf_str(&b));
        err_hint(err, "k3s-vm kubectl get events -A --sort-by=.lastTimestamp shows more; wait longer: k3s-vm apply "
                      "--timeout 900");
}

void explain_workload(struct kube *k, const struct json *workload, struct error *err) {
        _cleanup_free_ char *path = explain_pods_path(workload);
        _cleanup_kube_call_ struct kube_call call = {.path = xstrdup(path)};
        struct pod_trouble t = {0};
        if (path && kube_perform_one(k, &call, NULL) == 0)
                explain_trouble(call.answer, &t);
        if (!t.pod) {
                explain_without_pod(k, workload, err);
                return;
        }
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        _cleanup_free_ char *head =
                        xasprintf("pod %s%s%s%s: %s%s%s", json_string_or(json_get(t.pod, "metadata", "name"), "?"),
                                  t.container ? " (container " : "", t.container ? t.container : "",
                                  t.container ? ")" : "", t.reason, t.message ? ": " : "", t.message ? t.message : "");
        add_line(&b, "", head, strlen(head));
        add_events(k, t.pod, &b);
        if (t.container)
                add_log(k, &t, &b);
        err_detail(err, buf_str(&b));
        hint_for(&t, err);
}
