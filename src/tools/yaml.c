/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <search.h>
#include <stdarg.h>
#include <string.h>

#include <yaml.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

#include "yaml_scalar.h"

#define ANCHORS_MAX 4096U

struct anchor {
        char *name;
        const struct json *value; /* in the tree or in `kept`; NULL while it is being read */
};

struct reader {
        yaml_parser_t parser;
        struct error *err;
        struct anchor *anchors; /* of the current document, the last of a name counts */
        size_t n_anchors;
        size_t expanded;   /* bytes that aliases have made so far */
        struct json *kept; /* an array: anchored values that are not in the tree */
};

static void forget_anchors(struct reader *r) {
        for (size_t i = 0; i < r->n_anchors; i++)
                free(r->anchors[i].name);
        r->n_anchors = 0;
}

static void reader_clear(struct reader *r) {
        yaml_parser_delete(&r->parser);
        forget_anchors(r);
        free(r->anchors);
        json_free(r->kept);
}

static int _printf_(3, 4) fail_at(struct reader *r, yaml_mark_t mark, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        _cleanup_buf_ struct buf what = BUF_INIT(0);
        buf_vprintf(&what, fmt, ap);
        va_end(ap);
        return err_set(r->err, ERR_FAILED, EBADMSG, "invalid YAML at line %zu, column %zu: %s", mark.line + 1,
                       mark.column + 1, buf_str(&what));
}

static int next_event(struct reader *r, yaml_event_t *event) {
        if (yaml_parser_parse(&r->parser, event))
                return 0;
        const yaml_parser_t *p = &r->parser;
        oom_check(p->error == YAML_MEMORY_ERROR ? NULL : r);
        const char *problem = p->problem ? p->problem : "a syntax error";
        if (p->error == YAML_READER_ERROR)
                return err_set(r->err, ERR_FAILED, EBADMSG, "invalid YAML at byte %zu: %s", p->problem_offset, problem);
        if (p->context)
                return fail_at(r, p->problem_mark, "%s %s", problem, p->context);
        return fail_at(r, p->problem_mark, "%s", problem);
}

/* Anchors and aliases. */

static int add_anchor(struct reader *r, const yaml_char_t *name, const struct json *value, yaml_mark_t mark) {
        if (!name)
                return 0;
        if (r->n_anchors == ANCHORS_MAX)
                return fail_at(r, mark, "more than %u anchors", ANCHORS_MAX);
        r->anchors = xreallocarray(r->anchors, r->n_anchors + 1, sizeof(*r->anchors));
        r->anchors[r->n_anchors++] = (struct anchor){.name = xstrdup((const char *)name), .value = value};
        return 0;
}

/* Bytes that a copy of @j takes, roughly; stops counting at @limit. Also how deep it is. */
static size_t measure(const struct json *j, size_t limit, size_t depth, size_t *ret_depth) {
        size_t bytes = 64 + strlen(json_string_or(j, ""));
        if (depth > *ret_depth)
                *ret_depth = depth;
        for (const struct json *child = json_first(j); child && bytes <= limit; child = json_next(child)) {
                const char *key = json_key(child);
                bytes += (key ? strlen(key) : 0) + measure(child, limit - bytes, depth + 1, ret_depth);
        }
        return bytes;
}

/* What an alias stands for: the value itself, which stays where it is. */
static int find_alias(struct reader *r, const yaml_event_t *event, size_t depth, const struct json **ret) {
        const char *name = (const char *)event->data.alias.anchor;
        size_t i = r->n_anchors;
        while (i > 0 && !str_eq(r->anchors[i - 1].name, name))
                i--;
        if (i == 0)
                return fail_at(r, event->start_mark, "there is no anchor for the alias *%s", name);
        const struct json *value = r->anchors[i - 1].value;
        if (!value)
                return fail_at(r, event->start_mark, "the alias *%s is part of what it stands for", name);
        size_t deepest = 0;
        size_t room = YAML_MAX_EXPANSION - r->expanded;
        size_t bytes = measure(value, room, depth, &deepest);
        if (bytes > room)
                return fail_at(r, event->start_mark, "the aliases expand to more than %u MiB",
                               YAML_MAX_EXPANSION / 1024 / 1024);
        if (deepest > JSON_MAX_DEPTH)
                return fail_at(r, event->start_mark, "nested too deeply");
        r->expanded += bytes;
        *ret = value;
        return 0;
}

