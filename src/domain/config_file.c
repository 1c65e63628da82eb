/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/fs.h>

#include "config_file.h"

#define BLANKS " \t"
#define NAME_START "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
#define NAME_CHARS NAME_START "0123456789"

static void line_clear(struct config_line *l) {
        free(l->raw);
        free(l->key);
        free(l->value);
}

void config_file_clear(struct config_file *f) {
        for (size_t i = 0; i < f->n; i++)
                line_clear(&f->lines[i]);
        free(f->lines);
        *f = (struct config_file){0};
}

static int expansion_error(struct error *err) {
        return err_set(err, ERR_USAGE, EINVAL,
                       "values are not expanded: put the text itself there, in single quotes if it holds $, ` or ~");
}

/* Inside "…", @p behind the opening quote. Moves it behind the closing one. */
static int parse_double_quoted(const char **p, struct buf *value, struct error *err) {
        const char *s = *p;
        for (; *s && *s != '"'; s++) {
                if (*s == '$' || *s == '`')
                        return expansion_error(err);
                /* bash keeps the backslash before anything else. */
                if (*s == '\\' && s[1] && strchr("\"\\$`", s[1]))
                        s++;
                buf_append(value, s, 1);
        }
        if (!*s)
                return err_set(err, ERR_USAGE, EINVAL, "a double quote is not closed on its line");
        *p = s + 1;
        return 0;
}

/* One value, up to the blank or the end of line behind it. Quoted and bare parts may follow one another. */
static int parse_value(const char **p, struct buf *value, struct error *err) {
        const char *s = *p;
        if (*s == '~')
                return expansion_error(err);
        if (*s == '(')
                return err_set(err, ERR_USAGE, EINVAL, "arrays are not supported");
        while (*s && !strchr(BLANKS, *s)) {
                if (*s == '\'') {
                        size_t n = strcspn(s + 1, "'");
                        if (!s[1 + n])
                                return err_set(err, ERR_USAGE, EINVAL, "a single quote is not closed on its line");
                        buf_append(value, s + 1, n);
                        s += n + 2;
                } else if (*s == '"') {
                        s++;
                        int r = parse_double_quoted(&s, value, err);
                        if (r < 0)
                                return r;
                } else if (*s == '\\') {
                        if (!s[1])
                                return err_set(err, ERR_USAGE, EINVAL, "lines cannot be continued with \\");
                        buf_append(value, s + 1, 1);
                        s += 2;
                } else if (*s == '$' || *s == '`')
                        return expansion_error(err);
                else if (strchr(";&|<>()", *s))
                        return err_set(err, ERR_USAGE, EINVAL, "unexpected %c: a value that holds it must be quoted",
                                       *s);
                else
                        buf_append(value, s++, 1);
        }
        *p = s;
        return 0;
}

/* @l->raw holds the line's text; fills in the rest. */
static int parse_line(struct config_line *l, struct error *err) {
        _cleanup_free_ char *text = xstrdup(l->raw);
        size_t len = strlen(text);
        if (len > 0 && text[len - 1] == '\r')
                text[len - 1] = '\0';
        const char *p = text + strspn(text, BLANKS);
        if (*p == '\0' || *p == '#')
                return 0;
        if (str_starts(p, "export") && strchr(BLANKS, p[6]) && p[6])
                p += 6 + strspn(p + 6, BLANKS);
        size_t n = strchr(NAME_START, *p) ? strspn(p, NAME_CHARS) : 0;
        if (n > 0 && p[n] == '[')
                return err_set(err, ERR_USAGE, EINVAL, "arrays are not supported");
        if (n == 0 || p[n] != '=') {
                _cleanup_free_ char *shown = str_printable(p, strnlen(p, 40));
                if (n > 0 && strchr(BLANKS, p[n]) && p[n] && p[n + strspn(p + n, BLANKS)] == '=')
                        return err_set(err, ERR_USAGE, EINVAL, "no blanks are allowed around =: %s", shown);
                return err_set(err, ERR_USAGE, EINVAL, "expected KEY=VALUE or a comment, not: %s", shown);
        }
        _cleanup_free_ char *key = xstrndup(p, n);
        p += n + 1;

        _cleanup_buf_ struct buf value = BUF_INIT(0);
        l->value_start = (size_t)(p - text);
        int r = parse_value(&p, &value, err);
        if (r < 0)
                return err_wrap(err, r, "%s", key);
        l->value_end = (size_t)(p - text);
        size_t blanks = strspn(p, BLANKS);
        p += blanks;
        if (*p != '\0' && *p != '#')
                return err_set(err, ERR_USAGE, EINVAL, "%s: a value that holds blanks must be quoted", key);
        l->key = TAKE_PTR(key);
        l->value = buf_take(&value);
        return 0;
}

static bool is_text(const char *s, size_t len) {
        for (size_t i = 0; i < len; i++) {
                unsigned char c = (unsigned char)s[i];
                if ((c < 0x20 && c != '\t' && !(c == '\r' && i + 1 == len)) || c == 0x7f)
                        return false;
        }
        return true;
}

static struct config_line *add_line(struct config_file *f) {
        /* Doubling, since a file of a megabyte may hold as many lines. */
        if ((f->n & (f->n - 1)) == 0)
                f->lines = xreallocarray(f->lines, f->n ? f->n * 2 : 1, sizeof(*f->lines));
        struct config_line *l = &f->lines[f->n++];
        *l = (struct config_line){0};
        return l;
}

