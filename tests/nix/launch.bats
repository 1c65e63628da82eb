#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# How the program has nix build the guest: when, what is said, and what is left. With the real nix; the guest is small and
# never boots here (boot.bats does that).

load ../lib/common
load setup

setup_file() {
  skip_unless nix command -v nix
  nix_environment "$BATS_FILE_TMPDIR/nix"
  local folder=$BATS_FILE_TMPDIR/debian
  mkdir -p "$folder"/tree/{opt/k3s,usr/local/bin,usr/lib,etc/systemd/system}
  ln -s /var/lib/rancher/etc "$folder/tree/etc/rancher"
  mkdir -p "$folder/payload/bin" "$folder/empty"
  echo kernel >"$folder/vmlinuz"
  (cd "$folder/empty" && find . | cpio --quiet -o -H newc) >"$folder/initrd.img"
  mkfs.erofs --quiet "$folder/root.img" "$folder/tree"
  : >"$folder/payload/bin/k3s"
  mksquashfs "$folder/payload" "$folder/payload.img" -quiet -no-progress >/dev/null
  stub "$BATS_FILE_TMPDIR/stub" "$folder" "$folder" 1.34.1+k3s1
  stub "$BATS_FILE_TMPDIR/older" "$folder" "$folder" 1.33.5+k3s1
}

setup() {
  local config=$NIX_CONFIG top=$NIX_TOP
  setup_project
  export HOME=$top/home NIX_CONFIG=$config
  export FLAVOR=nixos VM_NAME=k3s-vm-nix-test K3S_VM_NIXPKGS=path:$BATS_FILE_TMPDIR/stub
  common_ports
  # What is run as nix is counted.
  CALLS=$BATS_TEST_TMPDIR/calls
  mkdir -p "$BATS_TEST_TMPDIR/bin"
  printf '#!/bin/bash\necho "$*" >>"%s"\nexec "%s" "$@"\n' "$CALLS" "$(command -v nix)" >"$BATS_TEST_TMPDIR/bin/nix"
  chmod +x "$BATS_TEST_TMPDIR/bin/nix"
  export PATH=$BATS_TEST_TMPDIR/bin:$PATH
  LINK=.k3s-vm/vm/result
}

# prepare: makes the VM, or makes sure of it, as each start does; a disk that is there would end `setup`.
prepare() {
  rm -f .k3s-vm/vm/data.qcow2 "$CALLS"
  run --separate-stderr "$K3S_VM" "$@" setup
  echo "$output"
  echo "$stderr"
}
calls() { if [ -e "$CALLS" ]; then grep -c '' "$CALLS"; else echo 0; fi; }

