/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/forward.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/vm.h>

#include "config_check.h"

#define MONITOR_TIMEOUT_MS 5000
#define UNPRIVILEGED_PORT 1024

int forward_parse(const char *text, struct forward *ret, struct error *err) {
        if (strchr(text, ':') || strchr(text, '/'))
                return config_check_forward(text, ret, err);
        uint16_t port = 0;
        int r = config_check_port(text, &port, err);
        if (r == 0)
                *ret = (struct forward){.host_port = port, .guest_port = port};
        return r;
}

size_t forward_configured(const struct config *c, struct forward **ret) {
        const struct forward fixed[] = {{c->api_port, 6443}, {c->ssh_port, 22}, {c->web_port, c->web_node_port}};
        size_t n = ELEMENTSOF(fixed);
        struct forward *forwards = xcalloc(n + c->n_forwards, sizeof(*forwards));
        memcpy(forwards, fixed, sizeof(fixed));
        if (c->n_forwards > 0)
                memcpy(forwards + n, c->forwards, c->n_forwards * sizeof(*forwards));
        *ret = forwards;
        return n + c->n_forwards;
}

int forward_add(struct qmp *q, const char *rule, struct error *err) {
        _cleanup_free_ char *line = xasprintf("hostfwd_add " QEMU_NETDEV " %s", rule), *answer = NULL;
        int r = qmp_human(q, line, MONITOR_TIMEOUT_MS, &answer, err);
        if (r < 0)
                return r;
        /* It says nothing when it has done it. */
        size_t len = strcspn(answer, "\r\n");
        if (len == 0)
                return 0;
        _cleanup_free_ char *why = str_printable(answer, len);
        return err_set(err, ERR_FAILED, EADDRNOTAVAIL, "QEMU says: %s", why);
}

/* One line for QEMU's human monitor, and its answer; the caller frees. */
static int ask(const struct project *p, const struct state *s, const char *line, char **ret, struct error *err) {
        _cleanup_qmp_ struct qmp *q = NULL;
        int r = vm_connect(p, s, MONITOR_TIMEOUT_MS, &q, err);
        return r < 0 ? r : qmp_human(q, line, MONITOR_TIMEOUT_MS, ret, err);
}

int forward_open(const struct project *p, const struct state *s, const struct forward *f, struct error *err) {
        _cleanup_free_ char *rule = qemu_forward_rule(f);
        _cleanup_qmp_ struct qmp *q = NULL;
        int r = vm_connect(p, s, MONITOR_TIMEOUT_MS, &q, err);
        if (r == 0)
                r = forward_add(q, rule, err);
        if (r == 0)
                return 0;
        err_wrap(err, r, "cannot forward port %u", f->host_port);
        if (r == -EADDRNOTAVAIL && f->host_port < UNPRIVILEGED_PORT)
                err_hint(err, "ports below %d are the administrator's; use a higher one: k3s-vm ports add %u:%u",
                         UNPRIVILEGED_PORT, f->host_port + 8000U, f->guest_port);
        return r;
}

int forward_close(const struct project *p, const struct state *s, uint16_t host_port, struct error *err) {
        _cleanup_free_ char *line = xasprintf("hostfwd_remove " QEMU_NETDEV " tcp:127.0.0.1:%u", host_port),
                            *answer = NULL;
        int r = ask(p, s, line, &answer, err);
        if (r < 0)
                return err_wrap(err, r, "cannot end the forward of port %u", host_port);
        if (strstr(answer, "removed"))
                return 0;
        return err_set(err, ERR_FAILED, ENOENT, "the VM has no forward of port %u", host_port);
}

/* "TCP[HOST_FORWARD]  12       127.0.0.1  6443       10.0.2.15  6443     0     0" */
static bool parse_line(const char *line, struct forward *ret) {
        _cleanup_strv_ struct strv words = {0};
        strv_split(&words, line, " \t\r");
        uint64_t host, guest;
        if (words.len < 6 || !str_eq(words.items[0], "TCP[HOST_FORWARD]") || !str_eq(words.items[2], "127.0.0.1") ||
            str_to_u64(words.items[3], 1, UINT16_MAX, &host) < 0 ||
            str_to_u64(words.items[5], 1, UINT16_MAX, &guest) < 0)
                return false;
        *ret = (struct forward){.host_port = (uint16_t)host, .guest_port = (uint16_t)guest};
        return true;
}

void forward_parse_usernet(const char *text, struct forward **ret, size_t *ret_n) {
        _cleanup_strv_ struct strv lines = {0};
        strv_split(&lines, text, "\n");
        struct forward *forwards = xcalloc(lines.len + 1, sizeof(*forwards));
        size_t n = 0;
        for (size_t i = 0; i < lines.len; i++)
                n += parse_line(lines.items[i], &forwards[n]);
        *ret = forwards;
        *ret_n = n;
}

int forward_list(const struct project *p, const struct state *s, struct forward **ret, size_t *ret_n,
                 struct error *err) {
        _cleanup_free_ char *answer = NULL;
        int r = ask(p, s, "info usernet", &answer, err);
        if (r < 0)
                return err_wrap(err, r, "cannot ask the VM for its forwards");
        forward_parse_usernet(answer, ret, ret_n);
        return 0;
}