int config_file_parse(const char *where, const char *text, size_t len, struct config_file *ret, struct error *err) {
        _cleanup_config_file_ struct config_file f = {0};
        for (size_t at = 0; at < len;) {
                const char *newline = memchr(text + at, '\n', len - at);
                size_t n = newline ? (size_t)(newline - text) - at : len - at;
                struct config_line *l = add_line(&f);
                int r;
                if (is_text(text + at, n)) {
                        l->raw = xstrndup(text + at, n);
                        r = parse_line(l, err);
                } else
                        r = err_set(err, ERR_USAGE, EINVAL, "this is not text");
                if (r < 0) {
                        if (err)
                                err->code = ERR_USAGE;
                        err_wrap(err, r, "%s:%zu", where, f.n);
                        _cleanup_free_ char *quoted = str_shell_quote(where);
                        err_hint(err, "mend line %zu of that file, or take it out: sed -i %zud %s", f.n, f.n, quoted);
                        return r;
                }
                at += n + 1;
        }
        *ret = f;
        f = (struct config_file){0};
        return 0;
}

const char *config_file_problem(int r) {
        return r == -ENOENT   ? "it is a symlink to a file that is not there"
               : r == -EISDIR ? "it is a folder, not a file"
               : r == -EINVAL ? "it is not a regular file"
               : r == -ELOOP  ? "it is a symlink that leads to itself"
               : r == -EFBIG  ? "it is larger than 1 MiB"
                              : strerror(-r);
}

/* The text of the file; empty, with @ret_exists false, when there is none. */
static int read_text(const char *path, const char *shown, struct buf *ret, bool *ret_exists, struct error *err) {
        _cleanup_error_ struct error cause = ERROR_INIT;
        int r = fs_read(path, CONFIG_FILE_MAX_BYTES, ret, &cause);
        *ret_exists = r == 0;
        if (r == 0)
                return 0;
        struct stat st;
        if (r == -ENOENT && lstat(path, &st) < 0)
                return 0;
        err_set(err, ERR_USAGE, -r, "%s: cannot read the configuration: %s", shown, config_file_problem(r));
        _cleanup_free_ char *quoted = str_shell_quote(path), *aside = xasprintf("%s.old", path),
                            *quoted_aside = str_shell_quote(aside);
        if (r == -EACCES)
                err_hint(err, "sudo chown \"$USER\" %s && chmod u+rw %s", quoted, quoted);
        else
                err_hint(err, "move it away, and the defaults hold: mv %s %s", quoted, quoted_aside);
        return r;
}

int config_file_read(const char *path, const char *shown, struct config_file *ret, bool *ret_exists,
                     struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(CONFIG_FILE_MAX_BYTES);
        int r = read_text(path, shown, &text, ret_exists, err);
        return r < 0 ? r : config_file_parse(shown, buf_str(&text), text.len, ret, err);
}

static struct config_line *last_line(const struct config_file *f, const char *key) {
        for (size_t i = f->n; i-- > 0;)
                if (str_eq(f->lines[i].key, key))
                        return &f->lines[i];
        return NULL;
}

size_t config_file_find(const struct config_file *f, const char *key, const char **ret_value) {
        struct config_line *l = last_line(f, key);
        if (!l)
                return 0;
        if (ret_value)
                *ret_value = l->value;
        return (size_t)(l - f->lines) + 1;
}

/* As both bash and this parser read it. */
static char *quote_value(const char *value) {
        if (*value && value[strspn(value, NAME_CHARS "-./:,+@%")] == '\0')
                return xstrdup(value);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        if (!strchr(value, '\'')) {
                buf_printf(&b, "'%s'", value);
                return buf_take(&b);
        }
        buf_puts(&b, "\"");
        for (const char *p = value; *p; p++) {
                if (strchr("\"\\$`", *p))
                        buf_puts(&b, "\\");
                buf_append(&b, p, 1);
        }
        buf_puts(&b, "\"");
        return buf_take(&b);
}

static void remove_key(struct config_file *f, const char *key) {
        size_t kept = 0;
        for (size_t i = 0; i < f->n; i++) {
                if (str_eq(f->lines[i].key, key))
                        line_clear(&f->lines[i]);
                else
                        f->lines[kept++] = f->lines[i];
        }
        while (f->n > kept)
                f->lines[--f->n] = (struct config_line){0};
        /* add_line() grows at powers of two and relies on the room below the next one being there. */
        size_t room = 1;
        while (room < kept)
                room *= 2;
        f->lines = xreallocarray(f->lines, room, sizeof(*f->lines));
}

void config_file_set(struct config_file *f, const char *key, const char *value) {
        if (!*value) {
                remove_key(f, key);
                return;
        }
        _cleanup_free_ char *quoted = quote_value(value);
        struct config_line *l = last_line(f, key);
        if (!l) {
                l = add_line(f);
                l->key = xstrdup(key);
                l->raw = xasprintf("%s=%s", key, quoted);
                l->value_start = strlen(key) + 1;
        } else {
                if (str_eq(l->value, value))
                        return;
                char *raw = xasprintf("%.*s%s%s", (int)l->value_start, l->raw, quoted, l->raw + l->value_end);
                free(l->raw);
                l->raw = raw;
        }
        l->value_end = l->value_start + strlen(quoted);
        free(l->value);
        l->value = xstrdup(value);
}

void config_file_print(const struct config_file *f, struct buf *ret) {
        for (size_t i = 0; i < f->n; i++) {
                buf_puts(ret, f->lines[i].raw);
                buf_puts(ret, "\n");
        }
}
