/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

#include <k3s-vm/checksums.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/http.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/json.h>
#include <k3s-vm/strv.h>

#include "payload_release.h"

#define CHANNEL_URL "https://update.k3s.io/v1-release/channels"
#define RELEASE_URL "https://github.com/k3s-io/k3s/releases/download"
#define CHANNEL_TIMEOUT_MS 5000
#define HASHES_TIMEOUT_MS 10000
#define HASHES_MAX (64U * 1024)
#define CHANNELS_MAX (4U << 20)

/* K3s's name for this machine's architecture. */
static const char *architecture(void) {
        struct utsname name;
        if (uname(&name) == 0 && str_eq(name.machine, "aarch64"))
                return "arm64";
        return "amd64";
}

static const char *program_asset(void) {
        return str_eq(architecture(), "arm64") ? "k3s-arm64" : "k3s";
}

static char *cached(const struct releases *k, const char *version, const char *name) {
        return path_join(k->project->cache_dir, "downloads", "k3s", version, name);
}

static char *hashes_asset(void) {
        return xasprintf("sha256sum-%s.txt", architecture());
}

static bool has_mirror(const struct releases *k) {
        return k->mirror && *k->mirror;
}

static char *asset_url(const struct releases *k, const char *version, const char *asset) {
        _cleanup_buf_ struct buf escaped = BUF_INIT(1024);
        for (; *version; version++)
                if (*version == '+')
                        buf_puts(&escaped, "%2B");
                else
                        buf_append(&escaped, version, 1);
        return xasprintf("%s/%s/%s", has_mirror(k) ? k->mirror : RELEASE_URL, buf_str(&escaped), asset);
}

