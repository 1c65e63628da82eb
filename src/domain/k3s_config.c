/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/json.h>
#include <k3s-vm/k3s_config.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

/* Adds a value to what @options has under @name: a second one turns it into a list. */
static void add_value(struct json *options, const char *name, struct json *value) {
        struct json *before = json_get(options, name);
        if (!before) {
                json_set(options, name, value);
                return;
        }
        if (json_is_array(before)) {
                json_append(before, value);
                return;
        }
        struct json *list = json_new_array();
        json_append(list, json_copy(before));
        json_append(list, value);
        json_set(options, name, list);
}

int k3s_config(const char *k3s_args, char **ret, struct error *err) {
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, k3s_args, " \t\n");
        _cleanup_json_ struct json *options = json_new_object();
        for (size_t i = 0; i < words.len; i++) {
                const char *word = words.items[i];
                if (!str_starts(word, "--") || word[2] == '\0' || word[2] == '=') {
                        int r = err_set(err, ERR_USAGE, EINVAL,
                                        "K3S_ARGS: \"%s\" is not an option like --disable=traefik", word);
                        err_hint(err, "k3s-vm configure K3S_ARGS='--disable=traefik --tls-san=10.0.2.15'");
                        return r;
                }
                size_t length = strcspn(word + 2, "=");
                _cleanup_free_ char *name = xstrndup(word + 2, length);
                bool next_is_value = i + 1 < words.len && words.items[i + 1][0] != '-';
                if (word[2 + length] == '=')
                        add_value(options, name, json_new_string(word + 2 + length + 1));
                else if (next_is_value)
                        add_value(options, name, json_new_string(words.items[++i]));
                else
                        add_value(options, name, json_new_bool(true));
        }
        if (json_len(options) == 0) {
                *ret = xstrdup("# K3S_ARGS is empty.\n");
                return 0;
        }
        return yaml_print(options, ret, err);
}
