/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/cache.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/state.h>
#include <k3s-vm/verified.h>

/* One kind of result: a folder with a file that says it is whole, or a file of its own. */
struct kind {
        const char *name;
        const char *folder; /* in the cache */
        enum { KIND_FOLDER, KIND_FILE } type;
        const char *complete;        /* in the folder; NULL: it need not be whole */
        const char *prefix, *suffix; /* of its name */
        bool by_hand;                /* only goes when the user says so */
        bool noted;                  /* it has a note (verified.h), or is a part of a download */
};
static const struct kind kinds[] = {
                {"guest", "guests", KIND_FOLDER, "guest.json", "", "", false, false},
                {"payload", "payloads", KIND_FOLDER, "payload.json", "", "", false, false},
                {"payload", "payloads", KIND_FILE, NULL, "", ".iso", false, false},
                {"release", "downloads/k3s", KIND_FOLDER, NULL, "v", "", true, false},
                {"image", "downloads/images", KIND_FILE, NULL, "", "", true, true},
};

void cache_entries_clear(struct cache_entries *e) {
        for (size_t i = 0; i < e->n; i++)
                free(e->items[i].path);
        free(e->items);
        *e = (struct cache_entries){0};
}

static int newest_first(const void *a, const void *b) {
        const struct cache_entry *x = a, *y = b;
        return x->used < y->used ? 1 : x->used > y->used ? -1 : strcmp(x->path, y->path);
}

static bool is_result(const struct kind *kind, const char *path, const char *name, time_t *ret_used) {
        if (name[0] == '.' || !str_starts(name, kind->prefix) || !str_ends(name, kind->suffix))
                return false;
        struct stat st;
        if (lstat(path, &st) < 0 || !(kind->type == KIND_FOLDER ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode)))
                return false;
        *ret_used = st.st_mtime;
        if (kind->noted)
                return str_ends(name, ".part") || verified_is_noted(path);
        if (!kind->complete)
                return true;
        _cleanup_free_ char *complete = path_join(path, kind->complete);
        return fs_exists(complete);
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
                if (s->payload_version)
                        strv_push_take(ret, path_join(p->cache_dir, "downloads/k3s", s->payload_version));
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

static void list_results(const struct kind *kind, const char *folder, const struct strv *used,
                         struct cache_entries *ret) {
        _cleanup_closedir_ DIR *dir = opendir(folder);
        size_t first = ret->n;
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
                _cleanup_free_ char *path = path_join(folder, entry->d_name);
                time_t time = 0;
                if (!is_result(kind, path, entry->d_name, &time))
                        continue;
                ret->items = xreallocarray(ret->items, ret->n + 1, sizeof(*ret->items));
                bool in_use = is_used(used, path);
                ret->items[ret->n++] = (struct cache_entry){
                                .path = TAKE_PTR(path), .kind = kind->name, .used = time, .in_use = in_use};
        }
        if (ret->n - first > 1)
                qsort(ret->items + first, ret->n - first, sizeof(*ret->items), newest_first);
}

/* Whether a download into the folder, or to the file, is under way. */
static bool is_arriving(const char *path) {
        _cleanup_close_ int lock = -1;
        if (str_ends(path, ".part"))
                return fs_lock(path, 0, &lock, NULL) < 0;
        _cleanup_closedir_ DIR *dir = opendir(path);
        bool arriving = false;
        for (struct dirent *entry; dir && !arriving && (entry = readdir(dir));) {
                _cleanup_free_ char *file = path_join(path, entry->d_name);
                arriving = str_ends(file, ".part") && is_arriving(file);
        }
        return arriving;
}

int cache_remove(const struct cache_entry *e, struct error *err) {
        _cleanup_free_ char *lock_path = xasprintf("%s.lock", e->path), *log_path = xasprintf("%s.log", e->path),
                            *from_path = xasprintf("%s.from", e->path);
        _cleanup_close_ int lock = -1;
        int r = fs_exists(lock_path) ? fs_lock(lock_path, 0, &lock, err) : 0;
        if (r == 0 && is_arriving(e->path))
                r = err_set(err, ERR_STATE, EWOULDBLOCK, "%s is being downloaded", e->path);
        if (r == 0)
                r = fs_is_dir(e->path) ? fs_remove_tree(e->path, err) : verified_remove(e->path, err);
        if (r < 0)
                return r;
        fs_unlink(log_path, NULL);
        if (str_ends(e->path, ".part"))
                fs_unlink(from_path, NULL);
        return 0;
}

