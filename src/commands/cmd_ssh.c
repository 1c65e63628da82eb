/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/connect.h>
#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>

/*
 * OpenSSH reads file names with a grammar of its own: UserKnownHostsFile is split at blanks, and %-tokens and
 * ${VARIABLES} are expanded in every path with no way to write a literal "${". A project may be called anything,
 * so the paths are not given at all: ssh is started in the VM's folder, where the names are ours. A login has no
 * use for the working folder on this side.
 */
static int exec_openssh(const struct context *ctx, const char *program, uint16_t port, bool tty, const char *command,
                        struct error *err) {
        const struct project *p = ctx->project;
        if (chdir(p->vm_dir) < 0)
                return err_errno(err, errno, "cannot enter %s", p->vm_dir);
        _cleanup_strv_ struct strv argv = {0};
        static const char *const fixed[] = {
                        "ssh",
                        "-F",
                        "/dev/null",
                        "-o",
                        "IdentitiesOnly=yes",
                        "-o",
                        "IdentityAgent=none",
                        "-o",
                        "PreferredAuthentications=publickey",
                        "-o",
                        "StrictHostKeyChecking=yes",
                        "-o",
                        "GlobalKnownHostsFile=/dev/null",
                        "-o",
                        "UpdateHostKeys=no",
                        /* A guest that was reset ends the session then; one that is paused for an hour does not. */
                        "-o",
                        "ServerAliveInterval=15",
                        "-o",
                        "ServerAliveCountMax=240",
                        NULL,
        };
        strv_extend(&argv, fixed);
        strv_push(&argv, "-i");
        strv_push(&argv, path_base(p->key_path));
        strv_push(&argv, "-o");
        strv_pushf(&argv, "UserKnownHostsFile=%s", path_base(p->known_hosts_path));
        strv_push(&argv, "-p");
        strv_pushf(&argv, "%u", port);
        if (tty)
                strv_push(&argv, "-t");
        strv_push(&argv, "root@127.0.0.1");
        if (command) {
                /* Its own "--", so that a command that begins with a dash is no option of ssh's. */
                strv_push(&argv, "--");
                strv_push(&argv, command);
        }
        return exec_program(program, argv.items, err);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_running(ctx, &s, err);
        if (r < 0)
                return r;
        bool tty = arguments_get(&cmd_ssh, args, "tty") || args->rest.len == 0;
        _cleanup_free_ char *command = args->rest.len > 0 ? quote_words(&args->rest) : NULL;
        _cleanup_free_ char *program = fs_find_program("ssh");
        if (program && fs_exists(ctx->project->known_hosts_path))
                return exec_openssh(ctx, program, s->ssh_port, tty && command, command, err);

        _cleanup_remote_ struct remote *remote = NULL;
        r = context_connect(ctx, s, &remote, err);
        if (r < 0)
                return r;
        int status = 0;
        r = remote_exec_stdio(remote, command ? command : "exec \"${SHELL:-/bin/sh}\" -l", tty && isatty(STDIN_FILENO),
                              &status, err);
        return r < 0 ? r : status;
}

const struct command cmd_ssh = {
                .name = "ssh",
                .operands = "[-- COMMAND…]",
                .summary = "log in to the guest, or run a command there",
                .details = "With OpenSSH where it is installed, through the library otherwise. The guest's shell sees\n"
                           "exactly the words that are given; for a pipeline: k3s-vm ssh -- sh -c 'ps | wc -l'",
                .options = COMMAND_OPTIONS({"tty", 't', NULL, "give the command a terminal"}),
                .stops_at_operand = true,
                .run = run,
};
