/* SPDX-License-Identifier: MIT */
/*
 * While a guest boots without KVM it is looked at now and then, until it says that its network is up: one that stands
 * still is reset (standstill.h). That goes for its first boot and for those that nobody waits for.
 */
#include <string.h>

#include <k3s-vm/banner.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/qemu.h>

#include "supervise_internal.h"

#define LOOKS_MAX 40 /* ten minutes; a guest of the user's own may never say it */

static bool is_translated(const struct supervisor *v) {
        const char *accel = qemu_option(&v->launch.argv, "-accel");
        return accel && str_starts(accel, "tcg");
}

static int on_boot_timer(struct loop *loop, void *userdata) {
        struct supervisor *v = userdata;
        (void)loop;
        bool over = !v->pidfd_source || v->boot_looks++ == LOOKS_MAX ||
                    banner_network_up(v->project->serial_path, v->boot_serial_from);
        if (over)
                loop_arm(v->boot_timer, 0, 0);
        else if (v->qmp && !v->paused_ms && standstill_look(&v->standstill, v->qmp, v->pid))
                supervise_note(v, "repair:reset-at-standstill", NULL);
        return 0;
}

int supervise_boot_begin(struct supervisor *v, struct error *err) {
        return loop_add_timer(v->loop, 0, 0, on_boot_timer, v, &v->boot_timer, err);
}

void supervise_boot_started(struct supervisor *v) {
        if (!is_translated(v))
                return;
        int64_t serial_size = fs_size(v->project->serial_path);
        /* A reset is followed by some that the firmware does: they are of the same boot. */
        bool was_up = banner_network_up(v->project->serial_path, v->boot_serial_from);
        v->standstill = (struct standstill){.resets = was_up ? 0 : v->standstill.resets};
        v->boot_looks = 0;
        v->boot_serial_from = serial_size > 0 ? (uint64_t)serial_size : 0;
        loop_arm(v->boot_timer, STANDSTILL_LOOK_MS, STANDSTILL_LOOK_MS);
}
