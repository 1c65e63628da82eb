/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/dotenv.h>
#include <k3s-vm/strv.h>

static void assert_value(const char *text, const char *key, const char *expected) {
        _cleanup_dotenv_ struct dotenv d = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        if (dotenv_parse(".env", text, strlen(text), &d, &err) < 0)
                fail_msg("%s: %s", text, err.message);
        const struct dotenv_entry *e = dotenv_get(&d, key);
        if (!e)
                fail_msg("%s: no %s", text, key);
        assert_string_equal(e->value, expected);
        _cleanup_free_ char *found = NULL;
        assert_int_equal(dotenv_find(text, strlen(text), key, &found), e->line);
        assert_string_equal(found, expected);
}

static void assert_refused(const char *text, size_t len, const char *message) {
        struct dotenv d = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        if (dotenv_parse("web/.env", text, len, &d, &err) == 0)
                fail_msg("accepted: %s", text);
        assert_null(d.entries);
        assert_int_equal(err.code, ERR_USAGE);
        if (!str_starts(err.message, message))
                fail_msg("\"%s\" does not begin with \"%s\"", err.message, message);
}

static void assert_set(const char *text, const char *key, const char *value, const char *expected) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(dotenv_set(".env", text, strlen(text), key, value, &b, NULL), 0);
        assert_string_equal(buf_str(&b), expected);
}

static void assert_unset(const char *text, const char *key, const char *expected) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(dotenv_unset(".env", text, strlen(text), key, &b, NULL), 0);
        assert_string_equal(buf_str(&b), expected);
}

static void bare_values_end_at_their_line_or_comment(void **state _unused_) {
        assert_value("A=b", "A", "b");
        assert_value("A=b\nC=d\n", "C", "d");
        assert_value("  export A = two words \t # comment\n", "A", "two words");
        assert_value("A=a#b\n", "A", "a#b");
        assert_value("A=# all comment\n", "A", "");
        assert_value("A=\nB=x\n", "A", "");
        assert_value("A=it's\n", "A", "it's");
        assert_value("A=b\r\nC=d\r\n", "A", "b");
        assert_value("export=1\n", "export", "1");
        assert_value("\xef\xbb\xbf"
                     "A=b\n",
                     "A", "b");
        assert_value("my.key-2=x", "my.key-2", "x");
        assert_value("A=x=y==\n", "A", "x=y==");
}

static void nothing_is_expanded(void **state _unused_) {
        assert_value("A=$HOME ${B} $(id) `id`\n", "A", "$HOME ${B} $(id) `id`");
        assert_value("A=\"$HOME $(id)\"\n", "A", "$HOME $(id)");
        assert_value("A='$HOME \\n'\n", "A", "$HOME \\n");
        assert_value("A=a\\nb\n", "A", "a\\nb");
}

static void quotes_hold_blanks_comments_and_lines(void **state _unused_) {
        assert_value("A=' a # b ' # c\n", "A", " a # b ");
        assert_value("A=\"say \\\"hi\\\"\\n\\t\\\\ \\$x \\q\"\n", "A", "say \"hi\"\n\t\\ $x \\q");
        assert_value("A=`it's \"so\"`\n", "A", "it's \"so\"");
        assert_value("A=\"\"\n", "A", "");
        const char pem[] = "KEY=\"-----BEGIN-----\nabc\n-----END-----\"\nB=1\n";
        assert_value(pem, "KEY", "-----BEGIN-----\nabc\n-----END-----");
        assert_value(pem, "B", "1");
        assert_value("A='one\r\ntwo'\r\nB=1\r\n", "A", "one\ntwo");
}

static void the_last_of_several_lines_counts(void **state _unused_) {
        assert_value("A=1\nA=2\n", "A", "2");
}

static void the_number_of_a_line_counts_those_inside_quotes(void **state _unused_) {
        const char text[] = "# one\nA='two\nthree\nfour'\n\nB=six\n";
        _cleanup_dotenv_ struct dotenv d = {0};
        assert_int_equal(dotenv_parse(".env", text, strlen(text), &d, NULL), 0);
        assert_int_equal(d.n, 2);
        assert_int_equal(d.entries[0].line, 2);
        assert_int_equal(d.entries[1].line, 6);
}

static void what_cannot_be_read_is_named_with_its_line(void **state _unused_) {
        assert_refused("A=1\nnonsense\n", 13, "web/.env:2: expected KEY=VALUE");
        assert_refused("A='1\nB=2\n", 9, "web/.env:1: the quote ' ");
        assert_refused("\nA=\"1\" 2\n", 9, "web/.env:2: there is text behind the closing quote of A");
        assert_refused("=1\n", 3, "web/.env:1: ");
        assert_refused("1A=1\n", 5, "web/.env:1: ");
        assert_refused("export\n", 7, "web/.env:1: ");
        assert_refused("A=1\r", 4, "web/.env: its last line ends in a CR");
        assert_refused("A=1\0B=2\n", 8, "web/.env: this is not text");
}

