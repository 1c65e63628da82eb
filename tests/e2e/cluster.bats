#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A whole cluster, from an empty project to nothing left, with real QEMU, a real guest and real Kubernetes: the
# offline payload, or with K3S_VM_TEST_K3S=PATH that K3s binary (and K3S_VM_TEST_K3S_IMAGES=PATH, an archive with
# its pause image and localhost/k3s-vm/web:1; K3S_VM_TEST_K3S_ARGS, its arguments).
# The tests build on each other and run in this order.

load ../lib/common
load ../lib/vm

setup_file() {
  common_project "$BATS_FILE_TMPDIR"
  # The cache is shared with every other run: the first build takes minutes.
  export XDG_CACHE_HOME="${K3S_VM_TEST_CACHE:-$HOME/.cache}"
  export VM_NAME="k3s-vm-e2e-$$"
  common_ports
  if [ -n "${K3S_VM_TEST_K3S:-}" ]; then
    export K3S_VERSION="$K3S_VM_TEST_K3S"
    export K3S_AIRGAP_IMAGES="${K3S_VM_TEST_K3S_IMAGES:-}"
    export K3S_ARGS="${K3S_VM_TEST_K3S_ARGS:-}"
  else
    export K3S_VERSION=offline
  fi
  # A registry on this host, for pods that pull from it.
  REGISTRY=$BATS_FILE_TMPDIR/registry
  export REGISTRY
  mkdir "$REGISTRY"
  mkfifo "$REGISTRY/stdin"
  python3 "$ROOT/tests/lib/registry.py" "$REGISTRY" 0<>"$REGISTRY/stdin" >"$REGISTRY/port" 3>&- &
  echo $! >"$REGISTRY/pid"
  until_ok 60 test -s "$REGISTRY/port"
  REGISTRY_MIRRORS="shop.test=https://10.0.2.2:$(cat "$REGISTRY/port")"
  export REGISTRY_MIRRORS REGISTRY_CA=$REGISTRY/ca.pem
}

teardown_file() {
  kill "$(cat "$REGISTRY/pid")" || true
  "$K3S_VM" --project "$PROJECT" destroy --yes --all >/dev/null 2>&1 || true
}

setup() {
  cd "$PROJECT"
}

kubectl() {
  "$K3S_VM" kubectl "$@"
}

# until_ok SECONDS COMMAND...
until_ok() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 1
  done
}

# static_program FILE: says "loaded" and waits.
static_program() {
  "${CC:-cc}" -static -O1 -o "$1" -x c - <<'END'
#include <stdio.h>
#include <unistd.h>
int main(void) {
        puts("loaded");
        fflush(stdout);
        return pause();
}
END
}

nodes_are_told() {
  [ "$("$K3S_VM" --json status | jq -r '.nodes[0].ready')" = true ]
}

web_page() {
  curl -fsS --max-time 5 "http://127.0.0.1:$WEB_PORT/"
}

web_page_is_there() {
  web_page >/dev/null 2>&1
}

@test "one command in a project that init prepared ends with a Ready cluster and its page" {
  "$K3S_VM" init
  # A NodePort that nobody forwards, to be found.
  sed -i 's/"nodePort": 30080/"nodePort": 31180/' .k3s-vm/manifests/base.json
  run --separate-stderr "$K3S_VM"
  echo "$output" "$stderr" >&2
  [ "$status" -eq 0 ]
  [[ "$output" == *"is Ready"* ]]
  [[ "$output" == *"$PROJECT/web/.kube/config"* ]]
  [[ "$output" == *"http://127.0.0.1:$WEB_PORT -> NodePort 31180 (answers: HTTP 200)"* ]]
  web_page
  echo "# times: $(jq -c .last_start_ms <<<"$("$K3S_VM" --json status)")" >&3
}

@test "kubectl get nodes says Ready, and ~/.kube/config is not touched" {
  run kubectl get nodes --no-headers
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *" Ready "* ]]
  [ ! -e "$HOME/.kube/config" ] || [ "$HOME/.kube/config" -ot "$PROJECT/.k3s-vm/config" ]
}

@test "the kubeconfig is private and points at this host's port" {
  [ "$(stat -c %a "$PROJECT/web/.kube/config")" = 600 ]
  grep -q "server: https://127.0.0.1:$API_PORT" "$PROJECT/web/.kube/config"
}

