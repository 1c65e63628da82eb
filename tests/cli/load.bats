# SPDX-License-Identifier: MIT
# load without a cluster: what is wrong is said before anything is sent. The way into containerd is tested with a real
# sshd in tests/unit/container_image_test.c, and in tests/e2e.
load ../lib/common

setup() {
  setup_project
}

teardown() {
  end_fake_qemu
}

@test "load needs files, a VM, and one that runs" {
  fails_with 2 'wants files' "$K3S_VM" load
  fails_with 2 'takes no file' "$K3S_VM" load --list image.tar
  fails_with 3 'k3s-vm' "$K3S_VM" load image.tar
  fake_vm
  fails_with 4 'k3s-vm start' "$K3S_VM" load image.tar
  fails_with 4 'k3s-vm start' "$K3S_VM" load --list
}

@test "load says what is no image, or only half of one" {
  fake_vm
  fake_qemu
  fails_with 1 'missing.tar' "$K3S_VM" load missing.tar
  echo "no archive" >text.tar
  fails_with 1 'text.tar' "$K3S_VM" load text.tar
  tar -cf other.tar text.tar
  fails_with 1 'is no container image' "$K3S_VM" load other.tar
  mkdir folder
  fails_with 1 'no oci-layout' "$K3S_VM" load folder
  head -c 3000000 /dev/urandom >layer
  echo '[{"Config":"x","RepoTags":["shop:1"],"Layers":["layer"]}]' >manifest.json
  tar -czf image.tar.gz manifest.json layer
  truncate -s 1000000 image.tar.gz
  fails_with 1 'cannot be read to its end' "$K3S_VM" load image.tar.gz
}
