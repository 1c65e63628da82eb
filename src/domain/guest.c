/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/guest.h>

#define GUEST_SCHEMA 1
#define GUEST_SYSTEM "x86_64-linux"
#define GUEST_JSON_MAX (256U * 1024)
#define NAME_MAX_LEN 255U
#define SERIAL_MAX_LEN 20U /* VIRTIO_BLK_ID_BYTES: a longer one would be cut without a word */
/* x86's COMMAND_LINE_SIZE is 2048 with the NUL; the host name and machine id that are added need 160. */
#define CMDLINE_MAX_LEN 1800U

void guest_free(struct guest *g) {
        if (!g)
                return;
        char *strings[] = {g->boot_overlay,   g->dir,        g->flavor,         g->system,
                           g->version,        g->kernel,     g->initrd,         g->cmdline,
                           g->boot_disk,      g->root_image, g->root_serial,    g->data_mount,
                           g->data_serial,    g->provision,  g->payload_serial, g->payload_name,
                           g->payload_version};
        for (size_t i = 0; i < ELEMENTSOF(strings); i++)
                free(strings[i]);
        free(g);
}

static int bad(struct error *err, const char *what, const char *why) {
        return err_set(err, ERR_FAILED, EINVAL, "guest.json: %s %s", what, why);
}

/* A string member that is one line of at most @max bytes. An absent one is an error when @required. */
static int get_text(const struct json *object, const char *key, const char *what, size_t max, bool required, char **ret,
                    struct error *err) {
        const struct json *j = json_get(object, key);
        if (!j)
                return required ? bad(err, what, "is missing") : 0;
        const char *s = json_string(j);
        if (!s || !*s)
                return bad(err, what, "is not a text");
        if (strlen(s) > max)
                return bad(err, what, "is too long");
        for (const char *p = s; *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        return bad(err, what, "holds a control character");
        *ret = xstrdup(s);
        return 0;
}

/* A file of the guest: a relative name that cannot leave the folder; made absolute. A symlink is followed
 * (guests in the Nix store consist of them), so this keeps mistakes out, not an owner of the folder. */
static int get_file(const char *dir, const struct json *object, const char *key, const char *what, bool required,
                    char **ret, struct error *err) {
        _cleanup_free_ char *name = NULL;
        int r = get_text(object, key, what, NAME_MAX_LEN, required, &name, err);
        if (r < 0 || !name)
                return r;
        if (*name == '/')
                return bad(err, what, "must be relative to the guest's folder");
        _cleanup_strv_ struct strv parts = {0};
        strv_split(&parts, name, "/");
        if (strv_contains(&parts, "..") || strv_contains(&parts, ".") || parts.len == 0)
                return bad(err, what, "must not leave the guest's folder");
        *ret = path_join(dir, name);
        return 0;
}

/* A drive's serial, by which the guest finds it as /dev/disk/by-id/virtio-SERIAL. */
static int get_serial(const struct json *object, const char *key, const char *what, char **ret, struct error *err) {
        _cleanup_free_ char *s = NULL;
        int r = get_text(object, key, what, SERIAL_MAX_LEN, true, &s, err);
        if (r < 0)
                return r;
        if (s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] != '\0')
                return bad(err, what, "may hold letters, digits, '.', '_' and '-' only");
        *ret = TAKE_PTR(s);
        return 0;
}

static int parse_boot(struct guest *g, const struct json *j, struct error *err) {
        const struct json *boot = json_get(j, "boot");
        if (!json_is_object(boot))
                return bad(err, "boot", "is missing");
        int r = get_file(g->dir, boot, "disk", "boot.disk", false, &g->boot_disk, err);
        if (r < 0)
                return r;
        bool direct = json_get(boot, "kernel") != NULL;
        if (direct == (g->boot_disk != NULL))
                return bad(err, "boot", "needs either a kernel or a disk");
        if (!direct) {
                r = get_text(boot, "overlay", "boot.overlay", 8, false, &g->boot_overlay, err);
                if (r == 0 && g->boot_overlay && !str_eq(g->boot_overlay, "raw") && !str_eq(g->boot_overlay, "qcow2"))
                        r = bad(err, "boot.overlay", "is neither 'raw' nor 'qcow2'");
                g->boot_uefi = json_bool_or(json_get(boot, "uefi"), false);
                return r;
        }
        r = get_file(g->dir, boot, "kernel", "boot.kernel", true, &g->kernel, err);
        if (r == 0)
                r = get_file(g->dir, boot, "initrd", "boot.initrd", false, &g->initrd, err);
        if (r == 0)
                r = get_text(boot, "cmdline", "boot.cmdline", CMDLINE_MAX_LEN, true, &g->cmdline, err);
        return r;
}

