/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/dotenv.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/web_env.h>

#include "config_file.h"

#define LINK_NAME "kubeconfig.yaml"
#define KEY_PATH "KUBECONFIG"
#define KEY_CONTENTS "KUBECONFIG_PRIMARY"

struct web_env {
        char *path;   /* of the file, where the project has it */
        char *shown;  /* the same for messages */
        char *target; /* the file itself: what a symlink leads to */
        bool exists;
        mode_t mode;
        struct buf text;
};

static void web_env_clear(struct web_env *e) {
        free(e->path);
        free(e->shown);
        free(e->target);
        buf_free(&e->text);
        *e = (struct web_env){0};
}
#define _cleanup_web_env_ _cleanup_(web_env_clear)

/* The file may be right for whoever made it, so that mending it is not the only way. */
static int refuse(const struct web_env *e, const struct config *c, int r, const char *why, struct error *err) {
        r = err_set(err, ERR_USAGE, -r, "%s: cannot put the cluster's credentials there: %s", e->shown, why);
        _cleanup_free_ char *other = xasprintf("%s.k3s-vm", c->web_env_path), *quoted = str_shell_quote(other);
        err_hint(err, "have them written to another file: k3s-vm configure WEB_ENV_PATH=%s", quoted);
        return r;
}

static int load(const struct project *p, const struct config *c, struct web_env *ret, struct error *err) {
        _cleanup_web_env_ struct web_env e = {.path = path_join(p->root, c->web_env_path), .mode = 0600};
        e.shown = str_printable(e.path, strlen(e.path));
        e.text = BUF_INIT(2 * DOTENV_MAX_BYTES);
        struct stat st;
        int r = fs_read(e.path, DOTENV_MAX_BYTES, &e.text, NULL);
        e.exists = r == 0;
        if (r == -ENOTDIR || (r == -ENOENT && lstat(e.path, &st) < 0))
                r = 0; /* none, or none can be there */
        if (r < 0)
                return refuse(&e, c, r, config_file_problem(r), err);
        if (e.exists) {
                _cleanup_dotenv_ struct dotenv parsed = {0};
                r = dotenv_parse(e.shown, buf_str(&e.text), e.text.len, &parsed, err);
                if (r < 0) {
                        err_hint(err, "mend that line, or have the cluster's credentials written to another file: "
                                      "k3s-vm configure WEB_ENV_PATH=…");
                        return r;
                }
                e.target = realpath(e.path, NULL);
                if (!e.target || stat(e.target, &st) < 0)
                        return refuse(&e, c, -errno, strerror(errno), err);
                e.mode = st.st_mode & 07777;
        }
        *ret = e;
        e = (struct web_env){0};
        return 0;
}

int web_env_check(const struct project *p, const struct config *c, struct error *err) {
        _cleanup_web_env_ struct web_env e = {0};
        return load(p, c, &e, err);
}

int web_env_read(const struct project *p, const struct config *c, struct dotenv *ret, struct error *err) {
        _cleanup_web_env_ struct web_env e = {0};
        int r = load(p, c, &e, err);
        return r < 0 ? r : dotenv_parse(e.shown, buf_str(&e.text), e.text.len, ret, err);
}

/* From the folder of the file @from to the file @to, both relative to the same folder, without "." and ".."; the
 * caller frees. */
static char *relative_path(const char *from, const char *to) {
        size_t common = 0;
        for (size_t i = 0; from[i] && from[i] == to[i]; i++)
                if (from[i] == '/')
                        common = i + 1;
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (const char *p = from + common; (p = strchr(p, '/')); p++)
                buf_puts(&b, "../");
        buf_puts(&b, to + common);
        return buf_take(&b);
}

/* The symlink beside the file: its path, and what it holds. */
struct link {
        char *path;
        char *target;
        bool is_kubeconfig; /* KUBECONFIG_PATH is where the symlink would be */
};

static void link_clear(struct link *l) {
        free(l->path);
        free(l->target);
}

static struct link link_of(const struct project *p, const struct config *c) {
        _cleanup_free_ char *env = path_join(p->root, c->web_env_path), *folder = path_parent(env);
        struct link l = {.path = path_join(folder, LINK_NAME),
                         .target = relative_path(c->web_env_path, c->kubeconfig_path)};
        l.is_kubeconfig = str_eq(l.target, LINK_NAME);
        return l;
}

/* Whether the symlink is there and ours. */
static bool link_is_ours(const struct link *l) {
        size_t len = strlen(l->target);
        _cleanup_free_ char *now = xcalloc(1, len + 2);
        ssize_t n = readlink(l->path, now, len + 1);
        return n >= 0 && (size_t)n == len && memcmp(now, l->target, len) == 0;
}

/* 1: kubeconfig.yaml is the kubeconfig; 0: something of the user's is in its place. */
static int ensure_link(const struct link *l, struct error *err) {
        if (l->is_kubeconfig || link_is_ours(l))
                return 1;
        if (fs_exists(l->path))
                return 0;
        /* What is left is a symlink to nothing, such as ours from before KUBECONFIG_PATH was changed. */
        struct stat st;
        int r = lstat(l->path, &st) == 0 ? fs_unlink(l->path, err) : 0;
        if (r < 0)
                return r;
        if (symlink(l->target, l->path) < 0)
                return err_errno(err, errno, "cannot make the symlink %s", l->path);
        return 1;
}

