/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused or is a state whose UUID can be part of a path, and that is the same once it was
 * written and read again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/state.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_state_ struct state *s = NULL, *again = NULL;
        if (state_parse((const char *)data, size, &s, &err) < 0) {
                if (!err.message || s)
                        abort();
                return 0;
        }
        if (!state_uuid_valid(s->uuid) || !s->name || (s->guest_dir && s->guest_dir[0] != '/'))
                abort();
        _cleanup_json_ struct json *j = state_to_json(s);
        _cleanup_free_ char *text = json_print(j, true);
        if (state_parse(text, strlen(text), &again, NULL) < 0)
                abort();
        _cleanup_json_ struct json *k = state_to_json(again);
        _cleanup_free_ char *text_again = json_print(k, true);
        if (!str_eq(text, text_again))
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
