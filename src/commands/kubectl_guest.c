/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/host.h>
#include <k3s-vm/kubectl_guest.h>

#define GUEST_KUBECONFIG "/etc/rancher/k3s/k3s.yaml"

void kubectl_arguments_clear(struct kubectl_arguments *a) {
        free(a->files);
        *a = (struct kubectl_arguments){0};
}

/* Global options that take their value from the next argument: needed to tell the verb from a value. */
static bool takes_value(const char *arg) {
        static const char *const options[] = {"-n",         "--namespace", "-s",          "--server",
                                              "--context",  "--cluster",   "--user",      "--kubeconfig",
                                              "--token",    "--as",        "-v",          "--request-timeout",
                                              "--as-group", "--as-uid",    "--cache-dir", NULL};
        return str_is_one_of(arg, options);
}

static void add_file(struct kubectl_arguments *a, size_t index, size_t offset) {
        a->files = xreallocarray(a->files, a->n_files + 1, sizeof(*a->files));
        a->files[a->n_files++] = (struct kubectl_file){index, offset};
}

/* -f VALUE, -fVALUE, -f=VALUE, -Rf VALUE, --filename VALUE, --filename=VALUE. Returns how many arguments it is. */
static size_t parse_filename(struct kubectl_arguments *a, const struct strv *operands, size_t i) {
        const char *arg = operands->items[i];
        static const char name[] = "--filename";
        size_t offset = 0;
        if (str_starts(arg, name)) {
                if (arg[strlen(name)] != '\0' && arg[strlen(name)] != '=')
                        return 0;
                offset = arg[strlen(name)] ? strlen(name) + 1 : 0;
        } else if (arg[0] == '-' && arg[1] != '-') {
                size_t flags = 1 + strspn(arg + 1, "Rw"); /* switches may stand before it */
                if (arg[flags] != 'f')
                        return 0;
                offset = arg[flags + 1] == '\0' ? 0 : flags + 1 + (arg[flags + 1] == '=');
        } else
                return 0;
        if (offset > 0) {
                add_file(a, i, offset);
                return 1;
        }
        if (i + 1 >= operands->len)
                return 1; /* kubectl says what is wrong with it */
        add_file(a, i + 1, 0);
        return 2;
}

/* Verbs that kubectl does alone. What completes words asks the server, and is silent when there is none. */
static bool is_offline_verb(const char *verb) {
        static const char *const verbs[] = {"completion", "config",           "help", "kustomize", "options", "plugin",
                                            "__complete", "__completeNoDesc", NULL};
        return !verb || str_is_one_of(verb, verbs);
}

/* Options that name another server, or say that none is wanted. */
static bool is_offline_option(const char *arg) {
        static const char *const words[] = {"-h",       "--help",       "--client",  "--client=true",
                                            "--local",  "--local=true", "-s",        "--dry-run=client",
                                            "--server", "--kubeconfig", "--context", "--cluster",
                                            NULL};
        static const char *const starts[] = {"--server=", "--kubeconfig=", "--context=", "--cluster=", NULL};
        for (size_t i = 0; starts[i]; i++)
                if (str_starts(arg, starts[i]))
                        return true;
        return str_is_one_of(arg, words);
}

void kubectl_arguments_parse(const struct strv *operands, struct kubectl_arguments *ret) {
        struct kubectl_arguments a = {0};
        bool offline = false;
        for (size_t i = 0; i < operands->len;) {
                const char *arg = operands->items[i];
                if (str_eq(arg, "--"))
                        break; /* what follows is for a program in a pod */
                offline |= is_offline_option(arg);
                if (arg[0] != '-' || arg[1] == '\0') {
                        if (!a.verb)
                                a.verb = arg;
                        i++;
                        continue;
                }
                /* `kubectl logs -f` follows. */
                size_t used = str_eq(a.verb, "logs") ? 0 : parse_filename(&a, operands, i);
                if (str_starts(arg, "--from-file") || str_starts(arg, "--from-env-file"))
                        a.host_only = "--from-file";
                else if (str_eq(arg, "-k") || str_starts(arg, "--kustomize"))
                        a.host_only = "-k";
                i += used > 0 ? used : takes_value(arg) ? 2 : 1;
        }
        static const char *const verbs[] = {"port-forward", "proxy", "cp", "kustomize", NULL};
        if (str_is_one_of(a.verb, verbs))
                a.host_only = a.verb;
        a.needs_server = !offline && !is_offline_verb(a.verb);
        *ret = a;
}

/* A local path, and no URL or "-". */
static bool is_local(const char *value) {
        return !str_eq(value, "-") && !strstr(value, "://");
}

/* A folder in the guest for copies of manifests; removed by drop_folder(). */
static int make_folder(struct remote *remote, char **ret, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(4096);
        const struct remote_exec exec = {.command = "mktemp -d /tmp/k3s-vm-kubectl.XXXXXX", .ret_stdout = &out};
        int status = 0;
        int r = remote_exec(remote, &exec, &status, err);
        if (r < 0)
                return r;
        size_t len = strcspn(buf_str(&out), "\n");
        /* It goes into a command line of the guest: only what mktemp can have said. */
        if (status != 0 || !str_starts(buf_str(&out), "/tmp/k3s-vm-kubectl.") || len > 64)
                return err_set(err, ERR_FAILED, EIO, "cannot make a temporary folder in the guest");
        *ret = xstrndup(out.data, len);
        return 0;
}

