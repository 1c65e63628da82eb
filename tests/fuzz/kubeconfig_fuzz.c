/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused or is a kubeconfig whose adapted form parses again, with the same certificates and
 * key, and holds nothing that kubectl would run.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/kube.h>
#include <k3s-vm/yaml.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_kubeconfig_ struct kubeconfig *k = NULL, *again = NULL;
        if (kubeconfig_parse((const char *)data, size, &k, &err) < 0) {
                if (!err.message || k)
                        abort();
                return 0;
        }
        _cleanup_free_ char *text = NULL;
        if (kubeconfig_adapt(k, 6443, "shop", NULL) < 0 || yaml_print(k->document, &text, NULL) < 0 ||
            kubeconfig_parse(text, strlen(text), &again, NULL) < 0)
                abort();
        const struct json *user = json_get(json_first(json_get(again->document, "users")), "user");
        if (!str_eq(again->ca_pem, k->ca_pem) || !str_eq(again->cert_pem, k->cert_pem) ||
            !str_eq(again->key_pem, k->key_pem) || !str_eq(again->server, "https://127.0.0.1:6443") ||
            json_len(user) != 2)
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
