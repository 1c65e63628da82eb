#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The unit for systemd's user manager, with a systemctl that only writes down what it is asked.
load ../lib/common

setup() {
  setup_project
  fake_systemctl 0
}

# fake_systemctl STATUS
fake_systemctl() {
  mkdir -p "$SCRATCH/bin"
  printf '#!/bin/sh\necho "$@" >>"%s/systemctl.log"\nexit %s\n' "$SCRATCH" "$1" >"$SCRATCH/bin/systemctl"
  chmod +x "$SCRATCH/bin/systemctl"
  PATH=$SCRATCH/bin:$PATH
}

unit() { echo "$XDG_CONFIG_HOME"/systemd/user/k3s-vm-*.service; }

# What systemd makes of the words of an ExecStart line: quotes, escapes, %% and $$.
words_of() {
  python3 - "$1" "$2" <<'END'
import re, sys
line = next(l for l in open(sys.argv[2]).read().split("\n") if l.startswith(sys.argv[1] + "="))
for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line.split("=", 1)[1].lstrip("-")):
    word = re.sub(rb"\\(x..|.)", lambda m: bytes([int(m[1][1:], 16)]) if m[1][:1] == b"x" else m[1],
                  (quoted or bare).encode())
    sys.stdout.buffer.write(word.replace(b"%%", b"%").replace(b"$$", b"$") + b"\0")
END
}

@test "on writes and enables a unit, off removes both, and systemd is told each time" {
  fake_vm
  [ "$("$K3S_VM" autostart)" = off ]
  "$K3S_VM" autostart on
  unit=$(unit)
  [ "$(stat -c %a "$unit")" = 644 ]
  link=$XDG_CONFIG_HOME/systemd/user/default.target.wants/${unit##*/}
  [ -L "$link" ] && [ "$link" -ef "$unit" ]
  [ "$(cat "$SCRATCH/systemctl.log")" = "--user daemon-reload" ]
  [ "$("$K3S_VM" autostart status)" = "on: $unit" ]
  [ "$("$K3S_VM" --json autostart status | jq -c '[.autostart, .path]')" = "[true,\"$unit\"]" ]
  mapfile -d '' words < <(words_of ExecStart "$unit")
  [ "${words[*]}" = "$(realpath "$K3S_VM") --project $PROJECT --quiet start" ]
  mapfile -d '' words < <(words_of ExecStop "$unit")
  [ "${words[4]}" = stop ]
  grep -qx "KillMode=process" "$unit"

  "$K3S_VM" autostart off
  [ ! -e "$unit" ] && [ ! -L "$link" ]
  [ "$(wc -l <"$SCRATCH/systemctl.log")" = 2 ]
  [ "$("$K3S_VM" autostart status)" = off ]
  fails_with 4 'not started by systemd' "$K3S_VM" autostart off
}

@test "on again, under another VM_NAME, changes the one unit" {
  fake_vm
  "$K3S_VM" autostart on
  VM_NAME=other "$K3S_VM" autostart on
  [ "$(ls "$XDG_CONFIG_HOME/systemd/user" | wc -l)" = 2 ]
  grep -q "Description=The VM other" "$(unit)"
}

@test "without systemctl, and without a user bus, it is enabled all the same" {
  fake_vm
  fake_systemctl 1
  run "$K3S_VM" autostart on
  [ "$status" -eq 0 ]
  [[ $output == *"log in the next time"* ]]
  [ "$("$K3S_VM" autostart)" = "on: $(unit)" ]
  "$K3S_VM" autostart off
  PATH=/nowhere run "$K3S_VM" autostart on
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$("$K3S_VM" autostart)" = "on: $(unit)" ]
}

@test "without a VM it is exit 3, another word is exit 2, and nothing is written" {
  fails_with 3 'k3s-vm' "$K3S_VM" autostart on
  fails_with 2 'autostart takes on, off or status' "$K3S_VM" autostart maybe
  fails_with 2 'autostart takes' "$K3S_VM" autostart on off
  [ ! -e "$XDG_CONFIG_HOME" ]
}

@test "any project path reaches the program as it is" {
  setup_project "$(printf 'a  b\\c"d\047e %%h %%%% $HOME ${X} é\n;[x]=#')"
  fake_vm
  "$K3S_VM" autostart on
  mapfile -d '' words < <(words_of ExecStart "$(unit)")
  [ "${words[2]}" = "$PROJECT" ]
  [ "${#words[@]}" = 5 ]
  [ "$("$K3S_VM" autostart)" = "on: $(unit)" ]
}

@test "systemd itself finds nothing wrong with the unit" {
  skip_unless "systemd-analyze" systemd-analyze --version
  setup_project "$(printf 'a  b\\c"d\047e %%h $HOME ${X} é\n;[x]=#')"
  fake_vm
  PATH=${PATH#"$SCRATCH/bin:"} "$K3S_VM" autostart on
  run systemd-analyze --user verify "$(unit)"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ $output != *"${PROJECT##*/}"* ]] && [[ $output != *ignoring* ]]
}

@test "a folder that cannot be written is exit 6 and names the lines for home-manager" {
  fake_vm
  mkdir -p "$XDG_CONFIG_HOME"
  if [ "$(id -u)" = 0 ]; then
    # Root may write everywhere but where nobody can.
    # shellcheck disable=SC2016 # for the inner shell
    read_only=(unshare -m sh -c 'mount -t tmpfs -o ro none "$XDG_CONFIG_HOME" && exec "$0" "$@"')
  else
    chmod 500 "$XDG_CONFIG_HOME"
    read_only=(env)
  fi
  fails_with 6 'systemd.user.services."k3s-vm-' "${read_only[@]}" "$K3S_VM" autostart on
  # shellcheck disable=SC2154 # bats sets stderr
  [[ $stderr == *'Install.WantedBy = [ "default.target" ];'* ]]
  [[ $stderr == *"ExecStart = "*"--project"*"$PROJECT"* ]]
}

@test "destroy removes the unit, too" {
  fake_vm
  "$K3S_VM" autostart on
  unit=$(unit)
  "$K3S_VM" destroy --yes
  [ ! -e "$unit" ]
}
