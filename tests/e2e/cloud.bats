#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# The cloud flavor, from a publisher's server to a Ready cluster: an image with a real boot loader, kernel and cloud-init
# (tests/vm/cloud/build), served over HTTPS as cloud.debian.org does. K3S_VM_TEST_K3S=PATH: see cluster.bats.
# The tests build on each other and run in this order.

load ../lib/common

# The image, built once for all runs.
cloud_image() {
  local folder=${K3S_VM_TEST_CACHE:-$HOME/.cache}/k3s-vm-tests key
  key=$(cat "$ROOT/tests/vm/cloud/build" | sha256sum | cut -c1-16)
  CLOUD_IMAGE=$folder/cloud-$key
  [ -e "$CLOUD_IMAGE/SHA512SUMS" ] && return
  mkdir -p "$folder"
  rm -rf "$CLOUD_IMAGE.new"
  "$ROOT/tests/vm/cloud/build" "$CLOUD_IMAGE.new" >"$folder/cloud.log" 2>&1 || { cat "$folder/cloud.log" >&2; return 1; }
  mv "$CLOUD_IMAGE.new" "$CLOUD_IMAGE"
}

setup_file() {
  local ports www
  can_build_image || return 0
  common_project "$BATS_FILE_TMPDIR"
  common_ports
  cloud_image
  # A cache of its own, but for Kubernetes, which takes minutes to build.
  local shared=${K3S_VM_TEST_CACHE:-$HOME/.cache}/k3s-vm
  mkdir -p "$shared/payloads" "$XDG_CACHE_HOME/k3s-vm"
  ln -s "$shared/payloads" "$XDG_CACHE_HOME/k3s-vm/payloads"
  export VM_NAME="k3s-vm-cloud-$$" FLAVOR=cloud IMAGE=debian-12 K3S_VERSION=offline
  if [ -n "${K3S_VM_TEST_K3S:-}" ]; then
    export K3S_VERSION=$K3S_VM_TEST_K3S K3S_AIRGAP_IMAGES=${K3S_VM_TEST_K3S_IMAGES:-} K3S_ARGS=${K3S_VM_TEST_K3S_ARGS:-}
  fi

  SERVED=$BATS_FILE_TMPDIR/server
  www=$SERVED/www/images/cloud/bookworm/latest
  mkdir -p "$www"
  cp --reflink=auto "$CLOUD_IMAGE"/* "$www/"
  mkfifo "$SERVED/in" "$SERVED/out"
  python3 "$ROOT/tests/lib/https_server.py" "$SERVED" <"$SERVED/in" >"$SERVED/out" 3>&- &
  SERVER=$!
  # The server ends when its input does.
  exec {SERVER_INPUT}>"$SERVED/in"
  read -ra ports <"$SERVED/out"
  export SERVED SERVER CURL_CA_BUNDLE=$SERVED/ca.pem MIRROR_IMAGES=https://127.0.0.1:${ports[0]}/static
}

teardown_file() {
  can_build_image || return 0
  "$K3S_VM" --project "$PROJECT" destroy --yes --all >/dev/null 2>&1 || true
  [ -z "${SERVER:-}" ] || kill "$SERVER"
}

# Packages' scripts are run in a chroot.
can_build_image() { [ "$(id -u)" = 0 ] && type mmdebstrap syslinux sfdisk mkfs.fat >/dev/null 2>&1; }

setup() {
  skip_unless "root, mmdebstrap and syslinux" can_build_image
  cd "$PROJECT"
}

guest() { "$K3S_VM" exec -- "$@"; }

@test "an image whose hash is not the published one is refused, and nothing of it is kept" {
  local sums=$SERVED/www/images/cloud/bookworm/latest/SHA512SUMS
  cp "$sums" "$sums.good"
  printf '%0128d  debian-12-genericcloud-amd64.qcow2\n' 0 >"$sums"
  run --separate-stderr "$K3S_VM" setup
  mv "$sums.good" "$sums"
  echo "$output" "$stderr" >&2
  [ "$status" -eq 1 ]
  [[ $stderr == *"is not what was expected: its hash is"* ]]
  [ -z "$(find "$XDG_CACHE_HOME/k3s-vm" -size +1M -not -path '*/payloads/*')" ]
}

@test "one command in an empty project ends with a Ready cluster" {
  run --separate-stderr "$K3S_VM"
  echo "$output" "$stderr" >&2
  [ "$status" -eq 0 ]
  [[ "$output" == *"is Ready"* ]]
  [[ "$("$K3S_VM" kubectl get nodes --no-headers)" == *" Ready "* ]]
  echo "# times: $(jq -c .last_start_ms <<<"$("$K3S_VM" --json status)")" >&3
}

@test "cloud-init is content with what it was given, and did it without an error" {
  run guest cloud-init status --wait --long
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"status: done"* ]]
  [[ "$output" == *"DataSourceNoCloud"* ]]
  run guest cloud-init schema --system
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"Valid"* ]]
  [[ "$output" != *[Dd]eprecat* ]]
  run guest sh -c 'cat /run/cloud-init/result.json; ! grep -E "WARNING|ERROR|Traceback" /var/log/cloud-init.log'
  echo "$output"
  [ "$status" -eq 0 ]
}

@test "the guest is what the configuration says: name, address, disk, host key" {
  [ "$(guest hostname)" = "$VM_NAME" ]
  [[ "$(guest ip -4 -o addr show eth0)" == *" 10.0.2.15/24 "* ]]
  [ "$(guest sh -c 'echo $(($(df -B1G --output=size / | tail -1) + 1))')" -ge 19 ]
  [ "$(guest cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub)" = "$(cut -d' ' -f2 .k3s-vm/vm/ssh_host_key.pub)" ]
  # The distribution's own user can log in, too.
  run ssh -F none -o BatchMode=yes -o UserKnownHostsFile=.k3s-vm/vm/known_hosts -i .k3s-vm/vm/ssh_key -p "$SSH_PORT" \
    debian@127.0.0.1 id -un
  echo "$output"
  [ "$output" = debian ]
}

@test "the image is in the cache once, read-only, and the VM's disk is an overlay on it" {
  local base
  base=$(echo "$XDG_CACHE_HOME"/k3s-vm/guests/cloud-*/disk.img)
  [ "$(stat -c %a "$base")" = 444 ]
  [ "$(qemu-img info -U --output=json .k3s-vm/vm/data.qcow2 | jq -r '."backing-filename"')" = "$base" ]
  [ "$(stat -c %a .k3s-vm/vm/seed.iso)" = 600 ]
  sha512sum -c <<<"$(cut -d' ' -f1 "$SERVED/www/images/cloud/bookworm/latest/SHA512SUMS")  $base"
}

