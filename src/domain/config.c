/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <k3s-vm/cloud_image.h>
#include <k3s-vm/config.h>
#include <k3s-vm/dotenv.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/state.h>
#include <k3s-vm/web_service.h>

#include "config_check.h"
#include "config_file.h"

#define WEB_PORT_DEFAULT 30080
#define NODE_PORT_FIRST 30000
#define NODE_PORT_LAST 32767

enum key_id {
        KEY_VM_NAME,
        KEY_VM_CPUS,
        KEY_VM_MEMORY,
        KEY_VM_DISK,
        KEY_API_PORT,
        KEY_SSH_PORT,
        KEY_WEB_PORT,
        KEY_WEB_NODE_PORT,
        KEY_FORWARDS,
        KEY_FLAVOR,
        KEY_IMAGE,
        KEY_K3S_VERSION,
        KEY_K3S_ARGS,
        KEY_K3S_AIRGAP_IMAGES,
        KEY_REGISTRY_MIRRORS,
        KEY_REGISTRY_CA,
        KEY_ACCEL,
        KEY_DNS,
        KEY_WARM_RESET,
        KEY_IDLE_SUSPEND,
        KEY_AUTO_RESUME,
        KEY_KUBECONFIG_PATH,
        KEY_WEB_ENV_PATH,
        KEY_POD_API_SERVER,
        KEY_MIRROR_K3S,
        KEY_MIRROR_IMAGES,
        N_KEYS,
};

static const struct config_key keys[N_KEYS] = {
                [KEY_VM_NAME] = {"VM_NAME", "k3s-vm-<project folder>", "host name and node name of the VM",
                                 CONFIG_RESET},
                [KEY_VM_CPUS] = {"VM_CPUS", "2", "virtual processors, 1 to 256", CONFIG_RESTART},
                [KEY_VM_MEMORY] = {"VM_MEMORY", "4096", "memory in MiB, at least 2048", CONFIG_RESTART},
                [KEY_VM_DISK] = {"VM_DISK", "20", "data disk in GiB, at least 10; it can grow, not shrink",
                                 CONFIG_RESTART},
                [KEY_API_PORT] = {"API_PORT", "6443", "port of the Kubernetes API on 127.0.0.1", CONFIG_RESTART},
                [KEY_SSH_PORT] = {"SSH_PORT", "2666", "port of the VM's SSH on 127.0.0.1", CONFIG_RESTART},
                [KEY_WEB_PORT] = {"WEB_PORT", ".env, else 30080", "port of the web NodePort on 127.0.0.1",
                                  CONFIG_RESTART},
                [KEY_WEB_NODE_PORT] = {"WEB_NODE_PORT", "of the Service, else 30080",
                                       "port in the VM that WEB_PORT leads to", CONFIG_RESTART},
                [KEY_FORWARDS] = {"FORWARDS", "", "more ports, \"HERE:IN_THE_VM ...\"", CONFIG_RESTART},
                [KEY_FLAVOR] = {"FLAVOR", "auto", "auto, nixos, debian, cloud, or a folder with guest.json",
                                CONFIG_RESET},
                [KEY_IMAGE] = {"IMAGE", CLOUD_IMAGE_DEFAULT,
                               "cloud image: a name, a URL with #sha256:HASH, or the path of a file", CONFIG_RESET},
                [KEY_K3S_VERSION] = {"K3S_VERSION", "stable",
                                     "stable, latest, a channel, a version, the path of a k3s binary, offline or none",
                                     CONFIG_RESET},
                [KEY_K3S_ARGS] = {"K3S_ARGS", "", "more arguments for k3s server", CONFIG_RESTART},
                [KEY_K3S_AIRGAP_IMAGES] = {"K3S_AIRGAP_IMAGES", "", "path of an image archive to side-load",
                                           CONFIG_RESTART},
                [KEY_REGISTRY_MIRRORS] = {"REGISTRY_MIRRORS", "",
                                          "where images are pulled from, \"docker.io=https://MIRROR:PORT ...\"",
                                          CONFIG_RESTART},
                [KEY_REGISTRY_CA] = {"REGISTRY_CA", "", "path of the authority's certificate of those registries (PEM)",
                                     CONFIG_RESTART},
                [KEY_ACCEL] = {"ACCEL", "auto", "auto, kvm or tcg", CONFIG_RESTART},
                [KEY_DNS] = {"DNS", "", "IPv4 address of the VM's resolver; empty: the host's", CONFIG_RESTART},
                [KEY_WARM_RESET] = {"WARM_RESET", "on", "on: the first Ready state is kept for `reset --warm`; or off",
                                    CONFIG_RESET},
                [KEY_IDLE_SUSPEND] = {"IDLE_SUSPEND", "0",
                                      "minutes without a connection after which the VM sleeps; 0: never",
                                      CONFIG_RESTART},
                [KEY_AUTO_RESUME] = {"AUTO_RESUME", "off", "on: kubectl and k9s start a suspended VM", CONFIG_LIVE},
                [KEY_KUBECONFIG_PATH] = {"KUBECONFIG_PATH", "web/.kube/config", "where the kubeconfig is written",
                                         CONFIG_RESTART},
                [KEY_WEB_ENV_PATH] = {"WEB_ENV_PATH", "web/.env", "where KUBECONFIG is written for the web program",
                                      CONFIG_RESTART},
                [KEY_POD_API_SERVER] = {"POD_API_SERVER", "https://kubernetes.default.svc",
                                        "the API's address in the KUBECONFIG_PRIMARY of pods", CONFIG_LIVE},
                [KEY_MIRROR_K3S] = {"MIRROR_K3S", "", "address of a mirror of K3s's releases and channels",
                                    CONFIG_LIVE},
                [KEY_MIRROR_IMAGES] = {"MIRROR_IMAGES", "", "address of a mirror of the cloud images", CONFIG_LIVE},
};
_Static_assert(N_KEYS <= ELEMENTSOF(((struct config *)NULL)->sources), "struct config has room for every key");

