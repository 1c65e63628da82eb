/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

/* OpenSSL has a type of the name of one of our exit codes. */
#define ERR_STATE openssl_err_state
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#undef ERR_STATE

#include <k3s-vm/buf.h>
#include <k3s-vm/digest.h>
#include <k3s-vm/library.h>

#ifndef LIBCRYPTO_SONAME
#define LIBCRYPTO_SONAME "libcrypto.so.3"
#endif

#define SYMBOLS(X) \
        X(EVP_MD_CTX_new) \
        X(EVP_MD_CTX_free) \
        X(EVP_MD_CTX_copy_ex) \
        X(EVP_sha256) \
        X(EVP_sha512) \
        X(EVP_DigestInit_ex) \
        X(EVP_DigestUpdate) \
        X(EVP_DigestFinal_ex) \
        X(BIO_new_mem_buf) \
        X(BIO_free) \
        X(PEM_read_bio_X509) \
        X(X509_free) \
        X(X509_get0_notAfter) \
        X(ASN1_TIME_to_tm) \
        X(ERR_clear_error)

LIBRARY_DECLARE(crypto, SYMBOLS);

static int load(struct error *err) {
        return LIBRARY_LOAD(crypto, LIBCRYPTO_SONAME, SYMBOLS, err);
}

static void to_hex(const unsigned char *bytes, size_t n, char *hex) {
        static const char digits[] = "0123456789abcdef";
        for (size_t i = 0; i < n; i++) {
                *hex++ = digits[bytes[i] >> 4];
                *hex++ = digits[bytes[i] & 15];
        }
        *hex = '\0';
}

/* Hashes. */

struct digest {
        EVP_MD_CTX *context;
};

int digest_new(struct digest **ret, struct error *err) {
        return digest_new_for(NULL, ret, err);
}

int digest_new_for(const char *expected, struct digest **ret, struct error *err) {
        int r = load(err);
        if (r < 0)
                return r;
        _cleanup_digest_ struct digest *d = xcalloc(1, sizeof(*d));
        d->context = oom_check(crypto.EVP_MD_CTX_new());
        bool longer = expected && strlen(expected) == SHA512_HEX_LEN;
        const EVP_MD *kind = longer ? crypto.EVP_sha512() : crypto.EVP_sha256();
        if (crypto.EVP_DigestInit_ex(d->context, kind, NULL) != 1) {
                crypto.ERR_clear_error();
                return err_set(err, ERR_HOST, ENOTSUP, "%s does not offer SHA-%d", LIBCRYPTO_SONAME,
                               longer ? 512 : 256);
        }
        *ret = TAKE_PTR(d);
        return 0;
}

void digest_update(struct digest *d, const void *data, size_t len) {
        /* A hash over memory has no way to fail but a context that could not be allocated. */
        if (len > 0)
                oom_check(crypto.EVP_DigestUpdate(d->context, data, len) == 1 ? d : NULL);
}

