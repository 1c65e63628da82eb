/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/scaffold.h>

#define GITIGNORE_MAX_BYTES (1U << 20)

void scaffold_clear(struct scaffold *s) {
        strv_free(&s->made);
        strv_free(&s->kept);
}

/* The image comes with the payload, so that the page is there without any registry. */
static const char sample_manifest[] = "{\n"
                                      "  \"apiVersion\": \"v1\",\n"
                                      "  \"kind\": \"List\",\n"
                                      "  \"items\": [\n"
                                      "    {\n"
                                      "      \"apiVersion\": \"apps/v1\",\n"
                                      "      \"kind\": \"Deployment\",\n"
                                      "      \"metadata\": { \"name\": \"web\" },\n"
                                      "      \"spec\": {\n"
                                      "        \"replicas\": 1,\n"
                                      "        \"selector\": { \"matchLabels\": { \"app\": \"web\" } },\n"
                                      "        \"template\": {\n"
                                      "          \"metadata\": { \"labels\": { \"app\": \"web\" } },\n"
                                      "          \"spec\": {\n"
                                      "            \"containers\": [\n"
                                      "              {\n"
                                      "                \"name\": \"web\",\n"
                                      "                \"image\": \"localhost/k3s-vm/web:1\",\n"
                                      "                \"imagePullPolicy\": \"IfNotPresent\",\n"
                                      "                \"ports\": [{ \"containerPort\": 8080 }]\n"
                                      "              }\n"
                                      "            ]\n"
                                      "          }\n"
                                      "        }\n"
                                      "      }\n"
                                      "    },\n"
                                      "    {\n"
                                      "      \"apiVersion\": \"v1\",\n"
                                      "      \"kind\": \"Service\",\n"
                                      "      \"metadata\": { \"name\": \"web\" },\n"
                                      "      \"spec\": {\n"
                                      "        \"type\": \"NodePort\",\n"
                                      "        \"selector\": { \"app\": \"web\" },\n"
                                      "        \"ports\": [{ \"port\": 80, \"targetPort\": 8080, \"nodePort\": %u }]\n"
                                      "      }\n"
                                      "    }\n"
                                      "  ]\n"
                                      "}\n";

static const char wrapper[] = "#!/bin/sh\n"
                              "# %s with the cluster of this project.\n"
                              "exec k3s-vm --project \"${0%%/*}/..\" %s \"$@\"\n";

static bool is_there(const char *path) {
        struct stat st;
        return lstat(path, &st) == 0;
}

/* Makes the file @name below the project unless there is something. */
static int make_file(const struct project *p, const char *name, const char *text, mode_t mode, struct scaffold *s,
                     struct error *err) {
        _cleanup_free_ char *path = path_join(p->root, name), *folder = path_parent(path);
        if (is_there(path)) {
                strv_push(&s->kept, name);
                return 0;
        }
        int r = fs_mkdir_p(folder, 0755, err);
        if (r == 0)
                r = fs_write_atomic(path, text, strlen(text), mode, err);
        if (r == 0)
                strv_push(&s->made, name);
        return r;
}

static int make_config(const struct project *p, struct scaffold *s, struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        buf_puts(&text,
                 "# k3s-vm: KEY=VALUE, one a line, read and never executed. Take a # away to set a key; what is\n"
                 "# behind it is the default. `k3s-vm configure` shows what holds.\n");
        size_t n;
        const struct config_key *keys = config_keys(&n);
        for (size_t i = 0; i < n; i++) {
                /* Some defaults are no value but say where it comes from. */
                bool value = keys[i].default_text[strcspn(keys[i].default_text, " <")] == '\0';
                buf_printf(&text, "\n# %s%s%s\n#%s=%s\n", keys[i].help,
                           value ? "" : "; default: ", value ? "" : keys[i].default_text, keys[i].name,
                           value ? keys[i].default_text : "");
        }
        return make_file(p, ".k3s-vm/config", buf_str(&text), 0600, s, err);
}