/* How a key's text becomes a member of struct config. */
struct rule {
        enum { RULE_NUMBER, RULE_PORT, RULE_FORWARDS, RULE_TEXT } kind;
        size_t offset;
        unsigned min, max;
        const char *unit;
        config_check_fn *check;
};
#define NUMBER(member, lowest, highest, what) \
        { RULE_NUMBER, offsetof(struct config, member), lowest, highest, what, NULL }
#define PORT(member) \
        { RULE_PORT, offsetof(struct config, member), 0, 0, NULL, NULL }
#define TEXT(member, function) \
        { RULE_TEXT, offsetof(struct config, member), 0, 0, NULL, function }
static const struct rule rules[N_KEYS] = {
                [KEY_VM_NAME] = TEXT(vm_name, config_check_name),
                [KEY_VM_CPUS] = NUMBER(cpus, 1, 256, ""),
                [KEY_VM_MEMORY] = NUMBER(memory_mib, 2048, 1048576, "MiB"),
                [KEY_VM_DISK] = NUMBER(disk_gib, 10, 65536, "GiB"),
                [KEY_API_PORT] = PORT(api_port),
                [KEY_SSH_PORT] = PORT(ssh_port),
                [KEY_WEB_PORT] = PORT(web_port),
                [KEY_WEB_NODE_PORT] = PORT(web_node_port),
                [KEY_FORWARDS] = {.kind = RULE_FORWARDS},
                [KEY_FLAVOR] = TEXT(flavor, config_check_flavor),
                [KEY_IMAGE] = TEXT(image, config_check_image),
                [KEY_K3S_VERSION] = TEXT(k3s_version, config_check_k3s_version),
                [KEY_K3S_ARGS] = TEXT(k3s_args, config_check_words),
                [KEY_K3S_AIRGAP_IMAGES] = TEXT(k3s_images, config_check_path),
                [KEY_REGISTRY_MIRRORS] = TEXT(registry_mirrors, config_check_mirrors),
                [KEY_REGISTRY_CA] = TEXT(registry_ca, config_check_path),
                [KEY_ACCEL] = TEXT(accel, config_check_accel),
                [KEY_DNS] = TEXT(dns, config_check_dns),
                [KEY_WARM_RESET] = TEXT(warm_reset, config_check_switch),
                [KEY_IDLE_SUSPEND] = NUMBER(idle_minutes, 0, 10080, "minutes"),
                [KEY_AUTO_RESUME] = TEXT(auto_resume, config_check_switch),
                [KEY_KUBECONFIG_PATH] = TEXT(kubeconfig_path, config_check_output_path),
                [KEY_WEB_ENV_PATH] = TEXT(web_env_path, config_check_output_path),
                [KEY_POD_API_SERVER] = TEXT(pod_api_server, config_check_https),
                [KEY_MIRROR_K3S] = TEXT(mirror_k3s, config_check_mirror),
                [KEY_MIRROR_IMAGES] = TEXT(mirror_images, config_check_mirror),
};

