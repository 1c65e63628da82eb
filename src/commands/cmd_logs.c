/* SPDX-License-Identifier: MIT */
/*
 * What a guest writes is shown, so nothing of it may steer the terminal that shows it: every line loses its
 * escape sequences, wherever it goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/connect.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/tail.h>
#include <k3s-vm/ui.h>

#define LINES_DEFAULT 100
#define LINES_MAX 100000000

struct output {
        FILE *file;
        bool events;        /* lines are JSON and made readable */
        struct json *array; /* --json: lines are collected here */
};

/* The length of the escape sequence at @s (ECMA-48 CSI: colours, cursor), or 0. */
static size_t csi_length(const char *s, size_t len) {
        if (len < 3 || s[0] != '\033' || s[1] != '[')
                return 0;
        size_t n = 2;
        while (n < len && s[n] >= 0x20 && s[n] <= 0x3f)
                n++;
        return n < len && s[n] >= 0x40 && s[n] <= 0x7e ? n + 1 : 0;
}

/* Colours are dropped, tabs stay, whatever else would reach the terminal's own logic is spelt out. */
static char *clean_line(const char *line, size_t len) {
        while (len > 0 && line[len - 1] == '\r')
                len--;
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        size_t begin = 0;
        for (size_t i = 0; i <= len;) {
                size_t skip = i < len ? csi_length(line + i, len - i) : 0;
                bool tab = i < len && line[i] == '\t';
                if (i < len && !skip && !tab) {
                        i++;
                        continue;
                }
                _cleanup_free_ char *part = str_printable(line + begin, i - begin);
                buf_puts(&text, part);
                if (tab)
                        buf_puts(&text, "\t");
                i += skip ? skip : 1;
                begin = i;
        }
        return buf_take(&text);
}

/* "2026-01-31T12:34:56Z  phase  name=boot ms=13000" from a line of events.jsonl. */
static char *readable_event(const struct json *event) {
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        double time_ms = 0;
        const char *time_text = json_string(json_get(event, "time"));
        if (time_text)
                buf_puts(&text, time_text);
        else if (json_number(json_get(event, "time"), &time_ms) && time_ms >= 0 && time_ms < JSON_INTEGER_MAX) {
                _cleanup_free_ char *shown = time_rfc3339((time_t)(time_ms / 1000));
                buf_puts(&text, shown);
        }
        buf_printf(&text, "  %-12s", json_string_or(json_get(event, "event"), "?"));
        for (const struct json *field = json_first(event); field; field = json_next(field)) {
                const char *key = json_key(field);
                if (str_eq(key, "time") || str_eq(key, "event"))
                        continue;
                _cleanup_free_ char *printed = json_string(field) ? NULL : json_print(field, false);
                buf_printf(&text, " %s=%s", key, printed ? printed : json_string(field));
        }
        return clean_line(buf_str(&text), text.len);
}

static int on_line(const char *line, size_t len, void *userdata) {
        struct output *out = userdata;
        _cleanup_json_ struct json *event = NULL;
        if (out->events && json_parse(line, len, &event, NULL) == 0 && json_is_object(event) && out->array) {
                json_append(out->array, TAKE_PTR(event));
                return 0;
        }
        _cleanup_free_ char *text = json_is_object(event) ? readable_event(event) : clean_line(line, len);
        if (out->array)
                json_append_string(out->array, text);
        else if (fprintf(out->file, "%s\n", text) < 0)
                return -errno;
        return 0;
}

static void on_pause(void *userdata) {
        fflush(((struct output *)userdata)->file);
}

static int logs_file(struct context *ctx, const char *path, const char *what, uint64_t lines, bool follow,
                     struct output *out, struct error *err) {
        const struct tail_spec spec = {.path = path,
                                       .lines = lines,
                                       .follow = follow,
                                       .hangup_fd = STDOUT_FILENO,
                                       .on_line = on_line,
                                       .on_pause = on_pause,
                                       .userdata = out};
        int r = tail_file(&spec, err);
        if (r == -ENOENT) {
                r = err_set(err, ERR_STATE, ENOENT, "there is no %s log yet", what);
                err_hint(err, "k3s-vm start");
        }
        (void)ctx;
        return r;
}

