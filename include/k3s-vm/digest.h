/* SPDX-License-Identifier: MIT */
/*
 * SHA-256, SHA-512 and certificates (libcrypto behind them, which libssh and libcurl bring anyway), base64 and random
 * names (no library needed).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <k3s-vm/err.h>

#define SHA256_HEX_LEN 64 /* characters, without the NUL */
#define SHA512_HEX_LEN 128
#define DIGEST_HEX_MAX SHA512_HEX_LEN

struct digest; /* a running SHA-256 */
int digest_new(struct digest **ret, struct error *err);
/* The same of the kind that @expected is a hash of: SHA-512 for 128 characters, else SHA-256 (NULL too). */
int digest_new_for(const char *expected, struct digest **ret, struct error *err);
void digest_update(struct digest *d, const void *data, size_t len);
/* Ends it: 64 (128 of SHA-512) lower-case hexadecimal characters and a NUL. The digest can only be freed afterwards. */
void digest_final(struct digest *d, char *hex);
/* The hash of what came so far; more may come. */
void digest_peek(const struct digest *d, char *hex);
void digest_free(struct digest *d);
DEFINE_FREEP(struct digest, digest_free)
#define _cleanup_digest_ _cleanup_(digest_freep)

int digest_bytes(const void *data, size_t len, char hex[static SHA256_HEX_LEN + 1], struct error *err);
int digest_file(const char *path, char hex[static SHA256_HEX_LEN + 1], struct error *err);
/* Whether the file has the hash @expected, SHA-256 or SHA-512 in either case: 1 or 0, or a negative errno. */
int digest_check(const char *path, const char *expected, struct error *err);

/* The end of validity of the first certificate in a PEM text (other blocks before it are skipped). -EBADMSG:
 * there is none. */
int certificate_not_after(const char *pem, time_t *ret, struct error *err);
/* Standard base64 (RFC 4648, section 4), decoded into @ret / encoded; the caller frees. White space in
 * the input is skipped; missing padding, other alphabets and text after the padding are -EBADMSG. A NUL that
 * @ret_len does not count follows what was decoded. */
int base64_decode(const char *text, char **ret, size_t *ret_len, struct error *err);
char *base64_encode(const void *data, size_t len);
/* @n random bytes as lower-case hexadecimal (getrandom); the caller frees. */
char *random_hex(size_t n);
/* A random version 4 UUID (RFC 4122) in text form; the caller frees. */
char *random_uuid(void);
