/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/archive.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/embedded.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>
#include <k3s-vm/payload.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/verified.h>

#include "payload_release.h"
#include "payload_unpack.h"

/* Changes when the image is put together in another way from the same files. */
#define LAYOUT "k3s payload image 2"
#define VERSION_TIMEOUT_MS 5000
#define UNPACK_TIMEOUT_MS 60000
#define ROOM_TO_SPARE (16ULL << 20)
#define UNPACKED_TIMES 4 /* how much larger K3s is unpacked */

void payload_choice_clear(struct payload_choice *c) {
        free(c->version);
        free(c->channel);
        free(c->binary);
        *c = (struct payload_choice){0};
}

void payload_clear(struct payload *p) {
        free(p->name);
        free(p->version);
        free(p->description);
        free(p->image_path);
        *p = (struct payload){0};
}

/* Choosing. */

static char *absolute(const struct project *p, const char *path) {
        return path[0] == '/' ? xstrdup(path) : path_join(p->root, path);
}

/* A regular file that can be read; anything else would only show when the guest boots. */
static int check_file(const char *key, const char *path, struct error *err) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;
        int e = 0;
        if (fd < 0 || fstat(fd, &st) < 0)
                e = errno;
        else if (S_ISDIR(st.st_mode))
                e = EISDIR;
        else if (!S_ISREG(st.st_mode) || st.st_size == 0)
                e = EINVAL;
        if (e == 0)
                return 0;
        return err_set(err, ERR_USAGE, e, "%s: cannot use %s: %s", key, path,
                       e == EINVAL ? "not a file with something in it" : strerror(e));
}

static bool is_channel_name(const char *s) {
        return *s && strlen(s) <= 63 && s[0] != '.' &&
               s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_")] == '\0';
}

static struct releases releases(const struct project *p, const struct config *c) {
        return (struct releases){.project = p, .mirror = c->mirror_k3s};
}

static int choose_channel(const struct releases *k, const char *channel, struct progress *progress,
                          struct payload_choice *ret, struct error *err) {
        _cleanup_error_ struct error failure = ERROR_INIT;
        _cleanup_free_ char *version = NULL;
        int r = release_ask_channel(k, channel, &version, &failure);
        /* That the channel server answers does not say that the release server does. */
        if (r == 0 && !release_is_cached(k, version))
                r = release_fetch_hashes(k, version, &failure);
        if (r < 0 && (failure.code == ERR_USAGE || failure.code == ERR_INTERRUPTED || failure.code == ERR_HOST))
                return err_move(err, &failure);
        if (r < 0) {
                progress_debug(progress, "channel %s: %s", channel, failure.message);
                free(version);
                version = release_recall(k, channel);
        }
        if (!version) {
                progress_note(progress, "no K3s release can be reached and none is cached: using the offline payload");
                *ret = (struct payload_choice){.kind = PAYLOAD_OFFLINE};
                return 0;
        }
        if (r < 0)
                progress_note(progress, "K3s's servers cannot be reached: using the cached %s", version);
        *ret = (struct payload_choice){
                        .kind = PAYLOAD_RELEASE, .version = TAKE_PTR(version), .channel = xstrdup(channel)};
        return 0;
}

int payload_resolve(const struct project *p, const struct config *c, struct progress *progress,
                    struct payload_choice *ret, struct error *err) {
        const char *wanted = c->k3s_version;
        if (str_eq(wanted, "none")) {
                *ret = (struct payload_choice){.kind = PAYLOAD_NONE};
                return 0;
        }
        if (str_eq(wanted, "offline")) {
                *ret = (struct payload_choice){.kind = PAYLOAD_OFFLINE};
                return 0;
        }
        if (strchr(wanted, '/')) {
                _cleanup_free_ char *path = absolute(p, wanted);
                int r = check_file("K3S_VERSION", path, err);
                if (r == 0)
                        *ret = (struct payload_choice){.kind = PAYLOAD_BINARY, .binary = TAKE_PTR(path)};
                return r;
        }
        if (release_is_version(wanted)) {
                *ret = (struct payload_choice){.kind = PAYLOAD_RELEASE, .version = xstrdup(wanted)};
                return 0;
        }
        if (is_channel_name(wanted)) {
                const struct releases k = releases(p, c);
                return choose_channel(&k, wanted, progress, ret, err);
        }
        int r = err_set(err, ERR_USAGE, EINVAL, "K3S_VERSION=%s is neither a channel nor a version nor a path", wanted);
        err_hint(err, "stable, latest, a version such as v1.33.5+k3s1, a path with a slash, offline or none");
        return r;
}

