/* SPDX-License-Identifier: MIT */
/*
 * Any guest.json either is refused or names files below its own folder only, and texts that are safe as arguments of
 * QEMU and on a kernel's command line.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/guest.h>
#include <k3s-vm/strv.h>

#define FOLDER "/guests/tiny"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_file(const char *path) {
        if (path && (!str_starts(path, FOLDER "/") || strstr(path, "/../") || strstr(path, "/./") ||
                     str_ends(path, "/..") || str_ends(path, "/.")))
                abort();
}

static void check_text(const char *text) {
        for (const char *p = text; p && *p; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                        abort();
        if (text && !*text)
                abort();
}

static void check_serial(const char *serial) {
        if (serial && (!*serial || strlen(serial) > 20 || strpbrk(serial, ",=/ ")))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *j = NULL;
        _cleanup_guest_ struct guest *g = NULL;
        if (json_parse((const char *)data, size, &j, NULL) < 0)
                return 0;
        if (guest_parse(FOLDER, j, &g, &err) < 0) {
                if (!err.message || g)
                        abort();
                return 0;
        }
        const char *const files[] = {g->kernel, g->initrd, g->boot_disk, g->root_image};
        for (size_t i = 0; i < ELEMENTSOF(files); i++)
                check_file(files[i]);
        const char *const texts[] = {g->flavor,     g->version,   g->cmdline,      g->kernel,         g->initrd,
                                     g->root_image, g->boot_disk, g->payload_name, g->payload_version};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                check_text(texts[i]);
        const char *const serials[] = {g->root_serial, g->data_serial, g->payload_serial};
        for (size_t i = 0; i < ELEMENTSOF(serials); i++)
                check_serial(serials[i]);
        if ((g->kernel != NULL) == (g->boot_disk != NULL) || (g->kernel != NULL) != (g->cmdline != NULL) ||
            (g->root_image != NULL) != (g->root_serial != NULL) ||
            (g->data_mount != NULL) != (g->data_serial != NULL) || (g->data_mount && g->data_mount[0] != '/') ||
            (g->payload_serial && g->payload_name))
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
