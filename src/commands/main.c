/* SPDX-License-Identifier: MIT */
/*
 * k3s-vm: a K3s cluster in a virtual machine, one command.
 *
 * main() reads the options that all commands share, finds the command, parses its options from its table,
 * runs it, and shows its error: the only place where one is shown and the only exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/command.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/ui.h>

static const struct command_option *find_option(const struct command *command, const char *name, size_t name_len,
                                                char letter, size_t *ret_index) {
        for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command_options(command)[i].name; i++) {
                const struct command_option *o = &command_options(command)[i];
                if ((letter && o->letter == letter) ||
                    (!letter && strlen(o->name) == name_len && strncmp(o->name, name, name_len) == 0)) {
                        *ret_index = i;
                        return o;
                }
        }
        return NULL;
}

static int usage_error(struct error *err, const struct command *command, const char *fmt, const char *what) {
        int r = err_set(err, ERR_USAGE, EINVAL, fmt, what);
        if (command && *command->name)
                err_hint(err, "k3s-vm %s --help", command->name);
        else
                err_hint(err, "k3s-vm --help");
        return r;
}

/* An option that every command takes. Returns how many arguments it used, 0 if it is none of them. */
static int shared_option(struct context *ctx, char **argv, bool *ret_help, struct error *err) {
        const char *arg = argv[0];
        if (str_eq(arg, "--debug"))
                return ctx->debug = true, 1;
        if (str_eq(arg, "--quiet"))
                return ctx->quiet = true, 1;
        if (str_eq(arg, "--json"))
                return ctx->json = true, 1;
        if (str_eq(arg, "--help") || str_eq(arg, "-h"))
                return *ret_help = true, 1;
        if (str_starts(arg, "--project=")) {
                ctx->project_dir = arg + strlen("--project=");
                return 1;
        }
        if (str_eq(arg, "--project")) {
                if (!argv[1])
                        return usage_error(err, NULL, "%s wants a folder", arg);
                ctx->project_dir = argv[1];
                return 2;
        }
        return 0;
}

/* One option of the command's own table. Returns how many arguments it used. */
static int own_option(const struct command *command, char **argv, struct arguments *args, struct error *err) {
        const char *arg = argv[0];
        bool is_long = str_starts(arg, "--");
        const char *name = arg + 2;
        size_t name_len = is_long ? strcspn(name, "=") : 0;
        size_t index = 0;
        const struct command_option *o = is_long ? find_option(command, name, name_len, 0, &index)
                                                 : find_option(command, NULL, 0, arg[1], &index);
        if (!o || (!is_long && arg[2] != '\0' && !o->argument))
                return usage_error(err, command, "unknown option %s", arg);
        const char *attached = is_long ? (name[name_len] == '=' ? name + name_len + 1 : NULL)
                                       : (arg[2] != '\0' ? arg + 2 : NULL);
        if (!o->argument) {
                if (attached)
                        return usage_error(err, command, "option %s takes no value", arg);
                args->values[index] = "";
                return 1;
        }
        if (!attached && !argv[1])
                return usage_error(err, command, "option %s wants a value", arg);
        args->values[index] = attached ? attached : argv[1];
        strv_push(&args->all[index], args->values[index]);
        return attached ? 1 : 2;
}

static int parse_arguments(struct context *ctx, const struct command *command, char **argv, struct arguments *args,
                           bool *ret_help, struct error *err) {
        bool options_end = command->raw;
        for (size_t i = 0; argv[i];) {
                const char *arg = argv[i];
                if (!options_end && str_eq(arg, "--")) {
                        options_end = true;
                        i++;
                        continue;
                }
                if (options_end || arg[0] != '-' || arg[1] == '\0') {
                        if (!command->operands && !command->raw)
                                return usage_error(err, command, "unexpected argument \"%s\"", arg);
                        strv_push(&args->rest, arg);
                        options_end = options_end || command->stops_at_operand;
                        i++;
                        continue;
                }
                int used = shared_option(ctx, argv + i, ret_help, err);
                if (used == 0)
                        used = own_option(command, argv + i, args, err);
                if (used < 0)
                        return used;
                i += (size_t)used;
        }
        return 0;
}

/* bin/kubectl and bin/k9s are this program under another name. */
static const struct command *command_of_program(const char *argv0) {
        const char *name = path_base(argv0);
        return str_eq(name, "kubectl") || str_eq(name, "k9s") ? command_find(name) : NULL;
}

static int run(struct context *ctx, char **argv, struct error *err) {
        const struct command *command = command_of_program(argv[0]);
        bool help = false;
        argv++;
        while (!command && *argv && **argv == '-') {
                if (str_eq(*argv, "--version")) {
                        printf("k3s-vm %s\n", K3S_VM_VERSION);
                        return 0;
                }
                int used = shared_option(ctx, argv, &help, err);
                if (used == 0)
                        break;
                if (used < 0)
                        return used;
                argv += used;
        }
        if (!command) {
                /* An empty word is most likely a variable that was not set: no reason to start a VM. */
                if (*argv && !**argv)
                        return usage_error(err, NULL, "there is no command \"%s\"", *argv);
                const char *name = *argv && **argv != '-' ? *argv++ : "";
                if (help && !*name) {
                        print_help();
                        return 0;
                }
                if (str_eq(name, "help")) {
                        help = true;
                        name = *argv ? *argv++ : "";
                        if (!*name) {
                                print_help();
                                return 0;
                        }
                }
                command = command_find(name);
                if (!command)
                        return usage_error(err, NULL, "there is no command \"%s\"", name);
        }
        struct arguments args = {0};
        int r = parse_arguments(ctx, command, argv, &args, &help, err);
        if (r == 0 && help)
                print_command_help(command);
        else if (r == 0) {
                ctx->progress = ui_new(ctx->quiet, ctx->debug);
                r = command->run(ctx, &args, err);
                ui_finish(ctx->progress);
        }
        for (size_t i = 0; i < COMMAND_OPTIONS_MAX; i++)
                strv_free(&args.all[i]);
        strv_free(&args.rest);
        return r;
}

/* The number of a closed one would go to the next socket or file, which output would then be written to. What is opened
 * in its place is of as little use. */
static void open_standard_descriptors(void) {
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
                if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
                        _exit(ERR_HOST);
}

int main(int argc, char **argv) {
        open_standard_descriptors();
        setlocale(LC_CTYPE, "");
        /* A closed pipe or a guest that hangs up is an error of one write, not the end of the program. */
        signal(SIGPIPE, SIG_IGN);
        if (argc < 1)
                return ERR_USAGE;

        struct context ctx = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = run(&ctx, argv, &err);
        config_free(ctx.config);
        project_free(ctx.project);
        free(ctx.progress);
        if (r < 0) {
                ui_error(&err);
                return err.code ? (int)err.code : ERR_FAILED;
        }
        if (fflush(stdout) != 0 && errno != EPIPE) {
                fprintf(stderr, "k3s-vm: cannot write the output: %s\n", strerror(errno));
                return ERR_FAILED;
        }
        return r;
}
