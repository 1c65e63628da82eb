/* SPDX-License-Identifier: MIT */
/*
 * Any text either is refused with a line number, or is a configuration file that comes out as it went in, and in which
 * any value can be set and is found again. The checks of values take the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/domain/config_check.h"
#include "../../src/domain/config_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_values(const char *text) {
        static config_check_fn *const checks[] = {config_check_name,  config_check_flavor, config_check_k3s_version,
                                                  config_check_path,  config_check_accel,  config_check_output_path,
                                                  config_check_words, config_check_dns};
        const struct project p = {.root = (char *)"/home/u/shop"};
        for (size_t i = 0; i < ELEMENTSOF(checks); i++) {
                _cleanup_free_ char *value = NULL;
                _cleanup_error_ struct error err = ERROR_INIT;
                if ((checks[i](&p, text, &value, &err) < 0) != (value == NULL) || (!value && !err.message))
                        abort();
                if (value && checks[i] == config_check_output_path && (value[0] == '/' || str_starts(value, "../")))
                        abort();
        }
        unsigned number = 0;
        uint16_t port = 0;
        struct forward *forwards = NULL;
        size_t n = 0;
        if (config_check_number(text, 2, 256, "", &number, NULL) == 0 && (number < 2 || number > 256))
                abort();
        if (config_check_port(text, &port, NULL) == 0 && port == 0)
                abort();
        config_check_forwards(text, &forwards, &n, NULL);
        free(forwards);
}

/* Every line that @f gives a value gives it again after being written. */
static void check_round_trip(const struct config_file *f) {
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        config_file_print(f, &text);
        _cleanup_config_file_ struct config_file again = {0};
        if (config_file_parse("config", buf_str(&text), text.len, &again, NULL) < 0 || again.n != f->n)
                abort();
        for (size_t i = 0; i < f->n; i++)
                if (!str_eq(f->lines[i].key, again.lines[i].key) || !str_eq(f->lines[i].value, again.lines[i].value) ||
                    !str_eq(f->lines[i].raw, again.lines[i].raw))
                        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        const char *bytes = (const char *)data;
        _cleanup_free_ char *text = xstrndup(bytes, size);
        check_values(text);

        _cleanup_config_file_ struct config_file f = {0};
        _cleanup_error_ struct error err = ERROR_INIT;
        if (config_file_parse("config", bytes, size, &f, &err) < 0) {
                if (err.code != ERR_USAGE || !str_starts(err.message, "config:"))
                        abort();
                return 0;
        }
        check_round_trip(&f);
        for (size_t i = 0; i < f.n && i < 16; i++) {
                if (!f.lines[i].key)
                        continue;
                _cleanup_free_ char *key = xstrdup(f.lines[i].key), *new = xstrdup(f.lines[i].value);
                const char *found = NULL;
                config_file_set(&f, "VM_NAME", new);
                if ((config_file_find(&f, "VM_NAME", &found) > 0) != (*new != '\0') || (*new && !str_eq(found, new)))
                        abort();
                check_round_trip(&f);
                config_file_set(&f, key, "");
                if (config_file_find(&f, key, NULL) != 0)
                        abort();
        }
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
