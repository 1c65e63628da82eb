/* SPDX-License-Identifier: MIT */
/*
 * kubectl and k9s with the project's kubeconfig: the host's own program takes this one's place. People put
 * bin/kubectl first on their PATH, so "the host's own" is the first one there that is not this program.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/host.h>
#include <k3s-vm/kubectl_guest.h>
#include <k3s-vm/ready.h>
#include <k3s-vm/suspend.h>
#include <k3s-vm/up.h>

/* "PID PATH" of the program that was exec'd last. A wrapper script on PATH may lead back here by exec, with the
 * PID unchanged: without this it would be found, and lead back here, for ever. */
#define LAST_VARIABLE "K3S_VM_LAST_EXEC"

static bool tried_already(const char *path) {
        _cleanup_free_ char *mark = xasprintf("%d %s", getpid(), path);
        return str_eq(getenv(LAST_VARIABLE), mark);
}

/* The caller frees; NULL: the host has none. */
static char *find_other(const char *name) {
        struct stat self = {0}, st;
        if (stat("/proc/self/exe", &self) < 0)
                self.st_ino = 0;
        _cleanup_strv_ struct strv folders = {0};
        const char *path = getenv("PATH");
        strv_split(&folders, path ? path : "/usr/local/bin:/usr/bin:/bin", ":");
        bool skip = false;
        char *found = NULL;
        for (size_t i = 0; i < folders.len; i++) {
                _cleanup_free_ char *candidate = path_join(folders.items[i], name);
                if (stat(candidate, &st) < 0 || !S_ISREG(st.st_mode) || access(candidate, X_OK) < 0)
                        continue;
                if (st.st_dev == self.st_dev && st.st_ino == self.st_ino)
                        continue;
                if (tried_already(candidate)) {
                        /* What stands before it on PATH was a wrapper too. */
                        free(TAKE_PTR(found));
                        skip = true;
                        continue;
                }
                if (!found)
                        found = TAKE_PTR(candidate);
                if (skip)
                        break;
        }
        return found;
}

/* With AUTO_RESUME=on, a VM that is suspended goes on for the tool. */
static int resume(struct context *ctx, struct error *err) {
        _cleanup_error_ struct error none = ERROR_INIT;
        _cleanup_state_ struct state *s = NULL;
        _cleanup_close_ int lock = -1;
        bool was_running = false;
        if (!str_eq(ctx->config->auto_resume, "on") || !suspend_exists(ctx->project) ||
            context_running(ctx, &s, &none) != -ESRCH)
                return 0;
        int r = lock_vm(ctx, "kubectl", &lock, err);
        if (r == 0)
                r = start_vm(ctx, 0, &s, &was_running, err);
        interrupt_end(); /* the tool is interrupted itself */
        return r;
}

/* Where the kubeconfig is; without one, why, and what makes one. Where it is not needed, it may be missing: the tool
 * then has none, and not that of the user. */
static int find_kubeconfig(struct context *ctx, bool needed, char **ret, struct error *err) {
        int r = context_config(ctx, err);
        if (r == 0 && needed)
                r = resume(ctx, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = kubeconfig_path(ctx->project, ctx->config);
        if (!needed || fs_exists(path)) {
                *ret = TAKE_PTR(path);
                return 0;
        }
        _cleanup_state_ struct state *s = NULL;
        r = context_running(ctx, &s, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        r = err_set(err, ERR_STATE, ENOENT, "the cluster's kubeconfig is not there yet: %s", shown);
        err_hint(err, "wait for the cluster and fetch it: k3s-vm start");
        return r;
}

/* A tool would only say that the connection was refused. */
static int check_running(struct context *ctx, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_running(ctx, &s, err);
        if (r == -ENOENT || r == -ESRCH)
                return r;
        error_clear(err); /* a state that cannot be read says nothing about the cluster */
        return 0;
}

static int exec_tool(const char *program, const char *name, const struct strv *operands, const char *kubeconfig,
                     struct error *err) {
        _cleanup_free_ char *mark = xasprintf("%d %s", getpid(), program);
        if (setenv("KUBECONFIG", kubeconfig, 1) < 0 || setenv(LAST_VARIABLE, mark, 1) < 0)
                return err_errno(err, errno, "cannot set the environment");
        _cleanup_strv_ struct strv argv = {0};
        strv_push(&argv, name);
        strv_extend(&argv, (const char *const *)operands->items);
        return exec_program(program, argv.items, err);
}

static int run_kubectl(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_free_ char *kubeconfig = NULL;
        struct kubectl_arguments a;
        kubectl_arguments_parse(&args->rest, &a);
        bool needs_server = a.needs_server;
        kubectl_arguments_clear(&a);
        int r = find_kubeconfig(ctx, needs_server, &kubeconfig, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *program = find_other("kubectl");
        if (!program)
                return kubectl_in_guest(ctx, &args->rest, err);
        r = needs_server ? check_running(ctx, err) : 0;
        return r < 0 ? r : exec_tool(program, "kubectl", &args->rest, kubeconfig, err);
}

static bool k9s_needs_server(const struct strv *operands) {
        static const char *const words[] = {"-h",   "--help",     "help",         "version",
                                            "info", "completion", "--kubeconfig", NULL};
        for (size_t i = 0; words[i]; i++)
                if (strv_contains(operands, words[i]))
                        return false;
        return true;
}

static int run_k9s(struct context *ctx, const struct arguments *args, struct error *err) {
        _cleanup_free_ char *kubeconfig = NULL;
        bool needs_server = k9s_needs_server(&args->rest);
        int r = find_kubeconfig(ctx, needs_server, &kubeconfig, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *program = find_other("k9s");
        if (!program)
                return host_missing("k9s", "the cluster's terminal view", err);
        r = needs_server ? check_running(ctx, err) : 0;
        return r < 0 ? r : exec_tool(program, "k9s", &args->rest, kubeconfig, err);
}

const struct command cmd_kubectl = {
                .name = "kubectl",
                .operands = "ARGUMENT…",
                .summary = "kubectl with the project's kubeconfig (also bin/kubectl)",
                .details = "The host's kubectl where there is one, else the guest's over SSH. Every argument is\n"
                           "kubectl's own; ~/.kube/config is neither read nor changed.",
                .raw = true,
                .run = run_kubectl,
};

const struct command cmd_k9s = {
                .name = "k9s",
                .operands = "ARGUMENT…",
                .summary = "k9s with the project's kubeconfig (also bin/k9s)",
                .details = "Every argument is k9s's own; ~/.kube/config is neither read nor changed.",
                .raw = true,
                .run = run_k9s,
};