/* The image. */

/* What a K3s binary says its version is. It may be for another system, or not K3s at all: then "custom". */
static char *binary_version(const char *path) {
        _cleanup_buf_ struct buf out = BUF_INIT(16384);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){path, "--version", NULL};
        /* K3s unpacks itself into its data folder for some commands; never on the host. */
        run.spec.set_env = (const char *const[]){"K3S_DATA_DIR=/nonexistent", NULL};
        run.ret_stdout = &out;
        run.timeout_ms = VERSION_TIMEOUT_MS;
        struct proc_result result;
        if (proc_run(&run, &result, NULL) < 0 || result.exit_status != 0)
                return xstrdup("custom");
        /* k3s version v1.33.5+k3s1 (0123abcd): the first word is what its file is called. */
        _cleanup_free_ char *start = xasprintf("%s version ", path_base(path));
        if (!str_starts(buf_str(&out), start))
                return xstrdup("custom");
        const char *text = out.data + strlen(start);
        size_t n = strcspn(text, " \r\n");
        return n == 0 || n > 64 ? xstrdup("custom") : str_printable(text, n);
}

/* The files that come with k3s-vm, for an image. */
struct own_files {
        struct buf service, data_service, data_script;
};
#define OWN_FILES_INIT ((struct own_files){BUF_INIT(65536), BUF_INIT(65536), BUF_INIT(65536)})

static void own_files_clear(struct own_files *f) {
        buf_free(&f->service);
        buf_free(&f->data_service);
        buf_free(&f->data_script);
}

static int read_own_files(const struct project *p, struct own_files *ret, struct error *err) {
        _cleanup_free_ char *folder = NULL;
        fs_sweep_path(p->cache_dir, ".payload.", "");
        int r = fs_mkdtemp(p->cache_dir, ".payload", &folder, err);
        if (r < 0)
                return r;
        _cleanup_close_ int hold _unused_ = fs_hold_path(folder);
        r = archive_unpack(k3s_vm_embedded_start, (size_t)(k3s_vm_embedded_end - k3s_vm_embedded_start), "payload/k3s",
                           folder, err);
        const struct {
                const char *name;
                struct buf *ret;
        } files[] = {{"systemd/k3s.service", &ret->service},
                     {"systemd/k3s-data.service", &ret->data_service},
                     {"lib/k3s-data", &ret->data_script}};
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(files); i++) {
                _cleanup_free_ char *path = path_join(folder, files[i].name);
                r = fs_read(path, 65536, files[i].ret, err);
        }
        fs_remove_tree(folder, NULL);
        return r;
}

/* An ISO image has no symlinks that every guest follows, and K3s goes by the name it is called by. */
static char *wrapper(const char *command) {
        return xasprintf("#!/bin/sh\nexec /opt/k3s/bin/k3s %s \"$@\"\n", command);
}

static char *payload_json(const struct payload *payload) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", 1);
        json_set_string(j, "name", payload->name);
        json_set_string(j, "version", payload->version);
        json_set_string(j, "description", payload->description);
        return json_print(j, true);
}

/* The hash of everything that goes into the image, names and modes included. */
static int hash_entries(const struct archive_entry *entries, size_t n, char hex[static SHA256_HEX_LEN + 1],
                        uint64_t *ret_size, struct error *err) {
        _cleanup_digest_ struct digest *d = NULL;
        int r = digest_new(&d, err);
        if (r < 0)
                return r;
        uint64_t size = 0;
        digest_update(d, LAYOUT, sizeof(LAYOUT));
        for (size_t i = 0; i < n; i++) {
                const struct archive_entry *e = &entries[i];
                char content[SHA256_HEX_LEN + 1];
                r = e->source_path ? digest_file(e->source_path, content, err)
                                   : digest_bytes(e->data, e->len, content, err);
                if (r < 0)
                        return r;
                int64_t file_size = e->source_path ? fs_size(e->source_path) : (int64_t)e->len;
                size += file_size > 0 ? (uint64_t)file_size : 0;
                _cleanup_free_ char *line = xasprintf("%s %o %s\n", content, (unsigned)e->mode, e->name);
                digest_update(d, line, strlen(line));
        }
        digest_final(d, hex);
        *ret_size = size;
        return 0;
}