@test "status tells it in text and in JSON" {
  run "$K3S_VM" status --verbose
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *": running"* ]]
  # Without KVM an API that just came up may need longer for an answer than status waits.
  until_ok 180 nodes_are_told
  run "$K3S_VM" --json status
  [ "$(jq -r .state <<<"$output")" = running ]
  [ "$(jq -r .api.ready <<<"$output")" = true ]
  if [ "$K3S_VERSION" = offline ]; then
    [[ "$(jq -r .kubernetes.description <<<"$output")" == *"not K3s"* ]]
  fi
}

# The usual kinds of objects, as a project has them.
shapes() {
  if [ "$K3S_VERSION" = offline ]; then
    cat "$BATS_TEST_DIRNAME/shapes.yaml"
  else
    # Kubernetes 1.25 and later no longer have the beta.
    sed 's,/v1beta1,/v1,' "$BATS_TEST_DIRNAME/shapes.yaml"
  fi >.k3s-vm/manifests/shapes.yaml
}

@test "apply brings all kinds of objects, waits for them, and has nothing to do the second time" {
  shapes
  run --separate-stderr "$K3S_VM" apply
  echo "$output" "$stderr" >&2
  [ "$status" -eq 0 ]
  [[ $output == *'20 created, 3 unchanged' ]]
  [[ $stderr == *'NodePort 30079 of service/front is not forwarded: k3s-vm ports add 30079'* ]]
  [ "$(kubectl get deployment front -n guest -o 'jsonpath={.status.availableReplicas}')" = 2 ]
  [ "$(kubectl get statefulset db -n guest -o 'jsonpath={.status.readyReplicas}')" = 1 ]
  versions=$(kubectl get configmaps,services,roles,crontabs -n guest -o 'jsonpath={.items[*].metadata.resourceVersion}')
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'23 unchanged' ]]
  [ "$(kubectl get configmaps,services,roles,crontabs -n guest -o 'jsonpath={.items[*].metadata.resourceVersion}')" = "$versions" ]
  run -0 --separate-stderr kubectl diff -f .k3s-vm/manifests/shapes.yaml
  [ -z "$output" ]
}

@test "apply shows a conflict with its owner, prunes what is gone, and explains a pod that cannot start" {
  # Not by `scale`: Kubernetes before 1.22 does not note whose the field is then.
  kubectl patch deployment front -n guest -p '{"spec":{"replicas":3}}'
  run -1 --separate-stderr "$K3S_VM" apply
  [[ $stderr == *'field .spec.replicas belongs to "'*'--force-conflicts'* ]]
  run -0 --separate-stderr "$K3S_VM" apply --force-conflicts
  [[ $output == *'deployment.apps/front (guest) configured'* ]]
  sed -n '1,/^---$/p' "$BATS_TEST_DIRNAME/shapes.yaml" >.k3s-vm/manifests/shapes.yaml
  run -0 --separate-stderr "$K3S_VM" apply --prune
  [[ $output == *'deployment.apps/front (guest) pruned'*'4 unchanged, 19 pruned' ]]
  cat >"$BATS_TEST_TMPDIR/broken.yaml" <<END
apiVersion: apps/v1
kind: Deployment
metadata: {name: broken}
spec:
  selector: {matchLabels: {app: broken}}
  template:
    metadata: {labels: {app: broken}}
    spec: {containers: [{name: main, image: "nowhere.test/none:1", imagePullPolicy: Never}]}
END
  run -1 --separate-stderr "$K3S_VM" apply -f "$BATS_TEST_TMPDIR/broken.yaml"
  [[ $stderr == *'ErrImageNeverPull'*'k3s-vm load'* ]]
  kubectl delete deployment broken
  rm .k3s-vm/manifests/shapes.yaml
}

@test "300 ConfigMaps are created, left alone the second time, changed, and pruned" {
  many() {
    jq -n --arg value "$1" '{apiVersion: "v1", kind: "List", items: [range(300) | {apiVersion: "v1", kind: "ConfigMap",
      metadata: {name: "many-\(.)"}, data: {key: (if . < 10 then $value else "same" end)}}]}' >.k3s-vm/manifests/many.json
  }
  versions() { kubectl get configmaps -l k3s-vm/applied-from -o 'jsonpath={.items[*].metadata.resourceVersion}'; }
  many one
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'300 created, 3 unchanged' ]]
  before=$(versions)
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'303 unchanged' ]]
  [ "$(versions)" = "$before" ]
  many two
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'10 configured, 293 unchanged' ]]
  rm .k3s-vm/manifests/many.json
  run -0 --separate-stderr "$K3S_VM" apply --prune
  # And the Namespace that was left of the shapes.
  [[ $output == *'3 unchanged, 301 pruned' ]]
  [ -z "$(versions)" ]
}

