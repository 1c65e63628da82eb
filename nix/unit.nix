# The user unit of one project's VM, as NixOS writes it.
{ project, program }:
{
  description = "k3s-vm of ${project}";
  wantedBy = [ "default.target" ];
  # For other users there is nothing to start.
  unitConfig.ConditionPathIsDirectory = "${project}/.k3s-vm";
  unitConfig.ConditionPathIsReadWrite = "${project}/.k3s-vm";
  serviceConfig = {
    Type = "oneshot";
    RemainAfterExit = true;
    ExecStart = "${program} --project ${project} start";
    ExecStop = "${program} --project ${project} stop --shutdown";
    TimeoutStartSec = 0;
    # The supervisor and QEMU stay when this command ends.
    KillMode = "process";
  };
}
