/* SPDX-License-Identifier: MIT */
/*
 * Who holds a TCP port of this host: /proc/net/tcp and tcp6 give inode and user of each listener, /proc/PID/fd
 * the process behind an inode, and a process's command line whether it is a QEMU of ours. No outside tool.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <k3s-vm/err.h>
#include <k3s-vm/state.h>

struct listener {
        uint16_t port;
        uid_t uid;
        uint64_t inode;
        bool ipv6;
        bool wildcard; /* 0.0.0.0 or :: */
        bool loopback; /* in 127.0.0.0/8, or ::1 */
        bool claims;   /* stands in the way of 127.0.0.1: it is 127.0.0.1, ::1 ("localhost" too) or a wildcard */
};

/* Parses the text of /proc/net/tcp (or tcp6, proc_pid_net(5)), appending the listeners. Lines it cannot read are
 * skipped; returns their number. */
int listeners_parse(const char *text, size_t len, bool ipv6, struct listener **ret, size_t *ret_n);

struct port_holder {
        uint16_t port;
        uid_t uid;
        char *user;    /* login name, or the number */
        pid_t pid;     /* 0: a process that this user may not look into */
        char *command; /* its command line, printable, cut at 120 characters; NULL unknown */
        char *started; /* RFC 3339; NULL unknown */
        /* For a k3s-vm of this user: */
        char *vm_uuid, *vm_name, *vm_project; /* NULL when it is none; project NULL when not in the registry */
};
void port_holder_clear(struct port_holder *h);

struct port_scan;
/* Reads the listeners once; holders are looked up on demand, in one walk of /proc however many ports are
 * asked for. */
int port_scan_new(struct port_scan **ret, struct error *err);
void port_scan_free(struct port_scan *s);
DEFINE_FREEP(struct port_scan, port_scan_free)
#define _cleanup_port_scan_ _cleanup_(port_scan_freep)

/* Whether 127.0.0.1:@port is taken: a listener claims it (wildcard and IPv6 ones too), or the kernel will not
 * have it bound. Fills in @ret (may be NULL) when it is. @registry (may be NULL) names projects. */
bool port_taken(struct port_scan *s, uint16_t port, const struct registry *registry, struct port_holder *ret);

/* The error for a taken port: ERR_PORT, naming the holder and the command that frees it. @key is the config
 * key to change instead ("API_PORT"). */
int port_error(const struct port_holder *h, const char *key, struct error *err);

/* The first free port at or above @from that is in no registry entry either; 0 when there is none below +1000. */
uint16_t port_next_free(struct port_scan *s, uint16_t from, const struct registry *registry);

/* QEMU processes of this user whose command line carries this VM's UUID (`-uuid UUID`). The caller frees @ret. */
int vm_processes(const char *uuid, pid_t **ret, size_t *ret_n);

/* What a process of ours is for, read from its argument vector; the strings stay the vector's. */
struct vm_cmdline {
        const char *uuid;    /* of a QEMU; NULL for a supervisor */
        const char *project; /* of a supervisor; NULL for a QEMU */
        const char *name;    /* VM_NAME; not terminated: @name_len characters */
        size_t name_len;
};
/* False when it is no k3s-vm's QEMU or supervisor. For tests and fuzzers, too. */
bool vm_cmdline_parse(const struct strv *argv, struct vm_cmdline *ret);
