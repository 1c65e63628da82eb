/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/manifest.h>
#include <k3s-vm/yaml.h>

#define FOLDER "manifests"
#define FIRST_FILE "base.json"
#define LISTS_DEPTH_MAX 8U
#define FILES_MAX 2000U

static void source_free(struct manifest_source *s) {
        if (!s)
                return;
        free(s->name);
        free(s->text);
        free(s);
}

void manifests_clear(struct manifests *m) {
        for (size_t i = 0; i < m->n; i++) {
                free(m->items[i].prefix);
                json_free(m->items[i].object);
                free(m->items[i].api_version);
                free(m->items[i].kind);
                free(m->items[i].name);
                free(m->items[i].namespace);
        }
        free(m->items);
        for (size_t i = 0; i < m->n_sources; i++)
                source_free(m->sources[i]);
        free(m->sources);
        *m = (struct manifests){0};
}

/* Where it is. */

static char *where(const struct manifest_source *s, size_t document, const char *path) {
        size_t line = s->text ? yaml_line_of(s->text, s->len, document, path) : 0;
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        _cleanup_free_ char *name = str_printable(s->name, strlen(s->name));
        buf_puts(&b, name);
        if (line > 0)
                buf_printf(&b, ":%zu", line);
        if (s->n_documents > 1)
                buf_printf(&b, " (document %zu)", document + 1);
        return buf_take(&b);
}

char *manifest_where(const struct manifest *m, const char *field) {
        _cleanup_free_ char *path = xasprintf("%s%s", m->prefix, field ? field : "");
        return where(m->source, m->document, path);
}

static int _printf_(5, 6) invalid(struct error *err, const struct manifest_source *s, size_t document, const char *path,
                                  const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        _cleanup_buf_ struct buf what = BUF_INIT(0);
        buf_vprintf(&what, fmt, ap);
        va_end(ap);
        _cleanup_free_ char *place = where(s, document, path), *text = str_printable(buf_str(&what), what.len);
        return err_set(err, ERR_USAGE, EBADMSG, "invalid manifest %s: %s", place, text);
}

/* What an object has to have. */

static bool is_api_version(const char *s) {
        const char *slash = strchr(s, '/');
        return *s && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.-/")] == '\0' && *s != '/' &&
               (!slash || (slash[1] && !strchr(slash + 1, '/'))) && !strstr(s, "..");
}

static int read_string(const struct manifest_source *s, size_t document, const char *prefix, const struct json *object,
                       const char *const keys[2], bool required, const char **ret, struct error *err) {
        const struct json *value = json_get(object, keys[0]);
        if (keys[1])
                value = json_get(value, keys[1]);
        _cleanup_free_ char *field =
                        xasprintf("%s.%s%s%s", prefix, keys[0], keys[1] ? "." : "", keys[1] ? keys[1] : "");
        const char *text = json_string(value);
        if (!value || json_is_null(value)) {
                if (!required) {
                        *ret = NULL;
                        return 0;
                }
                if (json_get(object, "metadata", "generateName"))
                        return invalid(err, s, document, field,
                                       "field %s is missing; generateName makes a new object each time, which apply "
                                       "cannot",
                                       field + 1);
                return invalid(err, s, document, field, "field %s is missing", field + 1);
        }
        if (!text || !*text)
                return invalid(err, s, document, field, "field %s has to be a string that is not empty", field + 1);
        *ret = text;
        return 0;
}

