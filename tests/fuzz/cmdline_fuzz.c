/* SPDX-License-Identifier: MIT */
/*
 * Any /proc/PID/cmdline either is no k3s-vm's or gives a UUID that can be part of a path, or a project, and a
 * name within the arguments.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/ports.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_strv_ struct strv argv = {0};
        for (size_t i = 0; i < size;) {
                size_t n = strnlen((const char *)data + i, size - i);
                strv_push_take(&argv, xstrndup((const char *)data + i, n));
                i += n + 1;
        }
        struct vm_cmdline vm = {0};
        if (!vm_cmdline_parse(&argv, &vm))
                return 0;
        if ((vm.uuid != NULL) == (vm.project != NULL) || (vm.uuid && !state_uuid_valid(vm.uuid)) ||
            (vm.project && vm.project[0] != '/') || !vm.name || strnlen(vm.name, vm.name_len) != vm.name_len)
                abort();
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
