/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

/* Parses a copy without a NUL behind it, so that a sanitizer sees a read past the end. */
static int parse(const char *text, size_t len, struct json **ret, struct error *err) {
        _cleanup_free_ char *copy = xcalloc(len, 1);
        memcpy(copy, text, len);
        return yaml_parse(copy, len, ret, err);
}

static void assert_yaml(const char *text, const char *expected) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *documents = NULL;
        if (parse(text, strlen(text), &documents, &err) < 0)
                fail_msg("%s: %s", text, err.message);
        _cleanup_free_ char *got = json_print(documents, false);
        assert_string_equal(got, expected);
}

static void assert_refused(const char *text, const char *message) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct json *documents = NULL;
        assert_int_equal(parse(text, strlen(text), &documents, &err), -EBADMSG);
        assert_null(documents);
        if (message)
                assert_string_equal(err.message, message);
}

/* What `kubectl annotate --local -o json` (1.32) makes of each. */
static void plain_scalars_are_what_kubectl_makes_of_them(void **state _unused_) {
        static const char *const cases[][2] = {
                        {"0644", "420"},
                        {"0o17", "15"},
                        {"0x1F", "31"},
                        {"0b11", "3"},
                        {"-0644", "-420"},
                        {"08", "8"},
                        {"0899", "899"},
                        {"1_000", "1000"},
                        {"+1", "1"},
                        {"00", "0"},
                        {"-0", "0"},
                        {"1e3", "1000"},
                        {"1E5", "100000"},
                        {"1e+3", "1000"},
                        {"12e03", "12000"},
                        {".5", "0.5"},
                        {"-.5", "-0.5"},
                        {"+.5", "0.5"},
                        {".5e3", "500"},
                        {"1.", "1"},
                        {"1.0", "1"},
                        {"1.10", "1.1"},
                        {"3.7e-1", "0.37"},
                        {"1_0.5", "10.5"},
                        {"123456789012345678901234567890", "1.2345678901234568e+29"},
                        {"yes", "true"},
                        {"on", "true"},
                        {"y", "true"},
                        {"TRUE", "true"},
                        {"no", "false"},
                        {"off", "false"},
                        {"n", "false"},
                        {"~", "null"},
                        {"null", "null"},
                        {"tRue", "\"tRue\""},
                        {"1.2.3", "\"1.2.3\""},
                        {"v1.10", "\"v1.10\""},
                        {"2001-01-01", "\"2001-01-01\""},
                        {"1:30", "\"1:30\""},
                        {"1e400", "\"1e400\""},
                        {"0x1G", "\"0x1G\""},
                        {"0x", "\"0x\""},
                        {".e3", "\".e3\""},
                        {"1e", "\"1e\""},
                        {".", "\".\""},
                        {"-", "\"-\""},
                        {"=", "\"=\""},
                        {"<<", "\"<<\""},
                        {"'yes'", "\"yes\""},
                        {"\"1.10\"", "\"1.10\""},
                        {"!!str 0644", "\"0644\""},
                        {"! 12", "\"12\""},
                        {"!!int '12'", "12"},
                        {"!!float 1", "1"},
                        {"!!binary aGVsbG8=", "\"hello\""},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *text = xasprintf("a: %s\n", cases[i][0]);
                /* A lone dash would open a list. */
                if (str_eq(cases[i][0], "-"))
                        continue;
                _cleanup_free_ char *expected = xasprintf("[{\"a\":%s}]", cases[i][1]);
                assert_yaml(text, expected);
        }
}

static void numbers_that_would_change_are_refused(void **state _unused_) {
        assert_yaml("9007199254740992", "[9007199254740992]");
        assert_yaml("9007199254740994", "[9007199254740994]");
        assert_refused("a: 9007199254740993", "invalid YAML at line 1, column 4: the integer is too large to be kept "
                                              "exactly; quote it if it is a string");
        assert_refused("18446744073709551615", NULL);
        assert_refused("0xFFFFFFFFFFFFFFFFFF", NULL);
        assert_refused("a: .inf", NULL);
        assert_refused("a: -.INF", NULL);
        assert_refused("a: .NaN", NULL);
        assert_refused("a: !!int x", NULL);
        assert_refused("a: !!bool 1", NULL);
}

