/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/explain.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/rollout.h>

#define POLL_MS 500U
#define POLL_SLOW_MS 2000U
#define POLL_FAST_FOR_MS 10000U
/* So long a pod may have trouble that can go away by itself: a Secret that comes a little later, a busy registry. */
#define TROUBLE_MAX_MS 20000U

bool rollout_follows(const char *api_version, const char *kind) {
        if (str_eq(kind, "Job"))
                return str_starts(api_version, "batch/");
        return str_starts(api_version, "apps/") &&
               (str_eq(kind, "Deployment") || str_eq(kind, "StatefulSet") || str_eq(kind, "DaemonSet"));
}

/* The states of the four kinds. */

static uint64_t number(const struct json *object, const char *part, const char *member, uint64_t fallback) {
        return json_u64_or(json_get(object, part, member), fallback);
}

static enum rollout_state going(char **ret_text, char *text) {
        *ret_text = text;
        return ROLLOUT_GOING;
}

#define PODS(n) (unsigned long long)(n), (n) == 1 ? "" : "s"

static enum rollout_state check_deployment(const struct json *d, char **ret_text) {
        uint64_t wanted = number(d, "spec", "replicas", 1), all = number(d, "status", "replicas", 0),
                 updated = number(d, "status", "updatedReplicas", 0),
                 available = number(d, "status", "availableReplicas", 0);
        const struct json *progressing = kube_condition(d, "Progressing");
        if (str_eq(json_string(json_get(progressing, "reason")), "ProgressDeadlineExceeded")) {
                *ret_text = xstrdup(json_string_or(json_get(progressing, "message"), "its progress deadline is over"));
                return ROLLOUT_FAILED;
        }
        if (updated < wanted)
                return going(ret_text,
                             xasprintf("%llu of %llu new pod%s there", (unsigned long long)updated, PODS(wanted)));
        if (all > updated)
                return going(ret_text, xasprintf("%llu old pod%s still to end", PODS(all - updated)));
        if (available < updated)
                return going(ret_text,
                             xasprintf("%llu of %llu pod%s available", (unsigned long long)available, PODS(updated)));
        *ret_text = xasprintf("%llu pod%s available", PODS(available));
        return ROLLOUT_DONE;
}

static enum rollout_state check_stateful_set(const struct json *s, char **ret_text) {
        uint64_t wanted = number(s, "spec", "replicas", 1), ready = number(s, "status", "readyReplicas", 0),
                 updated = number(s, "status", "updatedReplicas", 0),
                 partition = json_u64_or(json_get(s, "spec", "updateStrategy", "rollingUpdate", "partition"), 0);
        if (ready < wanted)
                return going(ret_text, xasprintf("%llu of %llu pod%s ready", (unsigned long long)ready, PODS(wanted)));
        bool on_delete = str_eq(json_string(json_get(s, "spec", "updateStrategy", "type")), "OnDelete");
        bool all_new = str_eq(json_string(json_get(s, "status", "updateRevision")),
                              json_string(json_get(s, "status", "currentRevision")));
        uint64_t to_update = wanted > partition ? wanted - partition : 0;
        if (!on_delete && (partition > 0 ? updated < to_update : !all_new))
                return going(ret_text,
                             xasprintf("%llu of %llu pod%s new", (unsigned long long)updated, PODS(to_update)));
        *ret_text = xasprintf("%llu pod%s ready", PODS(ready));
        return ROLLOUT_DONE;
}

static enum rollout_state check_daemon_set(const struct json *d, char **ret_text) {
        uint64_t wanted = number(d, "status", "desiredNumberScheduled", 0),
                 updated = number(d, "status", "updatedNumberScheduled", 0),
                 available = number(d, "status", "numberAvailable", 0);
        bool on_delete = str_eq(json_string(json_get(d, "spec", "updateStrategy", "type")), "OnDelete");
        if (!on_delete && updated < wanted)
                return going(ret_text, xasprintf("%llu of %llu pod%s new", (unsigned long long)updated, PODS(wanted)));
        if (available < wanted)
                return going(ret_text,
                             xasprintf("%llu of %llu pod%s available", (unsigned long long)available, PODS(wanted)));
        *ret_text = xasprintf("%llu pod%s available", PODS(available));
        return ROLLOUT_DONE;
}

