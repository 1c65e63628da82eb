# What FLAVOR=nixos builds: the guest, and configuration.nix of the project if there is one. k3s-vm puts both into one folder.
{
  inputs.nixpkgs = {
    type = "git";
    url = "https://github.com/NixOS/nixpkgs";
    ref = "nixos-26.05";
    shallow = true;
  };
  outputs =
    { nixpkgs, ... }:
    {
      packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: {
        guest =
          (nixpkgs.lib.nixosSystem {
            modules = [
              ./guest.nix
              { nixpkgs.hostPlatform = system; }
            ]
            ++ nixpkgs.lib.optional (builtins.pathExists ./configuration.nix) ./configuration.nix;
          }).config.system.build.k3sVmGuest;
      });
    };
}
