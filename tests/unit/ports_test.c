/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <k3s-vm/ports.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>

#define UUID "0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90"
#define ORPHAN_UUID "2d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e92"

/* A socket bound to @address and a free port at or above 21700, listening if @backlog. */
static int bind_somewhere(const char *address, bool listening, uint16_t *ret_port) {
        bool ipv6 = strchr(address, ':');
        for (uint16_t port = 21700; port < 21800; port++) {
                int fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
                if (fd < 0)
                        return -1;
                struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
                struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
                inet_pton(ipv6 ? AF_INET6 : AF_INET, address, ipv6 ? (void *)&in6.sin6_addr : (void *)&in.sin_addr);
                int r = ipv6 ? bind(fd, (struct sockaddr *)&in6, sizeof(in6))
                             : bind(fd, (struct sockaddr *)&in, sizeof(in));
                if (r == 0 && (!listening || listen(fd, 1) == 0)) {
                        *ret_port = port;
                        return fd;
                }
                close(fd);
                if (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT)
                        return -1;
        }
        return -1;
}

/* This program again, as a process that keeps its descriptors and waits; see main(). */
static pid_t spawn_as(const char *const *argv) {
        pid_t pid = fork();
        if (pid == 0) {
                execv("/proc/self/exe", (char *const *)argv);
                _exit(127);
        }
        assert_true(pid > 0);
        /* Until exec is through, its command line is still ours. */
        for (;;) {
                _cleanup_strv_ struct strv seen = {0};
                proc_cmdline(pid, &seen);
                if (seen.len && str_eq(seen.items[0], argv[0]))
                        return pid;
                assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        }
}

static void end_child(pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

static struct port_scan *scan(void) {
        struct port_scan *s = NULL;
        assert_int_equal(port_scan_new(&s, NULL), 0);
        return s;
}

static void the_kernels_table_is_parsed(void **state _unused_) {
        static const char tcp[] =
                        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
                        "inode\n"
                        "   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 "
                        "22713 1 0 100 0 0 10 0\n"
                        "   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
                        "18446744073709551615 1\n"
                        "   2: 3500007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 7\n"
                        "   3: 0100007F:192B 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 8 "
                        "1\n"
                        "   4: 0501A8C0:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9";
        struct listener *l = NULL;
        size_t n = 0;
        assert_int_equal(listeners_parse(tcp, sizeof(tcp) - 1, false, &l, &n), 0);
        assert_int_equal(n, 4);
        assert_int_equal(l[0].port, 6443);
        assert_int_equal(l[0].uid, 1000);
        assert_int_equal(l[0].inode, 22713);
        assert_true(l[0].loopback && l[0].claims && !l[0].wildcard && !l[0].ipv6);
        assert_int_equal(l[1].port, 22);
        assert_true(l[1].wildcard && l[1].claims);
        assert_true(l[2].loopback && !l[2].claims); /* 127.0.0.53 leaves 127.0.0.1 alone */
        assert_true(!l[3].loopback && !l[3].claims && !l[3].wildcard);
        static const char tcp6[] =
                        "  sl  local_address                         remote_address                        st\n"
                        " 0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 "
                        "0 0 1\n"
                        " 1: 00000000000000000000000001000000:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 "
                        "0 0 2\n"
                        " 2: 0000000000000000FFFF00000100007F:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 "
                        "0 0 3\n"
                        " 3: 000080FE000000000000000001000000:192B 00000000000000000000000000000000:0000 0A 0:0 0:0 0 "
                        "0 0 4\n";
        assert_int_equal(listeners_parse(tcp6, sizeof(tcp6) - 1, true, &l, &n), 0);
        assert_int_equal(n, 8);
        assert_true(l[4].ipv6 && l[4].wildcard && l[4].claims);
        assert_true(l[5].loopback && l[5].claims && !l[5].wildcard);
        assert_true(l[6].loopback && l[6].claims);
        assert_true(!l[7].claims && !l[7].loopback);
        free(l);
}

static void lines_that_cannot_be_read_are_skipped(void **state _unused_) {
        static const char *const junk[] = {
                        "header\n 0: 0100007F:192B 00000000:0000 0A 0:0 0:0 0 1000 0\n",
                        "header\n 0: 0100007F:192B 00000000:0000 0A 0:0 0:0 0 -1 0 5\n",
                        "header\n 0: 0100007F:192 00000000:0000 0A 0:0 0:0 0 1 0 5\n",
                        "header\n 0: 0100007G:192B 00000000:0000 0A 0:0 0:0 0 1 0 5\n",
                        "header\n 0: 00000000000000000000000001000000:192B 0:0 0A 0:0 0:0 0 1 0 5\n",
                        "header\n 0: 0100007F:192B 00000000:0000 0A 0:0 0:0 0 1 0 99999999999999999999999\n",
                        "header\nnonsense\n",
                        "header\n\n",
        };
        for (size_t i = 0; i < ELEMENTSOF(junk); i++) {
                struct listener *l = NULL;
                size_t n = 0;
                assert_int_equal(listeners_parse(junk[i], strlen(junk[i]), false, &l, &n), 1);
                assert_int_equal(n, 0);
                assert_null(l);
        }
}

static void a_listener_on_any_address_that_matters_takes_the_port(void **state _unused_) {
        static const struct {
                const char *address;
                bool taken;
        } cases[] = {{"127.0.0.1", true}, {"0.0.0.0", true}, {"::", true}, {"::1", true}, {"127.0.0.9", false}};
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint16_t port;
                _cleanup_close_ _unused_ int fd = bind_somewhere(cases[i].address, true, &port);
                if (fd < 0 && strchr(cases[i].address, ':'))
                        continue; /* a host without IPv6 */
                assert_true(fd >= 0);
                _cleanup_port_scan_ struct port_scan *s = scan();
                assert_int_equal(port_taken(s, port, NULL, NULL), cases[i].taken);
        }
}

