# SPDX-License-Identifier: MIT
load ../lib/common

COMMANDS="setup start stop restart status reset destroy ssh exec cp logs configure list doctor env ports load init autostart completion"
PASSED_ON="kubectl k9s"

setup() {
  setup_project
}

@test "--help lists every command on stdout and says nothing else" {
  run -0 --separate-stderr "$K3S_VM" --help
  [ -z "$stderr" ]
  for command in $COMMANDS $PASSED_ON; do
    grep -q "^  $command " <<<"$output"
  done
}

@test "--help does not list what is not for people" {
  run -0 "$K3S_VM" --help
  [[ $output != *supervise* ]]
}

@test "help and -h are --help" {
  expected=$("$K3S_VM" --help)
  [ "$("$K3S_VM" help)" = "$expected" ]
  [ "$("$K3S_VM" -h)" = "$expected" ]
}

@test "every command has a help of its own, by --help and by help COMMAND" {
  for command in $COMMANDS; do
    run -0 --separate-stderr "$K3S_VM" "$command" --help
    [ -z "$stderr" ]
    [[ ${lines[0]} == "Usage: k3s-vm $command"* ]]
    [ "$("$K3S_VM" help "$command")" = "$output" ]
  done
}

@test "help tells what kubectl and k9s are, whose own --help is passed on" {
  for command in $PASSED_ON; do
    run -0 "$K3S_VM" help "$command"
    [[ ${lines[0]} == "Usage: k3s-vm $command"* ]]
  done
}

@test "every summary of --help is that of the command's own help" {
  while read -r command summary; do
    "$K3S_VM" help "$command" | grep -qxF "$summary"
  done < <("$K3S_VM" --help | sed -n '/^Commands:/,/^$/{s/^  //p}')
}

@test "no line of any help is longer than 110 columns" {
  for command in "" $COMMANDS $PASSED_ON; do
    run -0 bash -c "'$K3S_VM' help $command | LC_ALL=C.UTF-8 awk 'length > 110'"
    [ -z "$output" ]
  done
}

@test "--version prints name and version" {
  run -0 --separate-stderr "$K3S_VM" --version
  [ -z "$stderr" ]
  [[ $output =~ ^k3s-vm\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "help needs no home, no project and no working folder" {
  mkdir gone && cd gone && rmdir ../gone
  run -0 env -i "$K3S_VM" --help
  run -0 env -i "$K3S_VM" status --help
}

@test "an unknown command is a usage error that names it" {
  fails_with 2 '"frobnicate"' "$K3S_VM" frobnicate
  fails_with 2 '"frobnicate"' "$K3S_VM" help frobnicate
}

@test "an empty command word does not start a VM" {
  fails_with 2 'no command' "$K3S_VM" ""
}

@test "an unknown option is a usage error for every command, also without one" {
  before=$(snapshot)
  fails_with 2 '--frobnicate' "$K3S_VM" --frobnicate
  for command in $COMMANDS; do
    fails_with 2 '--frobnicate' "$K3S_VM" "$command" --frobnicate
    fails_with 2 '-Z' "$K3S_VM" "$command" -Z
  done
  [ "$(snapshot)" = "$before" ]
}

@test "an operand where none belongs is a usage error" {
  for command in start stop restart status reset destroy list doctor env init; do
    fails_with 2 '"surplus"' "$K3S_VM" "$command" surplus
  done
}

@test "an option without its value is a usage error" {
  fails_with 2 '--project' "$K3S_VM" --project
  fails_with 2 '--lines' "$K3S_VM" logs --lines
  fails_with 2 '--cpus' "$K3S_VM" setup --cpus
}

@test "a switch with a value is a usage error" {
  fails_with 2 '--follow' "$K3S_VM" logs --follow=yes
}

@test "commands that want operands say which" {
  fails_with 2 'command to run' "$K3S_VM" exec
  fails_with 2 'a source and a destination' "$K3S_VM" cp
  fails_with 2 'a source and a destination' "$K3S_VM" cp onlyone
  fails_with 2 'neither side' "$K3S_VM" cp a b
  fails_with 2 'both sides' "$K3S_VM" cp guest:a guest:b
  fails_with 2 'name of a shell' "$K3S_VM" completion
  fails_with 2 'name of a shell' "$K3S_VM" completion tcsh
  fails_with 2 '"nosuch"' "$K3S_VM" logs nosuch
  fails_with 2 '"many"' "$K3S_VM" logs --lines many
  fails_with 2 'wants a port' "$K3S_VM" ports add
  fails_with 2 'wants a port' "$K3S_VM" ports remove
  fails_with 2 '"open"' "$K3S_VM" ports open 80
  fails_with 2 'not both' "$K3S_VM" logs --follow --json
}

@test "output that cannot be written is an error, a reader that went away is not" {
  run -1 --separate-stderr bash -c "'$K3S_VM' --help >/dev/full"
  [[ $stderr == *"No space left"* ]]
  run -0 bash -c "set -o pipefail; '$K3S_VM' --help | true"
}
