/* SPDX-License-Identifier: MIT */
/*
 * How a VM's QEMU ended last: VM/exit.json. The supervisor writes it when QEMU is gone and removes it when it
 * starts QEMU, so a record that is there is always about the last run. A file of its own, because state.json is
 * written by commands.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <k3s-vm/proc.h>
#include <k3s-vm/project.h>

enum vm_exit_kind {
        VM_EXIT_SHUTDOWN, /* the guest powered itself off, asked to or not */
        VM_EXIT_ENDED,    /* a command or a signal ended QEMU on purpose */
        VM_EXIT_PANIC,    /* the guest's kernel panicked */
        VM_EXIT_CRASH,    /* QEMU died */
        VM_EXIT_REBOOT,   /* the guest of a resumed VM reboots, which takes another QEMU */
};

struct vm_exit {
        enum vm_exit_kind kind;
        char *reason;     /* for people, one line, no full stop */
        uint64_t time_ms; /* wall clock */
        int pid;
        uint64_t start_time; /* of that QEMU, clock ticks since boot */
        char *qemu_lines;    /* its last words; NULL none */
        char *serial_lines;  /* the guest's last lines on the serial line; NULL none */
        bool stays_down;     /* crashed too often to be restarted */
};
void vm_exit_free(struct vm_exit *e);
DEFINE_FREEP(struct vm_exit, vm_exit_free)
#define _cleanup_vm_exit_ _cleanup_(vm_exit_freep)

/* What is known when QEMU is gone. */
struct vm_exit_facts {
        const char *shutdown_reason; /* of the SHUTDOWN event ("guest-shutdown", "host-qmp-quit", ...); NULL none */
        bool powerdown;              /* the power button was pressed by QMP before */
        bool panicked;
        bool unheard;                     /* its monitor was lost, so it could not say why */
        bool intended;                    /* the user asked for the VM to be down */
        const struct proc_result *result; /* NULL: not our child, so unknown */
};
/* The verdict; the caller frees @ret_reason. */
enum vm_exit_kind vm_exit_classify(const struct vm_exit_facts *facts, char **ret_reason);

/* -ENOENT: none; -EUCLEAN: damaged. */
int vm_exit_load(const struct project *p, struct vm_exit **ret, struct error *err);
int vm_exit_save(const struct project *p, const struct vm_exit *e, struct error *err);
int vm_exit_remove(const struct project *p, struct error *err);
