# The NixOS guest: kernel, systemd, SSH and K3s, and of NixOS nothing else. nix/guest-image.nix packs it.
#
# The contract with k3s-vm (README, "Guests of your own"):
#   * root is in memory, the store a read-only image that all VMs share, and /var the data disk, the only thing that lasts;
#   * host name and machine id come on the kernel's command line, keys and K3s's configuration as systemd credentials
#     through QEMU's fw_cfg;
#   * the guest says on its serial line when the network is up, obeys the power button, and answers on the second serial
#     line (nix/agent).
{
  config,
  lib,
  modulesPath,
  pkgs,
  ...
}:

let
  cfg = config.k3sVm;
  credentials = "/run/credentials/@system";
  stopPods = pkgs.writeShellScript "k3s-vm-stop-pods" ''
    PATH=${
      lib.makeBinPath [
        pkgs.coreutils
        pkgs.findutils
        pkgs.procps
        config.systemd.package
      ]
    }
    [ "$(systemctl is-system-running)" = stopping ] || exit 0
    pods() { find /sys/fs/cgroup/kubepods* /sys/fs/cgroup/k8s.io -name cgroup.procs -exec cat {} + 2>/dev/null; }
    p=$(pods)
    [ -z "$p" ] || kill -TERM $p
    n=20
    while [ $n -gt 0 ] && [ -n "$(pods)" ]; do
      sleep 0.1
      n=$((n - 1))
    done
    p="$(pods) $(pgrep -f [c]ontainerd-shim)"
    [ "$p" = " " ] || kill -KILL $p
  '';
  agent = pkgs.writeText "k3s-vm-agent" (builtins.readFile ./agent);
