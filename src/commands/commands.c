/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>

const struct command *const commands[] = {
                &cmd_up,      &cmd_setup,     &cmd_start,      &cmd_stop,     &cmd_restart, &cmd_status, &cmd_reset,
                &cmd_destroy, &cmd_ssh,       &cmd_exec,       &cmd_cp,       &cmd_apply,   &cmd_logs,   &cmd_configure,
                &cmd_list,    &cmd_doctor,    &cmd_kubectl,    &cmd_k9s,      &cmd_env,     &cmd_ports,  &cmd_init,
                &cmd_load,    &cmd_autostart, &cmd_completion, &cmd_snapshot, &cmd_upgrade, &cmd_fetch,  &cmd_cache,
                &cmd_doze,    &cmd_supervise, &cmd_set_clock,  NULL,
};
