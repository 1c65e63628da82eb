#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The flake's outputs, evaluated with a stub of nixpkgs whose options have types (tests/nix/stub). The program is built.

load ../lib/common
load setup

setup_file() {
  skip_unless nix command -v nix
  nix_environment "$BATS_FILE_TMPDIR/nix"
  export STUB=$BATS_FILE_TMPDIR/stub
  stub "$STUB"
}

@test "every Nix file parses" {
  cd "$ROOT"
  for file in $(git ls-files '*.nix'); do
    nix-instantiate --parse "$file" >/dev/null || { echo "$file"; return 1; }
  done
}

@test "flake show and flake check evaluate all outputs of both systems, in five seconds or less" {
  start=$EPOCHREALTIME
  run with_stub "$STUB" flake show
  echo "$output"
  [ "$status" -eq 0 ]
  for system in x86_64-linux aarch64-linux; do [[ $output == *"guest-$system"* ]]; done
  run with_stub "$STUB" flake check --no-build
  echo "$output"
  [ "$status" -eq 0 ]
  took=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
  echo "# all outputs: $took ms" >&3
  # The limit is for an idle machine.
  [ "$took" -le 15000 ]
  for output in packages.aarch64-linux.guest packages.x86_64-linux.default devShells.aarch64-linux.default \
    checks.x86_64-linux.unit checks.aarch64-linux.tidy formatter.x86_64-linux; do
    evaluates "$output.drvPath" >/dev/null
  done
  evaluates apps.x86_64-linux.test-vm.program | grep -q 'k3s-vm-test-vm'
}

@test "the guest mounts the store from its image and /var from the data disk, and has a static address" {
  [ "$(evaluates "$GUEST.fileSystems" | jq -r '."/var" | [.device, .fsType, .autoFormat, .autoResize] | @csv')" = \
    '"/dev/disk/by-id/virtio-k3s-vm-data","ext4",true,true' ]
  [ "$(evaluates "$GUEST.fileSystems" | jq -r --arg store "$NIX_STORE_DIR" '.[$store].device')" = /dev/disk/by-id/virtio-k3s-vm-root ]
  evaluates "$GUEST.systemd.network.networks" | jq -e '."10-k3s-vm".address == ["10.0.2.15/24"]'
  # The agent's serial line is the second one.
  [[ $(evaluates "$GUEST.boot.kernelParams") == *console=ttyS0* ]]
  [[ $(evaluates "$GUEST.boot.kernelParams") != *nr_uarts* ]]
}

@test "keys come from the credentials, and no token is in the store" {
  evaluates "$GUEST.services.openssh" | jq -e '
    .authorizedKeysFiles == ["/run/credentials/@system/ssh.authorized_keys.root"] and
    .hostKeys[0].path == "/run/credentials/@system/ssh.host_key" and .settings.PasswordAuthentication == false'
  [ "$(evaluates "$GUEST.services.k3s.token")" = '""' ]
}

@test "nothing is in the guest that a node does not need" {
  for option in nix.enable system.switch.enable boot.enableContainers security.sudo.enable services.lvm.enable \
    programs.nano.enable fonts.fontconfig.enable systemd.oomd.enable systemd.coredump.enable boot.loader.grub.enable \
    boot.bcache.enable boot.initrd.systemd.tpm2.enable boot.initrd.includeDefaultModules environment.stub-ld.enable \
    programs.command-not-found.enable; do
    [ "$(evaluates "$GUEST.$option")" = false ] || { echo "$option"; return 1; }
  done
  [ "$(evaluates "$GUEST.environment.defaultPackages")" = '[]' ]
}

@test "an option that does not exist, or one of the wrong type, is an error that names it" {
  run with_module '{ services.k3s.manifest = { }; }' services.k3s.enable
  echo "$output"
  [ "$status" -ne 0 ]
  [[ $output == *services.k3s.manifest* ]]
  run with_module '{ services.k3s.disable = "traefik"; }' services.k3s.disable
  echo "$output"
  [ "$status" -ne 0 ]
  [[ $output == *services.k3s.disable* ]]
  run with_module '{ k3sVm.role = "master"; }' services.k3s.role
  [ "$status" -ne 0 ]
}

