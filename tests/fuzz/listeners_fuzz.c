/* SPDX-License-Identifier: MIT */
/*
 * Any text is read as /proc/net/tcp and as tcp6 without a byte past its end, and gives only listeners that make sense.
 */
#include <stdint.h>
#include <stdlib.h>

#include <k3s-vm/ports.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ struct listener *listeners = NULL;
        size_t n = 0;
        for (int ipv6 = 0; ipv6 < 2; ipv6++) {
                size_t before = n;
                if (listeners_parse((const char *)data, size, ipv6, &listeners, &n) < 0)
                        abort();
                for (size_t i = before; i < n; i++)
                        if (listeners[i].ipv6 != ipv6 || (listeners[i].wildcard && listeners[i].loopback) ||
                            (listeners[i].wildcard && !listeners[i].claims))
                                abort();
        }
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
