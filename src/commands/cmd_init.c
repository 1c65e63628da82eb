/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/scaffold.h>
#include <k3s-vm/ui.h>

static void add_list(struct json *document, const char *key, const struct strv *paths) {
        struct json *array = json_set_array(document, key);
        for (size_t i = 0; i < paths->len; i++)
                json_append_string(array, paths->items[i]);
}

static void say(const struct context *ctx, const struct scaffold *s) {
        if (ctx->json) {
                _cleanup_json_ struct json *document = json_new_object();
                add_list(document, "made", &s->made);
                add_list(document, "kept", &s->kept);
                ui_print_json(document);
                return;
        }
        for (size_t i = 0; i < s->made.len; i++)
                progress_note(ctx->progress, "wrote %s", s->made.items[i]);
        for (size_t i = 0; i < s->kept.len; i++)
                progress_note(ctx->progress, "left %s as it is", s->kept.items[i]);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        int r = context_config(ctx, err);
        if (r < 0)
                return r;
        _cleanup_scaffold_ struct scaffold s = {0};
        r = scaffold_write(ctx->project, ctx->config, arguments_get(&cmd_init, args, "bin"), &s, err);
        /* What was done before a failure is there all the same. */
        say(ctx, &s);
        if (r == 0)
                progress_note(ctx->progress, "start the cluster of %s: k3s-vm", ctx->project->root);
        return r;
}

const struct command cmd_init = {
                .name = "init",
                .summary = "prepare a project: a commented configuration, a sample manifest, lines of .gitignore",
                .details = "Whatever is there already stays as it is. The sample manifest is a small web page behind\n"
                           "WEB_PORT, from an image that comes with the offline Kubernetes.",
                .options = COMMAND_OPTIONS({"bin", 0, NULL,
                                            "write bin/kubectl and bin/k9s as well, which use this project's cluster"}),
                .run = run,
};
