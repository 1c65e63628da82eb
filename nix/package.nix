# The program. `make` does the work; Nix wraps it, so that qemu and ssh are found.
{
  lib,
  stdenv,
  src,
  pkg-config,
  makeWrapper,
  curl,
  libarchive,
  cjson,
  libssh,
  libseccomp,
  libyaml,
  openssl,
  qemu_kvm,
  openssh,
}:

stdenv.mkDerivation {
  pname = "k3s-vm";
  version = "0.1.0";
  inherit src;

  nativeBuildInputs = [
    pkg-config
    makeWrapper
  ];
  buildInputs = [
    curl
    libarchive
    cjson
    libssh
    libseccomp
    libyaml
    openssl
  ];

  enableParallelBuilding = true;
  # Four libraries are loaded when first used (include/k3s-vm/library.h). No link names them, so the build does.
  makeFlags = [
    "PREFIX=${placeholder "out"}"
    "LIBCURL=${lib.getLib curl}/lib/libcurl.so.4"
    "LIBSSH=${lib.getLib libssh}/lib/libssh.so.4"
    "LIBARCHIVE=${lib.getLib libarchive}/lib/libarchive.so.13"
    "LIBCRYPTO=${lib.getLib openssl}/lib/libcrypto.so.3"
  ];

  # After what the user has: a QEMU of theirs wins.
  postFixup = ''
    wrapProgram $out/bin/k3s-vm --suffix PATH : ${
      lib.makeBinPath [
        qemu_kvm
        openssh
      ]
    }
  '';

  meta = {
    description = "A K3s cluster in a virtual machine of your own, with one command";
    license = lib.licenses.mit;
    mainProgram = "k3s-vm";
    platforms = lib.platforms.linux;
  };
}