/* Scalars. */

static int decode_binary(struct reader *r, const char *text, yaml_mark_t mark, struct json **ret) {
        _cleanup_free_ char *data = NULL;
        size_t len = 0;
        if (base64_decode(text, &data, &len, NULL) < 0)
                return fail_at(r, mark, "!!binary is not valid base64");
        if (strlen(data) != len || !yaml_is_utf8(data, len))
                return fail_at(r, mark, "!!binary that is not text is not supported");
        *ret = json_new_string(data);
        return 0;
}

/* The kind that a tag asks for, YAML_MERGE for none of them. */
static enum yaml_kind kind_of_tag(const char *tag) {
        return str_eq(tag, YAML_STR_TAG)                                  ? YAML_STRING
               : str_eq(tag, YAML_NULL_TAG)                               ? YAML_NULL
               : str_eq(tag, YAML_BOOL_TAG)                               ? YAML_BOOL
               : str_eq(tag, YAML_INT_TAG) || str_eq(tag, YAML_FLOAT_TAG) ? YAML_NUMBER
                                                                          : YAML_MERGE;
}

/* A scalar as a value. *@ret_merge (may be NULL: merge keys mean nothing here) tells a plain "<<". */
static int read_scalar(struct reader *r, const yaml_event_t *event, bool *ret_merge, struct json **ret) {
        const char *text = (const char *)event->data.scalar.value;
        const char *tag = (const char *)event->data.scalar.tag;
        yaml_mark_t mark = event->start_mark;
        if (strlen(text) != event->data.scalar.length)
                return fail_at(r, mark, "strings with NUL characters are not supported");
        if (str_eq(tag, "tag:yaml.org,2002:binary"))
                return decode_binary(r, text, mark, ret);
        double value = 0;
        enum yaml_kind kind = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE || tag ? yaml_resolve(text, &value)
                                                                                         : YAML_STRING;
        if (tag && !str_eq(tag, "tag:yaml.org,2002:merge")) {
                enum yaml_kind wanted = str_eq(tag, "!") ? YAML_STRING : kind_of_tag(tag);
                if (wanted == YAML_MERGE)
                        return fail_at(r, mark, "the tag %s is not supported", tag);
                if (wanted == YAML_STRING)
                        kind = YAML_STRING;
                else if (kind != wanted && kind != YAML_INEXACT && kind != YAML_NOT_FINITE)
                        return fail_at(r, mark, "the value does not fit its tag %s", tag);
        }
        switch (kind) {
        case YAML_NULL:
                *ret = json_new_null();
                return 0;
        case YAML_BOOL:
                *ret = json_new_bool(value != 0);
                return 0;
        case YAML_NUMBER:
                *ret = json_new_number(value);
                return 0;
        case YAML_INEXACT:
                return fail_at(r, mark, "the integer is too large to be kept exactly; quote it if it is a string");
        case YAML_NOT_FINITE:
                return fail_at(r, mark, "infinities and not-a-number have no form in JSON");
        case YAML_MERGE:
                if (ret_merge)
                        *ret_merge = true;
                break;
        case YAML_STRING:
                break;
        }
        *ret = json_new_string(text);
        return 0;
}

/* Nodes. */

static int read_node(struct reader *r, const yaml_event_t *event, size_t depth, struct json **ret);

static int check_collection(struct reader *r, const yaml_event_t *event, const yaml_char_t *tag, const char *expected,
                            size_t depth) {
        if (tag && !str_eq((const char *)tag, expected) && !str_eq((const char *)tag, "!"))
                return fail_at(r, event->start_mark, "the tag %s is not supported", (const char *)tag);
        if (depth > JSON_MAX_DEPTH)
                return fail_at(r, event->start_mark, "nested too deeply");
        return 0;
}

