/* SPDX-License-Identifier: MIT */
/* What QEMU, the guest's serial line and K3s said last: the one screen below an error. */
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/ready.h>

#define TAIL_READ_BYTES (64U * 1024)

/* The last @lines lines of @text, each made printable, under a heading. */
static void append_tail(struct buf *out, const char *heading, const char *text, size_t len, unsigned lines) {
        while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
                len--;
        if (len == 0)
                return;
        size_t start = len;
        for (unsigned found = 0; start > 0; start--)
                if (text[start - 1] == '\n' && ++found == lines)
                        break;
        buf_printf(out, "%s\n", heading);
        while (start < len) {
                size_t n = 0;
                while (start + n < len && text[start + n] != '\n')
                        n++;
                size_t visible = n > 0 && text[start + n - 1] == '\r' ? n - 1 : n;
                _cleanup_free_ char *line = str_printable(text + start, visible);
                buf_printf(out, "  %s\n", line);
                start += n + 1;
        }
}

static void append_file_tail(struct buf *out, const char *heading, const char *path, unsigned lines) {
        _cleanup_fclose_ FILE *f = fopen(path, "re");
        if (!f || fseek(f, 0, SEEK_END) < 0)
                return;
        long size = ftell(f);
        if (size < 0 || fseek(f, size > (long)TAIL_READ_BYTES ? size - (long)TAIL_READ_BYTES : 0, SEEK_SET) < 0)
                return;
        _cleanup_free_ char *text = xcalloc(1, TAIL_READ_BYTES);
        size_t n = fread(text, 1, TAIL_READ_BYTES, f);
        append_tail(out, heading, text, n, lines);
}

static void append_command(struct buf *out, struct remote *remote, const char *heading, const char *command,
                           unsigned lines) {
        _cleanup_buf_ struct buf said = BUF_INIT(1U << 20);
        const struct remote_exec exec = {.command = command, .ret_stdout = &said, .timeout_ms = 15000};
        int status = 0;
        if (remote_exec(remote, &exec, &status, NULL) == 0)
                append_tail(out, heading, buf_str(&said), said.len, lines);
}

static void append_journal(struct buf *out, const struct project *p, const struct config *c) {
        const struct remote_address address = ready_ssh_address(p, c);
        _cleanup_remote_ struct remote *remote = NULL;
        if (remote_connect(&address, 5000, &remote, NULL) < 0)
                return;
        /* Where systemd started it again, what ended it is far above what it says now. */
        append_command(out, remote, "what ended K3s:",
                       "journalctl -u k3s -b --no-pager -o cat | grep -E '^F[0-9]{4} |level=(fatal|panic)|^panic: ' | "
                       "tail -n 2",
                       2);
        append_command(out, remote, "K3s's last lines:", "journalctl -u k3s -n 12 --no-pager -o cat", 12);
}

char *diagnose(const struct project *p, const struct config *c, bool with_ssh) {
        _cleanup_buf_ struct buf out = BUF_INIT(0);
        append_file_tail(&out, "QEMU's last lines:", p->log_path, 6);
        append_file_tail(&out, "the guest's last lines on the serial line:", p->serial_path, with_ssh ? 6 : 14);
        if (with_ssh)
                append_journal(&out, p, c);
        return buf_take(&out);
}
