/* SPDX-License-Identifier: MIT */
/*
 * A real sshd on a free port of 127.0.0.1 for the tests of module `remote`, with keys, configuration and
 * everything that is copied in one temporary folder. Its SFTP subsystem is a script that a test can replace.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/remote.h>

#include "must_skip.h"

#define FIRST_PORT 21550
#define LAST_PORT 21699

struct sshd {
        char *dir;
        char *key, *host_key_pub, *subsystem, *sftp_server;
        uint16_t port;
        struct process process;
        int run_dir; /* -1, or /run/sshd, locked for as long as it must be there */
        bool made_run_dir;
};

/* A listening socket on a free port. */
static inline int listen_somewhere(uint16_t *ret_port) {
        for (unsigned i = 0; i <= LAST_PORT - FIRST_PORT; i++) {
                uint16_t port = (uint16_t)(FIRST_PORT + ((unsigned)getpid() * 7 + i) % (LAST_PORT - FIRST_PORT + 1));
                int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
                struct sockaddr_in a = {.sin_family = AF_INET,
                                        .sin_port = htons(port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
                if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 8) == 0) {
                        *ret_port = port;
                        return fd;
                }
                close(fd);
        }
        fail_msg("no free port between %d and %d", FIRST_PORT, LAST_PORT);
        return -1;
}

static inline char *sshd_path(const struct sshd *s, const char *name) {
        return path_join(s->dir, name);
}

static inline void write_text(const char *path, const char *text, mode_t mode) {
        assert_int_equal(fs_write_atomic(path, text, strlen(text), mode, NULL), 0);
}

/* What SFTP talks to from now on: a command for sh. */
static inline void sshd_set_subsystem(const struct sshd *s, const char *command) {
        _cleanup_free_ char *text = xasprintf("#!/bin/sh\nexec %s\n", command);
        write_text(s->subsystem, text, 0700);
}

static inline char *find_sshd(void) {
        char *path = fs_find_program("sshd");
        return path ? path : fs_find_program("/usr/sbin/sshd");
}

static inline char *find_sftp_server(const char *sshd) {
        _cleanup_free_ char *bin = path_parent(sshd);
        _cleanup_free_ char *beside = path_join(bin, "../libexec/sftp-server");
        const char *const places[] = {"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
                                      "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server", beside};
        for (size_t i = 0; i < ELEMENTSOF(places); i++)
                if (access(places[i], X_OK) == 0)
                        return xstrdup(places[i]);
        return NULL;
}

static inline struct remote_address sshd_address(const struct sshd *s) {
        return (struct remote_address){
                        .host = "127.0.0.1",
                        .port = s->port,
                        .user = getpwuid(getuid())->pw_name,
                        .key_path = s->key,
                        .host_key_pub = s->host_key_pub,
        };
}

static inline void sshd_run(struct sshd *s, const char *sshd) {
        _cleanup_free_ char *config = sshd_path(s, "sshd_config"), *log = sshd_path(s, "log");
        _cleanup_free_ char *text =
                        xasprintf("Port %u\nListenAddress 127.0.0.1\nHostKey %s/host_key\n"
                                  "AuthorizedKeysFile %s/key.pub\nPidFile none\nUsePAM no\n"
                                  "StrictModes no\nPasswordAuthentication no\nLogLevel ERROR\n"
                                  "PermitRootLogin prohibit-password\nSubsystem sftp %s\n"
                                  "SetEnv HOME=%s PATH=%s/bin:/usr/bin:/bin\n", /* no start-up files of this user's
                                                                                   shell; programs of the tests */
                                  s->port, s->dir, s->dir, s->subsystem, s->dir, s->dir);
        write_text(config, text, 0600);
        _cleanup_fclose_ FILE *f = fopen(log, "we");
        struct proc_spec spec = PROC_SPEC_INIT;
        spec.argv = (const char *const[]){sshd, "-D", "-e", "-f", config, NULL};
        spec.stderr_fd = fileno(f);
        spec.die_with_parent = true;
        assert_int_equal(proc_spawn(&spec, &s->process, NULL), 0);
}

