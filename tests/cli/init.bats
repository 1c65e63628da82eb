# SPDX-License-Identifier: MIT
load ../lib/common

setup() {
  setup_project
}

@test "init prepares an empty project and says what it did" {
  run -0 --separate-stderr "$K3S_VM" init
  [ -z "$output" ]
  for file in .k3s-vm/config .k3s-vm/manifests/base.json .gitignore; do
    [ -f "$file" ]
    [[ $stderr == *"wrote $file"* ]]
  done
  [ "$(stat -c %a .k3s-vm .k3s-vm/config | tr '\n' ' ')" = "700 600 " ]
  [ "$(cat .gitignore)" = $'.k3s-vm/\nweb/.kube/\nweb/kubeconfig.yaml\nweb/.env' ]
  [ ! -e bin ]
}

@test "the commented configuration changes nothing, and every line of it can be used" {
  before=$("$K3S_VM" configure)
  "$K3S_VM" init
  [ "$("$K3S_VM" configure)" = "$before" ]
  sed -i 's/^#\([A-Z]\)/\1/' .k3s-vm/config
  run -0 "$K3S_VM" configure
  [ "$(awk '{ print $1 }' <<<"$output")" = "$(awk '{ print $1 }' <<<"$before")" ]
  "$K3S_VM" configure VM_CPUS=3
  grep -q '^VM_CPUS=3$' .k3s-vm/config
}

@test "the sample manifest is JSON, behind the project's NodePort" {
  skip_unless jq command -v jq
  echo WEB_PORT=31234 >.env
  "$K3S_VM" init
  [ "$(jq -r '.items[] | select(.kind == "Service").spec.ports[0].nodePort' .k3s-vm/manifests/base.json)" = 31234 ]
  [ "$(jq -r '.items[0].spec.template.spec.containers[0].image' .k3s-vm/manifests/base.json)" = localhost/k3s-vm/web:1 ]
}

@test "a second init, and what is there already, change nothing" {
  "$K3S_VM" init --bin
  before=$(snapshot)
  run -0 --separate-stderr "$K3S_VM" init --bin
  [[ $stderr == *"left .k3s-vm/config as it is"* ]]
  [[ $stderr == *"left bin/kubectl as it is"* ]]
  [[ $stderr != *wrote* ]]
  [ "$(snapshot)" = "$before" ]
}

@test "manifests of the user's own get no sample beside them" {
  mkdir -p .k3s-vm/manifests
  echo '{}' >.k3s-vm/manifests/shop.yaml
  "$K3S_VM" init
  [ "$(ls .k3s-vm/manifests)" = shop.yaml ]
}

@test "lines are added to .gitignore as it is written, and only those that are missing" {
  printf 'node_modules\r\n/.k3s-vm\r\nweb/.env' >.gitignore
  chmod 664 .gitignore
  "$K3S_VM" init
  [ "$(od -c .gitignore)" = "$(printf 'node_modules\r\n/.k3s-vm\r\nweb/.env\r\nweb/.kube/\r\nweb/kubeconfig.yaml\r\n' | od -c)" ]
  [ "$(stat -c %a .gitignore)" = 664 ]
}

@test "init --bin writes wrappers that find the project from anywhere" {
  "$K3S_VM" init --bin
  fake_vm
  mkdir -p "$SCRATCH/tools" web/.kube
  ln -s "$K3S_VM" "$SCRATCH/tools/k3s-vm"
  cd /
  PATH=$SCRATCH/tools:$PATH fails_with 4 'k3s-vm start' "$PROJECT/bin/kubectl" get pods
  [[ $(head -n 1 "$PROJECT/bin/k9s") == '#!/bin/sh' ]]
}

@test "init --json is one object" {
  skip_unless jq command -v jq
  run -0 --separate-stderr "$K3S_VM" --quiet --json init
  [ "$(jq -c . <<<"$output")" = '{"made":[".k3s-vm/config",".k3s-vm/manifests/base.json",".gitignore"],"kept":[]}' ]
}

@test "a .gitignore that is a folder is an error that names it" {
  mkdir .gitignore
  run -1 --separate-stderr "$K3S_VM" init
  [[ $stderr == *".gitignore"* ]]
}
