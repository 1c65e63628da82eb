/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/container_image.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/ui.h>

/* The names under which containerd keeps an image for itself. */
static bool is_for_people(const struct guest_image *image) {
        return !str_starts(image->name, "sha256:") && !strchr(image->name, '@');
}

static int list(struct context *ctx, struct remote *remote, struct error *err) {
        _cleanup_guest_images_ struct guest_images images = {0};
        int r = guest_images_list(remote, &images, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *document = ctx->json ? json_new_object() : NULL;
        struct json *array = json_set_array(document, "images");
        for (size_t i = 0; i < images.n; i++) {
                const struct guest_image *image = &images.items[i];
                if (!is_for_people(image))
                        continue;
                struct json *item = document ? json_new_object() : NULL;
                json_set_string(item, "name", image->name);
                json_set_string(item, "digest", image->digest);
                json_set_string(item, "size", image->size);
                json_append(array, item);
                if (!document)
                        printf("%-56s %.19s  %s\n", image->name, image->digest, image->size);
        }
        if (document)
                ui_print_json(document);
        return 0;
}

static char *names_of(const struct image_archive *a) {
        _cleanup_strv_ struct strv names = {0};
        for (size_t i = 0; i < a->n; i++)
                strv_push(&names, a->names[i].name);
        return strv_join(&names, ", ");
}

static int load(struct context *ctx, struct remote *remote, struct image_archive *const *archives, size_t n,
                struct error *err) {
        for (size_t i = 0; i < n; i++) {
                const struct image_archive *a = archives[i];
                _cleanup_free_ char *names = names_of(a);
                /* Asked each time: an earlier file may have brought it. */
                _cleanup_guest_images_ struct guest_images there = {0};
                int r = guest_images_list(remote, &there, err);
                if (r < 0)
                        return r;
                if (image_archive_is_there(a, &there)) {
                        progress_note(ctx->progress, "%s: the VM has it already", names);
                        continue;
                }
                struct progress_phase *phase = progress_begin(ctx->progress, "load", "%s", names);
                r = image_archive_send(a, remote, ctx->progress, phase, err);
                progress_end(ctx->progress, phase, r == 0, r == 0 ? "loaded %s" : NULL, names);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        bool wants_list = arguments_get(&cmd_load, args, "list");
        if (wants_list ? args->rest.len > 0 : args->rest.len == 0) {
                int r = err_set(err, ERR_USAGE, EINVAL,
                                wants_list ? "load --list takes no file" : "load wants files with container images");
                err_hint(err, "docker save shop:1 -o shop.tar && k3s-vm load shop.tar");
                return r;
        }
        int r = interrupt_begin(err);
        _cleanup_state_ struct state *s = NULL;
        if (r == 0)
                r = context_running(ctx, &s, err);
        /* All of them are read before the first is sent. */
        size_t n = args->rest.len;
        struct image_archive **archives = xcalloc(n + 1, sizeof(struct image_archive *));
        for (size_t i = 0; i < n && r == 0; i++)
                r = image_archive_open(args->rest.items[i], &archives[i], err);
        _cleanup_remote_ struct remote *remote = NULL;
        if (r == 0)
                r = context_connect(ctx, s, &remote, err);
        if (r == 0)
                r = wants_list ? list(ctx, remote, err) : load(ctx, remote, archives, n, err);
        for (size_t i = 0; i < n; i++)
                image_archive_free(archives[i]);
        free(archives);
        return r;
}

const struct command cmd_load = {
                .name = "load",
                .operands = "IMAGE…",
                .summary = "load container images from files into the cluster, with no registry",
                .details = "An IMAGE is what `docker save` or `podman save` wrote, or an OCI image layout: a tar "
                           "(also\n"
                           "with gzip or zstd) or a folder. It is streamed into the VM's containerd; what is there\n"
                           "already is left out. Pods use it with imagePullPolicy: IfNotPresent or Never.",
                .options = COMMAND_OPTIONS({"list", 'l', NULL, "show the images that the VM has"}),
                .run = run,
};
