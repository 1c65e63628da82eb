# SPDX-License-Identifier: MIT
# A configuration that is wrong gets a clear error, exit code 2, and changes nothing.
load ../lib/common

setup() {
  setup_project
  mkdir -m 0700 .k3s-vm
}

# refused TEXT: every command that reads the configuration fails with TEXT and leaves everything as it was.
refused() {
  local before
  before=$(snapshot)
  fails_with 2 "$1" "$K3S_VM" configure
  # shellcheck disable=SC2154 # set by fails_with
  [[ $stderr == *'mend it: '* ]] || { echo "nothing mends it: $stderr" >&2; return 1; }
  fails_with 2 "$1" "$K3S_VM" doctor
  fails_with 2 "$1" "$K3S_VM" kubectl get nodes
  fails_with 2 "$1" "$K3S_VM" setup
  fails_with 2 "$1" "$K3S_VM"
  diff <(echo "$before") <(snapshot)
}

# refused_config TEXT LINE…: a configuration of these lines is refused.
refused_config() {
  local text=$1
  shift
  printf '%s\n' "$@" >.k3s-vm/config
  refused "$text"
}

@test "syntax errors name the file and the line" {
  refused_config 'config:2' 'VM_CPUS=2' 'this is no assignment'
  refused_config 'config:1' 'VM_CPUS="2'
  refused_config 'config:1' 'VM_CPUS=$(id)'
  refused_config 'config:1' 'VM_CPUS=`id`'
  refused_config 'config:1' 'VM_NAME=$HOME'
  refused_config 'config:1' 'VM_CPUS=(2)'
  refused_config 'config:1' 'VM_CPUS=2; touch x'
}

@test "nothing in a configuration is executed" {
  refused_config 'config:1' 'VM_NAME=$(touch executed)'
  [ -z "$(find "$SCRATCH" -name executed)" ]
}

@test "an unknown value is refused" {
  refused_config 'ACCEL' 'ACCEL=warp'
  refused_config 'FLAVOR' 'FLAVOR=plan9'
  refused_config 'K3S_VERSION' 'K3S_VERSION=newest!'
}

@test "impossible processors are refused" {
  refused_config 'VM_CPUS' 'VM_CPUS=0'
  refused_config 'VM_CPUS' 'VM_CPUS=1000000000'
  refused_config 'VM_CPUS' 'VM_CPUS=-2'
  refused_config 'VM_CPUS' 'VM_CPUS=two'
}

@test "too little memory or disk is refused" {
  refused_config 'VM_MEMORY' 'VM_MEMORY=2047'
  refused_config 'VM_MEMORY' 'VM_MEMORY=4G'
  refused_config 'VM_DISK' 'VM_DISK=9'
  refused_config 'VM_DISK' 'VM_DISK=99999999999999999999'
}

@test "a name that is no DNS label is refused" {
  refused_config 'VM_NAME' 'VM_NAME=a/b'
  refused_config 'VM_NAME' 'VM_NAME=../up'
  refused_config 'VM_NAME' 'VM_NAME=-dash'
  refused_config 'VM_NAME' 'VM_NAME="a b"'
}

@test "a port out of range, or twice the same, is refused" {
  refused_config 'API_PORT' 'API_PORT=0'
  refused_config 'SSH_PORT' 'SSH_PORT=65536'
  refused_config 'WEB_PORT' 'WEB_PORT=http'
  refused_config '_PORT' 'API_PORT=7000' 'SSH_PORT=7000'
  refused_config 'FORWARDS' 'SSH_PORT=7000' 'FORWARDS="7000:80"'
}