static void keys_become_strings(void **state _unused_) {
        assert_yaml("yes: 1\n1.10: 2\n0644: 3\n'on': 4\n", "[{\"true\":1,\"1.1\":2,\"420\":3,\"on\":4}]");
        assert_refused("? [a]\n: 1\n", "invalid YAML at line 1, column 3: a key has to be a scalar");
        assert_refused("~: 1\n", "invalid YAML at line 1, column 1: a key has to be a string, a number or a boolean");
}

static void documents_are_a_list_without_the_empty_ones(void **state _unused_) {
        assert_yaml("", "[]");
        assert_yaml(" \n", "[]");
        assert_yaml("# nothing\n", "[]");
        assert_yaml("---\n---\n# x\n---\na: 1\n...\n---\n- b\n---\n", "[{\"a\":1},[\"b\"]]");
        assert_yaml("null", "[null]");
        assert_yaml("\xef\xbb\xbf"
                    "a: 1",
                    "[{\"a\":1}]");
}

static void json_is_read_as_json(void **state _unused_) {
        assert_yaml("{\"a\":\"\\ud83d\\ude00\",\"b\":[1,\t{}]}", "[{\"a\":\"😀\",\"b\":[1,{}]}]");
        assert_yaml("{a: 1, b: [x, z]}", "[{\"a\":1,\"b\":[\"x\",\"z\"]}]");
        assert_refused("{\"a\":{\"b\":1,\"c\":2,\"b\":3}}", "invalid YAML: the key \"b\" is there twice");
}

static void a_key_that_is_there_twice_is_an_error(void **state _unused_) {
        assert_refused("a: 1\nb: 2\na: 3\n", "invalid YAML at line 3, column 1: the key \"a\" is there twice");
        assert_refused("x:\n  1: a\n  '1': b\n", NULL);
        assert_refused("<<: {a: 1}\n<<: {b: 1}\n", NULL);
        assert_yaml("a: {b: 1}\nc: {b: 1}\n", "[{\"a\":{\"b\":1},\"c\":{\"b\":1}}]");
}

static void aliases_are_copies(void **state _unused_) {
        assert_yaml("a: &x {k: [1]}\nb: *x\nc: [*x, *x]\n",
                    "[{\"a\":{\"k\":[1]},\"b\":{\"k\":[1]},\"c\":[{\"k\":[1]},{\"k\":[1]}]}]");
        assert_yaml("a: &x 1\nb: &x 2\nc: *x\n", "[{\"a\":1,\"b\":2,\"c\":2}]");
        assert_yaml("&k key: &v value\n*v : *k\n", "[{\"key\":\"value\",\"value\":\"key\"}]");
        assert_refused("a: *x\n", "invalid YAML at line 1, column 4: there is no anchor for the alias *x");
        assert_refused("a: &x [*x]\n", "invalid YAML at line 1, column 8: the alias *x is part of what it stands for");
        assert_refused("&x a: 1\n---\nb: *x\n", NULL);
}

static void merge_keys_add_what_is_not_there(void **state _unused_) {
        assert_yaml("base: &b {x: 1, w: 2}\nd:\n  <<: *b\n  w: 3\n",
                    "[{\"base\":{\"x\":1,\"w\":2},\"d\":{\"w\":3,\"x\":1}}]");
        assert_yaml("d:\n  w: 3\n  <<: [{x: 1, w: 0}, {x: 2, z: 4}]\n", "[{\"d\":{\"w\":3,\"x\":1,\"z\":4}}]");
        assert_yaml("d:\n  <<: &in {x: &deep [1]}\n  e: *in\n  f: *deep\n",
                    "[{\"d\":{\"e\":{\"x\":[1]},\"f\":[1],\"x\":[1]}}]");
        assert_yaml("'<<': {x: 1}\n", "[{\"<<\":{\"x\":1}}]");
        assert_refused("<<: 1\n",
                       "invalid YAML at line 1, column 5: the value of << has to be a mapping or a list of mappings");
        assert_refused("<<: [{a: 1}, 2]\n", NULL);
}