/* As root, sshd wants this folder for every connection; its package makes it when the service starts. Tests that run
 * side by side share it: it goes away again with the last of them. */
static inline void share_run_dir(struct sshd *s) {
        struct stat held, there;
        for (;;) {
                s->made_run_dir = mkdir("/run/sshd", 0755) == 0 || s->made_run_dir;
                s->run_dir = open("/run/sshd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (s->run_dir < 0)
                        continue;
                assert_int_equal(flock(s->run_dir, LOCK_SH), 0);
                if (fstat(s->run_dir, &held) == 0 && stat("/run/sshd", &there) == 0 && held.st_ino == there.st_ino)
                        return;
                close(s->run_dir); /* somebody else's last test has just removed it */
        }
}

static inline void release_run_dir(struct sshd *s) {
        if (s->made_run_dir && flock(s->run_dir, LOCK_EX | LOCK_NB) == 0)
                rmdir("/run/sshd");
        closep_(&s->run_dir);
}

/* Returns NULL where there is no sshd. */
static inline struct sshd *sshd_start(void) {
        _cleanup_free_ char *sshd = find_sshd();
        _cleanup_free_ char *sftp_server = sshd ? find_sftp_server(sshd) : NULL;
        if (!sftp_server)
                return NULL;
        struct sshd *s = xcalloc(1, sizeof(*s));
        s->process = PROCESS_INIT;
        s->sftp_server = TAKE_PTR(sftp_server);
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-test", &s->dir, NULL), 0);
        s->key = sshd_path(s, "key");
        s->host_key_pub = sshd_path(s, "host_key.pub");
        s->subsystem = sshd_path(s, "subsystem");
        _cleanup_free_ char *host_key = sshd_path(s, "host_key");
        assert_int_equal(remote_make_key(s->key, "test", NULL), 0);
        assert_int_equal(remote_make_key(host_key, "test host", NULL), 0);
        sshd_set_subsystem(s, s->sftp_server);
        s->run_dir = -1;
        if (getuid() == 0)
                share_run_dir(s);

        for (int attempt = 0; attempt < 5; attempt++) { /* the port may be taken between the two steps */
                close(listen_somewhere(&s->port));
                sshd_run(s, sshd);
                uint64_t deadline = now_ms() + 10000;
                while (now_ms() < deadline && proc_alive(s->process.pidfd)) {
                        if (remote_probe_banner(s->port, 1000, NULL) == 0)
                                return s;
                        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
                }
                proc_end(&s->process, 1000);
        }
        _cleanup_free_ char *log = sshd_path(s, "log");
        _cleanup_buf_ struct buf text = BUF_INIT(65536);
        fs_read(log, 65535, &text, NULL);
        fail_msg("sshd does not start: %s", buf_str(&text));
        return NULL;
}

static inline void sshd_stop(struct sshd *s) {
        if (!s)
                return;
        proc_end(&s->process, 2000);
        release_run_dir(s);
        fs_remove_tree(s->dir, NULL);
        free(s->dir);
        free(s->key);
        free(s->host_key_pub);
        free(s->subsystem);
        free(s->sftp_server);
        free(s);
}

/* The one of a group of tests; NULL where there is none. Not further up, where sshd is the program. */
static struct sshd *sshd;

static inline int sshd_group_setup(void **state _unused_) {
        sshd = sshd_start();
        return 0;
}

static inline int sshd_group_teardown(void **state _unused_) {
        sshd_stop(sshd);
        return 0;
}

static inline void needs_sshd(void) {
        if (!sshd)
                must_skip("no sshd or sftp-server here (Debian: openssh-server)");
}

static inline struct remote *connected(void) {
        needs_sshd();
        const struct remote_address address = sshd_address(sshd);
        struct remote *r = NULL;
        struct error err = ERROR_INIT;
        if (remote_connect(&address, 10000, &r, &err) < 0)
                fail_msg("%s", err.message);
        return r;
}
