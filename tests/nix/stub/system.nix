# What NixOS makes of the configuration, as far as a stub can: unit files of this project's services, K3s's own (as
# nixos/modules/services/cluster/rancher/default.nix writes it), and the system around them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.k3s;
  ours = lib.filterAttrs (
    name: service: service.enable && (lib.hasPrefix "k3s-vm-" name || name == "k3s")
  ) config.systemd.services;

  # nixos/lib/systemd-lib.nix has these and more in the PATH of every service.
  defaultPath = [
    pkgs.coreutils
    pkgs.findutils
    pkgs.systemd
  ];
  list = name: values: lib.optional (values != [ ]) "${name}=${toString values}";
  settings =
    set:
    builtins.concatLists (
      lib.mapAttrsToList (
        name: value: map (v: "${name}=${if v == true then "yes" else toString v}") (if builtins.isList value then value else [ value ])
      ) set
    );
  text =
    name: service:
    lib.concatStringsSep "\n" (
      [
        "[Unit]"
        "Description=${service.description}"
      ]
      ++ list "After" service.after
      ++ list "Before" service.before
      ++ list "Wants" service.wants
      ++ settings service.unitConfig
      ++ [
        ""
        "[Service]"
        "Environment=PATH=${lib.makeBinPath (service.path ++ defaultPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
      ]
      ++ settings service.serviceConfig
      ++ lib.optional (service.script != "") "ExecStart=${pkgs.writeShellScript "unit-script-${name}" "set -e\n${service.script}"}"
      ++ [ "" ]
    );
  units = lib.mapAttrsToList (name: service: {
    name = "${name}.service";
    text = text name service;
    wants =
      map (target: "${target}.wants ${name}.service") service.wantedBy
      ++ map (target: "${target}.requires ${name}.service") service.requiredBy;
  }) ours;
in
{
  config = {
    systemd.services.k3s = lib.mkIf cfg.enable {
      description = "k3s service";
      after = [ "firewall.service" "network-online.target" ];
      wants = [ "firewall.service" "network-online.target" ];
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = if cfg.role == "agent" then "exec" else "notify";
        KillMode = "process";
        Delegate = "yes";
        Restart = "always";
        RestartSec = "5s";
        LimitNOFILE = 1048576;
        LimitNPROC = "infinity";
        LimitCORE = "infinity";
        TasksMax = "infinity";
        TimeoutStartSec = 0;
        ExecStart = "${cfg.package}/bin/k3s ${cfg.role} ${toString cfg.extraFlags}";
        # systemd-tmpfiles does it there.
        ExecStartPre = map (
          image: "/bin/ln -sfn ${image} /var/lib/rancher/k3s/agent/images/${image.name}"
        ) cfg.images;
      };
    };
    system.build = {
      kernel = pkgs.debianGuest.kernel;
      initialRamdisk = pkgs.debianGuest.initrd builtins.storeDir;
      toplevel =
        if config.boot.loader.grub.enable then
          throw "there is no disk for a boot loader"
        else
          pkgs.debianGuest.toplevel {
            inherit units;
            images = cfg.images;
          };
    };
  };
}
