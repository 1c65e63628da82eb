/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <k3s-vm/cloud_image.h>
#include <k3s-vm/fs.h>

#include "config_check.h"

#define LABEL_MAX 63 /* RFC 1035, section 2.3.4 */
#define FORWARDS_MAX 64

/* "ALLOWED, not "TEXT"", the text made fit to be shown. */
static int refuse(struct error *err, const char *allowed, const char *text) {
        size_t len = strlen(text), shown_len = len > 60 ? 60 : len;
        _cleanup_free_ char *shown = str_printable(text, shown_len);
        return err_set(err, ERR_USAGE, EINVAL, "%s, not \"%s%s\"", allowed, shown, shown_len < len ? "…" : "");
}

int config_check_number(const char *text, unsigned min, unsigned max, const char *unit, unsigned *ret,
                        struct error *err) {
        uint64_t value;
        if (str_to_u64(text, min, max, &value) < 0) {
                _cleanup_free_ char *allowed = xasprintf("must be a whole number%s%s from %u to %u",
                                                         *unit ? " of " : "", unit, min, max);
                return refuse(err, allowed, text);
        }
        *ret = (unsigned)value;
        return 0;
}

int config_check_port(const char *text, uint16_t *ret, struct error *err) {
        uint64_t value;
        if (str_to_u64(text, 1, UINT16_MAX, &value) < 0)
                return refuse(err, "must be a port from 1 to 65535", text);
        *ret = (uint16_t)value;
        return 0;
}

/* "8080:80", or with the address and the protocol that a forward has: "127.0.0.1:8080:80/tcp". */
int config_check_forward(const char *text, struct forward *ret, struct error *err) {
        static const char allowed[] = "must be like 8080:30081 (TCP port here, on 127.0.0.1, and port in the VM)",
                          address[] = "127.0.0.1:", protocol[] = "/tcp";
        const char *ports = str_starts(text, address) ? text + strlen(address) : text;
        size_t len = strlen(ports);
        if (str_ends(ports, protocol))
                len -= strlen(protocol);
        _cleanup_free_ char *host_text = xstrndup(ports, len);
        char *colon = strchr(host_text, ':');
        uint64_t host, guest;
        if (!colon)
                return refuse(err, allowed, text);
        *colon = '\0';
        if (str_to_u64(host_text, 1, UINT16_MAX, &host) < 0 || str_to_u64(colon + 1, 1, UINT16_MAX, &guest) < 0)
                return refuse(err, allowed, text);
        *ret = (struct forward){.host_port = (uint16_t)host, .guest_port = (uint16_t)guest};
        return 0;
}

