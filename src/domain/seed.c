/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/archive.h>
#include <k3s-vm/banner.h>
#include <k3s-vm/credentials.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/embedded.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/seed.h>

#define FILE_MAX_BYTES (64U << 10)
#define SEED_MAX_BYTES (4U << 20)

void seed_clear(struct seed *s) {
        free(s->user_data);
        free(s->meta_data);
        free(s->network_config);
}

/* Adds an array of words, as commands are given. */
static void add_command(struct json *commands, const char *const *words) {
        struct json *command = json_new_array();
        for (; *words; words++)
                json_append_string(command, *words);
        json_append(commands, command);
}

static struct json *add_file(struct json *files, const char *path, const char *mode, const char *text) {
        struct json *file = json_new_object();
        json_set_string(file, "path", path);
        json_set_string(file, "permissions", mode);
        json_set_string(file, "content", text);
        json_append(files, file);
        return file;
}

static void add_credential(struct json *files, enum credential which, const char *mode, const char *text) {
        _cleanup_free_ char *path = xasprintf(SEED_FOLDER "%s", credential_names[which]);
        if (text)
                add_file(files, path, mode, text);
}

static int add_files(const struct seed_input *input, struct json *files, struct error *err) {
        static const struct {
                const char *name, *path, *mode;
        } own[] = {
                        {"start", "/usr/local/lib/k3s-vm/start", "0755"},
                        {"agent", "/usr/local/lib/k3s-vm/agent", "0755"},
                        {"k3s-vm.service", "/etc/systemd/system/k3s-vm.service", "0644"},
                        {"k3s-vm-agent.service", "/etc/systemd/system/k3s-vm-agent.service", "0644"},
                        {"sysctl.conf", "/etc/sysctl.d/90-k3s-vm.conf", "0644"},
                        {"sshd.conf", "/etc/ssh/sshd_config.d/10-k3s-vm.conf", "0644"},
                        {"profile.sh", "/etc/profile.d/k3s-vm.sh", "0644"},
        };
        for (size_t i = 0; i < ELEMENTSOF(own); i++) {
                _cleanup_free_ char *path = path_join(input->files, own[i].name);
                _cleanup_buf_ struct buf text = BUF_INIT(0);
                int r = fs_read(path, FILE_MAX_BYTES, &text, err);
                if (r < 0)
                        return r;
                add_file(files, own[i].path, own[i].mode, buf_str(&text));
        }
        add_file(files, SEED_FOLDER "config.yaml", "0600", input->k3s_config);
        add_credential(files, CREDENTIAL_REGISTRIES, "0600", input->registries);
        add_credential(files, CREDENTIAL_REGISTRY_CA, "0644", input->registry_ca);
        return 0;
}

/* JSON is YAML, whatever a key or a script has in it. */
static int user_data(const struct seed_input *input, char **ret, struct error *err) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "hostname", input->name);
        json_set_bool(j, "preserve_hostname", false);
        json_set_string(j, "manage_etc_hosts", "localhost");
        /* The distribution's own user gets the key as well. */
        json_set_bool(j, "disable_root", false);
        json_append_string(json_set_array(j, "ssh_authorized_keys"), input->key);
        struct json *keys = json_set_object(j, "ssh_keys");
        json_set_string(keys, "ed25519_private", input->host_key);
        json_set_string(keys, "ed25519_public", input->host_key_pub);
        json_set_string(j, "locale", "C.UTF-8");
        json_set_bool(j, "package_update", false);
        json_set_bool(j, "package_upgrade", false);
        json_set_bool(j, "no_ssh_fingerprints", true);
        json_set_bool(json_set_object(j, "ssh"), "emit_keys_to_console", false);
        /* At each boot, once the network is up. The units are on the disk a moment later; runcmd would be much later.
         */
        struct json *commands = json_set_array(j, "bootcmd");
        add_command(commands, (const char *const[]){"sh", "-c", "echo '" GUEST_NETWORK_UP "' >/dev/ttyS0", NULL});
        add_command(commands,
                    (const char *const[]){"systemd-run", "--no-block", "--collect", "--unit=k3s-vm-enable",
                                          "--property=After=cloud-init.service",
                                          "--property=After=cloud-init-network.service", "sh", "-c",
                                          "systemctl -q is-enabled k3s-vm.service || "
                                          "systemctl enable --now --no-block k3s-vm-agent.service k3s-vm.service",
                                          NULL});
        int r = add_files(input, json_set_array(j, "write_files"), err);
        if (r < 0)
                return r;
        _cleanup_free_ char *text = json_print(j, true);
        *ret = xasprintf("#cloud-config\n%s", text);
        return 0;
}

/* Version 2 in the part of it that every renderer of cloud-init knows. */
static char *network_config(const struct seed_input *input) {
        _cleanup_json_ struct json *j = json_new_object();
        _cleanup_free_ char *mac = qemu_mac(input->uuid);
        json_set_number(j, "version", 2);
        struct json *card = json_set_object(json_set_object(j, "ethernets"), "eth0");
        json_set_string(json_set_object(card, "match"), "macaddress", mac);
        json_set_string(card, "set-name", "eth0");
        json_set_bool(card, "dhcp4", false);
        json_set_bool(card, "dhcp6", false);
        /* QEMU's network has no IPv6 here: nothing to wait for. */
        json_set_bool(card, "accept-ra", false);
        json_set_array(card, "link-local");
        json_append_string(json_set_array(card, "addresses"), "10.0.2.15/24");
        struct json *route = json_new_object();
        json_set_string(route, "to", "0.0.0.0/0");
        json_set_string(route, "via", "10.0.2.2");
        json_append(json_set_array(card, "routes"), route);
        json_append_string(json_set_array(json_set_object(card, "nameservers"), "addresses"),
                           *input->dns ? input->dns : "10.0.2.3");
        return json_print(j, true);
}

