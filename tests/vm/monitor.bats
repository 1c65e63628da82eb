#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# QEMU's monitor gone, mute or mad: the VM is not lost, and can be stopped.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() {
  [ -z "${FAKE:-}" ] || kill "$FAKE" 2>/dev/null || true
  vm_teardown
}

sockets() { echo "$XDG_RUNTIME_DIR/k3s-vm/$("$K3S_VM" --json status | jq -r '.uuid[:12]')"; }

# fake_monitor SOCKET KIND: somebody else listens where QEMU's monitor was. $FAKE is its process.
fake_monitor() {
  rm -f "$1"
  python3 - "$1" "$2" >/dev/null 2>&1 3>&- <<'END' &
import socket, sys, threading, time
path, kind = sys.argv[1:]
greeting = b'{"QMP": {"version": {}, "capabilities": []}}\n'
words = {"junk": b"\x00\xff junk {{{\n", "half": greeting[:20], "endless": b'"' + b"x" * (20 << 20), "mute": b"",
         "greeting only": greeting, "20 MiB event": greeting + b'{"event": "' + b"x" * (20 << 20) + b'"}\n'}[kind]
def serve(client):
    try:
        client.sendall(words)
        time.sleep(30)
    except OSError:
        pass
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(16)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
END
  FAKE=$!
  until [ -S "$1" ]; do sleep 0.05; done
}

@test "a QEMU that hangs at stop: it is ended step by step" {
  "$K3S_VM"
  pid=$(vm_pid)
  kill -STOP "$pid"
  run timeout 120 "$K3S_VM" stop --shutdown --timeout 2
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *SIGKILL* ]]
  [ ! -e "/proc/$pid" ]
  [ "$(vm_state)" = stopped ]
  "$K3S_VM" start
}

@test "QMP sockets deleted: the VM is degraded, and stop --shutdown still shuts the guest down in order" {
  "$K3S_VM"
  pid=$(vm_pid)
  rm "$(sockets)"/qmp*.sock
  run "$K3S_VM" status
  echo "$output"
  [[ "$output" == *degraded* ]]
  "$K3S_VM" exec -- true
  "$K3S_VM" stop --shutdown
  [ ! -e "/proc/$pid" ]
  grep -q '"reason":"guest-shutdown"' .k3s-vm/events.jsonl
  [ "$(vm_state)" = stopped ]
}

@test "a monitor that answers junk, half a message, 20 MiB or nothing: status tells in time, stop --shutdown stops" {
  "$K3S_VM"
  pid=$(vm_pid)
  folder=$(sockets)
  for kind in junk half endless mute "greeting only" "20 MiB event"; do
    fake_monitor "$folder/qmp.sock" "$kind"
    run timeout 20 "$K3S_VM" status
    echo "$kind: $output"
    [ "$status" -eq 0 ]
    [[ "$output" == *degraded*"monitor does not answer"* ]]
    kill "$FAKE"
  done
  fake_monitor "$folder/qmp.sock" mute
  timeout 100 "$K3S_VM" stop --shutdown
  [ ! -e "/proc/$pid" ]
  grep -q '"reason":"guest-shutdown"' .k3s-vm/events.jsonl
}

@test "a supervisor's monitor that turns into junk: it keeps trying, and the guest's shutdown is no crash" {
  "$K3S_VM"
  folder=$(sockets)
  mv "$folder/qmp-supervisor.sock" "$folder/real"
  fake_monitor "$folder/qmp-supervisor.sock" junk
  echo '{"execute":"reconnect"}' | socat -t 2 - "UNIX-CONNECT:$folder/supervisor.sock"
  sleep 3
  [ "$("$K3S_VM" --json status | jq .supervisor.monitor)" = false ]
  [[ "$("$K3S_VM" status --verbose)" == *"has lost QEMU's monitor"* ]]
  "$K3S_VM" exec -- poweroff || true
  vm_becomes stopped 30
  sleep 3
  [ "$(vm_state)" = stopped ]
  run ! grep -q repair:restarted .k3s-vm/events.jsonl
}

@test "the supervisor killed while the monitor hangs: a start ends that QEMU and boots" {
  "$K3S_VM"
  pid=$(vm_pid)
  kill -STOP "$pid"
  kill -KILL "$(supervisor_pid)"
  timeout 200 "$K3S_VM" start
  [ ! -e "/proc/$pid" ]
  [ "$(vm_state)" = running ]
}
