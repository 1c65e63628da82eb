/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/guest_nixos.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/payload.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/upgrade.h>
#include <k3s-vm/versions.h>

#include "lifecycle_internal.h"

#define SNAPSHOT ".upgrade"
#define PODS_TIMEOUT_MS (5U * 60 * 1000)
#define PODS_INTERVAL_MS 1000U
#define API_TIMEOUT_MS 10000U
#define NOTE_MAX 65536U

/* What upgrade.json holds. */
struct note {
        struct payload old;
        char *wanted;
        uint64_t pods; /* that were ready before */
};

static void note_clear(struct note *n) {
        payload_clear(&n->old);
        free(n->wanted);
}

static char *note_path(const struct lifecycle *l) {
        return path_join(l->project->vm_dir, "upgrade.json");
}

static int note_write(const struct lifecycle *l, const struct note *n, struct error *err) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "name", n->old.name);
        json_set_string(j, "version", n->old.version);
        json_set_string(j, "description", n->old.description);
        json_set_string(j, "path", n->old.image_path);
        json_set_string(j, "wanted", n->wanted);
        json_set_number(j, "pods", (double)n->pods);
        _cleanup_free_ char *path = note_path(l), *text = json_print(j, true);
        return fs_write_atomic(path, text, strlen(text), 0600, err);
}

static bool note_read(const struct lifecycle *l, struct note *ret) {
        _cleanup_free_ char *path = note_path(l);
        _cleanup_json_ struct json *j = NULL;
        if (json_read_file(path, NOTE_MAX, &j, NULL) < 0)
                return false;
        *ret = (struct note){.old = {.name = xstrdup(json_string(json_get(j, "name"))),
                                     .version = xstrdup(json_string(json_get(j, "version"))),
                                     .description = xstrdup(json_string(json_get(j, "description"))),
                                     .image_path = xstrdup(json_string(json_get(j, "path")))},
                             .wanted = xstrdup(json_string(json_get(j, "wanted"))),
                             .pods = json_u64_or(json_get(j, "pods"), 0)};
        if (ret->old.image_path && ret->wanted)
                return true;
        note_clear(ret);
        return false;
}

/* Workloads. */

/* Whether all of its containers run and are ready, none of them since before @since (RFC 3339; NULL: whenever). After a
 * boot the API shows pods as they were, until their kubelet has seen to them. */
static bool pod_is_ready(const struct json *pod, const char *since) {
        if (!kube_condition_is(kube_condition(pod, "Ready"), "True"))
                return false;
        for (const struct json *c = json_first(json_get(pod, "status", "containerStatuses")); c; c = json_next(c)) {
                const char *started = json_string(json_get(c, "state", "running", "startedAt"));
                if (!started || (since && strcmp(started, since) < 0))
                        return false;
        }
        return true;
}

/* How many pods are ready. */
static int count_pods(const struct lifecycle *l, const char *since, uint64_t *ret, struct error *err) {
        _cleanup_free_ char *path = kubeconfig_path(l->project, l->config);
        _cleanup_kubeconfig_ struct kubeconfig *kubeconfig = NULL;
        _cleanup_kube_ struct kube *kube = NULL;
        _cleanup_kube_call_ struct kube_call call = {.path = xstrdup("/api/v1/pods"), .timeout_ms = API_TIMEOUT_MS};
        int r = kubeconfig_read(path, &kubeconfig, err);
        if (r == 0)
                r = kube_new(kubeconfig, &kube, err);
        if (r == 0)
                r = kube_perform_one(kube, &call, err);
        if (r < 0)
                return r;
        *ret = 0;
        for (const struct json *pod = json_first(json_get(call.answer, "items")); pod; pod = json_next(pod))
                *ret += pod_is_ready(pod, since);
        return 0;
}

/* As many pods as before are to be ready again, whatever they are called now. */
static int wait_pods(const struct lifecycle *l, const struct state *s, uint64_t wanted, struct error *err) {
        _cleanup_free_ char *since = time_rfc3339((time_t)(s->started_ms / 1000));
        struct progress_phase *phase = progress_begin(l->progress, "pods", "waiting for the pods");
        uint64_t deadline = now_ms() + (l->timeout_ms ? l->timeout_ms : PODS_TIMEOUT_MS), ready = 0;
        int r = 0;
        while (r == 0) {
                _cleanup_error_ struct error why = ERROR_INIT;
                if (count_pods(l, since, &ready, &why) < 0)
                        progress_debug(l->progress, "%s", why.message);
                progress_update(l->progress, phase, NULL, ready, wanted, "ready");
                if (ready >= wanted)
                        break;
                if (now_ms() >= deadline) {
                        r = err_set(err, ERR_TIMEOUT, ETIMEDOUT,
                                    "the cluster is up with %s, but only %llu of the %llu pods that were ready are so "
                                    "again",
                                    s->payload_version, (unsigned long long)ready, (unsigned long long)wanted);
                        err_hint(err, "look at them: k3s-vm kubectl get pods -A");
                        break;
                }
                r = interrupt_wait(-1, PODS_INTERVAL_MS, err);
        }
        progress_end(l->progress, phase, r == 0, r == 0 ? "%llu pods are ready" : NULL, (unsigned long long)ready);
        return r;
}

