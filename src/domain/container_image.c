/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/archive_stream.h>
#include <k3s-vm/container_image.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>

#define INDEX_MAX_BYTES (4U << 20)
#define LIST_MAX_BYTES (16U << 20)
#define LIST_TIMEOUT_MS 60000U
/* For what the guest does between two packets: unpacking the last layer is the longest of it. */
#define IMPORT_TIMEOUT_MS (15U * 60 * 1000)
#define CTR "ctr -n k8s.io images "
#define DIGEST_PREFIX "sha256:"
#define DIGEST_LEN (sizeof(DIGEST_PREFIX) - 1 + 64)

void image_archive_free(struct image_archive *a) {
        if (!a)
                return;
        for (size_t i = 0; i < a->n; i++) {
                free(a->names[i].name);
                free(a->names[i].digest);
        }
        free(a->names);
        free(a->path);
        free(a->base);
        free(a);
}

void guest_images_clear(struct guest_images *g) {
        for (size_t i = 0; i < g->n; i++) {
                free(g->items[i].name);
                free(g->items[i].digest);
                free(g->items[i].size);
        }
        free(g->items);
        *g = (struct guest_images){0};
}

char *image_full_name(const char *name) {
        size_t host = strcspn(name, "/");
        bool has_host = name[host] == '/' && (memchr(name, '.', host) || memchr(name, ':', host) ||
                                              (host == strlen("localhost") && memcmp(name, "localhost", host) == 0));
        const char *last = strrchr(name, '/');
        bool has_tag = strpbrk(last ? last : name, ":@") != NULL;
        return xasprintf("%s%s%s%s", has_host ? "" : "docker.io/", !has_host && name[host] != '/' ? "library/" : "",
                         name, has_tag ? "" : ":latest");
}

static bool is_digest(const char *s) {
        return s && strlen(s) == DIGEST_LEN && str_starts(s, DIGEST_PREFIX) &&
               strspn(s + strlen(DIGEST_PREFIX), "0123456789abcdef") == 64;
}

/* Names reach the guest in quotes, terminals through str_printable(); what no registry allows is still refused. */
static bool is_name(const char *s) {
        return s && *s && strlen(s) < 512 &&
               s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:@")] == '\0';
}

static void add_name(struct image_archive *a, char *name, const char *digest) {
        a->names = xreallocarray(a->names, a->n + 1, sizeof(*a->names));
        a->names[a->n++] = (struct image_name){.name = name, .digest = xstrdup(digest)};
}

static int no_image(const struct image_archive *a, const char *why, struct error *err) {
        int r = err_set(err, ERR_FAILED, EBADMSG, "%s is no container image: %s", a->path, why);
        err_hint(err, "make one: docker save IMAGE -o image.tar, podman save IMAGE -o image.tar");
        return r;
}

static int no_names(const struct image_archive *a, struct error *err) {
        int r = err_set(err, ERR_FAILED, ENODATA, "no image in %s has a name that a pod could use", a->path);
        err_hint(err, "save it by its name, not by its ID: docker save NAME:TAG -o image.tar");
        return r;
}

/* "0123….json" or "blobs/sha256/0123…", the name of the file with an image's configuration, as a digest. */
static char *config_digest(const char *file) {
        const char *name = path_base(file);
        size_t len = strlen(name);
        char *digest = xasprintf(DIGEST_PREFIX "%.*s", (int)(str_ends(name, ".json") ? len - 5 : len), name);
        if (!is_digest(digest))
                free(TAKE_PTR(digest));
        return digest;
}

