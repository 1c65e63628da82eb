#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# fetch and cache: a release from a server in the publishers' layout, kept, checked, taken to a machine without a
# network, and removed again. No VM is started.

load ../lib/common

setup() {
  skip_unless python3 command -v python3
  skip_unless openssl command -v openssl
  setup_project
  SERVED=$SCRATCH/served
  mkdir -p "$SERVED/www/k3s/v1.33.5+k3s1"
  coproc SERVER { exec python3 "$ROOT/tests/lib/https_server.py" "$SERVED" 3>&-; }
  read -r PORT _ <&"${SERVER[0]}"
  unset http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY
  export CURL_CA_BUNDLE=$SERVED/ca.pem MIRROR_K3S=https://127.0.0.1:$PORT/github/k3s FLAVOR=$PROJECT/guest
  # A guest of the user's own, so that none is built.
  mkdir guest
  head -c 100000 /dev/urandom >guest/kernel
  cat >guest/guest.json <<'END'
{ "schema": 1, "flavor": "test", "system": "x86_64-linux", "version": "1", "provision": "credentials",
  "boot": { "kernel": "kernel", "initrd": "kernel", "cmdline": "quiet" }, "payload": { "attach": "k3s-vm-payload" } }
END
  RELEASE=$SERVED/www/k3s/v1.33.5+k3s1
  arch=amd64 K3S=k3s
  [ "$(uname -m)" != aarch64 ] || arch=arm64 K3S=k3s-arm64
  head -c 3000000 /dev/urandom >"$RELEASE/$K3S"
  head -c 2000000 /dev/urandom >"$RELEASE/k3s-airgap-images-$arch.tar.zst"
  (cd "$RELEASE" && sha256sum -- * >sums && mv sums "sha256sum-$arch.txt")
  echo '{"data":[{"id":"stable","latest":"v1.33.5+k3s1"}]}' >"$SERVED/www/k3s/channels"
}

end_server() {
  [ -n "${SERVER_PID:-}" ] || return 0
  kill "$SERVER_PID" 2>/dev/null || :
  wait "$SERVER_PID" 2>/dev/null || :
  SERVER_PID=
}
teardown() { end_server; }

cached() { (cd "$XDG_CACHE_HOME/k3s-vm" && find . -type f ! -name '.*' | sort | xargs); }

@test "fetch fills the cache, and what it names is enough on a machine without a network" {
  "$K3S_VM" fetch
  [ ! -e .k3s-vm ]
  [[ $(cached) == "./downloads/k3s/channels/stable ./downloads/k3s/v1.33.5+k3s1/$K3S ./downloads/k3s/v1.33.5+k3s1/sha256sum-$arch.txt ./payloads/"*.iso ]]
  run --separate-stderr "$K3S_VM" fetch --for-offline
  [ "$status" -eq 0 ]
  [[ $(cached) == *k3s-airgap-images-"$arch".tar.zst* ]]
  echo "$output"
  [[ $output == *"has to be copied, too: $PROJECT/guest"* ]]
  pack=$(grep -o 'tar -C .*' <<<"$output" | head -n 1)
  (cd "$SCRATCH" && eval "$pack")
  iso=$("$K3S_VM" --json fetch --for-offline | jq -r .payload)

  end_server
  export XDG_CACHE_HOME=$SCRATCH/other
  mkdir -p "$XDG_CACHE_HOME/k3s-vm"
  tar -C "$XDG_CACHE_HOME/k3s-vm" -xf "$SCRATCH/k3s-vm-offline.tar"
  "$K3S_VM" cache verify
  run --separate-stderr "$K3S_VM" --json fetch
  echo "$stderr"
  [ "$status" -eq 0 ]
  [[ $stderr == *'cannot be reached: using the cached v1.33.5+k3s1'* ]]
  [ "$(path_base "$(jq -r .payload <<<"$output")")" = "$(path_base "$iso")" ]
}
path_base() { echo "${1##*/}"; }

