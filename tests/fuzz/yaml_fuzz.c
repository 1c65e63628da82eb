/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused or becomes values that survive being printed and parsed again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/strv.h>
#include <k3s-vm/yaml.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_json_ struct json *documents = NULL;
        if (yaml_parse((const char *)data, size, &documents, &err) < 0) {
                if (!err.message || documents)
                        abort();
                return 0;
        }
        for (const struct json *j = json_first(documents); j; j = json_next(j)) {
                _cleanup_free_ char *yaml = NULL, *before = json_print(j, false), *after = NULL;
                _cleanup_json_ struct json *again = NULL;
                if (yaml_print(j, &yaml, NULL) < 0 || yaml_parse(yaml, strlen(yaml), &again, NULL) < 0 ||
                    json_len(again) != 1)
                        abort();
                after = json_print(json_first(again), false);
                if (!str_eq(before, after))
                        abort();
        }
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
