/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/kube.h>
#include <k3s-vm/yaml.h>

static const char certificate[] = "-----BEGIN CERTIFICATE-----\n"
                                  "MIIBGDCBvgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQDDA1rM3Mtc2VydmVyLWNh\n"
                                  "MB4XDTI0MDEwMTAwMDAwMFoXDTM0MDEwMTEyMzQ1NlowGDEWMBQGA1UEAwwNazNz\n"
                                  "LXNlcnZlci1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGOCMV4Likm1knd6\n"
                                  "7y8vw4Ejn+7yh2FBsHp/RkTkoIOLYGgqW0jHVV6CiG1+uQfFeDMqUpeh2w4MR7ir\n"
                                  "dWhdoSYwCgYIKoZIzj0EAwIDSQAwRgIhANdkA9HZ5UAkoJjRCPqtleIgDonm9uUy\n"
                                  "GDRDgdALsvxdAiEAsUpLfTq1ZORDoREbI8N/tR7TWlb9gGpSUg6rT5P+fpY=\n"
                                  "-----END CERTIFICATE-----\n";
/* Belongs to nothing: made for this test. */
static const char key[] = "-----BEGIN EC PRIVATE KEY-----\n"
                          "MHcCAQEEIO6QYLcSy1iP7Ku08I1olLaEG149phsk3b50wrtgKDqcoAoGCCqGSM49\n"
                          "AwEHoUQDQgAEY4IxXguKSbWSd3rvLy/DgSOf7vKHYUGwen9GROSgg4tgaCpbSMdV\n"
                          "XoKIbX65B8V4MypSl6HbDgxHuKt1aF2hJg==\n"
                          "-----END EC PRIVATE KEY-----\n";

/* As K3s writes /etc/rancher/k3s/k3s.yaml; the client's certificate is a chain of two. @cluster and @user are
 * further lines of those. */
static char *k3s_text(const char *cluster, const char *user) {
        _cleanup_free_ char *chain = xasprintf("%s%s", certificate, certificate);
        _cleanup_free_ char *ca64 = base64_encode(certificate, strlen(certificate)),
                            *chain64 = base64_encode(chain, strlen(chain)), *key64 = base64_encode(key, strlen(key));
        return xasprintf("apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: %s\n"
                         "    server: https://127.0.0.1:6443\n%s  name: default\ncontexts:\n- context:\n    cluster: "
                         "default\n"
                         "    user: default\n  name: default\ncurrent-context: default\nkind: Config\npreferences: {}\n"
                         "users:\n- name: default\n  user:\n    client-certificate-data: %s\n    client-key-data: "
                         "%s\n%s",
                         ca64, cluster, chain64, key64, user);
}

static struct kubeconfig *parse_k3s(void) {
        _cleanup_free_ char *text = k3s_text("", "");
        _cleanup_error_ struct error err = ERROR_INIT;
        struct kubeconfig *k = NULL;
        if (kubeconfig_parse(text, strlen(text), &k, &err) < 0)
                fail_msg("%s", err.message);
        return k;
}

static void what_k3s_writes_is_read(void **state _unused_) {
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s();
        assert_string_equal(k->server, "https://127.0.0.1:6443");
        assert_string_equal(k->ca_pem, certificate);
        assert_string_equal(k->key_pem, key);
        assert_int_equal(strlen(k->cert_pem), 2 * strlen(certificate));
        assert_string_equal(json_string(json_get(k->document, "current-context")), "default");
}

static void json_is_read_too(void **state _unused_) {
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s(), *again = NULL;
        _cleanup_free_ char *text = json_print(k->document, true);
        assert_int_equal(kubeconfig_parse(text, strlen(text), &again, NULL), 0);
        assert_string_equal(again->key_pem, key);
}

