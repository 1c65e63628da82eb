/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/connect.h>
#include <k3s-vm/doze.h>
#include <k3s-vm/interrupt.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/vm.h>

#define RETRIES 4
#define RETRY_PAUSE_MS 500
#define CONNECT_TIMEOUT_MS 20000

int context_running(struct context *ctx, struct state **ret, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_state(ctx, &s, err);
        if (r < 0)
                return r;
        _cleanup_process_ struct process vm = PROCESS_INIT;
        r = vm_find(ctx->project, s, &vm, err);
        if (r == -ESRCH && supervisor_dozes(ctx->project)) {
                r = doze_wake(s, err);
                if (r == 0)
                        r = vm_find(ctx->project, s, &vm, err);
        }
        if (r == -ESRCH) {
                r = err_set(err, ERR_STATE, ESRCH, "the VM is not running");
                err_hint(err, "k3s-vm start");
        }
        if (r < 0)
                return r;
        supervisor_ensure(ctx->project, s, &vm);
        *ret = TAKE_PTR(s);
        return 0;
}

int context_connect(struct context *ctx, const struct state *s, struct remote **ret, struct error *err) {
        const struct project *p = ctx->project;
        const struct remote_address address = {
                        .host = "127.0.0.1",
                        .port = s->ssh_port,
                        .user = "root",
                        .key_path = p->key_path,
                        .host_key_pub = p->host_key_pub_path,
        };
        int r = remote_connect(&address, CONNECT_TIMEOUT_MS, ret, err);
        /* A server that just started, or that has many visitors, drops some of them. */
        for (unsigned again = 0; r == -ECONNRESET && again < RETRIES; again++) {
                if (interrupt_wait(-1, RETRY_PAUSE_MS, err) < 0)
                        return -ECANCELED;
                r = remote_connect(&address, CONNECT_TIMEOUT_MS, ret, err);
        }
        if (r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT) {
                err_wrap(err, r, "the guest does not answer on SSH port %u yet", s->ssh_port);
                err_hint(err, "k3s-vm start waits for it; k3s-vm logs serial shows what it is doing");
                if (err)
                        err->code = ERR_STATE;
        }
        return r;
}

int context_connect_running(struct context *ctx, struct remote **ret, struct error *err) {
        _cleanup_state_ struct state *s = NULL;
        int r = context_running(ctx, &s, err);
        return r < 0 ? r : context_connect(ctx, s, ret, err);
}

char *quote_words(const struct strv *words) {
        _cleanup_strv_ struct strv quoted = {0};
        for (size_t i = 0; i < words->len; i++) {
                char *word = str_shell_quote(words->items[i]);
                if (i == 0 && *word != '\'') {
                        /* Bare, the first word could be an assignment, a keyword or an alias. */
                        strv_pushf(&quoted, "'%s'", word);
                        free(word);
                } else
                        strv_push_take(&quoted, word);
        }
        return strv_join(&quoted, " ");
}

int exec_program(const char *path, char *const argv[], struct error *err) {
        fflush(NULL);
        signal(SIGPIPE, SIG_DFL);
        execv(path, argv);
        int r = err_errno(err, errno, "cannot run %s", path);
        signal(SIGPIPE, SIG_IGN);
        return r;
}
