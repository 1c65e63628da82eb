#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# File systems that are full or read-only, and programs killed while they set a VM up: every time an error that says
# what mends it, nothing lost, and the next run goes on. Each test has mounts of its own.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }

setup() {
  skip_unless "mounts of its own (unshare -m, as root)" unshare -m --propagation private true
  vm_project
  export K3S_VM PROJECT
}

teardown() { vm_teardown; }

# mounted COMMANDS: runs them in the project in a mount namespace that goes with them.
mounted() {
  unshare -m --propagation private bash -euo pipefail -c "$(declare -f disk fill lacks tree stop_at_end); $1"
}

# disk DIR SIZE: an empty file system at DIR.
disk() {
  mkdir -p "$1"
  mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1"
}

# fill DIR: takes all room there.
fill() { cat /dev/zero >"$1/filler" 2>/dev/null || :; }

# lacks TEXT COMMAND…: exit 6 with TEXT and with what mends it.
lacks() {
  local text=$1 output status=0
  shift
  output=$("$@" 2>&1) || status=$?
  if [ "$status" -ne 6 ] || [[ $output != *"$text"* ]] || [[ $output != *'mend it: '* ]]; then
    printf 'expected 6 and "%s"; got %s: %s\n' "$text" "$status" "$output" >&2
    return 1
  fi
}

# tree DIR: what is there, but the lock and who held it last.
tree() { (cd "$1" && find . -type f ! -name lock ! -name filler -exec sha256sum {} + | sort -k 2); }

# The mounts, and with them the way to the VM, go when the commands end.
stop_at_end() { trap 'rm -f "$PROJECT/filler"; "$K3S_VM" --project "$PROJECT" stop --force >/dev/null 2>&1 || :' EXIT; }

@test "a read-only project without a VM: every command that makes something says so, and nothing is made" {
  mounted '
    mount --bind "$PROJECT" "$PROJECT"
    mount -o remount,bind,ro "$PROJECT"
    cd "$PROJECT"
    lacks "Read-only file system" "$K3S_VM"
    lacks "Read-only file system" "$K3S_VM" setup
    lacks "Read-only file system" "$K3S_VM" configure VM_CPUS=1
    "$K3S_VM" status || [ $? -eq 3 ]'
  [ -z "$(ls -A "$PROJECT")" ]
}

@test "a read-only project with a VM: status works, what would change it says why it cannot" {
  "$K3S_VM" setup
  export before
  before=$(mounted 'tree "$PROJECT"')
  mounted '
    mount --bind "$PROJECT" "$PROJECT"
    mount -o remount,bind,ro "$PROJECT"
    cd "$PROJECT"
    "$K3S_VM" status | grep -q ": created"
    for command in "" start stop "destroy --yes" "configure VM_CPUS=1"; do
      lacks "Read-only file system" "$K3S_VM" $command
    done
    [ "$(tree "$PROJECT")" = "$before" ]'
  "$K3S_VM" start
  [ "$(vm_state)" = running ]
}

@test "a full disk under the project: the configuration stays whole, no VM is begun, and with room it is made" {
  mounted '
    disk "$PROJECT" 1500m
    cd "$PROJECT"
    "$K3S_VM" configure VM_CPUS=1
    before=$(tree .)
    fill .
    lacks "No space left on device" "$K3S_VM" configure VM_CPUS=2
    lacks "free in $PROJECT" "$K3S_VM" setup
    [ "$(tree .)" = "$before" ]
    [ ! -e .k3s-vm/vm/state.json ]
    rm filler
    "$K3S_VM" setup
    "$K3S_VM" status | grep -q ": created"'
}

@test "a disk that fills up while the VM runs: it is not suspended, can be shut down, started with room, and destroyed without" {
  mounted '
    disk "$PROJECT" 1500m
    cd "$PROJECT"
    stop_at_end
    "$K3S_VM"
    "$K3S_VM" exec -- sh -c "echo kept > /var/word; sync"
    fill .
    "$K3S_VM" status | grep -q ": running"
    "$K3S_VM" stop && exit 1
    "$K3S_VM" status | grep -q ": running"
    "$K3S_VM" stop --shutdown
    "$K3S_VM" status | grep -q ": stopped"
    lacks "free in $PROJECT" "$K3S_VM" start
    rm filler
    "$K3S_VM" start
    [ "$("$K3S_VM" exec -- cat /var/word)" = kept ]
    fill .
    "$K3S_VM" destroy --yes
    "$K3S_VM" status | grep -q ": absent" || :
    [ ! -e .k3s-vm/vm ]'
}

@test "a cache without room for a guest or for a payload: it is said which folder, and nothing is left in it" {
  head -c 8000000 /dev/urandom >"$BATS_TEST_TMPDIR/k3s"
  export K3S=$BATS_TEST_TMPDIR/k3s
  mounted '
    disk "$XDG_CACHE_HOME" 20m
    cd "$PROJECT"
    lacks "$XDG_CACHE_HOME" env K3S_VERSION="$K3S" "$K3S_VM" setup
    [ -z "$(find "$XDG_CACHE_HOME" -type f -name "*.iso*" -o -name ".*")" ]
    mount -o remount,size=100m "$XDG_CACHE_HOME"
    K3S_VERSION=$K3S "$K3S_VM" setup
    "$K3S_VM" destroy --yes'
  mounted '
    disk "$XDG_CACHE_HOME" 16k
    cd "$PROJECT"
    lacks "$XDG_CACHE_HOME" env FLAVOR=debian "$K3S_VM" setup
    [ -z "$(find "$XDG_CACHE_HOME" -name ".*")" ]'
}

@test "a small folder for temporary files is no limit for an image" {
  head -c 8000000 /dev/urandom >"$BATS_TEST_TMPDIR/k3s"
  export K3S=$BATS_TEST_TMPDIR/k3s SMALL=$BATS_TEST_TMPDIR/small
  mounted '
    disk "$SMALL" 1m
    cd "$PROJECT"
    TMPDIR=$SMALL K3S_VERSION=$K3S "$K3S_VM" setup'
  [ -s "$(find "$XDG_CACHE_HOME/k3s-vm/payloads" -name '*.iso')" ]
}

@test "a setup killed at any moment is completed by the next, which removes what was left" {
  head -c 8000000 /dev/urandom >"$BATS_TEST_TMPDIR/k3s"
  export K3S_VERSION=$BATS_TEST_TMPDIR/k3s
  for delay in 0.01 0.02 0.04 0.06 0.08 0.1 0.15 0.2 0.3; do
    "$K3S_VM" setup >/dev/null 2>&1 &
    command=$!
    sleep "$delay"
    kill -KILL "$command" 2>/dev/null || :
    wait "$command" 2>/dev/null || :
    # Another image each time.
    head -c 8000000 /dev/urandom >"$K3S_VERSION"
    [ ! -e .k3s-vm/vm/data.qcow2 ] || "$K3S_VM" destroy --yes
  done
  # What was left is old by now.
  find "$XDG_CACHE_HOME/k3s-vm" -name '.*' -exec touch -d '1 minute ago' {} +
  [ -e .k3s-vm/vm/data.qcow2 ] || "$K3S_VM" setup
  [ "$(vm_state)" = created ]
  find "$XDG_CACHE_HOME/k3s-vm" -name '.*' -o -name '*.iso'
  # But for what is known of the files that are there.
  while read -r note; do
    file=${note##*/.}
    [ "$file" != "${file%.verified}" ]
    [ -e "${note%/*}/${file%.verified}" ]
  done < <(find "$XDG_CACHE_HOME/k3s-vm" -name '.*')
}
