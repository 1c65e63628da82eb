/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/dotenv.h>
#include <k3s-vm/strv.h>

#define BLANKS " \t"
#define NAME_START "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
#define NAME_CHARS NAME_START "0123456789.-"
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

static void entry_clear(struct dotenv_entry *e) {
        free(e->key);
        free(e->value);
        *e = (struct dotenv_entry){0};
}
#define _cleanup_entry_ _cleanup_(entry_clear)

void dotenv_clear(struct dotenv *d) {
        for (size_t i = 0; i < d->n; i++)
                entry_clear(&d->entries[i]);
        free(d->entries);
        *d = (struct dotenv){0};
}

/* A text being read. */
struct scan {
        const char *text;
        size_t len, at;
        size_t line; /* of what is at @at */
};

static struct scan scan_begin(const char *text, size_t len) {
        size_t mark = strlen(BYTE_ORDER_MARK);
        bool marked = len >= mark && memcmp(text, BYTE_ORDER_MARK, mark) == 0;
        return (struct scan){.text = text, .len = len, .at = marked ? mark : 0, .line = 1};
}

/* The character at the scan's position, NUL at the end. */
static char peek(const struct scan *s) {
        return s->at < s->len ? s->text[s->at] : '\0';
}

static bool at_any(const struct scan *s, const char *set) {
        return peek(s) != '\0' && strchr(set, peek(s));
}

static void skip(struct scan *s, const char *set) {
        while (at_any(s, set))
                s->at++;
}

/* Whether the line ends here: at the text's end, LF, or the CR of a CRLF. */
static bool at_line_end(const struct scan *s) {
        return s->at >= s->len || s->text[s->at] == '\n' ||
               (s->text[s->at] == '\r' && (s->at + 1 == s->len || s->text[s->at + 1] == '\n'));
}

static void next_line(struct scan *s) {
        const char *newline = s->at < s->len ? memchr(s->text + s->at, '\n', s->len - s->at) : NULL;
        s->at = newline ? (size_t)(newline - s->text) + 1 : s->len;
        s->line++;
}

static bool skip_export(struct scan *s) {
        static const char word[] = "export";
        size_t n = strlen(word);
        if (s->len - s->at <= n || memcmp(s->text + s->at, word, n) != 0 || !strchr(BLANKS, s->text[s->at + n]))
                return false;
        s->at += n;
        skip(s, BLANKS);
        return true;
}

/* A value without quotes: up to the end of its line or a comment. */
static void read_bare(struct scan *s, struct dotenv_entry *e) {
        size_t end = s->at;
        for (bool after_blank = true; !at_line_end(s); s->at++) {
                if (after_blank && peek(s) == '#')
                        break;
                after_blank = at_any(s, BLANKS);
                if (!after_blank)
                        end = s->at + 1;
        }
        e->value_end = end;
        e->value = xstrndup(s->text + e->value_start, end - e->value_start);
}

/* The character that the escape at the scan's position stands for; NUL: it is none. */
static char escaped(const struct scan *s) {
        static const char from[] = "nrt\"\\$`", to[] = "\n\r\t\"\\$`";
        if (peek(s) != '\\' || s->at + 1 >= s->len)
                return '\0';
        const char *found = s->text[s->at + 1] ? strchr(from, s->text[s->at + 1]) : NULL;
        return found ? to[found - from] : '\0';
}

static int read_quoted(struct scan *s, struct dotenv_entry *e, struct error *err) {
        const char quote = peek(s);
        _cleanup_buf_ struct buf value = BUF_INIT(DOTENV_MAX_BYTES);
        for (s->at++; s->at < s->len && peek(s) != quote; s->at++) {
                char c = quote == '"' ? escaped(s) : '\0';
                if (c)
                        s->at++;
                else
                        c = peek(s);
                if (c == '\n' && peek(s) == '\n')
                        s->line++;
                /* The CR of a CRLF is how the file ends its lines, not part of the value. */
                if (peek(s) == '\r' && at_line_end(s))
                        continue;
                if (buf_append(&value, &c, 1) < 0)
                        return err_set(err, ERR_USAGE, E2BIG, "the value of %s is too long", e->key);
        }
        if (s->at >= s->len)
                return err_set(err, ERR_USAGE, EINVAL, "the quote %c that begins the value of %s is not closed", quote,
                               e->key);
        e->value_end = ++s->at;
        skip(s, BLANKS);
        if (!at_line_end(s) && peek(s) != '#')
                return err_set(err, ERR_USAGE, EINVAL, "there is text behind the closing quote of %s", e->key);
        e->value = buf_take(&value);
        if (!e->value)
                e->value = xstrdup("");
        return 0;
}

