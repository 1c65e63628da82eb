/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <k3s-vm/archive.h>
#include <k3s-vm/cache.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/embedded.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/image.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/proc.h>

#define INPUTS_MAX_BYTES (1U << 20)
#define SCRIPT_MAX_BYTES (16U << 20)
#define INPUTS_TIMEOUT_MS 30000
#define BUILD_LOCK_TIMEOUT_MS (30U * 60 * 1000)
#define KEY_LENGTH 16 /* hexadecimal digits of the hash that name a result */

struct build {
        const struct image_builder *builder;
        struct progress *progress;
        struct progress_phase *phase;
        char *doing;
        const char *scripts; /* the builder's files */
        image_make_fn *make; /* or what is done in their place */
        void *userdata;
};

/* The script's own words: "phase TEXT" and "progress DONE TOTAL". */
static void on_progress(const char *line, void *userdata) {
        struct build *b = userdata;
        uint64_t done = 0, total = 0;
        if (str_starts(line, "phase ")) {
                free(b->doing);
                b->doing = xstrdup(line + strlen("phase "));
        } else if (sscanf(line, "progress %" SCNu64 " %" SCNu64, &done, &total) != 2)
                return;
        progress_update(b->progress, b->phase, b->doing, done, total, "");
}

static void on_line(const char *line, void *userdata) {
        const struct build *b = userdata;
        progress_update(b->progress, b->phase, b->doing, 0, 0, "");
        progress_debug(b->progress, "%s: %s", b->builder->name, line);
}

static int visible(const struct dirent *entry) {
        return !str_eq(entry->d_name, ".") && !str_eq(entry->d_name, "..");
}

/* Names, modes and contents of everything below @folder, in an order that does not depend on the machine. */
static int digest_tree(struct digest *digest, const char *folder, struct error *err);

int image_digest(struct digest *digest, const char *path, struct error *err) {
        struct stat st;
        if (stat(path, &st) < 0)
                return err_errno(err, errno, "cannot read %s", path);
        _cleanup_free_ char *head = xasprintf("%s %o %lld\n", path_base(path), st.st_mode & 0170111,
                                              S_ISREG(st.st_mode) ? (long long)st.st_size : 0);
        digest_update(digest, head, strlen(head));
        if (S_ISDIR(st.st_mode))
                return digest_tree(digest, path, err);
        _cleanup_buf_ struct buf contents = BUF_INIT(0);
        int r = fs_read(path, SCRIPT_MAX_BYTES, &contents, err);
        if (r == 0)
                digest_update(digest, contents.data, contents.len);
        return r;
}

static int digest_tree(struct digest *digest, const char *folder, struct error *err) {
        struct dirent **entries = NULL;
        int n = scandir(folder, &entries, visible, alphasort);
        if (n < 0)
                return err_errno(err, errno, "cannot read the folder %s", folder);
        int r = 0;
        for (int i = 0; i < n; i++) {
                _cleanup_free_ char *path = path_join(folder, entries[i]->d_name);
                if (r == 0)
                        r = image_digest(digest, path, err);
                free(entries[i]);
        }
        free(entries);
        /* So that a file behind a folder differs from one in it; no name has a slash. */
        digest_update(digest, "/\n", 2);
        return r;
}