/* What KUBECONFIG is, seen from the file's folder; the caller frees. */
static char *path_value(const struct link *l, bool linked) {
        const char *path = linked ? LINK_NAME : l->target;
        return xasprintf("%s%s", str_starts(path, "../") ? "" : "./", path);
}

static int store(const struct web_env *e, const struct config *c, const struct buf *text, struct error *err) {
        if (text->len > DOTENV_MAX_BYTES)
                return refuse(e, c, -EFBIG, "it would be larger than 1 MiB", err);
        if (!(e->mode & 0200)) {
                int r = err_set(err, ERR_USAGE, EACCES, "%s is read-only, and the cluster's credentials belong there",
                                e->shown);
                _cleanup_free_ char *quoted = str_shell_quote(e->path);
                err_hint(err, "chmod u+w %s, then: k3s-vm start", quoted);
                return r;
        }
        return fs_write_atomic(e->target ? e->target : e->path, buf_str(text), text->len, e->mode, err);
}

int web_env_write(const struct project *p, const struct config *c, const struct kubeconfig *k,
                  struct progress *progress, struct error *err) {
        _cleanup_web_env_ struct web_env e = {0};
        int r = load(p, c, &e, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *folder = path_parent(e.path);
        if (!fs_is_dir(folder)) {
                progress_debug(progress, "there is no folder %s, so no %s is made", folder, e.shown);
                return 0;
        }
        _cleanup_(link_clear) struct link link = link_of(p, c);
        int linked = ensure_link(&link, err);
        if (linked < 0)
                return linked;

        _cleanup_free_ char *path = path_value(&link, linked), *json = json_print(k->document, false),
                            *contents = base64_encode(json, strlen(json));
        _cleanup_buf_ struct buf first = BUF_INIT(2 * DOTENV_MAX_BYTES), text = BUF_INIT(2 * DOTENV_MAX_BYTES);
        r = dotenv_set(e.shown, buf_str(&e.text), e.text.len, KEY_PATH, path, &first, err);
        if (r == 0)
                r = dotenv_set(e.shown, buf_str(&first), first.len, KEY_CONTENTS, contents, &text, err);
        if (r < 0)
                return r;
        if (e.exists && text.len == e.text.len && memcmp(buf_str(&text), buf_str(&e.text), text.len) == 0)
                return 0;
        r = store(&e, c, &text, err);
        if (r < 0)
                return r;
        if (!linked)
                progress_warn(progress, "%s is not ours and stays as it is; KUBECONFIG in %s is %s instead", link.path,
                              e.shown, path);
        if (e.mode & 0077)
                progress_warn(progress, "%s holds the cluster's key, and others on this host may read it: chmod 600 %s",
                              e.shown, e.shown);
        return 0;
}

/* Whether a value of KUBECONFIG_PRIMARY is the kubeconfig of the VM called @name. */
static bool is_of_vm(const char *value, const char *name) {
        _cleanup_free_ char *json = NULL;
        size_t len = 0;
        _cleanup_json_ struct json *document = NULL;
        return base64_decode(value, &json, &len, NULL) == 0 && json_parse(json, len, &document, NULL) == 0 &&
               str_eq(json_string(json_get(document, "current-context")), name);
}

/* The text without our lines; false where there are none. */
static bool strip(const struct web_env *e, const struct config *c, const struct link *link, struct buf *ret) {
        _cleanup_dotenv_ struct dotenv parsed = {0};
        if (!e->exists || dotenv_parse(e->shown, buf_str(&e->text), e->text.len, &parsed, NULL) < 0)
                return false;
        const struct dotenv_entry *contents = dotenv_get(&parsed, KEY_CONTENTS), *path = dotenv_get(&parsed, KEY_PATH);
        if (!contents || !is_of_vm(contents->value, c->vm_name))
                return false;
        _cleanup_free_ char *linked = path_value(link, true), *direct = path_value(link, false);
        bool path_is_ours = path && (str_eq(path->value, linked) || str_eq(path->value, direct));
        _cleanup_buf_ struct buf first = BUF_INIT(DOTENV_MAX_BYTES);
        return dotenv_unset(e->shown, buf_str(&e->text), e->text.len, KEY_CONTENTS, &first, NULL) == 0 &&
               dotenv_unset(e->shown, buf_str(&first), first.len, path_is_ours ? KEY_PATH : "", ret, NULL) == 0;
}

void web_env_remove(const struct project *p, const struct config *c, struct progress *progress) {
        _cleanup_(link_clear) struct link link = link_of(p, c);
        if (!link.is_kubeconfig && link_is_ours(&link))
                fs_unlink(link.path, NULL);
        _cleanup_web_env_ struct web_env e = {0};
        _cleanup_buf_ struct buf text = BUF_INIT(DOTENV_MAX_BYTES);
        if (load(p, c, &e, NULL) < 0 || !strip(&e, c, &link, &text))
                return;
        _cleanup_error_ struct error err = ERROR_INIT;
        int r = text.len == 0 ? fs_unlink(e.target, &err) : store(&e, c, &text, &err);
        if (r < 0)
                progress_warn(progress, "the lines of the cluster are still in %s: %s", e.shown, err.message);
}
