# What nixpkgs would give a NixOS: a kernel, an initrd, and a root. Here they come from the Debian guest that this project
# builds, and Kubernetes from a payload's folder; both as debian.json names them.
{
  pkgs,
  lib,
  debian,
}:
let
  given = what: if debian == null then "/homeless-shelter" else debian.${what};
in
{
  # A front like the one of nixpkgs' package; what it starts is in the root below.
  k3s =
    let
      version = if debian == null then "1.35.0+k3s1" else debian.version;
    in
    pkgs.mkDerivation {
      pname = "k3s";
      inherit version;
      buildCommand = ''
        mkdir -p $out/bin
        ln -s /opt/k3s/bin/k3s $out/bin/k3s
      '';
      passthru = {
        inherit version;
        airgap-images = pkgs.runCommand "airgap-images.tar" { } "ln -s /opt/k3s/images/images.tar $out";
      };
    };

  debianGuest = {
    kernel = pkgs.runCommand "linux" { guest = given "guest"; } ''
      mkdir $out
      ln -s $guest/vmlinuz $out/bzImage
    '';

    # What NixOS' systemd does in its initrd, by hand: the store and the root, then init= of the command line.
    initrd =
      store:
      pkgs.runCommand "initrd" {
        guest = given "guest";
        inherit store;
        init = ''
          #!/bin/busybox sh
          /bin/busybox mount -a -T /fstab
          modprobe -q virtio_pci 2>/dev/null
          modprobe -a -q qemu_fw_cfg virtio_net virtio_blk erofs overlay 2>/dev/null
          root= tries=0
          while [ -z "$root" ] && [ $tries -lt 200 ]; do
            for disk in /sys/block/vd*; do
              read -r serial <"$disk/serial"
              [ "$serial" = k3s-vm-root ] && root=/dev/''${disk##*/}
            done
            [ -n "$root" ] || usleep 50000
            tries=$((tries + 1))
          done
          mount -t tmpfs -o mode=755 root /root
          mkdir -p /root/dev /root/proc /root/run /root/sys /root/upper /root/merged /root@store@
          mount -t erofs -o ro "$root" /root@store@
          cp /bin/busybox /root/busybox
          : >/root/init
          for word in $(cat /proc/cmdline); do
            case $word in init=*) init=''${word#init=} ;; esac
          done
          /bin/busybox mount -a -T /fstab.move
          exec /bin/busybox switch_root /root "$init"
        '';
      } ''
        mkdir -p $out tree
        (cd tree && cpio --quiet -idm --no-absolute-filenames <$guest/initrd.img)
        printf '%s\n' "''${init//@store@/$store}" >tree/init
        chmod 755 tree/init
        (cd tree && find . | sort | cpio --quiet -o -H newc -R 0:0) >$out/initrd
      '';

    # The Debian root with this project's units in place of Debian's own, and Kubernetes in it.
    toplevel =
      {
        units,
        images,
      }:
      pkgs.runCommand "nixos-system-stub" {
        guest = given "guest";
        payload = given "payload";
        inherit images;
        unitNames = map (u: u.name) units;
        unitTexts = map (u: u.text) units;
        wants = lib.concatStringsSep "\n" (builtins.concatMap (u: u.wants) units);
        __structuredAttrs = true;
        init = ''
          #!/busybox sh
          system=''${0%/init}
          /busybox mount -t tmpfs -o mode=755 upper /upper
          /busybox mkdir /upper/data /upper/work
          /busybox mount -t overlay -o "lowerdir=$system/root,upperdir=/upper/data,workdir=/upper/work" root /merged
          /busybox mkdir -p "/merged''${system%/*}"
          /busybox mount -o move "''${system%/*}" "/merged''${system%/*}"
          for folder in dev sys run; do /busybox mount -o move /$folder /merged/$folder; done
          /busybox chmod 1777 /merged/tmp
          /busybox chmod 600 /merged/etc/shadow
          /busybox mount -o move /proc /merged/proc
          exec /busybox switch_root /merged /usr/lib/k3s-vm/prepare
        '';
      } ''
        mkdir $out
        root=$out/root
        fsck.erofs --extract=$root $guest/root.img >/dev/null
        chmod -R u+w $root
        rmdir $root/opt/k3s
        unsquashfs -quiet -no-progress -d $root/opt/k3s $payload/payload.img >/dev/null
        ln -s /opt/k3s/bin/* $root/usr/local/bin/
        rm $root/etc/rancher
        folder=$root/etc/systemd/system
        rm -f $folder/agent.service $folder/*/agent.service
        for i in "''${!unitNames[@]}"; do printf '%s' "''${unitTexts[$i]}" >"$folder/''${unitNames[$i]}"; done
        while read -r link unit; do
          [ -n "$link" ] || continue
          mkdir -p "$folder/$link"
          ln -s "../$unit" "$folder/$link/$unit"
        done <<<"$wants"
        mkdir -p $root/usr/lib/tmpfiles.d
        printf '%s\n' "$init" >$out/init
        chmod 755 $out/init
      '';
  };
}
