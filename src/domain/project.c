/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/project.h>

/* A socket's address holds 107 bytes: what is left for the base when "/", 12 characters of the UUID, "/" and
 * the longest socket name (up to 24 characters) are taken off. */
#define RUNTIME_BASE_MAX (107 - 1 - 12 - 1 - 24)

void project_free(struct project *p) {
        if (!p)
                return;
        char **owned[] = {&p->root,
                          &p->dir,
                          &p->config_path,
                          &p->vm_dir,
                          &p->state_path,
                          &p->lock_path,
                          &p->pid_path,
                          &p->log_path,
                          &p->events_path,
                          &p->serial_path,
                          &p->data_disk,
                          &p->key_path,
                          &p->host_key_path,
                          &p->host_key_pub_path,
                          &p->cache_dir,
                          &p->known_hosts_path,
                          &p->credentials_dir,
                          &p->registry_dir,
                          &p->runtime_base};
        for (size_t i = 0; i < ELEMENTSOF(owned); i++)
                free(*owned[i]);
        free(p);
}

/* The nearest folder at or above @start that holds @name (a folder if @folder), or NULL. */
static char *find_above(const char *start, const char *name, bool folder) {
        _cleanup_free_ char *at = xstrdup(start);
        for (;;) {
                _cleanup_free_ char *candidate = path_join(at, name);
                if (folder ? fs_is_dir(candidate) : fs_exists(candidate))
                        return TAKE_PTR(at);
                if (str_eq(at, "/"))
                        return NULL;
                char *parent = path_parent(at);
                free(at);
                at = parent;
        }
}

static int find_root(const char *dir, char **ret, struct error *err) {
        _cleanup_free_ char *resolved = realpath(dir ? dir : ".", NULL);
        if (!resolved) {
                int errnum = errno;
                _cleanup_free_ char *shown = str_printable(dir ? dir : "", dir ? strlen(dir) : 0);
                if (dir)
                        return err_set(err, ERR_USAGE, errnum, "cannot use %s as the project: %s", shown,
                                       strerror(errnum));
                return err_set(err, ERR_USAGE, errnum, "cannot tell the working folder: %s", strerror(errnum));
        }
        if (dir && !fs_is_dir(resolved)) {
                _cleanup_free_ char *shown = str_printable(dir, strlen(dir));
                return err_set(err, ERR_USAGE, ENOTDIR, "cannot use %s as the project: it is not a folder", shown);
        }
        char *root = NULL;
        if (!dir) {
                root = find_above(resolved, ".k3s-vm", true);
                if (!root)
                        root = find_above(resolved, ".git", false);
        }
        *ret = root ? root : TAKE_PTR(resolved);
        return 0;
}

/* The folder an XDG variable names, else $HOME/@below. Relative values are ignored, as the XDG Base
 * Directory Specification asks. */
static int xdg_folder(const char *variable, const char *below, char **ret, struct error *err) {
        const char *value = getenv(variable);
        if (value && value[0] == '/') {
                *ret = path_join(value, "k3s-vm");
                return 0;
        }
        const char *home = getenv("HOME");
        if (!home || home[0] != '/') {
                const struct passwd *pw = getpwuid(geteuid());
                home = pw ? pw->pw_dir : NULL;
        }
        if (!home || home[0] != '/')
                return err_set(err, ERR_HOST, ENOENT, "cannot tell this user's home folder: set HOME or %s", variable);
        *ret = path_join(home, below, "k3s-vm");
        return 0;
}

