/* SPDX-License-Identifier: MIT */
/*
 * A guest: a folder with guest.json (schema 1) and the files it names. See README, "Guests", for the format.
 */
#pragma once

#include <k3s-vm/err.h>
#include <k3s-vm/json.h>

struct guest {
        char *dir; /* absolute */
        char *flavor, *system, *version;
        /* Boot: kernel, initrd and command line, or a disk that boots itself. Absolute paths. */
        char *kernel, *initrd, *cmdline;
        char *boot_disk;
        char *boot_overlay; /* format of the boot disk ("raw" or "qcow2"), on which the VM's own disk is an overlay;
                             * NULL: the boot disk is raw and not written to */
        bool boot_uefi;     /* the boot disk has no boot loader for BIOS firmware */
        char *root_image, *root_serial;       /* NULL: the initrd is the root */
        char *data_serial, *data_mount;       /* NULL: no data disk */
        char *provision;                      /* "credentials" or "nocloud" */
        char *payload_serial;                 /* a payload disk is attached under this serial; NULL: baked in or none */
        char *payload_name, *payload_version; /* of a baked-in payload */
        bool agent;                           /* answers on the second serial line (agent.h) */
};
void guest_free(struct guest *g);
DEFINE_FREEP(struct guest, guest_free)
#define _cleanup_guest_ _cleanup_(guest_freep)

/* Reads and validates DIR/guest.json; every named file must be there, inside DIR. */
int guest_load(const char *dir, struct guest **ret, struct error *err);
/* For tests and fuzzers: the parsing alone. */
int guest_parse(const char *dir, const struct json *j, struct guest **ret, struct error *err);