/* Any manifest is the user's own application, which the sample must not join. */
static bool has_manifests(const char *folder) {
        _cleanup_closedir_ DIR *dir = opendir(folder);
        for (const struct dirent *entry; dir && (entry = readdir(dir));)
                if (entry->d_name[0] != '.')
                        return true;
        return false;
}

static int make_manifest(const struct project *p, const struct config *c, struct scaffold *s, struct error *err) {
        _cleanup_free_ char *folder = path_join(p->dir, "manifests"),
                            *text = xasprintf(sample_manifest, c->web_node_port);
        if (has_manifests(folder)) {
                strv_push(&s->kept, ".k3s-vm/manifests");
                return 0;
        }
        return make_file(p, ".k3s-vm/manifests/base.json", text, 0644, s, err);
}

/* Whether a line of @text ignores @path, with or without slashes around it. */
static bool is_ignored(const char *text, const char *path) {
        size_t len = strlen(path) - (str_ends(path, "/") ? 1 : 0);
        _cleanup_strv_ struct strv lines = {0};
        strv_split(&lines, text, "\r\n");
        for (size_t i = 0; i < lines.len; i++) {
                const char *line = lines.items[i] + (lines.items[i][0] == '/');
                if (strncmp(line, path, len) == 0 && line[len + (line[len] == '/')] == '\0')
                        return true;
        }
        return false;
}

static int add_ignored(const struct project *p, const struct config *c, struct scaffold *s, struct error *err) {
        _cleanup_free_ char *path = path_join(p->root, ".gitignore"), *target = realpath(path, NULL),
                            *kube = path_parent(c->kubeconfig_path), *web = path_parent(c->web_env_path);
        bool exists = is_there(path);
        _cleanup_buf_ struct buf text = BUF_INIT(2 * GITIGNORE_MAX_BYTES);
        int r = exists ? fs_read(path, GITIGNORE_MAX_BYTES, &text, err) : 0;
        struct stat st = {.st_mode = 0644};
        if (r == 0 && exists && stat(path, &st) < 0)
                r = err_errno(err, errno, "cannot read %s", path);
        if (r < 0)
                return r;
        const char *line_end = strstr(buf_str(&text), "\r\n") ? "\r\n" : "\n";
        /* A kubeconfig that has no folder of its own is ignored by itself. */
        bool own_folder = str_eq(path_base(kube), ".kube");
        _cleanup_free_ char *credentials = own_folder ? xasprintf("%s/", kube) : xstrdup(c->kubeconfig_path),
                            *link = str_eq(web, ".") ? xstrdup("kubeconfig.yaml") : path_join(web, "kubeconfig.yaml");
        const char *const ignored[] = {".k3s-vm/", credentials, link, c->web_env_path};
        size_t before = text.len;
        for (size_t i = 0; i < ELEMENTSOF(ignored); i++) {
                if (is_ignored(buf_str(&text), ignored[i]))
                        continue;
                bool open = text.len > 0 && text.data[text.len - 1] != '\n';
                buf_printf(&text, "%s%s%s", open ? line_end : "", ignored[i], line_end);
        }
        if (text.len == before) {
                strv_push(&s->kept, ".gitignore");
                return 0;
        }
        r = fs_write_atomic(target ? target : path, buf_str(&text), text.len, st.st_mode & 07777, err);
        if (r == 0)
                strv_push(&s->made, ".gitignore");
        return r;
}

static int make_wrappers(const struct project *p, struct scaffold *s, struct error *err) {
        static const char *const tools[] = {"kubectl", "k9s"};
        for (size_t i = 0; i < ELEMENTSOF(tools); i++) {
                _cleanup_free_ char *name = path_join("bin", tools[i]), *text = xasprintf(wrapper, tools[i], tools[i]);
                int r = make_file(p, name, text, 0755, s, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int scaffold_write(const struct project *p, const struct config *c, bool wrappers, struct scaffold *ret,
                   struct error *err) {
        int r = project_create_dirs(p, err);
        if (r == 0)
                r = make_config(p, ret, err);
        if (r == 0)
                r = make_manifest(p, c, ret, err);
        if (r == 0)
                r = add_ignored(p, c, ret, err);
        if (r == 0 && wrappers)
                r = make_wrappers(p, ret, err);
        return r;
}
