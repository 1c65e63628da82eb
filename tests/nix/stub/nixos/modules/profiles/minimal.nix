# nixos/modules/profiles/minimal.nix: what it does to the options that are here.
{ lib, ... }:
{
  environment.defaultPackages = lib.mkDefault [ ];
  environment.stub-ld.enable = lib.mkDefault false;
  programs.command-not-found.enable = lib.mkDefault false;
}
