#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The same options and packages, evaluated by nixpkgs' own lib, which somebody has to fetch: `lib` of nixpkgs, or of its mirror
# nix-community/nixpkgs.lib.
#
#   K3S_VM_TEST_NIXPKGS_LIB=…/lib bats tests/nix/real

load ../../lib/common
load ../setup

setup_file() {
  [ -e "${K3S_VM_TEST_NIXPKGS_LIB:?names the folder lib of nixpkgs}/default.nix" ]
  nix_environment "$BATS_FILE_TMPDIR/nix"
  export STUB=$BATS_FILE_TMPDIR/stub
  stub "$STUB"
  cp -R "$K3S_VM_TEST_NIXPKGS_LIB" "$STUB/real-lib"
}

@test "flake show and flake check evaluate all outputs" {
  with_stub "$STUB" flake show
  with_stub "$STUB" flake check --no-build
}

@test "the guest's configuration has what it should have" {
  evaluates "$GUEST.fileSystems" | jq -e '."/var" | .autoFormat and .autoResize'
  evaluates "$GUEST.services.openssh.authorizedKeysFiles" | jq -e '. == ["/run/credentials/@system/ssh.authorized_keys.root"]'
  evaluates packages.x86_64-linux.guest.drvPath
}

@test "an option that does not exist, or one of the wrong type, is an error that names it" {
  run with_module '{ services.k3s.manifest = { }; }' services.k3s.enable
  [ "$status" -ne 0 ]
  [[ $output == *services.k3s.manifest* ]]
  run with_module '{ services.k3s.disable = "traefik"; }' services.k3s.disable
  [ "$status" -ne 0 ]
  [[ $output == *services.k3s.disable* ]]
}

@test "every option of the guest has a description" {
  with_stub "$STUB" eval --json .#nixosConfigurations.guest-x86_64-linux.options.k3sVm \
    --apply 'options: map (name: options.${name} ? description) (builtins.attrNames options)' | jq -e 'length >= 4 and all'
}
