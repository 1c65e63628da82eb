/* SPDX-License-Identifier: MIT */
/* The files under src/guest and src/payload, as an archive inside the program (src/embedded.S). */
#pragma once

extern const char k3s_vm_embedded_start[];
extern const char k3s_vm_embedded_end[];
