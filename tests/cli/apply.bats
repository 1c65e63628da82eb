# SPDX-License-Identifier: MIT
# `apply` against tests/lib/api_server.py, which knows field managers, custom resources and pods that do not start. A QEMU
# without a machine is the VM.
load ../lib/common

UUID=bbbbbbbb-97d4-4c5e-8f11-2b3c4d5e6f70

setup() {
  skip_unless jq command -v jq
  setup_project
  fake_vm "$UUID"
  mkdir -p .k3s-vm/manifests
  fake_qemu "$UUID"
  fake_api
}

teardown() {
  end_fake_api
  end_fake_qemu
}

# config_map NAME [KEY=VALUE]: a manifest.
config_map() {
  local data=${2:-a=1}
  printf -- '---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {%s: "%s"}\n' "$1" "${data%%=*}" "${data#*=}"
}

manifests() {
  cat >".k3s-vm/manifests/$1"
}

deployment() {
  cat <<END
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: ${1:-2}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "nowhere/web:1"}]}
END
}

apply() {
  timeout 60 "$K3S_VM" apply "$@"
}

patches() { grep -c '^PATCH .*/configmaps/' "$API/log"; }

@test "objects are created once, and not even sent when nothing changed" {
  { config_map one; config_map two; } | manifests a.yaml
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "configmap/one created" ]
  [ "${lines[1]}" = "configmap/two created" ]
  [ "${lines[2]}" = "2 created" ]
  : >"$API/log"
  run -0 --separate-stderr apply
  [ "${lines[2]}" = "2 unchanged" ]
  ! grep -q ^PATCH "$API/log"
}

@test "what changed is sent, and only that" {
  { config_map one; config_map two; } | manifests a.yaml
  apply
  { config_map one; config_map two a=2; } | manifests a.yaml
  : >"$API/log"
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "configmap/one unchanged" ]
  [ "${lines[1]}" = "configmap/two configured" ]
  [ "$(patches)" = 1 ]
}

# kubectl_apply NAME YAML: as another manager, with curl.
other_manager() {
  local identity=$SCRATCH/client.pem
  cat "$API/api.crt" "$API/api.key" >"$identity"
  curl -fsS --noproxy '*' --cacert "$API/api.crt" --cert "$identity" -X PATCH -H 'Content-Type: application/apply-patch+yaml' \
    -d "$2" "https://127.0.0.1:$API_SERVER_PORT/api/v1/namespaces/default/configmaps/$1?fieldManager=kubectl&force=true" >"$SCRATCH/answer"
}

CHANGED='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one","namespace":"default"},"data":{"a":"theirs"}}'

@test "an object that somebody changed is sent again; their field is a conflict that names field and owner" {
  skip_unless curl command -v curl
  config_map one | manifests a.yaml
  apply
  other_manager one "$CHANGED"
  run -1 --separate-stderr apply
  [ "${lines[0]}" = "configmap/one failed" ]
  [[ $stderr == *'.k3s-vm/manifests/a.yaml:5: configmap/one: field .data.a belongs to "kubectl" using v1'* ]]
  [[ $stderr == *'mend it: '*'--force-conflicts'* ]]
  run -0 --separate-stderr apply --force-conflicts
  [ "${lines[0]}" = "configmap/one configured" ]
}

@test "namespaces and definitions come first, wherever they are written" {
  manifests base.json <<'END'
{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "shop"}, "spec": {"size": 1}},
  {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "shop"}},
  {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
]}
END
  manifests crd.yml <<'END'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions: [{name: v1, served: true, storage: true}]
END
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "namespace/shop created" ]
  [ "${lines[1]}" = "customresourcedefinition.apiextensions.k8s.io/widgets.example.com created" ]
  [ "${lines[2]}" = "widget.example.com/w (shop) created" ]
  [ "${lines[3]}" = "configmap/c (shop) created" ]
}

@test "base.json comes first, then the others by name; other files are left alone" {
  config_map two | manifests b.yaml
  config_map one | manifests a.yml
  echo '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "zero"}}' | manifests base.json
  echo 'no: manifest' | manifests README.md
  echo 'no: manifest' | manifests .hidden.yaml
  run -0 --separate-stderr apply
  [ "$(grep -o '/[a-z]*' <<<"$output" | tr -d '\n')" = /zero/one/two ]
}