static void drop_folder(struct remote *remote, const char *folder) {
        _cleanup_free_ char *quoted = str_shell_quote(folder);
        _cleanup_free_ char *command = xasprintf("rm -rf %s", quoted);
        const struct remote_exec exec = {.command = command};
        int status;
        remote_exec(remote, &exec, &status, NULL);
}

/* What one argument's value is replaced with: each local path in its comma-separated list is copied. */
static int copy_values(struct remote *remote, const char *folder, const char *value, unsigned *number, char **ret,
                       struct error *err) {
        _cleanup_strv_ struct strv values = {0}, copies = {0};
        strv_split(&values, value, ",");
        for (size_t i = 0; i < values.len; i++) {
                const char *path = values.items[i];
                if (!is_local(path)) {
                        strv_push(&copies, path);
                        continue;
                }
                _cleanup_free_ char *resolved = realpath(path, NULL);
                if (!resolved) {
                        int errnum = errno;
                        _cleanup_free_ char *shown = str_printable(path, strlen(path));
                        return err_set(err, ERR_FAILED, errnum, "cannot read %s: %s", shown, strerror(errnum));
                }
                /* kubectl tells YAML from JSON by itself; in a folder it goes by the names, which stay. */
                const char *dot = strrchr(path_base(resolved), '.');
                bool plain = dot && (str_eq(dot, ".json") || str_eq(dot, ".yml"));
                _cleanup_free_ char *copy = xasprintf("%s/%u%s", folder, (*number)++,
                                                      fs_is_dir(resolved) ? ""
                                                      : plain             ? dot
                                                                          : ".yaml");
                int r = remote_put(remote, resolved, copy, NULL, NULL, err);
                if (r < 0)
                        return r;
                strv_push(&copies, copy);
        }
        *ret = strv_join(&copies, ",");
        return 0;
}

static void replace_value(struct strv *operands, const struct kubectl_file *file, const char *value) {
        char *old = operands->items[file->index];
        operands->items[file->index] = xasprintf("%.*s%s", (int)file->offset, old, value);
        free(old);
}

/* Opens the one file as stdin. 0 when that was the way, 1 when files must be copied. */
static int feed_stdin(struct strv *operands, const struct kubectl_arguments *a, struct error *err) {
        if (a->n_files != 1)
                return 1;
        const char *value = operands->items[a->files[0].index] + a->files[0].offset;
        if (!is_local(value))
                return 0;
        if (strchr(value, ',') || fs_is_dir(value))
                return 1;
        _cleanup_close_ int fd = open(value, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || dup2(fd, STDIN_FILENO) < 0) {
                int errnum = errno;
                _cleanup_free_ char *shown = str_printable(value, strlen(value));
                return err_set(err, ERR_FAILED, errnum, "cannot read %s: %s", shown, strerror(errnum));
        }
        replace_value(operands, &a->files[0], "-");
        return 0;
}

static int copy_files(struct remote *remote, const char *folder, struct strv *operands,
                      const struct kubectl_arguments *a, struct error *err) {
        unsigned number = 0;
        for (size_t i = 0; i < a->n_files; i++) {
                _cleanup_free_ char *replacement = NULL;
                int r = copy_values(remote, folder, operands->items[a->files[i].index] + a->files[i].offset, &number,
                                    &replacement, err);
                if (r < 0)
                        return r;
                replace_value(operands, &a->files[i], replacement);
        }
        return 0;
}

/* The guest has kubectl on its PATH, or k3s, which is kubectl as well. */
static int exec_guest(struct remote *remote, const struct strv *operands, int *ret_status, struct error *err) {
        _cleanup_strv_ struct strv quoted = {0};
        for (size_t i = 0; i < operands->len; i++)
                strv_push_take(&quoted, str_shell_quote(operands->items[i]));
        _cleanup_free_ char *words = strv_join(&quoted, " ");
        _cleanup_free_ char *command = xasprintf("export KUBECONFIG=" GUEST_KUBECONFIG "; set -- %s; "
                                                 "command -v kubectl >/dev/null && exec kubectl \"$@\"; "
                                                 "exec k3s kubectl \"$@\"",
                                                 words);
        return remote_exec_stdio(remote, command, isatty(STDIN_FILENO) && isatty(STDOUT_FILENO), ret_status, err);
}

static int run_in_guest(struct remote *remote, struct strv *operands, const struct kubectl_arguments *a,
                        struct error *err) {
        int status = 0;
        int r = feed_stdin(operands, a, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *folder = NULL;
        if (r > 0 && a->n_files > 0) {
                r = make_folder(remote, &folder, err);
                if (r == 0)
                        r = copy_files(remote, folder, operands, a, err);
        } else
                r = 0;
        if (r == 0)
                r = exec_guest(remote, operands, &status, err);
        if (folder)
                drop_folder(remote, folder);
        return r < 0 ? r : status;
}

int kubectl_in_guest(struct context *ctx, const struct strv *operands, struct error *err) {
        struct kubectl_arguments a;
        kubectl_arguments_parse(operands, &a);
        _cleanup_strv_ struct strv changed = {0};
        strv_extend(&changed, (const char *const *)operands->items);
        _cleanup_remote_ struct remote *remote = NULL;
        int r = 0;
        if (a.host_only) {
                _cleanup_free_ char *what = xasprintf("`kubectl %s`, which the guest's kubectl cannot do for the host",
                                                      a.host_only);
                r = host_missing("kubectl", what, err);
        }
        if (r == 0)
                r = context_connect_running(ctx, &remote, err);
        if (r == 0)
                r = run_in_guest(remote, &changed, &a, err);
        kubectl_arguments_clear(&a);
        return r;
}
