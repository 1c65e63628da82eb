/* SPDX-License-Identifier: MIT */
/* Making what a VM consists of. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/credentials.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest.h>
#include <k3s-vm/guest_cloud.h>
#include <k3s-vm/guest_nixos.h>
#include <k3s-vm/host.h>
#include <k3s-vm/image.h>
#include <k3s-vm/k3s_config.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/payload.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/registries.h>
#include <k3s-vm/remote.h>
#include <k3s-vm/seed.h>
#include <k3s-vm/suspend.h>

#include "lifecycle_internal.h"

#define PRIVATE_REGISTRY "private-registry: "

static const struct image_builder debian_guest = {
                .name = "guest",
                .prefix = "guest/debian",
                .text = "Debian guest",
                .complete = "guest.json",
                .room_bytes = 2ULL << 30,
};

static const struct image_builder offline_payload = {
                .name = "payload",
                .prefix = "payload/offline",
                .text = "offline Kubernetes",
                .complete = "payload.json",
                .room_bytes = 4ULL << 30,
};

/* The folder that the user names as the guest; NULL: FLAVOR is a name. The caller frees. */
static char *given_guest(const struct lifecycle *l) {
        const char *flavor = l->config->flavor;
        if (!strchr(flavor, '/'))
                return NULL;
        return flavor[0] == '/' ? xstrdup(flavor) : path_join(l->project->root, flavor);
}

static int check_flavor(const struct lifecycle *l, struct error *err) {
        if (guest_is_cloud(l->config))
                return guest_cloud_check(l->config, err);
        const char *flavor = l->config->flavor;
        _cleanup_free_ char *given = given_guest(l);
        _cleanup_guest_ struct guest *guest = NULL;
        int r = 0;
        if (given)
                r = guest_load(given, &guest, err) < 0 ? err_wrap(err, -EINVAL, "FLAVOR=%s", flavor) : 0;
        else if (!str_eq(flavor, "auto") && !str_eq(flavor, "debian") && !guest_nixos_wanted(l->config))
                r = err_set(err, ERR_USAGE, ENOTSUP, "FLAVOR=%s is not available in this version", flavor);
        if (r < 0 && err)
                err->code = ERR_USAGE;
        if (r < 0)
                err_hint(err, "k3s-vm configure FLAVOR=auto");
        return r;
}

/* The guest that the VM was made with, as long as it is there. */
static bool guest_is_there(const struct state *s) {
        _cleanup_guest_ struct guest *guest = NULL;
        return s->guest_dir && guest_load(s->guest_dir, &guest, NULL) == 0;
}

/* The NixOS guest is looked after at each start. A VM that was made of another one keeps that until `reset`. */
static bool uses_nixos(const struct lifecycle *l, const struct state *s) {
        return guest_nixos_wanted(l->config) && (guest_nixos_made(l->project) || !guest_is_there(s));
}

/* A folder that the user names is used as it is; "auto" is what can be made on this machine. */
static int ensure_guest(const struct lifecycle *l, struct state *s, struct error *err) {
        _cleanup_free_ char *dir = given_guest(l);
        int r = 0;
        if (uses_nixos(l, s))
                r = guest_nixos_ensure(l->project, fs_exists(l->project->data_disk) ? s->payload_version : NULL,
                                       l->progress, &dir, err);
        else if (!dir && guest_is_cloud(l->config))
                r = guest_cloud_ensure(l->project, l->config, l->progress, &dir, err);
        else if (!dir)
                r = image_ensure(l->project, &debian_guest, l->progress, &dir, NULL, err);
        if (r < 0)
                return r;
        _cleanup_guest_ struct guest *guest = NULL;
        r = guest_load(dir, &guest, err);
        if (r < 0)
                return r;
        free(s->guest_dir);
        s->guest_dir = TAKE_PTR(dir);
        free(s->guest_version);
        s->guest_version = xstrdup(guest->version);
        if (guest->payload_name) {
                free(s->payload_name);
                s->payload_name = xstrdup(guest->payload_name);
                free(s->payload_version);
                s->payload_version = xstrdup(guest->payload_version);
        }
        return 0;
}

