/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>

#define GUEST_PREFIX "guest:"

/* The guest's path in an operand, or NULL for a local one. Relative paths and "~/" are root's home, where
 * SFTP starts. */
static const char *guest_path(const char *operand) {
        if (!str_starts(operand, GUEST_PREFIX))
                return NULL;
        const char *path = operand + strlen(GUEST_PREFIX);
        if (str_eq(path, "~") || str_eq(path, ""))
                return ".";
        return str_starts(path, "~/") && path[2] ? path + 2 : path;
}

/* Without the slashes at its end. The caller frees. */
static char *trim_slashes(const char *path) {
        size_t n = strlen(path);
        while (n > 1 && path[n - 1] == '/')
                n--;
        return xstrndup(path, n);
}

/* The name that a copy of @path gets inside a folder, or NULL when it has none of its own ("/", "..", "."). */
static const char *own_name(const char *path) {
        const char *name = path_base(path);
        return *name && !str_eq(name, ".") && !str_eq(name, "..") ? name : NULL;
}

static int nameless(struct error *err, const char *path) {
        return err_set(err, ERR_USAGE, EINVAL, "cannot tell what the copy of %s is to be called: name the destination",
                       path);
}

static bool guest_is_folder(struct remote *remote, const char *path) {
        /* "./" keeps a path that begins with a dash or looks like an operator from being one to test(1). */
        _cleanup_free_ char *anchored = path[0] == '/' ? xstrdup(path) : xasprintf("./%s", path);
        _cleanup_free_ char *quoted = str_shell_quote(anchored);
        _cleanup_free_ char *command = xasprintf("test -d %s", quoted);
        const struct remote_exec exec = {.command = command};
        int status = 1;
        return remote_exec(remote, &exec, &status, NULL) == 0 && status == 0;
}

/* As cp(1): into a folder that is there, else under the name that is given. */
static int destination(struct remote *remote, const char *from, const char *to, char **ret, struct error *err) {
        _cleanup_free_ char *target = trim_slashes(to);
        bool wants_folder = str_ends(to, "/");
        bool is_folder = remote ? guest_is_folder(remote, target) : fs_is_dir(target);
        if (!is_folder && !wants_folder) {
                *ret = TAKE_PTR(target);
                return 0;
        }
        if (!is_folder)
                return err_set(err, ERR_USAGE, ENOENT, "there is no folder %s%s", remote ? GUEST_PREFIX : "", to);
        const char *name = own_name(from);
        if (!name)
                return nameless(err, from);
        *ret = path_join(target, name);
        return 0;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        if (args->rest.len != 2) {
                int r = err_set(err, ERR_USAGE, EINVAL, "cp wants a source and a destination");
                err_hint(err, "k3s-vm cp FILE guest:/tmp/ or k3s-vm cp guest:/etc/os-release .");
                return r;
        }
        const char *from = args->rest.items[0], *to = args->rest.items[1];
        const char *guest_from = guest_path(from), *guest_to = guest_path(to);
        if (!guest_from == !guest_to) {
                int r = err_set(err, ERR_USAGE, EINVAL,
                                guest_from ? "both sides are in the guest" : "neither side is in the guest");
                err_hint(err, guest_from ? "k3s-vm exec -- cp -a SOURCE DESTINATION"
                                         : "write guest:PATH for the side that is in the guest");
                return r;
        }
        if (guest_to && !fs_exists(from)) {
                int errnum = errno;
                _cleanup_free_ char *shown = str_printable(from, strlen(from));
                return err_set(err, ERR_USAGE, errnum, "cannot read %s: %s", shown, strerror(errnum));
        }
        _cleanup_remote_ struct remote *remote = NULL;
        int r = context_connect_running(ctx, &remote, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *source = trim_slashes(guest_from ? guest_from : from);
        _cleanup_free_ char *target = NULL;
        r = destination(guest_to ? remote : NULL, source, guest_to ? guest_to : to, &target, err);
        if (r < 0)
                return r;

        _cleanup_free_ char *shown_from = str_printable(from, strlen(from));
        _cleanup_free_ char *shown_to = str_printable(to, strlen(to));
        struct progress_phase *phase = progress_begin(ctx->progress, "copy", "%s to %s", shown_from, shown_to);
        r = guest_to ? remote_put(remote, source, target, ctx->progress, phase, err)
                     : remote_get(remote, source, target, ctx->progress, phase, err);
        progress_end(ctx->progress, phase, r == 0, NULL);
        return r;
}

const struct command cmd_cp = {
                .name = "cp",
                .operands = "SOURCE DESTINATION",
                .summary = "copy a file or folder to the guest or from it",
                .details = "One side is guest:PATH; a relative one starts at root's home folder. A destination that "
                           "is\n"
                           "a folder gets the copy inside it. A local file whose name begins with \"guest:\" is "
                           "written\n"
                           "./guest:NAME. Permission bits are kept, owners and times are not.",
                .run = run,
};