void digest_final(struct digest *d, char *hex) {
        unsigned char bytes[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        oom_check(crypto.EVP_DigestFinal_ex(d->context, bytes, &n) == 1 && n <= DIGEST_HEX_MAX / 2 ? d : NULL);
        to_hex(bytes, n, hex);
}

void digest_peek(const struct digest *d, char *hex) {
        struct digest copy = {.context = oom_check(crypto.EVP_MD_CTX_new())};
        oom_check(crypto.EVP_MD_CTX_copy_ex(copy.context, d->context) == 1 ? &copy : NULL);
        digest_final(&copy, hex);
        crypto.EVP_MD_CTX_free(copy.context);
}

void digest_free(struct digest *d) {
        if (!d)
                return;
        if (d->context)
                crypto.EVP_MD_CTX_free(d->context);
        free(d);
}

int digest_bytes(const void *data, size_t len, char hex[static SHA256_HEX_LEN + 1], struct error *err) {
        _cleanup_digest_ struct digest *d = NULL;
        int r = digest_new(&d, err);
        if (r < 0)
                return r;
        digest_update(d, data, len);
        digest_final(d, hex);
        return 0;
}

/* With the hash of the file's contents in @hex. */
static int hash_file(const char *path, struct digest *d, char *hex, struct error *err) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_errno(err, errno, "cannot open %s", path);
        size_t size = 256 * 1024;
        _cleanup_free_ char *block = xcalloc(1, size);
        for (;;) {
                ssize_t n = read(fd, block, size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_errno(err, errno, "cannot read %s", path);
                if (n == 0)
                        break;
                digest_update(d, block, (size_t)n);
        }
        digest_final(d, hex);
        return 0;
}

int digest_file(const char *path, char hex[static SHA256_HEX_LEN + 1], struct error *err) {
        _cleanup_digest_ struct digest *d = NULL;
        int r = digest_new(&d, err);
        return r < 0 ? r : hash_file(path, d, hex, err);
}

int digest_check(const char *path, const char *expected, struct error *err) {
        char hex[DIGEST_HEX_MAX + 1];
        _cleanup_digest_ struct digest *d = NULL;
        int r = digest_new_for(expected, &d, err);
        if (r == 0)
                r = hash_file(path, d, hex, err);
        return r < 0 ? r : strcasecmp(hex, expected) == 0;
}

/* Certificates. */

int certificate_not_after(const char *pem, time_t *ret, struct error *err) {
        int r = load(err);
        if (r < 0)
                return r;
        size_t len = strlen(pem);
        if (len > INT_MAX)
                return err_set(err, ERR_FAILED, E2BIG, "the certificate is too large");
        BIO *bio = oom_check(crypto.BIO_new_mem_buf(pem, (int)len));
        X509 *certificate = crypto.PEM_read_bio_X509(bio, NULL, NULL, NULL);
        crypto.BIO_free(bio);
        /* Errors stay in a queue of the thread, where libcurl and libssh would find them later. */
        crypto.ERR_clear_error();
        if (!certificate)
                return err_set(err, ERR_FAILED, EBADMSG, "there is no valid certificate in the PEM text");
        struct tm tm = {0};
        bool ok = crypto.ASN1_TIME_to_tm(crypto.X509_get0_notAfter(certificate), &tm) == 1;
        crypto.X509_free(certificate);
        crypto.ERR_clear_error();
        if (!ok)
                return err_set(err, ERR_FAILED, EBADMSG, "the certificate's end of validity is not a time");
        *ret = timegm(&tm);
        return 0;
}

/* Base64 is done here and not by libcrypto: its block decoder accepts bad padding and counts the padding as
 * data, and a command that only encodes should not have to load a library. */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int decode_digit(char c) {
        const char *p = c ? strchr(alphabet, c) : NULL;
        return p ? (int)(p - alphabet) : -1;
}

int base64_decode(const char *text, char **ret, size_t *ret_len, struct error *err) {
        _cleanup_free_ char *out = xcalloc(1, strlen(text) / 4 * 3 + 4);
        size_t n = 0, digits = 0, padding = 0;
        uint32_t group = 0;
        for (const char *p = text; *p; p++) {
                if (strchr(" \t\r\n", *p))
                        continue;
                if (*p == '=') {
                        padding++;
                        continue;
                }
                int digit = decode_digit(*p);
                if (digit < 0 || padding > 0)
                        return err_set(err, ERR_FAILED, EBADMSG,
                                       "invalid base64: an unexpected character at offset %zu", (size_t)(p - text));
                group = group << 6 | (uint32_t)digit;
                if (++digits % 4 > 0)
                        continue;
                out[n++] = (char)(group >> 16);
                out[n++] = (char)(group >> 8);
                out[n++] = (char)group;
                group = 0;
        }
        size_t rest = digits % 4;
        if (rest == 1 || padding != (4 - rest) % 4)
                return err_set(err, ERR_FAILED, EBADMSG, "invalid base64: it ends too early or its padding is wrong");
        /* Bits that the padding cuts off: with ones there, two texts would mean the same bytes. */
        if ((rest == 2 && (group & 15)) || (rest == 3 && (group & 3)))
                return err_set(err, ERR_FAILED, EBADMSG, "invalid base64: its last character carries unused bits");
        if (rest == 2)
                out[n++] = (char)(group >> 4);
        if (rest == 3) {
                out[n++] = (char)(group >> 10);
                out[n++] = (char)(group >> 2);
        }
        out[n] = '\0';
        *ret = TAKE_PTR(out);
        *ret_len = n;
        return 0;
}

char *base64_encode(const void *data, size_t len) {
        const unsigned char *in = data;
        char *out = xcalloc(1, (len + 2) / 3 * 4 + 1), *p = out;
        for (size_t i = 0; i < len; i += 3) {
                size_t left = len - i;
                uint32_t group = (uint32_t)in[i] << 16;
                if (left > 1)
                        group |= (uint32_t)in[i + 1] << 8;
                if (left > 2)
                        group |= in[i + 2];
                *p++ = alphabet[group >> 18];
                *p++ = alphabet[group >> 12 & 63];
                *p++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
                *p++ = left > 2 ? alphabet[group & 63] : '=';
        }
        return out;
}

/* Randomness. */

static void fill_random(unsigned char *bytes, size_t n) {
        while (n > 0) {
                ssize_t got = getrandom(bytes, n, 0);
                if (got < 0 && errno == EINTR)
                        continue;
                /* Every kernel this runs on has it; an identity that can be guessed is no way out. */
                if (got <= 0)
                        abort();
                bytes += got;
                n -= (size_t)got;
        }
}

char *random_hex(size_t n) {
        _cleanup_free_ unsigned char *bytes = xcalloc(n, 1);
        fill_random(bytes, n);
        char *hex = xcalloc(n * 2 + 1, 1);
        to_hex(bytes, n, hex);
        return hex;
}

char *random_uuid(void) {
        unsigned char bytes[16];
        fill_random(bytes, sizeof(bytes));
        bytes[6] = (unsigned char)((bytes[6] & 0x0f) | 0x40);
        bytes[8] = (unsigned char)((bytes[8] & 0x3f) | 0x80);
        char hex[sizeof(bytes) * 2 + 1];
        to_hex(bytes, sizeof(bytes), hex);
        return xasprintf("%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
}
