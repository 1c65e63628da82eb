# SPDX-License-Identifier: MIT
# Environment variables of the cluster: for a shell, and in the project's web/.env.
load ../lib/common

setup() {
  setup_project
}

@test "env is what a shell evaluates, whatever the path" {
  setup_project "$(printf "it's \$HOME \"a\" \\\\ b\n%%s")"
  run -0 bash -c 'eval "$("$0" env 2>/dev/null)"; printf %s "$KUBECONFIG"' "$K3S_VM"
  [ "$output" = "$PROJECT/web/.kube/config" ]
  [[ $("$K3S_VM" env) == 'export KUBECONFIG='* ]]
  [ "$(sh -c "$("$K3S_VM" env --shell sh)"'; env' | sed -n 's/^KUBECONFIG=//p')" = "${PROJECT%%$'\n'*}" ]
}

@test "env --shell fish is what fish evaluates" {
  setup_project "it's \$HOME \\ b"
  run -0 --separate-stderr "$K3S_VM" env --shell fish
  [ "$output" = "set -gx KUBECONFIG '${SCRATCH}/it\\'s \$HOME \\\\ b/web/.kube/config'" ]
  skip_unless fish command -v fish
  [ "$(fish --no-config -c "$output; printf %s \$KUBECONFIG")" = "$PROJECT/web/.kube/config" ]
}

@test "env says on stderr that the kubeconfig is not there yet, and nothing once it is" {
  run -0 --separate-stderr "$K3S_VM" env
  [[ $stderr == *"web/.kube/config"* ]]
  mkdir -p web/.kube
  touch web/.kube/config
  run -0 --separate-stderr "$K3S_VM" env
  [ -z "$stderr" ]
}

@test "env follows --project and KUBECONFIG_PATH, and knows --json" {
  skip_unless jq command -v jq
  "$K3S_VM" configure KUBECONFIG_PATH=kube.yaml
  cd /
  [ "$("$K3S_VM" --quiet --json --project "$PROJECT" env | jq -r .KUBECONFIG)" = "$PROJECT/kube.yaml" ]
}

@test "env does not know every shell" {
  fails_with 2 '"tcsh"' "$K3S_VM" env --shell tcsh
}

@test "a web/.env that is no file, or cannot be understood, is refused before anything is made" {
  mkdir -p web/.env
  fails_with 2 'web/.env: cannot put' "$K3S_VM"
  fails_with 2 'WEB_ENV_PATH' "$K3S_VM"
  rmdir web/.env
  printf 'A=1\nnonsense\n' >web/.env
  before=$(sha256sum web/.env)
  fails_with 2 'web/.env:2: expected KEY=VALUE' "$K3S_VM"
  [ "$(sha256sum web/.env)" = "$before" ]
  rm web/.env
  truncate -s 100M web/.env
  fails_with 2 'larger than 1 MiB' "$K3S_VM"
  [ ! -e .k3s-vm/vm ]
}

@test "destroy takes the cluster's lines out of web/.env, and no others" {
  fake_vm
  printf '# mine\nA=1' >web.env
  mkdir web
  mv web.env web/.env
  chmod 640 web/.env
  ln -s .kube/config web/kubeconfig.yaml
  cp web/.env before
  printf '\nKUBECONFIG=./kubeconfig.yaml\nKUBECONFIG_PRIMARY=%s' \
    "$(printf '{"kind":"Config","current-context":"k3s-vm-shop"}' | base64 -w 0)" >>web/.env
  "$K3S_VM" destroy --yes
  cmp web/.env before
  [ "$(stat -c %a web/.env)" = 640 ]
  [ ! -L web/kubeconfig.yaml ]
}
