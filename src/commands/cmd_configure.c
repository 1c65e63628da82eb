/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/ui.h>
#include <k3s-vm/vm.h>

static const char *effect_name(const struct config_key *key) {
        switch (key->takes_effect) {
        case CONFIG_LIVE:
                return "live";
        case CONFIG_RESTART:
                return "restart";
        case CONFIG_RESET:
                break;
        }
        return "reset";
}

/* A value as one word that a shell would read back. */
static char *shown_value(const struct config *c, const char *key) {
        _cleanup_free_ char *value = config_value(c, key);
        _cleanup_free_ char *printable = str_printable(value ? value : "", value ? strlen(value) : 0);
        return str_shell_quote(printable);
}

static void show_json(const struct config *c, const struct strv *changed) {
        size_t n;
        const struct config_key *keys = config_keys(&n);
        _cleanup_json_ struct json *document = json_new_object();
        struct json *all = json_set_object(document, "config");
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *value = config_value(c, keys[i].name);
                struct json *j = json_set_object(all, keys[i].name);
                json_set_string(j, "value", value);
                json_set_string(j, "source", config_source(c, keys[i].name));
                json_set_string(j, "default", keys[i].default_text);
                json_set_string(j, "takes_effect", effect_name(&keys[i]));
                json_set_string(j, "help", keys[i].help);
        }
        if (changed) {
                struct json *array = json_set_array(document, "changed");
                for (size_t i = 0; i < changed->len; i++)
                        json_append_string(array, changed->items[i]);
        }
        ui_print_json(document);
}

static void show_all(const struct config *c) {
        size_t n;
        const struct config_key *keys = config_keys(&n);
        const char *dim = ui_style(STDOUT_FILENO, UI_DIM), *plain = ui_style(STDOUT_FILENO, UI_PLAIN);
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *value = shown_value(c, keys[i].name);
                _cleanup_free_ char *assignment = xasprintf("%s=%s", keys[i].name, value);
                printf("%-40s %s%-12s %s%s\n", assignment, dim, config_source(c, keys[i].name), keys[i].help, plain);
        }
}

static int show_one(const struct context *ctx, const char *key, struct error *err) {
        _cleanup_free_ char *value = config_value(ctx->config, key);
        if (!value) {
                _cleanup_free_ char *shown = str_printable(key, strlen(key));
                int r = err_set(err, ERR_USAGE, EINVAL, "there is no configuration key \"%s\"", shown);
                err_hint(err, "k3s-vm configure shows them all");
                return r;
        }
        if (!ctx->json) {
                printf("%s\n", value);
                return 0;
        }
        _cleanup_json_ struct json *document = json_new_object();
        json_set_string(document, "key", key);
        json_set_string(document, "value", value);
        json_set_string(document, "source", config_source(ctx->config, key));
        ui_print_json(document);
        return 0;
}

/* Says what the change means for the VM that is there. */
static void say_consequences(struct context *ctx, const struct strv *restart, const struct strv *reset) {
        _cleanup_state_ struct state *s = NULL;
        if (state_load(ctx->project, &s, NULL) < 0)
                return; /* no VM: the next one is made with it */
        _cleanup_process_ struct process vm = PROCESS_INIT;
        bool running = vm_find(ctx->project, s, &vm, NULL) == 0;
        if (restart->len > 0) {
                _cleanup_free_ char *names = strv_join(restart, ", ");
                if (running)
                        progress_note(ctx->progress, "%s: the VM is running; takes effect with: k3s-vm restart", names);
                else
                        progress_note(ctx->progress, "%s: takes effect at the next start", names);
        }
        if (reset->len > 0) {
                _cleanup_free_ char *names = strv_join(reset, ", ");
                progress_warn(ctx->progress, "%s: the VM that %s keeps what it was made with until: k3s-vm reset",
                              names, running ? "is running" : "is there");
        }
}

/* The names of the keys whose value is another one now, and of those that could not change because something
 * else wins over the file. */
static void compare(struct context *ctx, const struct config *before, const struct config *after,
                    const struct strv *assignments, struct strv *changed, struct strv *restart, struct strv *reset) {
        size_t n, outdone = 0;
        const struct config_key *keys = config_keys(&n);
        for (size_t i = 0; i < n; i++) {
                const char *name = keys[i].name;
                _cleanup_free_ char *old = before ? config_value(before, name) : NULL;
                _cleanup_free_ char *new = config_value(after, name);
                if (!str_eq(old, new)) {
                        strv_push(changed, name);
                        if (keys[i].takes_effect == CONFIG_RESTART)
                                strv_push(restart, name);
                        else if (keys[i].takes_effect == CONFIG_RESET)
                                strv_push(reset, name);
                }
                for (size_t a = 0; a < assignments->len; a++)
                        if (str_starts(assignments->items[a], name) && assignments->items[a][strlen(name)] == '=' &&
                            str_eq(config_source(after, name), "environment")) {
                                progress_warn(ctx->progress,
                                              "%s is written, but it is set in the environment too, and that one wins",
                                              name);
                                outdone++;
                        }
        }
        if (changed->len == 0 && outdone == 0)
                progress_note(ctx->progress, "nothing changed");
}

static int set(struct context *ctx, const struct strv *assignments, struct error *err) {
        int r = context_project(ctx, err);
        /* The file may be one that cannot be read, and this the command that mends it. */
        _cleanup_config_ struct config *before = NULL;
        if (r == 0)
                config_load(ctx->project, &before, NULL);
        if (r == 0)
                r = config_set(ctx->project, (const char *const *)assignments->items, err);
        if (r == 0)
                r = context_config(ctx, err);
        if (r < 0)
                return r;
        _cleanup_strv_ struct strv changed = {0}, restart = {0}, reset = {0};
        compare(ctx, before, ctx->config, assignments, &changed, &restart, &reset);
        if (changed.len > 0)
                say_consequences(ctx, &restart, &reset);
        if (ctx->json)
                show_json(ctx->config, &changed);
        else
                for (size_t i = 0; i < changed.len; i++) {
                        _cleanup_free_ char *value = shown_value(ctx->config, changed.items[i]);
                        printf("%s=%s\n", changed.items[i], value);
                }
        return 0;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        size_t assignments = 0;
        for (size_t i = 0; i < args->rest.len; i++)
                assignments += strchr(args->rest.items[i], '=') != NULL;
        if (assignments > 0 && assignments == args->rest.len)
                return set(ctx, &args->rest, err);
        if (args->rest.len > 1) {
                int r = err_set(err, ERR_USAGE, EINVAL,
                                assignments ? "not every argument is KEY=VALUE" : "one key at a time can be shown");
                err_hint(err, "k3s-vm configure --help");
                return r;
        }
        int r = context_config(ctx, err);
        if (r < 0)
                return r;
        if (args->rest.len == 1)
                return show_one(ctx, args->rest.items[0], err);
        if (ctx->json)
                show_json(ctx->config, NULL);
        else
                show_all(ctx->config);
        return 0;
}

const struct command cmd_configure = {
                .name = "configure",
                .operands = "[KEY | KEY=VALUE…]",
                .summary = "show or change the configuration",
                .details = "Without operands: every key, its value, where that comes from, and what it is for. With a\n"
                           "KEY: its value. With KEY=VALUE: checks and writes all of them to .k3s-vm/config, or none;\n"
                           "an empty value takes the key out of the file. Environment variables of the same names\n"
                           "win over the file.",
                .run = run,
};
