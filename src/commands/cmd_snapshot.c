/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/lifecycle.h>
#include <k3s-vm/snapshot.h>
#include <k3s-vm/ui.h>
#include <k3s-vm/up.h>

static bool is_hidden(const struct snapshot *s) {
        return s->name[0] == '.';
}

static const char *kind_of(const struct snapshot *s) {
        return s->state.kind == SUSPENDED_NOT ? "disk" : "disk and memory";
}

static void print_json_list(const struct snapshots *snapshots) {
        _cleanup_json_ struct json *document = json_new_object();
        struct json *list = json_set_array(document, "snapshots");
        for (size_t i = 0; i < snapshots->n; i++) {
                const struct snapshot *s = &snapshots->items[i];
                if (is_hidden(s))
                        continue;
                struct json *item = json_new_object();
                json_set_string(item, "name", s->name);
                json_set_number(item, "time_ms", (double)s->state.time_ms);
                json_set_bool(item, "memory", s->state.kind != SUSPENDED_NOT);
                json_set_number(item, "memory_bytes", (double)s->state.bytes);
                json_append(list, item);
        }
        ui_print_json(document);
}

static int run_list(struct context *ctx, struct error *err) {
        _cleanup_snapshots_ struct snapshots snapshots = {0};
        int r = context_config(ctx, err);
        if (r == 0)
                r = snapshots_list(ctx->project, &snapshots, err);
        if (r < 0)
                return r;
        if (ctx->json) {
                print_json_list(&snapshots);
                return 0;
        }
        for (size_t i = 0; i < snapshots.n; i++) {
                const struct snapshot *s = &snapshots.items[i];
                if (is_hidden(s))
                        continue;
                _cleanup_free_ char *time = time_rfc3339((time_t)(s->state.time_ms / 1000)),
                                    *size = str_bytes(s->state.bytes);
                bool memory = s->state.kind != SUSPENDED_NOT;
                printf("%-24s %s  %s%s%s\n", s->name, time, kind_of(s), memory ? ", memory " : "", memory ? size : "");
        }
        return 0;
}

static int run_save(struct context *ctx, const struct lifecycle *l, struct state *s, const char *name,
                    struct error *err) {
        struct progress_phase *phase = progress_begin(ctx->progress, "snapshot", "saving the snapshot %s", name);
        int r = lifecycle_snapshot_save(l, s, name, err);
        progress_end(ctx->progress, phase, r == 0, r == 0 ? "the snapshot %s is saved" : NULL, name);
        return r;
}

int restore_snapshot(struct context *ctx, const struct lifecycle *l, struct state *s, const char *name, bool start,
                     struct error *err) {
        bool was_running = false;
        struct progress_phase *phase = progress_begin(ctx->progress, "restore", "restoring the VM");
        int r = lifecycle_snapshot_restore(l, s, name, &was_running, err);
        progress_end(ctx->progress, phase, r == 0, r == 0 ? "the VM is restored" : NULL);
        if (r == 0 && (was_running || start))
                r = lifecycle_start(l, s, &was_running, err);
        return r;
}

static int run_named(struct context *ctx, const char *verb, const char *name, struct error *err) {
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *s = NULL;
        int r = snapshot_check_name(name, err);
        if (r == 0)
                r = lock_made_vm(ctx, "snapshot", &lock, &s, err);
        if (r < 0)
                return r;
        const struct lifecycle l = {.project = ctx->project, .config = ctx->config, .progress = ctx->progress};
        if (str_eq(verb, "save"))
                return run_save(ctx, &l, s, name, err);
        if (str_eq(verb, "restore"))
                return restore_snapshot(ctx, &l, s, name, false, err);
        r = lifecycle_snapshot_delete(&l, s, name, err);
        if (r == 0)
                progress_note(ctx->progress, "the snapshot %s is gone", name);
        return r;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        static const char *const named[] = {"save", "restore", "delete", NULL};
        const char *verb = args->rest.len > 0 ? args->rest.items[0] : "list";
        if (str_eq(verb, "list") && args->rest.len <= 1)
                return run_list(ctx, err);
        if (str_is_one_of(verb, named) && args->rest.len == 2)
                return run_named(ctx, verb, args->rest.items[1], err);
        _cleanup_free_ char *shown = str_printable(verb, strlen(verb));
        int r = str_is_one_of(verb, named) ? err_set(err, ERR_USAGE, EINVAL, "snapshot %s wants one name", verb)
                : str_eq(verb, "list")     ? err_set(err, ERR_USAGE, EINVAL, "snapshot list takes no name")
                                           : err_set(err, ERR_USAGE, EINVAL, "snapshot cannot \"%s\"", shown);
        err_hint(err, "k3s-vm snapshot save NAME\nk3s-vm snapshot restore NAME\nk3s-vm snapshot delete NAME\n"
                      "k3s-vm snapshot list");
        return r;
}

const struct command cmd_snapshot = {
                .name = "snapshot",
                .operands = "[list | save NAME | restore NAME | delete NAME]",
                .summary = "keep the VM as it is now, disk and memory, and go back to that",
                .details = "A VM that runs goes on after save, and after restore from where it was. Of one that is "
                           "stopped\n"
                           "the disk is kept. What happened after the snapshot is lost by restore, and no other "
                           "snapshot is.",
                .run = run,
};
