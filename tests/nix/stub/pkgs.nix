# Packages: those that are run or linked are links to the host's own files, the rest are names.
{ system, lib }:
let
  debian = if builtins.pathExists ./debian.json then builtins.fromJSON (builtins.readFile ./debian.json) else null;

  mkDerivation =
    attrs:
    derivation (
      {
        inherit system;
        name = "${attrs.pname or "unnamed"}-${attrs.version or "0"}";
        builder = "/bin/bash";
        args = [ ./setup.sh ];
      }
      // removeAttrs attrs [
        "meta"
        "passthru"
      ]
    )
    // {
      meta = attrs.meta or { };
      overrideAttrs = f: mkDerivation (attrs // f attrs);
    }
    // attrs.passthru or { };
  runCommand =
    name: attrs: buildCommand:
    mkDerivation (attrs // { inherit name buildCommand; });

  # A package of links to the host's programs and libraries.
  links =
    name: bins: libs:
    runCommand name { inherit bins libs; } ''
      mkdir -p $out/bin $out/lib
      for b in $bins; do ln -s "$(type -P $b)" $out/bin/$b; done
      for l in $libs; do ln -s "$(ldconfig -p | sed -n "s|^\s*$l .* => ||p" | head -n 1)" $out/lib/$l; done
    '';

  pkgs = {
    inherit lib system mkDerivation runCommand;
    inherit (debianPackages) k3s debianGuest;
    callPackage = lib.callPackageWith pkgs;
    stdenv = {
      inherit mkDerivation;
      hostPlatform.system = system;
    };
    mkShell =
      {
        inputsFrom ? [ ],
        packages ? [ ],
        shellHook ? "",
      }:
      runCommand "shell" {
        inherit inputsFrom packages shellHook;
      } "mkdir $out";
    writeText = name: text: runCommand name { inherit text; } ''printf '%s' "$text" >$out'';
    writeShellScript = name: text: runCommand name { text = "#!/bin/bash\n${text}"; } ''
      printf '%s\n' "$text" >$out
      chmod +x $out
    '';
    writeShellScriptBin = name: text: runCommand name { text = "#!/bin/bash\n${text}"; } ''
      mkdir -p $out/bin
      printf '%s\n' "$text" >$out/bin/${name}
      chmod +x $out/bin/${name}
    '';
    # pkgs/build-support/closure-info.nix: its store-paths.
    closureInfo =
      { rootPaths }:
      runCommand "closure-info" {
        exportReferencesGraph = builtins.concatLists (
          builtins.genList (i: [
            "graph-${toString i}"
            (builtins.elemAt rootPaths i)
          ]) (builtins.length rootPaths)
        );
      } ''
        mkdir $out
        cat graph-* | grep "^$NIX_STORE/" | sort -u >$out/store-paths
      '';
    makeWrapper = runCommand "make-wrapper" { } ''
      mkdir -p $out/nix-support
      cat >$out/nix-support/setup-hook <<'EOF'
      # wrapProgram PROGRAM --suffix PATH : VALUE
      wrapProgram() {
        local hidden=''${1%/*}/.''${1##*/}-wrapped
        mv "$1" "$hidden"
        printf '#!/bin/bash\nexport PATH="$PATH:%s"\nexec -a "$0" "%s" "$@"\n' "$5" "$hidden" >"$1"
        chmod +x "$1"
      }
      EOF
    '';
    # As 1.7 and later do it; the host's may be older and know no --tar.
    erofs-utils = runCommand "erofs-utils" { } ''
      mkdir -p $out/bin
      cat >$out/bin/mkfs.erofs <<'EOF'
      #!/bin/bash
      set -eu
      known='^(--quiet|--tar=f|--force-uid=0|--force-gid=0|--hard-dereference)$'
      while [ $# -gt 1 ]; do
        case $1 in
          -U) uuid=$2; shift ;;
          -L | -T) shift ;;
          *) [[ $1 =~ $known ]] || { echo "no such option: $1" >&2; exit 1; } ;;
        esac
        shift
      done
      folder=$(mktemp -d)
      tar -x -C "$folder" -f -
      /usr/bin/env -u PATH /usr/bin/mkfs.erofs --quiet --all-root -U "$uuid" -T0 -x-1 -Enoinline_data "$1" "$folder"
      chmod -R u+w "$folder"
      rm -rf "$folder"
      EOF
      chmod +x $out/bin/mkfs.erofs
    '';
    bash = links "bash" [ "bash" ] [ ];
    coreutils = links "coreutils" [ "cat" "date" "ln" "mkdir" "mv" "sleep" "stty" "sync" ] [ ];
    findutils = links "findutils" [ "find" ] [ ];
    procps = links "procps" [ "pgrep" ] [ ];
    gnutar = links "gnutar" [ "tar" ] [ ];
    systemd = links "systemd" [ "systemctl" ] [ ];
    xz = links "xz" [ "xz" ] [ ];
    pkg-config = links "pkg-config" [ "pkg-config" ] [ ];
    qemu_kvm = links "qemu" [ "qemu-system-x86_64" "qemu-img" ] [ ];
    openssh = links "openssh" [ "ssh" "ssh-keygen" ] [ ];
    curl = links "curl" [ ] [ "libcurl.so.4" ];
    libssh = links "libssh" [ ] [ "libssh.so.4" ];
    libarchive = links "libarchive" [ ] [ "libarchive.so.13" ];
    openssl = links "openssl" [ "openssl" ] [ "libcrypto.so.3" ];
  }
  // lib.genAttrs [
    "bats"
    "cjson"
    "clang-tools"
    "cmocka"
    "cpio"
    "fish"
    "jq"
    "libseccomp"
    "libyaml"
    "nixfmt"
    "python3"
    "shellcheck"
    "squashfsTools"
    "zsh"
    "zstd"
  ] (name: links name [ ] [ ]);

  debianPackages = import ./debian.nix { inherit pkgs lib debian; };
in
pkgs