# mended LINE…: a configuration of these lines is refused with a command that, run as it stands, mends it.
mended() {
  printf '%s\n' "$@" >.k3s-vm/config
  run -2 --separate-stderr "$K3S_VM" configure
  local mend=${stderr##*mend it: }
  mend=${mend##*take it out: }
  mend=${mend% (takes*}
  [[ $stderr == *"$PROJECT/.k3s-vm/config:$#:"* ]]
  (PATH=${K3S_VM%/*}:$PATH && eval "$mend")
  run -0 "$K3S_VM" configure
}

@test "the command that an error names mends the configuration" {
  mended 'VM_NAME=a/b'
  mended '# mine' 'VM_CPUS=0'
  mended 'VM_MEMORY=4096' 'VM_MEMORY=1'
  mended 'VM_DISK=9'
  mended 'API_PORT=x'
  mended 'SSH_PORT=7000' 'API_PORT=7001' 'WEB_PORT=7001'
  mended 'WEB_PORT=0'
  mended 'WEB_NODE_PORT=0'
  mended 'FORWARDS=80'
  mended 'FLAVOR=plan9'
  mended 'K3S_VERSION=newest!'
  mended 'ACCEL=warp'
  mended 'DNS=here'
  mended 'KUBECONFIG_PATH=/etc/kube'
  mended '' 'this is no assignment'
  mended '' '' 'VM_CPUS="2'
}

@test "a wrong value in the environment is mended there" {
  export VM_CPUS=0
  run -2 --separate-stderr "$K3S_VM" configure
  [[ $stderr == *'unset VM_CPUS, or: export VM_CPUS=2'* ]]
  run -2 --separate-stderr env -u VM_CPUS SSH_PORT=6443 "$K3S_VM" configure
  [[ $stderr == *'export SSH_PORT=6444'* ]]
}

@test "a folder in the configuration's place is refused" {
  mkdir .k3s-vm/config
  refused 'config'
}

@test "a symlink loop in the configuration's place is refused" {
  ln -s config .k3s-vm/config
  refused 'config'
}

@test "a FIFO in the configuration's place is refused and does not hang" {
  mkfifo .k3s-vm/config
  refused 'config'
}

@test "binary junk is refused" {
  head -c 4096 /dev/zero | tr '\0' '\377' >.k3s-vm/config
  refused 'config'
  printf 'VM_CPUS=2\0\n' >.k3s-vm/config
  refused 'config'
}

@test "a configuration of 100 MB is refused at once" {
  truncate -s 100M .k3s-vm/config
  SECONDS=0
  refused 'config'
  [ "$SECONDS" -lt 10 ]
}

@test "a wrong value in the environment is refused too" {
  fails_with 2 'VM_CPUS' env VM_CPUS=0 "$K3S_VM" configure
  fails_with 2 'VM_MEMORY' env VM_MEMORY=1 "$K3S_VM"
}

@test "configure writes what it shows" {
  run -0 --separate-stderr "$K3S_VM" configure VM_CPUS=3 'K3S_ARGS=--disable traefik'
  [ "$("$K3S_VM" configure VM_CPUS)" = 3 ]
  [ "$("$K3S_VM" configure K3S_ARGS)" = '--disable traefik' ]
  # What is written is what bash reads.
  # shellcheck disable=SC1091
  (. .k3s-vm/config && [ "$VM_CPUS" = 3 ] && [ "$K3S_ARGS" = '--disable traefik' ])
}

@test "configure keeps comments, order and unknown keys" {
  printf '# mine\nMY_OWN=1\nVM_CPUS=2 # two\n' >.k3s-vm/config
  run -0 "$K3S_VM" configure VM_MEMORY=3000
  [ "$(head -2 .k3s-vm/config)" = $'# mine\nMY_OWN=1' ]
  grep -q '^VM_CPUS=2' .k3s-vm/config
  grep -q '^VM_MEMORY=3000' .k3s-vm/config
}

@test "configure writes all assignments or none" {
  "$K3S_VM" configure VM_CPUS=3
  before=$(snapshot)
  fails_with 2 'VM_MEMORY' "$K3S_VM" configure VM_CPUS=4 VM_MEMORY=1
  fails_with 2 'NO_SUCH_KEY' "$K3S_VM" configure VM_CPUS=4 NO_SUCH_KEY=1
  fails_with 2 'KEY=VALUE' "$K3S_VM" configure VM_CPUS=4 VM_MEMORY
  diff <(echo "$before") <(snapshot)
}

@test "configure shows every key with its value and where it comes from" {
  "$K3S_VM" configure VM_CPUS=3
  run -0 --separate-stderr env VM_MEMORY=3000 "$K3S_VM" configure
  [ -z "$stderr" ]
  grep -Eq '^VM_CPUS=3 +config ' <<<"$output"
  grep -Eq '^VM_MEMORY=3000 +environment ' <<<"$output"
  grep -Eq '^VM_DISK=20 +default ' <<<"$output"
}

@test "configure takes WEB_PORT from the project's .env" {
  echo 'WEB_PORT=31234' >.env
  [ "$("$K3S_VM" configure WEB_PORT)" = 31234 ]
  run -0 "$K3S_VM" configure
  grep -Eq '^WEB_PORT=31234 +\.env ' <<<"$output"
}

@test "configure says that the environment wins over what it writes" {
  run -0 --separate-stderr env VM_CPUS=2 "$K3S_VM" configure VM_CPUS=4
  [[ $stderr == *"VM_CPUS"*"environment"* ]]
}

@test "configure with an empty value goes back to the default" {
  "$K3S_VM" configure VM_CPUS=5
  run -0 "$K3S_VM" configure VM_CPUS=
  [ "$("$K3S_VM" configure VM_CPUS)" = 2 ]
}

@test "configure does not know every key" {
  fails_with 2 'NO_SUCH_KEY' "$K3S_VM" configure NO_SUCH_KEY
}

@test "configure --json is one object with all of it" {
  skip_unless jq command -v jq
  "$K3S_VM" configure VM_CPUS=3
  run -0 --separate-stderr "$K3S_VM" configure --json
  [ "$(jq -r '.config.VM_CPUS | .value + " " + .source + " " + .default + " " + .takes_effect' <<<"$output")" = \
    '3 config 2 restart' ]
  jq -e '.config | to_entries | all(.value.help | length > 0)' <<<"$output"
  run -0 --separate-stderr "$K3S_VM" configure --json VM_CPUS=4 VM_DISK=30
  [ "$(jq -c .changed <<<"$output")" = '["VM_CPUS","VM_DISK"]' ]
  run -0 --separate-stderr "$K3S_VM" --json configure VM_CPUS
  [ "$(jq -r '.key + .value + .source' <<<"$output")" = VM_CPUS4config ]
}

@test "configure says what a change means for the VM that is there" {
  fake_vm
  run -0 --separate-stderr "$K3S_VM" configure VM_CPUS=3 K3S_VERSION=offline
  [[ $stderr == *"VM_CPUS"*"next start"* ]]
  [[ $stderr == *"K3S_VERSION"*"k3s-vm reset"* ]]
  run -0 --separate-stderr "$K3S_VM" configure VM_CPUS=3
  [[ $stderr == *"nothing changed"* ]]
}
