# The options that the guest and the host use, with their types. Each group names the file of nixpkgs that has them.
{ lib, pkgs, ... }:
let
  inherit (lib) types mkOption;
  option = type: default: mkOption { inherit type default; };
  required = type: mkOption { inherit type; };
  bool = option types.bool;
  str = option types.str;
  strings = option (types.listOf types.str) [ ];
  lines = option types.lines "";
  # systemd.unit values (nixos/lib/systemd-lib.nix, unitOption): one value or a list of them.
  unitValues =
    let
      one = types.oneOf [
        types.bool
        types.int
        types.path
        types.package
        types.str
      ];
    in
    option (types.attrsOf (types.either one (types.listOf one))) { };
in
{
  options = {
    # nixos/modules/misc/nixpkgs.nix: a string becomes a platform, with `system`.
    nixpkgs.hostPlatform = mkOption {
      type = types.either types.str types.attrs;
      apply = system: if builtins.isString system then { inherit system; } else system;
    };
    # nixos/modules/misc/version.nix
    system.stateVersion = str "26.05";
    system.nixos.release = str "26.05";
    # nixos/modules/system/build.nix
    system.build = option (types.lazyAttrsOf types.unspecified) { };
    # nixos/modules/system/activation/switchable-system.nix
    system.switch.enable = bool true;
    # nixos/modules/system/activation/top-level.nix
    system.boot.loader.kernelFile = str "bzImage";

    # nixos/modules/system/boot/loader/grub/grub.nix
    boot.loader.grub.enable = bool true;
    # nixos/modules/system/boot/systemd/initrd.nix
    boot.initrd.systemd.enable = bool true;
    # nixos/modules/system/boot/systemd/tpm2.nix
    boot.initrd.systemd.tpm2.enable = bool true;
    # nixos/modules/tasks/bcache.nix
    boot.bcache.enable = bool true;
    # nixos/modules/system/boot/kernel.nix
    boot.initrd.includeDefaultModules = bool true;
    # Of modules, sets of booleans are good, too.
    boot.initrd.availableKernelModules = strings;
    boot.initrd.kernelModules = strings;
    boot.kernelModules = strings;
    boot.kernelParams = option (types.listOf (types.strMatching "([^\"[:space:]]|\"[^\"]*\")+")) [ ];
    boot.consoleLogLevel = option types.int 4;
    boot.kernelPackages = option types.raw { kernel.version = "6.12.0"; };
    # nixos/modules/config/sysctl.nix
    boot.kernel.sysctl = option (types.attrsOf (
      types.nullOr (
        types.oneOf [
          types.bool
          types.int
          types.str
        ]
      )
    )) { };
    # nixos/modules/virtualisation/nixos-containers.nix
    boot.enableContainers = bool false;

    # nixos/modules/tasks/filesystems.nix
    fileSystems = option (types.attrsOf (
      types.submodule {
        options = {
          device = option (types.nullOr types.nonEmptyStr) null;
          fsType = required types.nonEmptyStr;
          options = option (types.listOf types.nonEmptyStr) [ "defaults" ];
          autoFormat = bool false;
          autoResize = bool false;
          noCheck = bool false;
          # nixos/modules/system/boot/stage-1.nix
          neededForBoot = bool false;
        };
      }
    )) { };

    # nixos/modules/tasks/network-interfaces.nix
    networking.hostName = option (types.strMatching "^$|^[[:alnum:]]([[:alnum:]_-]{0,61}[[:alnum:]])?$") "nixos";
    networking.useNetworkd = bool false;
    networking.useDHCP = bool true;
    # nixos/modules/services/hardware/udev.nix
    networking.usePredictableInterfaceNames = bool true;
    # nixos/modules/services/networking/firewall.nix
    networking.firewall.enable = bool true;
    # nixos/modules/config/resolvconf.nix
    networking.resolvconf.enable = bool true;
    # nixos/modules/system/boot/networkd.nix
    systemd.network.networks = option (types.attrsOf (
      types.submodule {
        options = {
          matchConfig = unitValues;
          networkConfig = unitValues;
          linkConfig = unitValues;
          address = strings;
          gateway = strings;
          dns = strings;
        };
      }
    )) { };
    systemd.network.wait-online.anyInterface = bool false;
    # nixos/modules/system/boot/resolved.nix
    services.resolved.enable = bool false;
    # nixos/modules/system/boot/timesyncd.nix
    services.timesyncd.enable = bool true;

    # nixos/modules/services/networking/ssh/sshd.nix
    services.openssh = {
      enable = bool false;
      hostKeys = option (types.listOf types.attrs) [ ];
      authorizedKeysFiles = strings;
      settings = option (types.attrsOf (
        types.nullOr (
          types.oneOf [
            types.bool
            types.int
            types.str
            (types.listOf types.str)
          ]
        )
      )) { };
      extraConfig = lines;
    };
    # nixos/modules/config/users-groups.nix
    users.mutableUsers = bool true;
    users.allowNoPasswordLogin = bool false;
    users.groups = option (types.attrsOf (types.submodule { options.members = strings; })) { };

    # nixos/modules/services/cluster/rancher/default.nix and k3s.nix
    services.k3s = {
      enable = bool false;
      package = option types.package pkgs.k3s;
      role = option (types.enum [
        "server"
        "agent"
      ]) "server";
      serverAddr = str "";
      token = str "";
      tokenFile = option (types.nullOr types.path) null;
      agentToken = str "";
      agentTokenFile = option (types.nullOr types.path) null;
      environmentFile = option (types.nullOr types.path) null;
      configPath = option (types.nullOr types.path) null;
      clusterInit = bool false;
      disableAgent = bool false;
      disable = strings;
      nodeLabel = strings;
      nodeTaint = strings;
      nodeName = option (types.nullOr types.str) null;
      nodeIP = option (types.nullOr types.str) null;
      nodeExternalIP = option (types.nullOr types.str) null;
      selinux = bool false;
      extraFlags = option (types.either types.str (types.listOf types.str)) [ ];
      images = option (types.listOf types.package) [ ];
      manifests = option (types.attrsOf (
        types.submodule {
          options = {
            enable = bool true;
            # From the name and the content, unless they are given.
            target = option types.nonEmptyStr "manifest.yaml";
            content = option (types.nullOr (types.either types.attrs (types.listOf types.attrs))) null;
            source = option types.path "/content";
          };
        }
      )) { };
      autoDeployCharts = option (types.attrsOf types.attrs) { };
      charts = option (types.attrsOf (types.either types.path types.package)) { };
      containerdConfigTemplate = option (types.nullOr types.str) null;
      gracefulNodeShutdown.enable = bool false;
      gracefulNodeShutdown.shutdownGracePeriod = option types.nonEmptyStr "30s";
      gracefulNodeShutdown.shutdownGracePeriodCriticalPods = option types.nonEmptyStr "10s";
      extraKubeletConfig = option (types.attrsOf types.anything) { };
      extraKubeProxyConfig = option (types.attrsOf types.anything) { };
    };
    # nixos/modules/security/ca.nix
    security.pki.certificateFiles = option (types.listOf types.path) [ ];
    # nixos/modules/security/sudo.nix
    security.sudo.enable = bool true;

    # nixos/modules/system/boot/systemd.nix and nixos/lib/systemd-unit-options.nix
    systemd.services = option (types.attrsOf (
      types.submodule {
        options = {
          enable = bool true;
          description = str "";
          wantedBy = strings;
          requiredBy = strings;
          wants = strings;
          after = strings;
          before = strings;
          path = option (types.listOf (types.either types.package types.str)) [ ];
          script = lines;
          unitConfig = unitValues;
          serviceConfig = unitValues;
        };
      }
    )) { };
    systemd.package = option types.package pkgs.systemd;
    systemd.settings.Manager = unitValues;
    # nixos/modules/system/boot/systemd/user.nix
    systemd.user.services = option (types.attrsOf (
      types.submodule {
        options = {
          description = str "";
          wantedBy = strings;
          unitConfig = unitValues;
          serviceConfig = unitValues;
        };
      }
    )) { };
    # nixos/modules/system/boot/systemd/journald.nix
    services.journald.extraConfig = lines;
    # nixos/modules/system/boot/systemd/coredump.nix, oomd.nix
    systemd.coredump.enable = bool true;
    systemd.oomd.enable = bool true;

    # nixos/modules/services/system/nix-daemon.nix
    nix.enable = bool true;
    # nixos/modules/config/system-path.nix
    environment.systemPackages = option (types.listOf types.package) [ ];
    environment.defaultPackages = option (types.listOf types.package) [ ];
    # nixos/modules/config/stub-ld.nix
    environment.stub-ld.enable = bool true;
    # nixos/modules/config/fonts/fontconfig.nix
    fonts.fontconfig.enable = bool true;
    # nixos/modules/programs/nano.nix
    programs.nano.enable = bool true;
    # nixos/modules/programs/command-not-found/command-not-found.nix
    programs.command-not-found.enable = bool true;
    # nixos/modules/tasks/lvm.nix
    services.lvm.enable = bool true;
    # nixos/modules/config/console.nix
    console.enable = bool true;
  };
}
