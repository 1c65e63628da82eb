/* SPDX-License-Identifier: MIT */
#include <k3s-vm/commands.h>
#include <k3s-vm/supervisor.h>

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        (void)ctx;
        (void)args;
        (void)err;
        return supervisor_main();
}

const struct command cmd_supervise = {
                .name = "supervise",
                /* What follows is for those who read `ps`: the supervisor's orders come by descriptor. */
                .operands = "[NAME]",
                .summary = "watch over a VM (started by `start`, never by hand)",
                .hidden = true,
                .run = run,
};
