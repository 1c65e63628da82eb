/* SPDX-License-Identifier: MIT */
/*
 * The NixOS guest: `nix build` of the flake that travels inside the program (src/guest/nixos), with what the project
 * adds: .k3s-vm/configuration.nix is one more module of it, .k3s-vm/flake.nix takes its place, .k3s-vm/nixos/ has the
 * files that either needs. The result, a folder with guest.json, is linked as .k3s-vm/vm/result, a root of Nix's
 * garbage collector.
 *
 * A hash over all of that decides whether nix is run at all.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/config.h>
#include <k3s-vm/progress.h>
#include <k3s-vm/project.h>

/* Whether FLAVOR means this guest here: "nixos", and, where no IMAGE is asked for, "auto" on a NixOS that has nix. */
bool guest_nixos_wanted(const struct config *c);
/* Whether the VM of @p was made of it. */
bool guest_nixos_made(const struct project *p);
/* The guest's folder, in the Nix store; the caller frees. Built if need be, by .k3s-vm/vm/nixos/build, whose log is
 * .k3s-vm/vm/nixos.log. @data_version is that of the K3s whose data the guest will find, NULL: none; an older K3s is
 * refused. */
int guest_nixos_ensure(const struct project *p, const char *data_version, struct progress *progress, char **ret_dir,
                       struct error *err);
