/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused with a message, or becomes objects that have what apply relies on, and whose place can be
 * told.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/web_service.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct manifest *m) {
        if (!*m->api_version || !*m->kind || !*m->name || strstr(m->api_version, ".."))
                abort();
        static const char *const fields[] = {NULL, ".metadata.name", ".spec.containers[name=\"web\"].image",
                                             ".spec.ports[0].port"};
        for (size_t i = 0; i < ELEMENTSOF(fields); i++) {
                _cleanup_free_ char *where = manifest_where(m, fields[i]);
                if (!str_starts(where, "fuzz.yaml"))
                        abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_manifests_ struct manifests m = {0};
        int r = manifests_add_text(&m, "fuzz.yaml", (const char *)data, size, &err);
        if (r < 0 && !err.message)
                abort();
        if (m.n > 0)
                check(&m.items[m.n / 2]);
        _cleanup_free_ struct node_port *ports = NULL;
        size_t n = web_service_ports(&m, &ports);
        const struct node_port *web = web_service_choose(ports, n, 30080);
        if (web && (web < ports || web >= ports + n || !str_eq(web->service->kind, "Service")))
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
