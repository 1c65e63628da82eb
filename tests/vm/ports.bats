#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Forwards of a VM that runs: through QEMU's monitor, and in QEMU's arguments at the next start.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }
setup() { vm_project; }
teardown() {
  end_fake_api
  vm_teardown
}

# serve: a page on port 8000 of the guest.
serve() {
  "$K3S_VM" exec -- sh -c 'mkdir -p /tmp/www && echo "hello from the guest" >/tmp/www/index.html && busybox httpd -p 8000 -h /tmp/www'
}

# fetch PORT: what the guest's page says through that port of the host.
fetch() {
  curl -sS --max-time 10 "http://127.0.0.1:$1/"
}

@test "a port is added while the VM runs, survives a restart, and is removed" {
  port=$((WEB_PORT + 1))
  "$K3S_VM"
  serve
  run ! fetch "$port"
  run --separate-stderr "$K3S_VM" ports add "$port:8000"
  echo "$stderr"
  [ "$status" -eq 0 ]
  [ "$(fetch "$port")" = "hello from the guest" ]
  # Nobody else on the network can reach it.
  [ "$(ss -Hltn "sport = :$port" | awk '{ print $4 }')" = "127.0.0.1:$port" ]
  [ "$("$K3S_VM" --json ports | jq -c ".running, (.forwards[] | select(.port == $port) | .key, .open)" | tr '\n' ' ')" = \
    'true "FORWARDS" true ' ]

  # QEMU started anew by the supervisor has it, too.
  kill -KILL "$(vm_pid)"
  event_seen repair:restarted 30
  "$K3S_VM" start
  serve
  [ "$(fetch "$port")" = "hello from the guest" ]

  "$K3S_VM" restart
  tr '\0' '\n' <"/proc/$(vm_pid)/cmdline" | grep -q "hostfwd=tcp:127.0.0.1:$port-10.0.2.15:8000"
  serve
  [ "$(fetch "$port")" = "hello from the guest" ]

  "$K3S_VM" ports remove "$port"
  run ! fetch "$port"
  [ "$("$K3S_VM" configure FORWARDS)" = "" ]
  [ "$("$K3S_VM" ports | wc -l)" -eq 3 ]
}

@test "ports tells what is open now from what is kept for the next start" {
  port=$((WEB_PORT + 1))
  "$K3S_VM" ports add "$port:8000"
  "$K3S_VM"
  [ "$("$K3S_VM" ports | grep -c 'FORWARDS$')" -eq 1 ]
  "$K3S_VM" configure "FORWARDS=$((port + 1)):8000"
  "$K3S_VM" ports | grep -q "^127.0.0.1:$((port + 1)) .*from the next start on"
  "$K3S_VM" ports | grep -q "^127.0.0.1:$port .*until the VM stops"
  # Added again, it is the user's once more; the other is opened by adding it.
  "$K3S_VM" ports add "$port:8000" "$((port + 1)):8000"
  [ "$("$K3S_VM" ports | grep -c 'FORWARDS$')" -eq 2 ]
}

@test "a port that somebody has is exit 5, and nothing is changed" {
  "$K3S_VM"
  port=$((WEB_PORT + 1))
  python3 -c 'import socket, sys, time
s = socket.socket(); s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); time.sleep(60)' "$port" 3>&- &
  holder=$!
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.1; done
  run "$K3S_VM" ports add "$((port + 1)):8000" "$port:8000"
  kill "$holder"
  echo "$output"
  [ "$status" -eq 5 ]
  [[ "$output" == *"PID $holder"* ]]
  [ "$("$K3S_VM" ports | wc -l)" -eq 3 ]
}

# node_port NAME PORT [ANNOTATION]: a Service.
node_port() {
  printf -- '---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, annotations: {%s}}\n' "$1" "${3:-}"
  printf 'spec: {type: NodePort, ports: [{port: 80, nodePort: %s}]}\n' "$2"
}

@test "WEB_PORT leads to the NodePort of the project's Service, and another one is offered" {
  SCRATCH=$BATS_TEST_TMPDIR
  "$K3S_VM"
  serve
  run ! fetch "$WEB_PORT"
  # The Services are in a cluster of their own; what they lead to is in the VM.
  fake_api
  mkdir -p .k3s-vm/manifests
  node_port shop 8000 >.k3s-vm/manifests/base.json
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $stderr == *"127.0.0.1:$WEB_PORT leads to NodePort 8000 of service/shop now"* ]]
  [ "$(fetch "$WEB_PORT")" = "hello from the guest" ]
  [ "$("$K3S_VM" configure WEB_NODE_PORT)" = 8000 ]
  # It says nothing of what is so already, and a VM that is started has it at once.
  run -0 --separate-stderr "$K3S_VM" apply
  [ -z "$stderr" ]
  "$K3S_VM" stop
  "$K3S_VM" start
  [ "$(fetch "$WEB_PORT")" = "hello from the guest" ]
  kill -KILL "$(vm_pid)"
  event_seen repair:restarted 30
  "$K3S_VM" start
  serve
  [ "$(fetch "$WEB_PORT")" = "hello from the guest" ]

  node_port other 8001 "k3s-vm/web: 'true'" >.k3s-vm/manifests/other.yaml
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $stderr == *"leads to NodePort 8001 of service/other now"* ]]
  [[ $stderr == *"NodePort 8000 of service/shop is not forwarded: k3s-vm ports add 8000"* ]]
  # A number of the user's is not looked for; files of -f are not the project's.
  "$K3S_VM" configure WEB_NODE_PORT=8000
  run -0 --separate-stderr "$K3S_VM" apply
  [[ $stderr != *"leads to"* ]]
}