bool release_is_version(const char *version) {
        if (!version || version[0] != 'v' || strlen(version) > 64)
                return false;
        /* vMAJOR.MINOR.PATCH, then what names a build: "+k3s1", "-rc1+k3s2". */
        const char *p = version + 1;
        for (int i = 0; i < 3; i++) {
                size_t n = strspn(p, "0123456789");
                if (n == 0 || n > 6 || (i < 2 && p[n] != '.'))
                        return false;
                p += n + (i < 2);
        }
        if (*p != '+' && *p != '-')
                return false;
        return p[strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789.+-")] == '\0' && strchr(p, '+');
}

/* Channels. */

static int get(const char *url, unsigned timeout_ms, size_t max_body, struct http_response *ret, struct error *err) {
        _cleanup_http_ struct http *http = NULL;
        int r = http_new(NULL, &http, err);
        if (r < 0)
                return r;
        const struct http_request request = {
                        .url = url,
                        .connect_timeout_ms = timeout_ms,
                        .timeout_ms = timeout_ms,
                        .max_body = max_body,
                        .follow_redirects = true,
        };
        return http_perform(http, &request, ret, err);
}

static int no_channel(const char *channel, const struct json *data, struct error *err) {
        _cleanup_strv_ struct strv names = {0};
        for (const struct json *e = json_first(data); e && names.len < 40; e = json_next(e)) {
                const char *id = json_string(json_get(e, "id"));
                if (id)
                        strv_push_take(&names, str_printable(id, strnlen(id, 64)));
        }
        _cleanup_free_ char *list = strv_join(&names, ", ");
        int r = err_set(err, ERR_USAGE, ENOENT, "K3S_VERSION=%s: K3s has no such release channel", channel);
        err_hint(err, "a channel (%s), a version such as v1.33.5+k3s1, a path, offline or none", list);
        return r;
}

int release_ask_channel(const struct releases *k, const char *channel, char **ret_version, struct error *err) {
        _cleanup_free_ char *url = has_mirror(k) ? path_join(k->mirror, "channels") : xstrdup(CHANNEL_URL);
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        int r = get(url, CHANNEL_TIMEOUT_MS, CHANNELS_MAX, &response, err);
        if (r < 0)
                return r;
        if (response.status != 200)
                return err_set(err, ERR_FAILED, EAGAIN, "%s answered %ld", url, response.status);
        _cleanup_json_ struct json *j = NULL;
        r = json_parse(buf_str(&response.body), response.body.len, &j, err);
        if (r < 0)
                return err_wrap(err, r, "cannot understand the answer of %s", url);
        const struct json *data = json_get(j, "data");
        if (!json_is_array(data))
                return err_set(err, ERR_FAILED, EPROTO, "the answer of %s holds no channels", url);
        for (const struct json *e = json_first(data); e; e = json_next(e)) {
                if (!str_eq(json_string(json_get(e, "id")), channel))
                        continue;
                const char *latest = json_string(json_get(e, "latest"));
                /* It becomes part of paths. */
                if (!release_is_version(latest))
                        return err_set(err, ERR_FAILED, EPROTO, "%s names no release for the channel %s", url, channel);
                *ret_version = xstrdup(latest);
                return 0;
        }
        return no_channel(channel, data, err);
}

/* The note is one line: the version. */
static char *note_path(const struct releases *k, const char *channel) {
        return path_join(k->project->cache_dir, "downloads", "k3s", "channels", channel);
}

char *release_recall(const struct releases *k, const char *channel) {
        _cleanup_free_ char *path = note_path(k, channel);
        _cleanup_buf_ struct buf text = BUF_INIT(256);
        if (fs_read(path, 128, &text, NULL) < 0)
                return NULL;
        char *version = buf_take(&text);
        version[strcspn(version, "\r\n")] = '\0';
        if (release_is_version(version) && release_is_cached(k, version))
                return version;
        free(version);
        return NULL;
}

void release_remember(const struct releases *k, const char *channel, const char *version) {
        _cleanup_free_ char *path = note_path(k, channel);
        _cleanup_free_ char *folder = path_parent(path);
        _cleanup_free_ char *line = xasprintf("%s\n", version);
        /* Without the note the next run without a network chooses the offline payload; no reason to fail now. */
        if (fs_mkdir_p(folder, 0755, NULL) == 0)
                fs_write_atomic(path, line, strlen(line), 0644, NULL);
}

/* Releases. */

bool release_is_cached(const struct releases *k, const char *version) {
        _cleanup_free_ char *hashes_name = hashes_asset();
        _cleanup_free_ char *hashes = cached(k, version, hashes_name);
        _cleanup_free_ char *program = cached(k, version, program_asset());
        return fs_exists(program) && fs_exists(hashes);
}

int release_fetch_hashes(const struct releases *k, const char *version, struct error *err) {
        _cleanup_free_ char *name = hashes_asset();
        _cleanup_free_ char *path = cached(k, version, name);
        if (fs_exists(path))
                return 0;
        _cleanup_free_ char *url = asset_url(k, version, name);
        _cleanup_http_response_ struct http_response response = HTTP_RESPONSE_INIT;
        int r = get(url, HASHES_TIMEOUT_MS, HASHES_MAX, &response, err);
        if (r < 0)
                return r;
        if (response.status == 404) {
                r = err_set(err, ERR_USAGE, ENOENT, "there is no K3s release %s", version);
                err_hint(err, "releases are listed at https://github.com/k3s-io/k3s/releases");
                return r;
        }
        if (response.status != 200)
                return err_set(err, ERR_FAILED, EAGAIN, "%s answered %ld", url, response.status);
        _cleanup_free_ char *folder = path_parent(path);
        r = fs_mkdir_p(folder, 0755, err);
        return r < 0 ? r : fs_write_atomic(path, buf_str(&response.body), response.body.len, 0644, err);
}

/* The hash of @asset in the publisher's list. */
static int find_hash(const struct releases *k, const char *version, const char *asset,
                     char hex[static DIGEST_HEX_MAX + 1], struct error *err) {
        _cleanup_free_ char *name = hashes_asset();
        _cleanup_free_ char *path = cached(k, version, name);
        _cleanup_buf_ struct buf text = BUF_INIT(HASHES_MAX);
        int r = fs_read(path, HASHES_MAX, &text, err);
        if (r < 0 || checksums_find(buf_str(&text), asset, hex))
                return r;
        /* Asked for anew the next time. */
        fs_unlink(path, NULL);
        return err_set(err, ERR_FAILED, EBADMSG, "%s of %s does not list %s", name, version, asset);
}

/* One of the release's files, checked. */
static int fetch_asset(const struct releases *k, const char *version, const char *asset, mode_t mode,
                       struct progress *progress, struct progress_phase *phase, char **ret, struct error *err) {
        char hex[DIGEST_HEX_MAX + 1];
        int r = find_hash(k, version, asset, hex, err);
        _cleanup_http_ struct http *http = NULL;
        if (r == 0)
                r = http_new(NULL, &http, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = cached(k, version, asset), *url = asset_url(k, version, asset);
        const struct http_download download = {
                        .url = url,
                        .path = path,
                        .hash = hex,
                        .mode = mode,
                        .progress = progress,
                        .phase = phase,
        };
        r = http_download(http, &download, err);
        if (r == 0)
                *ret = TAKE_PTR(path);
        return r;
}

int release_fetch(const struct releases *k, const char *version, bool with_images, struct progress *progress,
                  struct progress_phase *phase, char **ret_program, char **ret_images, struct error *err) {
        _cleanup_free_ char *program = NULL, *images = NULL;
        _cleanup_free_ char *images_asset = xasprintf("k3s-airgap-images-%s.tar.zst", architecture());
        _cleanup_free_ char *there = cached(k, version, images_asset);
        int r = release_fetch_hashes(k, version, err);
        /* As http_download() does for the files themselves. */
        for (unsigned pause_ms = 500; r < 0 && pause_ms < 8000 && (r == -EAGAIN || r == -ETIMEDOUT || r == -ECONNRESET);
             pause_ms *= 2) {
                error_clear(err);
                r = interrupt_wait(-1, pause_ms, err);
                if (r == 0)
                        r = release_fetch_hashes(k, version, err);
        }
        if (r == 0)
                r = fetch_asset(k, version, program_asset(), 0755, progress, phase, &program, err);
        /* One that was put there is made whole if it is not. */
        if (r == 0 && (with_images || fs_exists(there)))
                r = fetch_asset(k, version, images_asset, 0644, progress, phase, &images, err);
        if (r < 0)
                return r;
        *ret_program = TAKE_PTR(program);
        *ret_images = TAKE_PTR(images);
        return 0;
}
