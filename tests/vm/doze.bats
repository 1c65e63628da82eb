#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A VM that sleeps (IDLE_SUSPEND): its ports are held, and whoever connects wakes it and is served.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() { vm_teardown; }

# Has the VM sleep now, as its supervisor would after a while.
doze() {
  setsid "$K3S_VM" doze --project "$PROJECT" "$VM_NAME" >"$BATS_TEST_TMPDIR/doze.log" 2>&1 3>&- &
  DOZE=$!
  event_seen dozing 20
  [ "$(vm_state)" = suspended ]
  sed -i 's/"event":"dozing"/"event":"dozed"/' .k3s-vm/events.jsonl
}

doze_over() {
  local end=$((SECONDS + 20))
  while [ -e "/proc/$DOZE" ]; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# serve: 3 MB on port 8000 of the guest, which WEB_PORT leads to.
serve() {
  "$K3S_VM" exec -- sh -c 'mkdir -p /tmp/www && head -c 3000000 /dev/urandom >/tmp/www/data && sha256sum </tmp/www/data &&
    busybox httpd -p 8000 -h /tmp/www'
}

@test "the first connections wake the VM and are served, many at once and large ones" {
  export WEB_NODE_PORT=8000
  "$K3S_VM"
  boot=$(boot_id)
  sum=$(serve)
  doze
  # The first one is served in any case; another may come just when the ports change hands.
  for i in {1..6}; do
    retry=()
    [ "$i" = 1 ] || retry=(--retry 3 --retry-delay 1 --retry-connrefused)
    curl -sS --max-time 30 "${retry[@]}" "http://127.0.0.1:$WEB_PORT/data" 2>"$BATS_TEST_TMPDIR/error$i" |
      sha256sum >"$BATS_TEST_TMPDIR/sum$i" &
    clients[i]=$!
    [ "$i" != 1 ] || event_seen woken 10
  done
  wait "${clients[@]}"
  cat "$BATS_TEST_TMPDIR"/error*
  [ "$(cat "$BATS_TEST_TMPDIR"/sum* | grep -cxF "$sum")" -eq 6 ]
  doze_over
  [ "$(vm_state)" = running ]
  [ "$(boot_id)" = "$boot" ]
  [ "$(curl -sS "http://127.0.0.1:$WEB_PORT/data" | sha256sum)" = "$sum" ]
  # Again, now that it was resumed before.
  doze
  [ "$(curl -sS --max-time 30 "http://127.0.0.1:$WEB_PORT/data" | sha256sum)" = "$sum" ]
}

@test "a command that needs the VM wakes it" {
  "$K3S_VM"
  boot=$(boot_id)
  doze
  [ "$(boot_id)" = "$boot" ]
  doze_over
  [ "$(vm_state)" = running ]
}

@test "commands that start, stop or remove the VM end who dozes, and nobody holds a port afterwards" {
  "$K3S_VM"
  boot=$(boot_id)
  doze
  "$K3S_VM" start
  doze_over
  [ "$(boot_id)" = "$boot" ]
  doze
  run "$K3S_VM" stop
  [ "$status" -eq 4 ]
  "$K3S_VM" stop --shutdown
  doze_over
  [ "$(vm_state)" = stopped ]
  "$K3S_VM" start
  doze
  "$K3S_VM" snapshot save asleep
  "$K3S_VM" destroy --yes
  doze_over
  for port in "$API_PORT" "$SSH_PORT" "$WEB_PORT"; do ! port_answers "$port"; done
}

@test "who dozes is killed: the VM is suspended, and its next start goes on" {
  "$K3S_VM"
  boot=$(boot_id)
  doze
  kill -KILL "$DOZE"
  doze_over
  [ "$(vm_state)" = suspended ]
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
}

@test "a VM that cannot be woken: the events say why, and once that is mended it goes on" {
  "$K3S_VM"
  boot=$(boot_id)
  doze
  echo 'VM_CPUS=many' >.k3s-vm/config
  run curl -sS --max-time 20 "http://127.0.0.1:$WEB_PORT/"
  [ "$status" -ne 0 ]
  event_seen not-woken 20
  [[ "$(jq -r 'select(.event == "not-woken").why' .k3s-vm/events.jsonl)" == *"VM_CPUS"*"many"* ]]
  doze_over
  rm .k3s-vm/config
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
}

@test "IDLE_SUSPEND: a VM that nobody connects to for that long sleeps, one with a connection does not" {
  "$K3S_VM" configure IDLE_SUSPEND=1
  "$K3S_VM"
  ssh -q -o BatchMode=yes -o UserKnownHostsFile=.k3s-vm/vm/known_hosts -i .k3s-vm/vm/ssh_key -p "$SSH_PORT" root@127.0.0.1 \
    'sleep 100' 3>&- &
  client=$!
  sleep 95
  [ "$(vm_state)" = running ]
  ! grep -q '"event":"idle"' .k3s-vm/events.jsonl
  wait "$client"
  # A minute in which the kernel still knows of the connection, a minute without, and the time between two looks.
  event_seen dozing 180
  [ "$(vm_state)" = suspended ]
  [ "$("$K3S_VM" exec -- echo awake)" = awake ]
}