@test "cache list, verify and prune; one bit that flips is found, and what is damaged is fetched anew" {
  "$K3S_VM" fetch --for-offline
  "$K3S_VM" cache
  [ "$("$K3S_VM" --json cache list | jq -c '[.entries[] | [.kind, .in_use, .bytes > 1000000]]')" = '[["payload",false,true],["release",false,true]]' ]
  "$K3S_VM" cache verify
  file=$XDG_CACHE_HOME/k3s-vm/downloads/k3s/v1.33.5+k3s1/$K3S
  flip "$file" 1234567
  run --separate-stderr "$K3S_VM" cache verify
  [ "$status" -eq 1 ]
  [[ $output == *"damaged     downloads/k3s/v1.33.5+k3s1/$K3S"* && $stderr == *'rm -r '* ]]
  run --separate-stderr "$K3S_VM" fetch
  [ "$status" -eq 0 ]
  [[ $stderr == *'is not the published file; it is fetched anew'* ]]
  cmp "$file" "$RELEASE/$K3S"
  # The image, which a VM would be started with: before that, and by the next fetch.
  iso=$("$K3S_VM" --json fetch --for-offline | jq -r .payload)
  flip "$iso" 1234567
  run -1 "$K3S_VM" cache verify
  "$K3S_VM" fetch --for-offline
  "$K3S_VM" cache verify

  run --separate-stderr "$K3S_VM" cache prune
  [ -z "$output" ] && [[ $stderr == *'used in the last hour stay'* ]]
  "$K3S_VM" cache prune --all
  [ "$(cached)" = ./downloads/k3s/channels/stable ]
  fails_with 2 'cache cannot "empty"' "$K3S_VM" cache empty
}

# flip FILE OFFSET: one bit.
flip() {
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  chmod u+w "$1"
  printf "\\x$(printf %02x $((byte ^ 8)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "upgrade: what may not follow is refused with the reason before anything is fetched or touched" {
  fails_with 3 'has no VM' "$K3S_VM" upgrade --k3s v1.33.2+k3s1
  fake_vm
  fails_with 4 'built into the guest' "$K3S_VM" upgrade --k3s v1.33.2+k3s1
  touch old.iso
  jq --arg path "$PROJECT/old.iso" '.payload.path = $path' .k3s-vm/vm/state.json >state && mv state .k3s-vm/vm/state.json
  before=$(sha256sum .k3s-vm/vm/state.json)
  fails_with 2 'v1.35.0+k3s1 is more than one minor version' "$K3S_VM" upgrade --k3s v1.35.0+k3s1
  [[ $stderr == *'mend it: the next one first: k3s-vm upgrade --k3s v1.34'* ]]
  fails_with 2 'is older than v1.33.1+k3s1' "$K3S_VM" upgrade --k3s v1.32.9+k3s1
  fails_with 2 'is nothing to upgrade to' "$K3S_VM" upgrade --k3s none
  run --separate-stderr "$K3S_VM" upgrade --k3s v1.33.1+k3s1
  [ "$status" -eq 0 ] && [[ $stderr == *'has v1.33.1+k3s1 already'* ]]
  end_server
  fails_with 1 'leads to no release that can be had now' "$K3S_VM" upgrade --k3s stable
  [ "$(sha256sum .k3s-vm/vm/state.json)" = "$before" ] && [ ! -e "$XDG_CACHE_HOME/k3s-vm/downloads" ]
}

@test "what a server does not have, and a list of hashes that lies, are errors that say so" {
  run --separate-stderr "$K3S_VM" configure K3S_VERSION=v1.30.0+k3s1
  fails_with 2 'there is no K3s release v1.30.0+k3s1' "$K3S_VM" fetch
  "$K3S_VM" configure K3S_VERSION=
  echo changed >>"$RELEASE/$K3S"
  fails_with 1 'is not what was expected' "$K3S_VM" fetch
  [ ! -e "$XDG_CACHE_HOME/k3s-vm/downloads/k3s/v1.33.5+k3s1/$K3S" ]
}

@test "a disk that fills up while it downloads: an error that mends it, and the next run goes on" {
  skip_unless "mounts of its own (unshare -m, as root)" unshare -m --propagation private true
  head -c 30000000 /dev/urandom >"$RELEASE/$K3S"
  (cd "$RELEASE" && rm "sha256sum-$arch.txt" && sha256sum -- * >sums && mv sums "sha256sum-$arch.txt")
  export K3S_VM
  unshare -m --propagation private bash -euo pipefail -c '
    mkdir -p "$XDG_CACHE_HOME/k3s-vm"
    mount -t tmpfs -o size=24m tmpfs "$XDG_CACHE_HOME/k3s-vm"
    "$K3S_VM" fetch 2>err && exit 1 || [ $? -eq 6 ]
    cat err
    grep -q "no room for k3s" err
    grep -q "mend it: " err
    mount -o remount,size=200m "$XDG_CACHE_HOME/k3s-vm"
    "$K3S_VM" fetch'
}
