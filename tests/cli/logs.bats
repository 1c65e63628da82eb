# SPDX-License-Identifier: MIT
load ../lib/common

setup() {
  setup_project
  fake_vm
  OUT=$SCRATCH/out
}

# follow ARG…: `logs -f ARG…` in the background, its output in $OUT.
follow() {
  "$K3S_VM" logs -f "$@" >"$OUT" 2>&1 3>&- &
  FOLLOWER=$!
}

# shows TEXT: waits until the follower has shown it.
shows() {
  for _ in {1..100}; do
    grep -qxF -- "$1" "$OUT" && return 0
    read -rt 0.05 <> <(:) || :
  done
  echo "never saw \"$1\" in:" >&2
  cat "$OUT" >&2
  return 1
}

teardown() {
  [ -z "${FOLLOWER:-}" ] || kill "$FOLLOWER" 2>/dev/null || :
}

@test "logs shows the last 100 lines, or as many as asked for" {
  seq 1000 >.k3s-vm/vm.log
  run -0 "$K3S_VM" logs vm
  [ "${#lines[@]}" = 100 ] && [ "${lines[0]}" = 901 ]
  run -0 "$K3S_VM" logs vm -n 2
  [ "$output" = $'999\n1000' ]
  run -0 "$K3S_VM" logs -n0 vm
  [ -z "$output" ]
  run -0 "$K3S_VM" logs vm --lines=all
  [ "${#lines[@]}" = 1000 ]
}

@test "lines of a large log are counted from its end" {
  seq 300000 >.k3s-vm/vm.log
  [ "$("$K3S_VM" logs vm -n 150000 | head -1)" = 150001 ]
  [ "$("$K3S_VM" logs vm -n 150000 | wc -l)" = 150000 ]
}

@test "an empty log is empty, a missing one is said to be missing" {
  : >.k3s-vm/vm.log
  run -0 --separate-stderr "$K3S_VM" logs vm
  [ -z "$output$stderr" ]
  fails_with 4 'no serial log' "$K3S_VM" logs serial
}

@test "what does not run shows its serial line without being asked which" {
  echo booting >.k3s-vm/vm/serial.log
  run -0 --separate-stderr "$K3S_VM" logs
  [ "$output" = booting ]
  [[ $stderr == *serial* ]]
}

@test "nothing that a guest writes can steer the terminal" {
  printf 'plain\r\n\033[0;32m  OK  \033[0m\tdone\n\033]0;title\007\033c\233m\177\n\302\233' >.k3s-vm/vm/serial.log
  run -0 "$K3S_VM" logs serial
  [ "${lines[0]}" = plain ]
  [ "${lines[1]}" = $'  OK  \tdone' ]
  run ! env LC_ALL=C grep -q $'[\001-\010\013-\037\177\200-\377]' <<<"$output"
}

@test "a line without an end and a line of 1 MB are shown" {
  { head -c 1000000 /dev/zero | tr '\0' x; printf '\nrest'; } >.k3s-vm/vm.log
  run -0 bash -c "'$K3S_VM' logs vm | tr -d '\n' | wc -c"
  [ "$output" = 1000004 ]
}

@test "the supervisor's events are made readable" {
  cat >.k3s-vm/events.jsonl <<'END'
{"time":1767225600123,"event":"phase","name":"boot","ms":13000}
{"time":1767225601000,"event":"qmp","text":"\u001b[31mred\nline"}
not json
END
  run -0 "$K3S_VM" logs supervisor
  [[ ${lines[0]} =~ ^2026-01-01T00:00:00Z\ +phase\ +name=boot\ ms=13000$ ]]
  [[ ${lines[1]} =~ ^2026-01-01T00:00:01Z\ +qmp\ +text=red\\x0aline$ ]]
  [ "${lines[2]}" = 'not json' ]
}

@test "--json is one object" {
  skip_unless jq command -v jq
  printf 'one\n"two"\n' >.k3s-vm/vm.log
  [ "$("$K3S_VM" logs vm --json | jq -c .)" = '{"source":"vm","lines":["one","\"two\""]}' ]
  echo '{"time":1767225600123,"event":"phase"}' >.k3s-vm/events.jsonl
  [ "$("$K3S_VM" logs supervisor --json | jq -c .)" = \
    '{"source":"supervisor","events":[{"time":1767225600123,"event":"phase"}]}' ]
}

@test "-f goes on with what is added" {
  echo one >.k3s-vm/vm.log
  follow vm
  shows one
  printf 'half ' >>.k3s-vm/vm.log
  echo line >>.k3s-vm/vm.log
  shows 'half line'
}

@test "-f goes on after the log was renamed and begun anew" {
  echo one >.k3s-vm/vm.log
  follow vm
  shows one
  mv .k3s-vm/vm.log .k3s-vm/vm.log.1
  echo 'last of the old' >>.k3s-vm/vm.log.1
  echo 'first of the new' >.k3s-vm/vm.log
  shows 'last of the old'
  shows 'first of the new'
  echo more >>.k3s-vm/vm.log
  shows more
}

@test "-f goes on after the log was cut" {
  seq 100 >.k3s-vm/vm.log
  follow vm
  shows 100
  : >.k3s-vm/vm.log
  echo anew >>.k3s-vm/vm.log
  shows anew
}

@test "-f waits for a log that is not there yet" {
  follow serial
  echo begins >.k3s-vm/vm/serial.log
  shows begins
}

@test "-f ends when its reader does, and when the VM's folder is gone" {
  echo one >.k3s-vm/vm.log
  run -0 timeout 10 bash -c "'$K3S_VM' logs -f vm | head -1"
  [ "$output" = one ]
  follow vm
  shows one
  rm -r .k3s-vm
  timeout 10 tail --pid="$FOLLOWER" -f /dev/null
  wait "$FOLLOWER"
  FOLLOWER=
}

@test "a FIFO in a log's place does not hang" {
  mkfifo .k3s-vm/vm.log
  fails_with 1 'regular' "$K3S_VM" logs vm
}
