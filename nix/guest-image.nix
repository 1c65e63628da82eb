# The folder that k3s-vm boots: kernel, initrd, a read-only image of the store, and guest.json (schema 1; src/domain/guest.c).
{
  lib,
  config,
  closureInfo,
  erofs-utils,
  gnutar,
  runCommand,
}:

let
  inherit (config.system.build) toplevel kernel initialRamdisk;
  k3s = config.services.k3s.package;
  # Only a name in the text. As a reference it would keep the whole store beside the image of it.
  nameOf = builtins.unsafeDiscardStringContext;
  commandLine = nameOf "init=${toplevel}/init ${toString config.boot.kernelParams}";
  guest = {
    schema = 1;
    flavor = "nixos";
    system = config.nixpkgs.hostPlatform.system;
    version = "NixOS ${config.system.nixos.release}, Linux ${config.boot.kernelPackages.kernel.version}";
    boot = {
      kernel = "kernel";
      initrd = "initrd";
      cmdline = commandLine;
    };
    root = {
      image = "store.erofs";
      serial = "k3s-vm-root";
    };
    data = {
      serial = "k3s-vm-data";
      mount = "/var";
    };
    provision = "credentials";
    payload.baked = {
      name = "k3s";
      # As K3s itself writes it.
      version = "v${lib.removePrefix "v" k3s.version}";
    };
    agent = true;
  };
in
# The kernel's command line has room for 2048 bytes, of which the program needs some.
assert lib.assertMsg (builtins.stringLength commandLine <= 1800) "boot.kernelParams are too long for k3s-vm";
runCommand "k3s-vm-guest"
  {
    nativeBuildInputs = [
      erofs-utils
      gnutar
    ];
    # What the image holds is no reference of the folder (Nix 2.16 and later; before, the closure is kept twice).
    __structuredAttrs = true;
    unsafeDiscardReferences.out = true;
    closure = closureInfo { rootPaths = [ toplevel ]; };
    kernelFile = "${kernel}/${config.system.boot.loader.kernelFile}";
    initrdFile = "${initialRamdisk}/initrd";
    guestJson = builtins.toJSON guest;
    inherit commandLine;
  }
  ''
    mkdir -p "$out"
    cp "$kernelFile" "$out/kernel"
    cp "$initrdFile" "$out/initrd"
    printf '%s\n' "$commandLine" >"$out/cmdline"
    # Uncompressed, as it is read at each boot, and the host keeps it in memory once for all VMs. A fixed UUID, time and
    # order make the image the same for the same closure.
    sort -u "$closure/store-paths" >paths
    tar --create --absolute-names --verbatim-files-from --transform='flags=rSh;s|${builtins.storeDir}/||' --files-from=paths |
      mkfs.erofs --quiet --tar=f --force-uid=0 --force-gid=0 -L nix-store -U 6b33732d-766d-4e69-784f-532073746f72 -T 0 \
        --hard-dereference "$out/store.erofs"
    # Last, as whoever finds it takes the folder for complete.
    printf '%s\n' "$guestJson" >"$out/guest.json"
  ''
