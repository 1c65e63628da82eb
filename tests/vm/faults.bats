#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The program with real QEMU: what goes wrong, and that nothing is lost by it.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() { vm_teardown; }

@test "the supervisor killed: the VM goes on, and the next start gives it a new one" {
  "$K3S_VM"
  pid=$(vm_pid)
  old=$(supervisor_pid)
  kill -KILL "$old"
  [ "$(vm_state)" = running ]
  "$K3S_VM" start
  [ "$(vm_pid)" = "$pid" ]
  new=$(supervisor_pid)
  [ -n "$new" ] && [ "$new" != "$old" ]
  "$K3S_VM" stop
}

@test "QEMU killed: the supervisor starts it again" {
  "$K3S_VM"
  pid=$(vm_pid)
  kill -KILL "$pid"
  vm_becomes running 20
  [ "$(vm_pid)" != "$pid" ]
  "$K3S_VM" start
  "$K3S_VM" exec -- true
}

@test "both killed: status says crashed, and start boots it" {
  "$K3S_VM"
  pid=$(vm_pid)
  kill -KILL "$(supervisor_pid)" "$pid"
  vm_becomes crashed 10
  "$K3S_VM" start
  [ "$(vm_state)" = running ]
}

@test "the guest powers itself off: the VM is stopped and stays down" {
  "$K3S_VM"
  "$K3S_VM" exec -- poweroff || true
  vm_becomes stopped 30
  sleep 3
  [ "$(vm_state)" = stopped ]
}

@test "the guest reboots itself: the same QEMU goes on" {
  "$K3S_VM"
  pid=$(vm_pid)
  boot=$(boot_id)
  "$K3S_VM" exec -- reboot || true
  for _ in {1..60}; do
    [ "$(boot_id 2>/dev/null || echo "$boot")" = "$boot" ] || break
    sleep 0.5
  done
  [ "$(boot_id)" != "$boot" ]
  [ "$(vm_pid)" = "$pid" ]
}

@test "a PID file with junk, empty, naming PID 1 or a live foreign process is not believed" {
  "$K3S_VM"
  "$K3S_VM" stop --shutdown
  for text in junk "" 1 $$; do
    echo "$text" >.k3s-vm/vm.pid
    [ "$(vm_state)" = stopped ]
  done
  "$K3S_VM" start
  "$K3S_VM" stop --shutdown
  kill -0 $$
}

@test "a PID file deleted while the VM runs: it is found all the same, and stopped" {
  "$K3S_VM"
  pid=$(vm_pid)
  rm .k3s-vm/vm.pid
  [ "$(vm_state)" = running ]
  "$K3S_VM" stop
  [ ! -e "/proc/$pid" ]
}

@test "a state cut in half: the disk is kept and the VM starts" {
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo kept > /var/word; sync'
  "$K3S_VM" stop
  truncate -s 40 .k3s-vm/vm/state.json
  run "$K3S_VM"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
}

@test "Ctrl-C during a start is exit 130, and the next start succeeds" {
  # A shell starts background jobs with SIGINT ignored; env gives the program the default back.
  env --default-signal=INT "$K3S_VM" >out 2>&1 &
  command=$!
  sleep 1
  kill -INT "$command"
  status=0
  wait "$command" || status=$?
  cat out
  [ "$status" -eq 130 ]
  "$K3S_VM" start || "$K3S_VM"
  [ "$(vm_state)" = running ]
}

