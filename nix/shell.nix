# What scripts/up and scripts/test need.
{
  lib,
  mkShell,
  k3s-vm,
  qemu_kvm,
  openssh,
  cmocka,
  bats,
  jq,
  curl,
  python3,
  openssl,
  shellcheck,
  clang-tools,
  libarchive,
  libssh,
  erofs-utils,
  squashfsTools,
  cpio,
  zstd,
  zsh,
  fish,
}:

mkShell {
  inputsFrom = [ k3s-vm ];
  packages = [
    qemu_kvm
    openssh
    cmocka
    bats
    jq
    curl
    python3
    openssl
    shellcheck
    clang-tools
    libarchive
    erofs-utils
    squashfsTools
    cpio
    zstd
    zsh
    fish
  ];
  # The libraries that are loaded when first used.
  shellHook = ''
    export LD_LIBRARY_PATH=${
      lib.makeLibraryPath [
        curl
        libssh
        libarchive
        openssl
      ]
    }''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  '';
}
