/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/err.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/strv.h>

static void a_vector_ends_in_null_after_each_push(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        for (int i = 0; i < 1000; i++) {
                strv_pushf(&v, "item %d", i);
                assert_int_equal(v.len, i + 1);
                assert_null(v.items[v.len]);
        }
        assert_string_equal(v.items[0], "item 0");
        assert_string_equal(v.items[999], "item 999");
}

static void a_shortened_vector_can_grow_again(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        for (int i = 0; i < 9; i++)
                strv_push(&v, "x");
        while (v.len > 3) {
                free(v.items[--v.len]);
                v.items[v.len] = NULL;
        }
        for (int i = 0; i < 40; i++)
                strv_push(&v, "y");
        assert_int_equal(v.len, 43);
        assert_string_equal(v.items[42], "y");
        assert_null(v.items[43]);
}

static void room_is_made_a_few_times_and_not_with_each_push(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        size_t times = 0;
        for (int i = 0; i < 100000; i++) {
                size_t before = v.cap;
                strv_push_take(&v, NULL);
                times += v.cap != before;
                assert_true(v.cap > v.len);
        }
        assert_in_range(times, 1, 40);
}

static void extending_copies_and_takes_nothing_for_nothing(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        char one[] = "one";
        strv_extend(&v, (const char *const[]){one, "two", NULL});
        one[0] = 'X';
        strv_extend(&v, NULL);
        assert_int_equal(v.len, 2);
        assert_string_equal(v.items[0], "one");
        assert_true(strv_contains(&v, "two"));
        assert_false(strv_contains(&v, "tw"));
        assert_false(strv_contains(&v, NULL));
}

static void joining_puts_separators_only_between(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        _cleanup_free_ char *none = strv_join(&v, ", ");
        assert_string_equal(none, "");
        strv_push(&v, "a");
        _cleanup_free_ char *one = strv_join(&v, ", ");
        assert_string_equal(one, "a");
        strv_push(&v, "");
        strv_push(&v, "c");
        _cleanup_free_ char *three = strv_join(&v, ", ");
        assert_string_equal(three, "a, , c");
}

static void splitting_drops_empty_parts(void **state _unused_) {
        _cleanup_strv_ struct strv v = {0};
        strv_split(&v, "", ",");
        strv_split(&v, ", ,", ", ");
        assert_int_equal(v.len, 0);
        strv_split(&v, ",a b,,c", ", ");
        _cleanup_free_ char *joined = strv_join(&v, "|");
        assert_string_equal(joined, "a|b|c");
}

static void freeing_leaves_an_empty_vector(void **state _unused_) {
        struct strv v = {0};
        strv_push(&v, "a");
        strv_free(&v);
        assert_int_equal(v.len, 0);
        assert_null(v.items);
        strv_free(&v);
}

static void null_equals_only_null(void **state _unused_) {
        assert_true(str_eq(NULL, NULL));
        assert_false(str_eq(NULL, ""));
        assert_false(str_eq("", NULL));
        assert_true(str_eq("a", "a"));
        assert_false(str_eq("a", "A"));
}

static void a_word_is_one_of_a_list_as_a_whole_or_not_at_all(void **state _unused_) {
        static const char *const words[] = {"one", "two", "", NULL};
        assert_true(str_is_one_of("one", words));
        assert_true(str_is_one_of("two", words));
        assert_true(str_is_one_of("", words));
        assert_false(str_is_one_of("on", words));
        assert_false(str_is_one_of("One", words));
        assert_false(str_is_one_of("one ", words));
        assert_false(str_is_one_of(NULL, words));
        assert_false(str_is_one_of("", (const char *const[]){NULL}));
}

static void beginnings_and_ends(void **state _unused_) {
        assert_true(str_starts("abc", "ab"));
        assert_true(str_starts("abc", ""));
        assert_false(str_starts("ab", "abc"));
        assert_true(str_ends("abc", "bc"));
        assert_true(str_ends("abc", ""));
        assert_false(str_ends("bc", "abc"));
}

static void numbers_are_whole_decimal_strings_within_the_range(void **state _unused_) {
        uint64_t n = 7;
        assert_int_equal(str_to_u64("0", 0, 10, &n), 0);
        assert_int_equal(n, 0);
        assert_int_equal(str_to_u64("18446744073709551615", 0, UINT64_MAX, &n), 0);
        assert_true(n == UINT64_MAX);
        assert_int_equal(str_to_u64("0010", 10, 10, &n), 0);
        assert_int_equal(n, 10);
}

