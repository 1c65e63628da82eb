/* SPDX-License-Identifier: MIT */
/* Keys, connecting and logging in. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/interrupt.h>

#include "remote_internal.h"

#define KEY_FILE_MAX 16384

struct libssh_library libssh;

static int load(struct error *err) {
        return LIBRARY_LOAD(libssh, LIBSSH_SONAME, LIBSSH_SYMBOLS, err);
}

static void key_freep(ssh_key *key) {
        if (*key)
                libssh.ssh_key_free(*key);
}

static void session_freep(ssh_session *session) {
        if (*session)
                libssh.ssh_free(*session);
}

static void char_freep(char **s) {
        if (*s)
                libssh.ssh_string_free_char(*s);
}

static void secret_freep(char **s) {
        if (*s)
                explicit_bzero(*s, strlen(*s));
        char_freep(s);
}

#define _cleanup_key_ _cleanup_(key_freep)

/* Keys. */

static int read_private_key(const char *path, ssh_key *ret, struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(KEY_FILE_MAX);
        int r = fs_read(path, KEY_FILE_MAX, &text, err);
        if (r < 0)
                return r;
        ssh_key key = NULL;
        int rc = libssh.ssh_pki_import_privkey_base64(buf_str(&text), NULL, NULL, NULL, &key);
        explicit_bzero(text.data, text.len);
        if (rc != SSH_OK)
                return err_set(err, ERR_FAILED, EBADMSG, "%s is not a private SSH key", path);
        *ret = key;
        return 0;
}

static int read_public_key(const char *path, ssh_key *ret, struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(KEY_FILE_MAX);
        int r = fs_read(path, KEY_FILE_MAX, &text, err);
        if (r < 0)
                return r;
        static const char type[] = "ssh-ed25519 ";
        ssh_key key = NULL;
        int rc = SSH_ERROR;
        if (str_starts(buf_str(&text), type)) {
                char *base64 = text.data + strlen(type);
                base64[strcspn(base64, " \t\r\n")] = '\0';
                rc = libssh.ssh_pki_import_pubkey_base64(base64, SSH_KEYTYPE_ED25519, &key);
        }
        if (rc != SSH_OK)
                return err_set(err, ERR_FAILED, EBADMSG, "%s is not an ed25519 public key", path);
        *ret = key;
        return 0;
}

static int write_public_key(const char *path, ssh_key key, const char *comment, struct error *err) {
        _cleanup_key_ ssh_key public = NULL;
        _cleanup_(char_freep) char *base64 = NULL;
        if (libssh.ssh_pki_export_privkey_to_pubkey(key, &public) != SSH_OK ||
            libssh.ssh_pki_export_pubkey_base64(public, &base64) != SSH_OK)
                return err_set(err, ERR_FAILED, EIO, "cannot derive the public key %s", path);
        /* The line goes into authorized_keys files: a newline in it would be a second entry. */
        _cleanup_free_ char *safe = str_printable(comment, strlen(comment));
        _cleanup_free_ char *line = xasprintf("ssh-ed25519 %s %s\n", base64, safe);
        return fs_write_atomic(path, line, strlen(line), 0644, err);
}

int remote_make_key(const char *path, const char *comment, struct error *err) {
        int r = load(err);
        if (r < 0)
                return r;
        _cleanup_free_ char *public_path = xasprintf("%s.pub", path);
        _cleanup_key_ ssh_key key = NULL;
        if (fs_exists(path)) {
                if (fs_exists(public_path))
                        return 0;
                r = read_private_key(path, &key, err);
        } else {
                _cleanup_(secret_freep) char *text = NULL;
                if (libssh.ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &key) != SSH_OK ||
                    libssh.ssh_pki_export_privkey_base64(key, NULL, NULL, NULL, &text) != SSH_OK)
                        return err_set(err, ERR_FAILED, EIO, "cannot make the SSH key %s", path);
                /* A public half that was left without its private one belongs to nothing. */
                r = fs_unlink(public_path, err);
                if (r == 0)
                        r = fs_write_atomic(path, text, strlen(text), 0600, err);
        }
        return r < 0 ? r : write_public_key(public_path, key, comment, err);
}

/* Sockets. */

/* 0, -ETIMEDOUT or -ECANCELED. */
static int poll_until(int fd, short events, uint64_t deadline_ms) {
        for (;;) {
                uint64_t now = now_ms();
                struct pollfd pfds[] = {{.fd = fd, .events = events}, {.fd = interrupt_fd(), .events = POLLIN}};
                int n = poll(pfds, ELEMENTSOF(pfds), now >= deadline_ms ? 0 : (int)(deadline_ms - now));
                if (n > 0)
                        return pfds[1].revents ? -ECANCELED : 0;
                if (n == 0)
                        return -ETIMEDOUT;
                if (errno != EINTR)
                        return -errno;
        }
}

