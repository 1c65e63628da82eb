# SPDX-License-Identifier: MIT
# What the commands say where there is no VM, or one that does not run.
load ../lib/common

setup() {
  setup_project
}

@test "without a VM the commands that need one exit with 3, say how to make one, and create nothing" {
  before=$(snapshot)
  fails_with 3 'k3s-vm' "$K3S_VM" ssh
  fails_with 3 'k3s-vm' "$K3S_VM" ssh -- true
  fails_with 3 'k3s-vm' "$K3S_VM" exec -- true
  fails_with 3 'k3s-vm' "$K3S_VM" cp guest:/etc/os-release .
  fails_with 3 'k3s-vm' "$K3S_VM" logs
  fails_with 3 'k3s-vm' "$K3S_VM" logs serial
  fails_with 3 'k3s-vm' "$K3S_VM" stop
  fails_with 3 'k3s-vm' "$K3S_VM" start
  fails_with 3 'k3s-vm' "$K3S_VM" kubectl get nodes
  fails_with 3 'k3s-vm' "$K3S_VM" k9s
  fails_with 3 'k3s-vm' "$K3S_VM" reset --warm --yes
  fails_with 3 'k3s-vm' "$K3S_VM" snapshot save one
  fails_with 3 'k3s-vm' "$K3S_VM" doze name
  diff <(echo "$before") <(snapshot)
}

@test "without a VM status says so and exits with 3" {
  run -3 --separate-stderr "$K3S_VM" status
  [[ $output$stderr == *VM* ]]
}

@test "a VM that does not run is the wrong state for ssh, exec, cp, logs k3s and kubectl" {
  fake_vm
  before=$(snapshot)
  fails_with 4 'k3s-vm start' "$K3S_VM" ssh
  fails_with 4 'k3s-vm start' "$K3S_VM" exec true
  fails_with 4 'k3s-vm start' "$K3S_VM" cp guest:/etc/os-release .
  fails_with 4 'k3s-vm start' "$K3S_VM" logs k3s
  fails_with 4 'k3s-vm start' "$K3S_VM" kubectl get nodes
  diff <(echo "$before") <(snapshot)
}

@test "cp looks at the local side before it looks for the VM" {
  fake_vm
  fails_with 2 'nosuch' "$K3S_VM" cp nosuch guest:/tmp/
}

# What a run may leave behind that changes nothing: the lock, with the folder it is in.
snapshot_but_lock() {
  snapshot | grep -v -e '\.k3s-vm/lock' -e '\.k3s-vm d 700 [0-9]* $'
}

@test "what the configuration asks for and cannot be had is refused before anything is made" {
  before=$(snapshot_but_lock)
  fails_with 2 'k3s-vm configure FLAVOR=auto' env FLAVOR=/nowhere K3S_VERSION=none "$K3S_VM" setup
  fails_with 2 'k3s-vm configure IMAGE=ubuntu-24.04' env FLAVOR=cloud IMAGE=./nowhere.img K3S_VERSION=none "$K3S_VM"
  fails_with 2 'k3s-vm configure IMAGE=ubuntu-24.04' env IMAGE=/etc K3S_VERSION=none "$K3S_VM" setup
  fails_with 2 'k3s-vm configure K3S_ARGS=' env K3S_ARGS=traefik K3S_VERSION=none "$K3S_VM"
  diff <(echo "$before") <(snapshot_but_lock)
}

@test "a cloud image that cannot be reached, or is none, is an error that says what to do" {
  fails_with 1 'cannot find the cloud image of Debian 12' env IMAGE=debian-12 MIRROR_IMAGES=https://127.0.0.1:1 \
    K3S_VERSION=none "$K3S_VM" setup
  [[ $stderr == *'k3s-vm configure IMAGE=./debian-12-genericcloud-amd64.qcow2'* ]]
  # The default where nothing can be built.
  mkdir bin
  ln -s "$(command -v qemu-img)" "$(command -v qemu-system-x86_64)" bin/
  fails_with 1 'cannot find the cloud image of Ubuntu 24.04' env PATH="$PWD/bin" MIRROR_IMAGES=https://127.0.0.1:1 \
    K3S_VERSION=none "$K3S_VM"
  echo '<html>' >no.img
  fails_with 2 'no.img cannot be used' env IMAGE=./no.img K3S_VERSION=none "$K3S_VM" setup
  qemu-img create -q -f qcow2 -b /etc/passwd -F raw other.qcow2
  fails_with 2 'refers to other files' env IMAGE=./other.qcow2 K3S_VERSION=none "$K3S_VM" setup
  qemu-img create -q -f qcow2 large.qcow2 30G
  fails_with 2 'k3s-vm configure VM_DISK=30' env IMAGE=./large.qcow2 K3S_VERSION=none "$K3S_VM" setup
}

@test "a disk that is to become smaller is refused before anything is made" {
  fake_vm
  sed -i 's/"schema": 1,/"schema": 1, "disk_gib": 20,/' .k3s-vm/vm/state.json
  touch .k3s-vm/vm/data.qcow2
  before=$(snapshot_but_lock)
  fails_with 2 'k3s-vm configure VM_DISK=20' env VM_DISK=12 K3S_VERSION=none "$K3S_VM" start
  fails_with 2 'k3s-vm configure VM_DISK=20' env VM_DISK=12 K3S_VERSION=none "$K3S_VM"
  diff <(echo "$before") <(snapshot_but_lock)
}

