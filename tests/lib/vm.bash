# SPDX-License-Identifier: MIT
# For the bats files that start real VMs with the tiny guest: a kernel and an initrd that boot in seconds to an SSH
# server, keep a counter on the data disk and obey the power button (tests/vm/tiny).

# The tiny guest, built once for all files of a run.
tiny_guest() {
  local folder=${K3S_VM_TEST_CACHE:-${HOME}/.cache}/k3s-vm-tests key
  key=$(cat "$ROOT"/tests/vm/tiny/* "$ROOT"/src/guest/debian/rootfs/usr/lib/k3s-vm/agent 2>/dev/null | sha256sum | cut -c1-16)
  TINY_GUEST=$folder/tiny-$key
  export TINY_GUEST
  mkdir -p "$folder"
  (
    flock 9 # of two files that are run side by side one builds it
    [ ! -e "$TINY_GUEST/guest.json" ] || exit 0
    rm -rf "$TINY_GUEST.new"
    "$ROOT/tests/vm/tiny/build" "$TINY_GUEST.new" >"$folder/tiny.log" 2>&1 || { cat "$folder/tiny.log" >&2; exit 1; }
    mv "$TINY_GUEST.new" "$TINY_GUEST"
  ) 9>"$folder/tiny.lock"
}

# vm_project [NAME]: an empty project with free ports whose VM is the tiny guest without a payload.
vm_project() {
  common_project "$BATS_TEST_TMPDIR" "$@" || return 1
  common_ports
  export FLAVOR=$TINY_GUEST K3S_VERSION=none VM_NAME="k3s-vm-test-$$-${BATS_TEST_NUMBER:-0}" VM_MEMORY=2048
  cd "$PROJECT" || return 1
}

# For teardown: whatever a test left running.
vm_teardown() {
  [ -z "${PROJECT:-}" ] || "$K3S_VM" --project "$PROJECT" destroy --yes >/dev/null 2>&1 || true
}

vm_state() { "$K3S_VM" --json status | jq -r .state; }
vm_pid() { "$K3S_VM" --json status | jq -r .pid; }

# The supervisor and its helper have the same command line, and names of their own.
supervisor_pid() {
  local pid
  for pid in $(pgrep -f "supervise --project $PROJECT "); do
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = k3s-vm ]; then echo "$pid"; fi
  done
}

# The supervisor of a VM that was suspended writes the state out before it ends.
supervisor_gone() {
  local end=$((SECONDS + 20))
  while [ -n "$(supervisor_pid)" ]; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

# qmp COMMAND…: each on the commands' monitor, one after the other.
qmp() {
  python3 - "$XDG_RUNTIME_DIR/k3s-vm/$("$K3S_VM" --json status | jq -r '.uuid[:12]')/qmp.sock" "$@" <<'END'
import json, socket, sys
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(sys.argv[1])
lines = monitor.makefile("rw")
lines.readline()
for command in ["qmp_capabilities", *sys.argv[2:]]:
    print(json.dumps({"execute": command}), file=lines, flush=True)
    while "event" in (answer := json.loads(lines.readline())):
        pass
    assert "return" in answer, answer
END
}

# event_seen EVENT SECONDS: waits for a line of that event in events.jsonl.
event_seen() {
  local end=$((SECONDS + $2))
  until grep -q "\"event\":\"$1\"" .k3s-vm/events.jsonl; do
    [ "$SECONDS" -lt "$end" ] || { tail .k3s-vm/events.jsonl >&2; return 1; }
    sleep 0.1
  done
}

# vm_becomes STATE SECONDS
vm_becomes() {
  local end=$((SECONDS + $2))
  until [ "$(vm_state)" = "$1" ]; do
    [ "$SECONDS" -lt "$end" ] || { echo "still $(vm_state)" >&2; return 1; }
    sleep 0.2
  done
}

# Whether the guest's clock is right within a second, as far as whole seconds can tell, however long asking takes.
clock_is_right() {
  local before guest after
  before=$(date +%s)
  guest=$("$K3S_VM" exec -- date -u +%s)
  after=$(date +%s)
  echo "the guest says $guest between $before and $after"
  [ "$guest" -ge $((before - 1)) ] && [ "$guest" -le $((after + 1)) ]
}

# Another one after each boot of the guest.
boot_id() { "$K3S_VM" exec -- cat /proc/sys/kernel/random/boot_id; }

# The counter that the guest keeps on its disk.
vm_counter() { "$K3S_VM" exec -- cat /var/counter; }