static int read_docker(struct image_archive *a, const struct json *manifest, struct error *err) {
        if (!json_is_array(manifest) || !json_first(manifest))
                return no_image(a, "its manifest.json lists none", err);
        for (const struct json *image = json_first(manifest); image; image = json_next(image)) {
                _cleanup_free_ char *digest = config_digest(json_string_or(json_get(image, "Config"), ""));
                for (struct json *tag = json_first(json_get(image, "RepoTags")); tag; tag = json_next(tag)) {
                        if (!is_name(json_string(tag)))
                                return no_image(a, "a name in its manifest.json is none", err);
                        add_name(a, image_full_name(json_string(tag)), digest);
                }
        }
        return a->n > 0 ? 0 : no_names(a, err);
}

/* The file's name without what says how it is packed: "shop" of "shop.tar.gz"; the caller frees. */
static char *base_name(const char *path) {
        _cleanup_free_ char *name = xstrdup(path_base(path));
        static const char *const endings[] = {".gz", ".zst", ".xz", ".bz2", ".tar", ".tgz", ".oci"};
        for (size_t i = 0; i < ELEMENTSOF(endings); i++)
                if (str_ends(name, endings[i]))
                        name[strlen(name) - strlen(endings[i])] = '\0';
        for (char *p = name; *p; p++) {
                if (*p >= 'A' && *p <= 'Z')
                        *p = (char)(*p - 'A' + 'a');
                else if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", *p))
                        *p = '-';
        }
        const char *begin = name + strspn(name, "-");
        size_t len = strlen(begin);
        while (len > 0 && begin[len - 1] == '-')
                len--;
        return xasprintf("localhost/%.*s", len > 0 ? (int)len : 5, len > 0 ? begin : "image");
}

static int read_oci(struct image_archive *a, const struct json *index, struct error *err) {
        static const char *const annotations[] = {"io.containerd.image.name", "org.opencontainers.image.ref.name"};
        const struct json *manifests = json_get(index, "manifests");
        if (!json_is_array(manifests) || !json_first(manifests))
                return no_image(a, "its index.json lists none", err);
        size_t tags = 0;
        for (const struct json *m = json_first(manifests); m; m = json_next(m)) {
                const char *digest = json_string(json_get(m, "digest")), *name = NULL;
                if (!is_digest(digest))
                        return no_image(a, "a digest in its index.json is none", err);
                for (size_t i = 0; i < ELEMENTSOF(annotations) && !name; i++)
                        name = json_string(json_get(m, "annotations", annotations[i]));
                if (!name)
                        continue;
                if (!is_name(name))
                        return no_image(a, "a name in its index.json is none", err);
                tags += !strpbrk(name, "/:@");
                add_name(a, xstrdup(name), digest);
        }
        if (a->n == 0)
                return no_names(a, err);
        if (tags == 0)
                return 0;
        if (tags < a->n)
                return no_image(a, "some names in its index.json are whole and others are tags only", err);
        a->base = base_name(a->path);
        for (size_t i = 0; i < a->n; i++) {
                char *whole = xasprintf("%s:%s", a->base, a->names[i].name);
                free(a->names[i].name);
                a->names[i].name = whole;
        }
        return 0;
}

enum { LAYOUT, INDEX, MANIFEST, N_MEMBERS };

/* From the files that describe an image layout or a Docker archive, as containerd decides between the two. */
static int read_members(struct image_archive *a, const struct archive_member *members, struct error *err) {
        bool oci = members[LAYOUT].found && members[INDEX].found;
        if (!oci && !members[MANIFEST].found)
                return no_image(a, "it has neither an oci-layout with index.json nor a manifest.json", err);
        const struct archive_member *m = &members[oci ? INDEX : MANIFEST];
        _cleanup_json_ struct json *document = NULL;
        int r = json_parse(buf_str(&m->contents), m->contents.len, &document, err);
        if (r < 0)
                return err_wrap(err, r, "%s is no container image: %s", a->path, m->name);
        return oci ? read_oci(a, document, err) : read_docker(a, document, err);
}

static const char *const layout_files[] = {"blobs", "index.json", "oci-layout", NULL};