static void a_reader_of_one_key_does_not_stumble_over_other_lines(void **state _unused_) {
        _cleanup_free_ char *value = NULL;
        const char text[] = "nonsense\nA='1\nPORT=2\n'x\n";
        assert_int_equal(dotenv_find(text, strlen(text), "PORT", &value), 3);
        assert_string_equal(value, "2");
        free(TAKE_PTR(value));
        assert_int_equal(dotenv_find("PORT=\"8\nA=1", 12, "PORT", &value), 1);
        assert_string_equal(value, "\"8");
        free(TAKE_PTR(value));
        assert_int_equal(dotenv_find("", 0, "PORT", &value), 0);
        assert_null(value);
}

static void a_new_key_goes_to_the_end_as_the_file_ends_its_lines(void **state _unused_) {
        assert_set("", "K", "v", "K=v\n");
        assert_set("A=1\n", "K", "v", "A=1\nK=v\n");
        assert_set("A=1", "K", "v", "A=1\nK=v");
        assert_set("A=1\r\n", "K", "v", "A=1\r\nK=v\r\n");
        assert_set("A=1\r\nB=2", "K", "v", "A=1\r\nB=2\r\nK=v");
        assert_set("#K=1\nKK=2\n", "K", "v", "#K=1\nKK=2\nK=v\n");
}

static void a_key_that_is_there_keeps_its_place_and_what_is_around_it(void **state _unused_) {
        assert_set("A=1\nexport K = \"old\nvalue\"  # mine\nB=2", "K", "v", "A=1\nexport K = v  # mine\nB=2");
        assert_set("K=1\nK=2\n", "K", "v", "K=1\nK=v\n");
        assert_set("K=\r\nA=1\r\n", "K", "v", "K=v\r\nA=1\r\n");
        assert_set("K=# note\n", "K", "v", "K=v # note\n");
        assert_set("K='v' # as it is\n", "K", "v", "K='v' # as it is\n");
}

static void values_are_quoted_where_they_have_to_be(void **state _unused_) {
        const char *const values[] = {"./a.yaml", "YQ==", "two words", "it's", "$x", "#", "a\nb", "a\rb", "\"\\", ""};
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                _cleanup_buf_ struct buf b = BUF_INIT(0);
                assert_int_equal(dotenv_set(".env", "K=old\n", 6, "K", values[i], &b, NULL), 0);
                assert_value(buf_str(&b), "K", values[i]);
        }
        assert_set("", "K", "YQ==", "K=YQ==\n");
}

static void what_was_added_can_be_taken_out_byte_for_byte(void **state _unused_) {
        const char *const texts[] = {"", "A=1\n", "A=1", "A=1\r\nB='x\r\ny'\r\n", "A=1\r\nB=2", "# only\n\n"};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_buf_ struct buf b = BUF_INIT(0);
                assert_int_equal(dotenv_set(".env", texts[i], strlen(texts[i]), "K", "v", &b, NULL), 0);
                assert_unset(buf_str(&b), "K", texts[i]);
        }
        assert_unset("A=1\n", "K", "A=1\n");
}

static void a_line_with_more_of_the_users_only_loses_its_value(void **state _unused_) {
        assert_unset("A=1\nexport K=v # mine\n", "K", "A=1\nexport K= # mine\n");
        assert_unset("K=v # mine", "K", "K= # mine");
        assert_unset(" K=v\n", "K", " K=\n");
}

static void a_text_that_cannot_be_read_is_not_changed(void **state _unused_) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        assert_int_equal(dotenv_set(".env", "what\n", 5, "K", "v", &b, NULL), -EINVAL);
        assert_int_equal(dotenv_unset(".env", "what\n", 5, "K", &b, NULL), -EINVAL);
        assert_int_equal(b.len, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(bare_values_end_at_their_line_or_comment),
                        cmocka_unit_test(nothing_is_expanded),
                        cmocka_unit_test(quotes_hold_blanks_comments_and_lines),
                        cmocka_unit_test(the_last_of_several_lines_counts),
                        cmocka_unit_test(the_number_of_a_line_counts_those_inside_quotes),
                        cmocka_unit_test(what_cannot_be_read_is_named_with_its_line),
                        cmocka_unit_test(a_reader_of_one_key_does_not_stumble_over_other_lines),
                        cmocka_unit_test(a_new_key_goes_to_the_end_as_the_file_ends_its_lines),
                        cmocka_unit_test(a_key_that_is_there_keeps_its_place_and_what_is_around_it),
                        cmocka_unit_test(values_are_quoted_where_they_have_to_be),
                        cmocka_unit_test(what_was_added_can_be_taken_out_byte_for_byte),
                        cmocka_unit_test(a_line_with_more_of_the_users_only_loses_its_value),
                        cmocka_unit_test(a_text_that_cannot_be_read_is_not_changed),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