@test "list without VMs is empty and fine" {
  run -0 --separate-stderr "$K3S_VM" list
  [ -z "$output" ]
  run -0 --separate-stderr "$K3S_VM" list --quiet
  [ -z "$output$stderr" ]
}

@test "list --json without VMs is an object with no VMs" {
  skip_unless jq command -v jq
  run -0 --separate-stderr "$K3S_VM" list --json
  [ "$(jq -c '.vms' <<<"$output")" = '[]' ]
  jq -e '.orphans | type == "array"' <<<"$output"
}

# Enters a VM into the registry, as the program does when it makes one.
register() {
  mkdir -p "$XDG_STATE_HOME/k3s-vm/vms"
  chmod -R go-rwx "$XDG_STATE_HOME/k3s-vm"
  jq -n --arg uuid "$1" --arg project "$2" '{schema: 1, uuid: $uuid, name: "k3s-vm-shop", project: $project,
    ports: {api: 21943, ssh: 21922, web: 21980}}' >"$XDG_STATE_HOME/k3s-vm/vms/$1.json"
}

@test "list shows the VMs of other projects with state, ports and version" {
  skip_unless jq command -v jq
  uuid=01234567-89ab-4cde-8f01-23456789abcd
  mkdir "$SCRATCH/other" && cd "$SCRATCH/other"
  fake_vm "$uuid"
  register "$uuid" "$SCRATCH/other"
  cd "$PROJECT"
  run -0 --separate-stderr "$K3S_VM" list
  [ "${#lines[@]}" = 2 ]
  [[ ${lines[1]} =~ ^k3s-vm-shop\ +[a-z]+\ +21943\ +21922\ +21980\ +v1\.33\.1\+k3s1\ +$SCRATCH/other$ ]]
  run -0 --separate-stderr "$K3S_VM" list --json
  [ "$(jq -r '.vms[0] | [.name, .project, .uuid, .ports.api, .payload.version] | join(" ")' <<<"$output")" = \
    "k3s-vm-shop $SCRATCH/other $uuid 21943 v1.33.1+k3s1" ]
  jq -e '.vms[0].state | IN("created", "stopped", "crashed")' <<<"$output"
}

@test "list takes no lock" {
  skip_unless jq command -v jq
  uuid=01234567-89ab-4cde-8f01-23456789abcd
  fake_vm "$uuid"
  register "$uuid" "$PROJECT"
  exec 8>.k3s-vm/lock
  flock 8
  run -0 timeout 5 "$K3S_VM" list
  exec 8>&-
}

@test "list makes a project's name harmless for a terminal" {
  skip_unless jq command -v jq
  uuid=01234567-89ab-4cde-8f01-23456789abcd
  mkdir "$SCRATCH/"$'evil\033[31m' && cd "$SCRATCH/"$'evil\033[31m'
  fake_vm "$uuid"
  register "$uuid" "$PWD"
  run -0 "$K3S_VM" list
  [[ $output == *'evil\x1b[31m'* ]]
}

@test "list shows a QEMU that no project knows any more" {
  skip_unless jq command -v jq
  skip_unless qemu-system-x86_64 command -v qemu-system-x86_64
  socket=$XDG_RUNTIME_DIR/k3s-vm/aaaaaaaa-89a/qmp.sock
  mkdir -p "${socket%/*}"
  qemu-system-x86_64 -name guest=lost,process=qemu-k3s-vm -uuid aaaaaaaa-89ab-4cde-8f01-23456789abcd \
    -machine none -display none -monitor none -serial none \
    -chardev "socket,id=qmp,path=$socket,server=on,wait=off" 3>&- &
  qemu=$!
  for _ in {1..100}; do
    run -0 --separate-stderr "$K3S_VM" list --json
    jq -e '.orphans[0]' <<<"$output" >/dev/null && break
    read -rt 0.1 <> <(:) || :
  done
  kill "$qemu"
  wait "$qemu" || :
  [ "$(jq -r ".orphans[] | select(.pid == $qemu) | .name + .uuid" <<<"$output")" = \
    lostaaaaaaaa-89ab-4cde-8f01-23456789abcd ]
}

@test "doctor prints a line a check, and exits with 0 or 6" {
  run --separate-stderr "$K3S_VM" doctor
  [ "$status" = 0 ] || [ "$status" = 6 ]
  [ "$(grep -c '^[+!x] ' <<<"$output")" -ge 3 ]
  failed=$(grep -c '^x ' <<<"$output") || :
  [ "$((failed > 0))" = "$((status == 6))" ]
}

@test "doctor --json is an object with one entry a check" {
  skip_unless jq command -v jq
  run --separate-stderr "$K3S_VM" doctor --json
  jq -e '.checks | length >= 3' <<<"$output"
  jq -e '.checks | all((.name | length > 0) and (.text | length > 0) and
    (.result | IN("ok", "warning", "failed")))' <<<"$output"
  [ "$(jq .ok <<<"$output")" = "$([ "$status" = 0 ] && echo true || echo false)" ]
  [ "$(jq '[.checks[] | select(.result == "failed")] | length == 0' <<<"$output")" = "$(jq .ok <<<"$output")" ]
}

@test "doctor creates nothing in the project" {
  run "$K3S_VM" doctor
  [ -z "$(ls -A)" ]
}
