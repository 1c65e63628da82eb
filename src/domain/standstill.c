/* SPDX-License-Identifier: MIT */
#include <time.h>

#include <k3s-vm/fs.h>

#include "standstill.h"

#define MONITOR_TIMEOUT_MS 2000
#define BUSY_PERCENT 50 /* of one processor; a guest that waits for something needs next to nothing */

/* The disks' reads and writes since QEMU started. */
static bool count_disk_operations(struct qmp *q, uint64_t *ret) {
        _cleanup_json_ struct json *disks = NULL;
        if (qmp_call(q, "query-blockstats", NULL, MONITOR_TIMEOUT_MS, &disks, NULL) < 0 || !json_is_array(disks))
                return false;
        uint64_t sum = 0;
        for (const struct json *disk = json_first(disks); disk; disk = json_next(disk)) {
                const struct json *stats = json_get(disk, "stats");
                sum += json_u64_or(json_get(stats, "rd_operations"), 0) +
                       json_u64_or(json_get(stats, "wr_operations"), 0);
        }
        *ret = sum;
        return true;
}

static bool used_cpu_ms(pid_t pid, uint64_t *ret) {
        clockid_t clock;
        struct timespec t;
        if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
                return false;
        *ret = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
        return true;
}

static bool was_busy(const struct standstill *s, uint64_t cpu_ms, uint64_t now_ms) {
        return s->looked_ms == 0 || (cpu_ms - s->cpu_ms) * 100 >= (now_ms - s->looked_ms) * BUSY_PERCENT;
}

enum standstill_remedy standstill_judge(struct standstill *s, bool complains, bool resettable, uint64_t disk_operations,
                                        uint64_t cpu_ms, uint64_t now_ms) {
        bool first = s->looked_ms == 0;
        s->busy = was_busy(s, cpu_ms, now_ms);
        s->looks = !first && s->busy && disk_operations == s->disk_operations ? s->looks + 1 : 0;
        s->disk_operations = disk_operations;
        s->cpu_ms = cpu_ms;
        s->looked_ms = now_ms;
        if (resettable && s->looks >= STANDSTILL_LOOKS_TO_RESET && s->resets < STANDSTILL_RESETS) {
                s->looks = 0;
                s->resets++;
                return STANDSTILL_RESET;
        }
        /* Seldomer and seldomer: it may be a guest that computes something. */
        unsigned times = s->looks / STANDSTILL_LOOKS;
        bool due = times > 0 && s->looks % STANDSTILL_LOOKS == 0 && (times & (times - 1)) == 0;
        return complains || due ? STANDSTILL_RETRANSLATE : STANDSTILL_NONE;
}

enum standstill_remedy standstill_look(struct standstill *s, struct qmp *q, pid_t pid, bool complains,
                                       bool resettable) {
        uint64_t operations = s->disk_operations, cpu_ms = 0, now = now_ms();
        if (!used_cpu_ms(pid, &cpu_ms))
                return STANDSTILL_NONE;
        /* An idle guest costs no question. */
        if (was_busy(s, cpu_ms, now) && !count_disk_operations(q, &operations))
                return STANDSTILL_NONE;
        return standstill_judge(s, complains, resettable, operations, cpu_ms, now);
}
