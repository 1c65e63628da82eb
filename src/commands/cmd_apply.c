/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include <k3s-vm/apply.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/pod_env.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/ui.h>
#include <k3s-vm/up.h>
#include <k3s-vm/web_service.h>

struct output {
        const struct context *ctx;
        struct json *objects; /* with --json */
        bool dry_run;
};

static void print_object(const struct output *o, const struct apply_event *e) {
        static const enum ui_style styles[APPLY_RESULTS] = {UI_GREEN, UI_YELLOW, UI_DIM, UI_YELLOW, UI_RED};
        bool elsewhere = e->namespace && !str_eq(e->namespace, "default");
        _cleanup_free_ char *namespace = elsewhere ? xasprintf(" (%s)", e->namespace) : xstrdup("");
        printf("%s%s %s%s%s%s\n", e->title, namespace, ui_style(STDOUT_FILENO, styles[e->result]),
               apply_result_string(e->result), ui_style(STDOUT_FILENO, UI_PLAIN),
               o->dry_run && e->result != APPLY_UNCHANGED && e->result != APPLY_FAILED ? " (dry run)" : "");
        if (e->diff)
                fputs(e->diff, stdout);
        fflush(stdout);
}

static void keep_object(struct output *o, const struct apply_event *e) {
        struct json *object = json_new_object();
        json_set_string(object, "object", e->title);
        json_set_string(object, "namespace", e->namespace);
        json_set_string(object, "result", apply_result_string(e->result));
        json_set_string(object, "problem", e->problem);
        json_set_string(object, "diff", e->diff);
        json_append(o->objects, object);
}

static void on_object(const struct apply_event *e, void *userdata) {
        struct output *o = userdata;
        if (o->ctx->json)
                keep_object(o, e);
        else if (!o->ctx->quiet)
                print_object(o, e);
}

/* "3 created, 9 unchanged"; the caller frees. */
static char *counts_text(const size_t counts[static APPLY_RESULTS]) {
        _cleanup_strv_ struct strv parts = {0};
        for (size_t i = 0; i < APPLY_RESULTS; i++)
                if (counts[i] > 0)
                        strv_pushf(&parts, "%zu %s", counts[i], apply_result_string((enum apply_result)i));
        return parts.len > 0 ? strv_join(&parts, ", ") : xstrdup("nothing to apply");
}

static void print_end(struct output *o, const size_t counts[static APPLY_RESULTS]) {
        if (!o->ctx->json) {
                _cleanup_free_ char *text = counts_text(counts);
                if (!o->ctx->quiet)
                        printf("%s%s\n", text, o->dry_run ? " (dry run: nothing was changed)" : "");
                return;
        }
        _cleanup_json_ struct json *j = json_new_object();
        json_set(j, "objects", TAKE_PTR(o->objects));
        for (size_t i = 0; i < APPLY_RESULTS; i++)
                json_set_number(j, apply_result_string((enum apply_result)i), (double)counts[i]);
        json_set_bool(j, "dry_run", o->dry_run);
        ui_print_json(j);
}

static int read_kubeconfig(struct context *ctx, struct kubeconfig **ret, struct error *err) {
        _cleanup_free_ char *path = kubeconfig_path(ctx->project, ctx->config);
        int r = kubeconfig_read(path, ret, err);
        if (r < 0)
                err_hint(err, "wait for the cluster and fetch it: k3s-vm start");
        return r;
}

int apply_if_due(struct context *ctx, const struct state *s, struct manifests *m, unsigned timeout_ms, bool *ret_done,
                 struct error *err) {
        _cleanup_kubeconfig_ struct kubeconfig *kubeconfig = NULL;
        bool due = false;
        if (m->n == 0)
                return 0; /* what was there before is pruned only if asked */
        int r = read_kubeconfig(ctx, &kubeconfig, err);
        if (r == 0)
                r = pod_env_add(ctx->project, ctx->config, kubeconfig, m, err);
        if (r == 0)
                r = apply_is_due(kubeconfig, m, &due, err);
        if (r < 0 || !due)
                return r;
        const struct apply a = {
                        .kubeconfig = kubeconfig,
                        .manifests = m,
                        .whole_project = true,
                        .timeout_ms = timeout_ms,
                        .progress = ctx->progress,
        };
        size_t counts[APPLY_RESULTS];
        struct progress_phase *phase = progress_begin(ctx->progress, "apply", "applying the project's manifests");
        r = apply_run(&a, counts, err);
        _cleanup_free_ char *text = counts_text(counts);
        progress_end(ctx->progress, phase, r == 0, "the project's manifests: %s", text);
        *ret_done = r == 0;
        return r < 0 ? r : web_service_follow(ctx->project, ctx->config, s, kubeconfig, m, true, ctx->progress, err);
}

