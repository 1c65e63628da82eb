/* SPDX-License-Identifier: MIT */
/* The qcow2 format: https://gitlab.com/qemu-project/qemu, docs/interop/qcow2.txt. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/checksums.h>
#include <k3s-vm/cloud_image.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/http.h>

#define HASHES_MAX (4U << 20)
#define HASHES_TIMEOUT_MS 10000
#define SECTOR 512U

static const struct cloud_publisher publishers[] = {
                {"ubuntu-24.04", "Ubuntu 24.04", "https://cloud-images.ubuntu.com", "/releases/24.04/release/",
                 "ubuntu-24.04-server-cloudimg-amd64.img", "SHA256SUMS"},
                {"ubuntu-22.04", "Ubuntu 22.04", "https://cloud-images.ubuntu.com", "/releases/22.04/release/",
                 "ubuntu-22.04-server-cloudimg-amd64.img", "SHA256SUMS"},
                {"debian-12", "Debian 12", "https://cloud.debian.org", "/images/cloud/bookworm/latest/",
                 "debian-12-genericcloud-amd64.qcow2", "SHA512SUMS"},
                {"debian-13", "Debian 13", "https://cloud.debian.org", "/images/cloud/trixie/latest/",
                 "debian-13-genericcloud-amd64.qcow2", "SHA512SUMS"},
                {"fedora", "Fedora 42", "https://download.fedoraproject.org",
                 "/pub/fedora/linux/releases/42/Cloud/x86_64/images/", "Fedora-Cloud-Base-Generic-42-1.1.x86_64.qcow2",
                 "Fedora-Cloud-42-1.1-x86_64-CHECKSUM"},
};

const struct cloud_publisher *cloud_publisher(const char *name) {
        for (size_t i = 0; i < ELEMENTSOF(publishers); i++)
                if (str_eq(publishers[i].name, name))
                        return &publishers[i];
        return NULL;
}

char *cloud_publisher_names(void) {
        _cleanup_strv_ struct strv names = {0};
        for (size_t i = 0; i < ELEMENTSOF(publishers); i++)
                strv_push(&names, publishers[i].name);
        return strv_join(&names, ", ");
}

const char *cloud_url_hash(const char *url) {
        const char *fragment = strchr(url, '#');
        size_t want = !fragment                          ? 0
                      : str_starts(fragment, "#sha256:") ? SHA256_HEX_LEN
                      : str_starts(fragment, "#sha512:") ? SHA512_HEX_LEN
                                                         : 0;
        const char *hex = want > 0 ? fragment + strlen("#sha256:") : NULL;
        return hex && strlen(hex) == want && strspn(hex, "0123456789abcdef") == want ? hex : NULL;
}

void cloud_image_clear(struct cloud_image *i) {
        free(i->text);
        free(i->url);
        free(i->path);
        free(i->hash);
        free(i->name);
        *i = (struct cloud_image){0};
}

static char *note_path(const struct project *p, const char *name) {
        return xasprintf("%s/downloads/images/.%s", p->cache_dir, name);
}

void cloud_image_remember(const struct project *p, const struct cloud_image *i) {
        if (!i->name)
                return;
        _cleanup_free_ char *path = note_path(p, i->name), *folder = path_parent(path);
        if (fs_mkdir_p(folder, 0755, NULL) == 0)
                fs_write_cache(path, i->hash, strlen(i->hash), 0644, NULL);
}

static int fetch_hash(const char *url, const char *file, char **ret, struct error *err) {
        _cleanup_http_ struct http *http = NULL;
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        int r = http_new(NULL, &http, err);
        if (r < 0)
                return r;
        const struct http_request request = {
                        .url = url,
                        .timeout_ms = HASHES_TIMEOUT_MS,
                        .max_body = HASHES_MAX,
                        .follow_redirects = true,
        };
        r = http_perform(http, &request, &response, err);
        if (r < 0)
                return r;
        if (response.status != 200)
                return err_set(err, ERR_FAILED, EAGAIN, "%s answered %ld", url, response.status);
        char hex[DIGEST_HEX_MAX + 1];
        if (!checksums_find(buf_str(&response.body), file, hex))
                return err_set(err, ERR_FAILED, EBADMSG, "%s does not list %s", url, file);
        *ret = xstrdup(hex);
        return 0;
}

static int resolve_name(const struct project *p, const struct config *c, const struct cloud_publisher *publisher,
                        struct progress *progress, struct cloud_image *ret, struct error *err) {
        _cleanup_error_ struct error why = ERROR_INIT;
        const char *host = *c->mirror_images ? c->mirror_images : publisher->host;
        _cleanup_free_ char *hashes = xasprintf("%s%s%s", host, publisher->folder, publisher->hashes);
        _cleanup_cloud_image_ struct cloud_image i = {
                        .text = xstrdup(publisher->text),
                        .name = xstrdup(publisher->name),
                        .url = xasprintf("%s%s%s", host, publisher->folder, publisher->file),
        };
        int r = fetch_hash(hashes, publisher->file, &i.hash, &why);
        if (r < 0 && why.code != ERR_INTERRUPTED) {
                _cleanup_free_ char *note = note_path(p, publisher->name);
                _cleanup_buf_ struct buf text = BUF_INIT(DIGEST_HEX_MAX + 1);
                if (fs_read(note, DIGEST_HEX_MAX, &text, NULL) == 0 && text.len >= SHA256_HEX_LEN &&
                    strspn(buf_str(&text), "0123456789abcdef") == text.len) {
                        progress_note(progress, "%s cannot be reached: using the cached image of %s", host, i.text);
                        progress_debug(progress, "%s", why.message);
                        i.hash = buf_take(&text);
                        r = 0;
                }
        }
        if (r < 0) {
                err_move(err, &why);
                err_hint(err, "give an image by its file: k3s-vm configure IMAGE=./%s", publisher->file);
                return err_wrap(err, r, "cannot find the cloud image of %s", publisher->text);
        }
        *ret = i;
        i = (struct cloud_image){0};
        return 0;
}

int cloud_image_resolve(const struct project *p, const struct config *c, struct progress *progress,
                        struct cloud_image *ret, struct error *err) {
        const struct cloud_publisher *publisher = cloud_publisher(c->image);
        if (publisher)
                return resolve_name(p, c, publisher, progress, ret, err);
        const char *hash = cloud_url_hash(c->image);
        if (hash) {
                _cleanup_free_ char *url = xstrndup(c->image, strcspn(c->image, "#"));
                *ret = (struct cloud_image){
                                .text = xstrdup(path_base(url)), .url = xstrdup(url), .hash = xstrdup(hash)};
                return 0;
        }
        char hex[SHA256_HEX_LEN + 1];
        int r = digest_file(c->image, hex, err);
        if (r < 0) {
                if (err)
                        err->code = ERR_USAGE;
                err_hint(err, "k3s-vm configure IMAGE=" CLOUD_IMAGE_DEFAULT);
                return err_wrap(err, r, "IMAGE");
        }
        *ret = (struct cloud_image){
                        .text = xstrdup(path_base(c->image)), .path = xstrdup(c->image), .hash = xstrdup(hex)};
        return 0;
}

/* Files. */