@test "what the API refuses is said for each object, with its line and field" {
  annotation=$(head -c 2000000 /dev/zero | tr '\0' x)
  cat >"$BATS_TEST_TMPDIR/bad.yaml" <<END
{apiVersion: shop.test/v1, kind: Nothing, metadata: {name: kind}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: nowhere, namespace: nowhere}}
---
apiVersion: v1
kind: Service
metadata: {name: field}
spec:
  port: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {k3s-vm/env: "off"}}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: web, image: "localhost/k3s-vm/web:1"}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: large, annotations: {large: $annotation}}
END
  run -1 --separate-stderr timeout 120 "$K3S_VM" apply -f "$BATS_TEST_TMPDIR/bad.yaml"
  echo "$stderr" >&2
  [[ $output == *'5 failed' ]]
  [ "${#stderr}" -lt 4000 ]
  [[ $stderr == *'bad.yaml:1 (document 1): nothing.shop.test/kind: the cluster has no Nothing'* ]]
  [[ $stderr == *'bad.yaml:3 (document 2): configmap/nowhere: namespaces "nowhere" not found'* ]]
  [[ $stderr == *'bad.yaml:9 (document 3): service/field: '*'spec.port'* ]]
  [[ $stderr == *'bad.yaml:15 (document 4): deployment.apps/web: '*'field is immutable'* ]]
  [[ $stderr == *'(document 5): configmap/large: '*'annotations'* ]]
}

@test "a pod pulls its image from a mirror with an authority of its own" {
  static_program "$REGISTRY/program"
  kubectl run pulled --image=shop.test/worker:1 --restart=Never
  until_ok 180 bash -c "'$K3S_VM' kubectl logs pulled | grep -qx loaded"
  grep -q 'worker/manifests/1?ns=shop.test' "$REGISTRY/log"
  kubectl delete pod pulled --grace-period=0 --force
}

@test "ssh, exec and cp reach the guest" {
  run "$K3S_VM" exec -- sh -c 'echo "out $1"; echo err >&2; exit 7' sh 'a  b'
  [ "$status" -eq 7 ]
  [[ "$output" == *"out a  b"* ]]
  run "$K3S_VM" ssh -- hostname
  [ "$output" = "$VM_NAME" ]
  head -c 300000 /dev/urandom >"$BATS_TEST_TMPDIR/a file"
  "$K3S_VM" cp "$BATS_TEST_TMPDIR/a file" "guest:/var/tmp/copy"
  "$K3S_VM" cp "guest:/var/tmp/copy" "$BATS_TEST_TMPDIR/back"
  cmp "$BATS_TEST_TMPDIR/a file" "$BATS_TEST_TMPDIR/back"
}

@test "logs show the guest, K3s and the supervisor" {
  run "$K3S_VM" logs k3s -n 5
  [ "$status" -eq 0 ]
  [ -n "$output" ]
  run "$K3S_VM" logs serial
  [ -n "$output" ]
  run "$K3S_VM" logs supervisor
  [ -n "$output" ]
}

@test "bin/kubectl without a host kubectl runs the guest's own" {
  # A PATH with everything but kubectl.
  mkdir -p "$BATS_TEST_TMPDIR/bin"
  for tool in env sh bash cat ssh; do
    ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/bin/$tool"
  done
  run env PATH="$BATS_TEST_TMPDIR/bin" "$(dirname "$K3S_VM")/kubectl" get deployment web -o 'jsonpath={.metadata.name}'
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = web ]
  run env PATH="$BATS_TEST_TMPDIR/bin" "$(dirname "$K3S_VM")/kubectl" get deployment no-such-thing
  [ "$status" -eq 1 ]
  guests() { env PATH="$BATS_TEST_TMPDIR/bin" "$(dirname "$K3S_VM")/kubectl" "$@"; }
  # Files, standard input, what runs in a pod with its status, and a terminal.
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-file}\n' >"$BATS_TEST_TMPDIR/a.yaml"
  [ "$(guests apply -f "$BATS_TEST_TMPDIR/a.yaml")" = 'configmap/from-file created' ]
  [ "$(guests delete -f - <"$BATS_TEST_TMPDIR/a.yaml")" = 'configmap "from-file" deleted' ]
  [ "$(guests exec -i deployment/web -- sh -c 'cat; exit 0' <<<'a  b')" = 'a  b' ]
  run -9 guests exec deployment/web -- sh -c 'exit 9'
  run -9 script -qec "env PATH='$BATS_TEST_TMPDIR/bin' '$(dirname "$K3S_VM")/kubectl' exec -it deployment/web -- sh -c 'test -t 0 && echo a terminal; exit 9'" /dev/null
  [[ $output == *"a terminal"* ]]
}

