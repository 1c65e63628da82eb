#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# stop saves the VM's state and start goes on from there; what cannot be gone on from boots, and nothing is lost.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() { vm_teardown; }

# The guest's counter is a variable of a shell: every number that it said, one after the other.
ticks_go_on() {
  local end=$((SECONDS + 20))
  until [ "$(grep -aoc 'tick [0-9]*' .k3s-vm/vm/serial.log)" -ge 3 ]; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
  grep -ao 'tick [0-9]*' .k3s-vm/vm/serial.log |
    awk 'NR > 1 && $2 != last + 1 { print "tick " last " and then " $2; bad = 1 } { last = $2 } END { exit bad || NR < 3 }'
}

# boots_because TEXT: start says so, the disk is as it was, and no state is left in it.
boots_because() {
  run "$K3S_VM" start
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"boots from its disk"*"$1"* ]]
  [ "$(boot_id)" != "$boot" ]
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
  [ ! -e .k3s-vm/vm/suspend.json ]
  "$K3S_VM" stop --shutdown
}

# A suspended VM that has written a word to its disk. $boot is what it booted as.
suspended_vm() {
  "$K3S_VM"
  boot=$(boot_id)
  "$K3S_VM" exec -- sh -c 'echo kept > /var/word'
  "$K3S_VM" stop
  [ "$(vm_state)" = suspended ]
}

@test "stop suspends and start goes on: the same boot, no tick lost or repeated, the clock right" {
  "$K3S_VM"
  boot=$(boot_id)
  pid=$(vm_pid)
  "$K3S_VM" exec -- sh -c 'echo here > /run/word'
  run "$K3S_VM" stop
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output == *"is suspended"* ]]
  [ ! -e "/proc/$pid" ]
  supervisor_gone
  [ "$(jq '[.kind, .synced] == ["files", 1]' .k3s-vm/vm/suspend.json)" = true ]
  run "$K3S_VM" status
  [[ $output == *": suspended since "*" its state is "*"resume it: k3s-vm start"* ]]
  [ "$("$K3S_VM" --json status | jq '.suspended.bytes > 10000000 and .suspended.since_ms > 0')" = true ]
  run "$K3S_VM" stop
  [ "$status" -eq 4 ]
  sleep 4
  "$K3S_VM" start
  clock_is_right
  [ "$(boot_id)" = "$boot" ]
  [ "$("$K3S_VM" exec -- cat /run/word)" = here ]
  ticks_go_on
  [ "$(vm_state)" = running ]
  [ ! -e .k3s-vm/vm/suspend.json ]
}

@test "suspended and resumed again and again: no tick lost or repeated, and no state stays in the disk" {
  "$K3S_VM"
  boot=$(boot_id)
  for ((i = 0; i < ${K3S_VM_TEST_CYCLES:-20}; i++)); do
    "$K3S_VM" stop
    "$K3S_VM" start
  done
  clock_is_right
  [ "$(boot_id)" = "$boot" ]
  ticks_go_on
  "$K3S_VM" stop --shutdown
  # What the last start left for later, a boot sweeps.
  "$K3S_VM" start
  sleep 6
  "$K3S_VM" stop --shutdown
  [ -z "$(qemu-img snapshot -l .k3s-vm/vm/data.qcow2)" ]
  qemu-img check -q .k3s-vm/vm/data.qcow2
}

@test "changed ports are applied to the resumed VM" {
  suspended_vm
  "$K3S_VM" configure WEB_PORT=$((WEB_PORT + 3)) SSH_PORT=$((SSH_PORT + 3)) >/dev/null
  WEB_PORT=$((WEB_PORT + 3)) SSH_PORT=$((SSH_PORT + 3))
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
}

@test "another memory size, number of CPUs or guest: it boots and says why" {
  suspended_vm
  VM_MEMORY=2304 boots_because "the memory size in MiB was 2048 and is 2304 now"
  suspended_vm
  VM_CPUS=1 boots_because "the number of CPUs was 2 and is 1 now"
  suspended_vm
  VM_NAME=$VM_NAME-b boots_because "the guest's name or name server changed"
  suspended_vm
  VM_DISK=21 boots_because "the disk grows"
}

@test "another QEMU, a damaged record, a state that is gone: it boots and says why" {
  suspended_vm
  sed -i 's/QEMU [0-9.]*/QEMU 1.2.3/' .k3s-vm/vm/suspend.json
  boots_because "QEMU was 1.2.3"
  suspended_vm
  truncate -s 30 .k3s-vm/vm/suspend.json
  boots_because "damaged"
  suspended_vm
  rm .k3s-vm/vm/suspend.memory
  boots_because "the state's files were changed"
}

