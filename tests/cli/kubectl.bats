# SPDX-License-Identifier: MIT
# kubectl and k9s: the host's own program, with the project's kubeconfig.
load ../lib/common

setup() {
  setup_project
  mkdir -p web/.kube "$SCRATCH/bin" "$SCRATCH/ours"
  echo 'apiVersion: v1' >web/.kube/config
  # The host's kubectl: says what it was given.
  cat >"$SCRATCH/bin/kubectl" <<'END'
#!/bin/sh
echo "name=${0##*/}"
echo "KUBECONFIG=$KUBECONFIG"
grep SigIgn /proc/self/status
for word in "$@"; do printf '<%s>\n' "$word"; done
exit 42
END
  chmod +x "$SCRATCH/bin/kubectl"
  cp "$SCRATCH/bin/kubectl" "$SCRATCH/bin/k9s"
  ln -s "$K3S_VM" "$SCRATCH/ours/kubectl"
  ln -s "$K3S_VM" "$SCRATCH/ours/k9s"
  TOOLS=$(dirname "$(command -v grep)")
}

teardown() {
  end_fake_qemu
}

running_vm() {
  fake_vm
  fake_qemu
}

with_path() {
  env PATH="$1" "${@:2}"
}

@test "kubectl gets every argument as it is, the project's kubeconfig, and gives its status" {
  running_vm
  run -42 with_path "$SCRATCH/bin:$TOOLS" "$K3S_VM" kubectl get 'a  b' --help --json --project=x -- -f "quote'd"
  [ "${lines[0]}" = name=kubectl ]
  [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
  [ "$(grep '^<' <<<"$output" | tr -d '\n')" = "<get><a  b><--help><--json><--project=x><--><-f><quote'd>" ]
}

@test "kubectl gets its signals as this program got them" {
  running_vm
  run -42 with_path "$SCRATCH/bin:$TOOLS" "$K3S_VM" kubectl
  # A test that somebody runs in the background ignores some signals itself.
  [ "$(grep SigIgn <<<"$output")" = "$(grep SigIgn /proc/self/status)" ]
}

@test "k9s gets the kubeconfig too" {
  running_vm
  run -42 with_path "$SCRATCH/bin:$TOOLS" "$K3S_VM" k9s -c pods
  [ "${lines[0]}" = name=k9s ]
  [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
}

@test "--project before kubectl is ours, and a kubeconfig elsewhere is found" {
  mkdir -p "$SCRATCH/other"
  KUBECONFIG_PATH=kube.yaml "$K3S_VM" --project "$SCRATCH/other" configure KUBECONFIG_PATH=kube.yaml
  touch "$SCRATCH/other/kube.yaml"
  PROJECT=$SCRATCH/other
  cd "$PROJECT"
  running_vm
  cd "$SCRATCH"
  run -42 with_path "$SCRATCH/bin:$TOOLS" "$K3S_VM" --project "$SCRATCH/other" kubectl get
  [ "${lines[1]}" = "KUBECONFIG=$SCRATCH/other/kube.yaml" ]
}

@test "a KUBECONFIG of the environment does not win over the project's" {
  running_vm
  run -42 with_path "$SCRATCH/bin:$TOOLS" env KUBECONFIG=/elsewhere "$K3S_VM" kubectl
  [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
}

@test "under the name kubectl it finds the next kubectl on PATH, not itself" {
  running_vm
  run -42 with_path "$SCRATCH/ours:$SCRATCH/bin:$TOOLS" kubectl get
  [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
  run -42 with_path "$SCRATCH/ours:$SCRATCH/bin:$TOOLS" k9s
  [ "${lines[0]}" = name=k9s ]
}

@test "a wrapper on PATH that leads back does not lead round in circles" {
  running_vm
  mkdir "$SCRATCH/wrapped" "$SCRATCH/again"
  printf '#!/bin/sh\nexec "%s" kubectl "$@"\n' "$K3S_VM" >"$SCRATCH/wrapped/kubectl"
  chmod +x "$SCRATCH/wrapped/kubectl"
  cp "$SCRATCH/wrapped/kubectl" "$SCRATCH/again/kubectl"
  run -42 with_path "$SCRATCH/wrapped:$SCRATCH/again:$SCRATCH/bin:$TOOLS:/bin" timeout 10 kubectl get
  [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
}

@test "k9s that is not installed is named with how to install it" {
  fails_with 6 'k9s' env PATH=/nonexistent "$K3S_VM" k9s
}

@test "kubectl that is not installed needs the guest's, which needs a VM" {
  fails_with 3 'k3s-vm' env PATH=/nonexistent "$K3S_VM" kubectl get
  fake_vm
  fails_with 4 'k3s-vm start' env PATH=/nonexistent "$K3S_VM" kubectl get
}

@test "with no VM, or one that does not run, kubectl and k9s say so instead of a refused connection" {
  export PATH=$SCRATCH/bin:$PATH
  fails_with 3 'k3s-vm' "$K3S_VM" kubectl get nodes
  fails_with 3 'k3s-vm' "$K3S_VM" k9s
  fake_vm
  fails_with 4 'k3s-vm start' "$K3S_VM" kubectl get nodes
  fails_with 4 'k3s-vm start' "$K3S_VM" k9s
  fails_with 4 'k3s-vm start' "$SCRATCH/ours/kubectl" -n config get pods
  fake_qemu
  run -42 "$K3S_VM" kubectl get nodes
  end_fake_qemu
  fails_with 4 'k3s-vm start' "$K3S_VM" kubectl get nodes
}

@test "what kubectl does without a server needs no VM, and not even a kubeconfig" {
  export PATH=$SCRATCH/bin:$PATH
  for _ in with without; do
    run -42 "$K3S_VM" kubectl version --client
    [ "${lines[1]}" = "KUBECONFIG=$PROJECT/web/.kube/config" ]
    run -42 "$K3S_VM" kubectl config view
    run -42 "$K3S_VM" kubectl completion bash
    run -42 "$K3S_VM" kubectl
    run -42 "$K3S_VM" kubectl get --help
    run -42 "$K3S_VM" k9s version
    rm -f web/.kube/config
  done
}

@test "what the guest's kubectl cannot do for the host is refused" {
  fails_with 6 'port-forward' env PATH=/nonexistent "$K3S_VM" kubectl -n x port-forward svc/web 80
  fails_with 6 'proxy' env PATH=/nonexistent "$K3S_VM" kubectl proxy
  fails_with 6 'from-file' env PATH=/nonexistent "$K3S_VM" kubectl create configmap x --from-file=f
}

@test "~/.kube is neither read nor made" {
  running_vm
  run -42 with_path "$SCRATCH/bin:$TOOLS" "$K3S_VM" kubectl get
  [ -z "$(ls -A "$HOME")" ]
}
