#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The supervisor of a real VM: its confinement, its socket, its repairs.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() {
  vm_teardown
  cd /
  [ -z "${SMALL:-}" ] || umount "$SMALL"
}

# Whether a filter (Seccomp: 2) is on process PID.
filtered() { grep -q "^Seccomp:[[:space:]]*2$" "/proc/$1/status"; }

@test "the supervisor lives under a system call filter, QEMU is started outside of it, also after a crash" {
  "$K3S_VM"
  supervisor=$(supervisor_pid)
  filtered "$supervisor"
  # QEMU has a filter of its own; had it the supervisor's too, it could not make a socket.
  [ "$("$K3S_VM" --json status | jq .supervisor.confined)" = true ]
  pid=$(vm_pid)
  kill -KILL "$pid"
  event_seen repair:restarted 20
  [ "$(supervisor_pid)" = "$supervisor" ]
  filtered "$supervisor"
  "$K3S_VM" start
  "$K3S_VM" exec -- true
  [ "$("$K3S_VM" --json status | jq .supervisor.restarts)" = 1 ]
  [[ "$("$K3S_VM" status)" == *"restarts"*"k3s-vm logs supervisor"* ]]
}

@test "the supervisor's helper killed: the VM goes on, and stop leaves nothing" {
  "$K3S_VM"
  for pid in $(pgrep -f "supervise --project $PROJECT "); do
    [ "$(cat "/proc/$pid/comm")" = k3s-vm ] || kill -KILL "$pid"
  done
  [ "$(vm_state)" = running ]
  "$K3S_VM" stop
  supervisor_gone
  run pgrep -f "supervise --project $PROJECT "
  [ -z "$output" ]
}

@test "the supervisor killed: status, list, exec and logs give the VM a new one" {
  "$K3S_VM"
  pid=$(vm_pid)
  old=$(supervisor_pid)
  for command in status list "exec -- true" "logs k3s"; do
    kill -KILL "$old"
    while [ -e "/proc/$old" ]; do sleep 0.05; done
    # shellcheck disable=SC2086 # words
    "$K3S_VM" $command >/dev/null 2>&1 || true
    new=$(supervisor_pid)
    echo "$command: $old, then $new"
    [ -n "$new" ] && [ "$new" != "$old" ]
    filtered "$new"
    old=$new
  done
  [ "$(vm_pid)" = "$pid" ]
  "$K3S_VM" stop
}

@test "a guest whose clock is an hour off is set right within a second, and that is recorded" {
  "$K3S_VM"
  "$K3S_VM" exec -- date -s "@$(($(date +%s) - 3600))"
  run ! clock_is_right
  "$K3S_VM" set-clock
  clock_is_right
  event_seen repair:clock 1
  off=$(jq -r 'select(.event == "repair:clock").was_off_ms' .k3s-vm/events.jsonl)
  [ "$off" -lt -3590000 ] && [ "$off" -gt -3610000 ]
  # Once right it is left alone.
  "$K3S_VM" set-clock
  [ "$(grep -c repair:clock .k3s-vm/events.jsonl)" = 1 ]
}

@test "a VM that was paused goes on: its supervisor has the guest's clock set" {
  "$K3S_VM"
  "$K3S_VM" exec -- date -s "@$(($(date +%s) + 100000))"
  qmp stop
  sleep 1.5
  [ "$("$K3S_VM" --json status | jq -r .supervisor.phase)" = paused ]
  qmp cont
  event_seen repair:clock 30
  clock_is_right
}