static void the_holder_is_named_with_pid_command_user_and_start(void **state _unused_) {
        uint16_t port;
        _cleanup_close_ _unused_ int fd = bind_somewhere("127.0.0.1", true, &port);
        _cleanup_port_scan_ struct port_scan *s = scan();
        struct port_holder h = {0};
        assert_true(port_taken(s, port, NULL, &h));
        assert_int_equal(h.port, port);
        assert_int_equal(h.pid, getpid());
        assert_int_equal(h.uid, geteuid());
        assert_non_null(h.user);
        assert_non_null(strstr(h.command, "ports_test"));
        assert_true(h.started && strlen(h.started) == 20 && str_starts(h.started, "20"));
        assert_null(h.vm_uuid);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(port_error(&h, "API_PORT", &err), -EADDRINUSE);
        assert_int_equal(err.code, ERR_PORT);
        _cleanup_free_ char *pid = xasprintf("PID %d", getpid());
        assert_non_null(strstr(err.message, pid));
        assert_non_null(strstr(err.message, "API_PORT"));
        assert_non_null(strstr(err.message, h.user));
        assert_non_null(strstr(err.message, h.started));
        assert_non_null(strstr(err.hint, "k3s-vm configure API_PORT="));
        port_holder_clear(&h);
}

static void a_port_that_is_bound_but_not_listened_on_is_taken(void **state _unused_) {
        uint16_t port;
        _cleanup_close_ _unused_ int fd = bind_somewhere("127.0.0.1", false, &port);
        _cleanup_port_scan_ struct port_scan *s = scan();
        struct port_holder h = {0};
        assert_true(port_taken(s, port, NULL, &h));
        assert_int_equal(h.pid, 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(port_error(&h, "SSH_PORT", &err), -EADDRINUSE);
        assert_non_null(err.hint);
        port_holder_clear(&h);
}

/* Runs in a child that has become another user; exits with 0 when all is as it should be. */
static int look_as_another_user(uint16_t port, uid_t owner) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
                return 2;
        struct port_scan *s = NULL;
        struct port_holder h = {0};
        if (port_scan_new(&s, NULL) < 0 || !port_taken(s, port, NULL, &h))
                return 3;
        int r = h.pid != 0 ? 4 : h.uid != owner ? 5 : str_eq(h.user, "root") ? 0 : 6;
        struct error err = ERROR_INIT;
        port_error(&h, "API_PORT", &err);
        if (r == 0 && !strstr(err.message, "a process of the user root"))
                r = 7;
        error_clear(&err);
        port_holder_clear(&h);
        port_scan_free(s);
        return r;
}