/* A non-blocking connected socket. */
static int connect_to(const struct addrinfo *address, uint64_t deadline_ms, int *ret) {
        _cleanup_close_ int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, address->ai_addr, address->ai_addrlen) < 0) {
                if (errno != EINPROGRESS)
                        return -errno;
                int r = poll_until(fd, POLLOUT, deadline_ms);
                if (r < 0)
                        return r;
                int error = 0;
                if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)}) < 0)
                        return -errno;
                if (error != 0)
                        return -error;
        }
        /* libssh sets this only on sockets it has opened itself. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        *ret = TAKE_FD(fd);
        return 0;
}

static int open_socket(const char *host, uint16_t port, uint64_t deadline_ms, int *ret, struct error *err) {
        _cleanup_free_ char *service = xasprintf("%u", port);
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        struct addrinfo *addresses = NULL;
        int rc = getaddrinfo(host, service, &hints, &addresses);
        if (rc != 0)
                return err_set(err, ERR_FAILED, EHOSTUNREACH, "cannot find the host %s: %s", host, gai_strerror(rc));
        int r = -EHOSTUNREACH;
        for (struct addrinfo *a = addresses; a && r < 0 && r != -ECANCELED; a = a->ai_next)
                r = connect_to(a, deadline_ms, ret);
        freeaddrinfo(addresses);
        if (r == -ECANCELED)
                return interrupt_check(err);
        if (r == -ETIMEDOUT)
                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "cannot connect to %s:%u: no answer", host, port);
        return r < 0 ? err_errno(err, -r, "cannot connect to %s:%u", host, port) : 0;
}

int remote_probe_banner(uint16_t port, unsigned timeout_ms, struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        _cleanup_close_ int fd = -1;
        int r = open_socket("127.0.0.1", port, deadline, &fd, err);
        if (r < 0)
                return r;
        /* Only the beginning matters; RFC 4253, section 4.2, allows other lines before it, which no sshd sends. */
        char banner[4];
        for (size_t have = 0; have < sizeof(banner);) {
                r = poll_until(fd, POLLIN, deadline);
                if (r == -ECANCELED)
                        return interrupt_check(err);
                if (r < 0)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "port %u did not greet as SSH in time", port);
                ssize_t n = recv(fd, banner + have, sizeof(banner) - have, 0);
                if (n < 0 && (errno == EINTR || errno == EAGAIN))
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "port %u does not greet as SSH", port);
                if (n == 0)
                        return err_errno(err, ECONNRESET, "port %u does not greet as SSH", port);
                have += (size_t)n;
        }
        if (memcmp(banner, "SSH-", sizeof(banner)) != 0)
                return err_set(err, ERR_FAILED, EPROTO, "what listens on port %u is not an SSH server", port);
        return 0;
}

/* Sessions. */

int remote_wait(struct remote *r, uint64_t deadline_ms) {
        int flags = libssh.ssh_get_poll_flags(r->session);
        short events = 0;
        if (flags & SSH_READ_PENDING)
                events |= POLLIN;
        if (flags & SSH_WRITE_PENDING)
                events |= POLLOUT;
        return poll_until(r->fd, events ? events : POLLIN, deadline_ms);
}

char *remote_error_text(struct remote *r) {
        const char *text = libssh.ssh_get_error(r->session);
        static const char prefix[] = "Socket error: ";
        if (str_starts(text, prefix))
                text += strlen(prefix);
        return str_printable(text, strnlen(text, 512));
}

int remote_error(struct remote *r, struct error *err, const char *what) {
        _cleanup_free_ char *text = remote_error_text(r);
        bool gone = !libssh.ssh_is_connected(r->session) || str_eq(text, "disconnected") || strstr(text, "reset by") ||
                    strstr(text, "SSH_MSG_DISCONNECT");
        return err_set(err, ERR_FAILED, gone ? ECONNRESET : EPROTO, "%s: %s", what,
                       gone && !*text ? "the connection was lost" : text);
}

