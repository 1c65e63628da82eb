#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# What this machine does to a VM: ports held by others, a reboot, a closed terminal, another QEMU.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() {
  [ -z "${HOLDER:-}" ] || kill "$HOLDER" 2>/dev/null || true
  vm_teardown
}

# hold ADDRESS PORT [COMMAND…]: a process (run by COMMAND) listens there. $HOLDER is its PID.
hold() {
  local address=$1 port=$2
  shift 2
  rm -f "$BATS_TEST_TMPDIR/holds"
  # Another user may not be let into the folders on PATH.
  "$@" env PATH="/usr/bin:/bin:$PATH" python3 - "$address" "$port" >"$BATS_TEST_TMPDIR/holds" 3>&- <<'END' &
import socket, sys, time
address, port = sys.argv[1:]
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
if ":" in address:
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((address, int(port)))
s.listen()
print("ready", flush=True)
time.sleep(60)
END
  HOLDER=$!
  until grep -qs ready "$BATS_TEST_TMPDIR/holds"; do
    kill -0 "$HOLDER" || return 1
    sleep 0.05
  done
}

# A qemu-system-x86_64 in $THIEVES, which is to come first on PATH: somebody takes API_PORT just before QEMU does.
port_thief() {
  THIEVES=$BATS_TEST_TMPDIR/bin
  mkdir "$THIEVES"
  cat >"$THIEVES/qemu-system-x86_64" <<END
#!/bin/sh
exec python3 "$ROOT/tests/lib/port_thief.py" "$API_PORT" "$BATS_TEST_TMPDIR/thief" "$(command -v qemu-system-x86_64)" "\$@"
END
  chmod +x "$THIEVES/qemu-system-x86_64"
}

# The thief is named, and was left alone; then it is ended.
thief_is_named() {
  local thief
  thief=$(cat "$BATS_TEST_TMPDIR/thief")
  kill -0 "$thief"
  kill "$thief"
  [[ $1 == *"$API_PORT"* ]] && [[ $1 == *"$thief"* ]] && [[ $1 == *python3* ]]
}

have_ipv6() { python3 -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))'; }

@test "a foreign listener on any port, IPv4 or IPv6, loopback or wildcard, is named and left alone" {
  for address in 0.0.0.0 ::1 ::; do
    [[ $address != *:* ]] || skip_unless IPv6 have_ipv6
    for key in API_PORT SSH_PORT WEB_PORT; do
      hold "$address" "${!key}"
      run "$K3S_VM"
      echo "$address $key: $output"
      kill -0 "$HOLDER"
      kill "$HOLDER"
      wait "$HOLDER" || true
      [ "$status" -eq 5 ]
      [[ "$output" == *"${!key}"* ]] && [[ "$output" == *"$HOLDER"* ]] && [[ "$output" == *"$key"* ]]
      [ ! -e .k3s-vm/vm ]
    done
  done
}

@test "a port taken between the check and QEMU's start is exit 5, names who took it, and the next start succeeds" {
  port_thief
  PATH=$THIEVES:$PATH run "$K3S_VM"
  echo "$output"
  [ "$status" -eq 5 ]
  thief_is_named "$output"
  "$K3S_VM"
}

@test "a port taken between the check and a resume: the VM stays suspended, and nothing of it is lost" {
  "$K3S_VM"
  "$K3S_VM" exec -- sh -c 'echo here > /run/word'
  "$K3S_VM" stop
  port_thief
  PATH=$THIEVES:$PATH run "$K3S_VM" start
  echo "$output"
  [ "$status" -eq 5 ]
  thief_is_named "$output"
  [ "$(vm_state)" = suspended ]
  supervisor_gone
  [ "$(jq .synced .k3s-vm/vm/suspend.json)" = 1 ]
  "$K3S_VM" start
  [ "$("$K3S_VM" exec -- cat /run/word)" = here ]
}

@test "a listener of another user is named by that user" {
  skip_unless "root" [ "$(id -u)" = 0 ]
  hold 127.0.0.1 "$API_PORT" setpriv --reuid nobody --clear-groups
  run "$K3S_VM"
  echo "$output"
  kill -0 "$HOLDER"
  [ "$status" -eq 5 ]
  [[ "$output" == *nobody* ]]
}

@test "a listener that hidepid hides is still told by its user" {
  skip_unless "root" [ "$(id -u)" = 0 ]
  hold 127.0.0.1 "$API_PORT"
  # Where another user may go, with the program.
  folder=$(mktemp -d /tmp/k3s-vm-hidepid.XXXXXX)
  cp "$K3S_VM" "$folder/k3s-vm"
  mkdir -m 700 "$folder/shop" "$folder/run"
  chown -R nobody "$folder"
  # shellcheck disable=SC2016 # for the inner shell
  run unshare -m sh -c 'mount -t proc -o hidepid=2 proc /proc && cd "$0/shop" &&
    exec setpriv --reuid nobody --clear-groups env HOME="$0" XDG_RUNTIME_DIR="$0/run" XDG_CACHE_HOME="$0/cache" \
      XDG_STATE_HOME="$0/state" XDG_CONFIG_HOME="$0/config" PATH=/usr/bin:/bin FLAVOR=auto "$0/k3s-vm"' "$folder"
  echo "$output"
  rm -rf "$folder"
  kill -0 "$HOLDER"
  [ "$status" -eq 5 ]
  [[ "$output" == *"$API_PORT"* ]] && [[ "$output" == *root* ]] && [[ "$output" != *"$HOLDER"* ]]
}

