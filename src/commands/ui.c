/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/strv.h>
#include <k3s-vm/ui.h>

#define REDRAW_INTERVAL_MS 100
#define RATE_INTERVAL_MS 5000   /* the rate is that of the last one to two of these */
#define PLAIN_INTERVAL_MS 15000 /* a sign of life where nothing can be redrawn */

struct progress_phase {
        struct ui *ui;
        struct progress_phase *next;
        char *name, *text;
        char *now; /* what it is doing */
        uint64_t done, total;
        const char *unit;
        uint64_t begin_ms;
        uint64_t said_ms;            /* plain output: when it last gave a sign of life */
        uint64_t rate_ms, rate_done; /* since when, from where the rate is measured */
        uint64_t next_ms, next_done; /* the same for later: it is the rate of the last seconds */
};

struct ui {
        struct progress progress; /* first: a struct progress * is a struct ui * */
        bool quiet, debug, terminal;
        pthread_mutex_t lock; /* builds run side by side and report from their threads */
        struct progress_phase *phases;
        unsigned drawn_lines;
        uint64_t drawn_ms;
};

static bool color_wanted(int fd) {
        const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
        return isatty(fd) && !(no_color && *no_color) && term && !str_eq(term, "dumb");
}

const char *ui_style(int fd, enum ui_style style) {
        static const char *const sequences[] = {
                        [UI_PLAIN] = "\033[0m",  [UI_BOLD] = "\033[1m",    [UI_DIM] = "\033[2m",
                        [UI_GREEN] = "\033[32m", [UI_YELLOW] = "\033[33m", [UI_RED] = "\033[31m",
        };
        return color_wanted(fd) ? sequences[style] : "";
}

static unsigned terminal_columns(void) {
        struct winsize size;
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
                return 80;
        return size.ws_col;
}

/* Everything goes out in one write, so that lines of two programs on one terminal do not mix. */
static void emit(const char *text) {
        size_t len = strlen(text);
        while (len > 0) {
                ssize_t n = write(STDERR_FILENO, text, len);
                if (n <= 0)
                        return;
                text += n;
                len -= (size_t)n;
        }
}

static void erase(struct ui *ui, struct buf *out) {
        for (unsigned i = 0; i < ui->drawn_lines; i++)
                buf_puts(out, "\033[1A\033[2K");
        ui->drawn_lines = 0;
}

/* "12.3 MB of 50 MB, 4 MB/s, 9.4 s left" or "31/83" */
static char *measure(const struct progress_phase *phase) {
        if (phase->total == 0 && phase->done == 0)
                return NULL;
        if (!str_eq(phase->unit, "bytes"))
                return xasprintf("%llu/%llu%s%s", (unsigned long long)phase->done, (unsigned long long)phase->total,
                                 phase->unit && *phase->unit ? " " : "", phase->unit ? phase->unit : "");
        _cleanup_free_ char *done = str_bytes(phase->done), *total = str_bytes(phase->total);
        uint64_t elapsed = now_ms() - phase->rate_ms;
        uint64_t rate = elapsed > 500 && phase->done >= phase->rate_done
                                        ? (phase->done - phase->rate_done) * 1000 / elapsed
                                        : 0;
        _cleanup_free_ char *rate_text = str_bytes(rate);
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        buf_puts(&text, done);
        if (phase->total > 0)
                buf_printf(&text, " of %s", total);
        if (rate > 0)
                buf_printf(&text, ", %s/s", rate_text);
        if (rate > 0 && phase->total > phase->done) {
                _cleanup_free_ char *left = str_duration_ms((phase->total - phase->done) * 1000 / rate);
                buf_printf(&text, ", %s left", left);
        }
        return buf_take(&text);
}

static void draw_bar(struct buf *out, uint64_t done, uint64_t total) {
        enum { WIDTH = 20 };
        unsigned filled = total ? (unsigned)(done >= total ? WIDTH : done * WIDTH / total) : 0;
        buf_puts(out, "[");
        for (unsigned i = 0; i < WIDTH; i++)
                buf_puts(out, i < filled ? "=" : i == filled ? ">" : " ");
        buf_puts(out, "] ");
}

