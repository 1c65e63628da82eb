/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <unistd.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        if (args->rest.len == 0) {
                int r = err_set(err, ERR_USAGE, EINVAL, "exec wants a command to run in the guest");
                err_hint(err, "k3s-vm exec -- uname -r; for a shell: k3s-vm ssh");
                return r;
        }
        bool tty = arguments_get(&cmd_exec, args, "tty");
        if (tty && !isatty(STDIN_FILENO)) {
                int r = err_set(err, ERR_USAGE, ENOTTY, "--tty needs a terminal, and stdin is none");
                err_hint(err, "leave -t away");
                return r;
        }
        _cleanup_remote_ struct remote *remote = NULL;
        int r = context_connect_running(ctx, &remote, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *command = quote_words(&args->rest);
        int status = 0;
        r = remote_exec_stdio(remote, command, tty, &status, err);
        return r < 0 ? r : status;
}

const struct command cmd_exec = {
                .name = "exec",
                .operands = "[--] COMMAND…",
                .summary = "run a command in the guest and return its exit status",
                .details = "stdin, stdout and stderr are passed on. The guest's shell sees exactly the words that are\n"
                           "given; for a pipeline: k3s-vm exec -- sh -c 'ps | wc -l'",
                .options = COMMAND_OPTIONS({"tty", 't', NULL, "give the command a terminal"}),
                .stops_at_operand = true,
                .run = run,
};