@test "-f takes files, several, and standard input, and leaves the project's manifests alone" {
  config_map project | manifests a.yaml
  config_map one >one.yaml
  config_map two >two.yaml
  run -0 --separate-stderr apply -f one.yaml -f - two.yaml < <(config_map three)
  [ "$(grep -o '/[a-z]*' <<<"$output" | tr -d '\n')" = /one/three/two ]
  fails_with 2 'k3s-vm apply -f one.yaml' "$K3S_VM" apply one.yaml
}

@test "what is wrong with a manifest is said with file, line, document and field, and nothing is sent" {
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n---\nkind: ConfigMap\nmetadata:\n  nam: x\n' | manifests a.yaml
  fails_with 2 '.k3s-vm/manifests/a.yaml:5 (document 2): field apiVersion is missing' "$K3S_VM" apply
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  generateName: x\n' | manifests a.yaml
  fails_with 2 'a.yaml:3: field metadata.name is missing; generateName' "$K3S_VM" apply
  printf 'a: [\n' | manifests a.yaml
  fails_with 2 'cannot read the manifest .k3s-vm/manifests/a.yaml: invalid YAML at line' "$K3S_VM" apply
  { config_map one; config_map one; } | manifests a.yaml
  fails_with 2 'a.yaml:9 (document 2): configmap/one is there already, in .k3s-vm/manifests/a.yaml:4 (document 1)' "$K3S_VM" apply
  [ ! -e "$API/log" ]
}

@test "aliases that grow without end are refused" {
  {
    echo 'a: &a [x,x,x,x,x,x,x,x,x]'
    for i in b:a c:b d:c e:d f:e g:f h:g i:h; do echo "${i%:*}: &${i%:*} [*${i#*:},*${i#*:},*${i#*:},*${i#*:},*${i#*:},*${i#*:},*${i#*:},*${i#*:},*${i#*:}]"; done
  } | manifests a.yaml
  fails_with 2 'the aliases expand to more than' "$K3S_VM" apply
}

@test "one object that the API refuses does not keep the others out" {
  { config_map one; config_map bad; config_map two; } | manifests a.yaml
  echo '{"bad": {"code": 422, "message": "data.a: Invalid value", "details": {"causes": [{"field": "data.a"}]}}}' >"$API/refuse"
  run -1 --separate-stderr apply
  [ "${lines[1]}" = "configmap/bad failed" ]
  [ "${lines[2]}" = "configmap/two created" ]
  [[ $stderr == *'1 of 3 objects could not be applied; the others are'*'a.yaml:10 (document 2): configmap/bad: data.a: Invalid value'* ]]
}

@test "an unknown kind names the version that the cluster has it in; a missing namespace how to make it" {
  printf 'apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\n' | manifests a.yaml
  run -1 --separate-stderr apply
  [[ $stderr == *'a.yaml:1: cronjob.batch/x: the cluster has no CronJob in batch/v1'*'apiVersion: batch/v1beta1'* ]]
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}\n' | manifests a.yaml
  run -1 --separate-stderr apply
  [[ $stderr == *'namespaces "nowhere" not found'*'k3s-vm kubectl create namespace nowhere'* ]]
}

@test "an object that cannot be changed says how to make it anew" {
  config_map one | manifests a.yaml
  echo '{"one": {"code": 422, "message": "spec.selector: Invalid value: field is immutable"}}' >"$API/refuse"
  run -1 --separate-stderr apply
  [[ $stderr == *'k3s-vm kubectl delete configmaps one -n default && k3s-vm apply'* ]]
}

@test "--prune removes what the manifests no longer list, and nothing else" {
  { config_map one; config_map two; printf -- '---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {}\n'; } | manifests a.yaml
  apply
  config_map file >file.yaml
  apply -f file.yaml
  { config_map one; printf -- '---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {}\n'; } | manifests a.yaml
  run -0 --separate-stderr apply --prune --dry-run
  [ "${lines[2]}" = "configmap/two pruned (dry run)" ]
  run -0 --separate-stderr apply
  [[ $output != *two* ]]
  run -0 --separate-stderr apply --prune
  [ "${lines[2]}" = "configmap/two pruned" ]
  [ "${lines[3]}" = "2 unchanged, 1 pruned" ]
  # Not what -f applied, and not the Endpoints, which have the Service's labels.
  [ "$(grep -c ^DELETE "$API/log")" = 1 ]
  fails_with 2 'cannot be used with -f' "$K3S_VM" apply --prune -f file.yaml
}

