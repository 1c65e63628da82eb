#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""mend_spin.py PID: writes an end to the loop of tests/vm/spin.c into the memory of the guest of a QEMU, behind QEMU's
back, and says how many copies of the program there were. QEMU goes on with what it has translated before, as it does with
the fault that src/domain/standstill.h tells of: memory is right, the translation is not."""
import struct
import sys

LOOP, END = b"k3s-vm: spinning\xeb\xfe", b"k3s-vm: spinning\x90\x90"
PAGE = 4096


def largest_mapping(pid):
    with open(f"/proc/{pid}/maps") as lines:
        spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in lines]
    return max(spans, key=lambda span: span[1] - span[0])


def present_pages(pid, start, end):
    with open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        pagemap.seek(start // PAGE * 8)
        entries = pagemap.read((end - start) // PAGE * 8)
    for i, (entry,) in enumerate(struct.iter_unpack("<Q", entries)):
        if entry >> 63:
            yield start + i * PAGE


def main():
    pid, found = int(sys.argv[1]), 0
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for address in present_pages(pid, *largest_mapping(pid)):
            memory.seek(address)
            at = memory.read(PAGE).find(LOOP)
            if at >= 0:
                memory.seek(address + at)
                memory.write(END)
                found += 1
    print(found)


main()
