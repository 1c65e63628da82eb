/* SPDX-License-Identifier: MIT */
/*
 * What the commands do to a VM: make it, start it, stop it, remove it. Each step can be interrupted or killed at
 * any moment; the next run finds what is there and goes on. The caller holds the VM's lock (vm_lock()).
 */
#pragma once

#include <k3s-vm/config.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

struct lifecycle {
        const struct project *project;
        struct config *config; /* ports that are moved away from another VM's are changed here too */
        struct progress *progress;
        unsigned timeout_ms; /* for becoming Ready; 0: by acceleration */
};

/* Makes whatever of the VM is missing: folders, guest, payload, disk, keys, credentials, registry entry. What is
 * there already stays. @ret_state is the VM's state, saved. */
int lifecycle_prepare(const struct lifecycle *l, struct state **ret_state, struct error *err);

/* Makes what a VM of this configuration would consist of, whether there is one or not: guest and payload in the cache,
 * which @ret then names; that is no state of a VM. @with_images: of a K3s release its archive of container images, too.
 */
int lifecycle_fetch(const struct lifecycle *l, bool with_images, struct state **ret, struct error *err);

/* Brings the VM up and waits until it is Ready. @s is changed and saved. @ret_was_running tells that there was
 * nothing to start. */
int lifecycle_start(const struct lifecycle *l, struct state *s, bool *ret_was_running, struct error *err);

enum stop_how { STOP_SUSPEND, STOP_SHUTDOWN, STOP_FORCE };
/* ERR_STATE when it does not run. A suspended VM is woken up to be shut down; by force it loses its saved state. A save
 * that fails leaves the VM running. */
int lifecycle_stop(const struct lifecycle *l, struct state *s, enum stop_how how, struct error *err);

/* Snapshots (snapshot.h), of a VM in any state. */
int lifecycle_snapshot_save(const struct lifecycle *l, struct state *s, const char *name, struct error *err);
/* The VM is down afterwards; if it ran (@ret_was_running) it is to be started, and goes on from there. */
int lifecycle_snapshot_restore(const struct lifecycle *l, struct state *s, const char *name, bool *ret_was_running,
                               struct error *err);
int lifecycle_snapshot_delete(const struct lifecycle *l, const struct state *s, const char *name, struct error *err);

/* Ends the VM if it runs and removes its disk, keys, logs, kubeconfig, sockets and registry entry. Works without
 * a readable state, too. Configuration and caches stay; with @all the configuration goes as well. */
int lifecycle_destroy(const struct lifecycle *l, bool all, struct error *err);

/* The ports this VM listens on must be free, or held by itself. Ports that nobody chose move away from
 * those of another VM; the new ones are written to the configuration. Needs no VM. */
int lifecycle_check_ports(const struct lifecycle *l, const struct state *s, struct error *err);
