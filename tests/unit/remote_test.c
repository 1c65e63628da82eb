/* SPDX-License-Identifier: MIT */
/* Keys, connections and commands, against a real sshd. Copies are in remote_copy_test.c. */
#include "sshd.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

#include "folder.h"

#define TEN_MB (10U << 20)

static int run(struct remote *r, const char *command, struct buf *out, struct buf *errors) {
        const struct remote_exec exec = {.command = command, .ret_stdout = out, .ret_stderr = errors};
        struct error err = ERROR_INIT;
        int status = -1;
        if (remote_exec(r, &exec, &status, &err) < 0)
                fail_msg("%s: %s", command, err.message);
        return status;
}

/* Keys. */

static void keys_are_what_openssh_reads(void **state) {
        _cleanup_free_ char *program = fs_find_program("ssh-keygen");
        if (!program)
                must_skip("no ssh-keygen here");
        _cleanup_free_ char *path = path_join(*state, "key"), *public_path = path_join(*state, "key.pub");
        assert_int_equal(remote_make_key(path, "me@here", NULL), 0);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_int_equal(stat(public_path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0644);

        _cleanup_buf_ struct buf derived = BUF_INIT(4096), written = BUF_INIT(4096);
        struct proc_run_spec spec = PROC_RUN_SPEC_INIT;
        spec.spec.argv = (const char *const[]){program, "-y", "-f", path, NULL};
        spec.ret_stdout = &derived;
        struct proc_result result;
        assert_int_equal(proc_run(&spec, &result, NULL), 0);
        assert_int_equal(result.exit_status, 0);
        assert_int_equal(fs_read(public_path, 4095, &written, NULL), 0);
        assert_true(str_starts(derived.data, "ssh-ed25519 AAAA"));
        size_t n = strcspn(derived.data + 12, " \n") + 12;
        assert_memory_equal(derived.data, written.data, n);
        assert_string_equal(written.data + n, " me@here\n");
}

static void keys_that_exist_stay(void **state) {
        _cleanup_free_ char *path = path_join(*state, "key"), *public_path = path_join(*state, "key.pub");
        _cleanup_buf_ struct buf before = BUF_INIT(4096), after = BUF_INIT(4096), public_before = BUF_INIT(4096),
                                 public_after = BUF_INIT(4096);
        assert_int_equal(remote_make_key(path, "a", NULL), 0);
        fs_read(path, 4095, &before, NULL);
        fs_read(public_path, 4095, &public_before, NULL);
        /* A run that was killed between the two files. */
        assert_int_equal(unlink(public_path), 0);
        assert_int_equal(remote_make_key(path, "a", NULL), 0);
        fs_read(path, 4095, &after, NULL);
        fs_read(public_path, 4095, &public_after, NULL);
        assert_string_equal(before.data, after.data);
        assert_string_equal(public_before.data, public_after.data);
}

static void a_comment_cannot_add_a_line_to_a_public_key(void **state) {
        _cleanup_free_ char *path = path_join(*state, "key"), *public_path = path_join(*state, "key.pub");
        _cleanup_buf_ struct buf text = BUF_INIT(4096);
        assert_int_equal(remote_make_key(path, "x\nssh-ed25519 AAAA evil", NULL), 0);
        fs_read(public_path, 4095, &text, NULL);
        assert_ptr_equal(strchr(text.data, '\n'), text.data + text.len - 1);
}

static void a_damaged_private_key_is_an_error(void **state) {
        _cleanup_free_ char *path = path_join(*state, "key");
        write_text(path, "not a key\n", 0600);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(remote_make_key(path, "a", &err), -EBADMSG);
        assert_non_null(strstr(err.message, path));
}

/* Connecting. */

static void nobody_listening_is_refused(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        int fd = listen_somewhere(&address.port);
        close(fd);
        struct remote *r = NULL;
        assert_int_equal(remote_connect(&address, 2000, &r, NULL), -ECONNREFUSED);
        assert_int_equal(remote_probe_banner(address.port, 2000, NULL), -ECONNREFUSED);
        assert_null(r);
}

static void a_banner_that_hangs_ends_at_the_time_limit(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        _cleanup_close_ _unused_ int fd = listen_somewhere(&address.port);
        struct remote *r = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        uint64_t before = now_ms();
        assert_int_equal(remote_connect(&address, 300, &r, &err), -ETIMEDOUT);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_int_equal(remote_probe_banner(address.port, 300, NULL), -ETIMEDOUT);
        assert_in_range(now_ms() - before, 550, 3000);
}

/* A server that is not sshd: says @text, if any, and hangs up. */
static pid_t fake_server(int listener, const char *text) {
        pid_t pid = fork();
        if (pid != 0)
                return pid;
        for (int i = 0; i < 2; i++) {
                int fd = accept(listener, NULL, NULL);
                if (text && write(fd, text, strlen(text)) < 0)
                        _exit(1);
                close(fd);
        }
        _exit(0);
}

static void what_hangs_up_was_not_up_yet(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        _cleanup_close_ int fd = listen_somewhere(&address.port);
        pid_t pid = fake_server(fd, NULL);
        struct remote *r = NULL;
        assert_int_equal(remote_connect(&address, 2000, &r, NULL), -ECONNRESET);
        assert_int_equal(remote_probe_banner(address.port, 2000, NULL), -ECONNRESET);
        waitpid(pid, NULL, 0);
}

static void what_is_no_ssh_server_is_told_apart(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        _cleanup_close_ int fd = listen_somewhere(&address.port);
        pid_t pid = fake_server(fd, "HTTP/1.1 400 Bad Request\r\n\r\n");
        struct remote *r = NULL;
        assert_true(remote_connect(&address, 2000, &r, NULL) < 0);
        assert_int_equal(remote_probe_banner(address.port, 2000, NULL), -EPROTO);
        waitpid(pid, NULL, 0);
}

static void the_banner_of_sshd_is_seen(_unused_ void **state) {
        needs_sshd();
        assert_int_equal(remote_probe_banner(sshd->port, 5000, NULL), 0);
}

static void another_host_key_is_rejected(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        _cleanup_free_ char *other = sshd_path(sshd, "other"), *other_pub = sshd_path(sshd, "other.pub");
        assert_int_equal(remote_make_key(other, "x", NULL), 0);
        address.host_key_pub = other_pub;
        struct remote *r = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(remote_connect(&address, 5000, &r, &err), -EKEYREJECTED);
        assert_null(r);
}

static void a_key_that_sshd_does_not_know_is_refused(_unused_ void **state) {
        needs_sshd();
        struct remote_address address = sshd_address(sshd);
        _cleanup_free_ char *other = sshd_path(sshd, "stranger");
        assert_int_equal(remote_make_key(other, "x", NULL), 0);
        address.key_path = other;
        struct remote *r = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(remote_connect(&address, 5000, &r, &err), -EACCES);
        assert_non_null(strstr(err.message, other));
}

static void the_users_own_ssh_configuration_does_not_matter(_unused_ void **state) {
        needs_sshd();
        _cleanup_free_ char *ssh = sshd_path(sshd, ".ssh"), *config = sshd_path(sshd, ".ssh/config");
        assert_int_equal(mkdir(ssh, 0700), 0);
        write_text(config, "Host *\n  User nobody-at-all\n  ProxyCommand /bin/false\n  HostKeyAlgorithms ssh-rsa\n",
                   0600);
        _cleanup_free_ char *home = xstrdup(getenv("HOME"));
        setenv("HOME", sshd->dir, 1);
        _cleanup_remote_ struct remote *r = connected();
        setenv("HOME", home ? home : "/", 1);
        assert_int_equal(run(r, "true", NULL, NULL), 0);
}

/* Commands. */

static void statuses_and_both_outputs_arrive(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_buf_ struct buf out = BUF_INIT(100), errors = BUF_INIT(100);
        assert_int_equal(run(r, "echo out; echo err >&2; exit 42", &out, &errors), 42);
        assert_string_equal(buf_str(&out), "out\n");
        assert_string_equal(buf_str(&errors), "err\n");
        assert_int_equal(run(r, "no-such-command-at-all", NULL, NULL), 127);
        assert_int_equal(run(r, "exit 255", NULL, NULL), 255);
        assert_int_equal(run(r, "true", NULL, NULL), 0);
}

static void a_signal_counts_as_in_a_shell(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        assert_int_equal(run(r, "kill -TERM $$", NULL, NULL), 128 + SIGTERM);
        assert_int_equal(run(r, "kill -KILL $$", NULL, NULL), 128 + SIGKILL);
        assert_int_equal(run(r, "kill -SEGV $$", NULL, NULL), 128 + SIGSEGV);
}

static void ten_megabytes_on_both_outputs_at_once(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_buf_ struct buf out = BUF_INIT(TEN_MB), errors = BUF_INIT(TEN_MB);
        assert_int_equal(run(r,
                             "head -c 10485760 /dev/zero & head -c 10485760 /dev/zero | tr '\\0' x >&2; wait; exit 3",
                             &out, &errors),
                         3);
        assert_int_equal(out.len, TEN_MB);
        assert_int_equal(errors.len, TEN_MB);
        for (size_t i = 0; i < TEN_MB; i++)
                if (out.data[i] != 0 || errors.data[i] != 'x')
                        fail_msg("byte %zu is wrong", i);
}

static char *noise(size_t len) {
        char *data = xcalloc(1, len);
        uint32_t x = 2463534242;
        for (size_t i = 0; i < len; i++) {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                data[i] = (char)x;
        }
        return data;
}

static void ten_megabytes_go_in_and_come_back(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *data = noise(TEN_MB);
        _cleanup_buf_ struct buf out = BUF_INIT(TEN_MB);
        const struct remote_exec exec = {.command = "cat", .input = data, .input_len = TEN_MB, .ret_stdout = &out};
        int status = -1;
        assert_int_equal(remote_exec(r, &exec, &status, NULL), 0);
        assert_int_equal(status, 0);
        assert_int_equal(out.len, TEN_MB);
        assert_memory_equal(out.data, data, TEN_MB);
}

static void a_command_may_leave_its_input_unread(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *data = noise(TEN_MB);
        const struct remote_exec exec = {.command = "exit 5", .input = data, .input_len = TEN_MB};
        int status = -1;
        assert_int_equal(remote_exec(r, &exec, &status, NULL), 0);
        assert_int_equal(status, 5);
        assert_int_equal(run(r, "true", NULL, NULL), 0);
}

static void a_status_long_after_the_outputs_ended_is_waited_for(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        assert_int_equal(run(r, "exec >&- 2>&- <&-; sleep 0.5; exit 9", NULL, NULL), 9);
}

static void more_output_than_expected_is_an_error_and_no_flood(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_buf_ struct buf out = BUF_INIT(1000);
        const struct remote_exec exec = {.command = "yes", .ret_stdout = &out};
        int status = -1;
        assert_int_equal(remote_exec(r, &exec, &status, NULL), -E2BIG);
        assert_true(out.len <= 1000);
        assert_int_equal(status, -1);
        assert_int_equal(run(r, "exit 4", NULL, NULL), 4);
}

static void a_command_ends_at_its_time_limit(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_error_ struct error err = ERROR_INIT;
        int status = -1;
        uint64_t before = now_ms();
        assert_int_equal(remote_exec(r, &(struct remote_exec){.command = "sleep 3", .timeout_ms = 300}, &status, &err),
                         -ETIMEDOUT);
        /* One that always has something to say, too. */
        assert_int_equal(remote_exec(r, &(struct remote_exec){.command = "yes", .timeout_ms = 300}, &status, NULL),
                         -ETIMEDOUT);
        assert_in_range(now_ms() - before, 600, 2500);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_int_equal(run(r, "true", NULL, NULL), 0);
}

static void a_server_that_stands_still_does_not_hold_a_writer(_unused_ void **state) {
        _cleanup_remote_ struct remote *r = connected();
        _cleanup_free_ char *data = noise(TEN_MB);
        const struct remote_exec exec = {.command = "kill -STOP $PPID; sleep 2; kill -CONT $PPID; cat >/dev/null",
                                         .input = data,
                                         .input_len = TEN_MB,
                                         .timeout_ms = 700};
        int status = -1;
        uint64_t before = now_ms();
        assert_int_equal(remote_exec(r, &exec, &status, NULL), -ETIMEDOUT);
        assert_in_range(now_ms() - before, 650, 1800);
}

static void a_server_that_dies_is_a_lost_connection(_unused_ void **state) {
        struct remote *r = connected();
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_buf_ struct buf out = BUF_INIT(100);
        int status = -1;
        const struct remote_exec exec = {.command = "kill -KILL $PPID; sleep 1", .ret_stdout = &out};
        assert_int_equal(remote_exec(r, &exec, &status, &err), -ECONNRESET);
        assert_int_equal(status, -1);
        /* And stays one. */
        assert_int_equal(remote_exec(r, &exec, &status, NULL), -ECONNRESET);
        assert_true(remote_get(r, "/etc/passwd", sshd->dir, NULL, NULL, NULL) < 0);
        remote_free(r);
}

static size_t open_descriptors(void) {
        _cleanup_closedir_ DIR *dir = opendir("/proc/self/fd");
        size_t n = 0;
        while (readdir(dir))
                n++;
        return n;
}

static void connections_leave_no_descriptors_behind(_unused_ void **state) {
        needs_sshd();
        size_t before = open_descriptors();
        struct remote *r = connected();
        run(r, "true", NULL, NULL);
        remote_free(r);
        r = connected();
        int status;
        remote_exec(r, &(struct remote_exec){.command = "kill -KILL $PPID"}, &status, NULL);
        remote_free(r);
        r = NULL;
        struct remote_address address = sshd_address(sshd);
        address.key_path = address.host_key_pub;
        assert_true(remote_connect(&address, 5000, &r, NULL) < 0);
        address = sshd_address(sshd);
        _cleanup_free_ char *other = sshd_path(sshd, "leak"), *other_pub = sshd_path(sshd, "leak.pub");
        assert_int_equal(remote_make_key(other, "x", NULL), 0);
        address.key_path = other;
        assert_int_equal(remote_connect(&address, 5000, &r, NULL), -EACCES);
        address.host_key_pub = other_pub;
        assert_int_equal(remote_connect(&address, 5000, &r, NULL), -EKEYREJECTED);
        assert_int_equal(open_descriptors(), before);
}

/* With this process's own descriptors. */

struct child {
        pid_t pid;
        int in, out, errors; /* our ends */
};

/* In a child: connects and runs @command on pipes; exits with the command's status, or 99. */
static struct child spawn_stdio(const char *command) {
        int in[2], out[2], errors[2];
        assert_int_equal(pipe(in) | pipe(out) | pipe(errors), 0);
        pid_t pid = fork();
        if (pid == 0) {
                dup2(in[0], 0);
                dup2(out[1], 1);
                dup2(errors[1], 2);
                for (int fd = 3; fd < 64; fd++)
                        close(fd);
                const struct remote_address address = sshd_address(sshd);
                struct remote *r = NULL;
                int status = 99;
                struct error err = ERROR_INIT;
                if (remote_connect(&address, 10000, &r, NULL) < 0 ||
                    remote_exec_stdio(r, command, false, &status, &err) < 0)
                        status = err.code ? (int)err.code : 99;
                _exit(status);
        }
        close(in[0]);
        close(out[1]);
        close(errors[1]);
        return (struct child){.pid = pid, .in = in[1], .out = out[0], .errors = errors[0]};
}

static int child_end(struct child *c) {
        closep_(&c->in);
        closep_(&c->out);
        closep_(&c->errors);
        int status = 0;
        assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void exec_passes_this_process_s_descriptors_through(_unused_ void **state) {
        needs_sshd();
        struct child c = spawn_stdio("cat; echo oops >&2; exit 6");
        assert_int_equal(write(c.in, "hello\n", 6), 6);
        closep_(&c.in);
        c.in = -1;
        _cleanup_buf_ struct buf out = BUF_INIT(1000), errors = BUF_INIT(1000);
        while (buf_read(&out, c.out) > 0)
                ;
        while (buf_read(&errors, c.errors) > 0)
                ;
        assert_string_equal(buf_str(&out), "hello\n");
        assert_string_equal(buf_str(&errors), "oops\n");
        assert_int_equal(child_end(&c), 6);
}

static void a_slow_reader_gets_everything_while_input_flows(_unused_ void **state) {
        needs_sshd();
        _cleanup_free_ char *data = noise(TEN_MB);
        struct child c = spawn_stdio("cat");
        pid_t writer = fork();
        if (writer == 0) {
                close(c.out);
                for (size_t at = 0; at < TEN_MB;) {
                        ssize_t n = write(c.in, data + at, TEN_MB - at);
                        if (n < 0)
                                _exit(1);
                        at += (size_t)n;
                }
                _exit(0);
        }
        closep_(&c.in);
        c.in = -1;
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL); /* everything on the way is full now */
        _cleanup_buf_ struct buf out = BUF_INIT(TEN_MB + 70000);
        while (buf_read(&out, c.out) > 0)
                ;
        assert_int_equal(out.len, TEN_MB);
        assert_memory_equal(out.data, data, TEN_MB);
        assert_int_equal(child_end(&c), 0);
        waitpid(writer, NULL, 0);
}

static void a_reader_that_goes_away_ends_the_command(_unused_ void **state) {
        needs_sshd();
        struct child c = spawn_stdio("yes");
        char some[100];
        assert_true(read(c.out, some, sizeof(some)) > 0);
        closep_(&c.out);
        c.out = -1;
        assert_int_equal(child_end(&c), 128 + SIGPIPE);
}

static void a_reader_that_goes_away_ends_a_silent_command_at_once(_unused_ void **state) {
        needs_sshd();
        struct child c = spawn_stdio("echo ready; exec sleep 20");
        char some[6];
        assert_int_equal(read(c.out, some, 6), 6);
        uint64_t before = now_ms();
        closep_(&c.out);
        c.out = -1;
        assert_int_equal(child_end(&c), 128 + SIGPIPE);
        assert_in_range(now_ms() - before, 0, 3000);
}

static void sigterm_ends_the_command(_unused_ void **state) {
        needs_sshd();
        struct child c = spawn_stdio("echo ready; exec sleep 30");
        char some[6];
        assert_int_equal(read(c.out, some, 6), 6);
        uint64_t before = now_ms();
        kill(c.pid, SIGTERM);
        int status = child_end(&c);
        /* Whether sshd passes the signal on (143) or the channel is closed depends on the user. */
        assert_true(status == ERR_INTERRUPTED || status == 128 + SIGTERM);
        assert_in_range(now_ms() - before, 0, 3000);
}

static void read_until(int fd, struct buf *b, const char *text) {
        uint64_t deadline = now_ms() + 10000;
        while (!strstr(buf_str(b), text)) {
                struct pollfd pfd = {.fd = fd, .events = POLLIN};
                if (now_ms() > deadline || poll(&pfd, 1, 10000) <= 0 || buf_read(b, fd) <= 0)
                        fail_msg("\"%s\" did not come; got: %s", text, buf_str(b));
        }
}

/* sshd gives a terminal to group tty, which without root works only where the kernel has done so already. */
static bool sshd_can_make_terminals(void) {
        int master = -1, slave = -1;
        struct stat st;
        const struct group *tty = getgrnam("tty");
        if (getuid() == 0 || !tty || openpty(&master, &slave, NULL, NULL, NULL) < 0)
                return true;
        bool ok = fstat(slave, &st) == 0 && st.st_gid == tty->gr_gid;
        close(master);
        close(slave);
        return ok;
}

static void a_terminal_has_its_size_follows_it_and_is_put_back(_unused_ void **state) {
        needs_sshd();
        if (!sshd_can_make_terminals())
                must_skip("/dev/pts is mounted without gid=5 (tty): an sshd without root can make no terminals");
        int master = -1;
        struct winsize size = {.ws_row = 33, .ws_col = 101};
        pid_t pid = forkpty(&master, NULL, NULL, &size);
        if (pid == 0) {
                struct termios before, after;
                tcgetattr(0, &before);
                const struct remote_address address = sshd_address(sshd);
                struct remote *r = NULL;
                int status = 99;
                struct error err = ERROR_INIT;
                if (remote_connect(&address, 10000, &r, &err) < 0 ||
                    remote_exec_stdio(r,
                                      "trap 'stty size' WINCH; stty size; read line; echo \"got $line\"; sleep 0.2; "
                                      "exit 7",
                                      true, &status, &err) < 0) {
                        dprintf(1, "%s", err.message);
                        _exit(99);
                }
                tcgetattr(0, &after);
                _exit(before.c_lflag == after.c_lflag && before.c_iflag == after.c_iflag ? status : 98);
        }
        _cleanup_buf_ struct buf out = BUF_INIT(10000);
        read_until(master, &out, "33 101");
        size.ws_row = 44;
        ioctl(master, TIOCSWINSZ, &size);
        /* The shell reports the new size once its `read` returns. */
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        assert_int_equal(write(master, "word\r", 5), 5);
        read_until(master, &out, "44 101");
        read_until(master, &out, "got ");
        int status = 0;
        while (buf_read(&out, master) > 0)
                ;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), 7);
        close(master);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        folder_test(keys_are_what_openssh_reads),
                        folder_test(keys_that_exist_stay),
                        folder_test(a_comment_cannot_add_a_line_to_a_public_key),
                        folder_test(a_damaged_private_key_is_an_error),
                        cmocka_unit_test(nobody_listening_is_refused),
                        cmocka_unit_test(a_banner_that_hangs_ends_at_the_time_limit),
                        cmocka_unit_test(what_hangs_up_was_not_up_yet),
                        cmocka_unit_test(what_is_no_ssh_server_is_told_apart),
                        cmocka_unit_test(the_banner_of_sshd_is_seen),
                        cmocka_unit_test(another_host_key_is_rejected),
                        cmocka_unit_test(a_key_that_sshd_does_not_know_is_refused),
                        cmocka_unit_test(the_users_own_ssh_configuration_does_not_matter),
                        cmocka_unit_test(statuses_and_both_outputs_arrive),
                        cmocka_unit_test(a_signal_counts_as_in_a_shell),
                        cmocka_unit_test(ten_megabytes_on_both_outputs_at_once),
                        cmocka_unit_test(ten_megabytes_go_in_and_come_back),
                        cmocka_unit_test(a_command_may_leave_its_input_unread),
                        cmocka_unit_test(a_status_long_after_the_outputs_ended_is_waited_for),
                        cmocka_unit_test(more_output_than_expected_is_an_error_and_no_flood),
                        cmocka_unit_test(a_command_ends_at_its_time_limit),
                        cmocka_unit_test(a_server_that_stands_still_does_not_hold_a_writer),
                        cmocka_unit_test(a_server_that_dies_is_a_lost_connection),
                        cmocka_unit_test(connections_leave_no_descriptors_behind),
                        cmocka_unit_test(exec_passes_this_process_s_descriptors_through),
                        cmocka_unit_test(a_slow_reader_gets_everything_while_input_flows),
                        cmocka_unit_test(a_reader_that_goes_away_ends_the_command),
                        cmocka_unit_test(a_reader_that_goes_away_ends_a_silent_command_at_once),
                        cmocka_unit_test(sigterm_ends_the_command),
                        cmocka_unit_test(a_terminal_has_its_size_follows_it_and_is_put_back),
        };
        return cmocka_run_group_tests_name("remote", tests, sshd_group_setup, sshd_group_teardown);
}