static int read_sequence(struct reader *r, size_t depth, struct json *array) {
        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t event = {0};
                int status = next_event(r, &event);
                if (status < 0)
                        return status;
                if (event.type == YAML_SEQUENCE_END_EVENT)
                        return 0;
                struct json *value = NULL;
                status = read_node(r, &event, depth + 1, &value);
                if (status < 0)
                        return status;
                json_append(array, value);
        }
}

/* The names in one mapping, for finding duplicates: a tree, so that many names are no problem. */
struct names {
        void *root;
};

static int compare_names(const void *a, const void *b) {
        return strcmp(a, b);
}

static void names_clear(struct names *names) {
        tdestroy(names->root, free);
}

/* False when it was there. */
static bool names_add(struct names *names, const char *name) {
        if (tfind(name, &names->root, compare_names))
                return false;
        oom_check(tsearch(xstrdup(name), &names->root, compare_names));
        return true;
}

/* A key as text. Numbers and booleans become their JSON form, as kubectl does it. */
static int read_key(struct reader *r, const yaml_event_t *event, size_t depth, bool *ret_merge, char **ret) {
        const struct json *key = NULL;
        _cleanup_json_ struct json *own = NULL;
        int status = 0;
        if (event->type == YAML_ALIAS_EVENT)
                status = find_alias(r, event, depth, &key);
        else if (event->type == YAML_SCALAR_EVENT) {
                status = read_scalar(r, event, ret_merge, &own);
                key = own;
        } else
                return fail_at(r, event->start_mark, "a key has to be a scalar");
        if (status < 0)
                return status;
        if (json_is_null(key) || json_is_object(key) || json_is_array(key))
                return fail_at(r, event->start_mark, "a key has to be a string, a number or a boolean");
        *ret = json_string(key) ? xstrdup(json_string(key)) : json_print(key, false);
        if (event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor) {
                status = add_anchor(r, event->data.scalar.anchor, own, event->start_mark);
                json_append(r->kept, TAKE_PTR(own));
        }
        return status;
}

static void merge_object(struct json *object, const struct json *source, struct names *names) {
        for (const struct json *member = json_first(source); member; member = json_next(member))
                if (names_add(names, json_key(member)))
                        json_add(object, json_key(member), json_copy(member));
}

/* The value of a merge key: a mapping or a list of them. What is given earlier wins. */
static int merge(struct reader *r, yaml_mark_t mark, struct json *object, const struct json *value,
                 struct names *names) {
        if (json_is_object(value)) {
                merge_object(object, value, names);
                return 0;
        }
        const struct json *item = json_first(value);
        for (; json_is_array(value) && item; item = json_next(item)) {
                if (!json_is_object(item))
                        break;
                merge_object(object, item, names);
        }
        if (!json_is_array(value) || item)
                return fail_at(r, mark, "the value of << has to be a mapping or a list of mappings");
        return 0;
}

static int read_mapping(struct reader *r, size_t depth, struct json *object) {
        _cleanup_(names_clear) struct names names = {0};
        struct json *merged = NULL; /* belongs to r->kept */
        yaml_mark_t merge_mark = {0};
        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t key_event = {0}, event = {0};
                int status = next_event(r, &key_event);
                if (status < 0)
                        return status;
                if (key_event.type == YAML_MAPPING_END_EVENT)
                        break;
                _cleanup_free_ char *key = NULL;
                bool is_merge = false;
                status = read_key(r, &key_event, depth + 1, &is_merge, &key);
                if (status < 0)
                        return status;
                if (is_merge ? merged != NULL : !names_add(&names, key))
                        return fail_at(r, key_event.start_mark, "the key \"%s\" is there twice", key);
                status = next_event(r, &event);
                if (status < 0)
                        return status;
                struct json *value = NULL;
                status = read_node(r, &event, depth + 1, &value);
                if (status < 0)
                        return status;
                if (is_merge) {
                        /* Applied at the end, because the mapping's own keys win. */
                        json_append(r->kept, value);
                        merged = value;
                        merge_mark = event.start_mark;
                } else
                        json_add(object, key, value);
        }
        return merged ? merge(r, merge_mark, object, merged, &names) : 0;
}

