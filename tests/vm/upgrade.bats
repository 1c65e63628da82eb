#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Another K3s for a cluster that is kept: what is refused, what is waited for, and the way back. K3s is tests/vm/k3s,
# which keeps data on the disk and cannot read that of a newer one.

load ../lib/common
load ../lib/vm

setup_file() {
  tiny_guest
  skip_unless "go" command -v go
  local folder=${K3S_VM_TEST_CACHE:-${HOME}/.cache}/k3s-vm-tests key
  key=$(sha256sum <"$ROOT/tests/vm/k3s/main.go" | cut -c1-16)
  FAKE_K3S=$folder/k3s-$key
  export FAKE_K3S
  [ -e "$FAKE_K3S" ] && return
  (cd "$ROOT/tests/vm/k3s" && GOCACHE=$folder/go GO111MODULE=off CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$FAKE_K3S.new" main.go)
  mv "$FAKE_K3S.new" "$FAKE_K3S"
}

setup() {
  vm_project
  unset K3S_VERSION # the environment would win over what upgrade writes
  export WARM_RESET=off
  for version in v1.33.1 v1.33.2 v1.34.0 v1.35.0; do k3s "$version"; done
  "$K3S_VM" configure K3S_VERSION=./v1.33.1
}
teardown() { vm_teardown; }

# k3s VERSION [WORD]: ./VERSION is K3s of that version.
k3s() {
  cp "$FAKE_K3S" "$PROJECT/$1${2:+-$2}"
  printf '\nVERSION %s+k3s1 %s\n' "$1" "${2:-fine}" >>"$PROJECT/$1${2:+-$2}"
}

version() { "$K3S_VM" --json status | jq -r .kubernetes.version; }
authority() { "$K3S_VM" kubectl config view --raw 2>/dev/null || cat web/.kube/config; }

@test "the next version: the cluster, its data and its certificates stay, and K3S_VERSION is kept in step" {
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo kept >/var/word'
  ca=$(authority | grep -o 'certificate-authority-data.*' | head -n 1)
  run --separate-stderr "$K3S_VM" upgrade --k3s ./v1.33.2
  echo "$stderr"
  [ "$status" -eq 0 ]
  [[ $stderr == *'3 pods are ready'* ]]
  [ "$(version)" = v1.33.2+k3s1 ]
  grep -qx "K3S_VERSION=$PROJECT/v1.33.2\|K3S_VERSION=./v1.33.2" .k3s-vm/config
  [ "$("$K3S_VM" exec -- cat /var/word /var/lib/rancher/k3s/version | xargs)" = "kept v1.33.2+k3s1" ]
  [ "$(authority | grep -o 'certificate-authority-data.*' | head -n 1)" = "$ca" ]
  [ ! -e .k3s-vm/vm/upgrade.json ] && [ -z "$("$K3S_VM" snapshot list)" ] && [ -z "$(ls -A .k3s-vm/vm/snapshots)" ]

  # Again: it is there. And what may not follow is refused at once.
  run --separate-stderr "$K3S_VM" upgrade
  [ "$status" -eq 0 ] && [[ $stderr == *'has v1.33.2+k3s1 already'* ]]
  pid=$(vm_pid)
  fails_with 2 'more than one minor version' "$K3S_VM" upgrade --k3s ./v1.35.0
  fails_with 2 'is older than' "$K3S_VM" upgrade --k3s ./v1.33.1
  fails_with 2 'is nothing to upgrade to' "$K3S_VM" upgrade --k3s none
  [ "$(vm_pid)" = "$pid" ]
}

@test "a version that does not come up: payload and disk are what they were, from a suspended VM too" {
  k3s v1.34.0 broken
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo kept >/var/word; echo memory >/run/word; sync'
  "$K3S_VM" stop
  run --separate-stderr "$K3S_VM" upgrade --k3s ./v1.34.0-broken
  echo "$stderr"
  [ "$status" -eq 1 ]
  [[ $stderr == *'was taken back: the cluster is up with v1.33.1+k3s1 again'* ]]
  [ "$(vm_state)" = running ]
  [ "$(version)" = v1.33.1+k3s1 ]
  # The broken one had written to the disk; this one could not have read that.
  [ "$("$K3S_VM" exec -- cat /var/word /var/lib/rancher/k3s/version | xargs)" = "kept v1.33.1+k3s1" ]
  grep -q 'K3S_VERSION=.*v1.33.1$' .k3s-vm/config
  [ ! -e .k3s-vm/vm/upgrade.json ] && [ -z "$(ls -A .k3s-vm/vm/snapshots)" ]
  "$K3S_VM" stop --shutdown
  qemu-img check -q .k3s-vm/vm/data.qcow2
}

@test "an upgrade that is killed is brought to its end by the next one" {
  "$K3S_VM"
  "$K3S_VM" stop --shutdown
  "$K3S_VM" upgrade --k3s ./v1.34.0 2>upgrade.log &
  pid=$!
  end=$((SECONDS + 60))
  until [ -e .k3s-vm/vm/upgrade.json ] || [ "$SECONDS" -ge "$end" ]; do sleep 0.05; done
  [ -e .k3s-vm/vm/upgrade.json ]
  kill -9 "$pid"
  wait "$pid" || :
  "$K3S_VM" upgrade --k3s ./v1.34.0
  [ "$(version)" = v1.34.0+k3s1 ]
  [ "$("$K3S_VM" exec -- cat /var/lib/rancher/k3s/version)" = v1.34.0+k3s1 ]
  grep -q 'K3S_VERSION=.*v1.34.0$' .k3s-vm/config
  [ ! -e .k3s-vm/vm/upgrade.json ] && [ -z "$(ls -A .k3s-vm/vm/snapshots)" ]
}
