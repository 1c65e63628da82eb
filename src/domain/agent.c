/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <k3s-vm/agent.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/guest.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/socket.h>

#define LINE_MAX_BYTES 4096U
#define CONNECT_TIMEOUT_MS 1000U

bool agent_is_there(const struct state *s) {
        _cleanup_guest_ struct guest *guest = NULL;
        return s->guest_dir && guest_load(s->guest_dir, &guest, NULL) == 0 && guest->agent;
}

static int connect_agent(const struct project *p, const struct state *s, int *ret_fd, struct error *err) {
        _cleanup_free_ char *folder = NULL;
        int r = project_runtime_dir(p, s->uuid, false, &folder, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *path = path_join(folder, QEMU_AGENT);
        return socket_connect(path, "QEMU", CONNECT_TIMEOUT_MS, ret_fd, err);
}

/* The rest of the line that begins with @number, if it is there already. Others are answers to requests that were given
 * up, or what the line echoed while the guest booted. */
static char *find_answer(struct buf *in, const char *number) {
        char *newline;
        while (in->len > 0 && (newline = memchr(in->data, '\n', in->len))) {
                size_t len = (size_t)(newline - in->data);
                _cleanup_free_ char *line = str_printable(in->data, len > 0 && newline[-1] == '\r' ? len - 1 : len);
                buf_consume(in, len + 1);
                if (str_starts(line, number) && line[strlen(number)] == ' ')
                        return xstrdup(line + strlen(number) + 1);
        }
        return NULL;
}

static int wait_answer(int fd, const char *number, unsigned timeout_ms, char **ret, struct error *err) {
        _cleanup_buf_ struct buf in = BUF_INIT(LINE_MAX_BYTES);
        for (uint64_t now, deadline = now_ms() + timeout_ms; (now = now_ms()) < deadline;) {
                int r = interrupt_wait(fd, (unsigned)(deadline - now), err);
                if (r < 0)
                        return r;
                ssize_t n = r > 0 ? buf_read(&in, fd) : -EAGAIN;
                if (n == 0 || (n < 0 && n != -EAGAIN))
                        return err_set(err, ERR_FAILED, ECONNRESET, "QEMU closed the line to the guest's agent");
                *ret = find_answer(&in, number);
                if (*ret)
                        return 0;
        }
        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "the guest's agent does not answer");
}

void agent_request_clear(struct agent_request *r) {
        closep_(&r->fd);
        free(r->number);
        *r = AGENT_REQUEST_INIT;
}

int agent_send(const struct project *p, const struct state *s, const char *verb, const char *argument,
               struct agent_request *ret, struct error *err) {
        _cleanup_agent_request_ struct agent_request request = {
                        .fd = -1, .number = xasprintf("%" PRIu64, now_ms()), .sent_ms = wall_ms()};
        int r = connect_agent(p, s, &request.fd, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *line =
                        xasprintf("%s %s%s%s\n", request.number, verb, argument ? " " : "", argument ? argument : "");
        r = fs_write_all(request.fd, line, strlen(line));
        if (r < 0)
                return err_errno(err, -r, "cannot reach the guest's agent");
        *ret = request;
        request = AGENT_REQUEST_INIT;
        return 0;
}

int agent_receive(const struct agent_request *r, unsigned timeout_ms, char **ret, struct error *err) {
        return wait_answer(r->fd, r->number, timeout_ms, ret, err);
}

int agent_ask(const struct project *p, const struct state *s, const char *verb, const char *argument,
              unsigned timeout_ms, char **ret, struct error *err) {
        _cleanup_agent_request_ struct agent_request request = AGENT_REQUEST_INIT;
        int r = agent_send(p, s, verb, argument, &request, err);
        return r < 0 ? r : agent_receive(&request, timeout_ms, ret, err);
}