/* What writing an image with @size bytes in it takes: while it is written, libarchive has a copy of them all. */
static uint64_t image_room(uint64_t size) {
        return 2 * size + ROOM_TO_SPARE;
}

static bool has_room(const char *folder, uint64_t needed) {
        uint64_t room = 0;
        return fs_free_bytes(folder, &room, NULL) == 0 && room >= needed;
}

static int check_room(const char *folder, uint64_t needed, struct error *err) {
        uint64_t room = 0;
        int r = fs_free_bytes(folder, &room, err);
        if (r < 0 || room >= needed)
                return r;
        _cleanup_free_ char *need = str_bytes(needed), *have = str_bytes(room);
        r = err_set(err, ERR_HOST, ENOSPC, "no room for the K3s image: it needs %s in %s, where %s are free", need,
                    folder, have);
        err_hint(err, "free some space, or set XDG_CACHE_HOME to a folder on a larger disk");
        return r;
}

/* Nothing in @ret when the guest has to unpack. Only an interruption is an error. */
static int try_unpack(const char *program, const char *folder, uint64_t size, struct progress *progress,
                      struct unpacked *ret, struct error *err) {
        _cleanup_error_ struct error failure = ERROR_INIT;
        int64_t program_size = fs_size(program);
        uint64_t expected = program_size > 0 ? UNPACKED_TIMES * (uint64_t)program_size : 0;
        int r;
        if (!has_room(folder, expected + image_room(size + expected)))
                r = err_set(&failure, ERR_HOST, ENOSPC, "no room in %s", folder);
        else
                r = payload_unpack(program, folder, UNPACK_TIMEOUT_MS, progress, ret, &failure);
        if (r == 0 && !has_room(folder, image_room(size + ret->bytes))) {
                unpacked_clear(ret);
                r = err_set(&failure, ERR_HOST, ENOSPC, "no room for them in %s", folder);
        }
        if (r < 0 && failure.code == ERR_INTERRUPTED)
                return err_move(err, &failure);
        if (r < 0)
                progress_debug(progress, "K3s's programs are left to the guest to unpack: %s", failure.message);
        return 0;
}

/* The image at @path, of @entries (the first of which is K3s itself) and what that unpacks. */
static int write_image(const char *path, const struct archive_entry *entries, size_t n, uint64_t size,
                       struct progress *progress, struct error *err) {
        _cleanup_free_ char *folder = path_parent(path);
        _cleanup_unpacked_ struct unpacked unpacked = UNPACKED_INIT;
        int r = fs_mkdir_p(folder, 0755, err);
        if (r == 0)
                r = check_room(folder, image_room(size), err);
        if (r == 0)
                r = try_unpack(entries[0].source_path, folder, size, progress, &unpacked, err);
        if (r < 0)
                return r;
        _cleanup_free_ struct archive_entry *all = xcalloc(n + unpacked.n, sizeof(*all));
        memcpy(all, entries, n * sizeof(*all));
        if (unpacked.n > 0)
                memcpy(all + n, unpacked.entries, unpacked.n * sizeof(*all));
        return archive_write_iso(path, "K3S", all, n + unpacked.n, err);
}

