/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/archive.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/embedded.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest.h>
#include <k3s-vm/guest_nixos.h>
#include <k3s-vm/host.h>
#include <k3s-vm/image.h>

static const struct image_builder builder = {.name = "guest", .prefix = "guest/nixos", .text = "NixOS guest"};

bool guest_nixos_wanted(const struct config *c) {
        _cleanup_host_ struct host *h = NULL;
        if (!str_eq(c->flavor, "auto"))
                return str_eq(c->flavor, "nixos");
        if (!str_eq(config_source(c, "IMAGE"), "default") || host_detect(&h, NULL) < 0 || h->family != HOST_NIXOS)
                return false;
        _cleanup_free_ char *nix = fs_find_program("nix");
        return nix != NULL;
}

static char *key_path(const struct project *p) {
        return path_join(p->vm_dir, "nixos.key");
}

bool guest_nixos_made(const struct project *p) {
        _cleanup_free_ char *path = key_path(p);
        return fs_exists(path);
}

/* A hash of everything that decides what nix would make. Nothing is unpacked and no program run for it. */
static int find_key(const struct project *p, char hex[static SHA256_HEX_LEN + 1], struct error *err) {
        static const char *const names[] = {"configuration.nix", "flake.nix", "flake.lock", "nixos"};
        _cleanup_digest_ struct digest *digest = NULL;
        int r = digest_new(&digest, err);
        if (r < 0)
                return r;
        digest_update(digest, k3s_vm_embedded_start, (size_t)(k3s_vm_embedded_end - k3s_vm_embedded_start));
        const char *nixpkgs = getenv("K3S_VM_NIXPKGS");
        digest_update(digest, nixpkgs ? nixpkgs : "", nixpkgs ? strlen(nixpkgs) : 0);
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = path_join(p->dir, names[i]);
                r = fs_exists(path) ? image_digest(digest, path, err) : 0;
        }
        digest_final(digest, hex);
        return r;
}

static int build(const struct project *p, const char *link, const char *data_version, struct progress *progress,
                 struct error *err) {
        _cleanup_free_ char *scripts = path_join(p->vm_dir, "nixos");
        _cleanup_free_ char *script = path_join(scripts, "build");
        _cleanup_free_ char *log = xasprintf("%s.log", scripts);
        int r = fs_remove_tree(scripts, err);
        if (r == 0)
                r = fs_mkdir_p(scripts, 0700, err);
        if (r == 0)
                r = archive_unpack(k3s_vm_embedded_start, (size_t)(k3s_vm_embedded_end - k3s_vm_embedded_start),
                                   builder.prefix, scripts, err);
        if (r == 0)
                r = image_run(&builder, (const char *const[]){script, p->dir, link, data_version, NULL}, scripts, log,
                              progress, err);
        return r;
}

int guest_nixos_ensure(const struct project *p, const char *data_version, struct progress *progress, char **ret_dir,
                       struct error *err) {
        _cleanup_free_ char *link = path_join(p->vm_dir, "result"), *path = key_path(p),
                            *lock = path_join(p->dir, "flake.lock");
        char key[SHA256_HEX_LEN + 1];
        int r = find_key(p, key, err);
        if (r < 0)
                return r;
        _cleanup_buf_ struct buf before = BUF_INIT(sizeof(key));
        _cleanup_guest_ struct guest *guest = NULL;
        bool same = fs_read(path, SHA256_HEX_LEN, &before, NULL) == 0 && str_eq(buf_str(&before), key);
        /* A guest that is not there any more was collected as garbage. */
        if (!same || guest_load(link, &guest, NULL) < 0) {
                bool locked = fs_exists(lock);
                r = build(p, link, data_version, progress, err);
                if (r == 0)
                        r = guest_load(link, &guest, err);
                /* A flake of the project that had no lock file has one now. */
                if (r == 0 && !locked && fs_exists(lock))
                        r = find_key(p, key, err);
                if (r == 0)
                        r = fs_write_atomic(path, key, SHA256_HEX_LEN, 0600, err);
        }
        if (r == 0)
                *ret_dir = xstrdup(guest->dir);
        return r;
}
