#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The program with real QEMU: what a person does to a VM.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() { vm_teardown; }

@test "start, exec, stop --shutdown, start: the guest answers and its disk is kept" {
  run "$K3S_VM"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$(vm_state)" = running ]

  run "$K3S_VM" exec -- sh -c 'cat; exit 5' <<<"hello"
  [ "$status" -eq 5 ]
  [ "$output" = hello ]

  "$K3S_VM" exec -- sh -c 'echo kept > /var/word; sync'
  "$K3S_VM" stop --shutdown
  [ "$(vm_state)" = stopped ]
  "$K3S_VM" start
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
}

@test "exec ends with the reader of its output, and writes to no other descriptor where it has none" {
  "$K3S_VM"
  SECONDS=0
  [ "$("$K3S_VM" exec -- sh -c 'seq 100; sleep 30' | head -n 1)" = 1 ]
  [ "$SECONDS" -lt 15 ]
  run bash -c '"$0" exec -- echo hello >&-' "$K3S_VM"
  [ "$status" -eq 1 ]
  [[ $output == *"cannot write the command's output"* ]]
}

@test "a start of a running VM says so and changes nothing" {
  "$K3S_VM"
  pid=$(vm_pid)
  run "$K3S_VM" start
  [ "$status" -eq 0 ]
  [[ "$output" == *"running already"* ]]
  [ "$(vm_pid)" = "$pid" ]
}

@test "stop of a stopped VM is exit 4, of none exit 3" {
  run "$K3S_VM" stop
  [ "$status" -eq 3 ]
  "$K3S_VM" setup
  run "$K3S_VM" stop
  [ "$status" -eq 4 ]
  [[ "$output" == *"k3s-vm start"* ]]
}

@test "setup makes the VM, and a second one names reset" {
  "$K3S_VM" setup --cpus 1 --disk 11
  [ "$(vm_state)" = created ]
  grep -q '^VM_CPUS=1$' .k3s-vm/config
  run "$K3S_VM" setup
  [ "$status" -eq 4 ]
  [[ "$output" == *"k3s-vm reset"* ]]
}

@test "a smaller disk is refused and nothing is changed, a larger one is given" {
  "$K3S_VM" setup --disk 12
  before=$(sha256sum .k3s-vm/config)
  run "$K3S_VM" configure VM_DISK=11
  [ "$status" -eq 2 ]
  [ "$(sha256sum .k3s-vm/config)" = "$before" ]
  "$K3S_VM" configure VM_DISK=13
  "$K3S_VM" start
  [ "$("$K3S_VM" --json status | jq .resources.disk_gib)" = 13 ]
}

@test "stop --force ends it as a power cut would, and it boots again" {
  "$K3S_VM"
  pid=$(vm_pid)
  "$K3S_VM" stop --force
  [ ! -e "/proc/$pid" ]
  [ "$(vm_state)" = stopped ]
  "$K3S_VM" start
}

@test "a project path with blanks, quotes, commas, newlines, UTF-8 and 300 characters works" {
  vm_project "$(printf 'a, b"c\047d\n%%h $HOME é %s/%s' "$(printf 'x%.0s' {1..140})" "$(printf 'y%.0s' {1..150})")"
  "$K3S_VM"
  [ "$("$K3S_VM" exec -- hostname)" = "$VM_NAME" ]
  [ "$("$K3S_VM" ssh -- hostname)" = "$VM_NAME" ]
  "$K3S_VM" stop
}

@test "two projects run side by side, and defaults that another VM has are moved" {
  unset API_PORT SSH_PORT WEB_PORT
  "$K3S_VM" setup
  first=$PROJECT
  PROJECT=$BATS_TEST_TMPDIR/second
  mkdir "$PROJECT"
  cd "$PROJECT"
  VM_NAME=$VM_NAME-b run "$K3S_VM" setup
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"$first"* ]]
  [ "$("$K3S_VM" configure API_PORT)" != 6443 ]
  [ "$("$K3S_VM" configure WEB_NODE_PORT)" = 30080 ]
  [ "$("$K3S_VM" --json list | jq 'if type == "array" then length else .vms | length end')" = 2 ]
  "$K3S_VM" destroy --yes
  "$K3S_VM" --project "$first" destroy --yes
}

@test "a port that a foreign process holds is exit 5, names it, and leaves it alone" {
  python3 -c 'import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); time.sleep(60)' "$API_PORT" &
  holder=$!
  until port_answers "$API_PORT"; do sleep 0.1; done
  run "$K3S_VM"
  echo "$output"
  kill -0 "$holder"
  kill "$holder"
  [ "$status" -eq 5 ]
  [[ "$output" == *"$holder"* ]]
  [[ "$output" == *python3* ]]
  [ ! -e .k3s-vm/vm ]
}

@test "without QEMU it names the command that installs it" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  for tool in env sh bash; do ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/bin/$tool"; done
  PATH=$BATS_TEST_TMPDIR/bin run "$K3S_VM"
  echo "$output"
  [ "$status" -eq 6 ]
  [[ "$output" == *qemu-system-x86* ]]
}

@test "reset makes a new disk, destroy leaves the configuration alone" {
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo lost > /var/word; sync'
  uuid=$("$K3S_VM" --json status | jq -r .uuid)
  "$K3S_VM" reset --yes
  [ "$("$K3S_VM" --json status | jq -r .uuid)" != "$uuid" ]
  run "$K3S_VM" exec -- cat /var/word
  [ "$status" -ne 0 ]
  pid=$(vm_pid)
  "$K3S_VM" configure VM_CPUS=1
  "$K3S_VM" destroy --yes
  [ ! -e "/proc/$pid" ]
  run pgrep -f "supervise --project $PROJECT "
  [ -z "$output" ]
  [ "$(find . -type f ! -name config ! -name .gitignore ! -name lock)" = "" ]
}