static void *member(const struct config *c, size_t offset) {
        return (char *)(uintptr_t)c + offset;
}

void config_free(struct config *c) {
        if (!c)
                return;
        for (size_t i = 0; i < N_KEYS; i++)
                if (rules[i].kind == RULE_TEXT)
                        free(*(char **)member(c, rules[i].offset));
        free(c->forwards);
        strv_free(&c->unknown_keys);
        free(c);
}

const struct config_key *config_keys(size_t *ret_n) {
        *ret_n = N_KEYS;
        return keys;
}

static int find_key(const char *name) {
        for (int i = 0; i < N_KEYS; i++)
                if (str_eq(keys[i].name, name))
                        return i;
        return -1;
}

static struct config *new_defaults(const struct project *p) {
        struct config *c = xcalloc(1, sizeof(*c));
        c->vm_name = config_default_name(p->root);
        c->cpus = 2;
        c->memory_mib = 4096;
        c->disk_gib = 20;
        c->api_port = 6443;
        c->ssh_port = 2666;
        c->web_port = WEB_PORT_DEFAULT;
        c->web_node_port = WEB_PORT_DEFAULT;
        for (int i = 0; i < N_KEYS; i++) {
                c->sources[i] = "default";
                if (rules[i].kind == RULE_TEXT && i != KEY_VM_NAME)
                        *(char **)member(c, rules[i].offset) = xstrdup(keys[i].default_text);
        }
        return c;
}

static char *trim(const char *s) {
        s += strspn(s, " \t");
        size_t n = strlen(s);
        while (n > 0 && strchr(" \t", s[n - 1]))
                n--;
        return xstrndup(s, n);
}

/* What takes the place of a wrong value of @key, which @source has: its default, or nothing where that is empty. */
static void hint_value(const struct project *p, int key, const char *source, struct error *err) {
        _cleanup_config_ struct config *defaults = new_defaults(p);
        _cleanup_free_ char *value = config_value(defaults, keys[key].name), *quoted = str_shell_quote(value);
        const char *word = *value ? quoted : "";
        if (str_eq(source, "environment"))
                err_hint(err, "unset %s, or: export %s=%s", keys[key].name, keys[key].name, word);
        else
                err_hint(err, "k3s-vm configure %s=%s%s", keys[key].name, word,
                         *value ? "" : " (takes it out of the file)");
}

/* A load under way: the configuration, and where each key was set ("PATH:3"), for messages. */
struct load {
        const struct project *project;
        struct config *config;
        char *where[N_KEYS];
};

static void load_clear(struct load *l) {
        config_free(l->config);
        for (int i = 0; i < N_KEYS; i++)
                free(l->where[i]);
}

/* The message is the caller's to put @where in front of. */
static int apply_text(const struct project *p, struct config *c, int key, const char *text, struct error *err) {
        const struct rule *rule = &rules[key];
        for (const char *s = text; *s; s++)
                if ((unsigned char)*s < 0x20 || *s == 0x7f)
                        return err_set(err, ERR_USAGE, EINVAL, "must hold no control characters");
        char *value = NULL;
        int r = 0;
        switch (rule->kind) {
        case RULE_NUMBER:
                return config_check_number(text, rule->min, rule->max, rule->unit, member(c, rule->offset), err);
        case RULE_PORT:
                return config_check_port(text, member(c, rule->offset), err);
        case RULE_FORWARDS: {
                struct forward *forwards = NULL;
                r = config_check_forwards(text, &forwards, &c->n_forwards, err);
                if (r == 0) {
                        free(c->forwards);
                        c->forwards = forwards;
                }
                return r;
        }
        case RULE_TEXT:
                r = rule->check(p, text, &value, err);
                if (r == 0) {
                        char **at = member(c, rule->offset);
                        free(*at);
                        *at = value;
                }
        }
        return r;
}

