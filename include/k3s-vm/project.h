/* SPDX-License-Identifier: MIT */
/*
 * Where everything of one VM lies. A project is a folder; its VM's files are below PROJECT/.k3s-vm, its
 * sockets in the runtime folder (a socket address holds 107 bytes, a project path may be longer), shared
 * downloads and guests in the cache, and one registry entry a VM in the state folder.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/err.h>

struct project {
        char *root;          /* absolute, symlinks resolved */
        char *dir;           /* ROOT/.k3s-vm */
        char *config_path;   /* DIR/config */
        char *vm_dir;        /* DIR/vm */
        char *state_path;    /* VM/state.json */
        char *lock_path;     /* VM's command lock: DIR/lock (outlives destroy) */
        char *pid_path;      /* DIR/vm.pid */
        char *log_path;      /* DIR/vm.log: QEMU's stdout and stderr */
        char *events_path;   /* DIR/events.jsonl */
        char *serial_path;   /* VM/serial.log */
        char *data_disk;     /* VM/data.qcow2 */
        char *key_path;      /* VM/ssh_key, and .pub: for logging in */
        char *host_key_path; /* VM/ssh_host_key, and .pub: the guest's own */
        char *host_key_pub_path;
        char *known_hosts_path; /* VM/known_hosts: for OpenSSH */
        char *credentials_dir;  /* VM/credentials: files QEMU hands to the guest */
        char *cache_dir;        /* $XDG_CACHE_HOME/k3s-vm */
        char *registry_dir;     /* $XDG_STATE_HOME/k3s-vm/vms */
        char *runtime_base;     /* $XDG_RUNTIME_DIR/k3s-vm, else /tmp/k3s-vm-UID */
};

void project_free(struct project *p);
DEFINE_FREEP(struct project, project_free)
#define _cleanup_project_ _cleanup_(project_freep)

/* Finds the project: @dir if given (it must exist), else the nearest ancestor of the working folder with
 * a .k3s-vm folder, else the git root, else the working folder. Creates nothing. */
int project_find(const char *dir, struct project **ret, struct error *err);
/* Creates DIR (0700, with a .gitignore that ignores all of it) and VM. */
int project_create_dirs(const struct project *p, struct error *err);
/* The folder of this VM's sockets: RUNTIME_BASE/<first 12 characters of UUID>; the caller frees. With
 * @create the folder is made, 0700 and checked to be this user's. */
int project_runtime_dir(const struct project *p, const char *uuid, bool create, char **ret, struct error *err);
