/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/socket.h>

#define LISTEN_BACKLOG 16

static int make_address(const char *path, struct sockaddr_un *ret, struct error *err) {
        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        if (strlen(path) >= sizeof(ret->sun_path)) {
                int r = err_set(err, ERR_HOST, ENAMETOOLONG, "the socket path %s is longer than %zu bytes", path,
                                sizeof(ret->sun_path) - 1);
                err_hint(err, "set XDG_RUNTIME_DIR to a shorter folder");
                return r;
        }
        memcpy(ret->sun_path, path, strlen(path) + 1);
        return 0;
}

int socket_listen(const char *path, int *ret_fd, struct error *err) {
        struct sockaddr_un address;
        int r = make_address(path, &address, err);
        if (r == 0)
                r = fs_unlink(path, err);
        if (r < 0)
                return r;
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0600) < 0 ||
            listen(fd, LISTEN_BACKLOG) < 0)
                return err_errno(err, errno, "cannot create the socket %s", path);
        *ret_fd = TAKE_FD(fd);
        return 0;
}

bool socket_peer_trusted(int fd) {
        struct ucred peer = {0};
        socklen_t size = sizeof(peer);
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
               (peer.uid == geteuid() || peer.uid == 0 || geteuid() == 0);
}

int socket_connect(const char *path, const char *what, unsigned timeout_ms, int *ret_fd, struct error *err) {
        struct sockaddr_un address;
        int r = make_address(path, &address, err);
        if (r < 0)
                return r;
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_errno(err, errno, "cannot create a socket");
        /* Where the listener's queue is full a blocking connect waits; this bounds that wait. */
        struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
        if (timeout_ms > 0)
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
        do
                r = connect(fd, (struct sockaddr *)&address, sizeof(address));
        while (r < 0 && errno == EINTR);
        if (r < 0 && (errno == EAGAIN || errno == EINPROGRESS))
                return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "%s does not answer on %s", what, path);
        if (r < 0)
                return err_errno(err, errno, "cannot reach %s on %s", what, path);
        if (!socket_peer_trusted(fd))
                return err_set(err, ERR_FAILED, EPERM, "%s belongs to another user", path);
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                return err_errno(err, errno, "cannot set up a socket");
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Room for the one descriptor of a message, aligned as its header must be. */
union control_space {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
};

int socket_send_message(int socket, const void *data, size_t len, int fd) {
        struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
        union control_space control = {.bytes = {0}};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control);
                struct cmsghdr *header = CMSG_FIRSTHDR(&message);
                *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
                header->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(header), &fd, sizeof(fd));
        }
        ssize_t n;
        do
                n = sendmsg(socket, &message, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

ssize_t socket_receive_message(int socket, void *data, size_t size, int *ret_fd) {
        struct iovec part = {.iov_base = data, .iov_len = size};
        union control_space control = {.bytes = {0}};
        struct msghdr message = {
                        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
        ssize_t n;
        do
                n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        _cleanup_close_ int fd = -1;
        const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
            header->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        if (message.msg_flags & MSG_TRUNC)
                return -EMSGSIZE;
        *ret_fd = TAKE_FD(fd);
        return n;
}
