/* SPDX-License-Identifier: MIT */
/* What the files of module `kube` share. Not for anyone else. */
#pragma once

#include <k3s-vm/kube.h>

struct kube {
        struct http *http;
        char *server;
};