static int read_manifests(struct context *ctx, const struct strv *files, struct manifests *ret, struct error *err) {
        if (files->len > 0)
                return manifests_read_files(ctx->project, files, ret, err);
        int r = manifests_read_project(ctx->project, ret, err);
        if (r == 0 && ret->n == 0)
                progress_note(ctx->progress, "no manifests in .k3s-vm/manifests");
        return r;
}

/* -f a b, as a shell makes it of -f *.yaml, is -f a -f b. */
static int collect_files(const struct arguments *args, struct strv *ret, struct error *err) {
        strv_extend(ret, (const char *const *)arguments_all(&cmd_apply, args, "file")->items);
        if (args->rest.len > 0 && ret->len == 0) {
                int r = err_set(err, ERR_USAGE, EINVAL, "unexpected argument \"%s\"", args->rest.items[0]);
                err_hint(err, "for a file: k3s-vm apply -f %s", args->rest.items[0]);
                return r;
        }
        strv_extend(ret, (const char *const *)args->rest.items);
        return 0;
}

static bool is_given(const struct arguments *args, const char *option) {
        return arguments_get(&cmd_apply, args, option) != NULL;
}

static int run_apply(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_strv_ struct strv files = {0};
        _cleanup_manifests_ struct manifests manifests = {0};
        _cleanup_kubeconfig_ struct kubeconfig *kubeconfig = NULL;
        _cleanup_state_ struct state *s = NULL;
        unsigned timeout_ms = 0;
        int r = parse_timeout(arguments_get(&cmd_apply, args, "timeout"), &timeout_ms, err);
        if (r == 0)
                r = collect_files(args, &files, err);
        if (r == 0 && files.len > 0 && is_given(args, "prune"))
                return err_set(err, ERR_USAGE, EINVAL,
                               "--prune compares with all of the project's manifests, and cannot be used with -f");
        if (r == 0)
                r = interrupt_begin(err);
        if (r == 0)
                r = context_config(ctx, err);
        if (r == 0)
                r = read_manifests(ctx, &files, &manifests, err);
        if (r == 0)
                r = context_running(ctx, &s, err);
        if (r == 0)
                r = read_kubeconfig(ctx, &kubeconfig, err);
        if (r == 0)
                r = pod_env_add(ctx->project, ctx->config, kubeconfig, &manifests, err);
        if (r < 0)
                return r;
        struct output output = {.ctx = ctx, .objects = json_new_array(), .dry_run = is_given(args, "dry-run")};
        const struct apply a = {
                        .kubeconfig = kubeconfig,
                        .manifests = &manifests,
                        .whole_project = files.len == 0,
                        .force_conflicts = is_given(args, "force-conflicts"),
                        .dry_run = output.dry_run,
                        .prune = is_given(args, "prune"),
                        .no_wait = is_given(args, "no-wait"),
                        .timeout_ms = timeout_ms,
                        .progress = ctx->progress,
                        .on_object = on_object,
                        .userdata = &output,
        };
        size_t counts[APPLY_RESULTS];
        r = apply_run(&a, counts, err);
        size_t n = 0;
        for (size_t i = 0; i < APPLY_RESULTS; i++)
                n += counts[i];
        if (n > 0 || r == 0)
                print_end(&output, counts);
        if (r == 0 && !a.dry_run)
                r = web_service_follow(ctx->project, ctx->config, s, kubeconfig, &manifests, a.whole_project,
                                       ctx->progress, err);
        json_free(output.objects);
        return r;
}

const struct command cmd_apply = {
                .name = "apply",
                .operands = "[FILE…]",
                .summary = "bring the project's manifests into the cluster and wait until they run",
                .details = "Without -f: .k3s-vm/manifests/, base.json first, then *.json, *.yaml and *.yml by name. It "
                           "is\n"
                           "a server-side apply; objects that are as they should be are not sent again.",
                .options = COMMAND_OPTIONS(
                                {"file", 'f', "FILE",
                                 "a file, a folder or - (standard input) instead; may be repeated"},
                                {"dry-run", 0, NULL, "let the API say what would change, and change nothing"},
                                {"prune", 0, NULL, "remove what the manifests had before and no longer have"},
                                {"force-conflicts", 0, NULL, "take over fields that others manage"},
                                {"no-wait", 0, NULL, "do not wait until workloads are rolled out"},
                                {"timeout", 0, "SECONDS", "how long to wait for that (300)"}),
                .run = run_apply,
};
