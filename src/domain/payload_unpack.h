/* SPDX-License-Identifier: MIT */
/*
 * What a K3s binary carries compressed and unpacks at its first start, for payload.c alone: unpacked here, by the
 * binary itself, so that no guest has to do it. That takes a guest without KVM 20 seconds, this machine two.
 *
 * K3s leaves data/HASH/ below its data folder, the links data/current and, from 1.31 on, data/cni/, and a lock.
 */
#pragma once

#include <k3s-vm/archive.h>
#include <k3s-vm/err.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/strv.h>

struct unpacked {
        char *folder; /* temporary */
        int hold;
        struct archive_entry *entries; /* for an image: data/..., with links as they are to be in a guest */
        size_t n;
        struct strv strings; /* that the entries point to */
        uint64_t bytes;      /* of all files */
};
#define UNPACKED_INIT ((struct unpacked){.hold = -1})
/* Removes the folder too. */
void unpacked_clear(struct unpacked *u);
#define _cleanup_unpacked_ _cleanup_(unpacked_clear)

/*
 * Runs @program so that it unpacks into a temporary folder below @parent, and describes what it left there.
 *
 * Versions differ in what tells them where: an argument, a variable or the configuration, so all three do; the oldest
 * heed none. Hence the program is confined to that folder (confine.h), and where that cannot be it is not run. Nothing
 * of this needs to succeed: on an error the guest is left to unpack. ERR_INTERRUPTED is what a caller has to pass on.
 */
int payload_unpack(const char *program, const char *parent, unsigned timeout_ms, struct progress *progress,
                   struct unpacked *ret, struct error *err);
