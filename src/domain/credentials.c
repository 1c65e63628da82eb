/* SPDX-License-Identifier: MIT */
#include <k3s-vm/credentials.h>

const char *const credential_names[CREDENTIAL_MAX] = {
                [CREDENTIAL_AUTHORIZED_KEYS] = "ssh.authorized_keys.root",
                [CREDENTIAL_HOST_KEY] = "ssh.host_key",
                [CREDENTIAL_K3S_CONFIG] = "k3s.config",
                [CREDENTIAL_REGISTRIES] = "k3s.registries",
                [CREDENTIAL_REGISTRY_CA] = "k3s.registry-ca",
};