@test "a state that this machine did not write out before it went down: it boots; one that it did: it goes on" {
  suspended_vm
  supervisor_gone
  sed -i 's/"boot_id": "[^"]*"/"boot_id": "another"/' .k3s-vm/vm/suspend.json
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  ticks_go_on
  "$K3S_VM" stop
  supervisor_gone
  sed -i 's/"boot_id": "[^"]*"/"boot_id": "another"/; s/"synced": 1/"synced": 0/' .k3s-vm/vm/suspend.json
  boots_because "this machine went down"
}

@test "a state whose devices are damaged: it boots and says why" {
  suspended_vm
  devices=.k3s-vm/vm/suspend.devices
  cp --preserve=timestamps "$devices" time
  dd if=/dev/zero of="$devices" bs=1 seek=300 count=3000 conv=notrunc status=none
  touch -r time "$devices"
  boots_because ""
  [ ! -e "$devices" ]
  [ ! -e .k3s-vm/vm/suspend.memory ]
}

@test "a VM that was resumed reboots and crashes as any other: its supervisor starts another QEMU" {
  suspended_vm
  "$K3S_VM" start
  pid=$(vm_pid)
  "$K3S_VM" exec -- reboot || true
  event_seen repair:restarted 30
  grep -q '"event":"qemu-ended","why":"the guest reboots","restarts":true' .k3s-vm/events.jsonl
  "$K3S_VM" start
  [ "$(boot_id)" != "$boot" ]
  [ "$(vm_pid)" != "$pid" ]
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
  [ ! -e .k3s-vm/vm/suspend.memory ]
  "$K3S_VM" stop
  "$K3S_VM" start
  kill -KILL "$(vm_pid)"
  vm_becomes running 30
  "$K3S_VM" start
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
}

@test "the second save writes what was changed since the first, and both are gone on from" {
  suspended_vm
  written() { jq -s 'map(select(.event == "suspended").written_bytes)[-1]' .k3s-vm/events.jsonl; }
  first=$(written)
  "$K3S_VM" start
  "$K3S_VM" exec -- sh -c 'echo changed > /run/word'
  "$K3S_VM" stop
  second=$(written)
  echo "$first bytes, then $second"
  [ "$second" -lt $((first / 2)) ]
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  [ "$("$K3S_VM" exec -- cat /run/word)" = changed ]
  ticks_go_on
}

# Where QEMU's memory cannot be had, which a folder in the file's place stands for.
suspended_into_disk() {
  "$K3S_VM"
  mkdir -p .k3s-vm/vm/suspend.memory
  boot=$(boot_id)
  "$K3S_VM" exec -- sh -c 'echo kept > /var/word'
  "$K3S_VM" stop
  [ "$(jq -r .kind .k3s-vm/vm/suspend.json)" = disk ]
}

@test "where QEMU's memory cannot be read the state is in the disk: it goes on, and boots where that is damaged or gone" {
  suspended_into_disk
  "$K3S_VM" start
  clock_is_right
  [ "$(boot_id)" = "$boot" ]
  ticks_go_on
  "$K3S_VM" stop
  qemu-img snapshot -d "$(jq -r .tag .k3s-vm/vm/suspend.json)" .k3s-vm/vm/data.qcow2
  boots_because "no such state"
  suspended_into_disk
  python3 - .k3s-vm/vm/data.qcow2 <<'END'
import mmap, sys
with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as disk:
    # Where a state begins (QEMU's migration stream, version 3): at the start of a cluster.
    found = [at for at in range(0, len(disk), 65536) if disk[at:at + 8] == b"QEVM\0\0\0\3"]
    assert found
    for at in found:
        disk[at + 8:at + 2000] = b"\xa5" * 1992
END
  boots_because ""
}

@test "a disk that is another one than the state's boots" {
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo kept > /var/word'
  "$K3S_VM" stop --shutdown
  cp .k3s-vm/vm/data.qcow2 older.qcow2
  suspended_vm
  mv older.qcow2 .k3s-vm/vm/data.qcow2
  boots_because "the VM's disk"
}

@test "the supervisor killed before the stop, the runtime folder gone before the start: it goes on" {
  "$K3S_VM"
  boot=$(boot_id)
  kill -KILL "$(supervisor_pid)"
  "$K3S_VM" stop
  [ "$(vm_state)" = suspended ]
  rm -rf "${XDG_RUNTIME_DIR:?}/k3s-vm"
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  ticks_go_on
}

