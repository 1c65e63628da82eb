/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>

/* A struct json is a cJSON under another name, so that no other file depends on cJSON's. */
static cJSON *to_cjson(const struct json *j) {
        return (cJSON *)j;
}

static struct json *from_cjson(cJSON *c) {
        return (struct json *)c;
}

void json_free(struct json *j) {
        cJSON_Delete(to_cjson(j));
}

/* Parsing. */

static int fail_at(struct error *err, const char *text, size_t offset, const char *what) {
        size_t line = 1, column = 1;
        for (size_t i = 0; i < offset; i++) {
                if (text[i] == '\n') {
                        line++;
                        column = 1;
                } else
                        column++;
        }
        return err_set(err, ERR_FAILED, EBADMSG, "invalid JSON at line %zu, column %zu: %s", line, column, what);
}

static bool is_digit(const char *text, size_t len, size_t i) {
        return i < len && text[i] >= '0' && text[i] <= '9';
}

/* The end of the number at @i by RFC 8259's grammar, or 0. */
static size_t scan_number(const char *text, size_t len, size_t i) {
        if (i < len && text[i] == '-')
                i++;
        if (!is_digit(text, len, i))
                return 0;
        if (text[i] == '0')
                i++;
        else
                while (is_digit(text, len, i))
                        i++;
        if (i < len && text[i] == '.') {
                if (!is_digit(text, len, ++i))
                        return 0;
                while (is_digit(text, len, i))
                        i++;
        }
        if (i < len && (text[i] == 'e' || text[i] == 'E')) {
                i++;
                if (i < len && (text[i] == '+' || text[i] == '-'))
                        i++;
                if (!is_digit(text, len, i))
                        return 0;
                while (is_digit(text, len, i))
                        i++;
        }
        return i < len && strchr("0123456789.eE+-", text[i]) ? 0 : i;
}

/* The index after the closing quote of the string at @i; 0 with *@ret_error set. */
static size_t scan_string(const char *text, size_t len, size_t i, size_t *ret_error, const char **ret_what) {
        for (i++; i < len; i++) {
                if (text[i] == '"')
                        return i + 1;
                if ((unsigned char)text[i] < 0x20) {
                        *ret_error = i;
                        *ret_what = "a control character in a string has to be written as an escape";
                        return 0;
                }
                if (text[i] != '\\')
                        continue;
                if (len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) {
                        *ret_error = i;
                        *ret_what = "strings with NUL characters are not supported";
                        return 0;
                }
                i++;
        }
        *ret_error = len;
        *ret_what = "the string has no end";
        return 0;
}

/* cJSON is lenient where it would be wrong to be: it takes any control character for white space, ends
 * strings at \u0000, reads 01 and 1. as numbers and "1e999" as infinity, and bounds nesting by a number chosen
 * by whoever built it. One pass before it refuses those. */
