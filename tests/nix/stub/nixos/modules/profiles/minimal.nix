# nixos/modules/profiles/minimal.nix: that it is there.
{ }
