/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/ui.h>

/* As it is shown: below the cache's folder. */
static const char *name_of(const struct context *ctx, const char *path) {
        size_t n = strlen(ctx->project->cache_dir);
        return strlen(path) > n ? path + n + 1 : path;
}

static struct json *entry_to_json(const struct context *ctx, const struct cache_entry *e) {
        struct json *j = json_new_object();
        json_set_string(j, "name", name_of(ctx, e->path));
        json_set_string(j, "kind", e->kind);
        json_set_number(j, "bytes", (double)e->bytes);
        json_set_number(j, "used_ms", (double)e->used * 1000);
        json_set_bool(j, "in_use", e->in_use);
        return j;
}

static struct json *new_document(const struct context *ctx, struct json **ret_list, const char *list) {
        struct json *document = json_new_object();
        json_set_string(document, "cache", ctx->project->cache_dir);
        *ret_list = json_set_array(document, list);
        return document;
}

static void run_list(const struct context *ctx, const struct cache_entries *all) {
        struct json *list;
        _cleanup_json_ struct json *document = new_document(ctx, &list, "entries");
        uint64_t sum = 0;
        for (size_t i = 0; i < all->n; i++) {
                const struct cache_entry *e = &all->items[i];
                sum += e->bytes;
                if (ctx->json) {
                        json_append(list, entry_to_json(ctx, e));
                        continue;
                }
                _cleanup_free_ char *size = str_bytes(e->bytes), *time = time_rfc3339(e->used);
                printf("%-8s %9s  %s  %-6s  %s\n", e->kind, size, time, e->in_use ? "in use" : "",
                       name_of(ctx, e->path));
        }
        if (ctx->json) {
                json_set_number(document, "bytes", (double)sum);
                ui_print_json(document);
        } else {
                _cleanup_free_ char *size = str_bytes(sum);
                progress_note(ctx->progress, "%s in %s", size, ctx->project->cache_dir);
        }
}

static void run_prune(const struct context *ctx, const struct cache_entries *entries, bool all) {
        struct json *list;
        _cleanup_json_ struct json *document = new_document(ctx, &list, "removed");
        time_t recent = (time_t)(wall_ms() / 1000) - CACHE_KEEP_S;
        uint64_t freed = 0;
        size_t kept = 0;
        for (size_t i = 0; i < entries->n; i++) {
                const struct cache_entry *e = &entries->items[i];
                _cleanup_error_ struct error why = ERROR_INIT;
                if (e->in_use)
                        continue;
                if (!all && e->used >= recent) {
                        kept++;
                        continue;
                }
                if (cache_remove(e, &why) < 0) {
                        progress_warn(ctx->progress, "%s stays: %s", name_of(ctx, e->path), why.message);
                        continue;
                }
                freed += e->bytes;
                if (ctx->json)
                        json_append(list, entry_to_json(ctx, e));
                else
                        printf("%s\n", name_of(ctx, e->path));
        }
        if (ctx->json) {
                json_set_number(document, "bytes", (double)freed);
                ui_print_json(document);
        }
        _cleanup_free_ char *size = str_bytes(freed);
        progress_note(ctx->progress, "%s freed", size);
        if (kept > 0)
                progress_note(ctx->progress, "%zu used in the last hour stay; --all removes them, too", kept);
}

struct verifying {
        const struct context *ctx;
        struct json *list;
        size_t good, bad, unknown;
};

static void on_verified(const char *path, int result, void *userdata) {
        struct verifying *v = userdata;
        const char *text = result > 0           ? "good"
                           : result == 0        ? "damaged"
                           : result == -ENODATA ? "unknown"
                                                : "unreadable";
        v->good += result > 0;
        v->unknown += result == -ENODATA;
        bool bad = result <= 0 && result != -ENODATA;
        v->bad += bad;
        if (v->ctx->json) {
                struct json *j = json_new_object();
                json_set_string(j, "name", name_of(v->ctx, path));
                json_set_string(j, "result", text);
                json_append(v->list, j);
        } else if (result != -ENODATA)
                printf("%-10s  %s\n", text, name_of(v->ctx, path));
}

static int run_verify(const struct context *ctx, const struct cache_entries *all, struct error *err) {
        struct verifying v = {.ctx = ctx};
        _cleanup_json_ struct json *document = new_document(ctx, &v.list, "files");
        _cleanup_strv_ struct strv damaged = {0};
        int r = interrupt_begin(err);
        for (size_t i = 0; r == 0 && i < all->n; i++) {
                size_t before = v.bad;
                r = cache_verify(&all->items[i], on_verified, &v, err);
                if (v.bad > before) {
                        _cleanup_free_ char *word = str_shell_quote(all->items[i].path);
                        strv_pushf(&damaged, "rm -r %s", word);
                }
        }
        if (r < 0)
                return r;
        if (ctx->json)
                ui_print_json(document);
        if (v.unknown > 0)
                progress_note(ctx->progress, "%zu files are of no known hash", v.unknown);
        if (v.bad == 0)
                return 0;
        _cleanup_free_ char *hint = strv_join(&damaged, "\n");
        r = err_set(err, ERR_FAILED, EBADMSG, "%zu of %zu files in the cache are damaged", v.bad, v.bad + v.good);
        err_hint(err, "%s\nwhat is missing is fetched or made anew when it is needed", hint);
        return r;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        static const char *const verbs[] = {"list", "prune", "verify", NULL};
        const char *verb = args->rest.len > 0 ? args->rest.items[0] : "list";
        if (!str_is_one_of(verb, verbs) || args->rest.len > 1) {
                _cleanup_free_ char *shown = str_printable(verb, strlen(verb));
                int r = err_set(err, ERR_USAGE, EINVAL, "cache cannot \"%s\"", shown);
                err_hint(err, "k3s-vm cache list\nk3s-vm cache prune\nk3s-vm cache verify");
                return r;
        }
        _cleanup_cache_entries_ struct cache_entries all = {0};
        int r = context_project(ctx, err);
        if (r == 0)
                r = cache_list(ctx->project, &all, err);
        if (r < 0)
                return r;
        if (str_eq(verb, "verify"))
                return run_verify(ctx, &all, err);
        if (str_eq(verb, "prune"))
                run_prune(ctx, &all, arguments_get(&cmd_cache, args, "all"));
        else
                run_list(ctx, &all);
        return 0;
}

const struct command cmd_cache = {
                .name = "cache",
                .operands = "[list | prune | verify]",
                .summary = "what is kept for all projects: guests, Kubernetes, downloads",
                .details = "prune removes what no VM of yours is made of and nobody used in the last hour. verify "
                           "reads\n"
                           "every file and compares it with its hash.",
                .options = COMMAND_OPTIONS({"all", 0, NULL, "prune: what was used in the last hour, too"}),
                .run = run,
};