@test "the second command says that it runs already" {
  run "$K3S_VM"
  [ "$status" -eq 0 ]
  [[ "$output" == *"running already"* ]]
}

@test "the credentials are in web/.env, and what they hold reaches the cluster" {
  (
    cd "$PROJECT/web"
    # shellcheck source=/dev/null
    . ./.env
    cmp .kube/config "$KUBECONFIG"
    base64 -d <<<"$KUBECONFIG_PRIMARY" >"$BATS_TEST_TMPDIR/primary.json"
  )
  [ "$(stat -c %a "$PROJECT/web/.env")" = 600 ]
  jq -r '.users[0].user["client-certificate-data"]' "$BATS_TEST_TMPDIR/primary.json" | base64 -d >"$BATS_TEST_TMPDIR/cert"
  jq -r '.users[0].user["client-key-data"]' "$BATS_TEST_TMPDIR/primary.json" | base64 -d >"$BATS_TEST_TMPDIR/key"
  jq -r '.clusters[0].cluster["certificate-authority-data"]' "$BATS_TEST_TMPDIR/primary.json" | base64 -d >"$BATS_TEST_TMPDIR/ca"
  curl -sSf --cacert "$BATS_TEST_TMPDIR/ca" --cert "$BATS_TEST_TMPDIR/cert" --key "$BATS_TEST_TMPDIR/key" \
    "$(jq -r '.clusters[0].cluster.server' "$BATS_TEST_TMPDIR/primary.json")/version" | grep -q gitVersion
}

in_app() { kubectl exec deployment/app -- sh -c "$1"; }

@test "the variables of web/.env reach the containers of Deployments, and a change of one rolls them" {
  cat >.k3s-vm/manifests/app.yaml <<END
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "localhost/k3s-vm/web:1", imagePullPolicy: Never, env: [{name: OWN, value: mine}]}]
END
  mv .k3s-vm/manifests/base.json "$BATS_TEST_TMPDIR"
  printf '%s\n' 'SECRET_WORD="xyzzy $1"' OWN=theirs >>web/.env
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'2 created' ]]
  [ "$(in_app 'echo "$SECRET_WORD, $OWN, $KUBECONFIG"')" = 'xyzzy $1, mine, ' ]
  [ "$(in_app 'echo "$KUBECONFIG_PRIMARY"' | base64 -d | jq -r '.clusters[0].cluster.server')" = https://kubernetes.default.svc ]
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $output == *'2 unchanged' ]]
  sed -i 's/xyzzy/plugh/' web/.env
  run -0 "$K3S_VM"
  [[ $output == *'2 configured'* ]]
  [ "$(in_app 'echo "$SECRET_WORD"')" = 'plugh $1' ]
  # The value is nowhere but in that file and in the cluster.
  ! grep -rqE 'xyzzy|plugh' .k3s-vm --include='*.log' --include='*.json' --include='*.jsonl' || false
  rm .k3s-vm/manifests/app.yaml
  mv "$BATS_TEST_TMPDIR/base.json" .k3s-vm/manifests
  sed -i '/^SECRET_WORD=/d; /^OWN=/d' web/.env
  "$K3S_VM" apply --prune
  run -1 kubectl get secret k3s-vm-env-app
}

@test "an image from a file runs in a pod, and a second load leaves it out" {
  static_program "$BATS_TEST_TMPDIR/main"
  "$ROOT/tests/lib/image.py" shop/worker:1 "$BATS_TEST_TMPDIR/main" "$BATS_TEST_TMPDIR/worker.tar"
  gzip "$BATS_TEST_TMPDIR/worker.tar"
  "$K3S_VM" load "$BATS_TEST_TMPDIR/worker.tar.gz"
  "$K3S_VM" load --list | grep -q '^docker.io/shop/worker:1 '
  run "$K3S_VM" load "$BATS_TEST_TMPDIR/worker.tar.gz"
  [ "$status" -eq 0 ]
  [[ "$output" == *"has it already"* ]]
  kubectl run worker --image=shop/worker:1 --image-pull-policy=Never --restart=Never
  until_ok 120 bash -c "'$K3S_VM' kubectl logs worker | grep -qx loaded"
  kubectl delete pod worker --grace-period=0 --force
}

