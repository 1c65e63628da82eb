/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/snapshot.h>

#include "suspend_internal.h"

#define NAME_MAX_LEN 60U
#define NAME_START "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

void snapshots_clear(struct snapshots *s) {
        for (size_t i = 0; i < s->n; i++) {
                free(s->items[i].name);
                suspended_clear(&s->items[i].state);
        }
        free(s->items);
        *s = (struct snapshots){0};
}

int snapshot_check_name(const char *name, struct error *err) {
        size_t len = strlen(name);
        if (len > 0 && len <= NAME_MAX_LEN && strchr(NAME_START, name[0]) &&
            name[strspn(name, NAME_START "._-")] == '\0')
                return 0;
        _cleanup_free_ char *shown = str_printable(name, strnlen(name, 100));
        int r = err_set(err, ERR_USAGE, EINVAL, "a snapshot cannot be called \"%s\"", shown);
        err_hint(err, "letters, digits, and . _ - behind the first; %u at most: k3s-vm snapshot save before-upgrade",
                 NAME_MAX_LEN);
        return r;
}

char *snapshot_folder(const struct project *p, const char *name) {
        return path_join(p->vm_dir, "snapshots", name);
}

int snapshot_load(const struct project *p, const char *name, struct suspended *ret, struct error *err) {
        _cleanup_free_ char *folder = snapshot_folder(p, name);
        int r = suspend_read_record(folder, ret, NULL);
        if (r == 0 && !str_starts(ret->tag, SNAPSHOT_TAG)) {
                suspended_clear(ret);
                r = -EUCLEAN;
        }
        if (r == -ENOENT) {
                r = err_set(err, ERR_STATE, ENOENT, "there is no snapshot \"%s\"", name);
                err_hint(err, "k3s-vm snapshot list");
        } else if (r < 0) {
                r = err_set(err, ERR_FAILED, EUCLEAN, "the snapshot \"%s\" is damaged", name);
                err_hint(err, "remove it: k3s-vm snapshot delete %s", name);
        }
        return r;
}

static int compare_times(const void *a, const void *b) {
        const struct snapshot *x = a, *y = b;
        return x->state.time_ms < y->state.time_ms ? -1 : x->state.time_ms > y->state.time_ms;
}

int snapshots_list(const struct project *p, struct snapshots *ret, struct error *err) {
        _cleanup_free_ char *path = path_join(p->vm_dir, "snapshots");
        _cleanup_snapshots_ struct snapshots s = {0};
        _cleanup_closedir_ DIR *dir = opendir(path);
        if (!dir && errno != ENOENT)
                return err_errno(err, errno, "cannot read %s", path);
        for (const struct dirent *entry; dir && (entry = readdir(dir));) {
                struct suspended state = {0};
                if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..") ||
                    snapshot_load(p, entry->d_name, &state, NULL) < 0)
                        continue;
                s.items = xreallocarray(s.items, s.n + 1, sizeof(*s.items));
                s.items[s.n++] = (struct snapshot){.name = xstrdup(entry->d_name), .state = state};
        }
        if (s.n > 1)
                qsort(s.items, s.n, sizeof(*s.items), compare_times);
        *ret = s;
        s = (struct snapshots){0};
        return 0;
}
