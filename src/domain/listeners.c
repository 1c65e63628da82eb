/* SPDX-License-Identifier: MIT */
/*
 * The kernel's table of TCP sockets as text, proc_pid_net(5):
 *   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
 *    0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22713 ...
 * An address is the hexadecimal form of each 32-bit word of it as this machine's integers.
 */
#include <errno.h>
#include <string.h>

#include <k3s-vm/ports.h>

#define STATE_LISTEN "0A" /* TCP_LISTEN, include/net/tcp_states.h */
#define LISTENERS_MAX 65536

struct field {
        const char *s;
        size_t len;
};

/* The next word at *@p, before @end; its length is 0 when there is none. */
static struct field next_field(const char **p, const char *end) {
        while (*p < end && (**p == ' ' || **p == '\t'))
                (*p)++;
        struct field f = {.s = *p};
        while (*p < end && **p != ' ' && **p != '\t')
                (*p)++;
        f.len = (size_t)(*p - f.s);
        return f;
}

static bool parse_hex(const char *s, size_t len, uint32_t *ret) {
        uint32_t value = 0;
        if (len == 0 || len > 8)
                return false;
        for (size_t i = 0; i < len; i++) {
                char c = s[i];
                unsigned digit;
                if (c >= '0' && c <= '9')
                        digit = (unsigned)(c - '0');
                else if (c >= 'A' && c <= 'F')
                        digit = (unsigned)(c - 'A') + 10;
                else if (c >= 'a' && c <= 'f')
                        digit = (unsigned)(c - 'a') + 10;
                else
                        return false;
                value = value << 4 | digit;
        }
        *ret = value;
        return true;
}

static bool parse_decimal(struct field f, uint64_t max, uint64_t *ret) {
        uint64_t value = 0;
        if (f.len == 0)
                return false;
        for (size_t i = 0; i < f.len; i++) {
                if (f.s[i] < '0' || f.s[i] > '9')
                        return false;
                unsigned digit = (unsigned)(f.s[i] - '0');
                if (value > (max - digit) / 10)
                        return false;
                value = value * 10 + digit;
        }
        *ret = value;
        return true;
}

static void classify(const unsigned char *address, bool ipv6, struct listener *l) {
        static const unsigned char zero[16] = {0};
        static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
        const unsigned char *v4 = !ipv6 ? address : memcmp(address, mapped, sizeof(mapped)) == 0 ? address + 12 : NULL;
        if (v4) {
                static const unsigned char localhost[4] = {127, 0, 0, 1};
                l->wildcard = memcmp(v4, zero, 4) == 0;
                l->loopback = v4[0] == 127;
                l->claims = l->wildcard || memcmp(v4, localhost, 4) == 0;
        } else {
                l->wildcard = memcmp(address, zero, 16) == 0;
                l->loopback = memcmp(address, zero, 15) == 0 && address[15] == 1;
                l->claims = l->wildcard || l->loopback;
        }
}

static bool parse_local(struct field f, bool ipv6, struct listener *ret) {
        size_t digits = ipv6 ? 32 : 8;
        uint32_t words[4], port;
        if (f.len != digits + 5 || f.s[digits] != ':' || !parse_hex(f.s + digits + 1, 4, &port))
                return false;
        for (size_t i = 0; i < digits / 8; i++)
                if (!parse_hex(f.s + i * 8, 8, &words[i]))
                        return false;
        unsigned char address[16];
        memcpy(address, words, digits / 2);
        ret->port = (uint16_t)port;
        ret->ipv6 = ipv6;
        classify(address, ipv6, ret);
        return true;
}

/* 1: a listener; 0: a socket in another state; -1: no such line. */
static int parse_line(const char *p, const char *end, bool ipv6, struct listener *ret) {
        struct listener l = {0};
        struct field number = next_field(&p, end), local = next_field(&p, end);
        next_field(&p, end); /* remote */
        struct field st = next_field(&p, end);
        if (number.len < 2 || number.s[number.len - 1] != ':' || st.len != 2)
                return -1;
        if (memcmp(st.s, STATE_LISTEN, 2) != 0)
                return 0;
        next_field(&p, end); /* queues */
        next_field(&p, end); /* timer */
        next_field(&p, end); /* retransmits */
        struct field uid = next_field(&p, end);
        next_field(&p, end); /* timeout */
        struct field inode = next_field(&p, end);
        uint64_t uid_value;
        if (!parse_local(local, ipv6, &l) || !parse_decimal(uid, UINT32_MAX, &uid_value) ||
            !parse_decimal(inode, UINT64_MAX, &l.inode))
                return -1;
        l.uid = (uid_t)uid_value;
        *ret = l;
        return 1;
}

int listeners_parse(const char *text, size_t len, bool ipv6, struct listener **ret, size_t *ret_n) {
        int skipped = 0;
        bool first = true;
        for (const char *p = text, *end = text + len; p < end;) {
                const char *newline = memchr(p, '\n', (size_t)(end - p));
                const char *stop = newline ? newline : end;
                struct listener l;
                int r = parse_line(p, stop, ipv6, &l);
                if (r < 0 && !first) /* the first line holds the columns' names */
                        skipped++;
                if (r > 0 && *ret_n < LISTENERS_MAX) {
                        /* Grown in powers of two: a busy host has thousands. */
                        if ((*ret_n & (*ret_n - 1)) == 0)
                                *ret = xreallocarray(*ret, *ret_n ? *ret_n * 2 : 1, sizeof(**ret));
                        (*ret)[(*ret_n)++] = l;
                }
                first = false;
                p = stop + 1;
        }
        return skipped;
}
