/* SPDX-License-Identifier: MIT */
/*
 * What this machine has: distribution and how to install there, memory, processors, tools, acceleration.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/config.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>

enum host_family { HOST_UNKNOWN, HOST_DEBIAN, HOST_FEDORA, HOST_ARCH, HOST_SUSE, HOST_ALPINE, HOST_NIXOS };

struct host {
        enum host_family family;
        char *id; /* ID of os-release */
        char *pretty_name;
        unsigned cpus;       /* usable by this process */
        uint64_t memory_mib; /* total */
        uint64_t available_mib;
};
void host_free(struct host *h);
DEFINE_FREEP(struct host, host_free)
#define _cleanup_host_ _cleanup_(host_freep)
int host_detect(struct host **ret, struct error *err);

/* The command that installs what provides @tool here ("sudo apt-get install qemu-system-x86", a
 * configuration.nix line on NixOS); the caller frees. Known tools: qemu-system-x86_64, qemu-img, mmdebstrap,
 * mkfs.erofs, mksquashfs, go, dpkg-source, ssh, kubectl, k9s, nix; others give the tool's own name. */
char *host_install_command(const struct host *h, const char *tool);
/* ERR_HOST naming @tool and how to install it here. */
int host_missing(const char *tool, const char *what_for, struct error *err);

/* Acceleration: what runs guest code, found out by running some. */
struct accel {
        bool kvm;
        char *reason; /* why not KVM, one line with its mend; NULL when KVM is used */
};
void accel_clear(struct accel *a);
/* @wanted is ACCEL. "kvm" where it does not work is ERR_HOST. The probe's answer is kept for this boot in
 * @runtime_base (may be NULL). */
int accel_choose(const char *wanted, const char *runtime_base, struct accel *ret, struct error *err);

/* One line of `doctor`. */
struct check {
        char *name; /* "qemu", "kvm", "memory", ... */
        enum { CHECK_OK, CHECK_WARNING, CHECK_FAILED } result;
        char *text; /* what was found */
        char *fix;  /* the command or lines that mend it; NULL */
};
struct checks {
        struct check *items;
        size_t n;
};
void checks_clear(struct checks *c);
/* Every check that can be made without a VM. */
int host_check(const struct project *p, const struct config *c, struct checks *ret, struct error *err);
/* The checks a start needs; the first failed one as an error (ERR_HOST), warnings to @progress. */
int host_preflight(const struct project *p, const struct config *c, struct progress *progress, struct error *err);
