# What `nix flake check` runs: the build, the unit tests, clang-tidy and the format.
{ pkgs, k3s-vm }:

let
  # The sources and libraries of the program, and another thing to do with them.
  check =
    name: inputs: command:
    k3s-vm.overrideAttrs (old: {
      name = "k3s-vm-${name}";
      nativeBuildInputs = old.nativeBuildInputs ++ inputs;
      buildPhase = ''
        runHook preBuild
        ${command}
        runHook postBuild
      '';
      installPhase = "touch $out";
      postFixup = "";
    });
in
{
  build = k3s-vm;
  # Those that need programs or rights which a build does not have skip themselves.
  unit = check "unit" [
    pkgs.cmocka
    pkgs.openssh
    pkgs.python3
  ] "make $makeFlags -j$NIX_BUILD_CORES unit";
  # Its own checks of the compiler's kind; style is clang-format's.
  tidy = check "tidy" [ pkgs.clang-tools ] ''
    clang-tidy --quiet --checks='-*,clang-diagnostic-*,bugprone-use-after-move,bugprone-sizeof-expression' \
      $(find src -name '*.c') -- -std=c17 -D_GNU_SOURCE -DK3S_VM_VERSION='"check"' -Iinclude \
      $(pkg-config --cflags libcjson yaml-0.1 libseccomp libcurl libssh libarchive libcrypto)
  '';
  format = check "format" [ pkgs.clang-tools ] "clang-format --dry-run -Werror $(find src include tests -name '*.[ch]')";
}