/* The assignment that begins at the scan's position, which is no comment or empty line. Where its value cannot be read
 * @e has its key and no value. */
static int read_assignment(struct scan *s, struct dotenv_entry *e, struct error *err) {
        skip_export(s);
        size_t begin = s->at;
        if (at_any(s, NAME_START))
                skip(s, NAME_CHARS);
        size_t end = s->at;
        skip(s, BLANKS);
        if (end == begin || peek(s) != '=') {
                size_t rest = strcspn(s->text + begin, "\r\n");
                _cleanup_free_ char *shown = str_printable(s->text + begin, rest < 24 ? rest : 24);
                return err_set(err, ERR_USAGE, EINVAL, "expected KEY=VALUE or a comment, not: %s%s", shown,
                               rest > 24 ? "…" : "");
        }
        s->at++;
        skip(s, BLANKS);
        e->key = xstrndup(s->text + begin, end - begin);
        e->value_start = s->at;
        if (at_any(s, "'\"`"))
                return read_quoted(s, e, err);
        read_bare(s, e);
        return 0;
}

/* 1 with the next assignment, 0 at the end. On failure the scan is behind the line that cannot be read, whose number
 * and, where it was read, key @ret has. */
static int scan_next(struct scan *s, struct dotenv_entry *ret, struct error *err) {
        for (; s->at < s->len; next_line(s)) {
                size_t start = s->at, line = s->line;
                skip(s, BLANKS);
                if (at_line_end(s) || peek(s) == '#')
                        continue;
                *ret = (struct dotenv_entry){.line = line, .start = start};
                int r = read_assignment(s, ret, err);
                if (r < 0) {
                        s->at = start;
                        s->line = line;
                }
                next_line(s);
                ret->end = s->at;
                return r < 0 ? r : 1;
        }
        return 0;
}

static void add_entry(struct dotenv *d, struct dotenv_entry *e) {
        /* Doubling: a file of a megabyte may hold as many lines. */
        if ((d->n & (d->n - 1)) == 0)
                d->entries = xreallocarray(d->entries, d->n ? d->n * 2 : 1, sizeof(*d->entries));
        d->entries[d->n++] = *e;
        *e = (struct dotenv_entry){0};
}

int dotenv_parse(const char *where, const char *text, size_t len, struct dotenv *ret, struct error *err) {
        if (len > 0 && memchr(text, '\0', len))
                return err_set(err, ERR_USAGE, EINVAL, "%s: this is not text", where);
        /* A line added behind it would change what it means. */
        if (len > 0 && text[len - 1] == '\r')
                return err_set(err, ERR_USAGE, EINVAL, "%s: its last line ends in a CR without an LF", where);
        _cleanup_free_ char *terminated = xstrndup(len > 0 ? text : "", len);
        struct scan s = scan_begin(terminated, len);
        _cleanup_dotenv_ struct dotenv d = {0};
        for (;;) {
                _cleanup_entry_ struct dotenv_entry e = {0};
                int r = scan_next(&s, &e, err);
                if (r < 0)
                        return err_wrap(err, r, "%s:%zu", where, e.line);
                if (r == 0)
                        break;
                add_entry(&d, &e);
        }
        *ret = d;
        d = (struct dotenv){0};
        return 0;
}

const struct dotenv_entry *dotenv_get(const struct dotenv *d, const char *key) {
        for (size_t i = d->n; i-- > 0;)
                if (str_eq(d->entries[i].key, key))
                        return &d->entries[i];
        return NULL;
}

/* Editing. */