/* One line for a running phase, cut to the terminal's width. */
static void draw_phase(struct buf *out, const struct progress_phase *phase) {
        _cleanup_buf_ struct buf line = BUF_INIT(0);
        _cleanup_free_ char *elapsed = str_duration_ms(now_ms() - phase->begin_ms);
        _cleanup_free_ char *measured = measure(phase);
        buf_printf(&line, "  %-9s %s  ", phase->name, elapsed);
        if (phase->total > 0)
                draw_bar(&line, phase->done, phase->total);
        if (measured)
                buf_printf(&line, "%s  ", measured);
        buf_puts(&line, phase->now ? phase->now : phase->text);
        size_t width = terminal_columns() - 1, cells = 0, end = 0;
        while (end < line.len && cells < width) {
                end++;
                while (end < line.len && (line.data[end] & 0xc0) == 0x80)
                        end++;
                cells++;
        }
        buf_append(out, line.data, end);
        buf_puts(out, "\n");
}

static void redraw(struct ui *ui, struct buf *out) {
        erase(ui, out);
        for (struct progress_phase *phase = ui->phases; phase; phase = phase->next) {
                draw_phase(out, phase);
                ui->drawn_lines++;
        }
        ui->drawn_ms = now_ms();
}

/* Prints a finished line above whatever is being redrawn. */
static void print_line(struct ui *ui, const char *line) {
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        if (ui->terminal)
                erase(ui, &out);
        buf_puts(&out, line);
        buf_puts(&out, "\n");
        if (ui->terminal)
                redraw(ui, &out);
        emit(buf_str(&out));
}

static struct progress_phase *ui_begin(struct progress *p, const char *name, const char *text) {
        struct ui *ui = (struct ui *)p;
        struct progress_phase *phase = xcalloc(1, sizeof(*phase));
        *phase = (struct progress_phase){.ui = ui,
                                         .name = xstrdup(name),
                                         .text = xstrdup(text),
                                         .begin_ms = now_ms(),
                                         .said_ms = now_ms(),
                                         .rate_ms = now_ms()};
        pthread_mutex_lock(&ui->lock);
        struct progress_phase **last = &ui->phases;
        while (*last)
                last = &(*last)->next;
        *last = phase;
        if (ui->terminal && !ui->quiet) {
                _cleanup_buf_ struct buf out = BUF_INIT(0);
                redraw(ui, &out);
                emit(buf_str(&out));
        }
        pthread_mutex_unlock(&ui->lock);
        return phase;
}

static void ui_update(struct progress_phase *phase, const char *text, uint64_t done, uint64_t total, const char *unit) {
        struct ui *ui = phase->ui;
        pthread_mutex_lock(&ui->lock);
        if (text && !str_eq(text, phase->now)) {
                free(phase->now);
                phase->now = xstrdup(text);
        }
        uint64_t now = now_ms();
        /* From the start of it, or of the next file. */
        if ((phase->done == 0 && done > 0) || done < phase->done) {
                phase->rate_ms = phase->next_ms = now;
                phase->rate_done = phase->next_done = done;
        } else if (now - phase->next_ms >= RATE_INTERVAL_MS) {
                phase->rate_ms = phase->next_ms;
                phase->rate_done = phase->next_done;
                phase->next_ms = now;
                phase->next_done = done;
        }
        phase->done = done;
        phase->total = total;
        phase->unit = unit;
        if (ui->terminal && !ui->quiet && now - ui->drawn_ms >= REDRAW_INTERVAL_MS) {
                _cleanup_buf_ struct buf out = BUF_INIT(0);
                redraw(ui, &out);
                emit(buf_str(&out));
        } else if (!ui->terminal && !ui->quiet && now - phase->said_ms >= PLAIN_INTERVAL_MS) {
                _cleanup_buf_ struct buf out = BUF_INIT(0);
                draw_phase(&out, phase);
                emit(buf_str(&out));
                phase->said_ms = now;
        }
        pthread_mutex_unlock(&ui->lock);
}

static void phase_free(struct progress_phase *phase) {
        free(phase->name);
        free(phase->text);
        free(phase->now);
        free(phase);
}