static void the_current_context_decides(void **state _unused_) {
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s(), *again = NULL;
        struct json *cluster = json_copy(json_first(json_get(k->document, "clusters")));
        struct json *context = json_copy(json_first(json_get(k->document, "contexts")));
        json_set_string(cluster, "name", "other");
        json_set_string(json_get(cluster, "cluster"), "server", "https://other:1");
        json_set_string(context, "name", "second");
        json_set_string(json_get(context, "context"), "cluster", "other");
        json_append(json_get(k->document, "clusters"), cluster);
        json_append(json_get(k->document, "contexts"), context);
        json_set_string(k->document, "current-context", "second");
        _cleanup_free_ char *text = json_print(k->document, false);
        assert_int_equal(kubeconfig_parse(text, strlen(text), &again, NULL), 0);
        assert_string_equal(again->server, "https://other:1");
}

static void assert_invalid(const char *text, const char *message) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct kubeconfig *k = NULL;
        assert_int_equal(kubeconfig_parse(text, strlen(text), &k, &err), -EBADMSG);
        assert_null(k);
        if (message)
                assert_string_equal(err.message, message);
}

/* The text of K3s with the line that holds @what replaced by @with. */
static void assert_invalid_with(const char *what, const char *with, const char *message) {
        _cleanup_free_ char *text = k3s_text("", "");
        char *line = strstr(text, what);
        assert_non_null(line);
        while (line > text && line[-1] != '\n')
                line--;
        char *end = strchr(line, '\n');
        *line = '\0';
        _cleanup_free_ char *changed = xasprintf("%s%s%s", text, with, end + (*with == '\0'));
        assert_invalid(changed, message);
}

static void what_is_missing_is_named(void **state _unused_) {
        assert_invalid("", "invalid kubeconfig: it is empty");
        assert_invalid("a: 1\n---\nb: 2\n", "invalid kubeconfig: it has more than one document");
        assert_invalid("- a\n", "invalid kubeconfig: it is not a mapping");
        assert_invalid("a: [", NULL);
        assert_invalid("{}", "invalid kubeconfig: it has no current-context");
        assert_invalid("current-context: a\n", "invalid kubeconfig: it has no contexts");
        assert_invalid_with("current-context", "", "invalid kubeconfig: it has no current-context");
        assert_invalid_with("current-context", "current-context: ''", "invalid kubeconfig: it has no current-context");
        assert_invalid_with("current-context", "current-context: x",
                            "invalid kubeconfig: contexts has no context called \"x\"");
        assert_invalid_with("kind:", "kind: Pod", "invalid kubeconfig: its kind is not Config");
        assert_invalid_with("certificate-authority-data", "",
                            "invalid kubeconfig: the cluster \"default\" has no certificate-authority-data");
        assert_invalid_with("certificate-authority-data", "    certificate-authority: ca.crt",
                            "invalid kubeconfig: the cluster \"default\" has certificate-authority, a file, instead of "
                            "certificate-authority-data");
        assert_invalid_with("certificate-authority-data", "    certificate-authority-data: '*'", NULL);
        assert_invalid_with("certificate-authority-data", "    certificate-authority-data: aGVsbG8=",
                            "invalid kubeconfig: certificate-authority-data of the cluster \"default\" is not in PEM "
                            "format");
        assert_invalid_with("certificate-authority-data", "    certificate-authority-data: AAAA", NULL);
        assert_invalid_with("client-certificate-data", "",
                            "invalid kubeconfig: the user \"default\" has no client-certificate-data");
        assert_invalid_with("client-certificate-data", "    token: x",
                            "invalid kubeconfig: the user \"default\" has no client-certificate-data");
        assert_invalid_with("client-key-data", "", "invalid kubeconfig: the user \"default\" has no client-key-data");
        assert_invalid_with("server:", "", "invalid kubeconfig: the cluster \"default\" has no server");
        assert_invalid_with("server:", "    server: http://127.0.0.1:6443", NULL);
        assert_invalid_with("server:", "    server: 6443", "invalid kubeconfig: the cluster \"default\" has no server");
        assert_invalid_with("    cluster: default", "    cluster: x",
                            "invalid kubeconfig: clusters has no cluster called \"x\"");
        assert_invalid_with("    user: default", "", "invalid kubeconfig: the context \"default\" has no user");
        assert_invalid_with("    user: default", "    user: \"\\e[31m\"",
                            "invalid kubeconfig: users has no user called \"\\x1b[31m\"");
}

