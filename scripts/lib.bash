# SPDX-License-Identifier: MIT
# What scripts/up and scripts/test share: finding out what is missing and installing it with the host's own
# package manager, as root or through sudo, and only when something is missing.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$0: $*"
  exit 6
}

# manager: apt, dnf, pacman, zypper, nix, or nothing
package_manager() {
  local name
  if [ -e /etc/NIXOS ]; then
    echo nix
    return
  fi
  for name in apt-get dnf pacman zypper nix; do
    if command -v "$name" >/dev/null 2>&1; then
      echo "${name%-get}"
      return
    fi
  done
}

# What is needed, one line each: a group, a check, and the package of apt, dnf, pacman, zypper ("-": this
# distribution has none, and what it is for is left out there). Checks: cmd:PROGRAM, pc:PKG-CONFIG-NAME, file:PATH.
needs() {
  cat <<'EOF'
build cmd:cc                    gcc                    gcc               gcc             gcc
build cmd:make                  make                   make              make            make
build cmd:pkg-config            pkg-config             pkgconf-pkg-config pkgconf        pkgconf
build pc:libcurl                libcurl4-openssl-dev   libcurl-devel     curl            libcurl-devel
build pc:libarchive             libarchive-dev         libarchive-devel  libarchive      libarchive-devel
build pc:libcjson               libcjson-dev           cjson-devel       cjson           cJSON-devel
build pc:libssh                 libssh-dev             libssh-devel      libssh          libssh-devel
build pc:libseccomp             libseccomp-dev         libseccomp-devel  libseccomp      libseccomp-devel
build pc:yaml-0.1               libyaml-dev            libyaml-devel     libyaml         libyaml-devel
build pc:libcrypto              libssl-dev             openssl-devel     openssl         libopenssl-devel
run   cmd:qemu-system-x86_64    qemu-system-x86        qemu-system-x86-core qemu-system-x86 qemu-x86
run   cmd:qemu-img              qemu-utils             qemu-img          qemu-img        qemu-tools
run   cmd:ssh                   openssh-client         openssh-clients   openssh         openssh-clients
run   cmd:mmdebstrap            mmdebstrap             -                 -               -
run   cmd:newuidmap             uidmap                 -                 -               -
run   cmd:mkfs.erofs            erofs-utils            -                 -               -
run   cmd:mksquashfs            squashfs-tools         -                 -               -
run   cmd:zstd                  zstd                   -                 -               -
run   cmd:cpio                  cpio                   -                 -               -
run   cmd:xz                    xz-utils               -                 -               -
run   cmd:go                    golang-go              -                 -               -
run   cmd:dpkg-source           dpkg-dev               -                 -               -
test  pc:cmocka                 libcmocka-dev          libcmocka-devel   cmocka          libcmocka-devel
test  cmd:bats                  bats                   bats              bash-bats       bats
test  cmd:jq                    jq                     jq                jq              jq
test  cmd:curl                  curl                   curl              curl            curl
test  cmd:python3               python3                python3           python          python3
test  cmd:openssl               openssl                openssl           openssl         openssl
test  cmd:sshd                  openssh-server         openssh-server    openssh         openssh-server
test  cmd:nix                   nix-bin                nix               nix             -
test  cmd:ssh-keygen            openssh-client         openssh-clients   openssh         openssh-clients
test  cmd:shellcheck            shellcheck             ShellCheck        shellcheck      ShellCheck
test  cmd:clang-format          clang-format           clang-tools-extra clang           clang
test  cmd:clang                 clang                  clang             clang           clang
test  cmd:bsdtar                libarchive-tools       bsdtar            libarchive      bsdtar
test  cmd:socat                 socat                  socat             socat           socat
test  cmd:faketime              faketime               libfaketime       libfaketime     libfaketime
test  cmd:isoinfo               genisoimage            genisoimage       cdrtools        mkisofs
test  cmd:syslinux              syslinux               -                 -               -
test  file:/usr/lib/syslinux/mbr/mbr.bin syslinux-common -               -               -
test  cmd:mkfs.fat              dosfstools             -                 -               -
test  cmd:sfdisk                fdisk                  -                 -               -
test  cmd:zsh                 zsh                    zsh               zsh             zsh
test  cmd:fish                fish                   fish              fish            fish
EOF
}

present() {
  case $1 in
    cmd:*) PATH=$PATH:/usr/sbin:/sbin command -v "${1#cmd:}" >/dev/null 2>&1 ;;
    pc:*) pkg-config --exists "${1#pc:}" 2>/dev/null ;;
    file:*) [ -e "${1#file:}" ] ;;
  esac
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    say "+ sudo $*"
    sudo "$@"
  else
    die "this needs root and there is no sudo; run as root: $*"
  fi
}

# install_missing GROUP...: the packages of these groups that are not there yet
install_missing() {
  local manager column group check packages=() apt dnf pacman zypper
  manager=$(package_manager)
  [ "$manager" != nix ] || return 0
  while read -r group check apt dnf pacman zypper; do
    case " $* " in *" $group "*) ;; *) continue ;; esac
    present "$check" && continue
    case $manager in
      apt) column=$apt ;; dnf) column=$dnf ;; pacman) column=$pacman ;; zypper) column=$zypper ;;
      *) die "${check#*:} is missing, and this script knows no package manager here; install it and run this again" ;;
    esac
    [ "$column" = - ] || packages+=("$column")
  done < <(needs)
  [ ${#packages[@]} -gt 0 ] || return 0
  say "installing: ${packages[*]}"
  case $manager in
    apt)
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
      as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "${packages[@]}" >&2
      ;;
    dnf) as_root dnf install -y "${packages[@]}" >&2 ;;
    pacman) as_root pacman -S --needed --noconfirm "${packages[@]}" >&2 ;;
    zypper) as_root zypper --non-interactive install "${packages[@]}" >&2 ;;
  esac
}

# enter_nix SCRIPT ARGS...: with nix and without the tools, runs the script again inside `nix develop`
enter_nix() {
  [ "$(package_manager)" = nix ] || return 0
  [ -z "${IN_NIX_SHELL:-}" ] || return 0
  command -v nix >/dev/null 2>&1 || die "nix is not on PATH"
  exec nix --extra-experimental-features 'nix-command flakes' develop --command "$@"
}