static void ui_end(struct progress_phase *phase, int ok, const char *text) {
        struct ui *ui = phase->ui;
        pthread_mutex_lock(&ui->lock);
        struct progress_phase **link = &ui->phases;
        while (*link && *link != phase)
                link = &(*link)->next;
        if (*link)
                *link = phase->next;
        if (!ui->quiet) {
                _cleanup_free_ char *elapsed = str_duration_ms(now_ms() - phase->begin_ms);
                const char *color = ui_style(STDERR_FILENO, ok ? UI_GREEN : UI_RED);
                const char *dim = ui_style(STDERR_FILENO, UI_DIM), *plain = ui_style(STDERR_FILENO, UI_PLAIN);
                _cleanup_free_ char *line = xasprintf("%s%s%s %-9s %s %s(%s)%s", color, ok ? "+" : "x", plain,
                                                      phase->name, text ? text : phase->text, dim, elapsed, plain);
                print_line(ui, line);
        }
        pthread_mutex_unlock(&ui->lock);
        phase_free(phase);
}

static void ui_note(struct progress *p, int warning, const char *text) {
        struct ui *ui = (struct ui *)p;
        if (ui->quiet && !warning)
                return;
        _cleanup_free_ char *line = xasprintf("%s%s%s %s", ui_style(STDERR_FILENO, warning ? UI_YELLOW : UI_DIM),
                                              warning ? "!" : "-", ui_style(STDERR_FILENO, UI_PLAIN), text);
        pthread_mutex_lock(&ui->lock);
        print_line(ui, line);
        pthread_mutex_unlock(&ui->lock);
}

static void ui_debug(struct progress *p, const char *text) {
        struct ui *ui = (struct ui *)p;
        if (!ui->debug)
                return;
        _cleanup_free_ char *line = xasprintf("%sdebug: %s%s", ui_style(STDERR_FILENO, UI_DIM), text,
                                              ui_style(STDERR_FILENO, UI_PLAIN));
        pthread_mutex_lock(&ui->lock);
        print_line(ui, line);
        pthread_mutex_unlock(&ui->lock);
}

struct progress *ui_new(bool quiet, bool debug) {
        static const struct progress_ops ops = {ui_begin, ui_update, ui_end, ui_note, ui_debug};
        struct ui *ui = xcalloc(1, sizeof(*ui));
        const char *term = getenv("TERM");
        *ui = (struct ui){
                        .progress.ops = &ops,
                        .quiet = quiet,
                        .debug = debug,
                        .terminal = isatty(STDERR_FILENO) && term && !str_eq(term, "dumb"),
        };
        pthread_mutex_init(&ui->lock, NULL);
        return &ui->progress;
}

void ui_finish(struct progress *p) {
        struct ui *ui = (struct ui *)p;
        if (!ui)
                return;
        pthread_mutex_lock(&ui->lock);
        while (ui->phases) {
                struct progress_phase *phase = ui->phases;
                ui->phases = phase->next;
                phase_free(phase);
        }
        if (ui->terminal) {
                _cleanup_buf_ struct buf out = BUF_INIT(0);
                erase(ui, &out);
                emit(buf_str(&out));
        }
        pthread_mutex_unlock(&ui->lock);
}

/* Prints @text with @prefix before its first line and as much indentation before the others. */
static void print_block(const char *prefix, const char *text) {
        size_t indent = strlen(prefix);
        for (bool first = true; *text; first = false) {
                size_t n = strcspn(text, "\n");
                fprintf(stderr, "%*s%.*s\n", (int)indent, first ? prefix : "", (int)n, text);
                text += n + (text[n] == '\n');
        }
}

/* What mends an error of the system that can meet any command at any write; NULL: that depends. */
static const char *usual_hint(int errnum) {
        switch (errnum) {
        case ENOSPC:
        case EDQUOT:
                return "make room on that file system (see df -h), then run the same command again";
        case EROFS:
                return "that file system is read-only; use a folder that can be written to: k3s-vm --project DIR";
        default:
                return NULL;
        }
}

void ui_error(const struct error *err) {
        const char *hint = err->hint && *err->hint ? err->hint : usual_hint(err->errnum);
        fprintf(stderr, "%sk3s-vm: %s%s\n", ui_style(STDERR_FILENO, UI_RED), err->message ? err->message : "it failed",
                ui_style(STDERR_FILENO, UI_PLAIN));
        if (err->detail && *err->detail)
                print_block("    | ", err->detail);
        if (hint)
                print_block("  mend it: ", hint);
}

void ui_print_json(const struct json *j) {
        _cleanup_free_ char *text = json_print(j, true);
        fputs(text, stdout);
}
