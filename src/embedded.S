/* SPDX-License-Identifier: MIT */
/* The archive with the guests' and payloads' files, as bytes in the program; see include/k3s-vm/embedded.h. */
        .section .rodata
        .balign 16
        .globl k3s_vm_embedded_start
        .globl k3s_vm_embedded_end
k3s_vm_embedded_start:
        .incbin EMBEDDED
k3s_vm_embedded_end:
        .byte 0
        .section .note.GNU-stack,"",%progbits