static enum rollout_state check_job(const struct json *j, char **ret_text) {
        const struct json *failed = kube_condition(j, "Failed");
        if (kube_condition_is(failed, "True")) {
                *ret_text = xstrdup(json_string_or(json_get(failed, "message"), "it failed"));
                return ROLLOUT_FAILED;
        }
        if (kube_condition_is(kube_condition(j, "Complete"), "True")) {
                *ret_text = xstrdup("complete");
                return ROLLOUT_DONE;
        }
        if (json_bool_or(json_get(j, "spec", "suspend"), false)) {
                *ret_text = xstrdup("suspended");
                return ROLLOUT_DONE;
        }
        uint64_t failures = number(j, "status", "failed", 0);
        return going(ret_text, failures > 0 ? xasprintf("%llu pod%s failed so far", PODS(failures))
                                            : xasprintf("%llu of %llu pod%s succeeded",
                                                        (unsigned long long)number(j, "status", "succeeded", 0),
                                                        PODS(number(j, "spec", "completions", 1))));
}

enum rollout_state rollout_check(const struct json *object, char **ret_text) {
        const char *kind = json_string_or(json_get(object, "kind"), "");
        if (str_eq(kind, "Job"))
                return check_job(object, ret_text);
        if (number(object, "status", "observedGeneration", 0) < number(object, "metadata", "generation", 0))
                return going(ret_text, xstrdup("its controller has not seen it yet"));
        if (str_eq(kind, "Deployment"))
                return check_deployment(object, ret_text);
        return str_eq(kind, "StatefulSet") ? check_stateful_set(object, ret_text) : check_daemon_set(object, ret_text);
}

/* The wait. */

void rollout_clear(struct rollout *r) {
        free(r->path);
        json_free(r->object);
        free(r->trouble);
        *r = (struct rollout){0};
}

static void say(struct progress *progress, struct rollout *r, const char *text) {
        if (!r->phase)
                r->phase = progress_begin(progress, "rollout", "%s", r->title);
        _cleanup_free_ char *line = xasprintf("%s: %s%s%s%s", r->title, text, r->trouble ? " (" : "",
                                              r->trouble ? r->trouble : "", r->trouble ? ")" : "");
        progress_update(progress, r->phase, line, 0, 0, NULL);
}

static int failed(struct kube *k, const struct rollout *r, const char *text, struct error *err) {
        int e = err_set(err, ERR_FAILED, ECHILD, "%s does not come up: %s", r->title, text);
        explain_workload(k, r->object, err);
        return e;
}

/* What one look at the object says. */
static int take_object(struct kube *k, struct rollout *r, struct kube_call *c, struct progress *progress,
                       struct error *err) {
        if (c->result == -ENOENT) {
                int e = err_set(err, ERR_FAILED, ENOENT, "%s was deleted while it rolled out", r->title);
                err_hint(err, "apply it again: k3s-vm apply");
                return e;
        }
        if (c->result < 0) {
                int e = c->result;
                err_move(err, &c->error);
                return err_wrap(err, e, "cannot follow %s", r->title);
        }
        json_free(r->object);
        r->object = TAKE_PTR(c->answer);
        _cleanup_free_ char *text = NULL;
        enum rollout_state state = rollout_check(r->object, &text);
        if (state == ROLLOUT_FAILED)
                return failed(k, r, text, err);
        r->done = state == ROLLOUT_DONE;
        /* What was done before anybody looked needs no line. */
        if (!r->done)
                say(progress, r, text);
        else if (r->phase) {
                progress_end(progress, TAKE_PTR(r->phase), 1, "%s: %s", r->title, text);
        }
        return 0;
}

