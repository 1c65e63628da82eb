/* SPDX-License-Identifier: MIT */
/* Hands bytes between pairs of connected stream sockets, both ways, until each pair is closed. */
#pragma once

#include <stddef.h>

#include <k3s-vm/err.h>

struct relay {
        int ends[2]; /* owned; -1 where there is none (any more) */
};

/* Returns when all are closed, by their peers or for an error of their own. The descriptors become non-blocking. */
int relay_all(const struct relay *pairs, size_t n, struct error *err);
