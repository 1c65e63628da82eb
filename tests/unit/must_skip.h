/* SPDX-License-Identifier: MIT */
/* For tests that need what is not there. Behind cmocka.h. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

/* Says why; counts as failed where everything must be there (K3S_VM_TEST_STRICT=1). */
static inline void must_skip(const char *why) {
        fprintf(stderr, "skipped: %s\n", why);
        const char *strict = getenv("K3S_VM_TEST_STRICT");
        if (strict && strict[0] == '1' && strict[1] == '\0')
                fail_msg("%s", why);
        skip();
}