/* The swap and its two ends. */

static int set_payload(const struct lifecycle *l, struct state *s, const struct payload *p, struct error *err) {
        free(s->payload_name);
        free(s->payload_version);
        free(s->payload_description);
        free(s->payload_path);
        s->payload_name = xstrdup(p->name);
        s->payload_version = xstrdup(p->version);
        s->payload_description = xstrdup(p->description);
        s->payload_path = xstrdup(p->image_path);
        return state_save(l->project, s, err);
}

/* The mark in the disk first: while the note is there this can be repeated. */
static void forget(const struct lifecycle *l, const struct state *s) {
        _cleanup_free_ char *path = note_path(l);
        _cleanup_error_ struct error why = ERROR_INIT;
        int r = lifecycle_snapshot_delete(l, s, SNAPSHOT, &why);
        if (r < 0 && r != -ENOENT)
                progress_warn(l->progress, "the disk's snapshot of before the upgrade stays: %s", why.message);
        fs_unlink(path, NULL);
}

/* @ret_back: disk and payload are what they were, whether they come up or not. */
static int take_back(const struct lifecycle *l, struct state *s, const struct note *n, bool *ret_back,
                     struct error *err) {
        bool was_running = false;
        struct progress_phase *phase = progress_begin(l->progress, "back", "going back to %s", n->old.version);
        int r = lifecycle_snapshot_restore(l, s, SNAPSHOT, &was_running, err);
        if (r == 0)
                r = set_payload(l, s, &n->old, err);
        progress_end(l->progress, phase, r == 0, NULL);
        if (r < 0)
                return r;
        forget(l, s);
        *ret_back = true;
        return lifecycle_start(l, s, &was_running, err);
}

/* Boots what was put in, and goes back where that does not come up. */
static int complete(const struct lifecycle *l, struct state *s, const struct note *n, struct error *err) {
        bool was_running = false;
        _cleanup_error_ struct error failure = ERROR_INIT, worse = ERROR_INIT;
        int r = lifecycle_start(l, s, &was_running, &failure);
        if (r == -ECANCELED) {
                err_move(err, &failure);
                err_hint(err, "the upgrade to %s is under way; go on with it, or back if it fails: k3s-vm upgrade",
                         s->payload_version);
                return r;
        }
        if (r < 0) {
                _cleanup_free_ char *new = xstrdup(s->payload_version);
                bool back = false, up = take_back(l, s, n, &back, &worse) == 0;
                err_move(err, &failure);
                if (!up) {
                        err_wrap(err, r, "the upgrade to %s failed%s, and with %s the cluster is not up either (%s)",
                                 new, back ? " and was taken back" : "", n->old.version, worse.message);
                        err_hint(err, "try that again: k3s-vm %s", back ? "start" : "upgrade");
                        return r;
                }
                err_wrap(err, r, "the upgrade to %s failed and was taken back: the cluster is up with %s again", new,
                         n->old.version);
                err_hint(err,
                         "nothing was lost, and K3S_VERSION is what it was; what the guest said: k3s-vm logs serial");
                return r;
        }
        forget(l, s);
        _cleanup_free_ char *assignment = xasprintf("K3S_VERSION=%s", n->wanted);
        r = config_set(l->project, (const char *const[]){assignment, NULL}, err);
        return r < 0 ? r : wait_pods(l, s, n->pods, err);
}