/* As the parser above reads it back, and most others. */
static char *quote_value(const char *value) {
        if (value[strspn(value, NAME_CHARS "/:,+@%=")] == '\0')
                return xstrdup(value);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        if (!strpbrk(value, "'\r")) {
                buf_printf(&b, "'%s'", value);
                return buf_take(&b);
        }
        buf_puts(&b, "\"");
        for (const char *p = value; *p; p++) {
                if (*p == '\r')
                        buf_puts(&b, "\\r");
                else
                        buf_printf(&b, "%s%c", strchr("\"\\$`", *p) ? "\\" : "", *p);
        }
        buf_puts(&b, "\"");
        return buf_take(&b);
}

/* How the text ends its lines, by the last one that it ends. */
static const char *line_end_of(const char *text, size_t len) {
        const char *newline = len > 0 ? memrchr(text, '\n', len) : NULL;
        return newline && newline > text && newline[-1] == '\r' ? "\r\n" : "\n";
}

/* Appends the text with its bytes from @start to @end replaced. */
static int splice(const char *text, size_t len, size_t start, size_t end, const char *new, struct buf *ret,
                  struct error *err) {
        if (buf_append(ret, text, start) < 0 || buf_puts(ret, new) < 0 || buf_append(ret, text + end, len - end) < 0)
                return err_set(err, ERR_USAGE, E2BIG, "the file would be too large");
        return 0;
}

int dotenv_set(const char *where, const char *text, size_t len, const char *key, const char *value, struct buf *ret,
               struct error *err) {
        _cleanup_dotenv_ struct dotenv d = {0};
        int r = dotenv_parse(where, text, len, &d, err);
        if (r < 0)
                return r;
        const struct dotenv_entry *e = dotenv_get(&d, key);
        if (e && str_eq(e->value, value))
                return splice(text, len, 0, 0, "", ret, err);
        _cleanup_free_ char *quoted = quote_value(value);
        if (e) {
                /* A comment needs a blank before it, which an empty value may have had none of. */
                bool touches = e->value_end < len && text[e->value_end] == '#';
                _cleanup_free_ char *new = xasprintf("%s%s", quoted, touches ? " " : "");
                return splice(text, len, e->value_start, e->value_end, new, ret, err);
        }
        const char *line_end = line_end_of(text, len);
        bool open = len > 0 && text[len - 1] != '\n';
        _cleanup_free_ char *line = xasprintf("%s%s=%s%s", open ? line_end : "", key, quoted, open ? "" : line_end);
        return splice(text, len, len, len, line, ret, err);
}

int dotenv_unset(const char *where, const char *text, size_t len, const char *key, struct buf *ret, struct error *err) {
        _cleanup_dotenv_ struct dotenv d = {0};
        int r = dotenv_parse(where, text, len, &d, err);
        if (r < 0)
                return r;
        const struct dotenv_entry *e = dotenv_get(&d, key);
        if (!e)
                return splice(text, len, 0, 0, "", ret, err);
        size_t start = e->start, content = e->end;
        while (content > e->value_end && strchr("\r\n", text[content - 1]))
                content--;
        bool ours = e->value_start == start + strlen(key) + 1 && e->value_end == content &&
                    strncmp(text + start, key, strlen(key)) == 0;
        if (!ours)
                return splice(text, len, e->value_start, e->value_end, "", ret, err);
        /* The last line of a text without a final line end takes the line end before it along. */
        if (content == len && start > 0 && text[start - 1] == '\n')
                start -= start > 1 && text[start - 2] == '\r' ? 2 : 1;
        return splice(text, len, start, e->end, "", ret, err);
}

size_t dotenv_find(const char *text, size_t len, const char *key, char **ret_value) {
        /* It ends at a NUL, should there be one. */
        _cleanup_free_ char *terminated = xstrndup(len > 0 ? text : "", len);
        struct scan s = scan_begin(terminated, strlen(terminated));
        size_t found = 0;
        _cleanup_free_ char *value = NULL;
        for (;;) {
                _cleanup_entry_ struct dotenv_entry e = {0};
                int r = scan_next(&s, &e, NULL);
                if (r == 0)
                        break;
                if (!str_eq(e.key, key))
                        continue;
                if (r < 0) {
                        free(e.value);
                        const char *rest = terminated + e.value_start;
                        e.value = xstrndup(rest, strcspn(rest, "\r\n"));
                }
                free(value);
                value = TAKE_PTR(e.value);
                found = e.line;
        }
        if (found)
                *ret_value = TAKE_PTR(value);
        return found;
}