in
{
  imports = [
    # No documentation, no X, no Perl for its own sake. profiles/qemu-guest.nix is not for this VM, whose drivers are below:
    # it loads those of a screen and of a console, which the VM does not have.
    (modulesPath + "/profiles/minimal.nix")
  ];

  options.k3sVm = {
    airgapImages = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether the images of K3s's own pods (CoreDNS, Traefik, pause and others) are in the guest, so that a cluster comes
        up without a registry. They take some 200 MB of the store image.
      '';
    };

    role = lib.mkOption {
      type = lib.types.enum [
        "server"
        "agent"
      ];
      default = "server";
      description = ''
        What K3s runs as. An agent takes the server's address and the token from the configuration that k3s-vm hands
        over (K3S_ARGS="--server https://... --token-file ...").
      '';
    };

    tmpfsSize = lib.mkOption {
      type = lib.types.str;
      default = "25%";
      example = "512M";
      description = "How much memory the root, which is in memory, may take: a size of tmpfs(5).";
    };

    kernelModules = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "nbd" ];
      description = "Further kernel modules to load at boot.";
    };

    registryCertificates = lib.mkOption {
      type = lib.types.listOf lib.types.path;
      default = [ ];
      example = lib.literalExpression "[ ./nixos/registry-ca.pem ]";
      description = "Certificates, in PEM, of authorities that containerd and everything else in the guest trust.";
    };
  };

  config = {
    # ---- the machine -----------------------------------------------------------------------------------------------
    # k3s-vm hands kernel and initrd to QEMU, so there is nothing to install a boot loader on.
    boot.loader.grub.enable = false;
    # systemd in the initrd mounts the disks by their units, formats and grows the data disk, and takes the credentials.
    boot.initrd.systemd.enable = true;
    # Neither SATA nor USB: udev loads what the disks need. The file systems' own modules come with fileSystems below.
    boot.initrd.includeDefaultModules = false;
    boot.initrd.availableKernelModules = [
      "virtio_pci"
      "virtio_blk"
      # PID 1 loads it before anything else, and reads the credentials, which outlast the initrd.
      "qemu_fw_cfg"
    ];
    # Network card, balloon (free page reporting), entropy and pvpanic have drivers that udev loads. These are what K3s and its
    # network ask the kernel for, before they ask.
    boot.kernelModules = [
      "br_netfilter"
      "overlay"
      "nf_conntrack"
      "vxlan"
    ]
    ++ cfg.kernelModules;
    boot.kernelParams = [
      "console=ttyS0"
      # The serial line is for what goes wrong: each character costs an exit to QEMU.
      "quiet"
      "systemd.show_status=error"
      # Without KVM the TSCs count the same host clock and can be trusted; with it, kvm-clock is used anyway.
      "tsc=reliable"
      # Tests of the cryptographic code at each boot, and an audit log that nobody reads.
      "cryptomgr.notests"
      "audit=0"
      # A kernel that has oopsed is not one to run a cluster on. k3s-vm hears of the panic and restarts the VM.
      "oops=panic"
      "panic=1"
    ];
    boot.kernel.sysctl = {
      "net.ipv4.ip_forward" = 1;
      "net.bridge.bridge-nf-call-iptables" = 1;
      "vm.overcommit_memory" = 1;
    };

    # ---- disks -----------------------------------------------------------------------------------------------------
    # All three are mounted in the initrd, as NixOS does with what lies at these places.
    fileSystems = {
      "/" = {
        device = "tmpfs";
        fsType = "tmpfs";
        options = [
          "mode=0755"
          "size=${cfg.tmpfsSize}"
        ];
      };
      # By the drive's serial: a blank disk has no label.
      ${builtins.storeDir} = {
        device = "/dev/disk/by-id/virtio-k3s-vm-root";
        fsType = "erofs";
        # As NixOS wants the store mounted; without one of these it mounts it a second time, over this.
        options = [
          "ro"
          "nodev"
          "nosuid"
        ];
        # Nobody writes to it.
        noCheck = true;
      };
      "/var" = {
        device = "/dev/disk/by-id/virtio-k3s-vm-data";
        fsType = "ext4";
        options = [ "noatime" ];
        autoFormat = true;
        autoResize = true;
      };
    };

    # ---- network and names -----------------------------------------------------------------------------------------
    # An empty name leaves it to the kernel's command line (systemd.hostname=).
    networking.hostName = "";
    networking.useNetworkd = true;
    networking.useDHCP = false;
    networking.usePredictableInterfaceNames = false;
    # Only QEMU's card, not what CNI plugins make. The address is always the same on QEMU's user-mode network.
    systemd.network.networks."10-k3s-vm" = {
      matchConfig.Driver = "virtio_net";
      address = [ "10.0.2.15/24" ];
      gateway = [ "10.0.2.2" ];
      networkConfig = {
        DHCP = "no";
        # Router advertisements would give a route that leads nowhere on a host without IPv6.
        IPv6AcceptRA = false;
      };
    };
    # k3s.service waits for network-online.target, as it needs the default route.
    systemd.network.wait-online.anyInterface = true;
    # Nothing reaches the guest but through the host's forwards, which are bound to 127.0.0.1: a firewall here would only
    # stand in the way of NodePorts, CNI and `k3s-vm ports`.
    networking.firewall.enable = lib.mkDefault false;
    # /etc/resolv.conf is one line that never changes (k3s-vm-guest.service).
    services.resolved.enable = false;
    networking.resolvconf.enable = false;

    # ---- the way in ------------------------------------------------------------------------------------------------
    services.openssh = {
      enable = true;
      # Made on the host, so that it is known before the first connection. It is there, so none is generated.
      hostKeys = [
        {
          type = "ed25519";
          path = "${credentials}/ssh.host_key";
        }
      ];
      # Beside NixOS' own places, so that users.users.root.openssh.authorizedKeys of a user's module counts.
      authorizedKeysFiles = [ "${credentials}/ssh.authorized_keys.root" ];
      settings = {
        PasswordAuthentication = false;
        KbdInteractiveAuthentication = false;
      };
      # The program opens many connections at once, all from one address, and looks whether the guest is up by connecting
      # and leaving. A VM that was suspended for a week comes back to the same connections.
      extraConfig = ''
        SetEnv KUBECONFIG=/etc/rancher/k3s/k3s.yaml
        MaxStartups 200
        MaxSessions 200
        PerSourcePenalties no
        TCPKeepAlive no
      '';
    };
    # Root has no password, and a key only by the credential, of which NixOS cannot know.
    users.mutableUsers = false;
    users.allowNoPasswordLogin = true;

    # ---- K3s -------------------------------------------------------------------------------------------------------
    # Its configuration is /etc/rancher/k3s/config.yaml, which k3s-vm hands over at each start; a single server needs no
    # token, and none may get into the store, which everybody can read.
    services.k3s = {
      enable = true;
      role = cfg.role;
      # Where K3s looks anyway; NixOS wants an agent to say where its server is.
      configPath = lib.mkIf (cfg.role == "agent") (lib.mkDefault "/etc/rancher/k3s/config.yaml");
      images = lib.mkIf cfg.airgapImages [ config.services.k3s.package.airgap-images ];
    };
    security.pki.certificateFiles = cfg.registryCertificates;

    # ---- what k3s-vm expects of a guest ----------------------------------------------------------------------------
    systemd.services = {
      # What is different at each start: the configuration of K3s, the name server; and the folder of the node's password,
      # without which the node is refused after a boot.
      k3s-vm-guest = {
        description = "What k3s-vm hands over";
        wantedBy = [ "multi-user.target" ];
        requiredBy = [ "k3s.service" ];
        before = [ "k3s.service" ];
        unitConfig.RequiresMountsFor = "/var";
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = ''
          # Only this folder, as users put files of theirs beside it (environment.etc).
          mkdir -p /etc/rancher/k3s /var/lib/rancher/etc/node
          ln -sfnT /var/lib/rancher/etc/node /etc/rancher/node
          nameserver=10.0.2.3
          for word in $(cat /proc/cmdline); do
            case $word in k3s-vm.dns=*) nameserver=''${word#*=} ;; esac
          done
          echo "nameserver $nameserver" >/etc/resolv.conf
          # It may hold a token.
          umask 077
          if [ -e ${credentials}/k3s.config ]; then
            cat ${credentials}/k3s.config >/etc/rancher/k3s/config.yaml.new
            mv /etc/rancher/k3s/config.yaml.new /etc/rancher/k3s/config.yaml
          fi
        '';
      };

      # Until it is said, k3s-vm makes no connection: those that nobody answers keep QEMU's network code busy.
      k3s-vm-network = {
        description = "Tell k3s-vm that the network is up";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [ "network-online.target" ];
        serviceConfig.Type = "oneshot";
        serviceConfig.RemainAfterExit = true;
        script = "echo 'k3s-vm: the network is up' >/dev/ttyS0";
      };

      # The other end of the second serial line: has the disks written out before the VM is suspended, and the clock set
      # when it goes on. It starts early and holds on, so that a busy cluster cannot keep it out.
      k3s-vm-agent = {
        description = "Requests of k3s-vm on the second serial line";
        wantedBy = [ "multi-user.target" ];
        serviceConfig = {
          ExecStart = "${pkgs.bash}/bin/bash ${agent}";
          Restart = "always";
          RestartSec = 1;
          Nice = -10;
          OOMScoreAdjust = -900;
        };
      };
      # Of K3s's processes systemd ends only the main one, so that pods go on while K3s is restarted. When the whole machine
      # goes down nobody else would end the pods, and systemd would wait for them: two seconds for an orderly end, then for
      # good.
      k3s.serviceConfig.ExecStopPost = "-${stopPods}";

      # Prompts for a login, on the kernel's console and on a screen, which the VM does not have: NixOS starts the latter by
      # this name.
      "serial-getty@ttyS0".enable = false;
      "autovt@tty1".enable = false;
    };
    # A host that is busy, without KVM, is slow beyond what the defaults allow for.
    systemd.settings.Manager = {
      DefaultTimeoutStartSec = "300s";
      DefaultTimeoutStopSec = "20s";
    };
    services.journald.extraConfig = ''
      SystemMaxUse=200M
      RateLimitIntervalSec=0
    '';

    # ---- what is left out ------------------------------------------------------------------------------------------
    # A new guest is built on the host; nothing is built, installed or switched to in here.
    nix.enable = false;
    system.switch.enable = false;
    boot.bcache.enable = false;
    boot.initrd.systemd.tpm2.enable = false;
    fonts.fontconfig.enable = false;
    programs.nano.enable = false;
    security.sudo.enable = false;
    services.lvm.enable = false;
    systemd.coredump.enable = false;
    systemd.oomd.enable = false;
    # A screen, which the VM does not have.
    console.enable = false;

    system.stateVersion = lib.mkDefault config.system.nixos.release;
    # system.build is where NixOS keeps what is made of a configuration.
    system.build.k3sVmGuest = pkgs.callPackage ./guest-image.nix { inherit config; };
  };
}
