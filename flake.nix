{
  description = "k3s-vm: a K3s cluster in a virtual machine of your own, with one command";

  # As a git input, so that the lock file's hash is the one that NixOS itself publishes for this revision.
  inputs.nixpkgs = {
    type = "git";
    url = "https://github.com/NixOS/nixpkgs";
    ref = "nixos-26.05";
    shallow = true;
  };

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAllSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      systemOf = pkgs: pkgs.stdenv.hostPlatform.system;
      package = pkgs: self.packages.${systemOf pkgs}.default;
      app = program: description: {
        type = "app";
        inherit program;
        meta = { inherit description; };
      };
    in
    {
      packages = forAllSystems (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { src = self; };
        # The folder that FLAVOR=nixos boots. Not in `checks`: it takes a whole NixOS.
        guest = self.nixosConfigurations."guest-${systemOf pkgs}".config.system.build.k3sVmGuest;
      });

      apps = forAllSystems (pkgs: {
        default = app "${package pkgs}/bin/k3s-vm" "bring the project's cluster up";
        test-vm = app "${pkgs.callPackage ./nix/test-vm.nix { k3s-vm = package pkgs; }}/bin/k3s-vm-test-vm" "boot the NixOS guest, wait until its node is Ready, and remove it";
      });

      # Everything that scripts/up and scripts/test need.
      devShells = forAllSystems (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { k3s-vm = package pkgs; };
      });

      # Not by callPackage, which would add its own functions to the set.
      checks = forAllSystems (
        pkgs:
        import ./nix/checks.nix {
          inherit pkgs;
          k3s-vm = package pkgs;
        }
      );
      formatter = forAllSystems (pkgs: pkgs.nixfmt);

      overlays.default = final: _prev: {
        k3s-vm = final.callPackage ./nix/package.nix { src = self; };
      };

      nixosModules = {
        # For the host.
        default = import ./nix/host.nix self;
        # For the guest: what .k3s-vm/flake.nix of a project builds upon.
        guest.imports = [ ./nix/guest.nix ];
      };
      homeModules.default = import ./nix/home.nix self;

      nixosConfigurations = lib.listToAttrs (
        map (system: {
          name = "guest-${system}";
          value = lib.nixosSystem {
            modules = [
              self.nixosModules.guest
              { nixpkgs.hostPlatform = system; }
            ];
          };
        }) systems
      );
    };
}
