/* SPDX-License-Identifier: MIT */
/* What the commands share: finding project, configuration and state; parsing; help. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/command.h>

const struct command *command_find(const char *name) {
        for (size_t i = 0; commands[i]; i++)
                if (str_eq(commands[i]->name, name))
                        return commands[i];
        return NULL;
}

const struct command_option *command_options(const struct command *c) {
        static const struct command_option none[1];
        return c->options ? c->options : none;
}

int context_project(struct context *ctx, struct error *err) {
        return ctx->project ? 0 : project_find(ctx->project_dir, &ctx->project, err);
}

int context_config(struct context *ctx, struct error *err) {
        int r = context_project(ctx, err);
        if (r < 0 || ctx->config)
                return r;
        return config_load(ctx->project, &ctx->config, err);
}

int context_state(struct context *ctx, struct state **ret, struct error *err) {
        int r = context_project(ctx, err);
        if (r < 0)
                return r;
        r = state_load(ctx->project, ret, err);
        if (r == -ENOENT) {
                r = err_set(err, ERR_NO_VM, ENOENT, "the project %s has no VM", ctx->project->root);
                err_hint(err, "make one and start it: k3s-vm");
        }
        return r;
}

/* COMMAND_OPTIONS_MAX: it has no such option. */
static size_t option_index(const struct command *command, const char *option) {
        for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command_options(command)[i].name; i++)
                if (str_eq(command_options(command)[i].name, option))
                        return i;
        return COMMAND_OPTIONS_MAX;
}

const char *arguments_get(const struct command *command, const struct arguments *args, const char *option) {
        size_t i = option_index(command, option);
        return i < COMMAND_OPTIONS_MAX ? args->values[i] : NULL;
}

const struct strv *arguments_all(const struct command *command, const struct arguments *args, const char *option) {
        size_t i = option_index(command, option);
        return i < COMMAND_OPTIONS_MAX ? &args->all[i] : NULL;
}

int ask_yes_no(const struct context *ctx, const char *question, struct error *err) {
        if (!isatty(STDIN_FILENO)) {
                int r = err_set(err, ERR_USAGE, ENOTTY, "this asks first, and there is no terminal to ask on");
                err_hint(err, "repeat the command with --yes");
                return r;
        }
        (void)ctx;
        fprintf(stderr, "%s [y/N] ", question);
        fflush(stderr);
        _cleanup_free_ char *line = NULL;
        size_t size = 0;
        ssize_t n = getline(&line, &size, stdin);
        if (n > 0 && (str_eq(line, "y\n") || str_eq(line, "Y\n") || str_eq(line, "yes\n")))
                return 0;
        return err_set(err, ERR_INTERRUPTED, ECANCELED, "nothing was changed");
}

static void print_options(const struct command *command) {
        if (!command_options(command)[0].name)
                return;
        printf("\nOptions:\n");
        for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command_options(command)[i].name; i++) {
                const struct command_option *o = &command_options(command)[i];
                _cleanup_free_ char *left = xasprintf("%s%c%s--%s%s%s", o->letter ? "-" : "",
                                                      o->letter ? o->letter : ' ', o->letter ? ", " : "   ", o->name,
                                                      o->argument ? " " : "", o->argument ? o->argument : "");
                printf("  %-26s %s\n", left, o->help);
        }
}

void print_command_help(const struct command *command) {
        printf("Usage: k3s-vm %s%s%s%s\n\n%s\n", command->name, command_options(command)[0].name ? " [OPTION…]" : "",
               command->operands ? " " : "", command->operands ? command->operands : "", command->summary);
        if (command->details)
                printf("\n%s\n", command->details);
        print_options(command);
}

void print_help(void) {
        printf("Usage: k3s-vm [OPTION…] [COMMAND]\n\n"
               "A Kubernetes cluster (K3s) in a virtual machine of your own. Without a command: whatever is\n"
               "missing is made, the VM is started, and the cluster is waited for.\n\nCommands:\n");
        for (size_t i = 0; commands[i]; i++)
                if (!commands[i]->hidden && *commands[i]->name)
                        printf("  %-11s %s\n", commands[i]->name, commands[i]->summary);
        printf("\nOptions:\n"
               "  --project DIR   the project whose VM is meant (default: found from the working folder)\n"
               "  --json          one JSON object on stdout instead of text\n"
               "  --quiet         warnings and errors only\n"
               "  --debug         say more\n"
               "  --help          this text; COMMAND --help says more about a command\n"
               "  --version       the program's version\n");
}