static void other_texts_are_no_numbers_and_change_nothing(void **state _unused_) {
        static const char *const invalid[] = {NULL,  "",   " ",   "+1",  "-1",       "1 ", " 1",
                                              "0x1", "1a", "1.0", "1\n", "\xd9\xa1", "1e3"};
        uint64_t n = 7;
        for (size_t i = 0; i < ELEMENTSOF(invalid); i++)
                assert_int_equal(str_to_u64(invalid[i], 0, UINT64_MAX, &n), -EINVAL);
        static const char *const range[] = {"18446744073709551616", "18446744073709551620", "99999999999999999999",
                                            "184467440737095516150"};
        for (size_t i = 0; i < ELEMENTSOF(range); i++)
                assert_int_equal(str_to_u64(range[i], 0, UINT64_MAX, &n), -ERANGE);
        assert_int_equal(str_to_u64("9", 10, 20, &n), -ERANGE);
        assert_int_equal(str_to_u64("21", 10, 20, &n), -ERANGE);
        assert_int_equal(str_to_u64("99999999999999999999x", 0, UINT64_MAX, &n), -EINVAL);
        assert_int_equal(n, 7);
}

static void assert_printable(const char *text, size_t len, const char *expected) {
        _cleanup_free_ char *shown = str_printable(text, len);
        assert_string_equal(shown, expected);
}

static void text_in_any_language_stays_as_it_is(void **state _unused_) {
        static const char *const texts[] = {"", "plain ~ text", "\xc3\xa4\xc2\xa0",
                                            "\xe2\x82\xac\xe0\xa0\x80\xed\x9f\xbf",
                                            "\xf0\x9f\x90\xb3\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                assert_printable(texts[i], strlen(texts[i]), texts[i]);
}

static void control_characters_are_escaped(void **state _unused_) {
        assert_printable("\x1b[2Ja\r\n\x7f", 8, "\\x1b[2Ja\\x0d\\x0a\\x7f");
        assert_printable("a\0b", 3, "a\\x00b");
        assert_printable("a\tb", 3, "a    b");
        /* The C1 controls, of which some terminals take U+009B for ESC [. */
        assert_printable("\xc2\x9b", 2, "\\xc2\\x9b");
        assert_printable("\xc2\x80", 2, "\\xc2\\x80");
}

static void invalid_utf8_is_escaped(void **state _unused_) {
        assert_printable("\xff", 1, "\\xff");
        assert_printable("\x80", 1, "\\x80");
        assert_printable("\xc0\xaf", 2, "\\xc0\\xaf");                   /* overlong */
        assert_printable("\xe0\x9f\xbf", 3, "\\xe0\\x9f\\xbf");          /* overlong */
        assert_printable("\xf0\x8f\xbf\xbf", 4, "\\xf0\\x8f\\xbf\\xbf"); /* overlong */
        assert_printable("\xed\xa0\x80", 3, "\\xed\\xa0\\x80");          /* surrogate */
        assert_printable("\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
        assert_printable("\xe2\x82z", 3, "\\xe2\\x82z");
        /* A sequence that the length cuts off, whatever follows in memory. */
        assert_printable("\xe2\x82\xac", 2, "\\xe2\\x82");
}

/* What a real shell makes of @text, quoted, as one argument. */
static void assert_round_trip(const char *text) {
        _cleanup_free_ char *quoted = str_shell_quote(text), *script = xasprintf("printf '<%%s>' %s", quoted);
        _cleanup_buf_ struct buf out = BUF_INIT(4096);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){"sh", "-c", script, NULL};
        run.spec.cwd = "/";
        run.ret_stdout = &out;
        struct proc_result result;
        assert_int_equal(proc_run(&run, &result, NULL), 0);
        assert_int_equal(result.exit_status, 0);
        _cleanup_free_ char *expected = xasprintf("<%s>", text);
        assert_string_equal(buf_str(&out), expected);
}

static void a_shell_reads_quoted_words_as_they_were(void **state _unused_) {
        static const char *const words[] = {"",       "plain",      "two words", "it's",         "'",  "''",
                                            "\"$x\"", "$(echo no)", "`echo no`", "a\nb\n",       "\\", "\\n",
                                            "*",      "?",          "~",         "~root",        "!",  "!!",
                                            "#x",     "a;b",        "a&b",       "a|b",          ">x", "{a,b}",
                                            "[a-z]",  "A=1",        "--key=v",   "\xc3\xa4\xff", "\t", "%s"};
        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                assert_round_trip(words[i]);
        char all[256];
        for (int i = 1; i < 256; i++)
                all[i - 1] = (char)i;
        all[255] = '\0';
        assert_round_trip(all);
}

static void assert_quoted(const char *text, const char *expected) {
        _cleanup_free_ char *quoted = str_shell_quote(text);
        assert_string_equal(quoted, expected);
}

static void what_needs_no_quotes_gets_none(void **state _unused_) {
        assert_quoted("/home/u/shop-1.2_x:y,z@h%+", "/home/u/shop-1.2_x:y,z@h%+");
        assert_quoted("--output=json", "--output=json");
        assert_quoted("", "''");
        assert_quoted("it's", "'it'\\''s'");
}

static void a_word_with_an_equals_sign_is_no_assignment(void **state _unused_) {
        assert_quoted("A=1", "'A=1'");
        _cleanup_free_ char *quoted = str_shell_quote("PATH=/nowhere");
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){"sh", "-c", quoted, NULL};
        struct proc_result result;
        assert_int_equal(proc_run(&run, &result, NULL), 0);
        assert_int_equal(result.exit_status, 127); /* a command of that name is looked for */
}

