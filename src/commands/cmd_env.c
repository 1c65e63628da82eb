/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/ui.h>

/* fish knows two escapes between single quotes, and no others. */
static void print_fish(const char *name, const char *value) {
        printf("set -gx %s '", name);
        for (; *value; value++)
                printf(*value == '\'' || *value == '\\' ? "\\%c" : "%c", *value);
        printf("'\n");
}

static void print_sh(const char *name, const char *value) {
        _cleanup_free_ char *quoted = str_shell_quote(value);
        printf("export %s=%s\n", name, quoted);
}

static void print_json(const char *name, const char *value) {
        _cleanup_json_ struct json *document = json_new_object();
        json_set_string(document, name, value);
        ui_print_json(document);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        const char *shell = arguments_get(&cmd_env, args, "shell");
        static const char *const shells[] = {"sh", "bash", "zsh", "fish", NULL};
        if (shell && !str_is_one_of(shell, shells)) {
                _cleanup_free_ char *shown = str_printable(shell, strlen(shell));
                int r = err_set(err, ERR_USAGE, EINVAL, "the shell \"%s\" is not known here", shown);
                err_hint(err, "k3s-vm env --shell sh, bash, zsh or fish");
                return r;
        }
        int r = context_config(ctx, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = kubeconfig_path(ctx->project, ctx->config);
        /* Named all the same: without it kubectl would turn to ~/.kube/config. */
        if (!fs_exists(path))
                progress_note(ctx->progress, "there is no %s yet; it is written when the cluster is up: k3s-vm", path);
        if (ctx->json)
                print_json("KUBECONFIG", path);
        else if (str_eq(shell, "fish"))
                print_fish("KUBECONFIG", path);
        else
                print_sh("KUBECONFIG", path);
        return 0;
}

const struct command cmd_env = {
                .name = "env",
                .summary = "print what points a shell at this project's cluster",
                .details = "sh, bash, zsh: eval \"$(k3s-vm env)\"\n"
                           "fish:          k3s-vm env --shell fish | source\n"
                           "direnv:        put  eval \"$(k3s-vm env)\"  into .envrc",
                .options = COMMAND_OPTIONS({"shell", 0, "SHELL", "for sh (also bash and zsh, the default) or fish"}),
                .run = run,
};
