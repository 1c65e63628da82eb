/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <k3s-vm/manifest.h>
#include <k3s-vm/yaml.h>

#define ONE "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one\n"

static int add(struct manifests *m, const char *text, struct error *err) {
        return manifests_add_text(m, "web.yaml", text, strlen(text), err);
}

static void assert_refused(const char *text, const char *message) {
        _cleanup_manifests_ struct manifests m = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(add(&m, text, &err) < 0);
        assert_int_equal(err.code, ERR_USAGE);
        if (!strstr(err.message, message))
                fail_msg("\"%s\" is not in \"%s\"", message, err.message);
}

static void documents_and_lists_become_objects_in_their_order(void **state _unused_) {
        _cleanup_manifests_ struct manifests m = {0};
        assert_int_equal(add(&m,
                             ONE "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n"
                                 "- {apiVersion: apps/v1, kind: Deployment, metadata: {name: two, namespace: shop}}\n"
                                 "- {apiVersion: v1, kind: ConfigMapList, items: [{apiVersion: v1, kind: ConfigMap, "
                                 "metadata: {name: three}}]}\n",
                             NULL),
                         0);
        assert_int_equal(m.n, 3);
        assert_string_equal(m.items[0].name, "one");
        assert_null(m.items[0].namespace);
        assert_string_equal(m.items[1].api_version, "apps/v1");
        assert_string_equal(m.items[1].namespace, "shop");
        assert_string_equal(m.items[2].name, "three");
        _cleanup_free_ char *where = manifest_where(&m.items[1], ".metadata.namespace"),
                            *nested = manifest_where(&m.items[2], NULL), *first = manifest_where(&m.items[0], NULL);
        assert_string_equal(where, "web.yaml:11 (document 2)");
        assert_string_equal(nested, "web.yaml:12 (document 2)");
        assert_string_equal(first, "web.yaml:1 (document 1)");
}

static void what_is_missing_or_wrong_is_named_with_its_line(void **state _unused_) {
        assert_refused("kind: A\nmetadata: {name: x}\n", "web.yaml:1: field apiVersion is missing");
        assert_refused("apiVersion: v1\nkind: ''\nmetadata: {name: x}\n",
                       "web.yaml:2: field kind has to be a string that is not empty");
        assert_refused("apiVersion: v1\nkind: A\nmetadata:\n  name: 12\n", "web.yaml:4: field metadata.name has to be");
        assert_refused("apiVersion: v1\nkind: A\nmetadata:\n  labels: {}\n",
                       "web.yaml:3: field metadata.name is missing");
        assert_refused("apiVersion: v1\nkind: A\nmetadata: {generateName: x-}\n", "generateName");
        assert_refused("apiVersion: ../v1\nkind: A\nmetadata: {name: x}\n", "field apiVersion is no version of an API");
        assert_refused("apiVersion: v1\nkind: A\nmetadata: {name: ..}\n", "no object can be called");
        assert_refused("apiVersion: v1\nkind: A\nmetadata: {name: x, namespace: []}\n", "field metadata.namespace");
        assert_refused("- 1\n", "an object is expected");
        assert_refused(ONE "---\n12\n", "web.yaml:6 (document 2): an object is expected");
        assert_refused("apiVersion: v1\nkind: List\nitems: 3\n", "web.yaml:3: the items of a list have to be a list");
        assert_refused("apiVersion: v1\nkind: List\nitems:\n- kind: A\n",
                       "web.yaml:4: field items[0].apiVersion is missing");
        assert_refused("a: [\n", "cannot read the manifest web.yaml: invalid YAML at line");
        assert_refused("{\"apiVersion\": \"v1\",\n \"kind\": \"A\",\n \"metadata\": {\"name\": \"\"}}",
                       "web.yaml:3: field metadata.name");
}

static void lists_in_lists_have_an_end(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (int i = 0; i < 20; i++)
                buf_puts(&b, "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[");
        for (int i = 0; i < 20; i++)
                buf_puts(&b, "]}");
        assert_refused(buf_str(&b), "the lists are nested too deeply");
}

static void too_many_objects_are_refused(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (unsigned i = 0; i <= MANIFESTS_MAX; i++)
                buf_printf(&b, "---\n{apiVersion: v1, kind: A, metadata: {name: a%u}}\n", i);
        assert_refused(buf_str(&b), "these are more than");
}

