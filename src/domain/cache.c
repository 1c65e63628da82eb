/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/state.h>

/* One kind of result: a folder with a file that says it is whole, or a file of its own. */
struct kind {
        const char *folder;   /* in the cache */
        const char *complete; /* NULL: a file */
        const char *suffix;   /* of its name */
};
static const struct kind kinds[] = {
                {"guests", "guest.json", ""},
                {"payloads", "payload.json", ""},
                {"payloads", NULL, ".iso"},
};

struct result {
        char *path;
        time_t used;
};

static void results_clear(struct result *results, size_t n) {
        for (size_t i = 0; i < n; i++)
                free(results[i].path);
        free(results);
}

static int newest_first(const void *a, const void *b) {
        const struct result *x = a, *y = b;
        return x->used < y->used ? 1 : x->used > y->used ? -1 : strcmp(x->path, y->path);
}

static bool is_result(const struct kind *kind, const char *path, const char *name, time_t *ret_used) {
        if (name[0] == '.' || !str_ends(name, kind->suffix))
                return false;
        struct stat st;
        if (lstat(path, &st) < 0 || !(kind->complete ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode)))
                return false;
        *ret_used = st.st_mtime;
        if (!kind->complete)
                return true;
        _cleanup_free_ char *complete = path_join(path, kind->complete);
        return fs_exists(complete);
}

static void list_results(const struct kind *kind, const char *folder, struct result **ret, size_t *ret_n) {
        _cleanup_closedir_ DIR *dir = opendir(folder);
        struct result *results = NULL;
        size_t n = 0;
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
                _cleanup_free_ char *path = path_join(folder, entry->d_name);
                time_t used = 0;
                if (!is_result(kind, path, entry->d_name, &used))
                        continue;
                results = xreallocarray(results, n + 1, sizeof(*results));
                results[n++] = (struct result){.path = TAKE_PTR(path), .used = used};
        }
        if (n > 1)
                qsort(results, n, sizeof(*results), newest_first);
        *ret = results;
        *ret_n = n;
}

/* What the registered VMs are made of. False when that cannot be told of one of them: then nothing may go. */
static bool list_used(const struct project *p, struct strv *ret) {
        _cleanup_registry_ struct registry registry = {0};
        if (registry_load(p, &registry, NULL) < 0)
                return false;
        for (size_t i = 0; i < registry.n; i++) {
                _cleanup_free_ char *state_path = path_join(registry.entries[i].project, ".k3s-vm/vm/state.json");
                const struct project other = {.root = registry.entries[i].project, .state_path = state_path};
                _cleanup_state_ struct state *s = NULL;
                if (state_load(&other, &s, NULL) < 0)
                        return false;
                if (s->guest_dir)
                        strv_push(ret, s->guest_dir);
                if (s->payload_path)
                        strv_push(ret, s->payload_path);
        }
        return true;
}

/* Whether a VM uses @path or a file in it. */
static bool is_used(const struct strv *used, const char *path) {
        size_t n = strlen(path);
        for (size_t i = 0; i < used->len; i++)
                if (strncmp(used->items[i], path, n) == 0 && (used->items[i][n] == '/' || used->items[i][n] == '\0'))
                        return true;
        return false;
}

/* Under the lock that a build of the same has. */
static void remove_result(const char *path, struct progress *progress) {
        _cleanup_free_ char *lock_path = xasprintf("%s.lock", path), *log_path = xasprintf("%s.log", path);
        _cleanup_close_ int lock = -1;
        if (fs_exists(lock_path) && fs_lock(lock_path, 0, &lock, NULL) < 0)
                return;
        if (fs_remove_tree(path, NULL) < 0)
                return;
        fs_unlink(log_path, NULL);
        progress_debug(progress, "removed %s from the cache: no VM uses it", path);
}

void cache_prune(const struct project *p, struct progress *progress) {
        _cleanup_strv_ struct strv used = {0};
        if (!list_used(p, &used))
                return;
        time_t old = (time_t)(wall_ms() / 1000) - CACHE_KEEP_S;
        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                _cleanup_free_ char *folder = path_join(p->cache_dir, kinds[k].folder);
                struct result *results = NULL;
                size_t n = 0, unused = 0;
                list_results(&kinds[k], folder, &results, &n);
                for (size_t i = 0; i < n; i++)
                        if (!is_used(&used, results[i].path) && ++unused > CACHE_KEEP && results[i].used < old)
                                remove_result(results[i].path, progress);
                results_clear(results, n);
        }
}
