/* SPDX-License-Identifier: MIT */
/* A loop that ends once another end is written behind the words (tests/lib/mend_spin.py). On a page of its own. */
int main(void) {
        __asm__ volatile("jmp 1f\n"
                         ".p2align 6\n"
                         ".ascii \"k3s-vm: spinning\"\n"
                         "1: jmp 1b\n");
        return 0;
}