/* An empty @text leaves what was there. */
static int apply(struct load *l, int key, const char *text, const char *source, const char *where, struct error *err) {
        _cleanup_free_ char *trimmed = trim(text);
        if (!*trimmed)
                return 0;
        int r = apply_text(l->project, l->config, key, trimmed, err);
        if (r < 0) {
                hint_value(l->project, key, source, err);
                return err_wrap(err, r, "%s: %s", where, keys[key].name);
        }
        l->config->sources[key] = source;
        free(l->where[key]);
        l->where[key] = xstrdup(where);
        return 0;
}

static void hint_port(const struct load *l, int key, uint16_t port, struct error *err) {
        unsigned other = port < UINT16_MAX ? port + 1U : port - 1U;
        bool environment = str_eq(l->config->sources[key], "environment");
        if (key == KEY_FORWARDS)
                err_hint(err, "give each forward a port of its own: %s FORWARDS='%u:80 …'",
                         environment ? "export" : "k3s-vm configure", other);
        else
                err_hint(err, "%s %s=%u", environment ? "export" : "k3s-vm configure", keys[key].name, other);
}

/* Every port on this side has one use. The error names the place of the later key that somebody set. */
static int check_ports(const struct load *l, struct error *err) {
        const struct config *c = l->config;
        struct use {
                uint16_t port;
                int key;
        };
        size_t n = 3 + c->n_forwards;
        _cleanup_free_ struct use *uses = xcalloc(n, sizeof(*uses));
        uses[0] = (struct use){c->api_port, KEY_API_PORT};
        uses[1] = (struct use){c->ssh_port, KEY_SSH_PORT};
        uses[2] = (struct use){c->web_port, KEY_WEB_PORT};
        for (size_t i = 0; i < c->n_forwards; i++)
                uses[3 + i] = (struct use){c->forwards[i].host_port, KEY_FORWARDS};
        for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < i; j++) {
                        if (uses[i].port != uses[j].port)
                                continue;
                        int at = uses[i].key, other = uses[j].key;
                        if (!l->where[at]) {
                                at = uses[j].key;
                                other = uses[i].key;
                        }
                        int r = err_set(err, ERR_USAGE, EINVAL, "%s: %s: port %u is used twice: it is also %s%s",
                                        l->where[at] ? l->where[at] : "defaults", keys[at].name, uses[i].port,
                                        at == other ? "another forward's" : keys[other].name,
                                        l->where[other] ? "" : " (its default)");
                        hint_port(l, at, uses[i].port, err);
                        return r;
                }
        }
        return 0;
}

/* WEB_PORT of the project's own .env, which belongs to other programs: often a file, sometimes a Python
 * environment's folder. */
static int apply_dotenv(struct load *l, struct error *err) {
        _cleanup_free_ char *path = path_join(l->project->root, ".env");
        struct stat st;
        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
                return 0;
        _cleanup_free_ char *shown = str_printable(path, strlen(path));
        _cleanup_buf_ struct buf text = BUF_INIT(CONFIG_FILE_MAX_BYTES);
        int r = fs_read(path, CONFIG_FILE_MAX_BYTES, &text, NULL);
        if (r == -ENOENT)
                return 0;
        if (r < 0) {
                r = err_set(err, ERR_USAGE, -r, "%s: cannot read it for WEB_PORT: %s", shown,
                            r == -EFBIG ? "it is larger than 1 MiB" : strerror(-r));
                err_hint(err, "k3s-vm configure WEB_PORT=%d, and it need not be read", WEB_PORT_DEFAULT);
                return r;
        }
        _cleanup_free_ char *value = NULL;
        size_t line = dotenv_find(buf_str(&text), text.len, keys[KEY_WEB_PORT].name, &value);
        if (line == 0)
                return 0;
        _cleanup_free_ char *where = xasprintf("%s:%zu", shown, line);
        return apply(l, KEY_WEB_PORT, value, ".env", where, err);
}

