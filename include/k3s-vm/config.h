/* SPDX-License-Identifier: MIT */
/*
 * The project's configuration: PROJECT/.k3s-vm/config, KEY=VALUE lines that bash could source but that
 * are never executed. Values may be bare, 'single' or "double" quoted (with \" \\ \$ \`); `export` and
 * comments are allowed; expansions, command substitutions, arrays and continued lines are errors with the
 * line's number. Environment variables of the same names win over the file. Unknown keys are kept (and said
 * once with --debug); comments, order and unknown lines survive a save.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/project.h>
#include <k3s-vm/strv.h>

struct forward {
        uint16_t host_port; /* on 127.0.0.1 */
        uint16_t guest_port;
};

struct config {
        char *vm_name;            /* VM_NAME: DNS label, 1..63 of a-z 0-9 -, also the host name and node name */
        unsigned cpus;            /* VM_CPUS: 1..256 */
        unsigned memory_mib;      /* VM_MEMORY: 2048..1048576 */
        unsigned disk_gib;        /* VM_DISK: 10..65536 */
        uint16_t api_port;        /* API_PORT */
        uint16_t ssh_port;        /* SSH_PORT */
        uint16_t web_port;        /* WEB_PORT: config, environment or PROJECT/.env */
        uint16_t web_node_port;   /* WEB_NODE_PORT: the guest's side; default: that of the project's Service
                                   * (web_service.h), WEB_PORT if in 30000..32767, 30080 */
        char *flavor;             /* FLAVOR: auto, nixos, debian, cloud, or a folder with guest.json (absolute) */
        char *image;              /* IMAGE: a cloud image's name, a URL with its hash, or an absolute path */
        char *k3s_version;        /* K3S_VERSION: stable, latest, a channel, vX.Y.Z+k3sN, offline, none, or the
                                   * absolute path of a k3s binary */
        char *k3s_args;           /* K3S_ARGS: more arguments for `k3s server`, words separated by blanks */
        char *k3s_images;         /* K3S_AIRGAP_IMAGES: absolute path of an image archive to side-load, "" none */
        char *registry_mirrors;   /* REGISTRY_MIRRORS: "REGISTRY=URL ..." */
        char *registry_ca;        /* REGISTRY_CA: absolute path of a certificate, "" none */
        char *accel;              /* ACCEL: auto, kvm, tcg */
        unsigned idle_minutes;    /* IDLE_SUSPEND; 0: never */
        char *warm_reset;         /* WARM_RESET: on, off */
        char *auto_resume;        /* AUTO_RESUME: on, off */
        char *kubeconfig_path;    /* KUBECONFIG_PATH, relative to the project */
        char *web_env_path;       /* WEB_ENV_PATH, relative to the project */
        char *pod_api_server;     /* POD_API_SERVER: the API's address in the credentials that pods get */
        char *mirror_k3s;         /* MIRROR_K3S: an address with no slash at its end, "" none: BASE/channels and
                                   * BASE/VERSION/FILE are looked for there instead of at K3s's own servers */
        char *mirror_images;      /* MIRROR_IMAGES: the same for the cloud images' publishers */
        char *dns;                /* DNS: an IPv4 address for the guest's resolver, "" the host's */
        struct forward *forwards; /* FORWARDS: "HOST:GUEST ..." beside API, SSH and web */
        size_t n_forwards;
        bool api_port_default, ssh_port_default, web_port_default; /* nobody set it: may be moved */
        const char *sources[32];                                   /* by position in config_keys(); static strings */
        struct strv unknown_keys; /* in the file and kept, for --debug: "NAME (line 3)" */
};

void config_free(struct config *c);
DEFINE_FREEP(struct config, config_free)
#define _cleanup_config_ _cleanup_(config_freep)

/* Reads and validates. A missing file gives the defaults, and so does an empty value. Errors are ERR_USAGE with
 * file, line and key ("PROJECT/.k3s-vm/config:3: VM_CPUS: ..."). The file is at most 1 MiB of text; a symlink is
 * followed. Paths in FLAVOR, K3S_VERSION, K3S_AIRGAP_IMAGES and REGISTRY_CA that are not absolute are below the
 * project. */
int config_load(const struct project *p, struct config **ret, struct error *err);

/* Checks "KEY=VALUE" pairs against everything config_load() checks, together with what the file holds (and the
 * disk that is there: it cannot shrink), and then writes them, atomically, 0600, all or none. An empty value takes
 * the key out of the file. Creates the file (with a comment at its head) when missing; where it is a symlink,
 * the file that it names is replaced. */
int config_set(const struct project *p, const char *const *assignments, struct error *err);

/* VM_DISK against the size in GiB that the data disk has: ERR_USAGE when it is smaller. For every start. */
int config_check_disk(const struct project *p, const struct config *c, unsigned disk_gib, struct error *err);

/* One documented key, for `configure` and help. */
struct config_key {
        const char *name;
        const char *default_text; /* as shown */
        const char *help;
        enum { CONFIG_LIVE, CONFIG_RESTART, CONFIG_RESET } takes_effect;
};
const struct config_key *config_keys(size_t *ret_n);
/* The value of @key as text; the caller frees; NULL for an unknown key. */
char *config_value(const struct config *c, const char *key);
/* Where a value comes from: "default", "config", "environment", ".env", "manifests"; NULL for an unknown key. */
const char *config_source(const struct config *c, const char *key);
