/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/archive_stream.h>
#include <k3s-vm/cloud_image.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest_cloud.h>
#include <k3s-vm/guest_nixos.h>
#include <k3s-vm/host.h>
#include <k3s-vm/http.h>
#include <k3s-vm/image.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/verified.h>

#define DISK "disk.img"
#define TOOL_TIMEOUT_MS 60000U
#define BOOT_CODE_BYTES 440U /* of a master boot record */

struct job {
        const struct project *project;
        const struct cloud_image *image;
        struct progress *progress;
};

static bool is_compressed(const char *path) {
        static const char *const magics[] = {"\x1f\x8b", "\xfd\x37zXZ", "\x28\xb5\x2f\xfd", "BZh"};
        char head[8] = {0};
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, head, sizeof(head) - 1, 0) < 0)
                return false;
        for (size_t i = 0; i < ELEMENTSOF(magics); i++)
                if (str_starts(head, magics[i]))
                        return true;
        return false;
}

/* The file as published, as @disk. */
static int fetch(const struct job *job, const char *disk, struct progress_phase *phase, struct error *err) {
        const struct cloud_image *i = job->image;
        _cleanup_free_ char *path = NULL;
        int r;
        if (i->path)
                return is_compressed(i->path) ? archive_expand(i->path, disk, job->progress, phase, err)
                                              : fs_copy_file(i->path, disk, err);
        _cleanup_http_ struct http *http = NULL;
        r = http_new(NULL, &http, err);
        if (r < 0)
                return r;
        /* Named by its hash: the rest of a download that was cut off fits what came of it. */
        _cleanup_free_ char *name = xasprintf("%.16s-%s", i->hash, path_base(i->url));
        _cleanup_free_ char *folder = path_join(job->project->cache_dir, "downloads", "images");
        path = path_join(folder, name);
        r = fs_mkdir_p(folder, 0755, err);
        const struct http_download download = {
                        .url = i->url,
                        .path = path,
                        .hash = i->hash,
                        .mode = 0644,
                        .progress = job->progress,
                        .phase = phase,
        };
        if (r == 0)
                r = http_download(http, &download, err);
        if (r < 0)
                return r;
        if (is_compressed(path))
                r = archive_expand(path, disk, job->progress, phase, err);
        else if (rename(path, disk) < 0)
                r = err_errno(err, errno, "cannot move %s to %s", path, disk);
        return r < 0 ? r : verified_remove(path, err);
}

/* Whether BIOS firmware finds nothing to run in the disk: no code in its first sector. */
static int needs_uefi(const char *disk, const char *format, const char *work, bool *ret, struct error *err) {
        _cleanup_free_ char *sector = path_join(work, "boot"), *from = xasprintf("if=%s", disk),
                            *to = xasprintf("of=%s", sector);
        const char *const argv[] = {"qemu-img", "dd", "-f", format, "-O", "raw", "bs=512", "count=1", from, to, NULL};
        _cleanup_buf_ struct buf tail = BUF_INIT(0), code = BUF_INIT(0);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        struct proc_result result = {0};
        run.spec.argv = argv;
        run.ret_tail = &tail;
        run.timeout_ms = TOOL_TIMEOUT_MS;
        int r = proc_run(&run, &result, err);
        if (r == 0 && result.exit_status != 0) {
                r = err_set(err, ERR_FAILED, EIO, "qemu-img cannot read the image");
                err_detail(err, buf_str(&tail));
        }
        if (r == 0)
                r = fs_read(sector, 4096, &code, err);
        if (r == 0)
                r = fs_unlink(sector, err);
        if (r < 0)
                return r;
        *ret = true;
        for (size_t i = 0; i < BOOT_CODE_BYTES && i < code.len; i++)
                if (code.data[i])
                        *ret = false;
        return 0;
}

static int make(const char *work, struct progress_phase *phase, void *userdata, struct error *err) {
        const struct job *job = userdata;
        _cleanup_free_ char *disk = path_join(work, DISK), *path = path_join(work, "guest.json");
        struct disk_look look = {0};
        bool uefi = false;
        int r = fetch(job, disk, phase, err);
        if (r == 0 && (r = disk_look(disk, &look, err)) < 0) {
                err_wrap(err, r, "the cloud image %s cannot be used", job->image->text);
                err_hint(err, "k3s-vm configure IMAGE=" CLOUD_IMAGE_DEFAULT);
        }
        if (r == 0)
                r = needs_uefi(disk, look.format, work, &uefi, err);
        if (r == 0 && chmod(disk, 0444) < 0)
                r = err_errno(err, errno, "cannot keep %s", disk);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *j = json_new_object();
        _cleanup_free_ char *version = xasprintf("%s (cloud image %.12s)", job->image->text, job->image->hash);
        json_set_number(j, "schema", 1);
        json_set_string(j, "flavor", "cloud");
        json_set_string(j, "system", "x86_64-linux");
        json_set_string(j, "version", version);
        struct json *boot = json_set_object(j, "boot");
        json_set_string(boot, "disk", DISK);
        json_set_string(boot, "overlay", look.format);
        json_set_bool(boot, "uefi", uefi);
        json_set_string(j, "provision", "nocloud");
        json_set_string(json_set_object(j, "payload"), "attach", "k3s-vm-payload");
        json_set_bool(j, "agent", true);
        _cleanup_free_ char *text = json_print(j, true);
        return fs_write_atomic(path, text, strlen(text), 0644, err);
}

