/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <k3s-vm/web_service.h>

#define SERVICE(name, annotation, type, ports) \
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: " name ", annotations: {" annotation "}}\n" \
        "spec: {type: " type ", ports: [" ports "]}\n"

/* The NodePort that is chosen, of those that the manifests have: "WEB/ALL". A node port that is left open is 0. */
static void assert_chosen(const char *text, long long expected, size_t expected_n) {
        _cleanup_manifests_ struct manifests m = {0};
        _cleanup_free_ struct node_port *ports = NULL;
        assert_int_equal(manifests_add_text(&m, "web.yaml", text, strlen(text), NULL), 0);
        size_t n = web_service_ports(&m, &ports);
        assert_int_equal(n, expected_n);
        const struct node_port *web = web_service_choose(ports, n, 30080);
        assert_int_equal(web ? (long long)web->node_port : -1, expected);
}

static void the_only_node_port_is_the_page(void **state _unused_) {
        assert_chosen(SERVICE("a", "", "NodePort", "{port: 80, nodePort: 31000}"), 31000, 1);
        assert_chosen(SERVICE("a", "", "NodePort", "{port: 80}"), 0, 1);
        assert_chosen(SERVICE("a", "", "NodePort",
                              "{port: 53, protocol: UDP, nodePort: 31053}, {port: 80, nodePort: 31000}"),
                      31000, 1);
        assert_chosen(SERVICE("a", "", "ClusterIP", "{port: 80}"), -1, 0);
        assert_chosen(SERVICE("a", "", "LoadBalancer", "{port: 80, nodePort: 31000}"), -1, 0);
}

static void of_several_it_is_the_annotated_one_or_that_which_is_forwarded(void **state _unused_) {
        assert_chosen(SERVICE("a", "", "NodePort", "{port: 80, nodePort: 31000}")
                                      SERVICE("b", "k3s-vm/web: 'true'", "NodePort",
                                              "{port: 81, nodePort: 31001}, {port: 82, nodePort: 31002}"),
                      31001, 3);
        assert_chosen(SERVICE("a", "k3s-vm/web: admin", "NodePort",
                              "{name: main, port: 80, nodePort: 31000}, {name: admin, port: 81, nodePort: 31001}"),
                      31001, 2);
        assert_chosen(SERVICE("a", "k3s-vm/web: '81'", "LoadBalancer",
                              "{port: 80, nodePort: 31000}, {port: 81, nodePort: 31001}"),
                      31001, 2);
        assert_chosen(SERVICE("a", "", "NodePort", "{port: 80, nodePort: 31000}, {port: 81, nodePort: 30080}"), 30080,
                      2);
        assert_chosen(SERVICE("a", "", "NodePort", "{port: 80, nodePort: 31000}, {port: 81, nodePort: 31001}"), -1, 2);
}

static void nonsense_is_no_port(void **state _unused_) {
        assert_chosen("apiVersion: v1\nkind: Service\nmetadata: {name: a, annotations: 3}\n"
                      "spec: {type: NodePort, ports: {a: [1]}}\n",
                      0, 1);
        assert_chosen("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: [NodePort]\n", -1, 0);
        assert_chosen(SERVICE("a", "k3s-vm/web: x", "NodePort", ""), -1, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(the_only_node_port_is_the_page),
                        cmocka_unit_test(of_several_it_is_the_annotated_one_or_that_which_is_forwarded),
                        cmocka_unit_test(nonsense_is_no_port),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