static int apply_file(struct load *l, const struct config_file *f, const char *shown, struct error *err) {
        for (int i = 0; i < N_KEYS; i++) {
                const char *value = NULL;
                size_t line = config_file_find(f, keys[i].name, &value);
                if (line == 0)
                        continue;
                _cleanup_free_ char *where = xasprintf("%s:%zu", shown, line);
                int r = apply(l, i, value, "config", where, err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < f->n; i++)
                if (f->lines[i].key && find_key(f->lines[i].key) < 0)
                        strv_pushf(&l->config->unknown_keys, "%s (line %zu)", f->lines[i].key, i + 1);
        return 0;
}

static int apply_environment(struct load *l, struct error *err) {
        for (int i = 0; i < N_KEYS; i++) {
                const char *value = getenv(keys[i].name);
                if (!value)
                        continue;
                int r = apply(l, i, value, "environment", "environment", err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* From the lines of a file (and the environment) to a checked configuration. */
static int build(const struct project *p, const struct config_file *f, const char *shown, bool environment,
                 struct config **ret, struct error *err) {
        _cleanup_(load_clear) struct load l = {.project = p, .config = new_defaults(p)};
        int r = apply_file(&l, f, shown, err);
        if (r == 0 && environment)
                r = apply_environment(&l, err);
        if (r == 0 && !l.where[KEY_WEB_PORT])
                r = apply_dotenv(&l, err);
        if (r == 0)
                r = check_ports(&l, err);
        struct config *c = l.config;
        if (r == 0 && str_eq(c->kubeconfig_path, c->web_env_path)) {
                r = err_set(err, ERR_USAGE, EINVAL, "%s: KUBECONFIG_PATH and WEB_ENV_PATH are the same file", shown);
                int at = l.where[KEY_WEB_ENV_PATH] ? KEY_WEB_ENV_PATH : KEY_KUBECONFIG_PATH;
                hint_value(p, at, c->sources[at], err);
        }
        if (r < 0)
                return r;
        if (!l.where[KEY_WEB_NODE_PORT]) {
                bool is_node_port = c->web_port >= NODE_PORT_FIRST && c->web_port <= NODE_PORT_LAST;
                uint16_t kept = web_service_kept(p);
                c->web_node_port = kept ? kept : is_node_port ? c->web_port : WEB_PORT_DEFAULT;
                if (kept)
                        c->sources[KEY_WEB_NODE_PORT] = "manifests";
        }
        c->api_port_default = !l.where[KEY_API_PORT];
        c->ssh_port_default = !l.where[KEY_SSH_PORT];
        c->web_port_default = !l.where[KEY_WEB_PORT];
        *ret = TAKE_PTR(l.config);
        return 0;
}

int config_load(const struct project *p, struct config **ret, struct error *err) {
        _cleanup_free_ char *shown = str_printable(p->config_path, strlen(p->config_path));
        _cleanup_config_file_ struct config_file f = {0};
        bool exists;
        int r = config_file_read(p->config_path, shown, &f, &exists, err);
        if (r < 0)
                return r;
        return build(p, &f, shown, true, ret, err);
}

int config_check_disk(const struct project *p, const struct config *c, unsigned disk_gib, struct error *err) {
        if (c->disk_gib >= disk_gib)
                return 0;
        _cleanup_free_ char *shown = str_printable(p->config_path, strlen(p->config_path));
        int r = err_set(err, ERR_USAGE, EINVAL,
                        "%s: VM_DISK: %u GiB is less than the disk has (%u GiB), and it cannot shrink", shown,
                        c->disk_gib, disk_gib);
        err_hint(err,
                 "Keep the disk: k3s-vm configure VM_DISK=%u\n"
                 "Make a smaller one, losing what is on it: k3s-vm destroy && k3s-vm setup --disk %u",
                 disk_gib, c->disk_gib);
        return r;
}

/* Puts "KEY=VALUE" into @f. */
static int assign(struct config_file *f, const char *assignment, struct error *err) {
        size_t n = strcspn(assignment, "=");
        _cleanup_free_ char *raw_key = xstrndup(assignment, n), *key = trim(raw_key);
        _cleanup_free_ char *shown = str_printable(key, strnlen(key, 60));
        if (assignment[n] != '=') {
                int r = err_set(err, ERR_USAGE, EINVAL, "expected KEY=VALUE, not \"%s\"", shown);
                err_hint(err, "k3s-vm configure VM_CPUS=2; all keys: k3s-vm configure");
                return r;
        }
        if (find_key(key) < 0) {
                int r = err_set(err, ERR_USAGE, EINVAL, "there is no key \"%s\"", shown);
                _cleanup_buf_ struct buf hint = BUF_INIT(0);
                buf_puts(&hint, "The keys are:");
                for (int i = 0; i < N_KEYS; i++)
                        buf_printf(&hint, " %s", keys[i].name);
                err_hint(err, "%s", buf_str(&hint));
                return r;
        }
        _cleanup_free_ char *value = trim(assignment + n + 1);
        /* Refused here: a newline would become a line of its own in the file. */
        for (const char *s = value; *s; s++)
                if ((unsigned char)*s < 0x20 || *s == 0x7f)
                        return err_set(err, ERR_USAGE, EINVAL, "%s: must hold no control characters", key);
        config_file_set(f, key, value);
        return 0;
}

/* Reads the file, changes its lines, checks the whole; nothing is written. */
static int change(const struct project *p, const char *const *assignments, struct config_file *ret, bool *ret_exists,
                  struct error *err) {
        _cleanup_free_ char *shown = str_printable(p->config_path, strlen(p->config_path));
        _cleanup_config_file_ struct config_file f = {0};
        int r = config_file_read(p->config_path, shown, &f, ret_exists, err);
        for (; r == 0 && *assignments; assignments++)
                r = assign(&f, *assignments, err);
        /* The environment wins at every start but is not part of what is kept, so the file must be right
         * without it. */
        _cleanup_config_ struct config *c = NULL;
        if (r == 0)
                r = build(p, &f, shown, false, &c, err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0 && state_load(p, &s, NULL) == 0)
                r = config_check_disk(p, c, s->disk_gib, err);
        if (r < 0)
                return r;
        *ret = f;
        f = (struct config_file){0};
        return 0;
}

static int write_config(const struct project *p, const struct config_file *f, bool existed, struct error *err) {
        static const char head[] = "# k3s-vm: KEY=VALUE, one a line, read and never executed.\n"
                                   "# `k3s-vm configure` lists the keys with what they mean.\n";
        _cleanup_buf_ struct buf text = BUF_INIT(CONFIG_FILE_MAX_BYTES);
        if (!existed)
                buf_puts(&text, head);
        config_file_print(f, &text);
        /* A symlink stays one: what it names is replaced. */
        _cleanup_free_ char *target = realpath(p->config_path, NULL);
        return fs_write_atomic(target ? target : p->config_path, buf_str(&text), text.len, 0600, err);
}

int config_set(const struct project *p, const char *const *assignments, struct error *err) {
        bool existed;
        {
                _cleanup_config_file_ struct config_file f = {0};
                int r = change(p, assignments, &f, &existed, err);
                if (r < 0)
                        return r;
        }
        int r = project_create_dirs(p, err);
        if (r < 0)
                return r;
        /* Two commands that change different keys at once must not lose one; a lock on the folder itself leaves
         * no file behind and is held for a moment only. */
        _cleanup_close_ int lock = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (lock < 0)
                return err_errno(err, errno, "cannot open %s", p->dir);
        while (flock(lock, LOCK_EX) < 0)
                if (errno != EINTR)
                        break; /* a file system without locks: the write is atomic all the same */
        _cleanup_config_file_ struct config_file f = {0};
        r = change(p, assignments, &f, &existed, err);
        if (r < 0)
                return r;
        return write_config(p, &f, existed, err);
}

char *config_value(const struct config *c, const char *key) {
        int i = find_key(key);
        if (i < 0)
                return NULL;
        const struct rule *rule = &rules[i];
        switch (rule->kind) {
        case RULE_NUMBER:
                return xasprintf("%u", *(const unsigned *)member(c, rule->offset));
        case RULE_PORT:
                return xasprintf("%u", *(const uint16_t *)member(c, rule->offset));
        case RULE_TEXT:
                return xstrdup(*(char *const *)member(c, rule->offset));
        case RULE_FORWARDS:
                break;
        }
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (size_t n = 0; n < c->n_forwards; n++)
                buf_printf(&b, "%s%u:%u", n ? " " : "", c->forwards[n].host_port, c->forwards[n].guest_port);
        return buf_take(&b);
}

const char *config_source(const struct config *c, const char *key) {
        int i = find_key(key);
        return i < 0 ? NULL : c->sources[i];
}
