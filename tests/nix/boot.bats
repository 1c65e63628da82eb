#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# FLAVOR=nixos from an empty project to a Ready cluster, and through a change of the guest. Kernel and root are Debian's, K3s is the
# offline payload (tests/nix/stub/debian.nix); the flake, the guest's module and image, its units and the launcher are
# those that NixOS gets. The tests build on each other and run in this order.

load ../lib/common
load setup

setup_file() {
  skip_unless nix command -v nix
  skip_unless unsquashfs command -v unsquashfs
  local cache=${K3S_VM_TEST_CACHE:-$HOME/.cache}
  common_project "$BATS_FILE_TMPDIR" debian
  # The cache is shared with every other run: what NixOS is made of here.
  (cd "$PROJECT" && XDG_CACHE_HOME=$cache FLAVOR=debian K3S_VERSION=offline WARM_RESET=off "$K3S_VM" setup)
  local state=$PROJECT/.k3s-vm/vm/state.json
  stub "$BATS_FILE_TMPDIR/stub" "$(jq -r .guest.dir "$state")" "$(dirname "$(jq -r .payload.path "$state")")" 1.20.2
  (cd "$PROJECT" && "$K3S_VM" destroy --yes --all)

  common_project "$BATS_FILE_TMPDIR"
  nix_environment "$BATS_FILE_TMPDIR/nix"
  common_ports
  export FLAVOR=nixos VM_NAME="k3s-vm-nixos-$$" K3S_VM_NIXPKGS=path:$BATS_FILE_TMPDIR/stub K3S_ARGS=--write-kubeconfig-mode=0600
}

teardown_file() {
  "$K3S_VM" --project "$BATS_FILE_TMPDIR/shop" destroy --yes --all >/dev/null 2>&1 || true
}

setup() { cd "$PROJECT" || return; }

@test "one command builds the NixOS guest, boots it, and ends with a Ready cluster" {
  run --separate-stderr "$K3S_VM"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [[ $output == *'is Ready'* ]]
  [[ $stderr == *'built the NixOS guest'* ]]
  echo "# times: $(jq -c .last_start_ms <<<"$("$K3S_VM" --json status)")" >&3
  [[ $("$K3S_VM" kubectl get nodes --no-headers) == *"$VM_NAME"*' Ready '* ]]
}

@test "the guest runs from the store's image, with this project's units and what the host hands over" {
  run "$K3S_VM" exec -- sh -c 'grep " $0 " /proc/mounts; hostname; cat /etc/rancher/k3s/config.yaml /etc/resolv.conf
    systemctl is-active k3s-vm-guest k3s-vm-network k3s-vm-agent k3s; cat /proc/cmdline' "$NIX_STORE_DIR"
  echo "$output"
  [[ $output == *" $NIX_STORE_DIR erofs ro"* ]]
  [[ $output == *"$VM_NAME"* ]]
  [[ $("$K3S_VM" exec -- readlink /etc/rancher/node) == /var/* ]]
  [[ $output == *write-kubeconfig-mode* ]]
  [[ $output == *'nameserver 10.0.2.3'* ]]
  [ "$(grep -c '^active$' <<<"$output")" -eq 4 ]
  [[ $output == *"init=$NIX_STORE_DIR/"*-nixos-system-*/init* ]]
  grep -q 'k3s-vm: the network is up' .k3s-vm/vm/serial.log
}

@test "it is suspended and goes on, by the agent on the second serial line" {
  "$K3S_VM" stop
  run --separate-stderr "$K3S_VM" start
  echo "$stderr"
  [ "$status" -eq 0 ]
  [[ $stderr == *'goes on where it was'* ]]
  # An agent that does not answer is warned of, and SSH does its work.
  ! grep -i 'agent' .k3s-vm/events.jsonl | grep -i 'fail\|timeout'
}

@test "a change of configuration.nix makes a new guest at the next start, and the cluster is still there" {
  "$K3S_VM" kubectl create configmap kept --from-literal=word=here
  first=$(readlink .k3s-vm/vm/result)
  echo '{ k3sVm.kernelModules = [ "dummy" ]; boot.kernelParams = [ "changed=1" ]; }' >.k3s-vm/configuration.nix
  run --separate-stderr "$K3S_VM" restart
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [[ $stderr == *'built the NixOS guest'* ]]
  [ "$(readlink .k3s-vm/vm/result)" != "$first" ]
  [[ $("$K3S_VM" exec -- cat /proc/cmdline) == *changed=1* ]]
  [ "$("$K3S_VM" kubectl get configmap kept -o 'jsonpath={.data.word}')" = here ]
  echo "# times: $(jq -c .last_start_ms <<<"$("$K3S_VM" --json status)")" >&3
}