/* Down, in order, with what it takes to go back. A VM that sleeps with its memory saved is woken up first. */
static int stop(const struct lifecycle *l, struct state *s, uint64_t *ret_pods, struct error *err) {
        struct lifecycle down = *l;
        down.timeout_ms = 0;
        _cleanup_process_ struct process vm = PROCESS_INIT;
        bool was_running = false;
        bool runs = vm_find(l->project, s, &vm, NULL) == 0 || suspend_exists(l->project);
        int r = runs ? lifecycle_start(l, s, &was_running, err) : lifecycle_check_ports(l, s, err);
        if (r < 0)
                return err_wrap(err, r, "the cluster is not well as it is");
        if (runs && count_pods(l, NULL, ret_pods, NULL) < 0)
                *ret_pods = 0;
        if (runs)
                r = lifecycle_stop(&down, s, STOP_SHUTDOWN, err);
        if (r == 0)
                lifecycle_snapshot_delete(l, s, SNAPSHOT, NULL);
        return r < 0 ? r : lifecycle_snapshot_save(l, s, SNAPSHOT, err);
}

/* What @wanted is, fetched, if it may take the place of what there is. 1: it is the same. */
static int choose(const struct lifecycle *l, const struct state *s, const char *wanted, struct payload *ret,
                  struct error *err) {
        _cleanup_payload_choice_ struct payload_choice choice = {0};
        struct config config = *l->config;
        config.k3s_version = (char *)(uintptr_t)wanted;
        int r = payload_resolve(l->project, &config, l->progress, &choice, err);
        if (r < 0)
                return r;
        if (choice.kind == PAYLOAD_NONE || (choice.kind == PAYLOAD_OFFLINE && !str_eq(wanted, "offline"))) {
                r = choice.kind == PAYLOAD_NONE
                                    ? err_set(err, ERR_USAGE, EINVAL, "K3S_VERSION=%s is nothing to upgrade to", wanted)
                                    : err_set(err, ERR_FAILED, ENETUNREACH,
                                              "K3S_VERSION=%s leads to no release that can be had now", wanted);
                err_hint(err, "k3s-vm upgrade --k3s with a version such as v1.33.5+k3s1 or the path of a k3s binary");
                return r;
        }
        if (choice.kind == PAYLOAD_RELEASE)
                r = versions_check_upgrade(s->payload_version, choice.version, err);
        if (r == 0)
                r = lifecycle_fetch_payload(l, &choice, ret, err);
        if (r != 0)
                return r;
        if (!str_eq(ret->name, s->payload_name)) {
                r = err_set(err, ERR_USAGE, EINVAL, "a cluster of %s (%s) cannot become one of %s", s->payload_name,
                            s->payload_version, ret->name);
                err_hint(err,
                         "a new cluster, losing what is in this one: k3s-vm configure K3S_VERSION=%s && k3s-vm reset",
                         wanted);
                return r;
        }
        return str_eq(ret->image_path, s->payload_path) ? 1
                                                        : versions_check_upgrade(s->payload_version, ret->version, err);
}

int upgrade_vm(const struct lifecycle *l, struct state *s, const char *wanted, enum upgrade_result *ret,
               struct error *err) {
        _cleanup_(note_clear) struct note note = {0};
        *ret = UPGRADE_DONE;
        if (note_read(l, &note) && str_eq(s->payload_path, note.old.image_path)) {
                /* It had not got to the swap. */
                forget(l, s);
                note_clear(&note);
                note = (struct note){0};
        } else if (note.wanted) {
                progress_note(l->progress, "the upgrade to %s was interrupted; going on with it", s->payload_version);
                return complete(l, s, &note, err);
        }
        if (!s->payload_path) {
                int r = err_set(err, ERR_STATE, EINVAL, "this VM's Kubernetes cannot be exchanged: %s",
                                s->payload_name ? "it is built into the guest" : "it has none");
                if (guest_nixos_made(l->project))
                        err_hint(err,
                                 "name a newer one in .k3s-vm/configuration.nix (services.k3s.package), then: k3s-vm "
                                 "restart");
                else
                        err_hint(err, "a new VM, losing what is in this one: k3s-vm reset");
                return r;
        }
        _cleanup_payload_ struct payload new = {0};
        int r = choose(l, s, wanted, &new, err);
        if (r == 1) {
                *ret = UPGRADE_SAME;
                return 0;
        }
        if (r == 0)
                r = stop(l, s, &note.pods, err);
        if (r < 0)
                return r;
        note.wanted = xstrdup(wanted);
        note.old = (struct payload){.name = xstrdup(s->payload_name),
                                    .version = xstrdup(s->payload_version),
                                    .description = xstrdup(s->payload_description),
                                    .image_path = xstrdup(s->payload_path)};
        r = note_write(l, &note, err);
        if (r == 0)
                r = set_payload(l, s, &new, err);
        return r < 0 ? r : complete(l, s, &note, err);
}
