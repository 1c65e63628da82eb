/* SPDX-License-Identifier: MIT */
/* Whether a port is in use, by the kernel's table of TCP sockets. Sleeping and waking are in tests/vm/doze.bats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/domain/supervise_internal.h"

#define HEAD \
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode            " \
        "      " \
        "                                   \n"
#define LINE(local, remote, state) \
        "   0: 0100007F:" local " 0100007F:" remote " " state \
        " 00000000:00000000 00:00000000 00000000     0        0 22713 1 0000000000000000 100 0 0 10 0                " \
        "     \n"

static void a_port_is_used_by_any_connection_but_not_by_who_listens(void **state) {
        (void)state;
        static const struct {
                const char *table;
                bool used;
        } cases[] = {
                        {"", false},
                        {"no table", false},
                        {HEAD, false},
                        {HEAD "junk\n   1: 0100007F", false},
                        {HEAD LINE("192B", "0000", "0A"), false},
                        {HEAD LINE("192B", "D431", "01"), true},
                        {HEAD LINE("D431", "192B", "06"), true}, /* TIME_WAIT at the client's end */
                        {HEAD LINE("192C", "D431", "01"), false},
                        {HEAD LINE("192B", "0000", "0A") LINE("0016", "D431", "01"), false},
                        {HEAD LINE("192B", "0000", "0A") LINE("0016", "D431", "01") LINE("192B", "D432", "06"), true},
        };
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                if (idle_port_used(cases[i].table, 6443) != cases[i].used)
                        fail_msg("case %zu", i);
}

int main(void) {
        const struct CMUnitTest tests[] = {cmocka_unit_test(a_port_is_used_by_any_connection_but_not_by_who_listens)};
        return cmocka_run_group_tests(tests, NULL, NULL);
}
