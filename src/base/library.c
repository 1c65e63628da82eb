/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <errno.h>

#include <k3s-vm/library.h>

int library_load(void **handle, const char *soname, const struct library_symbol *symbols, size_t n, struct error *err) {
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
