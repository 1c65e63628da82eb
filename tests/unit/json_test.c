/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>

/* Parses a copy without a NUL behind it, so that a sanitizer sees a read past the end. */
static int parse(const char *text, struct json **ret, struct error *err) {
        size_t len = strlen(text);
        _cleanup_free_ char *copy = xcalloc(len, 1);
        memcpy(copy, text, len);
        return json_parse(copy, len, ret, err);
}

static void assert_refused(const char *text, const char *message) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct json *j = NULL;
        assert_int_equal(parse(text, &j, &err), -EBADMSG);
        assert_null(j);
        if (message)
                assert_string_equal(err.message, message);
}

static void assert_printed(const struct json *j, const char *expected) {
        _cleanup_free_ char *text = json_print(j, false);
        assert_string_equal(text, expected);
}

static void every_kind_of_value_is_read_and_printed_again(void **state _unused_) {
        static const char *const texts[] = {
                        "null",
                        "true",
                        "false",
                        "0",
                        "-1",
                        "1.5",
                        "1e+300",
                        "\"\"",
                        "\"a\\\"\\\\b\\n\\t\\u0001\"",
                        "[]",
                        "{}",
                        "[1,[2,{\"a\":null}],\"x\"]",
                        "{\"a\":{\"b\":[true,false]},\"ü\":\"😀\"}",
                        "9007199254740992",
                        "1000000000000000",
                        "-1000000000000000",
        };
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_json_ struct json *j = NULL;
                assert_int_equal(parse(texts[i], &j, NULL), 0);
                assert_printed(j, texts[i]);
        }
}

static void white_space_and_escapes_are_understood(void **state _unused_) {
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(parse(" \t\r\n{ \"a\" :\n[ 1 , 2 ] , \"\\u00fc\\/\" : \"\\ud83d\\ude00\" }\n", &j, NULL), 0);
        assert_printed(j, "{\"a\":[1,2],\"ü/\":\"😀\"}");
}

static void bad_texts_are_refused_with_line_and_column(void **state _unused_) {
        assert_refused("{\n  \"a\": x\n}", "invalid JSON at line 2, column 8: a syntax error");
        assert_refused("{\"a\": 1", "invalid JSON at line 1, column 8: the text ends too early");
        assert_refused("[1] 2", "invalid JSON at line 1, column 5: more text after the value");
        assert_refused("", "invalid JSON: the text is empty");
        assert_refused("\"a\\u0000b\"",
                       "invalid JSON at line 1, column 3: strings with NUL characters are not supported");
        assert_refused("\"a", "invalid JSON at line 1, column 3: the string has no end");
        assert_refused("\"a\nb\"", NULL);
        assert_refused("\"\\", NULL);
}

static void what_cjson_would_let_through_is_refused(void **state _unused_) {
        static const char *const bad[] = {
                        "01",    "1.",    "-",       "1e",     "1e999", "-1e999", "[1e999]", "{\"a\":[-1e999]}",
                        "1.2.3", "+1",    "0x1",     "\001 1", "[1,]",  "{,}",    "nul",     "truex",
                        "\f1",   "[1 2]", "{\"a\"}", "{a: 1}", "'a'",   "NaN",    "// x\n1", "[\v]",
                        "1 \001"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_refused(bad[i], NULL);
        struct json *j = NULL;
        assert_int_equal(json_parse("1\0", 2, &j, NULL), -EBADMSG);
        assert_null(j);
}

static char *nested(size_t depth) {
        char *text = xcalloc(depth * 2 + 1, 1);
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        return text;
}

static void nesting_is_bounded(void **state _unused_) {
        _cleanup_free_ char *deepest = nested(JSON_MAX_DEPTH), *deeper = nested(JSON_MAX_DEPTH + 1),
                            *absurd = nested(1000000);
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(parse(deepest, &j, NULL), 0);
        assert_refused(deeper, "invalid JSON at line 1, column 501: nested too deeply");
        assert_refused(absurd, NULL);
}

static void size_is_bounded(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        struct json *j = NULL;
        assert_int_equal(json_parse("1", (size_t)JSON_MAX_BYTES + 1, &j, &err), -E2BIG);
        assert_null(j);
}

static void lookups_accept_anything_and_answer_with_nothing(void **state _unused_) {
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(
                        parse("{\"a\":{\"b\":{\"c\":7}},\"list\":[1,2,3],\"s\":\"x\",\"n\":null,\"t\":true}", &j, NULL),
                        0);
        assert_int_equal(json_u64_or(json_get(j, "a", "b", "c"), 0), 7);
        assert_null(json_get(j, "a", "x", "c"));
        assert_null(json_get(j, "list", "b"));
        assert_null(json_get(j, "A"));
        assert_null(json_get(NULL, "a"));
        assert_null(json_string(json_get(j, "t")));
        assert_string_equal(json_string(json_get(j, "s")), "x");
        assert_string_equal(json_string_or(json_get(j, "t"), "other"), "other");
        assert_true(json_bool_or(json_get(j, "t"), false));
        assert_true(json_bool_or(json_get(j, "s"), true));
        assert_true(json_is_null(json_get(j, "n")));
        assert_false(json_is_null(NULL));
        assert_int_equal(json_len(json_get(j, "list")), 3);
        assert_int_equal(json_len(NULL), 0);
        assert_int_equal(json_len(json_get(j, "s")), 0);
        assert_int_equal(json_u64_or(json_at(json_get(j, "list"), 2), 0), 3);
        assert_null(json_at(json_get(j, "list"), 3));
        assert_null(json_at(j, 0));
        assert_string_equal(json_key(json_first(j)), "a");
        assert_null(json_key(json_first(json_get(j, "list"))));
        assert_null(json_first(NULL));
        assert_null(json_next(NULL));
        json_free(NULL);
}

static void only_whole_numbers_that_are_exact_are_u64(void **state _unused_) {
        static const struct {
                double value;
                uint64_t expected;
        } cases[] = {{0, 0},
                     {1, 1},
                     {9007199254740992., 9007199254740992U},
                     {9007199254740994., 42},
                     {-1, 42},
                     {0.5, 42},
                     {1e300, 42},
                     {NAN, 42},
                     {INFINITY, 42}};
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_json_ struct json *j = json_new_number(cases[i].value);
                assert_true(json_u64_or(j, 42) == cases[i].expected);
        }
}

