/* SPDX-License-Identifier: MIT */
/*
 * QEMU's argument vector, from configuration and guest. A pure function: it looks at no file and no
 * process, and knows no flavor by name. Paths may hold any byte but NUL: where QEMU splits a value at
 * commas they are doubled, which, unlike JSON, also carries bytes that are not UTF-8.
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/guest.h>
#include <k3s-vm/project.h>
#include <k3s-vm/strv.h>

struct qemu_spec {
        const struct project *project;
        const struct config *config;
        const struct guest *guest;
        const char *program; /* "qemu-system-x86_64" */
        const char *machine; /* "pc-q35-7.2" */
        const char *uuid;
        const char *runtime_dir;  /* where the sockets are; they reach QEMU by descriptor */
        const char *payload_path; /* NULL: none */
        const char *seed_path;    /* for cloud-init; NULL: none */
        const char *firmware;     /* NULL: QEMU's own BIOS */
        const char *machine_id;   /* 32 hexadecimal digits */
        bool kvm;
        /* systemd credentials: name and the file that holds it. */
        const struct qemu_credential {
                const char *name;
                const char *path;
        } * credentials;
        size_t n_credentials;
};
void qemu_argv(const struct qemu_spec *spec, struct strv *ret);
/* Gives an argument vector the forwards that @c has by now beside API, SSH and web port, and the NodePort that the last
 * leads to: those can be changed while the VM runs (`k3s-vm ports`, `k3s-vm apply`). */
void qemu_update_forwards(struct strv *argv, const struct config *c);
/* The value of an option, the first one of that name, in an argument vector; borrowed, NULL: it is not there. */
const char *qemu_option(const struct strv *argv, const char *name);
/* The rules in an argument vector, as qemu_forward_rule() makes them. */
void qemu_forwards(const struct strv *argv, struct strv *ret);
/* Gives an argument vector these and no others. */
void qemu_set_forwards(struct strv *argv, const struct strv *rules);

/* The network card's address; the caller frees. */
char *qemu_mac(const char *uuid);

/* @s with every comma doubled, as QEMU's option parsers want it; the caller frees. */
char *qemu_escape(const char *s);

/* The network's name for the monitor, and a forward as QEMU writes one ("tcp:127.0.0.1:8080-10.0.2.15:80"; the caller
 * frees). */
#define QEMU_NETDEV "net0"
char *qemu_forward_rule(const struct forward *f);

/* Names of the sockets in the runtime folder. The supervisor makes both listening sockets itself and hands
 * them to QEMU under these descriptor numbers: whoever connects afterwards never comes too early. */
#define QEMU_QMP_SUPERVISOR "qmp-supervisor.sock"
#define QEMU_QMP_COMMANDS "qmp.sock"
#define QEMU_AGENT "agent.sock" /* the guest's second serial line */
#define QEMU_GDB "gdb.sock"     /* QEMU makes this one, for as long as it is needed */
#define QEMU_FD_SUPERVISOR 3
#define QEMU_FD_COMMANDS 4
#define QEMU_FD_AGENT 5
/* What a resumed VM's devices are read from. */
#define QEMU_FD_DEVICES 6

/* The name that `ps -o comm` and `pgrep` show. */
#define QEMU_PROCESS_NAME "qemu-k3s-vm"

/* The newest versioned q35 machine type of the installed QEMU ("pc-q35-7.2"), asked of QEMU once and kept
 * in @cache_dir by the program's path, size and mtime. */
int qemu_machine(const char *program, const char *cache_dir, char **ret, struct error *err);
/* For tests: the same from the text of `-machine help`; NULL when there is none. The caller frees. */
char *qemu_newest_q35(const char *help);

/* qemu-img snapshot, of a VM that is down. */
enum qemu_snapshot { QEMU_SNAPSHOT_CREATE = 'c', QEMU_SNAPSHOT_APPLY = 'a', QEMU_SNAPSHOT_DELETE = 'd' };
int qemu_snapshot_disk(const char *path, enum qemu_snapshot what, const char *tag, struct error *err);

/* qemu-img create of a qcow2 disk; refuses to overwrite (-EEXIST). Grown with qemu-img resize, never
 * shrunk. Both need the VM to be down. */
int qemu_create_disk(const char *path, unsigned gib, struct error *err);
/* The same as an overlay of @base, a disk of the format @base_format ("raw", "qcow2"). */
int qemu_create_overlay(const char *path, unsigned gib, const char *base, const char *base_format, struct error *err);
int qemu_grow_disk(const char *path, unsigned gib, struct error *err);
