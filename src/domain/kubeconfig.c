/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/yaml.h>

#define KUBECONFIG_MAX_BYTES (1024U * 1024)
#define CERTIFICATE_MARK "-----BEGIN CERTIFICATE-----"
#define KEY_MARK "PRIVATE KEY-----"

void kubeconfig_free(struct kubeconfig *k) {
        if (!k)
                return;
        free(k->server);
        free(k->ca_pem);
        free(k->cert_pem);
        if (k->key_pem)
                explicit_bzero(k->key_pem, strlen(k->key_pem));
        free(k->key_pem);
        json_free(k->document);
        free(k);
}

static int invalid(struct error *err, const char *fmt, ...) _printf_(2, 3);
static int invalid(struct error *err, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        _cleanup_buf_ struct buf what = BUF_INIT(0);
        buf_vprintf(&what, fmt, ap);
        va_end(ap);
        /* Names in it come from the file. */
        _cleanup_free_ char *printable = str_printable(buf_str(&what), what.len);
        return err_set(err, ERR_FAILED, EBADMSG, "invalid kubeconfig: %s", printable);
}

/* The member @content ("cluster", "user", "context") of the item called @name in the list @list. */
static int find_named(const struct json *document, const char *list, const char *content, const char *name,
                      const struct json **ret, struct error *err) {
        const struct json *items = json_get(document, list);
        if (!json_is_array(items) || json_len(items) == 0)
                return invalid(err, "it has no %s", list);
        for (const struct json *item = json_first(items); item; item = json_next(item)) {
                if (!str_eq(json_string(json_get(item, "name")), name))
                        continue;
                const struct json *found = json_get(item, content);
                if (!json_is_object(found))
                        return invalid(err, "the %s \"%s\" is empty", content, name);
                *ret = found;
                return 0;
        }
        return invalid(err, "%s has no %s called \"%s\"", list, content, name);
}

/* The PEM text behind @member, which is base64 and has to contain @mark. */
static int decode_pem(const struct json *object, const char *what, const char *name, const char *member,
                      const char *mark, char **ret, struct error *err) {
        const char *encoded = json_string(json_get(object, member));
        if (!encoded || !*encoded) {
                /* "client-key-data" beside "client-key", the name of a file. */
                _cleanup_free_ char *file = xstrndup(member, strlen(member) - strlen("-data"));
                if (json_get(object, file))
                        return invalid(err, "the %s \"%s\" has %s, a file, instead of %s", what, name, file, member);
                return invalid(err, "the %s \"%s\" has no %s", what, name, member);
        }
        _cleanup_free_ char *pem = NULL;
        _cleanup_error_ struct error cause = ERROR_INIT;
        size_t len = 0;
        if (base64_decode(encoded, &pem, &len, &cause) < 0)
                return invalid(err, "%s of the %s \"%s\": %s", member, what, name, cause.message);
        if (strlen(pem) != len || !str_starts(pem + strspn(pem, " \t\r\n"), "-----BEGIN ") || !strstr(pem, mark))
                return invalid(err, "%s of the %s \"%s\" is not in PEM format", member, what, name);
        *ret = TAKE_PTR(pem);
        return 0;
}

static int read_cluster(struct kubeconfig *k, const char *name, struct error *err) {
        const struct json *cluster = NULL;
        int r = find_named(k->document, "clusters", "cluster", name, &cluster, err);
        if (r < 0)
                return r;
        const char *server = json_string(json_get(cluster, "server"));
        if (!server || !*server)
                return invalid(err, "the cluster \"%s\" has no server", name);
        if (!str_starts(server, "https://") || server[strlen("https://")] == '\0')
                return invalid(err, "the server of the cluster \"%s\" is not an https:// address: %s", name, server);
        k->server = xstrdup(server);
        return decode_pem(cluster, "cluster", name, "certificate-authority-data", CERTIFICATE_MARK, &k->ca_pem, err);
}

static int read_user(struct kubeconfig *k, const char *name, struct error *err) {
        const struct json *user = NULL;
        int r = find_named(k->document, "users", "user", name, &user, err);
        if (r == 0)
                r = decode_pem(user, "user", name, "client-certificate-data", CERTIFICATE_MARK, &k->cert_pem, err);
        if (r == 0)
                r = decode_pem(user, "user", name, "client-key-data", KEY_MARK, &k->key_pem, err);
        return r;
}

static int read_document(struct kubeconfig *k, struct error *err) {
        const struct json *document = k->document, *context = NULL;
        if (!json_is_object(document))
                return invalid(err, "it is not a mapping");
        const struct json *kind = json_get(document, "kind");
        if (kind && !str_eq(json_string(kind), "Config"))
                return invalid(err, "its kind is not Config");
        const char *current = json_string(json_get(document, "current-context"));
        if (!current || !*current)
                return invalid(err, "it has no current-context");
        int r = find_named(document, "contexts", "context", current, &context, err);
        if (r < 0)
                return r;
        const char *cluster = json_string(json_get(context, "cluster"));
        const char *user = json_string(json_get(context, "user"));
        if (!cluster || !*cluster)
                return invalid(err, "the context \"%s\" has no cluster", current);
        if (!user || !*user)
                return invalid(err, "the context \"%s\" has no user", current);
        r = read_cluster(k, cluster, err);
        return r < 0 ? r : read_user(k, user, err);
}

