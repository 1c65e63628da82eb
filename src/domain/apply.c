/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/rollout.h>

#include "apply_internal.h"

#define ROLLOUT_TIMEOUT_MS (300U * 1000)
#define FOUNDATION_TIMEOUT_MS (60U * 1000)
#define FOUNDATION_POLL_MS 200U
#define PROBLEMS_SHOWN 10U

const char *apply_result_string(enum apply_result r) {
        static const char *const names[APPLY_RESULTS] = {"created", "configured", "unchanged", "pruned", "failed"};
        return names[r];
}

void run_report(struct run *run, struct item *i, const char *diff) {
        run->counts[i->result]++;
        const struct apply_event e = {
                        .title = i->title,
                        .namespace = i->namespace,
                        .result = i->result,
                        .problem = i->result == APPLY_FAILED ? i->error.message : NULL,
                        .diff = diff,
        };
        if (run->a->on_object)
                run->a->on_object(&e, run->a->userdata);
}

void run_fail(struct run *run, struct item *i) {
        if (run->counts[APPLY_FAILED] < PROBLEMS_SHOWN)
                buf_printf(&run->problems, "%s\n", i->error.message);
        run_report(run, i, NULL);
        /* The first one that can be mended by a command says so. */
        if (!run->first_error.message || (!run->first_error.hint && i->error.hint))
                err_move(&run->first_error, &i->error);
}

static void fail_unknown(struct run *run, struct item *i, struct error *cause) {
        err_move(&i->error, cause);
        _cleanup_free_ char *versions =
                        discovery_versions_of(run->discovery, i->manifest->api_version, i->manifest->kind);
        _cleanup_free_ char *place = manifest_where(i->manifest, versions ? ".apiVersion" : ".kind");
        err_wrap(&i->error, -1, "%s: %s", place, i->title);
        if (versions)
                err_hint(&i->error, "this cluster has it in apiVersion: %s", versions);
        else
                err_hint(&i->error, "apply its CustomResourceDefinition as well, or correct kind or apiVersion; what "
                                    "there is: k3s-vm kubectl api-resources");
        i->result = APPLY_FAILED;
        i->over = true;
}

/* Whether the manifests bring the kind themselves. */
static const struct item *definition_of(const struct run *run, const struct item *i) {
        const char *group = i->manifest->api_version;
        for (size_t j = 0; j < run->n; j++) {
                const struct json *spec = json_get(run->items[j].manifest->object, "spec");
                const char *defined = json_string(json_get(spec, "group"));
                if (str_eq(run->items[j].manifest->kind, "CustomResourceDefinition") && defined &&
                    str_starts(group, defined) && group[strlen(defined)] == '/' &&
                    str_eq(json_string(json_get(spec, "names", "kind")), i->manifest->kind))
                        return &run->items[j];
        }
        return NULL;
}

/* Finds the resources of the waves from @wave on; what is still missing then, and will not come, has failed. */
static int resolve(struct run *run, enum wave wave, bool *ret_missing, struct error *err) {
        _cleanup_strv_ struct strv versions = {0};
        for (size_t j = 0; j < run->n; j++)
                if (run->items[j].wave >= wave && !strv_contains(&versions, run->items[j].manifest->api_version))
                        strv_push(&versions, run->items[j].manifest->api_version);
        int r = discovery_ask(run->discovery, &versions, err);
        *ret_missing = false;
        for (size_t j = 0; r == 0 && j < run->n; j++) {
                struct item *i = &run->items[j];
                _cleanup_error_ struct error cause = ERROR_INIT;
                if (i->resource || i->over)
                        continue;
                int found = item_resolve(run, i, &cause);
                if (found == -ENOENT && definition_of(run, i))
                        *ret_missing = true;
                else if (found == -ENOENT)
                        fail_unknown(run, i, &cause);
                else if (found < 0) {
                        err_move(err, &cause);
                        r = found;
                }
        }
        return r;
}

/* One of the new definitions that is not established yet; NULL: none. */
static int find_unestablished(struct run *run, const struct item **ret, struct error *err) {
        *ret = NULL;
        for (size_t j = 0; j < run->n && !*ret; j++) {
                const struct item *i = &run->items[j];
                if (!str_eq(i->manifest->kind, "CustomResourceDefinition") ||
                    (i->result != APPLY_CREATED && i->result != APPLY_CONFIGURED))
                        continue;
                _cleanup_kube_call_ struct kube_call call = {
                                .path = resource_path(i->resource, NULL, i->manifest->name)};
                int r = kube_perform_one(run->kube, &call, err);
                if (r < 0)
                        return err_wrap(err, r, "cannot follow %s", i->title);
                if (!kube_condition_is(kube_condition(call.answer, "Established"), "True"))
                        *ret = i;
        }
        return 0;
}

/* The API versions of objects whose kind is only now to be found are asked for again. @ret: a definition that they
 * wait for; NULL: none is missing that can still come. */
static int find_new_kinds(struct run *run, const struct item **ret, struct error *err) {
        *ret = NULL;
        for (size_t j = 0; j < run->n; j++) {
                struct item *i = &run->items[j];
                const struct item *definition = i->resource || i->over ? NULL : definition_of(run, i);
                if (!definition || definition->result == APPLY_FAILED)
                        continue;
                *ret = definition;
                discovery_forget(run->discovery, i->manifest->api_version);
                for (size_t other = 0; other < run->n; other++)
                        if (str_eq(run->items[other].manifest->api_version, i->manifest->api_version))
                                run->items[other].resource = NULL;
        }
        bool missing = false;
        int r = *ret ? resolve(run, WAVE_OTHERS, &missing, err) : 0;
        if (!missing)
                *ret = NULL;
        return r;
}

