# `nix run .#test-vm`: the NixOS guest alone, from an empty project to a Ready node and a pod, then nothing is left.
{
  writeShellScriptBin,
  k3s-vm,
}:

writeShellScriptBin "k3s-vm-test-vm" ''
  set -eu
  folder=$(mktemp -d)
  export XDG_STATE_HOME=$folder/state VM_NAME=k3s-vm-test-vm FLAVOR=nixos
  export API_PORT=''${API_PORT:-26443} SSH_PORT=''${SSH_PORT:-26022} WEB_PORT=''${WEB_PORT:-26080}
  program="${k3s-vm}/bin/k3s-vm --project $folder"
  trap '$program destroy --yes --all || true; rm -rf "$folder"' EXIT
  $program
  $program kubectl get nodes -o wide
  # Off and on again: the cluster is on the data disk.
  $program restart
  $program kubectl get nodes
  # What failed is worth more than that something did.
  $program exec -- systemctl is-system-running --wait || {
    $program exec -- systemctl --failed --no-pager
    exit 1
  }
  $program exec -- systemd-analyze
  echo "k3s-vm: the NixOS guest works"
''