/* Bytes of the files that a layout consists of, by reading it as it will be sent. */
static int folder_size(const char *path, uint64_t *ret, struct error *err) {
        _cleanup_archive_stream_ struct archive_stream *s = NULL;
        int r = archive_stream_folder(path, layout_files, &s, err);
        _cleanup_free_ char *block = xcalloc(1, 65536);
        ssize_t n = 0;
        uint64_t bytes = 0;
        while (r == 0 && (n = archive_stream_read(s, block, 65536, err)) > 0)
                bytes += (uint64_t)n;
        *ret = bytes;
        return r < 0 ? r : (int)n;
}

static int scan_folder(struct image_archive *a, struct archive_member *members, struct error *err) {
        for (int i = LAYOUT; i <= INDEX; i++) {
                _cleanup_free_ char *path = path_join(a->path, members[i].name);
                int r = fs_read(path, members[i].max, &members[i].contents, err);
                if (r == -ENOENT)
                        return no_image(a, "the folder has no oci-layout and index.json", err);
                if (r < 0)
                        return r;
                members[i].found = true;
        }
        return folder_size(a->path, &a->bytes, err);
}

int image_archive_open(const char *path, struct image_archive **ret, struct error *err) {
        _cleanup_image_archive_ struct image_archive *a = xcalloc(1, sizeof(*a));
        a->path = xstrdup(path);
        a->folder = fs_is_dir(path);
        struct archive_member members[N_MEMBERS] = {
                        [LAYOUT] = {.name = "oci-layout", .max = INDEX_MAX_BYTES},
                        [INDEX] = {.name = "index.json", .max = INDEX_MAX_BYTES},
                        [MANIFEST] = {.name = "manifest.json", .max = INDEX_MAX_BYTES},
        };
        int r = a->folder ? scan_folder(a, members, err) : archive_scan(path, members, N_MEMBERS, &a->bytes, err);
        if (r == 0)
                r = read_members(a, members, err);
        else if (r == -EBADMSG)
                err_hint(err, "it may be cut off, or no archive at all; make it again: docker save NAME -o image.tar");
        for (size_t i = 0; i < N_MEMBERS; i++)
                buf_free(&members[i].contents);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(a);
        return 0;
}

/* What the guest has. */

/* "REF TYPE DIGEST SIZE UNIT PLATFORMS LABELS" */
void guest_images_parse(const char *text, struct guest_images *ret) {
        _cleanup_strv_ struct strv lines = {0};
        strv_split(&lines, text, "\r\n");
        struct guest_images g = {.items = xcalloc(lines.len + 1, sizeof(*g.items))};
        for (size_t i = 0; i < lines.len; i++) {
                _cleanup_strv_ struct strv words = {0};
                strv_split(&words, lines.items[i], " \t");
                if (words.len < 5 || !is_name(words.items[0]) || !is_digest(words.items[2]))
                        continue;
                _cleanup_free_ char *size = xasprintf("%s %s", words.items[3], words.items[4]);
                g.items[g.n++] = (struct guest_image){.name = xstrdup(words.items[0]),
                                                      .digest = xstrdup(words.items[2]),
                                                      .size = str_printable(size, strlen(size))};
        }
        *ret = g;
}

/* The error of a `ctr` that failed. */
static int ctr_failed(const char *what, int status, const struct buf *errors, struct error *err) {
        _cleanup_free_ char *text = str_printable(buf_str(errors), strcspn(buf_str(errors), "\r\n"));
        int r;
        if (status == 127) {
                r = err_set(err, ERR_STATE, ENOENT, "%s: the VM has no containerd (ctr)", what);
                err_hint(err, "images need Kubernetes in the VM: K3S_VERSION must not be none");
        } else if (strstr(buf_str(errors), "containerd.sock")) {
                r = err_set(err, ERR_STATE, ECONNREFUSED, "%s: the VM's containerd does not answer", what);
                err_hint(err, "wait until the cluster is Ready: k3s-vm start\nsee why it is not: k3s-vm logs k3s");
        } else {
                r = err_set(err, ERR_FAILED, EIO, "%s: %s", what, *text ? text : "containerd refused");
                if (strstr(buf_str(errors), "no space left"))
                        err_hint(err,
                                 "make room in the VM, k3s-vm exec -- " CTR "rm NAME, or give it a larger VM_DISK");
        }
        return r;
}

