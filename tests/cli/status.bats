# SPDX-License-Identifier: MIT
# What `status` says of a cluster's API, and how long it takes for that: a QEMU without a machine is the VM, and
# tests/lib/api_server.py its API.
load ../lib/common

UUID=aaaaaaaa-97d4-4c5e-8f11-2b3c4d5e6f70

setup() {
  skip_unless jq command -v jq
  setup_project
  fake_vm "$UUID"
  fake_qemu "$UUID"
  fake_api
}

teardown() {
  end_fake_api
  end_fake_qemu
}

api_line() {
  "$K3S_VM" status "$@" | grep '^  api '
}

@test "an API that answers at once is ready now" {
  # Not a matter of time here: the answer may be late on a machine that is busy with something else.
  for _ in {1..20}; do
    text=$("$K3S_VM" status)
    [[ $text == *'  api         ready'$'\n'* && $text == *'  nodes       shop Ready, v'* ]] && break
  done
  grep -qx '  api         ready' <<<"$text"
  grep -qx '  nodes       shop Ready, v1.33.1+k3s1, control-plane' <<<"$text"
}

@test "an API that nobody has had an answer from, and that takes its time, is not called ready" {
  echo 2 >"$API/delay"
  line=$(api_line)
  [[ $line == *'no answer at once, and none before'*'k3s-vm status --verbose' ]]
}

@test "an API that takes its time is shown as it last answered, with the age of that" {
  echo 0.3 >"$API/delay"
  [ "$(api_line --verbose)" = '  api         ready' ]
  read -rt 1.1 <> <(:) || :
  line=$(api_line)
  [[ $line =~ ^\ \ api\ +ready\ [1-9][0-9]*\.[0-9]\ s\ ago ]]
  "$K3S_VM" status | grep -Eq '^  nodes +shop Ready [0-9.]+ s ago, '
}

@test "an API that is gone is not ready, whatever it said before" {
  [ "$(api_line --verbose)" = '  api         ready' ]
  end_fake_api
  [[ $(api_line) == '  api         not ready: '* ]]
  [[ $("$K3S_VM" status) != *'shop Ready'* ]]
}

@test "an API that says it is not ready is not ready" {
  echo 500 >"$API/readyz"
  [[ $(api_line --verbose) == *'not ready: the API answers 500 to /readyz' ]]
}

@test "--json waits for an answer and says how old it is" {
  echo 0.5 >"$API/delay"
  json=$("$K3S_VM" --json status)
  [ "$(jq -c '[.api.ready, .api.age_ms, .nodes[0].ready, .nodes_age_ms]' <<<"$json")" = '[true,0,true,0]' ]
  [ "$(jq '.api.ms >= 400' <<<"$json")" = true ]
}

@test "no answer within the time that --verbose waits is an answer" {
  [ "$(api_line --verbose)" = '  api         ready' ]
  echo 30 >"$API/delay"
  [ "$(api_line --verbose)" = '  api         not ready: no answer within 5.0 s' ]
  [[ $(api_line) =~ not\ ready\ [0-9.]+\ s\ ago:\ no\ answer\ within ]]
}

@test "what another QEMU's API answered counts for nothing" {
  kept=$XDG_RUNTIME_DIR/k3s-vm/${UUID:0:12}/health.json
  [ "$(api_line --verbose)" = '  api         ready' ]
  cp "$kept" "$SCRATCH/kept"
  end_fake_qemu
  fake_qemu "$UUID"
  echo 2 >"$API/delay"
  cp "$SCRATCH/kept" "$kept"
  [[ $(api_line) == *'none before'* ]]
}

@test "junk where the last answer is kept is no answer" {
  echo 2 >"$API/delay"
  kept=$XDG_RUNTIME_DIR/k3s-vm/${UUID:0:12}/health.json
  for text in '' '{' '[]' '{"schema":1,"ready":true}' '{"schema":1,"pid":1,"start_time":1,"asked_ms":1,"ready":true}'; do
    echo "$text" >"$kept"
    [[ $(api_line) == *'none before'* ]]
  done
}
