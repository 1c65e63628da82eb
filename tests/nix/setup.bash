# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# For the tests with nix: a store of their own, and the stub of nixpkgs in place of nixpkgs.

# nix_environment DIR: nix keeps all that it has below DIR, builds as whoever runs it, and fetches nothing.
nix_environment() {
  NIX_TOP=$1
  export NIX_STORE_DIR=$NIX_TOP/store NIX_STATE_DIR=$NIX_TOP/var NIX_LOG_DIR=$NIX_TOP/log NIX_CONF_DIR=$NIX_TOP/etc
  export NIX_REMOTE=local HOME=$NIX_TOP/home
  # Flakes are not switched on: the program does without, and the tests say it where they need it.
  export NIX_CONFIG=$'build-users-group =\nsandbox = false\nsubstitute = false\nflake-registry =\nwarn-dirty = false'
  mkdir -p "$HOME"
  # The tests may run as another user than the one whose clone this is.
  printf '[safe]\n\tdirectory = *\n' >"$HOME/.gitconfig"
}

flake() { nix --extra-experimental-features 'nix-command flakes' "$@"; }

# stub DIR [GUEST PAYLOAD VERSION]: a copy of the stub, which makes its NixOS of these, with `version` for K3s'.
stub() {
  mkdir -p "$1"
  cp -R "$ROOT"/tests/nix/stub/. "$1/"
  [ $# -eq 1 ] || printf '{ "guest": "%s", "payload": "%s", "version": "%s" }\n' "$2" "$3" "$4" >"$1/debian.json"
}

# with_stub STUB COMMAND…: nix COMMAND on this project's flake, as git has it.
with_stub() {
  local stub=$1
  shift
  (cd "$ROOT" && flake "$@" --override-input nixpkgs "path:$stub" --no-write-lock-file)
}

export GUEST=nixosConfigurations.guest-x86_64-linux.config

# evaluates ATTRIBUTE: as JSON, on stdout.
evaluates() { with_stub "$STUB" eval --json ".#$1" 2>"$BATS_TEST_TMPDIR/said" || { cat "$BATS_TEST_TMPDIR/said" >&2; return 1; }; }

# The guest's configuration with a module of the test's own: MODULE ATTRIBUTE.
with_module() {
  nix-instantiate --extra-experimental-features 'nix-command flakes' --eval --strict --json --expr "
    let lib = (import $STUB/flake.nix).outputs { self = null; };
    in (lib.lib.nixosSystem { modules = [ $ROOT/nix/guest.nix { nixpkgs.hostPlatform = \"x86_64-linux\"; } ($1) ]; }).config.$2"
}
