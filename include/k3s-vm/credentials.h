/* SPDX-License-Identifier: MIT */
/*
 * What a guest is told at its boot, as a file each in VM/credentials. QEMU hands them over as systemd's credentials
 * (https://systemd.io/CREDENTIALS); a cloud image has them in its seed.
 */
#pragma once

enum credential {
        CREDENTIAL_AUTHORIZED_KEYS,
        CREDENTIAL_HOST_KEY,
        CREDENTIAL_K3S_CONFIG,
        CREDENTIAL_ALWAYS, /* those before it every VM has */
        CREDENTIAL_REGISTRIES = CREDENTIAL_ALWAYS,
        CREDENTIAL_REGISTRY_CA,
        CREDENTIAL_MAX
};

#define GUEST_CREDENTIALS "/run/credentials/@system/" /* where systemd has them */

/* Their names, those of the files as well. */
extern const char *const credential_names[CREDENTIAL_MAX];