static void assert_bytes(uint64_t n, const char *expected) {
        _cleanup_free_ char *text = str_bytes(n);
        assert_string_equal(text, expected);
}

static void sizes_change_their_unit_where_people_expect_it(void **state _unused_) {
        const uint64_t kib = 1024, mib = kib * 1024, gib = mib * 1024;
        assert_bytes(0, "0 B");
        assert_bytes(1023, "1023 B");
        assert_bytes(kib, "1.0 KiB");
        assert_bytes(kib * 3 / 2, "1.5 KiB");
        assert_bytes(kib * 10 - 1, "10 KiB");
        assert_bytes(kib * 10, "10 KiB");
        assert_bytes(kib * 1023, "1023 KiB");
        assert_bytes(mib - 1, "1.0 MiB");
        assert_bytes(mib - 400, "1.0 MiB");
        assert_bytes(gib * 3 / 2, "1.5 GiB");
        assert_bytes(gib * 1024, "1.0 TiB");
        assert_bytes(UINT64_MAX, "16384 PiB");
}

static void assert_duration(uint64_t ms, const char *expected) {
        _cleanup_free_ char *text = str_duration_ms(ms);
        assert_string_equal(text, expected);
}

static void durations_have_two_units_at_most(void **state _unused_) {
        const uint64_t s = 1000, min = 60 * s, h = 60 * min, d = 24 * h;
        assert_duration(0, "0.0 s");
        assert_duration(99, "0.0 s");
        assert_duration(12345, "12.3 s");
        assert_duration(min - 1, "59.9 s");
        assert_duration(min, "1 min 0 s");
        assert_duration(h - 1, "59 min 59 s");
        assert_duration(h + 5 * min, "1 h 5 min");
        assert_duration(d - 1, "23 h 59 min");
        assert_duration(3 * d + 4 * h, "3 d 4 h");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(a_vector_ends_in_null_after_each_push),
                        cmocka_unit_test(a_shortened_vector_can_grow_again),
                        cmocka_unit_test(room_is_made_a_few_times_and_not_with_each_push),
                        cmocka_unit_test(extending_copies_and_takes_nothing_for_nothing),
                        cmocka_unit_test(joining_puts_separators_only_between),
                        cmocka_unit_test(splitting_drops_empty_parts),
                        cmocka_unit_test(freeing_leaves_an_empty_vector),
                        cmocka_unit_test(null_equals_only_null),
                        cmocka_unit_test(a_word_is_one_of_a_list_as_a_whole_or_not_at_all),
                        cmocka_unit_test(beginnings_and_ends),
                        cmocka_unit_test(numbers_are_whole_decimal_strings_within_the_range),
                        cmocka_unit_test(other_texts_are_no_numbers_and_change_nothing),
                        cmocka_unit_test(text_in_any_language_stays_as_it_is),
                        cmocka_unit_test(control_characters_are_escaped),
                        cmocka_unit_test(invalid_utf8_is_escaped),
                        cmocka_unit_test(a_shell_reads_quoted_words_as_they_were),
                        cmocka_unit_test(what_needs_no_quotes_gets_none),
                        cmocka_unit_test(a_word_with_an_equals_sign_is_no_assignment),
                        cmocka_unit_test(sizes_change_their_unit_where_people_expect_it),
                        cmocka_unit_test(durations_have_two_units_at_most),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