@test "a user's module adds to the guest, and wins over its defaults" {
  module='{ lib, ... }: { k3sVm.kernelModules = [ "nbd" ]; k3sVm.role = "agent"; services.k3s.disable = [ "traefik" ];
    k3sVm.airgapImages = false; networking.firewall.enable = true;
    services.k3s.manifests.hello.content = { kind = "Namespace"; }; }'
  [[ $(with_module "$module" boot.kernelModules) == *'"br_netfilter"'*'"nbd"'* ]]
  [ "$(with_module "$module" services.k3s.role)" = '"agent"' ]
  # Or NixOS says that an agent has no server.
  [ "$(with_module "$module" services.k3s.configPath)" = '"/etc/rancher/k3s/config.yaml"' ]
  [ "$(with_module "$module" services.k3s.images)" = '[]' ]
  [ "$(with_module "$module" services.k3s.manifests.hello.content.kind)" = '"Namespace"' ]
  [ "$(with_module "$module" networking.firewall.enable)" = true ]
}

# The modules of the host are functions of a NixOS and of home-manager.
host_module() {
  nix-instantiate --eval --strict --json --expr "
    let
      lib = ((import $STUB/flake.nix).outputs { self = null; }).lib;
      pkgs = import $STUB/pkgs.nix { system = \"x86_64-linux\"; inherit lib; };
      self.packages.x86_64-linux.default = pkgs.qemu_kvm;
      home = { lib, ... }: { options = {
        home.packages = lib.mkOption { type = lib.types.listOf lib.types.package; default = [ ]; };
        systemd.user.services = lib.mkOption { type = lib.types.attrsOf (lib.types.attrsOf lib.types.attrs); default = { }; };
      }; };
    in (lib.evalModules { specialArgs = { inherit pkgs; }; modules = [ $1 (import $ROOT/nix/$2 self)
      { programs.k3s-vm = { enable = true; autostart = [ \"/home/alice/shop\" ]; $3 }; } ]; }).config.$4"
}

@test "on the host the module gives users the group kvm and starts their VMs; home-manager's starts them too" {
  [ "$(host_module "$STUB/options.nix" host.nix 'users = [ "alice" ];' users.groups.kvm.members)" = '["alice"]' ]
  [ "$(host_module "$STUB/options.nix" host.nix '' boot.kernelModules)" = '[]' ]
  [[ $(host_module "$STUB/options.nix" host.nix '' systemd.user.services) == *'--project /home/alice/shop start'* ]]
  [[ $(host_module home home.nix '' systemd.user.services.k3s-vm-home-alice-shop.Service.ExecStop) == *'stop --shutdown'* ]]
}

@test "both lock files are one, and pin nixpkgs by hash" {
  cmp "$ROOT/flake.lock" "$ROOT/src/guest/nixos/flake.lock"
  jq -e '.nodes.nixpkgs.locked | (.rev | length == 40) and (.narHash | startswith("sha256-"))' "$ROOT/flake.lock"
  inputs() { sed -n '/inputs.nixpkgs = {/,/};/p' "$1"; }
  [ "$(inputs "$ROOT/flake.nix")" = "$(inputs "$ROOT/src/guest/nixos/flake.nix")" ]
}

@test "nix builds the program, which finds its libraries and QEMU" {
  with_stub "$STUB" build --out-link "$BATS_TEST_TMPDIR/result" .#default
  run env -i HOME="$HOME" PATH=/nowhere "$BATS_TEST_TMPDIR/result/bin/k3s-vm" --version
  echo "$output"
  [ "$status" -eq 0 ]
  # A wrapper: QEMU of the package is behind what the user has.
  grep -q "qemu/bin:" "$BATS_TEST_TMPDIR/result/bin/k3s-vm"
  # libcrypto is loaded by the name that the build was given.
  strings -a "$BATS_TEST_TMPDIR/result/bin/.k3s-vm-wrapped" | grep -q "^$NIX_STORE_DIR/.*/lib/libcrypto.so.3$"
}

@test "neither the program nor its scripts assume a path below /usr" {
  cd "$ROOT"
  # What may: defaults for an empty PATH, os-release(5)'s second place, places of OVMF and syslinux, of which each is tried,
  # what runs in a guest or on a Debian, sbin on Debian, /bin/sh, and where `make install` puts things unless it is told.
  run git grep -nE '/(usr|bin)/|"/usr|/sbin' -- src include scripts Makefile nix .ci ':!src/guest/debian' ':!src/guest/cloud' \
    ':!src/payload' ':!src/domain/seed.c'
  left=$(grep -vE '/usr/bin/env|"/usr/local/bin:/usr/bin:/bin"|/usr/lib/os-release|"/usr/share/.*ovmf.*"|/usr/share/(OVMF|edk2)|file:/usr/lib/syslinux|PATH=\$PATH:/usr/sbin:/sbin|PREFIX +\?=|\{?out\}?/bin/|\}/bin/|src/guest/debian/rootfs|DESTDIR|/opt/k3s/bin|bin/(k3s-vm|kubectl|k9s)|[^/]/bin/sh|HASH/bin/' \
    <<<"$output" || true)
  echo "$left"
  [ -z "$left" ]
}
