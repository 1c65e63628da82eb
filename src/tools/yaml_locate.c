/* SPDX-License-Identifier: MIT */
/* Where in a text a field is, for error messages: the text is read again, so that nobody pays for it before. Aliases
 * are not expanded here. */
#include <string.h>

#include <yaml.h>

#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

static const char *scalar_text(yaml_document_t *d, int index) {
        const yaml_node_t *node = yaml_document_get_node(d, index);
        return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

/* Whether @key, and not only its beginning, stands at the beginning of @path. Keys may have dots in them. */
static size_t key_length(const char *key, const char *path) {
        size_t n = key ? strlen(key) : 0;
        return n > 0 && strncmp(path, key, n) == 0 && strchr(".[", path[n]) ? n : 0;
}

/* The pair whose key is the longest that fits. */
static const yaml_node_pair_t *find_pair(yaml_document_t *d, const yaml_node_t *mapping, const char *path,
                                         size_t *ret_length) {
        const yaml_node_pair_t *found = NULL;
        for (const yaml_node_pair_t *p = mapping->data.mapping.pairs.start; p < mapping->data.mapping.pairs.top; p++) {
                size_t n = key_length(scalar_text(d, p->key), path);
                if (n > *ret_length) {
                        *ret_length = n;
                        found = p;
                }
        }
        return found;
}

/* Whether the mapping @index has the member @selector, as in name="web". */
static bool has_member(yaml_document_t *d, int index, const char *selector, size_t length) {
        const yaml_node_t *node = yaml_document_get_node(d, index);
        const char *equals = memchr(selector, '=', length);
        if (!node || !equals || node->type != YAML_MAPPING_NODE)
                return false;
        size_t key = (size_t)(equals - selector), value = length - key - 1;
        const char *text = equals + 1;
        if (value >= 2 && *text == '"' && text[value - 1] == '"') {
                text++;
                value -= 2;
        }
        for (const yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
                const char *k = scalar_text(d, p->key), *v = scalar_text(d, p->value);
                if (k && v && strlen(k) == key && strncmp(k, selector, key) == 0 && strlen(v) == value &&
                    strncmp(v, text, value) == 0)
                        return true;
        }
        return false;
}

/* The item that "3" or name="web",… selects; 0: none. */
static int find_item(yaml_document_t *d, const yaml_node_t *sequence, const char *selector, size_t length) {
        const yaml_node_item_t *first = sequence->data.sequence.items.start;
        size_t n = (size_t)(sequence->data.sequence.items.top - first);
        _cleanup_free_ char *text = xstrndup(selector, length);
        uint64_t index = 0;
        if (n > 0 && str_to_u64(text, 0, n - 1, &index) == 0)
                return first[index];
        size_t one = strcspn(text, ",");
        for (size_t i = 0; i < n; i++)
                if (has_member(d, first[i], text, one))
                        return first[i];
        return 0;
}

static size_t line_in(yaml_document_t *d, const yaml_node_t *node, const char *path) {
        size_t line = node->start_mark.line + 1;
        while (node && *path) {
                if (*path == '.') {
                        path++;
                        continue;
                }
                int next = 0;
                if (*path == '[' && node->type == YAML_SEQUENCE_NODE) {
                        size_t length = strcspn(path + 1, "]");
                        next = find_item(d, node, path + 1, length);
                        path += 1 + length + (path[1 + length] == ']');
                        node = yaml_document_get_node(d, next);
                        if (node)
                                line = node->start_mark.line + 1;
                        continue;
                }
                size_t length = 0;
                const yaml_node_pair_t *pair =
                                node->type == YAML_MAPPING_NODE ? find_pair(d, node, path, &length) : NULL;
                if (!pair)
                        break;
                line = yaml_document_get_node(d, pair->key)->start_mark.line + 1;
                path += length;
                node = yaml_document_get_node(d, pair->value);
        }
        return line;
}

static bool is_empty(const yaml_node_t *root) {
        return root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0 &&
               root->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

size_t yaml_line_of(const char *text, size_t len, size_t document, const char *path) {
        yaml_parser_t parser;
        if (len > YAML_MAX_BYTES || !yaml_parser_initialize(&parser))
                return 0;
        yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
        size_t line = 0;
        for (bool more = true; more;) {
                yaml_document_t d;
                if (!yaml_parser_load(&parser, &d))
                        break;
                const yaml_node_t *root = yaml_document_get_root_node(&d);
                more = root != NULL;
                if (root && !is_empty(root) && document-- == 0) {
                        line = line_in(&d, root, path);
                        more = false;
                }
                yaml_document_delete(&d);
        }
        yaml_parser_delete(&parser);
        return line;
}