static void expansion_is_bounded(void **state _unused_) {
        _cleanup_buf_ struct buf laughs = BUF_INIT(0);
        buf_puts(&laughs, "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for (int i = 1; i < 12; i++) {
                buf_printf(&laughs, "a%d: &a%d [", i, i);
                for (int j = 0; j < 9; j++)
                        buf_printf(&laughs, "%s*a%d", j ? ", " : "", i - 1);
                buf_puts(&laughs, "]\n");
        }
        assert_refused(buf_str(&laughs), "invalid YAML at line 6, column 20: the aliases expand to more than 16 MiB");

        /* The same by merging, and by nesting one level an alias. */
        _cleanup_buf_ struct buf merges = BUF_INIT(0);
        buf_puts(&merges, "a: &a {k: '");
        for (int i = 0; i < 100000; i++)
                buf_puts(&merges, "x");
        buf_puts(&merges, "'}\nb:\n");
        for (int i = 0; i < 1000; i++)
                buf_puts(&merges, "- <<: *a\n");
        assert_refused(buf_str(&merges), NULL);
        _cleanup_buf_ struct buf chain = BUF_INIT(0);
        buf_puts(&chain, "a0: &a0 []\n");
        for (int i = 1; i < 2000; i++)
                buf_printf(&chain, "a%d: &a%d [*a%d]\n", i, i, i - 1);
        assert_refused(buf_str(&chain), "invalid YAML at line 500, column 14: nested too deeply");
        _cleanup_buf_ struct buf anchors = BUF_INIT(0);
        for (int i = 0; i < 5000; i++)
                buf_printf(&anchors, "- &a%d x\n", i);
        assert_refused(buf_str(&anchors), "invalid YAML at line 4097, column 3: more than 4096 anchors");
}

static void nesting_and_size_are_bounded(void **state _unused_) {
        _cleanup_buf_ struct buf deep = BUF_INIT(0);
        for (size_t i = 0; i < 100000; i++)
                buf_puts(&deep, "[");
        assert_refused(buf_str(&deep), "invalid YAML at line 1, column 501: nested too deeply");
        struct json *documents = NULL;
        assert_int_equal(yaml_parse("a", (size_t)YAML_MAX_BYTES + 1, &documents, NULL), -E2BIG);
        assert_null(documents);
}

static void many_keys_are_read_fast_enough(void **state _unused_) {
        _cleanup_buf_ struct buf many = BUF_INIT(0);
        for (int i = 0; i < 200000; i++)
                buf_printf(&many, "k%d: 1\n", i);
        _cleanup_json_ struct json *documents = NULL;
        assert_int_equal(yaml_parse(buf_str(&many), many.len, &documents, NULL), 0);
        assert_int_equal(json_len(json_at(documents, 0)), 200000);
}

static void bad_texts_are_refused_with_line_and_column(void **state _unused_) {
        assert_refused("a: 1\nb: [1, 2\nc: 3\n",
                       "invalid YAML at line 3, column 2: did not find expected ',' or ']' while "
                       "parsing a flow sequence");
        assert_refused("a: b: c\n", NULL);
        assert_refused("a: \"x\\0y\"\n",
                       "invalid YAML at line 1, column 4: strings with NUL characters are not supported");
        assert_refused("a: !foo b\n", "invalid YAML at line 1, column 4: the tag !foo is not supported");
        assert_refused("a: !!set {x: 1}\n", NULL);
        assert_refused("a: \xff\n", "invalid YAML: the text is not UTF-8");
        assert_refused("a: \x01\n", NULL);
        assert_refused("\ta: 1\n", NULL);
        assert_refused("a: !!binary AAA=\n", NULL);
        assert_refused("a: !!binary '?'\n", NULL);
        struct json *documents = NULL;
        assert_int_equal(parse("a\0b", 3, &documents, NULL), -EBADMSG);
        assert_null(documents);
}

static void a_manifest_is_printed_as_people_write_it(void **state _unused_) {
        const char *text = "apiVersion: v1\n"
                           "kind: ConfigMap\n"
                           "metadata:\n"
                           "  name: web\n"
                           "  labels: {}\n"
                           "data:\n"
                           "  version: \"1.10\"\n"
                           "  mode: \"0644\"\n"
                           "  enabled: \"yes\"\n"
                           "  empty: \"\"\n"
                           "  script: |\n"
                           "    #!/bin/sh\n"
                           "    echo \"hi\"\n"
                           "  address: https://127.0.0.1:6443\n"
                           "list:\n"
                           "- 1\n"
                           "- null\n"
                           "- true\n"
                           "- a: b\n"
                           "  c: ünï\n"
                           "- []\n";
        _cleanup_json_ struct json *documents = NULL;
        _cleanup_free_ char *printed = NULL;
        assert_int_equal(parse(text, strlen(text), &documents, NULL), 0);
        assert_int_equal(yaml_print(json_at(documents, 0), &printed, NULL), 0);
        assert_string_equal(printed, text);
}