static int read_collection(struct reader *r, const yaml_event_t *event, size_t depth, struct json **ret) {
        bool mapping = event->type == YAML_MAPPING_START_EVENT;
        const yaml_char_t *anchor = mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
        const yaml_char_t *tag = mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag;
        size_t index = r->n_anchors;
        int status = check_collection(r, event, tag, mapping ? YAML_MAP_TAG : YAML_SEQ_TAG, depth);
        if (status == 0)
                status = add_anchor(r, anchor, NULL, event->start_mark);
        if (status < 0)
                return status;
        _cleanup_json_ struct json *j = mapping ? json_new_object() : json_new_array();
        status = mapping ? read_mapping(r, depth, j) : read_sequence(r, depth, j);
        if (status < 0)
                return status;
        if (anchor)
                r->anchors[index].value = j;
        *ret = TAKE_PTR(j);
        return 0;
}

static int read_node(struct reader *r, const yaml_event_t *event, size_t depth, struct json **ret) {
        const struct json *target = NULL;
        int status;
        switch (event->type) {
        case YAML_ALIAS_EVENT:
                status = find_alias(r, event, depth, &target);
                if (status == 0)
                        *ret = json_copy(target);
                return status;
        case YAML_SCALAR_EVENT: {
                _cleanup_json_ struct json *j = NULL;
                status = read_scalar(r, event, NULL, &j);
                if (status == 0)
                        status = add_anchor(r, event->data.scalar.anchor, j, event->start_mark);
                if (status == 0)
                        *ret = TAKE_PTR(j);
                return status;
        }
        case YAML_SEQUENCE_START_EVENT:
        case YAML_MAPPING_START_EVENT:
                return read_collection(r, event, depth, ret);
        default:
                return fail_at(r, event->start_mark, "a value is missing");
        }
}

static bool is_empty_scalar(const yaml_event_t *event) {
        return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0 && !event->data.scalar.tag &&
               event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static int read_documents(struct reader *r, struct json *documents) {
        for (;;) {
                _cleanup_(yaml_event_delete) yaml_event_t event = {0};
                int status = next_event(r, &event);
                if (status < 0 || event.type == YAML_STREAM_END_EVENT)
                        return status;
                if (event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_END_EVENT)
                        continue;
                if (event.type == YAML_DOCUMENT_START_EVENT) {
                        forget_anchors(r);
                        continue;
                }
                if (is_empty_scalar(&event))
                        continue;
                struct json *value = NULL;
                status = read_node(r, &event, 1, &value);
                if (status < 0)
                        return status;
                json_append(documents, value);
        }
}

static const char *find_duplicate(const struct json *j) {
        _cleanup_(names_clear) struct names names = {0};
        for (const struct json *child = json_first(j); child; child = json_next(child)) {
                if (json_is_object(j) && !names_add(&names, json_key(child)))
                        return json_key(child);
                const char *below = find_duplicate(child);
                if (below)
                        return below;
        }
        return NULL;
}

int yaml_parse(const char *text, size_t len, struct json **ret_documents, struct error *err) {
        if (len > YAML_MAX_BYTES)
                return err_set(err, ERR_FAILED, E2BIG, "the YAML text is larger than %u MiB",
                               YAML_MAX_BYTES / 1024 / 1024);
        if (!yaml_is_utf8(text, len))
                return err_set(err, ERR_FAILED, EBADMSG, "invalid YAML: the text is not UTF-8");
        _cleanup_json_ struct json *documents = json_new_array();

        /* JSON is nearly YAML, but libyaml refuses its surrogate pairs and 1025th character of a key. What looks like
         * JSON and is not goes the usual way: a flow mapping. */
        size_t blank = 0;
        while (blank < len && strchr(" \t\r\n", text[blank]))
                blank++;
        _cleanup_json_ struct json *value = NULL;
        if (blank < len && text[blank] == '{' && json_parse(text, len, &value, NULL) == 0) {
                const char *twice = find_duplicate(value);
                if (twice)
                        return err_set(err, ERR_FAILED, EBADMSG, "invalid YAML: the key \"%s\" is there twice", twice);
                json_append(documents, TAKE_PTR(value));
                *ret_documents = TAKE_PTR(documents);
                return 0;
        }

        _cleanup_(reader_clear) struct reader r = {.err = err, .kept = json_new_array()};
        oom_check(yaml_parser_initialize(&r.parser) ? &r : NULL);
        yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
        int status = read_documents(&r, documents);
        if (status < 0)
                return status;
        *ret_documents = TAKE_PTR(documents);
        return 0;
}

/* Printing. */

static int append_output(void *userdata, unsigned char *data, size_t len) {
        return buf_append(userdata, data, len) == 0;
}

/* Takes @event over. */
static int emit(yaml_emitter_t *emitter, yaml_event_t *event, int initialized, struct error *err) {
        oom_check(initialized ? event : NULL);
        if (yaml_emitter_emit(emitter, event))
                return 0;
        oom_check(emitter->error == YAML_MEMORY_ERROR ? NULL : event);
        return err_set(err, ERR_FAILED, EINVAL, "cannot write YAML: %s", emitter->problem ? emitter->problem : "?");
}

static int emit_scalar(yaml_emitter_t *emitter, const char *text, yaml_scalar_style_t style, struct error *err) {
        yaml_event_t event;
        int ok = yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text),
                                              style == YAML_PLAIN_SCALAR_STYLE, 1, style);
        return emit(emitter, &event, ok, err);
}

