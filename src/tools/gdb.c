/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/gdb.h>

#define ANSWER_MAX_BYTES 4096

/* Waits for "$DATA#CC", and takes it and what is before it out of @answer. Returns the first byte of DATA, '#' for
 * none; 0: it did not come. */
static char read_packet(int fd, uint64_t deadline_ms, struct buf *answer) {
        for (;;) {
                const char *data = strchr(buf_str(answer), '$'), *end = data ? strchr(data, '#') : NULL;
                if (end && strlen(end) >= strlen("#CC")) {
                        char first = data[1];
                        buf_consume(answer, (size_t)(end - answer->data) + strlen("#CC"));
                        return first;
                }
                uint64_t now = now_ms();
                struct pollfd pfd = {.fd = fd, .events = POLLIN};
                if (now >= deadline_ms || poll(&pfd, 1, (int)(deadline_ms - now)) <= 0 || buf_read(answer, fd) <= 0)
                        return 0;
        }
}

/* One packet, and its answer, which begins with @expected. */
static int ask(int fd, const char *packet, char expected, uint64_t deadline_ms, struct buf *answer, struct error *err) {
        unsigned sum = 0;
        for (const char *p = packet; *p; p++)
                sum += (unsigned char)*p;
        /* "+" is for the answer before. */
        _cleanup_free_ char *text = xasprintf("+$%s#%02x", packet, sum & 0xffU);
        int r = fs_write_all(fd, text, strlen(text));
        if (r < 0)
                return err_errno(err, -r, "cannot write to QEMU's gdbstub");
        char first;
        do
                first = read_packet(fd, deadline_ms, answer);
        while (first == 'T' && expected != 'T'); /* that the guest has stopped is said without being asked, too */
        if (first == expected)
                return 0;
        return first ? err_set(err, ERR_FAILED, EPROTO, "QEMU's gdbstub answers something else to \"%s\"", packet)
                     : err_set(err, ERR_TIMEOUT, ETIMEDOUT, "QEMU's gdbstub does not answer \"%s\"", packet);
}

int gdb_step(int fd, unsigned timeout_ms, struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        _cleanup_buf_ struct buf answer = BUF_INIT(ANSWER_MAX_BYTES);
        /* Interrupts are let through (docs/system/gdb.rst): one that is halted would take no step otherwise. */
        int r = ask(fd, "Qqemu.sstep=1", 'O', deadline, &answer, err);
        if (r == 0)
                r = ask(fd, "s", 'T', deadline, &answer, err);
        return r < 0 ? r : ask(fd, "D", 'O', deadline, &answer, err);
}
