/* SPDX-License-Identifier: MIT */
/*
 * A guest that stands still while it boots.
 *
 * QEMU's translator (TCG) before version 8.1 can translate code while another virtual CPU changes it, and keep what it
 * saw (https://gitlab.com/qemu-project/qemu/-/issues/404). A Linux that boots changes its own code with the help of
 * breakpoints; once in some dozens of boots a CPU then meets a breakpoint that is long gone, again and again, with
 * interrupts off. Nothing but a reset helps, and before the guest's network is up a reset loses nothing: its disk's
 * file systems are journalled, and Kubernetes has not started.
 */
#pragma once

#include <sys/types.h>

#include <k3s-vm/qmp.h>

#define STANDSTILL_LOOK_MS 15000U /* between two looks */
#define STANDSTILL_LOOKS 2U       /* that found nothing done */
#define STANDSTILL_RESETS 2U      /* of one boot, then it is left alone */

struct standstill {
        uint64_t disk_operations, cpu_ms, looked_ms; /* at the last look */
        unsigned looks, resets;
};

/* One more look at the guest of process @pid, which has not brought its network up. True when it has been at full speed
 * and has not touched a disk since STANDSTILL_LOOKS looks, and was reset just now. */
bool standstill_look(struct standstill *s, struct qmp *q, pid_t pid);

/* The part of it that decides: whether a guest with these counters is to be reset. */
bool standstill_judge(struct standstill *s, uint64_t disk_operations, uint64_t cpu_ms, uint64_t now_ms);