int guest_images_list(struct remote *r, struct guest_images *ret, struct error *err) {
        _cleanup_buf_ struct buf out = BUF_INIT(LIST_MAX_BYTES), errors = BUF_INIT(LIST_MAX_BYTES);
        const struct remote_exec exec = {
                        .command = CTR "ls", .ret_stdout = &out, .ret_stderr = &errors, .timeout_ms = LIST_TIMEOUT_MS};
        int status = 0;
        int rc = remote_exec(r, &exec, &status, err);
        if (rc < 0)
                return rc;
        if (status != 0)
                return ctr_failed("cannot list the VM's images", status, &errors, err);
        guest_images_parse(buf_str(&out), ret);
        return 0;
}

static const struct guest_image *find_image(const struct guest_images *g, const char *name) {
        for (size_t i = 0; i < g->n; i++)
                if (str_eq(g->items[i].name, name))
                        return &g->items[i];
        return NULL;
}

bool image_archive_is_there(const struct image_archive *a, const struct guest_images *there) {
        for (size_t i = 0; i < a->n; i++) {
                const struct guest_image *image = find_image(there, a->names[i].name);
                if (!image || !a->names[i].digest)
                        return false;
                /* By its manifest; or by its configuration, under whose digest the kubelet's side of containerd
                 * keeps every image a second time. */
                const struct guest_image *by_config = find_image(there, a->names[i].digest);
                if (!str_eq(image->digest, a->names[i].digest) &&
                    !(by_config && str_eq(by_config->digest, image->digest)))
                        return false;
        }
        return a->n > 0;
}

/* Sending. */

struct sending {
        const struct image_archive *archive;
        struct archive_stream *stream;
        struct progress *progress;
        struct progress_phase *phase;
        uint64_t sent;
};

static ssize_t on_input(void *data, size_t len, void *userdata, struct error *err) {
        struct sending *s = userdata;
        ssize_t n = archive_stream_read(s->stream, data, len, err);
        if (n > 0) {
                s->sent += (uint64_t)n;
                progress_update(s->progress, s->phase, NULL, s->sent, s->archive->bytes, "bytes");
        }
        return n;
}

int image_archive_send(const struct image_archive *a, struct remote *r, struct progress *progress,
                       struct progress_phase *phase, struct error *err) {
        struct sending sending = {.archive = a, .progress = progress, .phase = phase};
        int rc = a->folder ? archive_stream_folder(a->path, layout_files, &sending.stream, err)
                           : archive_stream_open(a->path, &sending.stream, err);
        if (rc < 0)
                return rc;
        _cleanup_free_ char *base = a->base ? str_shell_quote(a->base) : NULL,
                            *command = xasprintf(CTR "import %s%s%s-", base ? "--base-name " : "", base ? base : "",
                                                 base ? " " : "");
        _cleanup_buf_ struct buf errors = BUF_INIT(LIST_MAX_BYTES);
        const struct remote_exec exec = {.command = command,
                                         .read_input = on_input,
                                         .userdata = &sending,
                                         .ret_stderr = &errors,
                                         .timeout_ms = IMPORT_TIMEOUT_MS};
        int status = 0;
        rc = remote_exec(r, &exec, &status, err);
        archive_stream_free(sending.stream);
        if (rc < 0)
                return err_wrap(err, rc, "cannot load %s", a->path);
        _cleanup_free_ char *what = xasprintf("cannot load %s", a->path);
        return status == 0 ? 0 : ctr_failed(what, status, &errors, err);
}
