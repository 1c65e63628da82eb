/* SPDX-License-Identifier: MIT */
/* Every command's entry, for the table in commands.c. */
#pragma once

#include <k3s-vm/command.h>

extern const struct command cmd_up, cmd_setup, cmd_start, cmd_stop, cmd_restart, cmd_status, cmd_reset, cmd_destroy;
extern const struct command cmd_ssh, cmd_exec, cmd_cp, cmd_apply, cmd_logs, cmd_configure, cmd_list, cmd_doctor;
extern const struct command cmd_kubectl, cmd_k9s, cmd_env, cmd_ports, cmd_init, cmd_load, cmd_completion, cmd_supervise,
                cmd_set_clock, cmd_autostart, cmd_snapshot, cmd_doze, cmd_cache, cmd_fetch, cmd_upgrade;
