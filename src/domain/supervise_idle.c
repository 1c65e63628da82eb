/* SPDX-License-Identifier: MIT */
/*
 * Whether anybody uses the VM: a connection to one of its ports shows in the kernel's table of TCP sockets while it is
 * open, and for a minute after it was closed (TIME_WAIT) at one of its ends. Both ends are on this machine, and a look
 * each half minute misses none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>

#include "supervise_internal.h"

#define TABLE "/proc/net/tcp"
#define TABLE_MAX_BYTES (16U << 20)
#define STATE_LISTEN 0x0aU /* TCP_LISTEN, include/net/tcp_states.h */

bool idle_port_used(const char *table, uint16_t port) {
        for (const char *line = strchr(table, '\n'); line && *line; line = strchr(line + 1, '\n')) {
                unsigned local, remote, state;
                if (sscanf(line, " %*u: %*8x:%4x %*8x:%4x %2x", &local, &remote, &state) == 3 &&
                    state != STATE_LISTEN && (local == port || remote == port))
                        return true;
        }
        return false;
}

/* "tcp:127.0.0.1:8080-10.0.2.15:80" */
static uint16_t port_of(const char *rule) {
        const char *colon = strchr(rule, ':'), *port = colon ? strchr(colon + 1, ':') : NULL;
        return port ? (uint16_t)strtoul(port + 1, NULL, 10) : 0;
}

static bool is_used(const struct supervisor *v) {
        _cleanup_buf_ struct buf table = BUF_INIT(TABLE_MAX_BYTES + 1);
        _cleanup_strv_ struct strv rules = {0};
        /* What cannot be told is taken for use. */
        if (fs_read(TABLE, TABLE_MAX_BYTES, &table, NULL) < 0)
                return true;
        qemu_forwards(&v->launch.argv, &rules);
        for (size_t i = 0; i < rules.len; i++)
                if (idle_port_used(buf_str(&table), port_of(rules.items[i])))
                        return true;
        return false;
}

void supervise_idle_begin(struct supervisor *v) {
        _cleanup_config_ struct config *c = NULL;
        if (config_load(v->project, &c, NULL) == 0)
                v->idle_limit_ms = (uint64_t)c->idle_minutes * 60 * 1000;
        v->used_ms = now_ms();
}

void supervise_idle_look(struct supervisor *v) {
        if (v->idle_limit_ms == 0)
                return;
        if (!v->qmp || v->paused_ms || is_used(v)) {
                v->used_ms = now_ms();
                return;
        }
        if (now_ms() - v->used_ms < v->idle_limit_ms)
                return;
        v->used_ms = now_ms(); /* should it not come to that, not again at once */
        _cleanup_error_ struct error err = ERROR_INIT;
        supervise_note(v, "idle", NULL);
        if (starter_doze(&v->starter, &err) < 0)
                supervise_note_text(v, "not-dozing", "why", err.message);
}