void cache_prune(const struct project *p, struct progress *progress) {
        _cleanup_strv_ struct strv used = {0};
        if (!list_used(p, &used))
                return;
        time_t old = (time_t)(wall_ms() / 1000) - CACHE_KEEP_S;
        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                _cleanup_free_ char *folder = path_join(p->cache_dir, kinds[k].folder);
                _cleanup_cache_entries_ struct cache_entries results = {0};
                size_t unused = 0;
                if (!kinds[k].by_hand)
                        list_results(&kinds[k], folder, &used, &results);
                for (size_t i = 0; i < results.n; i++) {
                        const struct cache_entry *e = &results.items[i];
                        if (!e->in_use && ++unused > CACHE_KEEP && e->used < old && cache_remove(e, NULL) == 0)
                                progress_debug(progress, "removed %s from the cache: no VM uses it", e->path);
                }
        }
}

/* Calls @fn for each file of the entry but notes; stops at a negative result. */
typedef int file_fn(const char *path, void *userdata, struct error *err);
static int each_file(const char *path, file_fn *fn, void *userdata, struct error *err) {
        struct stat st;
        if (lstat(path, &st) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        if (!S_ISDIR(st.st_mode))
                return S_ISREG(st.st_mode) ? fn(path, userdata, err) : 0;
        _cleanup_closedir_ DIR *dir = opendir(path);
        if (!dir)
                return err_errno(err, errno, "cannot read the folder %s", path);
        int r = interrupt_check(err);
        for (struct dirent *entry; r == 0 && (entry = readdir(dir));) {
                _cleanup_free_ char *file = path_join(path, entry->d_name);
                if (entry->d_name[0] != '.')
                        r = each_file(file, fn, userdata, err);
        }
        return r;
}

static int add_bytes(const char *path, void *userdata, _unused_ struct error *err) {
        uint64_t *bytes = userdata;
        int64_t size = fs_allocated(path);
        *bytes += size > 0 ? (uint64_t)size : 0;
        return 0;
}

int cache_list(const struct project *p, struct cache_entries *ret, struct error *err) {
        _cleanup_strv_ struct strv used = {0};
        if (!list_used(p, &used)) {
                int r = err_set(err, ERR_FAILED, EUCLEAN, "a VM cannot tell what of the cache it is made of");
                err_hint(err,
                         "k3s-vm list shows the VMs; the command \"k3s-vm status\" in its project says what is wrong");
                return r;
        }
        _cleanup_cache_entries_ struct cache_entries all = {0};
        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                _cleanup_free_ char *folder = path_join(p->cache_dir, kinds[k].folder);
                list_results(&kinds[k], folder, &used, &all);
        }
        for (size_t i = 0; i < all.n; i++) {
                int r = each_file(all.items[i].path, add_bytes, &all.items[i].bytes, err);
                if (r < 0)
                        return r;
        }
        *ret = all;
        all = (struct cache_entries){0};
        return 0;
}

/* Verifying. */

struct verify {
        cache_verify_fn *fn;
        void *userdata;
};

static int verify_file(const char *path, void *userdata, _unused_ struct error *err) {
        const struct verify *v = userdata;
        v->fn(path, verified_check_noted(path, true, NULL), v->userdata);
        return 0;
}

int cache_verify(const struct cache_entry *e, cache_verify_fn *fn, void *userdata, struct error *err) {
        struct verify v = {fn, userdata};
        return each_file(e->path, verify_file, &v, err);
}

static int check_file(const char *path, void *userdata, struct error *err) {
        const char *whole = userdata;
        int r = verified_check_noted(path, false, err);
        if (r == 0) {
                r = err_set(err, ERR_FAILED, EBADMSG, "%s is damaged: it is not what it was when it was made", path);
                err_hint(err, "remove it, and it is made anew: rm -r %s; then k3s-vm", whole);
        }
        return r > 0 || r == -ENODATA ? 0 : r;
}

int cache_check_used(const struct project *p, const char *guest_dir, const char *payload_path, struct error *err) {
        const char *const paths[] = {guest_dir, payload_path};
        int r = 0;
        for (size_t i = 0; r == 0 && i < ELEMENTSOF(paths); i++)
                /* What the user keeps elsewhere is the user's to change. */
                if (paths[i] && str_starts(paths[i], p->cache_dir) && fs_exists(paths[i]))
                        r = each_file(paths[i], check_file, (void *)(uintptr_t)paths[i], err);
        return r;
}

static int note_file(const char *path, _unused_ void *userdata, struct error *err) {
        return verified_note_file(path, err);
}

int cache_note_folder(const char *folder, struct error *err) {
        return each_file(folder, note_file, NULL, err);
}
