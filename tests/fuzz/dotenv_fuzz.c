/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused with its name, or is a .env file in which a key can be set and is found again, with every
 * other byte as it was; and taking an added key out gives back the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/dotenv.h>
#include <k3s-vm/strv.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_edit(const char *text, size_t len, const char *key, const char *value) {
        _cleanup_buf_ struct buf set = BUF_INIT(0), unset = BUF_INIT(0);
        _cleanup_dotenv_ struct dotenv before = {0}, after = {0};
        if (dotenv_parse("x", text, len, &before, NULL) < 0 || dotenv_set("x", text, len, key, value, &set, NULL) < 0 ||
            dotenv_parse("x", buf_str(&set), set.len, &after, NULL) < 0)
                abort();
        const struct dotenv_entry *was = dotenv_get(&before, key), *is = dotenv_get(&after, key);
        if (!is || !str_eq(is->value, value) || after.n != before.n + (was ? 0 : 1))
                abort();
        for (size_t i = 0; i < before.n; i++)
                if (!str_eq(before.entries[i].key, after.entries[i].key) ||
                    (&before.entries[i] != was && !str_eq(before.entries[i].value, after.entries[i].value)))
                        abort();
        if (dotenv_unset("x", buf_str(&set), set.len, key, &unset, NULL) < 0)
                abort();
        if (!was && (unset.len != len || (len > 0 && memcmp(unset.data, text, len) != 0)))
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *text = (const char *)data;
        _cleanup_free_ char *value = NULL;
        if ((dotenv_find(text, size, "WEB_PORT", &value) > 0) != (value != NULL))
                abort();
        _cleanup_dotenv_ struct dotenv d = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        if (dotenv_parse("x", text, size, &d, &err) < 0) {
                if (err.code != ERR_USAGE || !str_starts(err.message, "x:"))
                        abort();
                return 0;
        }
        check_edit(text, size, "KUBECONFIG", "./kubeconfig.yaml");
        for (size_t i = 0; i < d.n && i < 4; i++)
                check_edit(text, size, d.entries[i].key, d.entries[d.n - 1].value);
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