/* The journal comes through a pipe, so that its lines are cleaned on their way. */
struct relay {
        int fd; /* read end */
        struct output *out;
};

static void *relay_main(void *userdata) {
        struct relay *relay = userdata;
        _cleanup_buf_ struct buf text = BUF_INIT(2 * TAIL_LINE_MAX);
        bool open_end = true;
        int r = 0;
        while (open_end && r >= 0) {
                ssize_t n = buf_read(&text, relay->fd);
                open_end = n > 0;
                for (;;) {
                        const char *newline = text.len ? memchr(text.data, '\n', text.len) : NULL;
                        size_t len = newline ? (size_t)(newline - text.data) : text.len;
                        if (len == 0 && !newline)
                                break;
                        if (!newline && open_end && len < TAIL_LINE_MAX)
                                break;
                        if (r >= 0)
                                r = on_line(text.data, len, relay->out);
                        buf_consume(&text, len + (newline ? 1 : 0));
                }
                if (r >= 0 && !relay->out->array && fflush(relay->out->file) == EOF)
                        r = -errno;
        }
        /* The writer gets EPIPE and ends when nobody reads any more. */
        close(relay->fd);
        return NULL;
}

/* remote_exec_stdio() speaks to descriptors 0 and 1: for as long as it runs, those are /dev/null and the pipe, and
 * the output goes to the real one under another number. */
static int relay_journal(struct remote *remote, const char *command, struct output *out, int *ret_status,
                         struct error *err) {
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_errno(err, errno, "cannot create a pipe");
        struct relay relay = {.fd = fds[0], .out = out};
        _cleanup_close_ int write_end = fds[1];
        _cleanup_close_ int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int real = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        FILE *real_stdout = real >= 0 ? fdopen(real, "w") : NULL;
        if (null < 0 || !real_stdout) {
                int r = err_errno(err, errno, "cannot set up the output");
                close(relay.fd);
                closep_(&real);
                return r;
        }
        fflush(stdout);
        out->file = real_stdout;
        dup2(null, STDIN_FILENO);
        dup2(write_end, STDOUT_FILENO);
        pthread_t thread;
        int r = pthread_create(&thread, NULL, relay_main, &relay);
        if (r != 0) {
                r = err_errno(err, r, "cannot start a thread");
                close(relay.fd);
        } else {
                r = remote_exec_stdio(remote, command, false, ret_status, err);
                closep_(&write_end);
                write_end = -1;
                close(STDOUT_FILENO);
                pthread_join(thread, NULL);
        }
        dup2(real, STDOUT_FILENO);
        out->file = stdout;
        if (fclose(real_stdout) == EOF && r >= 0 && errno != EPIPE)
                r = err_errno(err, errno, "cannot write the output");
        return r;
}

static int logs_k3s(struct context *ctx, const struct state *s, uint64_t lines, bool follow, struct output *out,
                    bool may_fall_back, struct error *err) {
        _cleanup_remote_ struct remote *remote = NULL;
        int r = context_connect(ctx, s, &remote, err);
        if (r < 0 && may_fall_back) {
                progress_note(ctx->progress, "%s; this is the serial line", err->message);
                error_clear(err);
                return logs_file(ctx, ctx->project->serial_path, "serial", lines, follow, out, err);
        }
        if (r < 0)
                return r;
        _cleanup_free_ char *count = lines == TAIL_ALL ? xstrdup("all") : xasprintf("%" PRIu64, lines);
        _cleanup_free_ char *command =
                        xasprintf("exec journalctl -u k3s --no-pager -n %s%s 2>&1", count, follow ? " -f" : "");
        int status = 0;
        r = relay_journal(remote, command, out, &status, err);
        if (r == 0 && status == 128 + SIGPIPE)
                return -EPIPE;
        /* Interrupted, which is how following ends. */
        if (r == 0 && follow && status != 0)
                return ERR_INTERRUPTED;
        if (r == 0 && status != 0)
                r = err_set(err, ERR_FAILED, EIO, "journalctl in the guest exited with status %d", status);
        return r;
}