/* Waits until the definitions are established, and their kinds can be found. */
static int wait_for_definitions(struct run *run, struct error *err) {
        for (uint64_t deadline = now_ms() + FOUNDATION_TIMEOUT_MS;;) {
                const struct item *waiting = NULL;
                int r = find_unestablished(run, &waiting, err);
                if (r == 0 && !waiting)
                        r = find_new_kinds(run, &waiting, err);
                if (r < 0 || !waiting)
                        return r;
                if (now_ms() > deadline) {
                        r = err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s is not established after a minute",
                                    waiting->title);
                        err_hint(err, "k3s-vm kubectl describe crd %s", waiting->manifest->name);
                        return r;
                }
                r = interrupt_wait(-1, FOUNDATION_POLL_MS, err);
                if (r < 0)
                        return r;
        }
}

/* Those without a resource, by now. */
static void give_up_missing(struct run *run) {
        for (size_t j = 0; j < run->n; j++) {
                struct item *i = &run->items[j];
                _cleanup_error_ struct error cause = ERROR_INIT;
                if (i->over || i->resource || run->a->dry_run)
                        continue;
                item_resolve(run, i, &cause);
                fail_unknown(run, i, &cause);
        }
}

static int send_all(struct run *run, struct error *err) {
        bool missing = false;
        int r = resolve(run, WAVE_FOUNDATIONS, &missing, err);
        if (r == 0)
                r = record_gather(run, err);
        for (enum wave wave = WAVE_FOUNDATIONS; r == 0 && wave < WAVES; wave++) {
                if (wave == WAVE_OTHERS && !run->a->dry_run)
                        r = wait_for_definitions(run, err);
                if (wave == WAVE_OTHERS)
                        give_up_missing(run);
                if (r == 0)
                        r = run->a->dry_run ? preview_wave(run, wave, err) : send_wave(run, wave, err);
        }
        return r;
}

/* @skip: they are only noted as unfinished. */
static int wait_for_rollouts(struct run *run, bool skip, struct error *err) {
        struct rollout *rollouts = xcalloc(run->n, sizeof(*rollouts));
        struct item **items = xcalloc(run->n, sizeof(*items));
        size_t n = 0;
        for (size_t j = 0; j < run->n; j++) {
                struct item *i = &run->items[j];
                if (!rollout_follows(i->manifest->api_version, i->manifest->kind) || i->result == APPLY_FAILED)
                        continue;
                /* The record only has it if it came to its end, and nothing changed since. */
                if (i->result == APPLY_UNCHANGED && record_holds(run, i))
                        continue;
                i->unfinished = true;
                rollouts[n] = (struct rollout){.title = i->title,
                                               .path = resource_path(i->resource, i->namespace, i->manifest->name)};
                items[n++] = i;
        }
        unsigned timeout_ms = run->a->timeout_ms ? run->a->timeout_ms : ROLLOUT_TIMEOUT_MS;
        int r = skip ? 0 : rollout_wait(run->kube, rollouts, n, timeout_ms, run->a->progress, err);
        for (size_t j = 0; j < n; j++) {
                items[j]->unfinished = !rollouts[j].done;
                if (rollouts[j].done) {
                        free(items[j]->version);
                        items[j]->version = xstrdup(
                                        json_string(json_get(rollouts[j].object, "metadata", "resourceVersion")));
                }
                rollout_clear(&rollouts[j]);
        }
        free(rollouts);
        free(items);
        return r;
}

/* The error for objects that could not be applied: one line each, and what mends the first. */
static int failures(struct run *run, struct error *err) {
        size_t failed = run->counts[APPLY_FAILED], all = 0;
        for (size_t i = 0; i < APPLY_RESULTS; i++)
                all += run->counts[i];
        if (failed > PROBLEMS_SHOWN)
                buf_printf(&run->problems, "and %zu more\n", failed - PROBLEMS_SHOWN);
        int r = err_set(err, ERR_FAILED, EINVAL, "%zu of %zu object%s could not be applied%s", failed, all,
                        all == 1 ? "" : "s", failed < all ? "; the others are" : "");
        err_detail(err, buf_str(&run->problems));
        if (run->first_error.hint)
                err_hint(err, "%s", run->first_error.hint);
        else
                err_hint(err, "correct the manifests, then: k3s-vm apply");
        return r;
}

static int run_all(struct run *run, struct error *err) {
        const struct apply *a = run->a;
        int r = items_make(a, &run->items, &run->n, err);
        if (r == 0)
                r = kube_new(a->kubeconfig, &run->kube, err);
        if (r < 0)
                return r;
        run->discovery = discovery_new(run->kube);
        r = send_all(run, err);
        if (r < 0)
                return r;
        if (a->prune && run->counts[APPLY_FAILED] == 0)
                r = prune(run, err);
        bool failed = run->counts[APPLY_FAILED] > 0;
        if (r == 0 && !a->dry_run)
                r = wait_for_rollouts(run, a->no_wait || failed, err);
        /* What is right is remembered even where something else is wrong. */
        if (r != -ECANCELED && !a->dry_run) {
                int kept = record_write(run, r < 0 || failed ? NULL : err);
                r = r < 0 || failed ? r : kept;
        }
        return r == 0 && failed ? failures(run, err) : r;
}

int apply_run(const struct apply *a, size_t ret_counts[static APPLY_RESULTS], struct error *err) {
        for (size_t i = 0; i < APPLY_RESULTS; i++)
                ret_counts[i] = 0;
        struct run run = {.a = a, .counts = ret_counts, .problems = BUF_INIT(65536)};
        int r = run_all(&run, err);
        items_free(run.items, run.n);
        discovery_free(run.discovery);
        kube_free(run.kube);
        record_clear(&run.record);
        json_free(run.known);
        error_clear(&run.first_error);
        buf_free(&run.problems);
        return r;
}