@test "stop --shutdown of a suspended VM shuts it down in order, stop --force keeps the disk, restart boots" {
  suspended_vm
  "$K3S_VM" stop --shutdown
  [ "$(vm_state)" = stopped ]
  grep -aq 'k3s-vm: shutting down' .k3s-vm/vm/serial.log
  suspended_vm
  "$K3S_VM" stop --force
  [ "$(vm_state)" = stopped ]
  "$K3S_VM" start
  [ "$(boot_id)" != "$boot" ]
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
  "$K3S_VM" stop
  boot=
  "$K3S_VM" restart
  [ "$(vm_state)" = running ]
  grep -aq 'k3s-vm: shutting down' .k3s-vm/vm/serial.log
}

@test "no room for the state: the VM runs on, says so, and can be shut down" {
  skip_unless "mounts of its own (unshare -m, as root)" unshare -m --propagation private true
  export K3S_VM
  unshare -m --propagation private bash -euo pipefail -c '
    mount -t tmpfs -o size=1500m,mode=0700 tmpfs "$PROJECT"
    cd "$PROJECT"
    trap "rm -f \"\$PROJECT/filler\"; \"\$K3S_VM\" --project \"\$PROJECT\" stop --force >/dev/null 2>&1 || :" EXIT
    "$K3S_VM"
    boot=$("$K3S_VM" exec -- cat /proc/sys/kernel/random/boot_id)
    head -c 1300M /dev/zero >filler
    status=0
    output=$("$K3S_VM" stop 2>&1) || status=$?
    echo "$output"
    [ "$status" -ne 0 ]
    [[ $output == *"the state may take"*"stop --shutdown"* ]]
    [ "$("$K3S_VM" exec -- cat /proc/sys/kernel/random/boot_id)" = "$boot" ]
    rm filler
    "$K3S_VM" stop
    "$K3S_VM" start
    [ "$("$K3S_VM" exec -- cat /proc/sys/kernel/random/boot_id)" = "$boot" ]'
}

@test "kubectl resumes a suspended VM with AUTO_RESUME, and says how without" {
  mkdir -p "$BATS_TEST_TMPDIR/bin" web/.kube
  printf '#!/bin/sh\nkill -TERM $$\n' >"$BATS_TEST_TMPDIR/bin/kubectl"
  chmod +x "$BATS_TEST_TMPDIR/bin/kubectl"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  suspended_vm
  : >web/.kube/config
  run -4 --separate-stderr "$K3S_VM" kubectl get pods
  [[ $stderr == *"k3s-vm start"* ]]
  # Signals reach kubectl as if it had been started alone.
  run -143 --separate-stderr env AUTO_RESUME=on "$K3S_VM" kubectl get pods
  [ -z "$output" ]
  [ "$(boot_id)" = "$boot" ]
}

@test "stop and start, their supervisor and QEMU killed at random moments: it comes back with its disk" {
  RANDOM=${K3S_VM_TEST_SEED:=$RANDOM}
  echo "K3S_VM_TEST_SEED=$K3S_VM_TEST_SEED repeats these moments"
  "$K3S_VM"
  for ((i = 1; i <= ${K3S_VM_TEST_KILLS:-10}; i++)); do
    "$K3S_VM" exec -- sh -c "echo $i > /var/word; sync"
    verb=stop
    if [ $((i % 2)) = 0 ]; then
      "$K3S_VM" stop
      verb=start
    fi
    "$K3S_VM" "$verb" >/dev/null 2>&1 3>&- &
    victims=($!)
    # Both take some tenths of a second.
    sleep "0.$(printf %02d $((RANDOM % 60)))"
    # The command alone; with the supervisor; with QEMU too.
    if [ $((i % 3)) != 0 ]; then
      mapfile -t -O 1 victims < <(supervisor_pid)
    fi
    if [ $((i % 3)) = 2 ]; then
      mapfile -t -O ${#victims[@]} victims < <(pgrep -f -- "^qemu-system-x86_64 -name guest=$VM_NAME,")
    fi
    kill -KILL "${victims[@]}" 2>/dev/null || :
    wait "${victims[0]}" 2>/dev/null || :
    # A QEMU that is on its way out still has its ports.
    for pid in "${victims[@]}"; do
      while [ -e "/proc/$pid" ]; do sleep 0.1; done
    done
    run "$K3S_VM" start
    echo "$i $verb ${#victims[@]}: $output"
    [ "$status" -eq 0 ]
    [ "$("$K3S_VM" exec -- cat /var/word)" = "$i" ]
    [ ! -e .k3s-vm/vm/suspend.json ]
  done
  "$K3S_VM" exec -- sh -c '! dmesg | grep -q "EXT4-fs error"'
  "$K3S_VM" stop --shutdown
  qemu-img check -q .k3s-vm/vm/data.qcow2 || [ $? -eq 3 ] # leaked clusters only
}
