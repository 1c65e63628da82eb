/* SPDX-License-Identifier: MIT */
/*
 * A publisher's list of hashes (SHA256SUMS, SHA512SUMS, sha256sum-amd64.txt, CHECKSUM), as sha256sum writes it
 * ("HASH  NAME", "HASH *NAME") or with --tag ("SHA256 (NAME) = HASH"). Other lines, such as a signature's, are skipped.
 */
#pragma once

#include <stdbool.h>

#include <k3s-vm/digest.h>

/* The first hash of @name in @text, in lower case: 64 characters of SHA-256 or 128 of SHA-512, which http_download()
 * and digest_check() tell apart by that. False: there is none. */
bool checksums_find(const char *text, const char *name, char hex[static DIGEST_HEX_MAX + 1]);