static void assert_round_trip(const struct json *j) {
        _cleanup_free_ char *yaml = NULL, *before = json_print(j, false);
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *documents = NULL;
        if (yaml_print(j, &yaml, &err) < 0)
                fail_msg("%s: %s", before, err.message);
        if (parse(yaml, strlen(yaml), &documents, &err) < 0)
                fail_msg("%s\nfrom %s\n%s", err.message, before, yaml);
        assert_int_equal(json_len(documents), 1);
        _cleanup_free_ char *after = json_print(json_first(documents), false);
        if (!str_eq(before, after))
                fail_msg("%s became\n%s by\n%s", before, after, yaml);
}

static void awkward_strings_survive(void **state _unused_) {
        static const char *const strings[] = {
                        "",
                        " ",
                        "\n",
                        "\n\n",
                        "a\n",
                        "a\n\n",
                        " a\n",
                        "\ta\n",
                        "a\n b\n",
                        "a \nb",
                        "a\t\nb",
                        "a\r\nb",
                        "a\rb",
                        "\xc2\x85",
                        "\xe2\x80\xa8",
                        "\xef\xbb\xbf",
                        "\x7f",
                        "\x1b[0m",
                        "- a",
                        "? a",
                        ": a",
                        "a: b",
                        "a #b",
                        "#a",
                        "---",
                        "...",
                        "--- a",
                        "a\n---\nb",
                        "a\n...\n",
                        "%a",
                        "@a",
                        "`a",
                        "&a",
                        "*a",
                        "!a",
                        "|",
                        ">",
                        "{",
                        "}",
                        "[",
                        "]",
                        ",",
                        "'",
                        "\"",
                        "''",
                        "\\",
                        "null",
                        "~",
                        "yes",
                        "No",
                        "0",
                        "0644",
                        "1e3",
                        "1.10",
                        ".5",
                        ".inf",
                        "0x1F",
                        "0o7",
                        "2001-01-01",
                        "12:30:45",
                        "=",
                        "<<",
                        "-",
                        "-a",
                        "a-",
                        "a ",
                        "é",
                        "😀",
                        "\xef\xbf\xbe",
                        "a\nb\xe2\x80\xa9 c",
                        "1_000",
                        "+1",
                        "-.5",
                        "1:30",
                        "#!/bin/sh\n\nx\n  y\n\n\n",
                        "\"a\"\n'b'\n",
                        "a:\n",
                        "a\n\tb\n",
                        "key\nwith\nlines",
        };
        for (size_t i = 0; i < ELEMENTSOF(strings); i++) {
                _cleanup_json_ struct json *scalar = json_new_string(strings[i]), *object = json_new_object(),
                                           *array = json_new_array();
                assert_round_trip(scalar);
                json_set_string(json_set_object(object, strings[i]), "inner", strings[i]);
                json_set_string(object, "last", strings[i]);
                assert_round_trip(object);
                json_append_string(array, strings[i]);
                json_append(array, json_copy(object));
                json_append(array, json_copy(array));
                json_append_string(array, strings[i]);
                assert_round_trip(array);
        }
        _cleanup_buf_ struct buf longest = BUF_INIT(0);
        for (int i = 0; i < 5000; i++)
                buf_printf(&longest, "%d%s", i, i % 100 == 99 ? "  " : " word");
        _cleanup_json_ struct json *object = json_new_object();
        json_set_string(object, buf_str(&longest), buf_str(&longest));
        assert_round_trip(object);
}

static void what_is_not_utf8_cannot_be_printed(void **state _unused_) {
        _cleanup_json_ struct json *value = json_new_string("a\xff"), *key = json_new_object();
        json_set_bool(key, "\xed\xa0\x80", true);
        char *text = NULL;
        assert_int_equal(yaml_print(value, &text, NULL), -EILSEQ);
        assert_int_equal(yaml_print(key, &text, NULL), -EILSEQ);
        assert_null(text);
}

/* A generator with a state of its own, so that a failure can be had again. */
static uint32_t next_random(uint64_t *seed) {
        *seed = *seed * 6364136223846793005U + 1442695040888963407U;
        return (uint32_t)(*seed >> 33);
}