/* What payload.json in a built payload's folder says. */
static int read_built_payload(const char *dir, struct payload *ret, struct error *err) {
        _cleanup_free_ char *path = path_join(dir, "payload.json");
        _cleanup_json_ struct json *j = NULL;
        int r = json_read_file(path, 1U << 20, &j, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *image = path_join(dir, "payload.img");
        if (!fs_exists(image))
                return err_set(err, ERR_FAILED, ENOENT, "%s is missing", image);
        *ret = (struct payload){
                        .name = xstrdup(json_string_or(json_get(j, "name"), "kubernetes")),
                        .version = xstrdup(json_string_or(json_get(j, "version"), "?")),
                        .description = xstrdup(json_string(json_get(j, "description"))),
                        .image_path = TAKE_PTR(image),
        };
        return 0;
}

static int fetch_payload(const struct lifecycle *l, const struct payload_choice *choice, struct payload *ret,
                         struct error *err) {
        if (choice->kind != PAYLOAD_OFFLINE)
                return payload_fetch(l->project, l->config, choice, l->progress, ret, err);
        _cleanup_free_ char *dir = NULL;
        int r = image_ensure(l->project, &offline_payload, l->progress, &dir, NULL, err);
        return r < 0 ? r : read_built_payload(dir, ret, err);
}

static int ensure_payload(const struct lifecycle *l, struct state *s, const struct payload_choice *choice,
                          struct error *err) {
        struct payload payload = {0};
        if (choice->kind == PAYLOAD_NONE)
                return 0;
        int r = fetch_payload(l, choice, &payload, err);
        if (r < 0)
                return r;
        free(s->payload_name);
        free(s->payload_version);
        free(s->payload_description);
        free(s->payload_path);
        s->payload_name = payload.name;
        s->payload_version = payload.version;
        s->payload_description = payload.description;
        s->payload_path = payload.image_path;
        return 0;
}

/* The guest is made on a thread of its own while the payload is made here: the one waits mostly for the package
 * archive, the other for the compiler. They write to different members of the state. */
struct guest_job {
        const struct lifecycle *l;
        struct state *s;
        struct error err;
        int r;
};

static void *guest_thread(void *userdata) {
        struct guest_job *job = userdata;
        job->r = ensure_guest(job->l, job->s, &job->err);
        return NULL;
}

/* libarchive copies what goes into an image to $TMPDIR while it writes it, and a folder for temporary files may be a
 * small disk in memory. Beside the image there is the room that was looked for. Set and taken back while there is one
 * thread: an environment cannot be changed under the others. */
static char *move_temporary_files(const struct project *p) {
        const char *before = getenv("TMPDIR");
        char *saved = xstrdup(before);
        if (fs_mkdir_p(p->cache_dir, 0755, NULL) == 0)
                setenv("TMPDIR", p->cache_dir, 1);
        return saved;
}

static void restore_temporary_files(char **saved) {
        if (*saved)
                setenv("TMPDIR", *saved, 1);
        else
                unsetenv("TMPDIR");
        free(*saved);
}

int lifecycle_fetch_payload(const struct lifecycle *l, const struct payload_choice *choice, struct payload *ret,
                            struct error *err) {
        _cleanup_(restore_temporary_files) char *saved _unused_ = move_temporary_files(l->project);
        return fetch_payload(l, choice, ret, err);
}

static int ensure_images(const struct lifecycle *l, struct state *s, bool with_images, struct error *err) {
        int r = cache_check_used(l->project, s->guest_dir, s->payload_path, err);
        if (r < 0)
                return r;
        bool nixos = uses_nixos(l, s), need_guest = nixos || !guest_is_there(s);
        /* NixOS has K3s baked in. */
        bool need_payload = nixos             ? false
                            : s->payload_path ? !fs_exists(s->payload_path)
                                              : !s->payload_name && !s->payload_none;
        _cleanup_(payload_choice_clear) struct payload_choice choice = {0};
        if (need_payload) {
                r = payload_resolve(l->project, l->config, l->progress, &choice, err);
                if (r < 0)
                        return r;
                choice.with_images = with_images;
        }
        _cleanup_(restore_temporary_files) char *saved _unused_ = move_temporary_files(l->project);
        struct guest_job job = {.l = l, .s = s, .err = ERROR_INIT};
        pthread_t thread;
        bool threaded = need_guest && need_payload && pthread_create(&thread, NULL, guest_thread, &job) == 0;
        if (need_guest && !threaded)
                guest_thread(&job);
        if (need_payload && job.r == 0)
                r = ensure_payload(l, s, &choice, err);
        if (threaded)
                pthread_join(thread, NULL);
        if (r == 0 && need_payload)
                s->payload_none = choice.kind == PAYLOAD_NONE;
        if (job.r < 0)
                return err_move(err, &job.err);
        return r;
}

int lifecycle_fetch(const struct lifecycle *l, bool with_images, struct state **ret, struct error *err) {
        _cleanup_state_ struct state *s = state_new();
        int r = check_flavor(l, err);
        if (r == 0)
                r = ensure_images(l, s, with_images, err);
        if (r == 0)
                *ret = TAKE_PTR(s);
        return r;
}

static int ensure_disk(const struct lifecycle *l, struct state *s, struct error *err) {
        unsigned wanted = l->config->disk_gib;
        _cleanup_guest_ struct guest *guest = NULL;
        int r = guest_load(s->guest_dir, &guest, err);
        if (r < 0)
                return r;
        if (!fs_exists(l->project->data_disk))
                r = guest_create_disk(guest, l->project->data_disk, wanted, err);
        else if ((r = guest_check_base(guest, l->project->data_disk, err)) < 0)
                return r;
        else if (s->disk_gib < wanted) {
                /* A saved state is of the disk as it was, its size too. */
                if (suspend_exists(l->project)) {
                        progress_warn(l->progress, "the saved state cannot be used, so the VM boots from its disk: "
                                                   "the disk grows");
                        r = suspend_forget(l->project, err);
                }
                if (r == 0)
                        r = qemu_grow_disk(l->project->data_disk, wanted, err);
        }
        if (r == 0)
                s->disk_gib = wanted;
        return r;
}

/* OpenSSH's file for exactly one host: the guest's key was made here, so it is known before the first boot. */
static int write_known_hosts(const struct lifecycle *l, struct error *err) {
        _cleanup_buf_ struct buf key = BUF_INIT(0), line = BUF_INIT(0);
        int r = fs_read(l->project->host_key_pub_path, 4096, &key, err);
        if (r < 0)
                return r;
        buf_printf(&line, "[127.0.0.1]:%u %s", l->config->ssh_port, buf_str(&key));
        return fs_write_atomic(l->project->known_hosts_path, line.data, line.len, 0600, err);
}

static int ensure_keys(const struct lifecycle *l, struct error *err) {
        const struct project *p = l->project;
        int r = remote_make_key(p->key_path, "k3s-vm", err);
        if (r == 0)
                r = remote_make_key(p->host_key_path, l->config->vm_name, err);
        if (r == 0)
                r = write_known_hosts(l, err);
        return r;
}

static bool holds(const char *path, const struct buf *b) {
        _cleanup_buf_ struct buf there = BUF_INIT(b->len + 1);
        return fs_read(path, b->len, &there, NULL) == 0 && there.len == b->len &&
               (b->len == 0 || memcmp(there.data, b->data, b->len) == 0);
}

/* The files QEMU hands to the guest. Keys and arguments may have changed; a file that would stay the same is left
 * alone, as its time tells whether a suspended guest has read it. */
static int write_credentials(const struct lifecycle *l, const struct state *s, struct error *err) {
        const struct project *p = l->project;
        _cleanup_guest_ struct guest *guest = NULL;
        bool seeded = guest_load(s->guest_dir, &guest, NULL) == 0 && str_eq(guest->provision, "nocloud");
        /* Where the guest has them. */
        const char *folder = seeded ? SEED_FOLDER : GUEST_CREDENTIALS;
        int r = fs_mkdir_p(p->credentials_dir, 0700, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *public_path = xasprintf("%s.pub", p->key_path);
        _cleanup_free_ char *arguments = NULL, *registries = NULL, *ca = NULL;
        r = k3s_config(l->config->k3s_args, &arguments, err);
        _cleanup_free_ char *ca_path = xasprintf("%s%s", folder, credential_names[CREDENTIAL_REGISTRY_CA]),
                            *option = xasprintf(PRIVATE_REGISTRY "%s%s\n", folder,
                                                credential_names[CREDENTIAL_REGISTRIES]);
        if (r == 0)
                r = registries_make(l->config, ca_path, &registries, &ca, err);
        if (r < 0)
                return r;
        /* An option of the user's own wins. */
        _cleanup_free_ char *config =
                        xasprintf("%s%s", arguments, registries && !strstr(arguments, PRIVATE_REGISTRY) ? option : "");
        const struct {
                const char *source, *text;
        } files[CREDENTIAL_MAX] = {
                        [CREDENTIAL_AUTHORIZED_KEYS].source = public_path,
                        [CREDENTIAL_HOST_KEY].source = p->host_key_path,
                        [CREDENTIAL_K3S_CONFIG].text = config,
                        [CREDENTIAL_REGISTRIES].text = registries,
                        [CREDENTIAL_REGISTRY_CA].text = ca,
        };
        for (size_t i = 0; i < CREDENTIAL_MAX; i++) {
                _cleanup_buf_ struct buf b = BUF_INIT(0);
                _cleanup_free_ char *path = path_join(p->credentials_dir, credential_names[i]);
                if (files[i].source)
                        r = fs_read(files[i].source, 64U << 10, &b, err);
                else if (files[i].text)
                        buf_puts(&b, files[i].text);
                else
                        r = fs_unlink(path, err);
                if (r == 0 && b.len > 0 && !holds(path, &b))
                        r = fs_write_atomic(path, b.data, b.len, 0600, err);
                if (r < 0)
                        return r;
        }
        return seeded ? seed_write(p, l->config, s->uuid, err) : 0;
}

/* A state that cannot be read is made anew around what is there: the disk holds all that cannot be made again. */
static int load_or_begin(const struct lifecycle *l, struct state **ret, struct error *err) {
        struct state *s = NULL;
        int r = state_load(l->project, &s, err);
        if (r == 0) {
                *ret = s;
                return 0;
        }
        if (r != -ENOENT && r != -EUCLEAN)
                return r;
        if (r == -EUCLEAN)
                progress_warn(l->progress, "%s was damaged; it is made anew, the VM's disk is kept",
                              l->project->state_path);
        error_clear(err);
        s = state_new();
        s->uuid = random_uuid();
        s->name = xstrdup(l->config->vm_name);
        s->created_ms = wall_ms();
        *ret = s;
        return 0;
}

/* What the configuration asks for and this VM cannot be given, found out before anything is changed or built. */
static int check_config(const struct lifecycle *l, const struct state *s, struct error *err) {
        const struct config *c = l->config;
        int r = 0;
        if (fs_exists(l->project->data_disk))
                r = config_check_disk(l->project, c, s->disk_gib, err);
        if (r == 0 && !guest_is_there(s))
                r = check_flavor(l, err);
        _cleanup_free_ char *arguments = NULL, *registries = NULL, *ca = NULL;
        if (r == 0)
                r = k3s_config(c->k3s_args, &arguments, err);
        return r < 0 ? r : registries_make(c, "", &registries, &ca, err);
}

int lifecycle_prepare(const struct lifecycle *l, struct state **ret_state, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = load_or_begin(l, &s, err);
        if (r < 0)
                return r;
        r = check_config(l, s, err);
        if (r == 0)
                r = lifecycle_check_ports(l, s, err);
        if (r == 0)
                r = host_preflight(l->project, l->config, l->progress, err);
        if (r == 0)
                r = project_create_dirs(l->project, err);
        /* From here on the VM exists: whatever is interrupted below is completed by the next run. */
        if (r == 0)
                r = state_save(l->project, s, err);
        if (r == 0) {
                r = ensure_images(l, s, false, err);
                if (r < 0)
                        state_save(l->project, s, NULL); /* one of the two may have been made */
        }
        if (r == 0 && !s->machine)
                r = qemu_machine("qemu-system-x86_64", l->project->cache_dir, &s->machine, err);
        if (r == 0)
                r = ensure_disk(l, s, err);
        if (r == 0)
                r = ensure_keys(l, err);
        if (r == 0)
                r = write_credentials(l, s, err);
        s->api_port = l->config->api_port;
        s->ssh_port = l->config->ssh_port;
        s->web_port = l->config->web_port;
        if (r == 0)
                r = state_save(l->project, s, err);
        if (r == 0)
                r = registry_put(l->project, s, err);
        if (r < 0)
                return r;
        cache_prune(l->project, l->progress);
        *ret_state = TAKE_PTR(s);
        return 0;
}