@test "--prune finds what only a version has that its API does not prefer" {
  { config_map one; printf -- '---\napiVersion: batch/v1beta1\nkind: CronJob\nmetadata: {name: nightly}\nspec: {}\n'; } | manifests a.yaml
  apply
  config_map one | manifests a.yaml
  run -0 --separate-stderr apply --prune
  [[ $output == *'cronjob.batch/nightly pruned'*'1 unchanged, 1 pruned' ]]
}

@test "a dry run shows the fields that would change, keeps Secrets to itself, and changes nothing" {
  { config_map one; printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hidden1}\n'; } | manifests a.yaml
  apply
  { config_map one a=2; config_map new; printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hidden2}\n'; } | manifests a.yaml
  run -0 --separate-stderr apply --dry-run
  [ "${lines[0]}" = "configmap/one configured (dry run)" ]
  [ "${lines[1]}" = '  ~ data.a: "1" -> "2"' ]
  [ "${lines[2]}" = "configmap/new created (dry run)" ]
  [ "${lines[4]}" = '  ~ stringData.k: (not shown) -> (not shown)' ]
  [[ $output != *hidden* ]]
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "configmap/one configured" ]
  [ "${lines[1]}" = "configmap/new created" ]
}

@test "a workload is waited for" {
  deployment | manifests a.yaml
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "deployment.apps/web created" ]
  : >"$API/log"
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "deployment.apps/web unchanged" ]
  ! grep -q 'deployments/web' "$API/log"
}

@test "a pod that cannot start is explained: reason, events, log, and what mends it" {
  deployment | manifests a.yaml
  echo ErrImageNeverPull >"$API/pods"
  run -1 --separate-stderr apply
  [[ $stderr == *'deployment.apps/web does not come up: ErrImageNeverPull'* ]]
  [[ $stderr == *'pod web-1 (container main): ErrImageNeverPull: the container says ErrImageNeverPull'* ]]
  [[ $stderr == *'Failed: an event'*'the last line of the log'* ]]
  [[ $stderr == *'k3s-vm load IMAGE.tar'* ]]
  # And again, although nothing changed: it is not rolled out.
  run -1 --separate-stderr apply
}

@test "a rollout that takes too long exits with 7, and what was applied stays" {
  deployment | manifests a.yaml
  echo ContainerCreating >"$API/pods"
  run -7 --separate-stderr apply --timeout 1
  [[ $stderr == *'deployment.apps/web is not rolled out within 1.0 s: 0 of 2 pods available'* ]]
  rm "$API/pods"
  run -0 --separate-stderr apply
  [ "${lines[0]}" = "deployment.apps/web unchanged" ]
}

@test "--no-wait does not wait, and the next apply does" {
  deployment | manifests a.yaml
  echo ErrImageNeverPull >"$API/pods"
  run -0 --separate-stderr apply --no-wait
  run -1 --separate-stderr apply
}

@test "a Job that failed is a failure" {
  printf 'apiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {spec: {}}}\n' | manifests a.yaml
  echo Error >"$API/pods"
  run -1 --separate-stderr apply
  [[ $stderr == *'job.batch/once does not come up: Job has reached the specified backoff limit'* ]]
}

@test "an API that goes away in the middle is one clear error" {
  for i in {1..30}; do config_map "c$i"; done | manifests a.yaml
  echo 10 >"$API/die_at"
  run -1 --separate-stderr apply
  [[ $stderr == *'of 30 objects could not be applied'*'and '*' more'* ]]
  [[ $stderr == *'k3s-vm status'* ]]
}

@test "--json tells everything in one object" {
  config_map one | manifests a.yaml
  run -0 --separate-stderr "$K3S_VM" --json apply
  [ "$(jq -c '[.objects[0].object, .objects[0].result, .created, .unchanged]' <<<"$output")" = '["configmap/one","created",1,0]' ]
}

@test "another authority's cluster is not talked to" {
  config_map one | manifests a.yaml
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=other -keyout /dev/null \
    -out "$SCRATCH/other.crt" 2>/dev/null
  jq --arg ca "$(base64 -w0 <"$SCRATCH/other.crt")" '.clusters[0].cluster["certificate-authority-data"] = $ca' \
    "$API/kubeconfig" >web/.kube/config
  run -1 --separate-stderr apply
  [[ $stderr == *certificate* ]]
  [ ! -e "$API/log" ]
}

@test "without manifests there is nothing to do, and a VM that does not run is said" {
  run -0 --separate-stderr apply
  [ "$output" = "nothing to apply" ]
  config_map one | manifests a.yaml
  end_fake_qemu
  fails_with 4 'the VM is not running' "$K3S_VM" apply
}
