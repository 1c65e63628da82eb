#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Snapshots: disk and memory of a VM in any state, kept under a name and gone back to.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() { vm_teardown; }

# write WORD: on the disk and in memory.
write() { "$K3S_VM" exec -- sh -c "echo $1 >/var/word; echo $1 >/run/word"; }
words() { "$K3S_VM" exec -- cat /var/word /run/word | xargs; }

@test "a VM that runs goes on after save, and from where it was after restore, in place" {
  "$K3S_VM"
  boot=$(boot_id)
  write one
  "$K3S_VM" snapshot save first
  [ "$(words)" = "one one" ]
  for i in {1..10}; do
    write "later-$i"
    "$K3S_VM" snapshot save "later-$i"
  done
  write last
  "$K3S_VM" snapshot restore first
  [ "$(words)" = "one one" ]
  [ "$(boot_id)" = "$boot" ]
  clock_is_right
  "$K3S_VM" snapshot restore later-7
  [ "$(words)" = "later-7 later-7" ]
  [ "$("$K3S_VM" snapshot list | wc -l)" -eq 11 ]
  [ "$("$K3S_VM" --json snapshot list | jq -r '[.snapshots[] | select(.memory and .memory_bytes > 10000000) | .name] | first')" = first ]
  # One that was gone back to is as it was, whatever the VM did since.
  "$K3S_VM" stop
  "$K3S_VM" start
  "$K3S_VM" snapshot restore first
  [ "$(words)" = "one one" ]
  # What it ran on until then was set aside, and is freed.
  timeout 5 sh -c "while [ -e .k3s-vm/vm/suspend.memory.old ]; do sleep 0.1; done"
  "$K3S_VM" stop --shutdown
  qemu-img check -q .k3s-vm/vm/data.qcow2
}

@test "a VM that is suspended or stopped is kept, and is that again after restore" {
  "$K3S_VM"
  boot=$(boot_id)
  write one
  "$K3S_VM" stop
  "$K3S_VM" snapshot save suspended
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  [ "$(words)" = "one one" ]
  write two
  "$K3S_VM" stop --shutdown
  "$K3S_VM" snapshot save off
  [ "$("$K3S_VM" --json snapshot list | jq -c '[.snapshots[] | .memory]')" = "[true,false]" ]
  "$K3S_VM" snapshot restore suspended
  [ "$(vm_state)" = suspended ]
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  [ "$(words)" = "one one" ]
  # Of a VM that runs: it boots from the disk as that was.
  "$K3S_VM" snapshot restore off
  [ "$(vm_state)" = running ]
  [ "$(boot_id)" != "$boot" ]
  [ "$("$K3S_VM" exec -- cat /var/word)" = two ]
}

@test "a snapshot is deleted in every state of the VM, and a suspended VM still goes on after that" {
  "$K3S_VM"
  boot=$(boot_id)
  for name in running suspended off; do "$K3S_VM" snapshot save "$name"; done
  "$K3S_VM" snapshot delete running
  "$K3S_VM" stop
  "$K3S_VM" snapshot delete suspended
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  "$K3S_VM" stop --shutdown
  "$K3S_VM" snapshot delete off
  [ -z "$("$K3S_VM" snapshot list)" ]
  [ -z "$(qemu-img snapshot -l .k3s-vm/vm/data.qcow2)" ]
  [ -z "$(ls -A .k3s-vm/vm/snapshots)" ]
}

@test "names that are none, are taken or are not there change nothing" {
  "$K3S_VM"
  write one
  for name in '' . .. .warm a/b 'a b' -x "$(printf %061d 0)"; do
    run "$K3S_VM" snapshot save -- "$name"
    echo "$name: $output"
    [ "$status" -eq 2 ]
  done
  "$K3S_VM" snapshot save one
  run "$K3S_VM" snapshot save one
  [ "$status" -eq 2 ]
  [[ $output == *"snapshot delete one"* ]]
  run "$K3S_VM" snapshot restore two
  [ "$status" -eq 4 ]
  [[ $output == *"snapshot list"* ]]
  run "$K3S_VM" snapshot delete two
  [ "$status" -eq 4 ]
  run "$K3S_VM" snapshot keep one
  [ "$status" -eq 2 ]
  echo junk >.k3s-vm/vm/snapshots/one/suspend.json
  run "$K3S_VM" snapshot restore one
  [ "$status" -eq 1 ]
  [[ $output == *"damaged"*"snapshot delete one"* ]]
  [ "$(words)" = "one one" ]
  "$K3S_VM" snapshot delete one
  [ "$(vm_state)" = running ]
}

@test "snapshot and restore killed at random moments: the VM comes back, and what was kept before is as it was" {
  RANDOM=${K3S_VM_TEST_SEED:=$RANDOM}
  echo "K3S_VM_TEST_SEED=$K3S_VM_TEST_SEED repeats these moments"
  "$K3S_VM"
  write kept
  "$K3S_VM" snapshot save kept
  for i in {1..8}; do
    if [ $((i % 2)) = 0 ]; then set -- restore kept; else set -- save "half-$i"; fi
    "$K3S_VM" snapshot "$@" >/dev/null 2>&1 3>&- &
    command=$!
    sleep "0.$(printf %02d $((RANDOM % 40)))"
    kill -KILL "$command" 2>/dev/null || :
    wait "$command" 2>/dev/null || :
    run "$K3S_VM" start
    echo "$i $*: $output"
    [ "$status" -eq 0 ]
    [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
  done
  "$K3S_VM" snapshot restore kept
  [ "$(words)" = "kept kept" ]
  "$K3S_VM" stop --shutdown
  qemu-img check -q .k3s-vm/vm/data.qcow2 || [ $? -eq 3 ] # leaked clusters only
}