/* cloud-init does what it does once an instance, so another seed is another instance. */
static int meta_data(const struct seed_input *input, const struct seed *s, char **ret, struct error *err) {
        char hex[SHA256_HEX_LEN + 1];
        _cleanup_free_ char *all = xasprintf("%s\n%s", s->user_data, s->network_config);
        int r = digest_bytes(all, strlen(all), hex, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *id = xasprintf("%s-%.8s", input->uuid, hex);
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "instance-id", id);
        json_set_string(j, "local-hostname", input->name);
        *ret = json_print(j, true);
        return 0;
}

int seed_compose(const struct seed_input *input, struct seed *ret, struct error *err) {
        _cleanup_seed_ struct seed s = {.network_config = network_config(input)};
        int r = user_data(input, &s.user_data, err);
        if (r == 0)
                r = meta_data(input, &s, &s.meta_data, err);
        if (r < 0)
                return r;
        *ret = s;
        s = (struct seed){0};
        return 0;
}

int seed_write_iso(const struct seed *s, const char *path, struct error *err) {
        const struct archive_entry entries[] = {
                        {.name = "meta-data", .data = s->meta_data, .len = strlen(s->meta_data), .mode = 0600},
                        {.name = "network-config",
                         .data = s->network_config,
                         .len = strlen(s->network_config),
                         .mode = 0600},
                        {.name = "user-data", .data = s->user_data, .len = strlen(s->user_data), .mode = 0600},
        };
        return archive_write_iso(path, "cidata", entries, ELEMENTSOF(entries), err);
}

char *seed_path(const struct project *p) {
        return path_join(p->vm_dir, "seed.iso");
}

/* Moves @from to @to unless that is the same already. */
static int replace(const char *from, const char *to, struct error *err) {
        _cleanup_buf_ struct buf a = BUF_INIT(SEED_MAX_BYTES + 1), b = BUF_INIT(SEED_MAX_BYTES + 1);
        if (fs_read(from, SEED_MAX_BYTES, &a, NULL) == 0 && fs_read(to, SEED_MAX_BYTES, &b, NULL) == 0 &&
            a.len == b.len && memcmp(a.data, b.data, a.len) == 0)
                return fs_unlink(from, err);
        if (chmod(from, 0600) < 0 || rename(from, to) < 0)
                return err_errno(err, errno, "cannot write %s", to);
        return 0;
}

/* cloud-init takes a key as one line. Borrowed. */
static char *first_line(struct buf *b) {
        char *text = (char *)buf_str(b);
        text[strcspn(text, "\n")] = '\0';
        return text;
}

int seed_write(const struct project *p, const struct config *c, const char *uuid, struct error *err) {
        struct buf texts[CREDENTIAL_MAX] = {0};
        _cleanup_buf_ struct buf host_key_pub = BUF_INIT(0);
        _cleanup_free_ char *folder = NULL;
        _cleanup_seed_ struct seed s = {0};
        int r = fs_read(p->host_key_pub_path, FILE_MAX_BYTES, &host_key_pub, err);
        for (size_t i = 0; r == 0 && i < CREDENTIAL_MAX; i++) {
                _cleanup_free_ char *path = path_join(p->credentials_dir, credential_names[i]);
                if (i < CREDENTIAL_ALWAYS || fs_exists(path))
                        r = fs_read(path, FILE_MAX_BYTES, &texts[i], err);
        }
        if (r == 0)
                r = fs_mkdtemp(p->vm_dir, ".seed", &folder, err);
        if (r == 0)
                r = archive_unpack(k3s_vm_embedded_start, (size_t)(k3s_vm_embedded_end - k3s_vm_embedded_start),
                                   "guest/cloud", folder, err);
        if (r == 0) {
                const struct seed_input input = {
                                .uuid = uuid,
                                .name = c->vm_name,
                                .dns = c->dns,
                                .key = first_line(&texts[CREDENTIAL_AUTHORIZED_KEYS]),
                                .host_key = buf_str(&texts[CREDENTIAL_HOST_KEY]),
                                .host_key_pub = first_line(&host_key_pub),
                                .k3s_config = buf_str(&texts[CREDENTIAL_K3S_CONFIG]),
                                .registries = texts[CREDENTIAL_REGISTRIES].data,
                                .registry_ca = texts[CREDENTIAL_REGISTRY_CA].data,
                                .files = folder,
                };
                r = seed_compose(&input, &s, err);
        }
        _cleanup_free_ char *path = seed_path(p), *made = xasprintf("%s.new", path);
        if (r == 0)
                r = seed_write_iso(&s, made, err);
        if (r == 0)
                r = replace(made, path, err);
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                buf_free(&texts[i]);
        if (folder)
                fs_remove_tree(folder, NULL);
        return r < 0 ? err_wrap(err, r, "cannot write the seed for cloud-init") : 0;
}