static int add_object(struct manifests *m, const struct manifest_source *s, size_t document, const char *prefix,
                      const struct json *object, struct error *err) {
        const char *api_version, *kind, *name, *namespace;
        int r = read_string(s, document, prefix, object, (const char *const[]){"apiVersion", NULL}, true, &api_version,
                            err);
        if (r == 0)
                r = read_string(s, document, prefix, object, (const char *const[]){"kind", NULL}, true, &kind, err);
        if (r == 0)
                r = read_string(s, document, prefix, object, (const char *const[]){"metadata", "name"}, true, &name,
                                err);
        if (r == 0)
                r = read_string(s, document, prefix, object, (const char *const[]){"metadata", "namespace"}, false,
                                &namespace, err);
        if (r < 0)
                return r;
        if (!is_api_version(api_version)) {
                _cleanup_free_ char *field = xasprintf("%s.apiVersion", prefix);
                return invalid(err, s, document, field, "field %s is no version of an API: %s", field + 1, api_version);
        }
        /* Both become parts of a path, where these two mean something else. */
        if (str_eq(name, ".") || str_eq(name, "..") || str_eq(namespace, ".") || str_eq(namespace, ".."))
                return invalid(err, s, document, prefix, "no object can be called \"%s\"", name);
        if (m->n == MANIFESTS_MAX)
                return invalid(err, s, document, prefix, "these are more than %u objects", MANIFESTS_MAX);
        if ((m->n & (m->n - 1)) == 0)
                m->items = xreallocarray(m->items, m->n ? 2 * m->n : 1, sizeof(*m->items));
        m->items[m->n++] = (struct manifest){
                        .source = s,
                        .document = document,
                        .prefix = xstrdup(prefix),
                        .object = json_copy(object),
                        .api_version = xstrdup(api_version),
                        .kind = xstrdup(kind),
                        .name = xstrdup(name),
                        .namespace = xstrdup(namespace),
        };
        return 0;
}

