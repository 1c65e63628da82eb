# SPDX-License-Identifier: MIT
# Forwards of a VM that does not run; tests/vm/ports.bats has one that does.
load ../lib/common

setup() {
  setup_project
}

@test "ports lists those that every VM has" {
  run -0 --separate-stderr env API_PORT=20443 "$K3S_VM" ports
  [ -z "$stderr" ]
  [ "${#lines[@]}" -eq 3 ]
  [[ ${lines[0]} == "127.0.0.1:20443 -> 6443 "*API_PORT ]]
  [ "$(API_PORT=20443 "$K3S_VM" ports list)" = "$output" ]
}

@test "ports add and remove change FORWARDS and leave the rest of the configuration alone" {
  "$K3S_VM" configure VM_CPUS=3
  printf '# mine\n' >>.k3s-vm/config
  before=$(cat .k3s-vm/config)
  run -0 --separate-stderr "$K3S_VM" ports add 20810:80 127.0.0.1:20811:81/tcp 20812
  [ -z "$output" ]
  [[ $stderr == *"127.0.0.1:20810"*"next start"* ]]
  [ "$("$K3S_VM" configure FORWARDS)" = "20810:80 20811:81 20812:20812" ]
  "$K3S_VM" ports add 20810:80
  [ "$("$K3S_VM" configure FORWARDS)" = "20810:80 20811:81 20812:20812" ]
  "$K3S_VM" ports list | grep -q '^127.0.0.1:20811 -> 81 .*FORWARDS'
  "$K3S_VM" ports remove 20811 20810:80
  [ "$("$K3S_VM" configure FORWARDS)" = "20812:20812" ]
  "$K3S_VM" ports remove 20812
  [ "$(cat .k3s-vm/config)" = "$before" ]
}

@test "ports --json is one object" {
  skip_unless jq command -v jq
  "$K3S_VM" ports add 20810:80
  run -0 --separate-stderr "$K3S_VM" --json ports
  [ "$(jq -c '.running, (.forwards | length), (.forwards[3] | .port, .guest_port, .key, .open)' <<<"$output" | tr '\n' ' ')" = \
    'false 4 20810 80 "FORWARDS" false ' ]
}

@test "ports refuses what is no forward, one that is used twice, and one that is not there" {
  "$K3S_VM" ports add 20810:80
  before=$(cat .k3s-vm/config)
  fails_with 2 'must be like 8080:30081' "$K3S_VM" ports add 0.0.0.0:20811:80
  fails_with 2 'must be like 8080:30081' "$K3S_VM" ports add 20811:80/udp
  fails_with 2 'used twice' "$K3S_VM" ports add 20810:81
  fails_with 2 'SSH_PORT' env SSH_PORT=20822 "$K3S_VM" configure FORWARDS=20822:1 SSH_PORT=20822
  fails_with 2 'no forward 20811' "$K3S_VM" ports remove 20811
  fails_with 2 'no forward 20810:81' "$K3S_VM" ports remove 20810:81
  fails_with 2 'k3s-vm configure' env API_PORT=20443 "$K3S_VM" ports remove 20443
  fails_with 2 'unset FORWARDS' env FORWARDS=20815:1 "$K3S_VM" ports add 20811:80
  [ "$(cat .k3s-vm/config)" = "$before" ]
}

@test "ports add of a port that somebody has is exit 5 and names them" {
  python3 -c 'import socket, time
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); print(s.getsockname()[1], flush=True); time.sleep(60)' >"$SCRATCH/port" 3>&- &
  holder=$!
  until [ -s "$SCRATCH/port" ]; do read -rt 0.1 <> <(:) || :; done
  fails_with 5 "held by PID $holder (" "$K3S_VM" ports add "$(cat "$SCRATCH/port"):80"
  kill "$holder"
  [ ! -e .k3s-vm/config ]
}