static void write_manifest(const struct scratch *s, const char *name, const char *text) {
        _cleanup_free_ char *folder = path_join(s->p->dir, "manifests"), *path = path_join(folder, name);
        assert_int_equal(fs_mkdir_p(folder, 0700, NULL), 0);
        scratch_write(path, text);
}

static void a_project_begins_with_base_json(void **state) {
        const struct scratch *s = *state;
        write_manifest(s, "a.yaml", ONE);
        write_manifest(s, "z.yml", ONE);
        write_manifest(s, "base.json", "{\"apiVersion\":\"v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"base\"}}");
        write_manifest(s, "b.json", "{\"apiVersion\":\"v1\",\"kind\":\"A\",\"metadata\":{\"name\":\"b\"}}");
        write_manifest(s, "notes.txt", "no manifest");
        write_manifest(s, ".swap.yaml", "no manifest");
        _cleanup_manifests_ struct manifests m = {0};
        assert_int_equal(manifests_read_project(s->p, &m, NULL), 0);
        assert_int_equal(m.n, 4);
        assert_string_equal(m.items[0].source->name, ".k3s-vm/manifests/base.json");
        assert_string_equal(m.items[1].source->name, ".k3s-vm/manifests/a.yaml");
        assert_string_equal(m.items[2].source->name, ".k3s-vm/manifests/b.json");
        assert_string_equal(m.items[3].source->name, ".k3s-vm/manifests/z.yml");
}

static void a_project_without_manifests_has_none(void **state) {
        const struct scratch *s = *state;
        _cleanup_manifests_ struct manifests m = {0};
        assert_int_equal(manifests_read_project(s->p, &m, NULL), 0);
        assert_int_equal(m.n, 0);
}

static void the_digest_is_of_what_is_meant_and_not_of_how_it_is_written(void **state _unused_) {
        char digests[3][SHA256_HEX_LEN + 1];
        static const char *const texts[] = {ONE,
                                            "# a comment\napiVersion: \"v1\"\nkind: ConfigMap\nmetadata: {name: one}\n",
                                            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n"};
        for (size_t i = 0; i < 3; i++) {
                _cleanup_manifests_ struct manifests m = {0};
                assert_int_equal(add(&m, texts[i], NULL), 0);
                assert_int_equal(manifests_digest(&m, digests[i], NULL), 0);
        }
        assert_string_equal(digests[0], digests[1]);
        assert_string_not_equal(digests[0], digests[2]);
}

static void a_field_is_found_as_the_api_writes_it(void **state _unused_) {
        static const char text[] = "a: 1\n"
                                   "---\n"
                                   "spec:\n"
                                   "  containers:\n"
                                   "  - name: web\n"
                                   "    image: x\n"
                                   "  - image: y\n"
                                   "    name: side\n"
                                   "metadata:\n"
                                   "  annotations:\n"
                                   "    example.com/a: b\n"
                                   "    example.com/a.c: d\n";
        const struct {
                const char *path;
                size_t line;
        } cases[] = {
                        {"", 3},
                        {".spec.containers", 4},
                        {".spec.containers[1].image", 7},
                        {".spec.containers[name=\"side\"].name", 8},
                        {".spec.containers[name=\"none\"].name", 4},
                        {"spec.containers[0].image", 6},
                        {".spec.containers[0].ports", 5},
                        {".metadata.annotations.example.com/a", 11},
                        {".metadata.annotations.example.com/a.c", 12},
                        {".nothing.here", 3},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (yaml_line_of(text, strlen(text), 1, cases[i].path) != cases[i].line)
                        fail_msg("%s: line %zu", cases[i].path, yaml_line_of(text, strlen(text), 1, cases[i].path));
        assert_int_equal(yaml_line_of(text, strlen(text), 2, ""), 0);
        assert_int_equal(yaml_line_of("a: [", 4, 0, ".a"), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(documents_and_lists_become_objects_in_their_order),
                        cmocka_unit_test(what_is_missing_or_wrong_is_named_with_its_line),
                        cmocka_unit_test(lists_in_lists_have_an_end),
                        cmocka_unit_test(too_many_objects_are_refused),
                        scratch_test(a_project_begins_with_base_json),
                        scratch_test(a_project_without_manifests_has_none),
                        cmocka_unit_test(the_digest_is_of_what_is_meant_and_not_of_how_it_is_written),
                        cmocka_unit_test(a_field_is_found_as_the_api_writes_it),
        };
        return cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
}
