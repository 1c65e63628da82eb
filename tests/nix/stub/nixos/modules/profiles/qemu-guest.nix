# nixos/modules/profiles/qemu-guest.nix: that it is there.
{ }