static void a_huge_text_is_refused(void **state _unused_) {
        _cleanup_free_ char *text = xcalloc(1024 * 1024 + 2, 1);
        memset(text, '#', 1024 * 1024 + 1);
        struct kubeconfig *k = NULL;
        assert_int_equal(kubeconfig_parse(text, strlen(text), &k, NULL), -E2BIG);
        assert_null(k);
}

static void adapting_names_everything_and_points_to_the_port(void **state _unused_) {
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s(), *again = NULL;
        assert_int_equal(kubeconfig_adapt(k, 16443, "k3s-vm-shop", NULL), 0);
        assert_string_equal(k->server, "https://127.0.0.1:16443");
        _cleanup_free_ char *text = NULL;
        assert_int_equal(yaml_print(k->document, &text, NULL), 0);
        assert_null(strstr(text, "default"));
        assert_int_equal(kubeconfig_parse(text, strlen(text), &again, NULL), 0);
        assert_string_equal(again->server, "https://127.0.0.1:16443");
        assert_string_equal(again->ca_pem, k->ca_pem);
        assert_string_equal(again->cert_pem, k->cert_pem);
        assert_string_equal(again->key_pem, key);
        const struct json *context = json_get(json_first(json_get(again->document, "contexts")), "context");
        assert_string_equal(json_string(json_get(context, "cluster")), "k3s-vm-shop");
        assert_string_equal(json_string(json_get(context, "user")), "k3s-vm-shop");
        assert_int_equal(kubeconfig_adapt(k, 0, "x", NULL), -EINVAL);
        assert_string_equal(k->server, "https://127.0.0.1:16443");
}

static void nothing_that_kubectl_would_run_gets_through(void **state _unused_) {
        _cleanup_free_ char *text = k3s_text("    proxy-url: http://evil:1\n    insecure-skip-tls-verify: true\n",
                                             "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n"
                                             "      command: /bin/evil\n");
        _cleanup_kubeconfig_ struct kubeconfig *k = NULL;
        assert_int_equal(kubeconfig_parse(text, strlen(text), &k, NULL), 0);
        assert_int_equal(kubeconfig_adapt(k, 6443, "shop", NULL), 0);
        _cleanup_free_ char *adapted = json_print(k->document, false);
        assert_null(strstr(adapted, "evil"));
        assert_null(strstr(adapted, "insecure"));
        assert_null(strstr(adapted, "exec"));
}

static mode_t mode_of(const char *path) {
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        return st.st_mode;
}

static ino_t inode_of(const char *path) {
        struct stat st;
        assert_int_equal(lstat(path, &st), 0);
        return st.st_ino;
}

static void writing_is_private_and_leaves_equal_files_alone(void **state _unused_) {
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-kubeconfig", &dir, NULL), 0);
        _cleanup_free_ char *folder = path_join(dir, "web/.kube"), *path = path_join(folder, "config"),
                            *victim = path_join(dir, "victim");
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s(), *again = NULL;
        assert_int_equal(kubeconfig_adapt(k, 6443, "shop", NULL), 0);
        assert_int_equal(kubeconfig_write(k, path, NULL), 0);
        assert_int_equal(mode_of(path), S_IFREG | 0600);
        assert_int_equal(mode_of(folder), S_IFDIR | 0700);
        assert_int_equal(kubeconfig_read(path, &again, NULL), 0);
        assert_string_equal(again->key_pem, key);

        ino_t inode = inode_of(path);
        assert_int_equal(kubeconfig_write(k, path, NULL), 0);
        assert_true(inode_of(path) == inode);
        assert_int_equal(chmod(path, 0644), 0);
        assert_int_equal(kubeconfig_write(k, path, NULL), 0);
        assert_int_equal(mode_of(path), S_IFREG | 0600);

        /* A symlink is replaced and what it points to left alone. */
        assert_int_equal(fs_write_atomic(victim, "x", 1, 0600, NULL), 0);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink(victim, path), 0);
        assert_int_equal(kubeconfig_write(k, path, NULL), 0);
        assert_int_equal(mode_of(path), S_IFREG | 0600);
        assert_int_equal(fs_size(victim), 1);
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
}

