/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/dotenv.h>
#include <k3s-vm/pod_env.h>
#include <k3s-vm/web_env.h>

#define DIGEST_ANNOTATION "k3s-vm/env-digest"
#define SECRET_PREFIX "k3s-vm-env-"
#define KEY_PATH "KUBECONFIG"
#define KEY_CONTENTS "KUBECONFIG_PRIMARY"
#define SEPARATORS ", \t\n"

struct injection {
        const struct config *config;
        const struct kubeconfig *kubeconfig;
        const struct dotenv *variables;
        char *primary; /* KUBECONFIG_PRIMARY for pods; NULL: it is not this cluster's */
};

/* The credentials with the API's address for pods, in the form that they have in the file; NULL where @value are not
 * the ones of @k. */
static char *primary_for_pods(const char *value, const struct kubeconfig *k, const char *server) {
        _cleanup_free_ char *own = json_print(k->document, false), *own_encoded = base64_encode(own, strlen(own));
        if (!str_eq(value, own_encoded))
                return NULL;
        _cleanup_json_ struct json *document = json_copy(k->document);
        json_set_string(json_get(json_first(json_get(document, "clusters")), "cluster"), "server", server);
        _cleanup_free_ char *text = json_print(document, false);
        return base64_encode(text, strlen(text));
}

static const char *value_for_pods(const struct injection *i, const struct dotenv_entry *e) {
        return i->primary && str_eq(e->key, KEY_CONTENTS) ? i->primary : e->value;
}

/* {"KEY": "base64 of its value"} of all variables that @m is to have. */
static int collect(const struct injection *i, const struct manifest *m, const char *wanted, struct json *data,
                   struct error *err) {
        _cleanup_strv_ struct strv names = {0};
        strv_split(&names, wanted ? wanted : "", SEPARATORS);
        for (size_t n = 0; n < names.len; n++) {
                if (dotenv_get(i->variables, names.items[n]))
                        continue;
                _cleanup_free_ char *where = manifest_where(m, ".metadata.annotations"),
                                    *shown = str_printable(names.items[n], strnlen(names.items[n], 100));
                int r = err_set(err, ERR_USAGE, ENOENT,
                                "%s: " POD_ENV_ANNOTATION " names the variable %s, and %s has none", where, shown,
                                i->config->web_env_path);
                err_hint(err, "set it there, or take it out of the annotation");
                return r;
        }
        for (size_t n = 0; n < i->variables->n; n++) {
                const struct dotenv_entry *e = &i->variables->entries[n];
                bool is_wanted = wanted ? strv_contains(&names, e->key) : !str_eq(e->key, KEY_PATH);
                if (!is_wanted || dotenv_get(i->variables, e->key) != e)
                        continue;
                const char *value = value_for_pods(i, e);
                _cleanup_free_ char *encoded = base64_encode(value, strlen(value));
                json_set_string(data, e->key, encoded);
        }
        return 0;
}

/* With the client's key before the values: nobody who reads the annotation can try out short ones. */
static int digest_values(const struct injection *i, const struct json *data, char hex[static SHA256_HEX_LEN + 1],
                         struct error *err) {
        _cleanup_digest_ struct digest *d = NULL;
        _cleanup_free_ char *text = json_print(data, false);
        int r = digest_new(&d, err);
        if (r < 0)
                return r;
        digest_update(d, i->kubeconfig->key_pem, strlen(i->kubeconfig->key_pem));
        digest_update(d, text, strlen(text));
        digest_final(d, hex);
        return 0;
}

static struct json *get_or_add_object(struct json *parent, const char *key) {
        struct json *child = json_get(parent, key);
        return json_is_object(child) ? child : json_set_object(parent, key);
}

/* As the first of what each container takes in: of two that have a variable, the later one's counts. */
static void refer(struct json *containers, const char *secret) {
        for (struct json *container = json_first(containers); container; container = json_next(container)) {
                struct json *sources = json_new_array(), *source = json_new_object();
                json_set_string(json_set_object(source, "secretRef"), "name", secret);
                json_append(sources, source);
                for (const struct json *own = json_first(json_get(container, "envFrom")); own; own = json_next(own))
                        json_append(sources, json_copy(own));
                json_set(container, "envFrom", sources);
        }
}

static void change(struct manifest *m, const char *secret, const char *digest) {
        struct json *template = json_get(m->object, "spec", "template");
        refer(json_get(template, "spec", "containers"), secret);
        refer(json_get(template, "spec", "initContainers"), secret);
        json_set_string(get_or_add_object(get_or_add_object(template, "metadata"), "annotations"), DIGEST_ANNOTATION,
                        digest);
}

static struct json *make_secret(const struct manifest *m, const char *name, struct json *data) {
        struct json *secret = json_new_object();
        json_set_string(secret, "apiVersion", "v1");
        json_set_string(secret, "kind", "Secret");
        struct json *metadata = json_set_object(secret, "metadata");
        json_set_string(metadata, "name", name);
        json_set_string(metadata, "namespace", m->namespace);
        json_set_string(secret, "type", "Opaque");
        json_set(secret, "data", data);
        return secret;
}

static int inject(const struct injection *i, struct manifests *all, size_t index, struct error *err) {
        struct manifest *m = &all->items[index];
        const char *wanted = json_string(json_get(m->object, "metadata", "annotations", POD_ENV_ANNOTATION));
        if (!str_eq(m->kind, "Deployment") || !str_starts(m->api_version, "apps/") || str_eq(wanted, "off"))
                return 0;
        _cleanup_json_ struct json *data = json_new_object();
        char digest[SHA256_HEX_LEN + 1];
        int r = collect(i, m, wanted, data, err);
        if (r < 0 || json_len(data) == 0)
                return r;
        r = digest_values(i, data, digest, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *name = xasprintf(SECRET_PREFIX "%s", m->name);
        change(m, name, digest);
        struct json *secret = make_secret(m, name, TAKE_PTR(data));
        return manifests_add_object(all, i->config->web_env_path, secret, err);
}

int pod_env_add(const struct project *p, const struct config *c, const struct kubeconfig *k, struct manifests *m,
                struct error *err) {
        _cleanup_dotenv_ struct dotenv variables = {0};
        int r = web_env_read(p, c, &variables, err);
        if (r < 0)
                return r;
        const struct dotenv_entry *contents = dotenv_get(&variables, KEY_CONTENTS);
        struct injection i = {.config = c, .kubeconfig = k, .variables = &variables};
        if (contents)
                i.primary = primary_for_pods(contents->value, k, c->pod_api_server);
        /* The Secrets are added behind them. */
        for (size_t n = m->n, index = 0; r == 0 && index < n; index++)
                r = inject(&i, m, index, err);
        free(i.primary);
        return r;
}