/* The name of a result: a hash over the builder's own files and over what `build --inputs` says. */
static int image_key(const struct image_builder *builder, const char *scripts, char **ret, struct error *err) {
        _cleanup_free_ char *script = path_join(scripts, "build");
        _cleanup_buf_ struct buf inputs = BUF_INIT(INPUTS_MAX_BYTES), tail = BUF_INIT(0);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = (const char *const[]){script, "--inputs", NULL};
        run.ret_stdout = &inputs;
        run.ret_tail = &tail;
        run.timeout_ms = INPUTS_TIMEOUT_MS;
        int cancel_fd = interrupt_fd();
        run.cancel_fd = cancel_fd >= 0 ? &cancel_fd : NULL;
        struct proc_result result;
        int r = proc_run(&run, &result, err);
        if (r < 0)
                return r;
        if (result.exit_status != 0) {
                r = err_set(err, result.exit_status == ERR_HOST ? ERR_HOST : ERR_FAILED, EIO,
                            "the %s cannot be built on this machine", builder->text);
                err_detail(err, buf_str(&tail));
                return r;
        }
        _cleanup_digest_ struct digest *digest = NULL;
        r = digest_new(&digest, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *head = xasprintf("%zu\n", inputs.len);
        digest_update(digest, head, strlen(head));
        digest_update(digest, inputs.data, inputs.len);
        r = digest_tree(digest, scripts, err);
        if (r < 0)
                return r;
        char hex[SHA256_HEX_LEN + 1];
        digest_final(digest, hex);
        *ret = xstrndup(hex, KEY_LENGTH);
        return 0;
}

static int check_room(const struct image_builder *builder, const char *folder, struct error *err) {
        uint64_t available = 0;
        int r = fs_free_bytes(folder, &available, err);
        if (r < 0 || available >= builder->room_bytes)
                return r;
        _cleanup_free_ char *need = str_bytes(builder->room_bytes), *have = str_bytes(available);
        r = err_set(err, ERR_HOST, ENOSPC, "building the %s needs %s of disk space in %s and there are %s",
                    builder->text, need, folder, have);
        err_hint(err, "free some space, or set XDG_CACHE_HOME to a folder on a larger disk");
        return r;
}

static int run_builder(struct build *b, const char *const *argv, const char *scripts, const char *log_path,
                       struct error *err) {
        _cleanup_close_ int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (log < 0)
                return err_errno(err, errno, "cannot write %s", log_path);
        _cleanup_buf_ struct buf tail = BUF_INIT(0);
        int cancel_fd = interrupt_fd();
        _cleanup_free_ char *tmpdir = xasprintf("TMPDIR=%s", scripts);
        struct proc_run_spec run = PROC_RUN_SPEC_INIT;
        run.spec.argv = argv;
        run.spec.set_env = (const char *const[]){tmpdir, NULL};
        run.on_progress = on_progress;
        run.on_line = on_line;
        run.userdata = b;
        run.ret_tail = &tail;
        run.log_fd = log;
        run.cancel_fd = cancel_fd >= 0 ? &cancel_fd : NULL;
        struct proc_result result;
        int r = proc_run(&run, &result, err);
        if (r < 0)
                return r;
        if (result.exit_status == 0)
                return 0;
        _cleanup_free_ char *how = proc_result_string(&result);
        r = err_set(err, result.exit_status == ERR_HOST ? ERR_HOST : ERR_FAILED, EIO,
                    "the %s could not be built: its builder %s", b->builder->text, how);
        err_detail(err, buf_str(&tail));
        err_hint(err, "read the whole log: less %s", log_path);
        return r;
}

static void begin(struct build *b) {
        b->phase = progress_begin(b->progress, b->builder->name, "building the %s", b->builder->text);
}

static void end(struct build *b, int r) {
        progress_end(b->progress, b->phase, r == 0, r == 0 ? "built the %s" : "the %s was not built", b->builder->text);
        free(b->doing);
}

int image_run(const struct image_builder *builder, const char *const *argv, const char *scripts, const char *log_path,
              struct progress *progress, struct error *err) {
        struct build b = {.builder = builder, .progress = progress};
        begin(&b);
        int r = run_builder(&b, argv, scripts, log_path, err);
        end(&b, r);
        return r;
}

/* Builds into a temporary folder beside @final and renames it into place. */
static int build_into(struct build *b, const char *folder, const char *final, struct error *err) {
        int r = check_room(b->builder, folder, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *work = NULL;
        r = fs_mkdtemp(folder, ".building", &work, err);
        if (r < 0)
                return r;
        _cleanup_close_ int hold _unused_ = fs_hold_path(work);
        _cleanup_free_ char *log_path = xasprintf("%s.log", final);
        if (b->make)
                r = b->make(work, b->phase, b->userdata, err);
        else {
                _cleanup_free_ char *script = path_join(b->scripts, "build");
                r = run_builder(b, (const char *const[]){script, work, NULL}, b->scripts, log_path, err);
        }
        _cleanup_free_ char *complete = path_join(work, b->builder->complete);
        if (r == 0 && !fs_exists(complete))
                r = err_set(err, ERR_FAILED, EIO, "the %s's builder left no %s", b->builder->text,
                            b->builder->complete);
        if (r == 0)
                r = cache_note_folder(work, err);
        if (r == 0) {
                chmod(work, 0755);
                fs_remove_tree(final, NULL); /* a folder without its last file: an older, broken result */
                if (rename(work, final) < 0)
                        r = err_errno(err, errno, "cannot keep the %s in %s", b->builder->text, final);
        }
        if (r < 0)
                fs_remove_tree(work, NULL);
        return r;
}

static int ensure_locked(struct build *b, const char *key, const char *folder, char **ret_dir, bool *ret_built,
                         struct error *err) {
        int r = 0;
        _cleanup_free_ char *final = path_join(folder, key);
        _cleanup_free_ char *complete = path_join(final, b->builder->complete);
        bool built = false;
        if (!fs_exists(complete)) {
                _cleanup_free_ char *lock_path = xasprintf("%s.lock", final);
                _cleanup_close_ int lock = -1;
                r = fs_lock(lock_path, 0, &lock, err);
                if (r == -EWOULDBLOCK) {
                        error_clear(err);
                        progress_note(b->progress, "another k3s-vm is building the %s; waiting for it",
                                      b->builder->text);
                        r = fs_lock(lock_path, BUILD_LOCK_TIMEOUT_MS, &lock, err);
                }
                if (r < 0)
                        return r;
                if (!fs_exists(complete)) {
                        fs_sweep_path(folder, ".building.", "");
                        begin(b);
                        r = build_into(b, folder, final, err);
                        end(b, r);
                        built = r == 0;
                }
        }
        if (r < 0)
                return r;
        utimensat(AT_FDCWD, final, NULL, 0); /* used now: see cache.h */
        *ret_dir = TAKE_PTR(final);
        if (ret_built)
                *ret_built = built;
        return 0;
}

int image_ensure_from(const char *scripts, const char *folder, const struct image_builder *builder,
                      struct progress *progress, char **ret_dir, bool *ret_built, struct error *err) {
        struct build b = {.builder = builder, .progress = progress, .scripts = scripts};
        _cleanup_free_ char *key = NULL;
        int r = image_key(builder, scripts, &key, err);
        if (r == 0)
                r = ensure_locked(&b, key, folder, ret_dir, ret_built, err);
        return r;
}

int image_ensure_made(const struct project *p, const struct image_builder *builder, const char *key,
                      image_make_fn *make, void *userdata, struct progress *progress, char **ret_dir,
                      struct error *err) {
        struct build b = {.builder = builder, .progress = progress, .make = make, .userdata = userdata};
        _cleanup_free_ char *name = xasprintf("%ss", builder->name), *folder = path_join(p->cache_dir, name);
        int r = fs_mkdir_p(folder, 0755, err);
        return r < 0 ? r : ensure_locked(&b, key, folder, ret_dir, NULL, err);
}

int image_ensure(const struct project *p, const struct image_builder *builder, struct progress *progress,
                 char **ret_dir, bool *ret_built, struct error *err) {
        _cleanup_free_ char *name = xasprintf("%ss", builder->name);
        _cleanup_free_ char *folder = path_join(p->cache_dir, name);
        int r = fs_mkdir_p(folder, 0755, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *scripts = NULL;
        fs_sweep_path(folder, ".scripts.", "");
        r = fs_mkdtemp(folder, ".scripts", &scripts, err);
        if (r < 0)
                return r;
        _cleanup_close_ int hold _unused_ = fs_hold_path(scripts);
        r = archive_unpack(k3s_vm_embedded_start, (size_t)(k3s_vm_embedded_end - k3s_vm_embedded_start),
                           builder->prefix, scripts, err);
        if (r == 0)
                r = image_ensure_from(scripts, folder, builder, progress, ret_dir, ret_built, err);
        fs_remove_tree(scripts, NULL);
        return r;
}