@test "a monitor that is lost is connected again, and the supervisor still hears the guest's shutdown" {
  "$K3S_VM"
  socket=$XDG_RUNTIME_DIR/k3s-vm/$("$K3S_VM" --json status | jq -r '.uuid[:12]')/supervisor.sock
  [ "$(stat -c %a "$socket" "${socket%/*}" | xargs)" = "600 700" ]
  [ "$(echo '{"execute":"reconnect"}' | socat -t 2 - "UNIX-CONNECT:$socket")" = '{"return":{}}' ]
  event_seen repair:monitor 10
  "$K3S_VM" exec -- poweroff || true
  vm_becomes stopped 30
  event_seen qmp:SHUTDOWN 1
}

@test "logs that grow without end are cut by the confined supervisor" {
  "$K3S_VM"
  supervisor=$(supervisor_pid)
  head -c 5000000 /dev/zero | tr '\0' x >>.k3s-vm/vm.log
  head -c 17000000 /dev/zero | tr '\0' x >>.k3s-vm/vm/serial.log
  end=$((SECONDS + 40))
  until [ -e .k3s-vm/vm.log.1 ] && [ -e .k3s-vm/vm/serial.log.1 ]; do
    [ "$SECONDS" -lt "$end" ]
    sleep 1
  done
  [ "$(stat -c %s .k3s-vm/vm.log)" -lt 100000 ]
  [ "$(supervisor_pid)" = "$supervisor" ]
  "$K3S_VM" exec -- true
}

@test "the host's disk full while the VM writes: it pauses, and goes on once there is room" {
  skip_unless "root" [ "$(id -u)" = 0 ]
  mkdir "$BATS_TEST_TMPDIR/small"
  mount -t tmpfs -o size=1200m small "$BATS_TEST_TMPDIR/small"
  SMALL=$BATS_TEST_TMPDIR/small
  PROJECT=$SMALL/shop
  mkdir "$PROJECT"
  cd "$PROJECT"
  "$K3S_VM"
  supervisor=$(supervisor_pid)
  head -c 1300M /dev/zero >"$SMALL/filler" 2>/dev/null || true
  truncate -s -8M "$SMALL/filler"
  timeout 60 "$K3S_VM" exec -- sh -c 'head -c 40000000 /dev/urandom >/var/large; sync; wc -c </var/large' >written 3>&- &
  writer=$!
  vm_becomes degraded 40
  [[ "$("$K3S_VM" status)" == *"could not take a write"* ]]
  rm "$SMALL/filler"
  event_seen repair:resumed-after-failed-write 40
  wait "$writer"
  [ "$(tr -d ' \n' <written)" = 40000000 ]
  [ "$(vm_state)" = running ]
  [ "$(supervisor_pid)" = "$supervisor" ]
}

# init_guest FILE: the tiny guest with another init.
init_guest() {
  export FLAVOR=$BATS_TEST_TMPDIR/guest
  mkdir -p "$FLAVOR" "$BATS_TEST_TMPDIR/init"
  cp "$TINY_GUEST/guest.json" "$TINY_GUEST/vmlinuz" "$FLAVOR"
  install -m 755 "$1" "$BATS_TEST_TMPDIR/init/init"
  # Of two archives after each other the kernel unpacks both, and the later file stays.
  { cat "$TINY_GUEST/initrd.img"; (cd "$BATS_TEST_TMPDIR/init" && find . -type f | cpio --quiet -o -H newc); } >"$FLAVOR/initrd.img"
}

@test "a guest that stands still because QEMU has translated it wrongly goes on, and loses nothing" {
  skip_unless "root" [ "$(id -u)" = 0 ] # to write into QEMU's memory
  mkdir -p "$BATS_TEST_TMPDIR/init"
  "${CC:-cc}" -static -O1 -o "$BATS_TEST_TMPDIR/init/spin" "$ROOT/tests/vm/spin.c"
  # One on each CPU, behind the boot's last use of the disk.
  awk '/^exec .bin.busybox init/ { print "/spin & /spin; wait; echo it goes on" } { print }' "$ROOT/tests/vm/tiny/init" >spinning
  init_guest spinning
  "$K3S_VM" >start.log 2>&1 3>&- &
  start=$!
  event_seen qemu-started 60
  event_seen 'repair:retranslated' 60 # in vain, as memory still has the loop
  [ "$("$ROOT/tests/lib/mend_spin.py" "$(vm_pid)")" -ge 1 ]
  wait "$start" || { cat start.log; false; }
  grep -q 'it goes on' .k3s-vm/vm/serial.log
  [ "$(grep -c '"event":"repair:retranslated"' .k3s-vm/events.jsonl)" -ge 2 ]
  run ! grep -q -e repair:reset-at-standstill -e not-retranslated .k3s-vm/events.jsonl
  [ "$(vm_state)" = running ]
}

@test "a guest that spins while it boots and touches no disk is reset" {
  printf '#!/bin/busybox sh\nwhile :; do :; done\n' >spinning
  init_guest spinning
  "$K3S_VM" setup
  # Of an earlier boot, which went well.
  echo 'k3s-vm: the network is up' >.k3s-vm/vm/serial.log
  run "$K3S_VM" start --timeout 62
  echo "$output"
  [ "$status" -eq 7 ]
  [[ "$output" == *"stood still"*"it was reset"* ]]
  grep -q repair:reset-at-standstill .k3s-vm/events.jsonl
}

@test "a guest that reboots by itself and spins then is reset, and comes up" {
  # Its network is up once its disk is there; on that is whether it spins, which it does once.
  awk '/the network is up/ { up = $0; next }
    { print }
    /^mkdir -p .var.tmp/ { print "[ ! -e /var/spin ] || { rm /var/spin; sync; while :; do :; done; }"; print up }' \
    "$ROOT/tests/vm/tiny/init" >spinning-once
  init_guest spinning-once
  "$K3S_VM"
  pid=$(vm_pid) boot=$(boot_id)
  run "$K3S_VM" exec -- sh -c 'touch /var/spin; sync; reboot -f; sleep 60'
  echo "$output"
  [[ "$output" == *"the command in the guest was cut off"* ]]
  event_seen repair:reset-at-standstill 150
  "$K3S_VM" start
  [ "$(boot_id)" != "$boot" ]
  [ "$(vm_pid)" = "$pid" ]
  "$K3S_VM" exec -- test ! -e /var/spin
}

@test "a guest that never says that its network is up, reboots by itself and works hard is left alone" {
  awk '/the network is up/ { next }
    { print }
    /^mkdir -p .var.tmp/ { print "[ ! -e /var/busy ] || (while :; do :; done &)" }' "$ROOT/tests/vm/tiny/init" >silent
  init_guest silent
  "$K3S_VM"
  boot=$(boot_id)
  "$K3S_VM" exec -- sh -c 'touch /var/busy; sync; reboot -f; sleep 60' || true
  sleep 48 # four looks
  run ! grep -q repair:reset-at-standstill .k3s-vm/events.jsonl
  "$K3S_VM" start
  again=$(boot_id)
  [ "$again" != "$boot" ]
}

@test "the supervisor is killed while its helper is about to start QEMU: the next start goes on with that one" {
  "$K3S_VM"
  supervisor=$(supervisor_pid)
  helper=$(pgrep -P "$supervisor" -x k3s-vm-starter)
  kill -STOP "$helper"
  kill -KILL "$(vm_pid)"
  event_seen qemu-ended 20
  # Its order to start another one waits for the helper now.
  sleep 2
  kill -KILL "$supervisor"
  "$K3S_VM" start >start.log 2>&1 3>&- &
  start=$!
  sleep 1
  kill -CONT "$helper"
  wait "$start" || { cat start.log; false; }
  [ "$(pgrep -fc -- "^qemu-system-x86_64 -name guest=$VM_NAME,")" = 1 ]
  [ "$(vm_state)" = running ]
}