static int set_options(ssh_session session, const struct remote_address *address, socket_t *fd, struct error *err) {
        /* Whatever the user configured for other hosts must not matter here, and a user without a home
         * folder must not fail: libssh would look for one. */
        bool no = false;
        const struct {
                enum ssh_options_e option;
                const void *value;
        } options[] = {
                        {SSH_OPTIONS_PROCESS_CONFIG, &no},     {SSH_OPTIONS_SSH_DIR, "/nonexistent"},
                        {SSH_OPTIONS_KNOWNHOSTS, "/dev/null"}, {SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null"},
                        {SSH_OPTIONS_HOST, address->host},     {SSH_OPTIONS_USER, address->user},
                        {SSH_OPTIONS_HOSTKEYS, "ssh-ed25519"}, {SSH_OPTIONS_FD, fd},
        };
        for (size_t i = 0; i < ELEMENTSOF(options); i++)
                if (libssh.ssh_options_set(session, options[i].option, options[i].value) != SSH_OK)
                        return err_set(err, ERR_FAILED, EINVAL, "cannot set up SSH: %s", libssh.ssh_get_error(session));
        return 0;
}

static int timed_out(const struct remote_address *a, const char *step, struct error *err) {
        if (interrupt_pending())
                return interrupt_check(err);
        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s:%u did not answer in time while %s", a->host, a->port, step);
}

static int check_host_key(struct remote *r, const struct remote_address *address, ssh_key expected, struct error *err) {
        _cleanup_key_ ssh_key key = NULL;
        if (libssh.ssh_get_server_publickey(r->session, &key) != SSH_OK)
                return err_set(err, ERR_FAILED, EPROTO, "%s:%u sent no host key", address->host, address->port);
        if (libssh.ssh_key_cmp(key, expected, SSH_KEY_CMP_PUBLIC) != 0)
                return err_set(err, ERR_FAILED, EKEYREJECTED, "%s:%u is another machine: its host key is not %s",
                               address->host, address->port, address->host_key_pub);
        return 0;
}

static int shake_hands(struct remote *r, const struct remote_address *address, uint64_t deadline_ms,
                       struct error *err) {
        int rc;
        while ((rc = libssh.ssh_connect(r->session)) == SSH_AGAIN)
                if (remote_wait(r, deadline_ms) < 0)
                        return timed_out(address, "greeting", err);
        if (rc == SSH_OK)
                return 0;
        _cleanup_free_ char *what = xasprintf("cannot speak SSH with %s:%u", address->host, address->port);
        /* A server without an ed25519 key cannot be the one whose key is known. */
        if (strstr(libssh.ssh_get_error(r->session), "server host key algo"))
                return err_set(err, ERR_FAILED, EKEYREJECTED,
                               "%s: it is another machine, without a key of type ed25519", what);
        return remote_error(r, err, what);
}

static int log_in(struct remote *r, const struct remote_address *address, ssh_key key, uint64_t deadline_ms,
                  struct error *err) {
        int rc;
        while ((rc = libssh.ssh_userauth_publickey(r->session, NULL, key)) == SSH_AUTH_AGAIN)
                if (remote_wait(r, deadline_ms) < 0)
                        return timed_out(address, "logging in", err);
        if (rc == SSH_AUTH_SUCCESS)
                return 0;
        if (rc == SSH_AUTH_DENIED || rc == SSH_AUTH_PARTIAL)
                return err_set(err, ERR_FAILED, EACCES, "%s:%u refused the login of %s with the key %s", address->host,
                               address->port, address->user, address->key_path);
        _cleanup_free_ char *what = xasprintf("cannot log in at %s:%u", address->host, address->port);
        return remote_error(r, err, what);
}

int remote_connect(const struct remote_address *address, unsigned timeout_ms, struct remote **ret, struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        int r = load(err);
        if (r < 0)
                return r;
        _cleanup_key_ ssh_key key = NULL;
        _cleanup_key_ ssh_key host_key = NULL;
        r = read_private_key(address->key_path, &key, err);
        if (r == 0)
                r = read_public_key(address->host_key_pub, &host_key, err);
        if (r < 0)
                return r;

        _cleanup_close_ int fd = -1;
        r = open_socket(address->host, address->port, deadline, &fd, err);
        if (r < 0)
                return r;
        _cleanup_(session_freep) ssh_session session = oom_check(libssh.ssh_new());
        libssh.ssh_set_blocking(session, 0);
        r = set_options(session, address, &fd, err);
        if (r < 0)
                return r;

        _cleanup_close_ int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (own < 0)
                return err_errno(err, errno, "cannot connect to %s:%u", address->host, address->port);
        struct remote *connection = xcalloc(1, sizeof(*connection));
        *connection = (struct remote){.session = TAKE_PTR(session), .fd = TAKE_FD(own)};
        fd = -1; /* libssh closes it from here on */
        _cleanup_remote_ struct remote *remote = connection;

        r = shake_hands(remote, address, deadline, err);
        /* libssh makes the socket blocking once it is connected, and would then sit in send(2) for as
         * long as a paused guest does not read. */
        if (r == 0 && fcntl(remote->fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
                r = err_errno(err, errno, "cannot set up the connection to %s:%u", address->host, address->port);
        if (r == 0)
                r = check_host_key(remote, address, host_key, err);
        if (r == 0)
                r = log_in(remote, address, key, deadline, err);
        if (r < 0)
                return r;
        remote->event = oom_check(libssh.ssh_event_new());
        if (libssh.ssh_event_add_session(remote->event, remote->session) != SSH_OK)
                return remote_error(remote, err, "cannot set up SSH");
        *ret = TAKE_PTR(remote);
        return 0;
}

void remote_free(struct remote *r) {
        if (!r)
                return;
        remote_close_sftp(r);
        if (r->event)
                libssh.ssh_event_free(r->event);
        /* Not ssh_disconnect(): libssh 0.10 then forgets a socket that it was given without closing it. */
        shutdown(r->fd, SHUT_RDWR);
        libssh.ssh_free(r->session);
        close(r->fd);
        free(r);
}
