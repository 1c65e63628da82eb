/* SPDX-License-Identifier: MIT */
/*
 * A systemd user unit that starts a project's VM when its user logs in (or at boot, where lingering is on) and shuts it
 * down in order at the end. The program writes the unit, and the link that enables it, itself: no systemd has to run.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/project.h>

struct autostart {
        char *name; /* "k3s-vm-shop-1a2b3c4d.service": the VM, and the project by a hash of its path */
        char *path; /* of the unit */
        char *link; /* in default.target.wants */
};
void autostart_clear(struct autostart *a);
#define _cleanup_autostart_ _cleanup_(autostart_clear)

/* Where the unit of the project's VM is or would be; @vm_name is for a new one. */
int autostart_find(const struct project *p, const char *vm_name, struct autostart *ret, struct error *err);
bool autostart_is_on(const struct autostart *a);

/* Writes and enables the unit; @program is this program's absolute path. A folder that cannot be written is ERR_HOST
 * with the lines of a NixOS home-manager configuration that do the same. */
int autostart_on(const struct project *p, const struct autostart *a, const char *program, const char *vm_name,
                 struct error *err);
/* -ENOENT: it was not on. */
int autostart_off(const struct autostart *a, struct error *err);

/* The unit's text, and the same for home-manager; the caller frees. For tests, too. */
int autostart_unit(const struct project *p, const char *program, const char *vm_name, char **ret, struct error *err);
char *autostart_home_manager(const struct project *p, const struct autostart *a, const char *program);