bool guest_is_cloud(const struct config *c) {
        if (!str_eq(c->flavor, "auto"))
                return str_eq(c->flavor, "cloud");
        if (!str_eq(config_source(c, "IMAGE"), "default"))
                return true;
        _cleanup_free_ char *mmdebstrap = fs_find_program("mmdebstrap"), *apt = fs_find_program("apt-get");
        return (!mmdebstrap || !apt) && !guest_nixos_wanted(c);
}

int guest_cloud_ensure(const struct project *p, const struct config *c, struct progress *progress, char **ret_dir,
                       struct error *err) {
        _cleanup_cloud_image_ struct cloud_image image = {0};
        int r = cloud_image_resolve(p, c, progress, &image, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *key = xasprintf("cloud-%.16s", image.hash), *text = xasprintf("guest of %s", image.text);
        const struct image_builder builder = {.name = "guest", .text = text, .complete = "guest.json"};
        struct job job = {.project = p, .image = &image, .progress = progress};
        r = image_ensure_made(p, &builder, key, make, &job, progress, ret_dir, err);
        if (r == 0)
                cloud_image_remember(p, &image);
        return r;
}

int guest_create_disk(const struct guest *g, const char *path, unsigned gib, struct error *err) {
        struct disk_look look = {0};
        if (!g->boot_overlay)
                return qemu_create_disk(path, gib, err);
        int r = disk_look(g->boot_disk, &look, err);
        if (r < 0)
                return r;
        uint64_t least = (look.bytes + (1ULL << 30) - 1) >> 30;
        if (gib < least) {
                r = err_set(err, ERR_USAGE, EINVAL, "VM_DISK is %u GiB and the cloud image has %llu", gib,
                            (unsigned long long)least);
                err_hint(err, "k3s-vm configure VM_DISK=%llu", (unsigned long long)least);
                return r;
        }
        return qemu_create_overlay(path, gib, g->boot_disk, g->boot_overlay, err);
}

int guest_cloud_check(const struct config *c, struct error *err) {
        int64_t size = c->image[0] == '/' ? fs_size(c->image) : 1;
        if (size > 0 && !fs_is_dir(c->image))
                return 0;
        int r = err_set(err, ERR_USAGE, size < 0 ? (int)-size : EINVAL, "IMAGE: cannot use %s: %s", c->image,
                        size < 0 ? strerror((int)-size) : "not a file with something in it");
        err_hint(err, "k3s-vm configure IMAGE=" CLOUD_IMAGE_DEFAULT);
        return r;
}

int guest_check_base(const struct guest *g, const char *data_disk, struct error *err) {
        _cleanup_free_ char *base = NULL;
        int r = disk_base(data_disk, &base, err);
        if (r < 0 || str_eq(base, g->boot_overlay ? g->boot_disk : NULL))
                return r;
        r = err_set(err, ERR_STATE, ESTALE, "the VM's disk belongs to another guest: to %s",
                    base ? base : "one that has its root in a file of its own");
        err_hint(err, "make the VM anew: k3s-vm reset");
        return r;
}

int guest_firmware(const struct guest *g, char **ret, struct error *err) {
        static const char *const paths[] = {
                        "/usr/share/ovmf/OVMF.fd",
                        "/usr/share/OVMF/OVMF.fd",
                        "/usr/share/edk2/x64/OVMF.4m.fd",
                        "/usr/share/edk2-ovmf/x64/OVMF.fd",
                        "/usr/share/qemu/ovmf-x86_64-4m.bin",
                        "/usr/share/edk2/ovmf/OVMF.fd",
        };
        *ret = NULL;
        if (!g->boot_uefi)
                return 0;
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                if (fs_exists(paths[i])) {
                        *ret = xstrdup(paths[i]);
                        return 0;
                }
        _cleanup_host_ struct host *host = NULL;
        int r = err_set(err, ERR_HOST, ENOENT, "the image %s boots by UEFI only, and this machine has no OVMF firmware",
                        g->version);
        _cleanup_free_ char *install = host_detect(&host, NULL) == 0 ? host_install_command(host, "OVMF.fd") : NULL;
        err_hint(err, "%s",
                 install ? install : "an image that boots by BIOS too: k3s-vm configure IMAGE=" CLOUD_IMAGE_DEFAULT);
        return r;
}
