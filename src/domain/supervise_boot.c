/* SPDX-License-Identifier: MIT */
/*
 * While a guest boots without KVM it is looked at now and then, until it says that its network is up: one that stands
 * still is reset (standstill.h). Nobody may be waiting for it: a guest reboots itself, a QEMU that crashed is started
 * again.
 */
#include <k3s-vm/banner.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>

#include "supervise_internal.h"

#define LOOKS_MAX 40 /* at one boot: ten minutes */

static bool is_translated(const struct supervisor *v) {
        const char *accel = qemu_option(&v->launch.argv, "-accel");
        return accel && str_starts(accel, "tcg");
}

/* One that was never heard to say that its network is up could be at work since long: it is reset only while the
 * command that started it waits, as that ends the looks once it has reached the guest. */
static bool is_known_to_boot(const struct supervisor *v) {
        _cleanup_close_ int lock = -1;
        return v->boot.announces || (v->boot.started && fs_lock(v->project->lock_path, 0, &lock, NULL) < 0);
}

static void look(struct supervisor *v) {
        struct standstill *s = &v->boot.standstill;
        if (standstill_look(s, v->qmp, v->pid))
                supervise_note(v, "repair:reset-at-standstill", NULL);
        else if (s->resets == STANDSTILL_RESETS && s->looks == STANDSTILL_LOOKS) {
                supervise_note(v, "guest-stands-still", NULL);
                supervise_boot_ended(v);
        }
}

static int on_boot_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        if (!v->pidfd_source || v->boot.looks++ == LOOKS_MAX ||
            banner_network_up(v->project->serial_path, v->boot.serial_from))
                supervise_boot_ended(v);
        else if (v->qmp && !v->paused_ms && is_known_to_boot(v))
                look(v);
        return 0;
}

int supervise_boot_add(struct supervisor *v, struct error *err) {
        return loop_add_timer(v->loop, 0, 0, on_boot_timer, v, &v->boot.timer, err);
}

void supervise_boot_begins(struct supervisor *v, bool started) {
        if (!is_translated(v))
                return;
        int64_t size = fs_size(v->project->serial_path);
        /* A reset is followed by some that the firmware does: they are of the same boot. */
        bool was_up = banner_network_up(v->project->serial_path, v->boot.serial_from);
        v->boot.standstill = (struct standstill){.resets = was_up ? 0 : v->boot.standstill.resets};
        v->boot.announces = v->boot.announces || was_up;
        v->boot.started = started;
        v->boot.serial_from = size > 0 ? (uint64_t)size : 0;
        v->boot.looks = 0;
        loop_arm(v->boot.timer, STANDSTILL_LOOK_MS, STANDSTILL_LOOK_MS);
}

void supervise_boot_ended(struct supervisor *v) {
        loop_arm(v->boot.timer, 0, 0);
}