int config_check_forwards(const char *text, struct forward **ret, size_t *ret_n, struct error *err) {
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, text, " \t,");
        if (words.len > FORWARDS_MAX)
                return err_set(err, ERR_USAGE, E2BIG, "at most %d forwards are allowed", FORWARDS_MAX);
        _cleanup_free_ struct forward *forwards = xcalloc(words.len, sizeof(*forwards));
        for (size_t i = 0; i < words.len; i++) {
                int r = config_check_forward(words.items[i], &forwards[i], err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(forwards);
        *ret_n = words.len;
        return 0;
}

int config_check_name(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        size_t len = strlen(text);
        if (len == 0 || len > LABEL_MAX || text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-")] != '\0' ||
            text[0] == '-' || text[len - 1] == '-')
                return refuse(err,
                              "must be 1 to 63 of a-z, 0-9 and -, with no - at either end (it is the VM's host name)",
                              text);
        *ret = xstrdup(text);
        return 0;
}

char *config_default_name(const char *root) {
        static const char prefix[] = "k3s-vm-";
        char label[LABEL_MAX + 1];
        size_t n = sizeof(prefix) - 1;
        memcpy(label, prefix, n);
        for (const char *p = path_base(root); *p && n < LABEL_MAX; p++) {
                char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
                if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
                        label[n++] = c;
                else if (label[n - 1] != '-')
                        label[n++] = '-';
        }
        while (label[n - 1] == '-')
                n--;
        return xstrndup(label, n);
}

/* An absolute path from one that is the user's, below the project unless it is absolute. */
static int resolve(const struct project *p, const char *text, char **ret, struct error *err) {
        if (text[0] == '~')
                return refuse(err, "must be a path without ~", text);
        *ret = text[0] == '/' ? xstrdup(text) : path_join(p->root, text);
        return 0;
}

int config_check_flavor(const struct project *p, const char *text, char **ret, struct error *err) {
        static const char *const flavors[] = {"auto", "nixos", "debian", "cloud", NULL};
        if (strchr(text, '/'))
                return resolve(p, text, ret, err);
        if (!str_is_one_of(text, flavors))
                return refuse(err, "must be auto, nixos, debian, cloud or the path of a folder with guest.json", text);
        *ret = xstrdup(text);
        return 0;
}

/* A channel ("v1.31") or a release ("v1.31.4+k3s1", "v1.31.4-rc1+k3s1"). */
static bool is_version(const char *s) {
        if (*s++ != 'v')
                return false;
        size_t major = strspn(s, "0123456789");
        if (major == 0 || s[major] != '.')
                return false;
        s += major + 1;
        size_t minor = strspn(s, "0123456789");
        if (minor == 0)
                return false;
        s += minor;
        return s[strspn(s, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-")] == '\0';
}

int config_check_k3s_version(const struct project *p, const char *text, char **ret, struct error *err) {
        static const char *const words[] = {"stable", "latest", "testing", "offline", "none", NULL};
        if (strchr(text, '/'))
                return resolve(p, text, ret, err);
        if (!str_is_one_of(text, words) && !is_version(text))
                return refuse(err,
                              "must be stable, latest, a channel like v1.31, a version like v1.31.4+k3s1, offline, "
                              "none "
                              "or the path of a k3s binary",
                              text);
        *ret = xstrdup(text);
        return 0;
}

int config_check_image(const struct project *p, const char *text, char **ret, struct error *err) {
        if (str_starts(text, "https://") || str_starts(text, "http://")) {
                if (!str_starts(text, "https://") || !cloud_url_hash(text))
                        return refuse(err, "must begin with https:// and end with its hash, #sha256:… or #sha512:…",
                                      text);
        } else if (strchr(text, '/'))
                return resolve(p, text, ret, err);
        else if (!cloud_publisher(text)) {
                _cleanup_free_ char *names = cloud_publisher_names(),
                                    *allowed = xasprintf(
                                                    "must be one of %s, a URL with its hash, or a path with a slash",
                                                    names);
                return refuse(err, allowed, text);
        }
        *ret = xstrdup(text);
        return 0;
}

int config_check_words(const struct project *p _unused_, const char *text, char **ret, struct error *err _unused_) {
        *ret = xstrdup(text);
        return 0;
}

int config_check_path(const struct project *p, const char *text, char **ret, struct error *err) {
        return resolve(p, text, ret, err);
}

int config_check_accel(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        static const char *const words[] = {"auto", "kvm", "tcg", NULL};
        if (!str_is_one_of(text, words))
                return refuse(err, "must be auto, kvm or tcg", text);
        *ret = xstrdup(text);
        return 0;
}

int config_check_switch(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        static const char *const words[] = {"on", "off", NULL};
        if (!str_is_one_of(text, words))
                return refuse(err, "must be on or off", text);
        *ret = xstrdup(text);
        return 0;
}

int config_check_output_path(const struct project *p, const char *text, char **ret, struct error *err) {
        if (text[0] == '/' || text[0] == '~')
                return refuse(err, "must be a path below the project", text);
        _cleanup_strv_ struct strv parts = {0};
        strv_split(&parts, text, "/");
        _cleanup_strv_ struct strv kept = {0};
        for (size_t i = 0; i < parts.len; i++) {
                if (str_eq(parts.items[i], ".."))
                        return refuse(err, "must be a path below the project, without ..", text);
                if (!str_eq(parts.items[i], "."))
                        strv_push(&kept, parts.items[i]);
        }
        if (kept.len == 0 || str_ends(text, "/"))
                return refuse(err, "must be the path of a file", text);
        if (str_eq(kept.items[0], ".k3s-vm"))
                return refuse(err, "must not be in .k3s-vm, which holds the VM's own files", text);
        _cleanup_free_ char *path = strv_join(&kept, "/");

        /* The one kubeconfig that is never touched, should the project be the home folder. */
        const char *home = getenv("HOME");
        if (home && home[0] == '/') {
                _cleanup_free_ char *whole = path_join(p->root, path);
                _cleanup_free_ char *users_own = path_join(home, ".kube/config");
                if (str_eq(whole, users_own))
                        return refuse(err, "must not be the kubeconfig of this user", text);
        }
        *ret = TAKE_PTR(path);
        return 0;
}

int config_check_https(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        static const char scheme[] = "https://";
        const char *host = str_starts(text, scheme) ? text + strlen(scheme) : "";
        if (!*host || host[strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:[]")])
                return refuse(err, "must be like https://kubernetes.default.svc or https://10.0.2.15:6443", text);
        *ret = xstrdup(text);
        return 0;
}

/* As http.h takes it: https, or http to this machine's own. */
int config_check_mirror(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        static const char https[] = "https://", local[] = "http://127.0.0.1";
        const char *rest = str_starts(text, https)   ? text + strlen(https)
                           : str_starts(text, local) ? text + strlen("http://")
                                                     : "";
        bool near = str_starts(text, local) && text[strlen(local)] && !strchr(":/", text[strlen(local)]);
        if (near || strspn(rest, "/:") > 0 || !*rest ||
            rest[strspn(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-:[]/_~%+")])
                return refuse(err, "must be like https://mirror.example/k3s", text);
        size_t n = strlen(text);
        while (text[n - 1] == '/')
                n--;
        *ret = xstrndup(text, n);
        return 0;
}

int config_check_dns(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        struct in_addr address;
        if (inet_pton(AF_INET, text, &address) != 1)
                return refuse(err, "must be an IPv4 address", text);
        *ret = xstrdup(text);
        return 0;
}

int config_check_mirrors(const struct project *p _unused_, const char *text, char **ret, struct error *err) {
        static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_:[]*/%~";
        static const char *const schemes[] = {"=https://", "=http://"};
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, text, " \t");
        for (size_t i = 0; i < words.len; i++) {
                const char *word = words.items[i], *host = NULL;
                size_t n = strspn(word, chars);
                for (size_t j = 0; j < ELEMENTSOF(schemes); j++)
                        if (str_starts(word + n, schemes[j]))
                                host = word + n + strlen(schemes[j]);
                if (n == 0 || memchr(word, '/', n) || !host || !*host || *host == '/' || host[strspn(host, chars)])
                        return refuse(err, "must be like docker.io=https://mirror.example:5000", word);
        }
        *ret = xstrdup(text);
        return 0;
}
