/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>

#include <k3s-vm/library.h>

/* The guest and the payload are made on two threads, which may want the same library first. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void unlock(pthread_mutex_t **mutex) {
        pthread_mutex_unlock(*mutex);
}

int library_load(void **handle, const char *soname, const struct library_symbol *symbols, size_t n, struct error *err) {
        pthread_mutex_lock(&lock);
        _cleanup_(unlock) pthread_mutex_t *locked _unused_ = &lock;
        if (*handle)
                return 0;
        void *opened = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
        if (!opened) {
                int r = err_set(err, ERR_HOST, ENOENT, "cannot load %s: %s", soname, dlerror());
                err_hint(err, "install the library, for example with: scripts/up");
                return r;
        }
        for (size_t i = 0; i < n; i++) {
                *symbols[i].address = dlsym(opened, symbols[i].name);
                if (!*symbols[i].address) {
                        dlclose(opened);
                        return err_set(err, ERR_HOST, ENOSYS, "%s is too old: it lacks %s", soname, symbols[i].name);
                }
        }
        *handle = opened;
        return 0;
}
