# The same for home-manager: the program for one user, who is in the group kvm already, and their VMs.
self:
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.programs.k3s-vm;
in
{
  options.programs.k3s-vm = {
    enable = lib.mkEnableOption "k3s-vm, a K3s cluster in a virtual machine of your own";

    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "k3s-vm.packages.\${system}.default";
      description = "The k3s-vm to install.";
    };

    autostart = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/home/alice/shop" ];
      description = "Projects whose VM starts at login and is shut down at logout.";
    };
  };

  config = lib.mkIf cfg.enable {
    home.packages = [ cfg.package ];
    systemd.user.services = lib.listToAttrs (
      map (
        project:
        let
          unit = import ./unit.nix {
            inherit project;
            program = "${cfg.package}/bin/k3s-vm";
          };
        in
        {
          name = "k3s-vm-${builtins.replaceStrings [ "/" ] [ "-" ] (lib.removePrefix "/" project)}";
          # home-manager writes units by the names of their sections.
          value = {
            Unit = unit.unitConfig // {
              Description = unit.description;
            };
            Service = unit.serviceConfig;
            Install.WantedBy = unit.wantedBy;
          };
        }
      ) cfg.autostart
    );
  };
}
