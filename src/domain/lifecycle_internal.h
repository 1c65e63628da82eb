/* SPDX-License-Identifier: MIT */
/* What the files of module `lifecycle` share. Not for anyone else. */
#pragma once

#include <k3s-vm/lifecycle.h>
#include <k3s-vm/payload.h>
#include <k3s-vm/vm.h>

/* What the user wants of the VM; a supervisor acts on it. */
int lifecycle_save_intent(const struct lifecycle *l, struct state *s, const char *intent, struct error *err);
/* A live QEMU whose state was being saved, or loaded, or kept as a snapshot, by a command or a supervisor that was
 * killed meanwhile: it goes on if its guest stands still for nothing, and is ended, @vm left empty, if its state is
 * whole. */
int lifecycle_settle(const struct lifecycle *l, struct state *s, struct process *vm, struct error *err);
/* So that a guest that has to boot after all finds everything it was told was written. Saving works without it. */
void lifecycle_sync_guest(const struct lifecycle *l, const struct state *s);
/* The payload that was chosen, fetched or built. */
int lifecycle_fetch_payload(const struct lifecycle *l, const struct payload_choice *choice, struct payload *ret,
                            struct error *err);
