/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <k3s-vm/checksums.h>
#include <k3s-vm/strv.h>

/* Whether @len bytes at @at are @name, with or without "./" before it. */
static bool is_name(const char *at, size_t len, const char *name) {
        if (len > 2 && at[0] == '.' && at[1] == '/') {
                at += 2;
                len -= 2;
        }
        return len == strlen(name) && memcmp(at, name, len) == 0;
}

/* How many characters of @s, up to @end, are a hash: all of SHA-256 or SHA-512, or 0. */
static size_t hash_length(const char *s, const char *end) {
        size_t n = strspn(s, "0123456789abcdefABCDEF");
        return s + n <= end && (n == SHA256_HEX_LEN || n == SHA512_HEX_LEN) ? n : 0;
}

/* The hash in the line from @line to @end, if that is of @name; NULL otherwise. */
static const char *hash_of(const char *line, const char *end, const char *name, size_t *ret_len) {
        *ret_len = hash_length(line, end);
        const char *after = line + *ret_len;
        if (*ret_len > 0)
                return end - after > 2 && after[0] == ' ' && (after[1] == ' ' || after[1] == '*') &&
                                                       is_name(after + 2, (size_t)(end - after - 2), name)
                                       ? line
                                       : NULL;
        static const char tag[] = "SHAxxx (", equals[] = ") = ";
        if (end - line < (long)sizeof(tag) || (!str_starts(line, "SHA256 (") && !str_starts(line, "SHA512 (")))
                return NULL;
        const char *start = line + sizeof(tag) - 1;
        /* A name may have a parenthesis in it: the last one ends it. */
        const char *close = memrchr(start, ')', (size_t)(end - start));
        if (!close || !str_starts(close, equals) || !is_name(start, (size_t)(close - start), name))
                return NULL;
        const char *hash = close + sizeof(equals) - 1;
        *ret_len = hash_length(hash, end);
        bool whole = *ret_len == (line[3] == '2' ? SHA256_HEX_LEN : SHA512_HEX_LEN) && hash + *ret_len == end;
        return whole ? hash : NULL;
}

bool checksums_find(const char *text, const char *name, char hex[static DIGEST_HEX_MAX + 1]) {
        for (const char *line = text; *line; line += *line == '\n') {
                const char *next = line + strcspn(line, "\n"), *end = next;
                while (end > line && strchr(" \t\r", end[-1]))
                        end--;
                size_t n = 0;
                const char *hash = hash_of(line, end, name, &n);
                line = next;
                if (!hash)
                        continue;
                for (size_t i = 0; i < n; i++)
                        hex[i] = (char)(hash[i] >= 'A' && hash[i] <= 'F' ? hash[i] - 'A' + 'a' : hash[i]);
                hex[n] = '\0';
                return true;
        }
        return false;
}
