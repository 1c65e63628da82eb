#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# A short soak: each of its ways to end a VM once, and the first again. `make soak` runs a long one.

load ../lib/common
load ../lib/vm

setup_file() { tiny_guest; }

@test "five starts and stops, with QEMU and the supervisor killed on the way, leave nothing behind" {
  SOAK_CYCLES=5 run "$ROOT/tests/soak/soak" -v
  echo "$output"
  [ "$status" -eq 0 ]
  [ "${lines[-1]}" = "5 passed, 0 failed" ]
}