/* What the file at @path holds after a start that finds it there, when the cluster's authority is @authority. */
static struct kubeconfig *start_again(const char *path, const char *authority) {
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s();
        struct kubeconfig *again = NULL;
        assert_int_equal(kubeconfig_adapt(k, 7443, "shop", NULL), 0);
        free(k->ca_pem);
        k->ca_pem = xstrdup(authority);
        kubeconfig_keep_namespace(k, path);
        _cleanup_free_ char *text = json_print(k->document, true);
        assert_int_equal(kubeconfig_parse(text, strlen(text), &again, NULL), 0);
        return again;
}

static const char *namespace_of(const struct kubeconfig *k) {
        return json_string(json_get(json_first(json_get(k->document, "contexts")), "context", "namespace"));
}

static void the_user_s_namespace_outlasts_a_start_and_nothing_else_does(void **state _unused_) {
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-kubeconfig", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "config");
        _cleanup_kubeconfig_ struct kubeconfig *k = parse_k3s();
        assert_int_equal(kubeconfig_adapt(k, 6443, "shop", NULL), 0);
        struct json *context = json_get(json_first(json_get(k->document, "contexts")), "context");
        json_set_string(context, "namespace", "team-a");
        json_set_string(context, "extra", "evil");
        assert_int_equal(kubeconfig_write(k, path, NULL), 0);

        _cleanup_kubeconfig_ struct kubeconfig *again = start_again(path, certificate);
        assert_string_equal(namespace_of(again), "team-a");
        assert_string_equal(again->server, "https://127.0.0.1:7443");
        _cleanup_free_ char *text = json_print(again->document, false);
        assert_null(strstr(text, "evil"));

        _cleanup_kubeconfig_ struct kubeconfig *other = start_again(path, key); /* a cluster that was made anew */
        assert_null(namespace_of(other));

        static const char *const junk[] = {"", "Team", "a b", "-a", "a/b", "a\nb"};
        for (size_t i = 0; i < ELEMENTSOF(junk); i++) {
                json_set_string(context, "namespace", junk[i]);
                assert_int_equal(kubeconfig_write(k, path, NULL), 0);
                _cleanup_kubeconfig_ struct kubeconfig *without = start_again(path, certificate);
                assert_null(namespace_of(without));
        }
        assert_int_equal(unlink(path), 0);
        _cleanup_kubeconfig_ struct kubeconfig *first = start_again(path, certificate);
        assert_null(namespace_of(first));
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
}

static void reading_names_the_file(void **state _unused_) {
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-kubeconfig", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "config");
        _cleanup_error_ struct error err = ERROR_INIT;
        struct kubeconfig *k = NULL;
        assert_int_equal(kubeconfig_read(path, &k, &err), -ENOENT);
        assert_int_equal(fs_write_atomic(path, "{}", 2, 0600, NULL), 0);
        assert_int_equal(kubeconfig_read(path, &k, &err), -EBADMSG);
        _cleanup_free_ char *expected = xasprintf("cannot use %s: invalid kubeconfig: it has no current-context", path);
        assert_string_equal(err.message, expected);
        assert_null(k);
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(what_k3s_writes_is_read),
                        cmocka_unit_test(json_is_read_too),
                        cmocka_unit_test(the_current_context_decides),
                        cmocka_unit_test(what_is_missing_is_named),
                        cmocka_unit_test(a_huge_text_is_refused),
                        cmocka_unit_test(adapting_names_everything_and_points_to_the_port),
                        cmocka_unit_test(nothing_that_kubectl_would_run_gets_through),
                        cmocka_unit_test(writing_is_private_and_leaves_equal_files_alone),
                        cmocka_unit_test(the_user_s_namespace_outlasts_a_start_and_nothing_else_does),
                        cmocka_unit_test(reading_names_the_file),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