static char *random_string(uint64_t *seed) {
        static const char *const pieces[] = {"a",
                                             "b",
                                             " ",
                                             "  ",
                                             "\n",
                                             "\n\n",
                                             "\t",
                                             ":",
                                             ": ",
                                             "#",
                                             " #",
                                             "-",
                                             "- ",
                                             "?",
                                             "'",
                                             "\"",
                                             "\\",
                                             "0",
                                             "1",
                                             ".",
                                             "e",
                                             "x",
                                             "_",
                                             "+",
                                             "~",
                                             "yes",
                                             "null",
                                             "<<",
                                             "[",
                                             "]",
                                             "{",
                                             "}",
                                             ",",
                                             "&",
                                             "*",
                                             "!",
                                             "|",
                                             ">",
                                             "%",
                                             "@",
                                             "`",
                                             "\r",
                                             "\x01",
                                             "\x7f",
                                             "é",
                                             "\xc2\xa0",
                                             "\xc2\x85",
                                             "😀",
                                             "\xe2\x80\xa8",
                                             "\xef\xbb\xbf",
                                             "\xef\xbf\xbd",
                                             "---",
                                             "...",
                                             "word",
                                             "="};
        struct buf b = BUF_INIT(0);
        for (uint32_t n = next_random(seed) % 8; n > 0; n--)
                buf_puts(&b, pieces[next_random(seed) % ELEMENTSOF(pieces)]);
        return buf_take(&b);
}

static struct json *random_value(uint64_t *seed, int depth) {
        switch (next_random(seed) % (depth > 0 ? 8 : 6)) {
        case 0:
                return json_new_null();
        case 1:
                return json_new_bool(next_random(seed) % 2);
        case 2: {
                /* Bits as they come: every kind of double but those that JSON lacks. */
                uint64_t bits = (uint64_t)next_random(seed) << 33 ^ (uint64_t)next_random(seed) << 11 ^
                                next_random(seed);
                double value;
                memcpy(&value, &bits, sizeof(value));
                return json_new_number(value == value && value - value == 0 ? value : 0);
        }
        case 3:
                return json_new_number((double)next_random(seed) * (next_random(seed) % 2 ? 1 : -4194304));
        case 4:
        case 5: {
                _cleanup_free_ char *s = random_string(seed);
                return json_new_string(s);
        }
        case 6: {
                struct json *array = json_new_array();
                for (uint32_t n = next_random(seed) % 5; n > 0; n--)
                        json_append(array, random_value(seed, depth - 1));
                return array;
        }
        default: {
                struct json *object = json_new_object();
                for (uint32_t n = next_random(seed) % 5; n > 0; n--) {
                        _cleanup_free_ char *key = random_string(seed);
                        json_set(object, key, random_value(seed, depth - 1));
                }
                return object;
        }
        }
}

static void any_value_survives_printing_and_parsing(void **state _unused_) {
        uint64_t seed = 20240229;
        for (int i = 0; i < 20000; i++) {
                _cleanup_json_ struct json *j = random_value(&seed, 5);
                assert_round_trip(j);
        }
}

static void the_deepest_value_survives(void **state _unused_) {
        _cleanup_buf_ struct buf deep = BUF_INIT(0);
        for (size_t i = 0; i < JSON_MAX_DEPTH / 2; i++)
                buf_puts(&deep, "{\"a\":[");
        for (size_t i = 0; i < JSON_MAX_DEPTH / 2; i++)
                buf_puts(&deep, "]}");
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(json_parse(buf_str(&deep), deep.len, &j, NULL), 0);
        assert_round_trip(j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(plain_scalars_are_what_kubectl_makes_of_them),
                        cmocka_unit_test(numbers_that_would_change_are_refused),
                        cmocka_unit_test(keys_become_strings),
                        cmocka_unit_test(documents_are_a_list_without_the_empty_ones),
                        cmocka_unit_test(json_is_read_as_json),
                        cmocka_unit_test(a_key_that_is_there_twice_is_an_error),
                        cmocka_unit_test(aliases_are_copies),
                        cmocka_unit_test(merge_keys_add_what_is_not_there),
                        cmocka_unit_test(expansion_is_bounded),
                        cmocka_unit_test(nesting_and_size_are_bounded),
                        cmocka_unit_test(many_keys_are_read_fast_enough),
                        cmocka_unit_test(bad_texts_are_refused_with_line_and_column),
                        cmocka_unit_test(a_manifest_is_printed_as_people_write_it),
                        cmocka_unit_test(awkward_strings_survive),
                        cmocka_unit_test(what_is_not_utf8_cannot_be_printed),
                        cmocka_unit_test(any_value_survives_printing_and_parsing),
                        cmocka_unit_test(the_deepest_value_survives),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