/* A document or an item of a List. */
static int add_value(struct manifests *m, const struct manifest_source *s, size_t document, const char *prefix,
                     const struct json *value, unsigned depth, struct error *err) {
        if (!json_is_object(value))
                return invalid(err, s, document, prefix, "an object is expected, with apiVersion, kind and metadata");
        const char *kind = json_string(json_get(value, "kind"));
        const struct json *items = json_get(value, "items");
        if (!kind || !str_ends(kind, "List") || !items)
                return add_object(m, s, document, prefix, value, err);
        if (!json_is_array(items) || depth == LISTS_DEPTH_MAX) {
                _cleanup_free_ char *field = xasprintf("%s.items", prefix);
                return invalid(err, s, document, field,
                               depth == LISTS_DEPTH_MAX ? "the lists are nested too deeply"
                                                        : "the items of a list have to be a list");
        }
        size_t index = 0;
        for (const struct json *item = json_first(items); item; item = json_next(item), index++) {
                _cleanup_free_ char *path = xasprintf("%s.items[%zu]", prefix, index);
                int r = add_value(m, s, document, path, item, depth + 1, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static struct manifest_source *add_source(struct manifests *m, const char *name) {
        m->sources = xreallocarray(m->sources, m->n_sources + 1, sizeof(*m->sources));
        struct manifest_source *s = xcalloc(1, sizeof(*s));
        s->name = xstrdup(name);
        m->sources[m->n_sources++] = s;
        return s;
}

int manifests_add_text(struct manifests *m, const char *name, const char *text, size_t len, struct error *err) {
        struct manifest_source *s = add_source(m, name);
        if (len > MANIFESTS_MAX_BYTES - m->bytes) {
                int r = err_set(err, ERR_USAGE, E2BIG, "the manifests are larger than %u MiB together, with %s",
                                MANIFESTS_MAX_BYTES / 1024 / 1024, name);
                err_hint(err, "large data belongs into an image or a volume");
                return r;
        }
        _cleanup_json_ struct json *documents = NULL;
        int r = yaml_parse(text, len, &documents, err);
        if (r < 0) {
                if (err)
                        err->code = ERR_USAGE;
                return err_wrap(err, r, "cannot read the manifest %s", name);
        }
        m->bytes += len;
        s->text = xstrndup(text, len);
        s->len = len;
        s->n_documents = json_len(documents);
        size_t index = 0;
        for (const struct json *d = json_first(documents); d; d = json_next(d), index++) {
                if (json_is_null(d))
                        continue;
                r = add_value(m, s, index, "", d, 0, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int manifests_add_object(struct manifests *m, const char *name, struct json *object, struct error *err) {
        _cleanup_json_ struct json *owned = object;
        return add_object(m, add_source(m, name), 0, "", owned, err);
}

/* Files. */

/* The path as the user knows it. */
static const char *shown_path(const struct project *p, const char *path) {
        size_t n = strlen(p->root);
        return strncmp(path, p->root, n) == 0 && path[n] == '/' ? path + n + 1 : path;
}

static int read_file(const struct project *p, const char *path, struct manifests *m, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(YAML_MAX_BYTES);
        int r = fs_read(path, YAML_MAX_BYTES, &b, err);
        if (r < 0) {
                if (err)
                        err->code = ERR_USAGE;
                return r;
        }
        return manifests_add_text(m, shown_path(p, path), buf_str(&b), b.len, err);
}

static int read_stdin(struct manifests *m, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(YAML_MAX_BYTES);
        for (;;) {
                ssize_t n = buf_read(&b, STDIN_FILENO);
                if (n == 0)
                        return manifests_add_text(m, "standard input", buf_str(&b), b.len, err);
                if (n == -E2BIG)
                        return err_set(err, ERR_USAGE, E2BIG, "standard input is larger than %u MiB",
                                       YAML_MAX_BYTES / 1024 / 1024);
                if (n < 0)
                        return err_errno(err, (int)-n, "cannot read standard input");
        }
}

static int compare_names(const void *a, const void *b) {
        const char *x = *(char *const *)a, *y = *(char *const *)b;
        bool x_first = str_eq(x, FIRST_FILE), y_first = str_eq(y, FIRST_FILE);
        return x_first != y_first ? (x_first ? -1 : 1) : strcmp(x, y);
}

static int read_folder(const struct project *p, const char *path, struct manifests *m, struct error *err) {
        _cleanup_closedir_ DIR *dir = opendir(path);
        if (!dir)
                return err_errno(err, errno, "cannot read the folder %s", path);
        _cleanup_strv_ struct strv names = {0};
        for (const struct dirent *entry; (entry = readdir(dir));) {
                const char *name = entry->d_name;
                if (*name != '.' && (str_ends(name, ".json") || str_ends(name, ".yaml") || str_ends(name, ".yml")))
                        strv_push(&names, name);
        }
        if (names.len > FILES_MAX)
                return err_set(err, ERR_USAGE, E2BIG, "%s has more than %u manifests", path, FILES_MAX);
        if (names.len > 1)
                qsort(names.items, names.len, sizeof(*names.items), compare_names);
        for (size_t i = 0; i < names.len; i++) {
                _cleanup_free_ char *file = path_join(path, names.items[i]);
                int r = read_file(p, file, m, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int manifests_read_project(const struct project *p, struct manifests *ret, struct error *err) {
        _cleanup_manifests_ struct manifests m = {0};
        _cleanup_free_ char *path = path_join(p->dir, FOLDER);
        int r = fs_exists(path) ? read_folder(p, path, &m, err) : 0;
        if (r < 0)
                return r;
        *ret = m;
        m = (struct manifests){0};
        return 0;
}

int manifests_read_files(const struct project *p, const struct strv *paths, struct manifests *ret, struct error *err) {
        _cleanup_manifests_ struct manifests m = {0};
        for (size_t i = 0; i < paths->len; i++) {
                const char *path = paths->items[i];
                int r = str_eq(path, "-") ? read_stdin(&m, err)
                        : fs_is_dir(path) ? read_folder(p, path, &m, err)
                                          : read_file(p, path, &m, err);
                if (r < 0)
                        return r;
        }
        *ret = m;
        m = (struct manifests){0};
        return 0;
}

int manifests_digest(const struct manifests *m, char hex[static SHA256_HEX_LEN + 1], struct error *err) {
        _cleanup_digest_ struct digest *digest = NULL;
        int r = digest_new(&digest, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < m->n; i++) {
                _cleanup_free_ char *text = json_print(m->items[i].object, false);
                digest_update(digest, text, strlen(text) + 1);
        }
        digest_final(digest, hex);
        return 0;
}