@test "this machine rebooted while the VM ran: it is stopped, not crashed, and starts" {
  "$K3S_VM"
  kill -KILL "$(supervisor_pid)" "$(vm_pid)"
  vm_becomes crashed 10
  rm -rf "$XDG_RUNTIME_DIR/k3s-vm"
  jq '.boot_id = "00000000-0000-4000-8000-000000000000"' .k3s-vm/vm/state.json >state
  chmod 600 state
  mv state .k3s-vm/vm/state.json
  rm -f .k3s-vm/vm/exit.json
  run "$K3S_VM" status
  echo "$output"
  [[ "$output" == *stopped* ]] && [[ "$output" == *"restarted while the VM ran"* ]]
  "$K3S_VM" start
  [ "$(vm_state)" = running ]
}

@test "this machine's clock set back by a day: the VM is the same one, is suspended, and goes on" {
  skip_unless faketime command -v faketime
  "$K3S_VM"
  pid=$(vm_pid)
  boot=$(boot_id)
  yesterday=(env NO_FAKE_STAT=1 faketime -f -1d)
  [ "$("${yesterday[@]}" "$K3S_VM" --json status | jq --argjson pid "$pid" '.state == "running" and .pid == $pid')" = true ]
  "${yesterday[@]}" "$K3S_VM" start
  [ "$(vm_pid)" = "$pid" ]
  # Saved tomorrow, as that command sees it.
  "$K3S_VM" stop
  run "${yesterday[@]}" "$K3S_VM" status
  echo "$output"
  [[ $output == *": suspended since "* ]]
  "${yesterday[@]}" "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
  "$K3S_VM" stop
  "$K3S_VM" start
  [ "$(boot_id)" = "$boot" ]
}

@test "SIGHUP and SIGTERM during a start are exit 130, and the next start succeeds" {
  for signal in HUP TERM; do
    "$K3S_VM" >out 2>&1 3>&- &
    command=$!
    until [ -s .k3s-vm/vm.pid ]; do sleep 0.05; done
    kill "-$signal" "$command"
    status=0
    wait "$command" || status=$?
    cat out
    [ "$status" -eq 130 ]
    "$K3S_VM" stop --force
  done
  "$K3S_VM"
  [ "$(vm_state)" = running ]
}

@test "the terminal closed after a start: the VM, its supervisor and the helper go on" {
  # A session with a terminal of its own, which is hung up when its leader ends.
  python3 - "$K3S_VM" 3>&- <<'END'
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv("/bin/sh", ["sh", "-c", '"$0" start || "$0"', sys.argv[1]])
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
END
  [ "$(vm_state)" = running ]
  [ "$(pgrep -fc "supervise --project $PROJECT ")" = 2 ]
  "$K3S_VM" exec -- true
}

@test "an orphan without its files: a start takes its place, and there is one QEMU" {
  "$K3S_VM"
  uuid=$("$K3S_VM" --json status | jq -r .uuid)
  pid=$(vm_pid)
  kill -KILL "$(supervisor_pid)"
  rm -rf .k3s-vm/vm.pid "$XDG_RUNTIME_DIR/k3s-vm"
  "$K3S_VM" start
  [ "$(pgrep -fc -- "-uuid $uuid ")" = 1 ]
  [ ! -e "/proc/$pid" ]
}

@test "a panic of the guest's kernel: it is recorded, and the VM is started again" {
  "$K3S_VM"
  pid=$(vm_pid)
  timeout 10 "$K3S_VM" exec -- sh -c 'echo c >/proc/sysrq-trigger' || true
  event_seen repair:restarted 40
  event_seen qmp:GUEST_PANICKED 1
  "$K3S_VM" start
  [ "$(vm_pid)" != "$pid" ]
}

@test "a QEMU that is not executable is as good as none" {
  mkdir "$BATS_TEST_TMPDIR/bin"
  for tool in env sh bash; do ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/bin/$tool"; done
  echo "not a program" >"$BATS_TEST_TMPDIR/bin/qemu-system-x86_64"
  PATH=$BATS_TEST_TMPDIR/bin run "$K3S_VM"
  echo "$output"
  [ "$status" -eq 6 ]
  [[ "$output" == *qemu-system-x86* ]]
}

@test "an older QEMU that lacks the VM's machine type: its words are shown, and the VM is kept" {
  "$K3S_VM" setup
  mkdir "$BATS_TEST_TMPDIR/bin"
  cat >"$BATS_TEST_TMPDIR/bin/qemu-system-x86_64" <<'END'
#!/bin/sh
case "$*" in *-machine\ help*) echo 'pc-q35-4.0           Standard PC (Q35 + ICH9, 2009)'; exit ;; esac
echo 'qemu-system-x86_64: unsupported machine type' >&2
exit 1
END
  chmod +x "$BATS_TEST_TMPDIR/bin/qemu-system-x86_64"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH run "$K3S_VM" start
  echo "$output"
  [ "$status" -ne 0 ]
  [[ "$output" == *"unsupported machine type"* ]]
  "$K3S_VM" start
  [ "$(vm_state)" = running ]
}