@test "the guest is built once, and linked as a root of the garbage collector" {
  prepare --debug
  [ "$status" -eq 0 ]
  [[ $stderr == *"built the NixOS guest"* ]]
  [[ $(readlink "$LINK") == "$NIX_STORE_DIR"/*-k3s-vm-guest ]]
  [ "$(jq -r .payload.baked.version "$LINK/guest.json")" = v1.34.1+k3s1 ]
  [[ $output == *'k3s v1.34.1+k3s1'* ]]
  nix-collect-garbage >/dev/null 2>&1
  [ -s "$LINK/store.erofs" ]
  [ ! -e "$LINK.new" ]
  # Nothing of it is in the way of the garbage collector once the VM is gone.
  "$K3S_VM" destroy --yes
  [ ! -e "$LINK" ]
}

@test "an unchanged guest takes no nix at all" {
  prepare
  [ "$(calls)" -gt 0 ]
  prepare
  [ "$status" -eq 0 ]
  [ "$(calls)" -eq 0 ]
  # A time is not a change.
  echo '{ }' >.k3s-vm/configuration.nix
  prepare
  [ "$(calls)" -gt 0 ]
  touch -d tomorrow .k3s-vm/configuration.nix
  prepare
  [ "$status" -eq 0 ]
  [ "$(calls)" -eq 0 ]
}

@test "configuration.nix and the files that it needs are part of the guest, through links too" {
  prepare
  first=$(readlink "$LINK")
  mkdir -p .k3s-vm/nixos elsewhere
  echo '{ k3sVm.kernelModules = [ "nbd" ]; boot.kernelParams = [ "from=${baseNameOf ./nixos/name}" (builtins.readFile ./nixos/name) ]; }' \
    >elsewhere/guest.nix
  ln -s ../elsewhere/guest.nix .k3s-vm/configuration.nix
  printf 'word=one' >.k3s-vm/nixos/name
  prepare
  [ "$status" -eq 0 ]
  [ "$(readlink "$LINK")" != "$first" ]
  grep -q 'from=name word=one' "$LINK/cmdline"
  printf 'word=two' >.k3s-vm/nixos/name
  prepare
  grep -q 'word=two' "$LINK/cmdline"
  # Without it, the guest is what it was.
  rm -r .k3s-vm/configuration.nix .k3s-vm/nixos
  prepare
  [ "$(readlink "$LINK")" = "$first" ]
}

@test "nix build .#guest makes a folder that the program takes, with the whole closure in its image" {
  with_stub "$BATS_FILE_TMPDIR/stub" build --out-link "$PWD/guest" .#guest
  init=$(sed -n 's/^init=\([^ ]*\) .*/\1/p' guest/cmdline)
  [[ $init == "$NIX_STORE_DIR"/*/init ]]
  [ "$(jq -r .boot.cmdline guest/guest.json)" = "$(cat guest/cmdline)" ]
  fsck.erofs --extract=store guest/store.erofs >/dev/null
  [ -x "store/${init#"$NIX_STORE_DIR"/}" ]
  # Units name programs by their path in the store: each of them is in the image.
  agent=$(sed -n 's/^ExecStart=//p' "store/$(basename "${init%/init}")/root/etc/systemd/system/k3s-vm-agent.service")
  for word in $agent; do [ -e "store/${word#"$NIX_STORE_DIR"/}" ] || [ -L "store/${word#"$NIX_STORE_DIR"/}" ]; done
  # Two builds of it are the same, byte for byte.
  with_stub "$BATS_FILE_TMPDIR/stub" build --rebuild --no-link .#guest
  FLAVOR=$PWD/guest K3S_VERSION=none "$K3S_VM" setup
}

@test "what nix is at is told while it works" {
  prepare
  echo '{ boot.kernelParams = [ "told=1" ]; }' >.k3s-vm/configuration.nix
  .k3s-vm/vm/nixos/build "$PWD/.k3s-vm" "$PWD/$LINK" 3>progress
  cat progress
  grep -q '^phase evaluating' progress
  grep -q '^phase building k3s-vm-guest ([0-9]*)$' progress
}

@test "a mistake in configuration.nix is shown as nix says it, and the guest that was there stays" {
  prepare
  first=$(readlink "$LINK")
  echo '{ services.k3s.manifest = { }; }' >.k3s-vm/configuration.nix
  prepare
  [ "$status" -eq 1 ]
  [[ $stderr == *'the NixOS guest could not be built'* ]]
  [[ $stderr == *services.k3s.manifest*'does not exist'* ]]
  [[ $stderr == *nixos.log* ]]
  [ "$(readlink "$LINK")" = "$first" ]
  # It is tried again, not forgotten.
  prepare
  [ "$status" -eq 1 ]
  echo '{ }' >.k3s-vm/configuration.nix
  prepare
  [ "$status" -eq 0 ]
}

@test "a build that fails shows the builder's last lines" {
  prepare
  echo '{ pkgs, ... }: { services.k3s.images = [ (pkgs.runCommand "image.tar" { } "echo no such registry; false") ]; }' \
    >.k3s-vm/configuration.nix
  prepare
  [ "$status" -eq 1 ]
  [[ $stderr == *'no such registry'* ]]
}

@test "a guest that was collected as garbage is built again" {
  # One that no other test has.
  mkdir -m 700 .k3s-vm
  echo '{ boot.kernelParams = [ "garbage=1" ]; }' >.k3s-vm/configuration.nix
  prepare
  guest=$(readlink "$LINK")
  mv "$LINK" kept
  nix-collect-garbage >/dev/null 2>&1
  mv kept "$LINK"
  [ ! -e "$guest" ]
  run "$K3S_VM" doctor
  echo "$output"
  [[ $output == *'collected as garbage'* ]]
  prepare
  [ "$status" -eq 0 ]
  [ -s "$guest/guest.json" ]
}

@test "with everything in the store it works without a network" {
  skip_unless "a network namespace" unshare -n true
  prepare
  # New, so nix has to look at all of it.
  echo '{ boot.kernelParams = [ "offline=1" ]; }' >.k3s-vm/configuration.nix
  rm -f .k3s-vm/vm/data.qcow2
  unshare -n "$K3S_VM" setup
  grep -q offline=1 "$LINK/cmdline"
}

@test "a nixpkgs that cannot be fetched is said with what to do" {
  # The one of the lock file, from a server that is not there.
  unset K3S_VM_NIXPKGS
  export https_proxy=http://127.0.0.1:9 http_proxy=http://127.0.0.1:9
  prepare
  [ "$status" -eq 1 ]
  [[ $stderr == *K3S_VM_NIXPKGS* ]]
}

@test "flake.nix of the project takes the place of the guest, and its lock file is kept" {
  mkdir -m 700 .k3s-vm
  unset K3S_VM_NIXPKGS
  cat >.k3s-vm/flake.nix <<END
{
  inputs.nixpkgs.url = "path:$BATS_FILE_TMPDIR/stub";
  outputs = { nixpkgs, ... }: {
    packages.x86_64-linux.guest = (nixpkgs.lib.nixosSystem {
      modules = [ ./guest.nix { nixpkgs.hostPlatform = "x86_64-linux"; boot.kernelParams = [ "mine=1" ]; } ];
    }).config.system.build.k3sVmGuest;
  };
}
END
  prepare
  [ "$status" -eq 0 ]
  grep -q mine=1 "$LINK/cmdline"
  jq -e .nodes.nixpkgs.locked.narHash .k3s-vm/flake.lock
  prepare
  [ "$(calls)" -eq 0 ]
}

@test "K3s does not go back below the version of its data" {
  prepare
  first=$(readlink "$LINK")
  export K3S_VM_NIXPKGS=path:$BATS_FILE_TMPDIR/older
  # The disk is there, so this is an upgrade.
  run --separate-stderr "$K3S_VM" start
  echo "$stderr"
  [ "$status" -eq 6 ]
  [[ $stderr == *v1.33.5+k3s1*v1.34.1+k3s1* ]] && [[ $stderr == *reset* ]]
  [ "$(readlink "$LINK")" = "$first" ]
  # Without a disk there is no data that would be too new.
  prepare
  [ "$status" -eq 0 ]
  [ "$(jq -r .payload.baked.version "$LINK/guest.json")" = v1.33.5+k3s1 ]
}

@test "upgrade says how a guest with K3s in it gets a newer one" {
  prepare
  fails_with 4 services.k3s.package "$K3S_VM" upgrade --k3s v1.99.0+k3s1
}

fake_nix() { printf '#!/bin/sh\necho "%s"\n' "$1" >"$BATS_TEST_TMPDIR/bin/nix"; }

@test "a nix without flakes is too old, and the mend is said" {
  fake_nix 'nix (Nix) 2.3.16'
  prepare
  [ "$status" -eq 6 ]
  [[ $stderr == *'nix 2.3.16 is too old'* ]] && [[ $stderr == *'nix.package ='* ]]
  run "$K3S_VM" doctor
  echo "$output"
  [[ $output == *'version 2.3; flakes need 2.4 or later'* ]]
}

@test "the versions of nix's relatives are understood" {
  for version in 'nix (Lix, like Nix) 2.91.1' 'nix (Determinate Nix 3.6.2) 2.29.0' 'nix (Nix) 2.31.0pre20250712_b1245123'; do
    fake_nix "$version"
    prepare
    [[ $stderr != *'too old'* ]]
  done
}

@test "without nix the error says what installs it" {
  local folder folders
  IFS=: read -ra folders <<<"${PATH#*:}"
  for folder in "${folders[@]}"; do ln -s "$folder"/* "$BATS_TEST_TMPDIR/bin/" 2>/dev/null || true; done
  rm -f "$BATS_TEST_TMPDIR/bin/nix"
  PATH=$BATS_TEST_TMPDIR/bin
  prepare
  [ "$status" -eq 6 ]
  [[ $stderr == *nix* ]]
}

@test "auto is NixOS on a NixOS only" {
  skip_unless "a mount namespace" unshare -m true
  unset FLAVOR
  run "$K3S_VM" doctor
  echo "$output"
  [[ $output != *NixOS* ]]
  printf 'ID=nixos\nPRETTY_NAME="NixOS 26.05 (Yarara)"\n' >os-release
  run unshare -m bash -c 'mount --bind os-release "$(readlink -f /etc/os-release)" && exec "$0" doctor' "$K3S_VM"
  echo "$output"
  [[ $output == *'NixOS 26.05'* ]] && [[ $output == *"nix, version 2."* ]]
  run --separate-stderr unshare -m bash -c 'mount --bind os-release "$(readlink -f /etc/os-release)" && exec "$0" setup' "$K3S_VM"
  echo "$stderr"
  [ "$status" -eq 0 ]
  [[ $stderr == *'built the NixOS guest'* ]]
}

@test "a VM that was made of another guest keeps it" {
  mkdir guest
  cp "$BATS_FILE_TMPDIR"/debian/{vmlinuz,initrd.img} guest/
  cat >guest/guest.json <<'END'
{ "schema": 1, "flavor": "mine", "system": "x86_64-linux", "version": "1", "provision": "credentials",
  "boot": { "kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "quiet" },
  "data": { "serial": "k3s-vm-data", "mount": "/var" } }
END
  FLAVOR=$PWD/guest K3S_VERSION=none "$K3S_VM" setup
  prepare
  [ "$status" -eq 0 ]
  [ "$(calls)" -eq 0 ]
  [ ! -e "$LINK" ]
}
