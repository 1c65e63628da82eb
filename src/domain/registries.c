/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/registries.h>

#define CA_MAX_BYTES (256U << 10) /* systemd takes credentials of a megabyte, all together */
#define SCHEME_END "://"

static struct json *get_or_add_object(struct json *parent, const char *key) {
        struct json *child = json_get(parent, key);
        return child ? child : json_set_object(parent, key);
}

/* That a server's certificate is of REGISTRY_CA; @host as the configuration of K3s names it, with its port. */
static void add_authority(struct json *configs, const char *host, const char *ca_path) {
        if (!json_get(configs, host))
                json_set_string(json_set_object(json_set_object(configs, host), "tls"), "ca_file", ca_path);
}

/* "REGISTRY=URL", which config_check_mirrors() has checked. */
static void add_mirror(struct json *document, const char *word, const char *ca_path) {
        size_t n = strcspn(word, "=");
        _cleanup_free_ char *registry = xstrndup(word, n);
        const char *url = word + n + 1, *host = strstr(url, SCHEME_END) + strlen(SCHEME_END);
        struct json *mirror = get_or_add_object(get_or_add_object(document, "mirrors"), registry);
        struct json *endpoints = json_get(mirror, "endpoint");
        json_append_string(endpoints ? endpoints : json_set_array(mirror, "endpoint"), url);
        _cleanup_free_ char *name = xstrndup(host, strcspn(host, "/"));
        if (ca_path && str_starts(url, "https:"))
                add_authority(get_or_add_object(document, "configs"), name, ca_path);
}

static int read_ca(const struct config *c, char **ret, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(CA_MAX_BYTES);
        int r = fs_read(c->registry_ca, CA_MAX_BYTES, &b, err);
        if (r == 0 && !strstr(buf_str(&b), "-----BEGIN CERTIFICATE-----"))
                r = err_set(err, ERR_USAGE, EINVAL, "%s holds no certificate in PEM form", c->registry_ca);
        if (r < 0) {
                if (err)
                        err->code = ERR_USAGE;
                err_hint(err, "k3s-vm configure REGISTRY_CA=/path/to/ca.pem, or REGISTRY_CA= for none");
                return err_wrap(err, r, "REGISTRY_CA");
        }
        *ret = xstrdup(buf_str(&b));
        return 0;
}

int registries_make(const struct config *c, const char *ca_path, char **ret, char **ret_ca, struct error *err) {
        _cleanup_free_ char *ca = NULL;
        int r = *c->registry_ca ? read_ca(c, &ca, err) : 0;
        if (r < 0)
                return r;
        _cleanup_json_ struct json *document = json_new_object();
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, c->registry_mirrors, " \t");
        for (size_t i = 0; i < words.len; i++)
                add_mirror(document, words.items[i], ca ? ca_path : NULL);
        /* Without a mirror it is for whatever registry an image names. */
        if (ca && words.len == 0)
                add_authority(json_set_object(document, "configs"), "*", ca_path);
        *ret = json_len(document) > 0 ? json_print(document, false) : NULL;
        *ret_ca = TAKE_PTR(ca);
        return 0;
}
