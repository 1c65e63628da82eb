/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/pod_env.h>

#define DEPLOYMENT(name, annotations, containers) \
        "{\"apiVersion\": \"apps/v1\", \"kind\": \"Deployment\"," \
        " \"metadata\": {\"name\": \"" name "\", \"namespace\": \"shop\", \"annotations\": {" annotations "}}," \
        " \"spec\": {\"template\": {\"spec\": {\"containers\": " containers "}}}}"
#define WEB "[{\"name\": \"web\"}]"

static struct kubeconfig *kubeconfig_of(const char *key) {
        struct kubeconfig *k = xcalloc(1, sizeof(*k));
        static const char text[] =
                        "{\"clusters\": [{\"name\": \"a\", \"cluster\": {\"server\": \"https://127.0.0.1:6443\"}}]}";
        assert_int_equal(json_parse(text, strlen(text), &k->document, NULL), 0);
        k->key_pem = xstrdup(key);
        return k;
}

static void write_env(const struct scratch *s, const char *text) {
        _cleanup_free_ char *folder = path_join(s->root, "web"), *path = path_join(folder, ".env");
        assert_int_equal(fs_mkdir_p(folder, 0755, NULL), 0);
        scratch_write(path, text);
}

static int add(const struct scratch *s, const char *manifest, const char *key, struct manifests *ret,
               struct error *err) {
        _cleanup_config_ struct config *c = NULL;
        _cleanup_kubeconfig_ struct kubeconfig *k = kubeconfig_of(key);
        assert_int_equal(config_load(s->p, &c, NULL), 0);
        assert_int_equal(manifests_add_text(ret, "base.json", manifest, strlen(manifest), NULL), 0);
        return pod_env_add(s->p, c, k, ret, err);
}

/* A variable of the Secret that is object @index; the caller frees. NULL: it has none of that name. */
static char *value_of(const struct manifests *m, size_t index, const char *key) {
        const char *encoded = json_string(json_get(m->items[index].object, "data", key));
        char *value = NULL;
        size_t len = 0;
        if (encoded)
                assert_int_equal(base64_decode(encoded, &value, &len, NULL), 0);
        return value;
}

static struct json *template_of(const struct manifests *m, size_t index) {
        return json_get(m->items[index].object, "spec", "template");
}

static const char *digest_of(const struct manifests *m, size_t index) {
        return json_string(json_get(template_of(m, index), "metadata", "annotations", "k3s-vm/env-digest"));
}

/* The name of the Secret that is source @source of the first container. */
static const char *source_of(const struct manifests *m, size_t index, size_t source) {
        const struct json *container = json_first(json_get(template_of(m, index), "spec", "containers"));
        return json_string(json_get(json_at(json_get(container, "envFrom"), source), "secretRef", "name"));
}

static void assert_value(const struct manifests *m, size_t index, const char *key, const char *expected) {
        _cleanup_free_ char *value = value_of(m, index, key);
        if (!str_eq(value, expected))
                fail_msg("%s is %s, not %s", key, value ? value : "not there", expected ? expected : "none");
}

static void every_deployment_gets_a_secret_of_its_own(void **state) {
        struct scratch *s = *state;
        write_env(s, "KUBECONFIG=./kubeconfig.yaml\nPASSWORD='pa$$ \"word\"'\nA=1\nA=2\n");
        _cleanup_manifests_ struct manifests m = {0};
        assert_int_equal(add(s,
                             DEPLOYMENT("web", "",
                                        "[{\"name\": \"web\", \"envFrom\": [{\"secretRef\": {\"name\": \"own\"}}]}]"),
                             "key", &m, NULL),
                         0);
        assert_int_equal(m.n, 2);
        assert_string_equal(m.items[1].kind, "Secret");
        assert_string_equal(m.items[1].name, "k3s-vm-env-web");
        assert_string_equal(m.items[1].namespace, "shop");
        assert_value(&m, 1, "PASSWORD", "pa$$ \"word\"");
        assert_value(&m, 1, "A", "2");
        assert_value(&m, 1, "KUBECONFIG", NULL);
        /* What the manifest has comes behind, and so has the last word. */
        assert_string_equal(source_of(&m, 0, 0), "k3s-vm-env-web");
        assert_string_equal(source_of(&m, 0, 1), "own");
        assert_int_equal(strlen(digest_of(&m, 0)), SHA256_HEX_LEN);
}

