# SPDX-License-Identifier: MIT
# For every bats file: where the program is, and a project of its own for each test.
#
#   K3S_VM=PATH               another program than bin/k3s-vm
#   K3S_VM_TEST_STRICT=1      a test that would be skipped fails instead

bats_require_minimum_version 1.5.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
K3S_VM=${K3S_VM:-$ROOT/bin/k3s-vm}

# common_project DIR [NAME]: an empty project ($PROJECT) named NAME below DIR, and XDG folders there, so that nothing
# of whoever runs the tests is read or written but what is below HOME. DIR is one that bats removes.
common_project() {
  local key
  [ -x "$K3S_VM" ] || { echo "there is no $K3S_VM: run make" >&2; return 1; }
  PROJECT=$1/${2:-shop}
  export PROJECT XDG_CACHE_HOME=$1/cache XDG_STATE_HOME=$1/state XDG_CONFIG_HOME=$1/config XDG_DATA_HOME=$1/data
  export XDG_RUNTIME_DIR=$1/run NO_COLOR=1
  # Settings of whoever runs the tests win over a project's configuration.
  for key in VM_NAME VM_CPUS VM_MEMORY VM_DISK API_PORT SSH_PORT WEB_PORT WEB_NODE_PORT FORWARDS FLAVOR \
    K3S_VERSION K3S_ARGS K3S_AIRGAP_IMAGES REGISTRY_MIRRORS REGISTRY_CA AUTO_RESUME ACCEL DNS KUBECONFIG_PATH WEB_ENV_PATH \
    KUBECONFIG MIRROR_K3S MIRROR_IMAGES; do
    unset "$key"
  done
  mkdir -p "$PROJECT"
  mkdir -p "$XDG_RUNTIME_DIR"
  chmod 0700 "$XDG_RUNTIME_DIR"
}

# For tests of the program alone: a scratch folder ($SCRATCH) with a project, which becomes the working folder, and
# a HOME of its own.
setup_project() {
  SCRATCH=$BATS_TEST_TMPDIR/scratch
  common_project "$SCRATCH" "$@" || return 1
  export HOME=$SCRATCH/home
  mkdir -p "$HOME"
  cd "$PROJECT" || return 1
}

# Whether something listens on 127.0.0.1:PORT.
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Free ports on 127.0.0.1 as API_PORT, SSH_PORT and WEB_PORT, below those that the kernel gives to outgoing
# connections. Files that are run side by side have a range each, by K3S_VM_TEST_SLOT.
common_ports() {
  local port=$((20000 + ${K3S_VM_TEST_SLOT:-0} * 5000 + RANDOM % 500 * 10)) name
  for name in API_PORT SSH_PORT WEB_PORT; do
    while port_answers "$port"; do
      port=$((port + 1))
    done
    export "$name=$port"
    port=$((port + 1))
  done
}

# Everything below the scratch folder with mode, size and contents, to see that nothing was changed.
snapshot() {
  (cd "$SCRATCH" && find . -printf '%P %y %m %s %l\n' | LC_ALL=C sort &&
    find . -type f -size -1M -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum)
}

# A VM that exists and does not run, as far as the project's own files tell.
fake_vm() {
  mkdir -p .k3s-vm/vm
  chmod 700 .k3s-vm .k3s-vm/vm
  cat >.k3s-vm/vm/state.json <<END
{ "schema": 1, "uuid": "${1:-01234567-89ab-4cde-8f01-23456789abcd}", "name": "k3s-vm-shop",
 "payload": { "name": "k3s", "version": "v1.33.1+k3s1" },
 "ports": { "api": 21943, "ssh": 21922, "web": 21980 } }
END
}

# fake_qemu [UUID]: a QEMU without a machine, which is the running VM of the project that fake_vm made; $QEMU is its PID.
fake_qemu() {
  local uuid=${1:-01234567-89ab-4cde-8f01-23456789abcd} runtime
  runtime=$XDG_RUNTIME_DIR/k3s-vm/${uuid:0:12}
  skip_unless qemu-system-x86_64 command -v qemu-system-x86_64
  mkdir -p "$runtime"
  chmod 0700 "$XDG_RUNTIME_DIR/k3s-vm" "$runtime"
  qemu-system-x86_64 -name guest=k3s-vm-shop,process=qemu-k3s-vm -uuid "$uuid" -machine none -display none \
    -monitor none -serial none -pidfile "$PROJECT/.k3s-vm/vm.pid" \
    -chardev "socket,id=qmp,path=$runtime/qmp.sock,server=on,wait=off" -mon chardev=qmp,mode=control 3>&- &
  QEMU=$!
  for _ in {1..100}; do
    [[ $("$K3S_VM" status) == *': running'* ]] && return
    read -rt 0.1 <> <(:) || :
  done
  echo "the QEMU without a machine does not start" >&2
  return 1
}

# For teardown, and for a VM that ends.
end_fake_qemu() {
  [ -n "${QEMU:-}" ] || return 0
  kill "$QEMU" 2>/dev/null || :
  wait "$QEMU" || :
  QEMU=
}

# The API of the project's cluster, in the working folder's kubeconfig: tests/lib/api_server.py on $API_SERVER_PORT,
# with $API for its folder.
fake_api() {
  skip_unless python3 command -v python3
  skip_unless openssl command -v openssl
  API=$SCRATCH/api
  mkdir -p "$API" web/.kube
  coproc SERVER { exec python3 "$ROOT/tests/lib/api_server.py" "$API" 3>&-; }
  read -r API_SERVER_PORT <&"${SERVER[0]}"
  [ -n "$API_SERVER_PORT" ]
  cp "$API/kubeconfig" web/.kube/config
}

# For teardown, and for an API that goes away.
end_fake_api() {
  local pid=${SERVER_PID:-}
  [ -n "$pid" ] || return 0
  kill "$pid" 2>/dev/null || :
  wait "$pid" 2>/dev/null || :
  SERVER_PID=
}

# skip_unless "what is needed" COMMAND…: skips when the command fails.
skip_unless() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then
    return 0
  fi
  if [ "${K3S_VM_TEST_STRICT:-}" = 1 ]; then
    echo "this test needs $what" >&2
    return 1
  fi
  skip "needs $what"
}

# fails_with STATUS TEXT COMMAND…: that exit status, TEXT on stderr, nothing on stdout.
# shellcheck disable=SC2154 # bats sets status, output and stderr
fails_with() {
  local expected=$1 text=$2
  shift 2
  run --separate-stderr timeout 20 "$@"
  if [ "$status" -ne "$expected" ] || [ -n "$output" ] || [[ $stderr != *"$text"* ]]; then
    printf 'expected status %s and "%s"; got %s\nstdout: %s\nstderr: %s\n' "$expected" "$text" "$status" \
      "$output" "$stderr" >&2
    return 1
  fi
}