/* What one look at its pods says. */
static int take_pods(struct kube *k, struct rollout *r, const struct kube_call *c, struct error *err) {
        struct pod_trouble t = {0};
        if (c->result == 0)
                explain_trouble(c->answer, &t);
        if (!str_eq(r->trouble, t.reason)) {
                free(r->trouble);
                r->trouble = xstrdup(t.reason);
                r->trouble_ms = now_ms();
        }
        if (!t.container)
                return 0; /* none, or no room for it now */
        /* A program that ends is started again, and may be waiting for another; the others do not change. */
        bool lasting = !str_eq(t.reason, "CrashLoopBackOff") && !str_eq(t.reason, "Error") &&
                       now_ms() - r->trouble_ms > TROUBLE_MAX_MS;
        return t.hopeless || lasting ? failed(k, r, t.reason, err) : 0;
}

/* Asks for all that are not done; with @pods for their pods. */
static int look(struct kube *k, struct rollout *rollouts, size_t n, bool pods, struct progress *progress,
                size_t *ret_left, struct error *err) {
        struct kube_call *calls = xcalloc(n, sizeof(*calls));
        struct rollout **asked = xcalloc(n, sizeof(*asked));
        size_t n_asked = 0, left = 0;
        for (size_t i = 0; i < n; i++) {
                if (rollouts[i].done)
                        continue;
                char *path = pods ? explain_pods_path(rollouts[i].object) : xstrdup(rollouts[i].path);
                if (!path)
                        continue;
                calls[n_asked].path = path;
                asked[n_asked++] = &rollouts[i];
        }
        int r = kube_perform(k, calls, n_asked, NULL, NULL, err);
        for (size_t i = 0; i < n_asked; i++) {
                if (r == 0)
                        r = pods ? take_pods(k, asked[i], &calls[i], err)
                                 : take_object(k, asked[i], &calls[i], progress, err);
                left += !asked[i]->done;
        }
        kube_calls_free(calls, n_asked);
        free(asked);
        *ret_left = left;
        return r;
}

static int too_long(struct kube *k, const struct rollout *rollouts, size_t n, unsigned timeout_ms, struct error *err) {
        size_t i = 0, left = 0;
        for (size_t j = n; j > 0; j--)
                if (!rollouts[j - 1].done) {
                        i = j - 1;
                        left++;
                }
        _cleanup_free_ char *limit = str_duration_ms(timeout_ms), *text = NULL, *others = NULL;
        rollout_check(rollouts[i].object, &text);
        others = left > 1 ? xasprintf("; %zu more are not done either", left - 1) : xstrdup("");
        int r = err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s is not rolled out within %s: %s%s", rollouts[i].title, limit,
                        text, others);
        explain_workload(k, rollouts[i].object, err);
        return r;
}

static int wait_all(struct kube *k, struct rollout *rollouts, size_t n, unsigned timeout_ms, struct progress *progress,
                    struct error *err) {
        uint64_t begin = now_ms();
        for (size_t left = n;;) {
                int r = look(k, rollouts, n, false, progress, &left, err);
                if (r == 0 && left > 0)
                        r = look(k, rollouts, n, true, progress, &left, err);
                if (r < 0 || left == 0)
                        return r;
                uint64_t passed = now_ms() - begin;
                if (passed >= timeout_ms)
                        return too_long(k, rollouts, n, timeout_ms, err);
                unsigned pause = passed < POLL_FAST_FOR_MS ? POLL_MS : POLL_SLOW_MS;
                if (timeout_ms - passed < pause)
                        pause = (unsigned)(timeout_ms - passed);
                r = interrupt_wait(-1, pause, err);
                if (r < 0)
                        return r;
        }
}

int rollout_wait(struct kube *k, struct rollout *rollouts, size_t n, unsigned timeout_ms, struct progress *progress,
                 struct error *err) {
        int r = n > 0 ? wait_all(k, rollouts, n, timeout_ms, progress, err) : 0;
        for (size_t i = 0; i < n; i++)
                if (rollouts[i].phase)
                        progress_end(progress, TAKE_PTR(rollouts[i].phase), 0, NULL);
        return r;
}
