/* SPDX-License-Identifier: MIT */
/*
 * A guest without KVM can stand still (standstill.h). It is looked at: often while it boots and as long as it is busy
 * after that, when modules are loaded and Kubernetes starts, then now and then. Nobody may be waiting for it: a guest
 * reboots itself, a QEMU that crashed is started again.
 */
#include <k3s-vm/banner.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/gdb.h>
#include <k3s-vm/qemu.h>

#include "supervise_internal.h"

#define LOOKS_MAX 120 /* ten minutes, for one boot */
#define GDB_TIMEOUT_MS 2000

static bool is_translated(const struct supervisor *v) {
        const char *accel = qemu_option(&v->launch.argv, "-accel");
        return accel && str_starts(accel, "tcg");
}

/* One that was never heard to say that its network is up could be at work since long: it is reset only while the
 * command that started it waits, as that ends the boot once it has reached the guest. */
static bool is_known_to_boot(const struct supervisor *v) {
        _cleanup_close_ int lock = -1;
        return v->boot.announces || (v->boot.started && fs_lock(v->project->lock_path, 0, &lock, NULL) < 0);
}

/* QEMU drops what it has translated when its gdbstub had the guest take a step (gdb_vm_state_change(), gdbstub.c); no
 * command of its monitor does it. */
static int step(struct supervisor *v, const char *path, struct error *err) {
        _cleanup_free_ char *escaped = qemu_escape(path),
                            *command = xasprintf("gdbserver \"unix:%s,server=on,wait=off\"", escaped), *said = NULL;
        int r = qmp_human(v->qmp, command, QMP_TIMEOUT_MS, &said, err);
        if (r < 0)
                return r;
        _cleanup_close_ int fd = -1;
        r = starter_connect_gdb(&v->starter, &fd, err);
        return r < 0 ? r : gdb_step(fd, GDB_TIMEOUT_MS, err);
}

static void retranslate(struct supervisor *v) {
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_free_ char *path = launch_socket_path(&v->launch, QEMU_GDB);
        if (!path)
                return;
        int r = step(v, path, &err);
        qmp_human(v->qmp, "gdbserver none", QMP_TIMEOUT_MS, NULL, NULL);
        if (r < 0)
                qmp_call(v->qmp, "cont", NULL, QMP_TIMEOUT_MS, NULL, NULL);
        fs_unlink(path, NULL);
        supervise_note_text(v, r < 0 ? "not-retranslated" : "repair:retranslated", "why", err.message);
}

static uint64_t serial_size(const struct supervisor *v) {
        int64_t size = fs_size(v->project->serial_path);
        return size > 0 ? (uint64_t)size : 0;
}

/* Since the last look. */
static bool complains(struct supervisor *v) {
        static const char *const words[] = {"BUG: soft lockup", "rcu: INFO: rcu_"};
        uint64_t from = v->boot.serial_seen;
        v->boot.serial_seen = serial_size(v);
        bool found = false;
        for (size_t i = 0; i < ELEMENTSOF(words) && v->boot.serial_seen != from; i++)
                found = found || serial_says(v->project->serial_path, from, words[i]);
        return found;
}

void supervise_boot_look(struct supervisor *v) {
        struct standstill *s = &v->boot.standstill;
        if (!v->pidfd_source || !v->qmp || v->paused_ms || !is_translated(v))
                return;
        bool resettable = v->boot.under_way && is_known_to_boot(v);
        switch (standstill_look(s, v->qmp, v->pid, complains(v), resettable)) {
        case STANDSTILL_RETRANSLATE:
                retranslate(v);
                break;
        case STANDSTILL_RESET:
                if (qmp_call(v->qmp, "system_reset", NULL, QMP_TIMEOUT_MS, NULL, NULL) == 0)
                        supervise_note(v, "repair:reset-at-standstill", NULL);
                break;
        case STANDSTILL_NONE:
                break;
        }
        if (resettable && s->resets == STANDSTILL_RESETS && s->looks >= STANDSTILL_LOOKS_TO_RESET) {
                supervise_note(v, "guest-stands-still", NULL);
                supervise_boot_ended(v);
        }
}

static int on_boot_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        v->boot.looks++;
        if (v->boot.under_way &&
            (v->boot.looks == LOOKS_MAX || serial_says(v->project->serial_path, v->boot.serial_from, GUEST_NETWORK_UP)))
                supervise_boot_ended(v);
        supervise_boot_look(v);
        v->boot.timed = v->pidfd_source &&
                        (v->boot.under_way || (v->boot.standstill.busy && v->boot.looks < LOOKS_MAX));
        if (!v->boot.timed)
                loop_arm(v->boot.timer, 0, 0);
        return 0;
}

int supervise_boot_add(struct supervisor *v, struct error *err) {
        return loop_add_timer(v->loop, 0, 0, on_boot_timer, v, &v->boot.timer, err);
}

void supervise_boot_begins(struct supervisor *v, bool started) {
        if (!is_translated(v))
                return;
        /* A reset is followed by some that the firmware does: they are of the same boot. */
        bool was_up = serial_says(v->project->serial_path, v->boot.serial_from, GUEST_NETWORK_UP);
        v->boot.standstill = (struct standstill){.resets = was_up ? 0 : v->boot.standstill.resets};
        v->boot.announces = v->boot.announces || was_up;
        v->boot.started = started;
        v->boot.serial_from = v->boot.serial_seen = serial_size(v);
        v->boot.looks = 0;
        v->boot.under_way = v->boot.timed = true;
        loop_arm(v->boot.timer, STANDSTILL_LOOK_MS, STANDSTILL_LOOK_MS);
}

void supervise_boot_ended(struct supervisor *v) {
        v->boot.under_way = false;
}
