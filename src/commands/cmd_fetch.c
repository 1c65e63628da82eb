/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/ui.h>

/* What of it is in the cache, by its name there. */
static void add(struct strv *names, const struct context *ctx, const char *path) {
        const char *cache = ctx->project->cache_dir;
        if (path && str_starts(path, cache) && fs_exists(path))
                strv_push(names, path + strlen(cache) + 1);
}

/* All that a machine without a network needs of this one's cache. */
static void list_files(const struct context *ctx, const struct state *s, struct strv *names) {
        const char *cache = ctx->project->cache_dir, *version = s->payload_version;
        _cleanup_free_ char *payload = s->payload_path && str_eq(path_base(s->payload_path), "payload.img")
                                                       ? path_parent(s->payload_path)
                                                       : xstrdup(s->payload_path);
        _cleanup_free_ char *folder = payload ? path_parent(payload) : NULL;
        _cleanup_free_ char *note = payload ? xasprintf("%s/.%s.verified", folder, path_base(payload)) : NULL;
        _cleanup_free_ char *release = version ? path_join(cache, "downloads/k3s", version) : NULL;
        _cleanup_free_ char *channels = path_join(cache, "downloads/k3s/channels"),
                            *images = path_join(cache, "downloads/images");
        add(names, ctx, s->guest_dir);
        add(names, ctx, payload);
        add(names, ctx, note);
        add(names, ctx, release);
        add(names, ctx, release ? channels : NULL);
        add(names, ctx, images);
}

static void print_json(const struct context *ctx, const struct state *s, const struct strv *names) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "cache", ctx->project->cache_dir);
        json_set_string(j, "guest", s->guest_dir);
        json_set_string(j, "payload", s->payload_path);
        json_set_string(j, "version", s->payload_version);
        struct json *files = json_set_array(j, "files");
        for (size_t i = 0; i < names->len; i++)
                json_append_string(files, names->items[i]);
        ui_print_json(j);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        bool for_offline = arguments_get(&cmd_fetch, args, "for-offline");
        _cleanup_state_ struct state *s = NULL;
        int r = interrupt_begin(err);
        if (r == 0)
                r = context_config(ctx, err);
        const struct lifecycle l = {.project = ctx->project, .config = ctx->config, .progress = ctx->progress};
        if (r == 0)
                r = lifecycle_fetch(&l, for_offline, &s, err);
        if (r < 0)
                return r;
        _cleanup_strv_ struct strv names = {0};
        list_files(ctx, s, &names);
        if (ctx->json)
                print_json(ctx, s, &names);
        else if (for_offline) {
                _cleanup_free_ char *files = strv_join(&names, " "), *cache = str_shell_quote(ctx->project->cache_dir);
                printf("Copy to the machine without a network: bin/k3s-vm, and what this packs:\n"
                       "  tar -C %s -cf k3s-vm-offline.tar %s\n"
                       "There, with qemu-system-x86_64 and qemu-img installed:\n"
                       "  mkdir -p ~/.cache/k3s-vm && tar -C ~/.cache/k3s-vm -xf k3s-vm-offline.tar\n",
                       cache, files);
                if (names.len > 0 && str_starts(names.items[0], "guests/"))
                        printf("  k3s-vm configure FLAVOR=$HOME/.cache/k3s-vm/%s && k3s-vm\n", names.items[0]);
                else
                        printf("The guest is not in the cache and has to be copied, too%s: %s\n",
                               str_starts(s->guest_dir, "/nix/store/") ? " (nix copy)" : "", s->guest_dir);
        }
        return 0;
}

const struct command cmd_fetch = {
                .name = "fetch",
                .summary = "get into the cache what a VM will need, without making one",
                .details = "Guest and Kubernetes, as the configuration says. With --for-offline K3s's container "
                           "images, "
                           "too, and\nwhat has to be copied to use it on a machine without a network is named.",
                .options = COMMAND_OPTIONS({"for-offline", 0, NULL, "all that a machine without a network needs"}),
                .run = run,
};