/* Fills in the image path of @payload, whose other members are set. */
static int build_image(const struct project *p, const char *program, const char *images, struct progress *progress,
                       struct payload *payload, struct error *err) {
        _cleanup_(own_files_clear) struct own_files own = OWN_FILES_INIT;
        int r = read_own_files(p, &own, err);
        if (r < 0)
                return err_wrap(err, r, "cannot read the K3s service that comes with k3s-vm");
        _cleanup_free_ char *kubectl = wrapper("kubectl"), *ctr = wrapper("ctr"), *crictl = wrapper("crictl");
        _cleanup_free_ char *json = payload_json(payload);
        _cleanup_free_ char *images_name = images ? path_join("images", path_base(images)) : NULL;
        const struct archive_entry entries[] = {
                        {.name = "bin/k3s", .source_path = program, .mode = 0755},
                        {.name = "bin/kubectl", .data = kubectl, .len = strlen(kubectl), .mode = 0755},
                        {.name = "bin/ctr", .data = ctr, .len = strlen(ctr), .mode = 0755},
                        {.name = "bin/crictl", .data = crictl, .len = strlen(crictl), .mode = 0755},
                        {.name = "lib/k3s-data",
                         .data = own.data_script.data,
                         .len = own.data_script.len,
                         .mode = 0755},
                        {.name = "systemd/k3s.service", .data = own.service.data, .len = own.service.len, .mode = 0644},
                        {.name = "systemd/k3s-data.service",
                         .data = own.data_service.data,
                         .len = own.data_service.len,
                         .mode = 0644},
                        {.name = "payload.json", .data = json, .len = strlen(json), .mode = 0644},
                        {.name = images_name, .source_path = images, .mode = 0644},
        };
        size_t n = ELEMENTSOF(entries) - (images ? 0 : 1);
        char hex[SHA256_HEX_LEN + 1];
        uint64_t size = 0;
        r = hash_entries(entries, n, hex, &size, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = xasprintf("%s/payloads/%s.iso", p->cache_dir, hex);
        if (!fs_exists(path) || verified_check_noted(path, false, NULL) == 0) {
                r = write_image(path, entries, n, size, progress, err);
                if (r == 0)
                        r = verified_note_file(path, err);
        }
        if (r < 0)
                return r;
        if (utimensat(AT_FDCWD, path, NULL, 0) == 0) /* used now: see cache.h */
                verified_renew(path);
        payload->image_path = TAKE_PTR(path);
        return 0;
}

static int fetch(const struct project *p, const struct config *c, const struct payload_choice *choice,
                 struct progress *progress, struct progress_phase *phase, struct payload *ret, struct error *err) {
        _cleanup_free_ char *program = NULL, *images = NULL;
        _cleanup_payload_ struct payload payload = {.name = xstrdup("k3s")};
        int r = fs_mkdir_p(p->cache_dir, 0755, err);
        if (r < 0)
                return r;
        if (choice->kind == PAYLOAD_RELEASE) {
                payload.version = xstrdup(choice->version);
                payload.description = xasprintf("K3s %s", choice->version);
                const struct releases k = releases(p, c);
                r = release_fetch(&k, choice->version, choice->with_images, progress, phase, &program, &images, err);
                if (r == 0 && choice->channel)
                        release_remember(&k, choice->channel, choice->version);
        } else {
                program = xstrdup(choice->binary);
                payload.version = binary_version(program);
                payload.description = str_eq(payload.version, "custom")
                                                      ? xstrdup("K3s from a given binary")
                                                      : xasprintf("K3s %s from a given binary", payload.version);
                r = check_file("K3S_VERSION", program, err);
        }
        if (r == 0 && c->k3s_images && *c->k3s_images) {
                free(images);
                images = absolute(p, c->k3s_images);
                r = check_file("K3S_AIRGAP_IMAGES", images, err);
        }
        if (r < 0)
                return r;
        progress_update(progress, phase, "writing the image", 0, 0, NULL);
        r = build_image(p, program, images, progress, &payload, err);
        if (r < 0)
                return r;
        *ret = payload;
        payload = (struct payload){0};
        return 0;
}

int payload_fetch(const struct project *p, const struct config *c, const struct payload_choice *choice,
                  struct progress *progress, struct payload *ret, struct error *err) {
        if (choice->kind != PAYLOAD_RELEASE && choice->kind != PAYLOAD_BINARY)
                return err_set(err, ERR_FAILED, EINVAL, "this payload is not fetched");
        struct progress_phase *phase = progress_begin(progress, "payload", "K3s %s",
                                                      choice->version ? choice->version : choice->binary);
        int r = fetch(p, c, choice, progress, phase, ret, err);
        progress_end(progress, phase, r == 0, NULL);
        return r;
}