static bool is_own_folder(const char *path) {
        struct stat st;
        return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* The same answer from a desktop session, an SSH login and a cron job, where XDG_RUNTIME_DIR may be unset
 * and /run/user/UID is there all the same: a VM started from one must be found from the others. */
static char *find_runtime_base(void) {
        _cleanup_free_ char *usual = xasprintf("/run/user/%u", geteuid());
        const char *candidates[] = {getenv("XDG_RUNTIME_DIR"), usual};
        for (size_t i = 0; i < ELEMENTSOF(candidates); i++) {
                if (!candidates[i] || candidates[i][0] != '/' || !is_own_folder(candidates[i]))
                        continue;
                char *base = path_join(candidates[i], "k3s-vm");
                if (strlen(base) <= RUNTIME_BASE_MAX)
                        return base;
                free(base);
        }
        return xasprintf("/tmp/k3s-vm-%u", geteuid());
}

int project_find(const char *dir, struct project **ret, struct error *err) {
        _cleanup_project_ struct project *p = xcalloc(1, sizeof(*p));
        int r = find_root(dir, &p->root, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *state_base = NULL;
        r = xdg_folder("XDG_CACHE_HOME", ".cache", &p->cache_dir, err);
        if (r == 0)
                r = xdg_folder("XDG_STATE_HOME", ".local/state", &state_base, err);
        if (r < 0)
                return r;
        p->registry_dir = path_join(state_base, "vms");
        p->runtime_base = find_runtime_base();

        p->dir = path_join(p->root, ".k3s-vm");
        p->config_path = path_join(p->dir, "config");
        p->lock_path = path_join(p->dir, "lock");
        p->pid_path = path_join(p->dir, "vm.pid");
        p->log_path = path_join(p->dir, "vm.log");
        p->events_path = path_join(p->dir, "events.jsonl");
        p->vm_dir = path_join(p->dir, "vm");
        p->state_path = path_join(p->vm_dir, "state.json");
        p->serial_path = path_join(p->vm_dir, "serial.log");
        p->data_disk = path_join(p->vm_dir, "data.qcow2");
        p->key_path = path_join(p->vm_dir, "ssh_key");
        p->host_key_path = path_join(p->vm_dir, "ssh_host_key");
        p->host_key_pub_path = path_join(p->vm_dir, "ssh_host_key.pub");
        p->known_hosts_path = path_join(p->vm_dir, "known_hosts");
        p->credentials_dir = path_join(p->vm_dir, "credentials");
        *ret = TAKE_PTR(p);
        return 0;
}

/* A folder of this user's that others may not enter. One that was made by hand with an ordinary mode is
 * tightened instead of refused; a symlink to another disk is followed, so long as what it names is ours. */
static int create_own_folder(const char *path, struct error *err) {
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        if (mkdir(path, 0700) < 0 && errno != EEXIST) {
                int errnum = errno;
                err_set(err, ERR_HOST, errnum, "cannot create the folder %s: %s", shown, strerror(errnum));
                if (errnum == EROFS || errnum == EACCES)
                        err_hint(err, "The project must be on a file system that this user can write to.\n"
                                      "Another folder: k3s-vm --project DIR");
                else if (errnum == ENOSPC || errnum == EDQUOT)
                        err_hint(err, "Make room on the project's file system, then run the same command again.");
                return -errnum;
        }
        struct stat st;
        if (stat(path, &st) < 0)
                return err_set(err, ERR_HOST, errno, "cannot use %s: %s", shown, strerror(errno));
        if (!S_ISDIR(st.st_mode))
                return err_set(err, ERR_HOST, ENOTDIR, "cannot use %s: it is not a folder", shown);
        if (st.st_uid != geteuid()) {
                err_set(err, ERR_HOST, EPERM, "cannot use %s: it belongs to the user with the number %u", shown,
                        st.st_uid);
                _cleanup_free_ char *quoted = str_shell_quote(path);
                err_hint(err, "sudo chown -R \"$USER\" %s", quoted);
                return -EPERM;
        }
        if ((st.st_mode & 0777) != 0700 && chmod(path, 0700) < 0)
                return err_set(err, ERR_HOST, errno, "cannot make %s private: %s", shown, strerror(errno));
        return 0;
}

int project_create_dirs(const struct project *p, struct error *err) {
        static const char gitignore[] = "*\n";
        int r = create_own_folder(p->dir, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *ignore_path = path_join(p->dir, ".gitignore");
        if (!fs_exists(ignore_path)) {
                r = fs_write_atomic(ignore_path, gitignore, sizeof(gitignore) - 1, 0644, err);
                if (r < 0)
                        return r;
        }
        return create_own_folder(p->vm_dir, err);
}

int project_runtime_dir(const struct project *p, const char *uuid, bool create, char **ret, struct error *err) {
        /* It becomes part of a path. */
        if (!uuid || strlen(uuid) < 12 || uuid[strspn(uuid, "0123456789abcdef-")] != '\0')
                return err_set(err, ERR_FAILED, EINVAL, "cannot name a runtime folder: the VM's UUID is damaged");
        _cleanup_free_ char *name = xstrndup(uuid, 12);
        _cleanup_free_ char *path = path_join(p->runtime_base, name);
        if (create) {
                int r = fs_mkdir_private(p->runtime_base, err);
                if (r == 0)
                        r = fs_mkdir_private(path, err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(path);
        return 0;
}