static int show(struct context *ctx, const char *source, uint64_t lines, bool follow, struct output *out,
                const char **ret_source, struct error *err) {
        const struct project *p = ctx->project;
        _cleanup_state_ struct state *s = NULL;
        bool k3s = !source || str_eq(source, "k3s");
        int r = k3s ? context_running(ctx, &s, err) : context_state(ctx, &s, err);
        /* A damaged state.json is no reason to keep the logs from those who need them now. */
        if (r == -EUCLEAN && !k3s)
                r = 0;
        if (!source && r < 0 && r != -ENOENT) {
                progress_note(ctx->progress, "%s; this is the serial line", err->message);
                error_clear(err);
                source = "serial";
                r = 0;
        }
        if (r < 0)
                return r;
        *ret_source = source ? source : "k3s";
        if (str_eq(source, "vm"))
                return logs_file(ctx, p->log_path, source, lines, follow, out, err);
        if (str_eq(source, "serial"))
                return logs_file(ctx, p->serial_path, source, lines, follow, out, err);
        if (str_eq(source, "supervisor")) {
                out->events = true;
                return logs_file(ctx, p->events_path, source, lines, follow, out, err);
        }
        return logs_k3s(ctx, s, lines, follow, out, !source, err);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        const char *source = args->rest.len > 0 ? args->rest.items[0] : NULL;
        if (args->rest.len > 1 || (source && !str_eq(source, "vm") && !str_eq(source, "serial") &&
                                   !str_eq(source, "k3s") && !str_eq(source, "supervisor"))) {
                int r = err_set(err, ERR_USAGE, EINVAL, "there is no log \"%s\"", args->rest.items[args->rest.len - 1]);
                err_hint(err, "one of: vm serial k3s supervisor");
                return r;
        }
        const char *count = arguments_get(&cmd_logs, args, "lines");
        uint64_t lines = LINES_DEFAULT;
        if (str_eq(count, "all"))
                lines = TAIL_ALL;
        else if (count && str_to_u64(count, 0, LINES_MAX, &lines) < 0) {
                int r = err_set(err, ERR_USAGE, EINVAL, "--lines wants a number or \"all\", not \"%s\"", count);
                err_hint(err, "k3s-vm logs --help");
                return r;
        }
        bool follow = arguments_get(&cmd_logs, args, "follow");
        if (follow && ctx->json)
                return err_set(err, ERR_USAGE, EINVAL, "--json gives one whole object, --follow never ends: not both");

        _cleanup_json_ struct json *array = ctx->json ? json_new_array() : NULL;
        struct output out = {.file = stdout, .array = array};
        const char *shown = NULL;
        int r = context_project(ctx, err);
        if (r == 0)
                r = show(ctx, source, lines, follow, &out, &shown, err);
        if (r == -EPIPE)
                return 0; /* whoever read it has seen enough */
        if (r != 0 || !ctx->json)
                return r;
        _cleanup_json_ struct json *document = json_new_object();
        json_set_string(document, "source", shown);
        json_set(document, out.events ? "events" : "lines", TAKE_PTR(array));
        ui_print_json(document);
        return 0;
}

const struct command cmd_logs = {
                .name = "logs",
                .operands = "[vm|serial|k3s|supervisor]",
                .summary = "show what QEMU, the serial line, K3s or the supervisor wrote",
                .details = "vm          QEMU's own output\n"
                           "serial      the guest's serial console\n"
                           "k3s         K3s's journal, read in the guest (the default while the VM runs)\n"
                           "supervisor  what happened to the VM, with times\n\n"
                           "Control characters that the guest wrote are made visible.",
                .options = COMMAND_OPTIONS(
                                {"follow", 'f', NULL, "go on with what is added, until interrupted"},
                                {"lines", 'n', "N", "begin with the last N lines, or \"all\" (default: 100)"}),
                .run = run,
};