@test "stop suspends by the guest's agent, and start goes on" {
  local boot
  boot=$(guest cat /proc/sys/kernel/random/boot_id)
  [ "$(guest systemctl is-active k3s-vm-agent.service)" = active ]
  "$K3S_VM" stop
  "$K3S_VM" start
  [ "$(guest cat /proc/sys/kernel/random/boot_id)" = "$boot" ]
}

@test "without a way to the publisher the next VM is made from the cache" {
  mkdir -p "$BATS_TEST_TMPDIR/other"
  common_ports
  run --separate-stderr env MIRROR_IMAGES=https://127.0.0.1:1 VM_NAME=k3s-vm-cloud-other "$K3S_VM" \
    --project "$BATS_TEST_TMPDIR/other" setup
  echo "$stderr" >&2
  [ "$status" -eq 0 ]
  [[ $stderr == *"cannot be reached: using the cached image"* ]]
  "$K3S_VM" --project "$BATS_TEST_TMPDIR/other" destroy --yes
}

@test "a setting that the guest reads at its first boot reaches one that was set up before" {
  "$K3S_VM" stop --shutdown
  K3S_ARGS=--node-label=k3s-vm/test=yes DNS=10.0.2.2 "$K3S_VM" start
  [[ "$(guest cat /etc/rancher/k3s/config.yaml)" == *k3s-vm/test=yes* ]]
  [[ "$(guest resolvectl dns eth0)" == *10.0.2.2* ]]
  run guest cloud-init status --wait
  [[ "$output" == *done* ]]
}
