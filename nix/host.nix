# The host: the program, /dev/kvm for the named users, and a VM that starts when its user logs in.
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

    users = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may use /dev/kvm; they become members of the group kvm.";
    };

    autostart = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "/home/alice/shop" ];
      description = ''
        Projects whose VM starts when their owner logs in, and is shut down when they have logged out everywhere.
        `k3s-vm autostart on` does the same for one project, without a rebuild of the system.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    # udev loads the module that /dev/kvm needs. Named in boot.kernelModules, the one of the other make of processor would
    # fail, and systemd-modules-load.service with it.
    users.groups.kvm.members = cfg.users;
    systemd.user.services = lib.listToAttrs (
      map (project: {
        name = "k3s-vm-${builtins.replaceStrings [ "/" ] [ "-" ] (lib.removePrefix "/" project)}";
        value = import ./unit.nix {
          inherit project;
          program = "${cfg.package}/bin/k3s-vm";
        };
      }) cfg.autostart
    );
  };
}