@test "start, stop and reset killed at 20 random moments: nothing hinders the next command, nothing is left" {
  RANDOM=${K3S_VM_TEST_SEED:=$RANDOM}
  echo "K3S_VM_TEST_SEED=$K3S_VM_TEST_SEED repeats these moments"
  verbs=("" stop "" "reset --yes")
  for i in {0..19}; do
    # shellcheck disable=SC2086 # words
    "$K3S_VM" ${verbs[i % 4]} >/dev/null 2>&1 3>&- &
    command=$!
    # The first tenths of a second are the busy ones.
    sleep "$(printf '%d.%02d' $((RANDOM % 3 == 0 ? RANDOM % 3 : 0)) $((RANDOM % 100)))"
    kill -KILL "$command" 2>/dev/null || true
    wait "$command" 2>/dev/null || true
  done
  "$K3S_VM"
  [ "$(vm_state)" = running ]
  "$K3S_VM" exec -- true
  [ "$(pgrep -fc -- "^qemu-system-x86_64 -name guest=$VM_NAME,")" = 1 ]
  [ "$(pgrep -fc "supervise --project $PROJECT ")" = 2 ]
}

@test "twenty commands at once: each waits, says for whom, and ends rightly, and so does the VM" {
  verbs=("" stop status "reset --yes" start)
  # What each may end with, in whatever order they come: nothing to stop is 4, a VM that a reset is making anew 3.
  rightly=("0" "0 4" "0 3" "0" "0")
  "$K3S_VM"
  pids=()
  for i in {0..19}; do
    # shellcheck disable=SC2086 # words
    "$K3S_VM" ${verbs[i % 5]} >"out.$i" 2>&1 3>&- &
    pids+=($!)
  done
  for i in {0..19}; do
    status=0
    wait "${pids[i]}" || status=$?
    [[ " ${rightly[i % 5]} " == *" $status "* ]] || { echo "k3s-vm ${verbs[i % 5]}: exit $status" && cat "out.$i" && return 1; }
  done
  grep -qE 'waiting for `k3s-vm (up|start|stop|reset)` \(process [0-9]+\)' out.*
  "$K3S_VM"
  "$K3S_VM" exec -- true
  [ "$(pgrep -fc -- "^qemu-system-x86_64 -name guest=$VM_NAME,")" = 1 ]
  [ "$(pgrep -fc "supervise --project $PROJECT ")" = 2 ]
}

@test "a QEMU that prints an error and exits: its own words are shown" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  cat >"$BATS_TEST_TMPDIR/bin/qemu-system-x86_64" <<'END'
#!/bin/sh
case "$*" in *-machine\ help*) echo 'pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)'; exit ;; esac
echo 'qemu-system-x86_64: the moon is in the wrong phase' >&2
exit 1
END
  chmod +x "$BATS_TEST_TMPDIR/bin/qemu-system-x86_64"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run "$K3S_VM"
  echo "$output"
  [ "$status" -ne 0 ]
  [[ "$output" == *"the moon is in the wrong phase"* ]]
}

@test "the project renamed while the VM runs: it is found and suspended there" {
  "$K3S_VM"
  pid=$(vm_pid)
  mv "$PROJECT" "$PROJECT-moved"
  PROJECT=$PROJECT-moved
  cd "$PROJECT"
  [ "$(vm_pid)" = "$pid" ]
  "$K3S_VM" stop
  [ "$(vm_state)" = suspended ]
  # It has a new supervisor, which is not its parent: whoever is buries it in a moment.
  for _ in {1..50}; do
    [ -e "/proc/$pid" ] || break
    sleep 0.1
  done
  [ ! -e "/proc/$pid" ]
}

@test "a start that is killed in its first moments: the next one has one QEMU, and the disk to itself" {
  "$K3S_VM"
  for ((i = 1; i <= ${K3S_VM_TEST_KILLS:-5}; i++)); do
    "$K3S_VM" stop --force
    "$K3S_VM" start >/dev/null 2>&1 3>&- &
    start=$!
    sleep "0.0$(printf %02d $((RANDOM % 99)))"
    kill -KILL "$start" 2>/dev/null || :
    wait "$start" 2>/dev/null || :
    "$K3S_VM" start
    [ "$(pgrep -fc -- "^qemu-system-x86_64 -name guest=$VM_NAME,")" = 1 ]
  done
}
