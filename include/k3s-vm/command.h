/* SPDX-License-Identifier: MIT */
/*
 * The commands. Each lives in a cmd_*.c file that defines one `const struct command`; parsing, help, usage
 * errors and shell completion are generated from it. A command returns 0, or a negative errno with the error
 * filled in (main prints it, once, and exits with its code), or a positive exit status of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <k3s-vm/config.h>
#include <k3s-vm/err.h>
#include <k3s-vm/json.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>
#include <k3s-vm/strv.h>

#define COMMAND_OPTIONS_MAX 16

struct command_option {
        const char *name;     /* "memory" for --memory */
        char letter;          /* 'f' for -f, 0 none */
        const char *argument; /* "MB"; NULL for a switch */
        const char *help;
};

/* What was given on the command line. */
struct arguments {
        const char *values[COMMAND_OPTIONS_MAX]; /* by position in the command's options; "" for a switch */
        struct strv all[COMMAND_OPTIONS_MAX];    /* every value, where an option was given more than once */
        struct strv rest;                        /* operands */
};

/* What every command works with. */
struct context {
        const char *project_dir; /* --project, or NULL */
        bool debug, quiet, json;
        struct progress *progress;
        struct project *project; /* filled in by context_project() */
        struct config *config;   /* filled in by context_config() */
};

struct command {
        const char *name;
        const char *operands;                 /* "IMAGE.tar…", NULL none allowed */
        const char *summary;                  /* one line for --help */
        const char *details;                  /* further text of COMMAND --help, may be NULL */
        const struct command_option *options; /* COMMAND_OPTIONS(); NULL: none */
        bool stops_at_operand;                /* options after the first operand are the operand's (ssh, exec) */
        bool raw;                             /* every argument is passed on as it is (kubectl, k9s) */
        bool hidden;
        int (*run)(struct context *ctx, const struct arguments *args, struct error *err);
};

/* The options of a command, COMMAND_OPTIONS_MAX - 1 at most, with the nameless one that ends them. */
#define COMMAND_OPTIONS(...) ((const struct command_option[]){__VA_ARGS__, {0}})
/* Never NULL. */
const struct command_option *command_options(const struct command *c);

extern const struct command *const commands[]; /* NULL-terminated, in the order of --help */
const struct command *command_find(const char *name);

/* Fills in ctx->project; with context_config() ctx->config as well. Both keep what is there already. */
int context_project(struct context *ctx, struct error *err);
int context_config(struct context *ctx, struct error *err);
/* The VM's state; ERR_NO_VM naming the command that makes one. */
int context_state(struct context *ctx, struct state **ret, struct error *err);
/* The value of an option, or NULL when it was not given. */
const char *arguments_get(const struct command *command, const struct arguments *args, const char *option);

/* Every value of an option, in order; belongs to @args. */
const struct strv *arguments_all(const struct command *command, const struct arguments *args, const char *option);

/* Asks "… [y/N]" on the terminal. 0: yes. Not a terminal: ERR_USAGE that names --yes. No: ERR_INTERRUPTED. */
int ask_yes_no(const struct context *ctx, const char *question, struct error *err);

/* Help texts, to stdout. */
void print_help(void);
void print_command_help(const struct command *command);