int kubeconfig_parse(const char *text, size_t len, struct kubeconfig **ret, struct error *err) {
        if (len > KUBECONFIG_MAX_BYTES)
                return err_set(err, ERR_FAILED, E2BIG, "the kubeconfig is larger than 1 MiB");
        _cleanup_json_ struct json *documents = NULL;
        int r = yaml_parse(text, len, &documents, err);
        if (r < 0)
                return err_wrap(err, r, "invalid kubeconfig");
        if (json_len(documents) != 1)
                return invalid(err, "%s", json_len(documents) == 0 ? "it is empty" : "it has more than one document");
        _cleanup_kubeconfig_ struct kubeconfig *k = xcalloc(1, sizeof(*k));
        k->document = json_copy(json_first(documents));
        r = read_document(k, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(k);
        return 0;
}

int kubeconfig_read(const char *path, struct kubeconfig **ret, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(KUBECONFIG_MAX_BYTES);
        int r = fs_read(path, KUBECONFIG_MAX_BYTES, &b, err);
        if (r < 0)
                return r;
        r = kubeconfig_parse(buf_str(&b), b.len, ret, err);
        return r < 0 ? err_wrap(err, r, "cannot use %s", path) : 0;
}

/* Adds {"name": @name, @content: {}} as the only item of the list @list; returns the inner object. */
static struct json *add_named(struct json *document, const char *list, const char *name, const char *content) {
        struct json *item = json_new_object();
        json_append(json_set_array(document, list), item);
        struct json *inner = json_set_object(item, content);
        json_set_string(item, "name", name);
        return inner;
}

static void set_encoded(struct json *object, const char *member, const char *pem) {
        _cleanup_free_ char *encoded = base64_encode(pem, strlen(pem));
        json_set_string(object, member, encoded);
}

int kubeconfig_adapt(struct kubeconfig *k, uint16_t port, const char *name, struct error *err) {
        if (port == 0 || !*name)
                return err_set(err, ERR_FAILED, EINVAL, "a kubeconfig needs a port and a name");
        /* Built anew from what was checked, because the text comes from the guest: an `exec` or `proxy-url` in it
         * would have the host's kubectl run programs or send the client's key elsewhere. */
        _cleanup_json_ struct json *document = json_new_object();
        json_set_string(document, "apiVersion", "v1");
        json_set_string(document, "kind", "Config");
        _cleanup_free_ char *server = xasprintf("https://127.0.0.1:%u", port);
        struct json *cluster = add_named(document, "clusters", name, "cluster");
        set_encoded(cluster, "certificate-authority-data", k->ca_pem);
        json_set_string(cluster, "server", server);
        struct json *context = add_named(document, "contexts", name, "context");
        json_set_string(context, "cluster", name);
        json_set_string(context, "user", name);
        json_set_string(document, "current-context", name);
        struct json *user = add_named(document, "users", name, "user");
        set_encoded(user, "client-certificate-data", k->cert_pem);
        set_encoded(user, "client-key-data", k->key_pem);

        free(k->server);
        k->server = TAKE_PTR(server);
        json_free(k->document);
        k->document = TAKE_PTR(document);
        return 0;
}

/* The current context; it is there, as it was looked for when @k was read. */
static struct json *current_context(const struct kubeconfig *k) {
        const char *name = json_string(json_get(k->document, "current-context"));
        struct json *item = json_first(json_get(k->document, "contexts"));
        while (item && !str_eq(json_string(json_get(item, "name")), name))
                item = json_next(item);
        return json_get(item, "context");
}

/* A DNS label, as the API wants it (RFC 1123). */
static bool is_namespace(const char *s) {
        size_t len = s ? strlen(s) : 0;
        return len > 0 && len <= 63 && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0' && s[0] != '-' &&
               s[len - 1] != '-';
}

const char *kubeconfig_namespace(const struct kubeconfig *k) {
        const char *namespace = json_string(json_get(current_context(k), "namespace"));
        return is_namespace(namespace) ? namespace : "default";
}

void kubeconfig_keep_namespace(struct kubeconfig *k, const char *path) {
        _cleanup_kubeconfig_ struct kubeconfig *before = NULL;
        if (kubeconfig_read(path, &before, NULL) < 0 || !str_eq(before->ca_pem, k->ca_pem))
                return;
        const char *namespace = json_string(json_get(current_context(before), "namespace"));
        if (is_namespace(namespace))
                json_set_string(current_context(k), "namespace", namespace);
}

/* Whether @path is a private file that holds @text already. */
static bool is_written(const char *path, const char *text) {
        struct stat st;
        if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_mode & 07777) != 0600)
                return false;
        _cleanup_buf_ struct buf b = BUF_INIT(KUBECONFIG_MAX_BYTES);
        return fs_read(path, KUBECONFIG_MAX_BYTES, &b, NULL) == 0 && b.len == strlen(text) &&
               memcmp(buf_str(&b), text, b.len) == 0;
}

int kubeconfig_write(const struct kubeconfig *k, const char *path, struct error *err) {
        _cleanup_free_ char *text = NULL;
        int r = yaml_print(k->document, &text, err);
        if (r < 0)
                return err_wrap(err, r, "cannot write %s", path);
        if (is_written(path, text))
                return 0;
        _cleanup_free_ char *folder = path_parent(path);
        r = fs_mkdir_p(folder, 0700, err);
        if (r < 0)
                return err_wrap(err, r, "cannot write %s", path);
        return fs_write_atomic(path, text, strlen(text), 0600, err);
}
