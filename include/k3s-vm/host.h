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
/* The part of it that os-release(5) tells: family, id and name. For tests. */
void host_parse_os_release(const char *text, size_t len, struct host *ret);

/* The command that installs what provides @tool here ("sudo apt-get install qemu-system-x86", a
 * configuration.nix line on NixOS); the caller frees. Known tools: qemu-system-x86_64, qemu-img, mmdebstrap,
 * mkfs.erofs, mksquashfs, go, dpkg-source, dpkg-deb, apt-get, ssh, xz, newuidmap, kubectl, k9s, nix; others give the
 * tool's own name. */
char *host_install_command(const struct host *h, const char *tool);
/* The same for several (NULL-terminated) in as few commands as possible. */
char *host_install_tools(const struct host *h, const char *const *tools);
/* ERR_HOST naming @tool and how to install it here. */
int host_missing(const char *tool, const char *what_for, struct error *err);

/* Acceleration: what runs guest code, found out by running some. */
struct accel {
        bool kvm;
        char *reason;  /* why not KVM, one line with its mend; NULL when KVM is used */
        char *problem; /* the same without the mend */
        char *fix;     /* the mend alone; NULL when KVM is used or there is none */
};
void accel_clear(struct accel *a);
#define _cleanup_accel_ _cleanup_(accel_clear)
/* @wanted is ACCEL. "kvm" where it does not work is ERR_HOST. The probe's answer is kept for this boot in
 * @runtime_base (NULL: asked anew and not kept). */
int accel_choose(const char *wanted, const char *runtime_base, struct accel *ret, struct error *err);
/* Whether @device ("/dev/kvm") runs guest code; takes a few ms, or up to a second where it does not. For
 * accel_choose() and tests. */
void accel_probe(const char *device, const char *runtime_base, struct accel *ret);

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
#define _cleanup_checks_ _cleanup_(checks_clear)
/* Every check that can be made without a VM. With @c NULL the configuration is loaded here, and one that is
 * wrong becomes a failed check, too. */
int host_check(const struct project *p, const struct config *c, struct checks *ret, struct error *err);
/* The checks a start needs; the first failed one as an error (ERR_HOST), warnings to @progress. Runs no tool:
 * takes a few ms. What only a build needs is left out where there is a guest already. */
int host_preflight(const struct project *p, const struct config *c, struct progress *progress, struct error *err);
