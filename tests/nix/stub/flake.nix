# Stands in for nixpkgs where that cannot be had: what this project's flake uses of it, typed and, as far as it is needed,
# working. Our own; nothing in here is taken from nixpkgs but names and types, whose places options.nix gives.
#
# A test lays files beside this one: debian.json ({ "guest": FOLDER, "payload": FOLDER }, what the stub makes a NixOS of), and
# real-lib/, nixpkgs' own lib, which is used instead of lib.nix where it is there.
{
  description = "a stub of nixpkgs, for the tests of k3s-vm";

  outputs =
    { self }:
    let
      base = if builtins.pathExists ./real-lib then import ./real-lib else import ./lib.nix;
      packagesOf = system: import ./pkgs.nix { inherit system lib; };
      lib = base // {
        nixosSystem =
          {
            modules,
            specialArgs ? { },
          }:
          base.evalModules {
            modules = [
              ./options.nix
              ./system.nix
              (
                { config, ... }:
                {
                  _module.args.pkgs = packagesOf config.nixpkgs.hostPlatform.system;
                }
              )
            ]
            ++ modules;
            specialArgs = {
              modulesPath = ./nixos/modules;
            }
            // specialArgs;
          };
      };
    in
    {
      inherit lib;
      legacyPackages = base.genAttrs [ "x86_64-linux" "aarch64-linux" ] packagesOf;
    };
}
