/* SPDX-License-Identifier: MIT */
/*
 * Which version of Kubernetes may follow which in a cluster that is kept: the same minor version or the next, and never
 * an older one (https://kubernetes.io/releases/version-skew-policy/; K3s upgrades by the same rule).
 */
#pragma once

#include <k3s-vm/err.h>

/* 0: @to may follow @from; 1: it is the same; ERR_USAGE with the reason and what to do instead. Versions are like
 * "v1.33.5+k3s1", "v1.34.0-rc1+k3s1", "v1.20.2". */
int versions_check_upgrade(const char *from, const char *to, struct error *err);
