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
  makeFlags = [ "PREFIX=$(out)" ];

  # Four libraries are loaded when first used, by soname (include/k3s-vm/library.h): no link names them, so their
  # folders are given to the loader here.
  postFixup = ''
    wrapProgram $out/bin/k3s-vm \
      --suffix PATH : ${
        lib.makeBinPath [
          qemu_kvm
          openssh
        ]
      } \
      --prefix LD_LIBRARY_PATH : ${
        lib.makeLibraryPath [
          curl
          libssh
          libarchive
          openssl
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