static void setters_replace_and_null_leaves_out(void **state _unused_) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "a", "1");
        json_set_number(j, "b", 2);
        json_set_bool(j, "c", true);
        json_set_string(j, "a", "3");
        json_set_string(j, "d", NULL);
        assert_printed(j, "{\"a\":\"3\",\"b\":2,\"c\":true}");
        json_set_string(j, "a", NULL);
        json_set(j, "b", NULL);
        json_remove(j, "nothing");
        assert_printed(j, "{\"c\":true}");
        json_set_string(json_set_object(j, "o"), "x", "y");
        struct json *array = json_set_array(j, "l");
        json_append_string(array, "z");
        json_append_string(array, NULL);
        json_append(array, json_new_null());
        assert_printed(j, "{\"c\":true,\"o\":{\"x\":\"y\"},\"l\":[\"z\",null]}");
        json_set_array(j, "c");
        assert_printed(j, "{\"c\":[],\"o\":{\"x\":\"y\"},\"l\":[\"z\",null]}");
}

static void setting_a_member_of_what_is_no_object_does_nothing(void **state _unused_) {
        _cleanup_json_ struct json *j = json_new_array();
        json_set_string(j, "a", "b");
        json_add(j, "a", json_new_bool(true));
        assert_null(json_set_object(j, "a"));
        json_set_string(NULL, "a", "b");
        json_append_string(NULL, "a");
        assert_printed(j, "[]");
}

static void a_copied_member_is_no_member(void **state _unused_) {
        _cleanup_json_ struct json *j = NULL, *array = json_new_array();
        assert_int_equal(parse("{\"a\":{\"b\":1},\"c\":2}", &j, NULL), 0);
        json_append(array, json_copy(json_get(j, "a")));
        assert_null(json_key(json_first(array)));
        assert_null(json_next(json_first(array)));
        assert_printed(array, "[{\"b\":1}]");
        assert_printed(j, "{\"a\":{\"b\":1},\"c\":2}");
        assert_null(json_copy(NULL));
}

static void pretty_printing_indents_by_two(void **state _unused_) {
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(parse("{\"a\":[1,{\"b\":{}}],\"c\":[]}", &j, NULL), 0);
        _cleanup_free_ char *text = json_print(j, true);
        assert_string_equal(text, "{\n  \"a\": [\n    1,\n    {\n      \"b\": {}\n    }\n  ],\n  \"c\": []\n}\n");
}

static void numbers_read_back_as_themselves(void **state _unused_) {
        static const double values[] = {0.1,           1.0 / 3, 5e-324,           1.7976931348623157e308,
                                        123456789.125, -2.5e-7, 9007199254740994.};
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                char text[JSON_NUMBER_MAX];
                json_format_number(values[i], text);
                _cleanup_json_ struct json *j = NULL;
                double back = 0;
                assert_int_equal(parse(text, &j, NULL), 0);
                assert_true(json_number(j, &back));
                assert_true(back == values[i]);
        }
        _cleanup_json_ struct json *infinite = json_new_number(INFINITY);
        assert_printed(infinite, "null");
}

static void a_file_is_read_and_named_in_errors(void **state _unused_) {
        _cleanup_free_ char *dir = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-json", &dir, NULL), 0);
        _cleanup_free_ char *path = path_join(dir, "x.json");
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *j = NULL;
        assert_int_equal(json_read_file(path, 100, &j, &err), -ENOENT);
        assert_int_equal(fs_write_atomic(path, "{]", 2, 0600, NULL), 0);
        assert_int_equal(json_read_file(path, 100, &j, &err), -EBADMSG);
        assert_non_null(strstr(err.message, path));
        assert_int_equal(fs_write_atomic(path, "[1]", 3, 0600, NULL), 0);
        assert_int_equal(json_read_file(path, 2, &j, &err), -EFBIG);
        assert_null(j);
        assert_int_equal(json_read_file(path, 3, &j, &err), 0);
        assert_printed(j, "[1]");
        assert_int_equal(fs_remove_tree(dir, NULL), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(every_kind_of_value_is_read_and_printed_again),
                        cmocka_unit_test(white_space_and_escapes_are_understood),
                        cmocka_unit_test(bad_texts_are_refused_with_line_and_column),
                        cmocka_unit_test(what_cjson_would_let_through_is_refused),
                        cmocka_unit_test(nesting_is_bounded),
                        cmocka_unit_test(size_is_bounded),
                        cmocka_unit_test(lookups_accept_anything_and_answer_with_nothing),
                        cmocka_unit_test(only_whole_numbers_that_are_exact_are_u64),
                        cmocka_unit_test(setters_replace_and_null_leaves_out),
                        cmocka_unit_test(setting_a_member_of_what_is_no_object_does_nothing),
                        cmocka_unit_test(a_copied_member_is_no_member),
                        cmocka_unit_test(pretty_printing_indents_by_two),
                        cmocka_unit_test(numbers_read_back_as_themselves),
                        cmocka_unit_test(a_file_is_read_and_named_in_errors),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
