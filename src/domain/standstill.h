/* SPDX-License-Identifier: MIT */
/*
 * A guest that stands still at full speed.
 *
 * QEMU's translator (TCG) before version 8.1 can translate code while another virtual CPU changes it, and keep what it
 * saw (https://gitlab.com/qemu-project/qemu/-/issues/404). A Linux changes its own code with the help of breakpoints,
 * mostly while it boots and loads modules; once in some dozens of boots a CPU then meets a breakpoint that is long
 * gone, again and again. The guest's memory is right: once QEMU has dropped what it has translated, the guest goes on
 * as if nothing had been. A guest whose own fault it is does not; while it boots it is reset then, which loses nothing
 * before its network is up: its disk's file systems are journalled, and Kubernetes has not started.
 */
#pragma once

#include <sys/types.h>

#include <k3s-vm/qmp.h>

#define STANDSTILL_LOOK_MS 5000U     /* between two looks while a guest boots */
#define STANDSTILL_LOOKS 3U          /* that found nothing done: QEMU is to translate anew */
#define STANDSTILL_LOOKS_TO_RESET 6U /* that found nothing done: a guest that boots is reset */
#define STANDSTILL_RESETS 2U         /* of one boot, then it is left alone */

struct standstill {
        uint64_t disk_operations, cpu_ms, looked_ms; /* at the last look */
        bool busy;                                   /* since the one before it, or there was none */
        unsigned looks, resets;
};

enum standstill_remedy { STANDSTILL_NONE, STANDSTILL_RETRANSLATE, STANDSTILL_RESET };

/* One more look at the guest of process @pid, and what is to be done about it. A guest has done nothing that has been
 * at full speed since the last look and has not touched a disk; or its kernel says so, @complains. @resettable: it has
 * not brought its network up. */
enum standstill_remedy standstill_look(struct standstill *s, struct qmp *q, pid_t pid, bool complains, bool resettable);

/* The part of it that decides. */
enum standstill_remedy standstill_judge(struct standstill *s, bool complains, bool resettable, uint64_t disk_operations,
                                        uint64_t cpu_ms, uint64_t now_ms);
