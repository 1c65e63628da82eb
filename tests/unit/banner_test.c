/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <k3s-vm/banner.h>
#include <k3s-vm/fs.h>

/* A listening socket on a port of its own; what it does is up to each test. */
static int listen_on(uint16_t *ret_port) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
        assert_int_equal(listen(fd, 16), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
        *ret_port = ntohs(address.sin_port);
        return fd;
}

struct fixture {
        char *folder, *serial;
        int listener;
        uint16_t port;
};

static int set_up(void **state) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-banner", &f->folder, NULL), 0);
        f->serial = path_join(f->folder, "serial.log");
        f->listener = listen_on(&f->port);
        *state = f;
        return 0;
}

static int tear_down(void **state) {
        struct fixture *f = *state;
        close(f->listener);
        fs_remove_tree(f->folder, NULL);
        free(f->folder);
        free(f->serial);
        free(f);
        return 0;
}

static struct banner_wait wait_of(const struct fixture *f, unsigned timeout_ms) {
        return (struct banner_wait){.port = f->port, .serial_path = f->serial, .stop_fd = -1, .timeout_ms = timeout_ms};
}

static void announce(const struct fixture *f, const char *text) {
        assert_int_equal(fs_write_atomic(f->serial, text, strlen(text), 0600, NULL), 0);
}

/* Greets the first connection after a while. */
static void *greet(void *userdata) {
        const struct fixture *f = userdata;
        int fd = accept(f->listener, NULL, NULL);
        nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
        assert_int_equal(send(fd, "SSH-2.0-test\r\n", 14, MSG_NOSIGNAL), 14);
        nanosleep(&(struct timespec){.tv_nsec = 500 * 1000 * 1000}, NULL);
        close(fd);
        return NULL;
}

static void a_guest_that_announced_its_network_is_asked_at_once(void **state) {
        struct fixture *f = *state;
        announce(f, "booting\n" GUEST_NETWORK_UP "\r\nmore\n");
        pthread_t thread;
        pthread_create(&thread, NULL, greet, f);
        const struct banner_wait wait = wait_of(f, 10000);
        uint64_t begin = now_ms();
        assert_int_equal(banner_wait(&wait, NULL), 0);
        assert_true(now_ms() - begin < 2000);
        pthread_join(thread, NULL);
}

static void a_silent_guest_is_asked_after_a_while(void **state) {
        struct fixture *f = *state;
        pthread_t thread;
        pthread_create(&thread, NULL, greet, f);
        const struct banner_wait wait = wait_of(f, 20000);
        uint64_t begin = now_ms();
        assert_int_equal(banner_wait(&wait, NULL), 0);
        assert_true(now_ms() - begin >= 2500); /* nothing was connected before */
        pthread_join(thread, NULL);
}

static void what_an_earlier_boot_said_does_not_count(void **state) {
        struct fixture *f = *state;
        announce(f, GUEST_NETWORK_UP "\nreboot: Power down");
        struct banner_wait wait = wait_of(f, 1000);
        int64_t size = fs_size(f->serial);
        wait.serial_from = (uint64_t)size;
        assert_int_equal(banner_wait(&wait, NULL), -ETIMEDOUT);
        assert_false(serial_says(f->serial, wait.serial_from, GUEST_NETWORK_UP));
        /* A log that was cut meanwhile is this boot's. */
        wait.serial_from = (uint64_t)size + 1;
        assert_true(serial_says(f->serial, wait.serial_from, GUEST_NETWORK_UP));
}

static void a_guest_without_network_is_hardly_connected_to(void **state) {
        struct fixture *f = *state;
        const struct banner_wait wait = wait_of(f, 2000);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(banner_wait(&wait, &err), -ETIMEDOUT);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_int_equal(fcntl(f->listener, F_SETFL, O_NONBLOCK), 0);
        assert_int_equal(accept(f->listener, NULL, NULL), -1);
}

/* Answers every connection like a web server until its listener is shut down. */
static void *answer_wrongly(void *userdata) {
        const struct fixture *f = userdata;
        for (int fd; (fd = accept(f->listener, NULL, NULL)) >= 0; close(fd))
                send(fd, "HTTP/1.1 400 Bad Request\r\n", 26, MSG_NOSIGNAL);
        return NULL;
}

static void something_that_is_no_ssh_server_is_not_believed(void **state) {
        struct fixture *f = *state;
        announce(f, GUEST_NETWORK_UP);
        pthread_t thread;
        pthread_create(&thread, NULL, answer_wrongly, f);
        const struct banner_wait wait = wait_of(f, 1000);
        assert_int_equal(banner_wait(&wait, NULL), -ETIMEDOUT);
        shutdown(f->listener, SHUT_RDWR);
        pthread_join(thread, NULL);
}

static void the_end_of_the_vm_ends_the_wait(void **state) {
        struct fixture *f = *state;
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        close(fds[1]);
        struct banner_wait wait = wait_of(f, 10000);
        wait.stop_fd = fds[0];
        uint64_t begin = now_ms();
        assert_int_equal(banner_wait(&wait, NULL), 1);
        assert_true(now_ms() - begin < 2000);
        close(fds[0]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test_setup_teardown(a_guest_that_announced_its_network_is_asked_at_once, set_up,
                                                        tear_down),
                        cmocka_unit_test_setup_teardown(a_silent_guest_is_asked_after_a_while, set_up, tear_down),
                        cmocka_unit_test_setup_teardown(what_an_earlier_boot_said_does_not_count, set_up, tear_down),
                        cmocka_unit_test_setup_teardown(a_guest_without_network_is_hardly_connected_to, set_up,
                                                        tear_down),
                        cmocka_unit_test_setup_teardown(something_that_is_no_ssh_server_is_not_believed, set_up,
                                                        tear_down),
                        cmocka_unit_test_setup_teardown(the_end_of_the_vm_ends_the_wait, set_up, tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
