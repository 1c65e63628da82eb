/* SPDX-License-Identifier: MIT */
/*
 * What is remembered about a VM between commands: VM/state.json, and the registry of this user's VMs. Both
 * are caches: whether a VM runs is asked of the kernel and of QMP (vm.h). A damaged or missing state.json is
 * rebuilt as far as possible: -EUCLEAN tells that it was damaged.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/config.h>
#include <k3s-vm/json.h>
#include <k3s-vm/project.h>

struct phase_time {
        char *name; /* "guest", "boot", "ssh", "api", "node" */
        uint64_t ms;
};

struct state {
        char *uuid;          /* of this VM, on QEMU's command line */
        char *name;          /* VM_NAME when it was created */
        uint64_t created_ms; /* wall clock, ms since 1970 */
        char *guest_dir;     /* folder with guest.json, in the cache or anywhere */
        char *guest_version;
        char *payload_path; /* payload image, NULL when the guest has it baked in or there is none */
        char *payload_name; /* "k3s", "kubernetes" (offline), NULL none */
        char *payload_version;
        char *payload_description; /* one line for `status` */
        bool payload_none;         /* made without a payload, by K3S_VERSION=none */
        char *machine;             /* "pc-q35-7.2": kept, so that the virtual hardware never changes by itself */
        unsigned disk_gib;         /* size the data disk has */
        char *accel;               /* of the last start: "kvm", "tcg" */
        /* Of the running or last QEMU. */
        int pid;
        uint64_t start_time; /* clock ticks since boot */
        char *boot_id;
        uint64_t started_ms;  /* wall clock */
        uint64_t serial_from; /* where in serial.log its words begin, in bytes */
        uint16_t api_port, ssh_port, web_port;
        bool ready_once;           /* was Ready since it was created */
        char *intent;              /* "running", "stopped": what the user asked for last */
        struct phase_time *phases; /* of the last start */
        size_t n_phases;
};

void state_free(struct state *s);
DEFINE_FREEP(struct state, state_free)
#define _cleanup_state_ _cleanup_(state_freep)

struct state *state_new(void);
/* -ENOENT (ERR_NO_VM): no VM here. -EUCLEAN: damaged. -EPROTONOSUPPORT: of a newer schema. Members it does not
 * know are ignored. */
int state_load(const struct project *p, struct state **ret, struct error *err);
int state_save(const struct project *p, const struct state *s, struct error *err);
/* A QEMU was just started. Not saved yet. */
void state_note_qemu(const struct project *p, struct state *s, pid_t pid, uint64_t start_time);
/* For tests and fuzzers: the same without a file. */
int state_parse(const char *text, size_t len, struct state **ret, struct error *err);
struct json *state_to_json(const struct state *s);
/* 36 characters of RFC 4122's text form, lower case: what may become part of a path or an argument. */
bool state_uuid_valid(const char *uuid);
void state_set_phase(struct state *s, const char *name, uint64_t ms);
void state_clear_phases(struct state *s);

/* The registry: one small JSON file a VM, named by its UUID. */
struct registry_entry {
        char *uuid, *name, *project; /* project root */
        uint16_t api_port, ssh_port, web_port;
};
struct registry {
        struct registry_entry *entries;
        size_t n;
};
void registry_clear(struct registry *r);
#define _cleanup_registry_ _cleanup_(registry_clear)
/* Entries whose project folder no longer holds that VM are dropped from disk on the way; damaged ones skipped. */
int registry_load(const struct project *p, struct registry *ret, struct error *err);
int registry_put(const struct project *p, const struct state *s, struct error *err);
int registry_remove(const struct project *p, const char *uuid, struct error *err);