static void annotation_opts_out_or_names_the_variables(void **state) {
        struct scratch *s = *state;
        write_env(s, "KUBECONFIG=./kubeconfig.yaml\nA=1\nB=2\n");
        _cleanup_manifests_ struct manifests off = {0}, some = {0}, missing = {0};
        assert_int_equal(add(s, DEPLOYMENT("web", "\"k3s-vm/env\": \"off\"", WEB), "key", &off, NULL), 0);
        assert_int_equal(off.n, 1);
        assert_null(digest_of(&off, 0));
        assert_int_equal(add(s, DEPLOYMENT("web", "\"k3s-vm/env\": \"B, KUBECONFIG\"", WEB), "key", &some, NULL), 0);
        assert_value(&some, 1, "A", NULL);
        assert_value(&some, 1, "B", "2");
        assert_value(&some, 1, "KUBECONFIG", "./kubeconfig.yaml");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(add(s, DEPLOYMENT("web", "\"k3s-vm/env\": \"B C\"", WEB), "key", &missing, &err), -ENOENT);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.message, "base.json:1: "));
        assert_non_null(strstr(err.message, "variable C"));
}

static void change_of_a_variable_rolls_those_who_have_it(void **state) {
        struct scratch *s = *state;
        static const char manifest[] = "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [" DEPLOYMENT(
                        "all", "", WEB) "," DEPLOYMENT("one", "\"k3s-vm/env\": \"A\"", WEB) "]}";
        _cleanup_manifests_ struct manifests before = {0}, after = {0}, other_cluster = {0};
        write_env(s, "A=1\nB=2\n");
        assert_int_equal(add(s, manifest, "key", &before, NULL), 0);
        assert_int_equal(before.n, 4);
        write_env(s, "A=1\nB=3\n");
        assert_int_equal(add(s, manifest, "key", &after, NULL), 0);
        assert_string_not_equal(digest_of(&before, 0), digest_of(&after, 0));
        assert_string_equal(digest_of(&before, 1), digest_of(&after, 1));
        assert_int_equal(add(s, manifest, "another key", &other_cluster, NULL), 0);
        assert_string_not_equal(digest_of(&after, 1), digest_of(&other_cluster, 1));
}

static void credentials_have_the_address_that_pods_can_reach(void **state) {
        struct scratch *s = *state;
        _cleanup_kubeconfig_ struct kubeconfig *k = kubeconfig_of("key");
        _cleanup_free_ char *own = json_print(k->document, false), *encoded = base64_encode(own, strlen(own)),
                            *env = xasprintf("KUBECONFIG_PRIMARY=%s\n", encoded);
        _cleanup_manifests_ struct manifests m = {0}, foreign = {0};
        write_env(s, env);
        assert_int_equal(add(s, DEPLOYMENT("web", "", WEB), "key", &m, NULL), 0);
        _cleanup_free_ char *value = value_of(&m, 1, "KUBECONFIG_PRIMARY"), *text = NULL;
        size_t len = 0;
        assert_int_equal(base64_decode(value, &text, &len, NULL), 0);
        assert_non_null(strstr(text, "\"server\":\"https://kubernetes.default.svc\""));
        assert_null(strstr(text, "127.0.0.1"));

        write_env(s, "KUBECONFIG_PRIMARY=another\n");
        assert_int_equal(add(s, DEPLOYMENT("web", "", WEB), "key", &foreign, NULL), 0);
        assert_value(&foreign, 1, "KUBECONFIG_PRIMARY", "another");
}

static void nothing_is_added_without_variables_or_deployments(void **state) {
        struct scratch *s = *state;
        _cleanup_manifests_ struct manifests none = {0}, empty = {0}, other = {0}, bad = {0};
        assert_int_equal(add(s, DEPLOYMENT("web", "", WEB), "key", &none, NULL), 0);
        assert_int_equal(none.n, 1);
        write_env(s, "# nothing\nKUBECONFIG=a\n");
        assert_int_equal(add(s, DEPLOYMENT("web", "", WEB), "key", &empty, NULL), 0);
        assert_int_equal(empty.n, 1);
        write_env(s, "A=1\n");
        assert_int_equal(add(s,
                             "{\"apiVersion\": \"example.com/v1\", \"kind\": \"Deployment\", \"metadata\": {\"name\": "
                             "\"a\"}}",
                             "key", &other, NULL),
                         0);
        assert_int_equal(other.n, 1);
        write_env(s, "A='1\n");
        assert_true(add(s, DEPLOYMENT("web", "", WEB), "key", &bad, NULL) < 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test_setup_teardown(every_deployment_gets_a_secret_of_its_own, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(annotation_opts_out_or_names_the_variables, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(change_of_a_variable_rolls_those_who_have_it, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(credentials_have_the_address_that_pods_can_reach, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(nothing_is_added_without_variables_or_deployments,
                                                        scratch_setup, scratch_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
