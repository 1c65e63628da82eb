/* SPDX-License-Identifier: MIT */
/*
 * kubectl reads YAML through go-yaml version 2 (sigs.k8s.io/yaml), whose rules are YAML 1.1's with exceptions:
 * no base 60, no timestamps, Go's prefixes for integers. What is here was compared with kubectl's answers.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/json.h>
#include <k3s-vm/strv.h>

#include "yaml_scalar.h"

static int digit_of(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

/* An integer with an optional sign and a prefix: 0x, 0o or 0, 0b. YAML_STRING: it is none, or one that is too large
 * and may still be a float. */
static enum yaml_kind resolve_integer(const char *s, double *ret) {
        bool negative = *s == '-';
        if (*s == '-' || *s == '+')
                s++;
        unsigned base = 10;
        if (s[0] == '0' && s[1] != '\0') {
                char prefix = (char)(s[1] | 0x20);
                base = prefix == 'x' ? 16 : prefix == 'b' ? 2 : 8;
                s += prefix == 'x' || prefix == 'b' || prefix == 'o' ? 2 : 1;
        }
        if (*s == '\0')
                return YAML_STRING;
        uint64_t value = 0;
        bool overflow = false;
        for (; *s; s++) {
                unsigned digit = (unsigned)digit_of(*s);
                if (digit >= base)
                        return YAML_STRING;
                if (value > (UINT64_MAX - digit) / base)
                        overflow = true;
                else
                        value = value * base + digit;
        }
        overflow = overflow || (negative && value > (uint64_t)INT64_MAX + 1);
        if (overflow)
                return base == 10 ? YAML_STRING : YAML_INEXACT;
        double result = (double)value;
        /* 2^64 itself does not convert back. */
        if (result >= 18446744073709551616.0 || (uint64_t)result != value)
                return YAML_INEXACT;
        *ret = negative && value > 0 ? -result : result;
        return YAML_NUMBER;
}

static const char *skip_digits(const char *s) {
        return s + strspn(s, "0123456789");
}

/* [-+]? ( .digits | digits [.digits*] ) [ (e|E) [-+]? digits ] */
static enum yaml_kind resolve_float(const char *text, double *ret) {
        const char *s = text + (*text == '-' || *text == '+');
        const char *end = skip_digits(s);
        if (*end == '.') {
                const char *fraction = end + 1;
                if (end == s && skip_digits(fraction) == fraction)
                        return YAML_STRING;
                end = skip_digits(fraction);
        } else if (end == s)
                return YAML_STRING;
        if (*end == 'e' || *end == 'E') {
                const char *exponent = end + 1;
                exponent += *exponent == '-' || *exponent == '+';
                end = skip_digits(exponent);
                if (end == exponent)
                        return YAML_STRING;
        }
        if (*end)
                return YAML_STRING;
        double value = strtod(text, NULL);
        /* Out of a double's range is a string to kubectl too. */
        if (!isfinite(value))
                return YAML_STRING;
        *ret = value;
        return YAML_NUMBER;
}

static enum yaml_kind resolve_number(const char *s, double *ret) {
        if (*s == '.')
                return resolve_float(s, ret);
        size_t len = strlen(s);
        /* No number needs more; longer runs of digits stay what they are. */
        if (len > 1024)
                return YAML_STRING;
        char plain[1025], *p = plain;
        for (; *s; s++)
                if (*s != '_')
                        *p++ = *s;
        *p = '\0';
        enum yaml_kind kind = resolve_integer(plain, ret);
        return kind == YAML_STRING ? resolve_float(plain, ret) : kind;
}

enum yaml_kind yaml_resolve(const char *s, double *ret_value) {
        static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
        static const char *const trues[] = {"y",    "Y",    "yes", "Yes", "YES", "true",
                                            "True", "TRUE", "on",  "On",  "ON",  NULL};
        static const char *const falses[] = {"n",     "N",     "no",  "No",  "NO",  "false",
                                             "False", "FALSE", "off", "Off", "OFF", NULL};
        static const char *const not_finite[] = {".nan",  ".NaN",  ".NAN",  ".inf",  ".Inf",  ".INF", "+.inf",
                                                 "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", NULL};
        if (str_is_one_of(s, nulls))
                return YAML_NULL;
        if (str_is_one_of(s, trues) || str_is_one_of(s, falses)) {
                *ret_value = str_is_one_of(s, trues);
                return YAML_BOOL;
        }
        if (str_is_one_of(s, not_finite))
                return YAML_NOT_FINITE;
        if (str_eq(s, "<<"))
                return YAML_MERGE;
        if (strchr("0123456789+-.", *s))
                return resolve_number(s, ret_value);
        return YAML_STRING;
}

/* Writing. */

/* The length of the well-formed UTF-8 sequence at @s, or 0. */
static size_t utf8_length(const unsigned char *s, size_t len) {
        if (s[0] < 0x80)
                return 1;
        size_t n = s[0] >= 0xf0 && s[0] <= 0xf4  ? 4
                   : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                   : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
                                                 : 0;
        if (n == 0 || n > len)
                return 0;
        for (size_t i = 1; i < n; i++)
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
        /* Overlong forms, surrogates, beyond U+10FFFF. */
        if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf0 && s[1] < 0x90) ||
            (s[0] == 0xf4 && s[1] >= 0x90))
                return 0;
        return n;
}

bool yaml_is_utf8(const char *s, size_t len) {
        for (size_t i = 0, n; i < len; i += n)
                if ((n = utf8_length((const unsigned char *)s + i, len - i)) == 0)
                        return false;
        return true;
}

/* Whether every character is printable and, for YAML, neither white space other than a blank nor a line break
 * (U+0085, U+2028, U+2029) nor a byte order mark. @also is let through. */
static bool is_printable(const char *text, char also) {
        for (const unsigned char *s = (const unsigned char *)text; *s;) {
                size_t n = utf8_length(s, strlen((const char *)s) < 4 ? strlen((const char *)s) : 4);
                if (n == 0)
                        return false;
                if (n == 1 && (s[0] < 0x20 || s[0] == 0x7f) && s[0] != (unsigned char)also)
                        return false;
                if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0)
                        return false;
                if (n == 3 &&
                    ((s[0] == 0xe2 && s[1] == 0x80 && (s[2] == 0xa8 || s[2] == 0xa9)) ||
                     (s[0] == 0xef && s[1] == 0xbb && s[2] == 0xbf) || (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe)))
                        return false;
                s += n;
        }
        return true;
}

bool yaml_is_plain(const char *s) {
        double ignored;
        if (yaml_resolve(s, &ignored) != YAML_STRING || str_eq(s, "=") || !is_printable(s, ' '))
                return false;
        /* Dates, times and numbers in base 60 or with 0o, which other parsers know. */
        return !strchr("0123456789+-.", *s) || s[strspn(s, "0123456789abcdefABCDEFxXoOTtZz_.:+- ")] != '\0';
}

bool yaml_is_literal(const char *s) {
        return strchr(s, '\n') && !strchr(" \n", *s) && is_printable(s, '\n');
}