static void another_users_process_is_given_by_its_user(void **state _unused_) {
        if (geteuid() != 0) {
                assert_null(getenv("K3S_VM_TEST_STRICT"));
                print_message("skipped: only root can become another user\n");
                skip();
        }
        uint16_t port;
        _cleanup_close_ _unused_ int fd = bind_somewhere("0.0.0.0", true, &port);
        pid_t pid = fork();
        if (pid == 0) {
                close(fd);
                _exit(look_as_another_user(port, 0));
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static struct registry_entry entry = {
                .uuid = (char *)UUID, .name = (char *)"shop", .project = (char *)"/home/u/my shop"};
static const struct registry registry = {.entries = &entry, .n = 1};

/* What is found out about a process with the command line @argv that holds a port; its PID. */
static pid_t find_holder_of(const char *const *argv, struct port_holder *ret) {
        uint16_t port;
        int fd = bind_somewhere("127.0.0.1", true, &port);
        pid_t pid = spawn_as(argv);
        close(fd);
        _cleanup_port_scan_ struct port_scan *s = scan();
        bool taken = port_taken(s, port, &registry, ret);
        end_child(pid);
        assert_true(taken);
        return pid;
}

static void a_qemu_of_ours_is_named_with_its_project_and_the_command_that_stops_it(void **state _unused_) {
        const char *const argv[] = {
                        "qemu-system-x86_64", "-name", "guest=shop,process=" QEMU_PROCESS_NAME, "-uuid", UUID, NULL};
        struct port_holder h = {0};
        pid_t pid = find_holder_of(argv, &h);
        assert_int_equal(h.pid, pid);
        assert_string_equal(h.vm_uuid, UUID);
        assert_string_equal(h.vm_name, "shop");
        assert_string_equal(h.vm_project, "/home/u/my shop");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(port_error(&h, "API_PORT", &err), -EADDRINUSE);
        assert_non_null(strstr(err.message, "the project /home/u/my shop"));
        assert_non_null(strstr(err.hint, "k3s-vm --project '/home/u/my shop' stop"));
        port_holder_clear(&h);
}

static void an_orphan_that_is_in_no_registry_is_still_known_for_a_vm(void **state _unused_) {
        const char *const argv[] = {"qemu-system-x86_64",
                                    "-uuid",
                                    ORPHAN_UUID,
                                    "-name",
                                    "guest=lost,process=" QEMU_PROCESS_NAME ",debug-threads=on",
                                    NULL};
        struct port_holder h = {0};
        find_holder_of(argv, &h);
        assert_string_equal(h.vm_uuid, ORPHAN_UUID);
        assert_string_equal(h.vm_name, "lost");
        assert_null(h.vm_project);
        _cleanup_error_ struct error err = ERROR_INIT;
        port_error(&h, "WEB_PORT", &err);
        assert_non_null(strstr(err.hint, "kill "));
        port_holder_clear(&h);
}

static void a_vm_that_is_in_another_registry_is_named_with_its_project(void **state _unused_) {
        _cleanup_free_ char *root = NULL;
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-t", &root, NULL), 0);
        _cleanup_free_ char *folder = path_join(root, ".k3s-vm"), *pid_file = path_join(folder, "vm.pid");
        assert_int_equal(fs_mkdir_p(folder, 0700, NULL), 0);
        assert_int_equal(fs_write_atomic(pid_file, "1\n", 2, 0600, NULL), 0);
        const char *const argv[] = {
                        "qemu-system-x86_64", "-uuid",  ORPHAN_UUID, "-name", "guest=other,process=" QEMU_PROCESS_NAME,
                        "-pidfile",           pid_file, NULL};
        struct port_holder h = {0};
        find_holder_of(argv, &h);
        fs_remove_tree(root, NULL);
        assert_string_equal(h.vm_project, root);
        port_holder_clear(&h);
}

static void a_foreign_qemu_is_a_foreign_process(void **state _unused_) {
        const char *const argv[] = {"qemu-system-x86_64", "-name", "guest=shop", "-uuid", UUID, NULL};
        struct port_holder h = {0};
        pid_t pid = find_holder_of(argv, &h);
        assert_int_equal(h.pid, pid);
        assert_null(h.vm_uuid);
        port_holder_clear(&h);
}

static void command_lines_of_ours_are_told_from_others(void **state _unused_) {
        static const struct {
                const char *argv[8];
                bool ours;
        } cases[] = {
                        {{"/proc/self/exe", "supervise", "--project", "/p", "shop"}, true},
                        {{"k3s-vm", "supervise", "--project", "p", "shop"}, false},
                        {{"qemu", "-name", "guest=a,process=" QEMU_PROCESS_NAME, "-uuid", UUID}, true},
                        {{"qemu", "-name", "guest=a,process=" QEMU_PROCESS_NAME, "-uuid", "junk"}, false},
                        {{"qemu", "-name", "guest=a,process=" QEMU_PROCESS_NAME}, false},
                        {{"qemu", "-uuid", UUID}, false},
                        {{"grep", UUID}, false},
                        {{"-uuid"}, false},
                        {{NULL}, false},
        };
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_ struct strv argv = {0};
                strv_extend(&argv, cases[i].argv);
                struct vm_cmdline vm = {0};
                assert_int_equal(vm_cmdline_parse(&argv, &vm), cases[i].ours);
        }
}

static void a_vms_processes_are_found_by_its_uuid(void **state _unused_) {
        /* Not the one of the other tests, which may run at the same time in another build. */
        _cleanup_free_ char *uuid = xasprintf("3d6e1dd4-7f5c-4c2f-9b7c-%012x", getpid());
        const char *const ours[] = {
                        "qemu-system-x86_64", "-name", "guest=a,process=" QEMU_PROCESS_NAME, "-uuid", uuid, NULL};
        const char *const grep[] = {"grep", "-uuid", uuid, NULL};
        pid_t *pids = NULL;
        size_t n = 7;
        assert_int_equal(vm_processes(uuid, &pids, &n), 0);
        assert_int_equal(n, 0);
        free(pids);
        pid_t a = spawn_as(ours), b = spawn_as(ours), c = spawn_as(grep);
        int r = vm_processes(uuid, &pids, &n);
        end_child(a);
        end_child(b);
        end_child(c);
        assert_int_equal(r, 0);
        assert_int_equal(n, 2);
        assert_true((pids[0] == a && pids[1] == b) || (pids[0] == b && pids[1] == a));
        free(pids);
        assert_int_equal(vm_processes("-uuid", &pids, &n), -EINVAL);
}

static void the_next_free_port_skips_listeners_and_registered_ones(void **state _unused_) {
        uint16_t port;
        _cleanup_close_ _unused_ int fd = bind_somewhere("127.0.0.1", true, &port);
        _cleanup_port_scan_ struct port_scan *s = scan();
        struct registry_entry e = {.api_port = (uint16_t)(port + 1), .web_port = (uint16_t)(port + 2)};
        const struct registry with = {.entries = &e, .n = 1};
        assert_true(port_next_free(s, port, &with) >= port + 3);
        assert_true(port_next_free(s, port, NULL) >= port + 1);
}

static void the_number_of_ports_is_no_limit_to_walk_over(void **state _unused_) {
        _cleanup_port_scan_ struct port_scan *s = scan();
        uint16_t port = port_next_free(s, 65535, NULL);
        assert_true(port == 65535 || port == 0);
}

static void a_long_command_line_is_cut_and_made_printable(void **state _unused_) {
        uint16_t port;
        int fd = bind_somewhere("127.0.0.1", true, &port);
        char longer[400];
        memset(longer, 'y', sizeof(longer) - 1);
        longer[sizeof(longer) - 1] = '\0';
        const char *const argv[] = {"qemu-x", "-name", "\x1b[31m\n", longer, NULL};
        pid_t pid = spawn_as(argv);
        close(fd);
        _cleanup_port_scan_ struct port_scan *s = scan();
        struct port_holder h = {0};
        bool taken = port_taken(s, port, NULL, &h);
        end_child(pid);
        assert_true(taken);
        assert_true(strlen(h.command) < 150);
        assert_null(strchr(h.command, '\x1b'));
        assert_null(strchr(h.command, '\n'));
        port_holder_clear(&h);
}

int main(int argc, char **argv) {
        /* Started by spawn_as(). */
        if (argc > 1 && argv[1][0] == '-')
                for (;;)
                        pause();
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(the_kernels_table_is_parsed),
                        cmocka_unit_test(lines_that_cannot_be_read_are_skipped),
                        cmocka_unit_test(a_listener_on_any_address_that_matters_takes_the_port),
                        cmocka_unit_test(the_holder_is_named_with_pid_command_user_and_start),
                        cmocka_unit_test(a_port_that_is_bound_but_not_listened_on_is_taken),
                        cmocka_unit_test(another_users_process_is_given_by_its_user),
                        cmocka_unit_test(a_qemu_of_ours_is_named_with_its_project_and_the_command_that_stops_it),
                        cmocka_unit_test(an_orphan_that_is_in_no_registry_is_still_known_for_a_vm),
                        cmocka_unit_test(a_vm_that_is_in_another_registry_is_named_with_its_project),
                        cmocka_unit_test(a_foreign_qemu_is_a_foreign_process),
                        cmocka_unit_test(command_lines_of_ours_are_told_from_others),
                        cmocka_unit_test(a_vms_processes_are_found_by_its_uuid),
                        cmocka_unit_test(the_next_free_port_skips_listeners_and_registered_ones),
                        cmocka_unit_test(the_number_of_ports_is_no_limit_to_walk_over),
                        cmocka_unit_test(a_long_command_line_is_cut_and_made_printable),
        };
        return cmocka_run_group_tests_name("ports", tests, NULL, NULL);
}