pods() { kubectl get pods -A -o 'jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount}{"\n"}{end}' | sort; }

@test "stop suspends and start resumes: the same pods, none restarted, the node Ready at once, the time right" {
  before=$(pods)
  "$K3S_VM" stop
  [ "$("$K3S_VM" --json status | jq -r .state)" = suspended ]
  sleep 60 # longer than a node may be silent
  "$K3S_VM" start
  for _ in {1..10}; do
    kubectl get nodes --no-headers | grep -q ' Ready '
    sleep 1
  done
  clock_is_right
  [ "$(pods)" = "$before" ]
  until_ok 60 web_page_is_there
}

@test "reset --warm goes back to the first Ready state in place, with the same certificates, and snapshots to later ones" {
  kubectl create configmap late --from-literal=a=1
  "$K3S_VM" snapshot save with-late
  before=$(pods)
  kubectl config view --raw >"$BATS_TEST_TMPDIR/kubeconfig"
  "$K3S_VM" reset --warm --yes
  kubectl config view --raw | cmp - "$BATS_TEST_TMPDIR/kubeconfig"
  kubectl get nodes --no-headers | grep -q ' Ready '
  run -1 kubectl get configmap late
  run -1 kubectl get deployment web
  "$K3S_VM" snapshot restore with-late
  kubectl get configmap late
  kubectl get nodes --no-headers | grep -q ' Ready '
  [ "$(pods)" = "$before" ]
  until_ok 60 web_page_is_there
  "$K3S_VM" snapshot delete with-late
}

@test "stop --shutdown and start keep the Deployment, its Secret and the certificates" {
  kubectl create secret generic kept --from-literal=word=hello
  before=$(kubectl get secret kept -o 'jsonpath={.metadata.uid}')
  ca=$(kubectl config view --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}')

  "$K3S_VM" stop --shutdown
  run "$K3S_VM" --json status
  [ "$(jq -r .state <<<"$output")" = stopped ]
  run "$K3S_VM" stop
  [ "$status" -eq 4 ]

  "$K3S_VM" start
  echo "# times: $(jq -c .last_start_ms <<<"$("$K3S_VM" --json status)")" >&3
  [ "$(kubectl get secret kept -o 'jsonpath={.metadata.uid}')" = "$before" ]
  [ "$(kubectl config view --raw -o 'jsonpath={.clusters[0].cluster.certificate-authority-data}')" = "$ca" ]
  kubectl rollout status deployment/web --timeout=300s
  until_ok 180 web_page_is_there
}

@test "reset without --yes and without a terminal changes nothing" {
  run "$K3S_VM" reset </dev/null
  [ "$status" -eq 2 ]
  [ "$("$K3S_VM" --json status | jq -r .state)" = running ]
}

@test "reset gives a new cluster and keeps the configuration" {
  "$K3S_VM" configure VM_CPUS=2
  rm .k3s-vm/manifests/base.json
  before=$("$K3S_VM" --json status | jq -r .uuid)
  "$K3S_VM" reset --yes
  [ "$("$K3S_VM" --json status | jq -r .uuid)" != "$before" ]
  grep -q VM_CPUS=2 "$PROJECT/.k3s-vm/config"
  run kubectl get deployment web
  [ "$status" -ne 0 ]
  kubectl get nodes --no-headers | grep -q ' Ready '
}

@test "destroy leaves nothing running and nothing but the configuration" {
  pid=$("$K3S_VM" --json status | jq -r .pid)
  "$K3S_VM" destroy --yes
  [ ! -e "/proc/$pid" ]
  run find "$PROJECT" -mindepth 1 -type f
  echo "$output"
  for file in $output; do
    case ${file#"$PROJECT"/} in
      .k3s-vm/config | .k3s-vm/.gitignore | .k3s-vm/lock | .gitignore) ;;
      *) return 1 ;;
    esac
  done
  [ -z "$(find "$XDG_RUNTIME_DIR/k3s-vm" -name '*.sock' 2>/dev/null)" ]
  [ -z "$(find "$XDG_STATE_HOME/k3s-vm" -type f 2>/dev/null)" ]
  run "$K3S_VM" status
  [ "$status" -eq 3 ]
}