static int emit_string(yaml_emitter_t *emitter, const char *s, bool is_key, struct error *err) {
        size_t len = strlen(s);
        if (len > YAML_MAX_BYTES)
                return err_set(err, ERR_FAILED, E2BIG, "cannot write YAML: a string is too long");
        if (!yaml_is_utf8(s, len))
                return err_set(err, ERR_FAILED, EILSEQ, "cannot write YAML: a string is not UTF-8");
        yaml_scalar_style_t style = yaml_is_plain(s)                ? YAML_PLAIN_SCALAR_STYLE
                                    : !is_key && yaml_is_literal(s) ? YAML_LITERAL_SCALAR_STYLE
                                                                    : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
        return emit_scalar(emitter, s, style, err);
}

static int emit_value(yaml_emitter_t *emitter, const struct json *j, struct error *err) {
        if (json_string(j))
                return emit_string(emitter, json_string(j), false, err);
        bool object = json_is_object(j);
        if (!object && !json_is_array(j)) {
                _cleanup_free_ char *text = json_print(j, false);
                return emit_scalar(emitter, text, YAML_PLAIN_SCALAR_STYLE, err);
        }
        yaml_event_t event;
        int ok = object ? yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)
                        : yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE);
        int r = emit(emitter, &event, ok, err);
        for (const struct json *child = json_first(j); r == 0 && child; child = json_next(child)) {
                if (object)
                        r = emit_string(emitter, json_key(child), true, err);
                if (r == 0)
                        r = emit_value(emitter, child, err);
        }
        if (r < 0)
                return r;
        ok = object ? yaml_mapping_end_event_initialize(&event) : yaml_sequence_end_event_initialize(&event);
        return emit(emitter, &event, ok, err);
}

int yaml_print(const struct json *j, char **ret, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(SIZE_MAX / 4);
        _cleanup_(yaml_emitter_delete) yaml_emitter_t emitter;
        oom_check(yaml_emitter_initialize(&emitter) ? &emitter : NULL);
        yaml_emitter_set_output(&emitter, append_output, &out);
        yaml_emitter_set_unicode(&emitter, 1);
        yaml_emitter_set_indent(&emitter, 2);
        yaml_emitter_set_width(&emitter, -1);

        yaml_event_t event;
        int r = emit(&emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), err);
        if (r == 0)
                r = emit(&emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1), err);
        if (r == 0)
                r = emit_value(&emitter, j, err);
        if (r == 0)
                r = emit(&emitter, &event, yaml_document_end_event_initialize(&event, 1), err);
        if (r == 0)
                r = emit(&emitter, &event, yaml_stream_end_event_initialize(&event), err);
        if (r < 0)
                return r;
        *ret = buf_take(&out);
        return 0;
}