static int parse_drives(struct guest *g, const struct json *j, struct error *err) {
        int r = 0;
        const struct json *root = json_get(j, "root"), *data = json_get(j, "data");
        if (root && !json_is_null(root)) {
                r = get_file(g->dir, root, "image", "root.image", true, &g->root_image, err);
                if (r == 0)
                        r = get_serial(root, "serial", "root.serial", &g->root_serial, err);
        }
        if (r == 0 && data && !json_is_null(data)) {
                r = get_serial(data, "serial", "data.serial", &g->data_serial, err);
                if (r == 0)
                        r = get_text(data, "mount", "data.mount", NAME_MAX_LEN, true, &g->data_mount, err);
                if (r == 0 && *g->data_mount != '/')
                        r = bad(err, "data.mount", "is not an absolute path");
                if (r == 0 && g->boot_overlay)
                        r = bad(err, "data", "cannot be there beside boot.overlay: the overlay is the VM's disk");
        }
        return r;
}

static int parse_payload(struct guest *g, const struct json *j, struct error *err) {
        const struct json *payload = json_get(j, "payload"), *baked = json_get(payload, "baked");
        if (!payload || json_is_null(payload))
                return 0;
        if (json_get(payload, "attach")) {
                if (baked)
                        return bad(err, "payload", "cannot be both attached and baked in");
                return get_serial(payload, "attach", "payload.attach", &g->payload_serial, err);
        }
        if (!json_is_object(baked))
                return bad(err, "payload", "needs 'attach' or 'baked'");
        int r = get_text(baked, "name", "payload.baked.name", 64, true, &g->payload_name, err);
        if (r == 0)
                r = get_text(baked, "version", "payload.baked.version", 128, true, &g->payload_version, err);
        return r;
}

static int check_serials(const struct guest *g, struct error *err) {
        if ((g->root_serial && (str_eq(g->root_serial, g->data_serial) || str_eq(g->root_serial, g->payload_serial))) ||
            (g->data_serial && str_eq(g->data_serial, g->payload_serial)))
                return bad(err, "two drives", "have the same serial");
        return 0;
}

int guest_parse(const char *dir, const struct json *j, struct guest **ret, struct error *err) {
        if (!json_is_object(j))
                return bad(err, "the top level", "is not an object");
        uint64_t schema = json_u64_or(json_get(j, "schema"), 0);
        if (schema != GUEST_SCHEMA)
                return bad(err, "schema",
                           schema > GUEST_SCHEMA ? "is of a newer version of this program" : "is missing or unknown");

        _cleanup_guest_ struct guest *g = xcalloc(1, sizeof(*g));
        g->dir = xstrdup(dir);
        int r = get_text(j, "flavor", "flavor", 64, true, &g->flavor, err);
        if (r == 0)
                r = get_text(j, "system", "system", 64, true, &g->system, err);
        if (r == 0 && !str_eq(g->system, GUEST_SYSTEM))
                r = bad(err, "system", "is not " GUEST_SYSTEM ", the only one that this program runs");
        if (r == 0)
                r = get_text(j, "version", "version", 256, true, &g->version, err);
        if (r == 0)
                r = get_text(j, "provision", "provision", 64, true, &g->provision, err);
        if (r == 0 && !str_eq(g->provision, "credentials") && !str_eq(g->provision, "nocloud"))
                r = bad(err, "provision", "is neither 'credentials' nor 'nocloud'");
        if (r == 0)
                r = parse_boot(g, j, err);
        if (r == 0)
                r = parse_drives(g, j, err);
        if (r == 0)
                r = parse_payload(g, j, err);
        if (r == 0)
                r = check_serials(g, err);
        g->agent = json_bool_or(json_get(j, "agent"), false);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(g);
        return 0;
}

int guest_load(const char *dir, struct guest **ret, struct error *err) {
        _cleanup_free_ char *absolute = realpath(dir, NULL);
        if (!absolute)
                return err_errno(err, errno, "cannot open the guest %s", dir);
        _cleanup_free_ char *path = path_join(absolute, "guest.json");
        _cleanup_json_ struct json *j = NULL;
        _cleanup_guest_ struct guest *g = NULL;
        int r = json_read_file(path, GUEST_JSON_MAX, &j, err);
        if (r == 0)
                r = guest_parse(absolute, j, &g, err);
        if (r < 0) {
                err_wrap(err, r, "cannot use the guest in %s", absolute);
                return r;
        }
        const char *const files[] = {g->kernel, g->initrd, g->boot_disk, g->root_image};
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                if (!files[i])
                        continue;
                int64_t size = fs_size(files[i]);
                if (size < 0)
                        return err_errno(err, (int)-size, "cannot use the guest in %s: cannot open its %s", absolute,
                                         path_base(files[i]));
                if (size == 0 || fs_is_dir(files[i]))
                        return err_set(err, ERR_FAILED, EINVAL, "cannot use the guest in %s: its %s is %s", absolute,
                                       path_base(files[i]), size == 0 ? "empty" : "a folder");
        }
        *ret = TAKE_PTR(g);
        return 0;
}