static uint64_t get_be(const uint8_t *p, size_t n) {
        uint64_t value = 0;
        while (n-- > 0)
                value = value << 8 | *p++;
        return value;
}

int disk_look(const char *path, struct disk_look *ret, struct error *err) {
        uint8_t head[SECTOR] = {0};
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, head, sizeof(head), 0) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        if (memcmp(head, "QFI\xfb", 4) != 0) {
                int64_t size = fs_size(path);
                if (size < (int64_t)sizeof(head) || head[510] != 0x55 || head[511] != 0xaa)
                        return err_set(err, ERR_USAGE, EINVAL, "it is neither qcow2 nor a disk with a partition table");
                *ret = (struct disk_look){"raw", (uint64_t)size};
                return 0;
        }
        uint64_t version = get_be(head + 4, 4), features = version >= 3 ? get_be(head + 72, 8) : 0;
        /* A backing file or an external data file would be read with the rights of whoever starts the VM. */
        if ((version != 2 && version != 3) || get_be(head + 8, 8) != 0 || get_be(head + 32, 4) != 0 ||
            (features & 0x4) != 0)
                return err_set(err, ERR_USAGE, EINVAL,
                               "it refers to other files, is encrypted, or is of an unknown version of qcow2");
        *ret = (struct disk_look){"qcow2", get_be(head + 24, 8)};
        return 0;
}

int disk_base(const char *path, char **ret, struct error *err) {
        uint8_t head[SECTOR] = {0};
        char name[1024] = "";
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, head, sizeof(head), 0) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        uint64_t offset = get_be(head + 8, 8), size = get_be(head + 16, 4);
        *ret = NULL;
        if (memcmp(head, "QFI\xfb", 4) != 0 || offset == 0)
                return 0;
        if (size >= sizeof(name) || pread(fd, name, size, (off_t)offset) != (ssize_t)size)
                return err_set(err, ERR_FAILED, EBADMSG, "%s is damaged", path);
        *ret = xstrdup(name);
        return 0;
}
