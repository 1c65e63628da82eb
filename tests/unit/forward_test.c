/* SPDX-License-Identifier: MIT */
/* The forwards of a live VM are tested with one: tests/vm/ports.bats. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/forward.h>

static void assert_forward(const char *text, uint16_t host_port, uint16_t guest_port) {
        struct forward f = {0};
        assert_int_equal(forward_parse(text, &f, NULL), 0);
        assert_int_equal(f.host_port, host_port);
        assert_int_equal(f.guest_port, guest_port);
}

static void a_forward_can_be_written_short_and_in_full(void **state _unused_) {
        assert_forward("8080:80", 8080, 80);
        assert_forward("8080", 8080, 8080);
        assert_forward("127.0.0.1:8080:80", 8080, 80);
        assert_forward("8080:80/tcp", 8080, 80);
        assert_forward("127.0.0.1:1:65535/tcp", 1, 65535);
}

static void anything_but_tcp_on_loopback_is_refused(void **state _unused_) {
        static const char *const texts[] = {"",         "0",       "65536",     "80:",        ":80",
                                            "80:80:80", "80/tcp",  "80:80/udp", "*:8080:80",  "0.0.0.0:8080:80",
                                            "a:b",      "+80:80",  " 80:80",    "::1:80:80",  "127.0.0.1:80",
                                            "80:80/",   "80:80/t", "80-90:80",  "80:80/tcp0", "80:80 81:81"};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                struct forward f;
                _cleanup_error_ struct error err = ERROR_INIT;
                if (forward_parse(texts[i], &f, &err) == 0)
                        fail_msg("accepted: %s", texts[i]);
                assert_int_equal(err.code, ERR_USAGE);
        }
}

static void the_configured_ones_begin_with_those_of_every_vm(void **state _unused_) {
        struct forward more = {8080, 80};
        const struct config c = {.api_port = 1,
                                 .ssh_port = 2,
                                 .web_port = 3,
                                 .web_node_port = 4,
                                 .forwards = &more,
                                 .n_forwards = 1};
        _cleanup_free_ struct forward *all = NULL;
        assert_int_equal(forward_configured(&c, &all), 4);
        assert_int_equal(all[0].guest_port, 6443);
        assert_int_equal(all[1].guest_port, 22);
        assert_int_equal(all[2].host_port, 3);
        assert_int_equal(all[2].guest_port, 4);
        assert_int_equal(all[3].host_port, 8080);
}

static void qemus_list_is_read_and_its_connections_are_not(void **state _unused_) {
        static const char text[] = "Hub -1 (net0):\r\n"
                                   "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
                                   "  TCP[ESTABLISHED]   31       127.0.0.1  6443       10.0.2.15 50112     0     0\r\n"
                                   "  TCP[HOST_FORWARD]  14       127.0.0.1 30080       10.0.2.15 30080     0     0\r\n"
                                   "  TCP[HOST_FORWARD]  12       127.0.0.1  6443       10.0.2.15  6443     0     0\r\n"
                                   "  UDP[HOST_FORWARD]  15       127.0.0.1    53       10.0.2.15    53     0     0\r\n"
                                   "  TCP[HOST_FORWARD]  cut\r\n";
        _cleanup_free_ struct forward *forwards = NULL;
        size_t n = 0;
        forward_parse_usernet(text, &forwards, &n);
        assert_int_equal(n, 2);
        assert_int_equal(forwards[0].host_port, 30080);
        assert_int_equal(forwards[1].host_port, 6443);
        assert_int_equal(forwards[1].guest_port, 6443);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(a_forward_can_be_written_short_and_in_full),
                        cmocka_unit_test(anything_but_tcp_on_loopback_is_refused),
                        cmocka_unit_test(the_configured_ones_begin_with_those_of_every_vm),
                        cmocka_unit_test(qemus_list_is_read_and_its_connections_are_not),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