static int check_text(const char *text, size_t len, struct error *err) {
        size_t depth = 0;
        for (size_t i = 0; i < len;) {
                char c = text[i];
                if (c == '"') {
                        size_t position = i;
                        const char *what = NULL;
                        size_t end = scan_string(text, len, i, &position, &what);
                        if (end == 0)
                                return fail_at(err, text, position, what);
                        i = end;
                        continue;
                }
                if (c == '-' || is_digit(text, len, i)) {
                        size_t end = scan_number(text, len, i);
                        if (end == 0)
                                return fail_at(err, text, i, "this is not a number");
                        i = end;
                        continue;
                }
                if ((unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r')
                        return fail_at(err, text, i, "a control character");
                if ((c == '[' || c == '{') && ++depth > JSON_MAX_DEPTH)
                        return fail_at(err, text, i, "nested too deeply");
                if ((c == ']' || c == '}') && depth > 0)
                        depth--;
                i++;
        }
        if (depth > 0)
                return fail_at(err, text, len, "the text ends too early");
        return 0;
}

static bool has_infinite_number(const cJSON *c) {
        for (; c; c = c->next)
                if ((cJSON_IsNumber(c) && !isfinite(c->valuedouble)) || has_infinite_number(c->child))
                        return true;
        return false;
}

int json_parse(const char *text, size_t len, struct json **ret, struct error *err) {
        if (len > JSON_MAX_BYTES)
                return err_set(err, ERR_FAILED, E2BIG, "the JSON text is larger than %u MiB",
                               JSON_MAX_BYTES / 1024 / 1024);
        if (len == 0)
                return err_set(err, ERR_FAILED, EBADMSG, "invalid JSON: the text is empty");
        int r = check_text(text, len, err);
        if (r < 0)
                return r;

        const char *end = text;
        _cleanup_json_ struct json *j = from_cjson(cJSON_ParseWithLengthOpts(text, len, &end, false));
        size_t offset = end >= text && end <= text + len ? (size_t)(end - text) : len;
        if (!j)
                return fail_at(err, text, offset, "a syntax error");
        while (offset < len && strchr(" \t\n\r", text[offset]))
                offset++;
        if (offset < len)
                return fail_at(err, text, offset, "more text after the value");
        if (has_infinite_number(to_cjson(j)))
                return err_set(err, ERR_FAILED, EBADMSG, "invalid JSON: a number is too large");
        *ret = TAKE_PTR(j);
        return 0;
}

int json_read_file(const char *path, size_t max, struct json **ret, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(max);
        int r = fs_read(path, max, &b, err);
        if (r < 0)
                return r;
        r = json_parse(buf_str(&b), b.len, ret, err);
        if (r < 0)
                return err_wrap(err, r, "cannot read %s", path);
        return 0;
}

/* Printing. cJSON's own printer indents by tabs and writes whole numbers from 10^15 on with an exponent, which
 * a Go program refuses to read into an integer. */

static void print_string(struct buf *b, const char *s) {
        buf_puts(b, "\"");
        for (const char *p = s; *p;) {
                size_t plain = 0;
                while ((unsigned char)p[plain] >= 0x20 && p[plain] != '"' && p[plain] != '\\' && p[plain] != 0x7f)
                        plain++;
                buf_append(b, p, plain);
                p += plain;
                switch (*p) {
                case '\0':
                        continue;
                case '"':
                        buf_puts(b, "\\\"");
                        break;
                case '\\':
                        buf_puts(b, "\\\\");
                        break;
                case '\n':
                        buf_puts(b, "\\n");
                        break;
                case '\r':
                        buf_puts(b, "\\r");
                        break;
                case '\t':
                        buf_puts(b, "\\t");
                        break;
                default:
                        buf_printf(b, "\\u%04x", (unsigned char)*p);
                }
                p++;
        }
        buf_puts(b, "\"");
}

/* No rint(), so that libm is not needed. */
static bool is_integer(double value) {
        return value >= -JSON_INTEGER_MAX && value <= JSON_INTEGER_MAX && value == (double)(long long)value;
}

void json_format_number(double value, char text[static JSON_NUMBER_MAX]) {
        if (!isfinite(value)) {
                strcpy(text, "null");
                return;
        }
        if (is_integer(value)) {
                snprintf(text, JSON_NUMBER_MAX, "%lld", (long long)value);
                return;
        }
        /* The fewest digits that read back as the same number. */
        for (int digits = 15; digits <= 17; digits++) {
                snprintf(text, JSON_NUMBER_MAX, "%.*g", digits, value);
                if (strtod(text, NULL) == value)
                        return;
        }
}

static void print_break(struct buf *b, bool pretty, size_t depth) {
        if (!pretty)
                return;
        buf_puts(b, "\n");
        for (size_t i = 0; i < depth; i++)
                buf_puts(b, "  ");
}

static void print_value(struct buf *b, const cJSON *c, bool pretty, size_t depth) {
        if (cJSON_IsString(c))
                print_string(b, c->valuestring);
        else if (cJSON_IsNumber(c)) {
                char text[JSON_NUMBER_MAX];
                json_format_number(c->valuedouble, text);
                buf_puts(b, text);
        } else if (cJSON_IsBool(c))
                buf_puts(b, cJSON_IsTrue(c) ? "true" : "false");
        else if (cJSON_IsObject(c) || cJSON_IsArray(c)) {
                bool object = cJSON_IsObject(c);
                buf_puts(b, object ? "{" : "[");
                for (const cJSON *child = c->child; child; child = child->next) {
                        print_break(b, pretty, depth + 1);
                        if (object) {
                                print_string(b, child->string);
                                buf_puts(b, pretty ? ": " : ":");
                        }
                        print_value(b, child, pretty, depth + 1);
                        if (child->next)
                                buf_puts(b, ",");
                }
                if (c->child)
                        print_break(b, pretty, depth);
                buf_puts(b, object ? "}" : "]");
        } else
                buf_puts(b, "null");
}

char *json_print(const struct json *j, bool pretty) {
        /* What is printed was made here or was parsed under a bound already. */
        _cleanup_buf_ struct buf b = BUF_INIT(SIZE_MAX / 4);
        print_value(&b, to_cjson(j), pretty, 0);
        if (pretty)
                buf_puts(&b, "\n");
        return buf_take(&b);
}

/* Reading. */

struct json *json_get_(const struct json *j, ...) {
        const cJSON *c = to_cjson(j);
        va_list ap;
        va_start(ap, j);
        for (const char *key = va_arg(ap, const char *); key && c; key = va_arg(ap, const char *))
                c = cJSON_IsObject(c) ? cJSON_GetObjectItemCaseSensitive(c, key) : NULL;
        va_end(ap);
        return from_cjson((cJSON *)c);
}

const char *json_string(const struct json *j) {
        return cJSON_IsString(to_cjson(j)) ? to_cjson(j)->valuestring : NULL;
}

const char *json_string_or(const struct json *j, const char *fallback) {
        const char *s = json_string(j);
        return s ? s : fallback;
}

bool json_number(const struct json *j, double *ret) {
        if (!cJSON_IsNumber(to_cjson(j)))
                return false;
        *ret = to_cjson(j)->valuedouble;
        return true;
}

uint64_t json_u64_or(const struct json *j, uint64_t fallback) {
        double value;
        if (!json_number(j, &value) || !is_integer(value) || value < 0)
                return fallback;
        return (uint64_t)value;
}

bool json_bool_or(const struct json *j, bool fallback) {
        return cJSON_IsBool(to_cjson(j)) ? cJSON_IsTrue(to_cjson(j)) : fallback;
}

bool json_is_object(const struct json *j) {
        return cJSON_IsObject(to_cjson(j));
}

bool json_is_array(const struct json *j) {
        return cJSON_IsArray(to_cjson(j));
}

bool json_is_null(const struct json *j) {
        return cJSON_IsNull(to_cjson(j));
}

bool json_is_bool(const struct json *j) {
        return cJSON_IsBool(to_cjson(j));
}

size_t json_len(const struct json *j) {
        size_t n = 0;
        for (const struct json *child = json_first(j); child; child = json_next(child))
                n++;
        return n;
}

struct json *json_at(const struct json *array, size_t index) {
        if (!json_is_array(array))
                return NULL;
        struct json *child = json_first(array);
        for (; child && index > 0; index--)
                child = json_next(child);
        return child;
}

struct json *json_first(const struct json *j) {
        return j ? from_cjson(to_cjson(j)->child) : NULL;
}

struct json *json_next(const struct json *child) {
        return child ? from_cjson(to_cjson(child)->next) : NULL;
}

const char *json_key(const struct json *child) {
        return child ? to_cjson(child)->string : NULL;
}

/* Writing. */

struct json *json_new_object(void) {
        return oom_check(cJSON_CreateObject());
}

struct json *json_new_array(void) {
        return oom_check(cJSON_CreateArray());
}

struct json *json_new_string(const char *s) {
        return s ? oom_check(cJSON_CreateString(s)) : NULL;
}

struct json *json_new_number(double value) {
        return oom_check(cJSON_CreateNumber(value));
}

struct json *json_new_bool(bool value) {
        return oom_check(cJSON_CreateBool(value));
}

struct json *json_new_null(void) {
        return oom_check(cJSON_CreateNull());
}

struct json *json_copy(const struct json *j) {
        if (!j)
                return NULL;
        cJSON *copy = oom_check(cJSON_Duplicate(to_cjson(j), true));
        /* The copy of a member is no longer a member. */
        free(TAKE_PTR(copy->string));
        return from_cjson(copy);
}

void json_set(struct json *object, const char *key, struct json *value) {
        if (!value) {
                json_remove(object, key);
                return;
        }
        if (!json_is_object(object)) {
                json_free(value);
                return;
        }
        bool done = cJSON_GetObjectItemCaseSensitive(to_cjson(object), key)
                                    ? cJSON_ReplaceItemInObjectCaseSensitive(to_cjson(object), key, to_cjson(value))
                                    : cJSON_AddItemToObject(to_cjson(object), key, to_cjson(value));
        oom_check(done ? value : NULL);
}

void json_add(struct json *object, const char *key, struct json *value) {
        if (!value)
                return;
        if (!json_is_object(object)) {
                json_free(value);
                return;
        }
        oom_check(cJSON_AddItemToObject(to_cjson(object), key, to_cjson(value)) ? value : NULL);
}

void json_set_string(struct json *object, const char *key, const char *value) {
        json_set(object, key, json_new_string(value));
}

void json_set_number(struct json *object, const char *key, double value) {
        json_set(object, key, json_new_number(value));
}

void json_set_bool(struct json *object, const char *key, bool value) {
        json_set(object, key, json_new_bool(value));
}

struct json *json_set_object(struct json *object, const char *key) {
        struct json *value = json_is_object(object) ? json_new_object() : NULL;
        json_set(object, key, value);
        return value;
}

struct json *json_set_array(struct json *object, const char *key) {
        struct json *value = json_is_object(object) ? json_new_array() : NULL;
        json_set(object, key, value);
        return value;
}

void json_remove(struct json *object, const char *key) {
        if (json_is_object(object))
                cJSON_DeleteItemFromObjectCaseSensitive(to_cjson(object), key);
}

void json_append(struct json *array, struct json *value) {
        if (!value)
                return;
        if (!json_is_array(array)) {
                json_free(value);
                return;
        }
        oom_check(cJSON_AddItemToArray(to_cjson(array), to_cjson(value)) ? value : NULL);
}

void json_append_string(struct json *array, const char *value) {
        json_append(array, json_new_string(value));
}
