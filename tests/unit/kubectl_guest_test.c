/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/kubectl_guest.h>

/* The verb and the files found in a command line, "verb: file file !host-only". Words are separated by blanks. */
static char *parsed(const char *line) {
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, line, " ");
        struct kubectl_arguments a;
        kubectl_arguments_parse(&words, &a);
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        buf_printf(&out, "%s:", a.verb ? a.verb : "-");
        for (size_t i = 0; i < a.n_files; i++)
                buf_printf(&out, " %s", words.items[a.files[i].index] + a.files[i].offset);
        if (a.host_only)
                buf_printf(&out, " !%s", a.host_only);
        kubectl_arguments_clear(&a);
        return buf_take(&out);
}

static void assert_parsed(const char *line, const char *expected) {
        _cleanup_free_ char *found = parsed(line);
        assert_string_equal(found, expected);
}

static void finds_files_in_every_spelling(_unused_ void **state) {
        assert_parsed("apply -f a.yaml", "apply: a.yaml");
        assert_parsed("apply -fa.yaml", "apply: a.yaml");
        assert_parsed("apply -f=a.yaml", "apply: a.yaml");
        assert_parsed("apply -Rf folder", "apply: folder");
        assert_parsed("apply --filename a.yaml", "apply: a.yaml");
        assert_parsed("apply --filename=a.yaml -f b,c", "apply: a.yaml b,c");
        assert_parsed("-f a.yaml apply", "apply: a.yaml");
        assert_parsed("apply -f -", "apply: -");
}

static void a_value_of_a_global_option_is_no_verb(_unused_ void **state) {
        assert_parsed("-n logs apply -f a", "apply: a");
        assert_parsed("--namespace=logs get pods", "get:");
        assert_parsed("--context logs -v 6 get -f a", "get: a");
}

static void following_a_log_names_no_file(_unused_ void **state) {
        assert_parsed("logs -f pod", "logs:");
        assert_parsed("-n x logs pod -f", "logs:");
}

static void the_words_of_a_program_in_a_pod_are_its_own(_unused_ void **state) {
        assert_parsed("exec pod -- grep -f patterns", "exec:");
}

static void other_options_that_look_alike_name_no_file(_unused_ void **state) {
        assert_parsed("get pods --field-selector a=b --filenames x", "get:");
        assert_parsed("delete pod x --force", "delete:");
}

static void an_option_without_its_value_is_left_to_kubectl(_unused_ void **state) {
        assert_parsed("apply -f", "apply:");
        assert_parsed("apply --filename", "apply:");
        assert_parsed("", "-:");
}

static void what_needs_the_host_is_noticed(_unused_ void **state) {
        assert_parsed("-n x port-forward svc/web 80", "port-forward: !port-forward");
        assert_parsed("proxy", "proxy: !proxy");
        assert_parsed("cp a pod:/b", "cp: !cp");
        assert_parsed("apply -k folder", "apply: !-k");
        assert_parsed("create configmap x --from-file=a", "create: !--from-file");
        assert_parsed("get cp", "get:");
}

static bool needs_server(const char *line) {
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, line, " ");
        struct kubectl_arguments a;
        kubectl_arguments_parse(&words, &a);
        bool needs = a.needs_server;
        kubectl_arguments_clear(&a);
        return needs;
}

static void what_kubectl_does_alone_is_told_from_what_needs_the_server(_unused_ void **state) {
        static const char *const alone[] = {"",
                                            "--help",
                                            "get --help",
                                            "version --client",
                                            "config view",
                                            "-n x config set-context --current --namespace=y",
                                            "completion bash",
                                            "help get",
                                            "kustomize folder",
                                            "plugin list",
                                            "options",
                                            "__complete get po",
                                            "create deployment web --image=web --dry-run=client -o yaml",
                                            "get pods --kubeconfig /elsewhere",
                                            "--server=https://elsewhere get pods"};
        static const char *const with_server[] = {"get pods",          "version",
                                                  "api-resources",     "cluster-info",
                                                  "-n config get po",  "apply -f x --dry-run=server",
                                                  "exec pod -- ls -h", "exec pod -- --help",
                                                  "explain pods"};
        for (size_t i = 0; i < ELEMENTSOF(alone); i++)
                assert_false(needs_server(alone[i]));
        for (size_t i = 0; i < ELEMENTSOF(with_server); i++)
                assert_true(needs_server(with_server[i]));
}

static void words_reach_the_guests_shell_as_they_are(_unused_ void **state) {
        _cleanup_strv_ struct strv words = {0};
        strv_push(&words, "time");
        strv_push(&words, "a  b");
        strv_push(&words, "it's");
        strv_push(&words, "");
        strv_push(&words, "$HOME\n*");
        _cleanup_free_ char *line = quote_words(&words);
        /* The first one bare could be a keyword or an assignment. */
        assert_string_equal(line, "'time' 'a  b' 'it'\\''s' '' '$HOME\n*'");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(finds_files_in_every_spelling),
                        cmocka_unit_test(a_value_of_a_global_option_is_no_verb),
                        cmocka_unit_test(following_a_log_names_no_file),
                        cmocka_unit_test(the_words_of_a_program_in_a_pod_are_its_own),
                        cmocka_unit_test(other_options_that_look_alike_name_no_file),
                        cmocka_unit_test(an_option_without_its_value_is_left_to_kubectl),
                        cmocka_unit_test(what_needs_the_host_is_noticed),
                        cmocka_unit_test(what_kubectl_does_alone_is_told_from_what_needs_the_server),
                        cmocka_unit_test(words_reach_the_guests_shell_as_they_are),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
