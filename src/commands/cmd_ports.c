/* SPDX-License-Identifier: MIT */
/* Host forwards: kept in FORWARDS, and opened and closed at once where the VM runs. */
#include <stdio.h>
#include <string.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/forward.h>
#include <k3s-vm/ports.h>
#include <k3s-vm/ui.h>
#include <k3s-vm/up.h>

/* The state of the project's VM if that runs, else NULL. */
static struct state *find_running(struct context *ctx) {
        _cleanup_state_ struct state *s = NULL;
        _cleanup_process_ struct process vm = PROCESS_INIT;
        if (state_load(ctx->project, &s, NULL) < 0 || vm_find(ctx->project, s, &vm, NULL) < 0)
                return NULL;
        return TAKE_PTR(s);
}

/* Where the forward of @host_port is in the list; @n: nowhere. */
static size_t find_forward(const struct forward *forwards, size_t n, uint16_t host_port) {
        size_t i = 0;
        while (i < n && forwards[i].host_port != host_port)
                i++;
        return i;
}

/* list. */

static void show(const struct forward *f, const char *key, const char *note, struct json *list, bool open) {
        if (!list) {
                printf("127.0.0.1:%-5u -> %-5u  %s%s%s\n", f->host_port, f->guest_port, key ? key : "-",
                       *note ? "  " : "", note);
                return;
        }
        struct json *item = json_new_object();
        json_set_number(item, "port", f->host_port);
        json_set_number(item, "guest_port", f->guest_port);
        json_set_string(item, "key", key);
        json_set_bool(item, "open", open);
        json_append(list, item);
}

static int run_list(struct context *ctx, struct error *err) {
        int r = context_config(ctx, err);
        _cleanup_state_ struct state *running = r == 0 ? find_running(ctx) : NULL;
        _cleanup_free_ struct forward *live = NULL;
        size_t n_live = 0;
        if (r == 0 && running)
                r = forward_list(ctx->project, running, &live, &n_live, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *document = ctx->json ? json_new_object() : NULL;
        struct json *list = json_set_array(document, "forwards");
        json_set_bool(document, "running", running != NULL);

        _cleanup_free_ struct forward *forwards = NULL;
        size_t n = forward_configured(ctx->config, &forwards);
        static const char *const keys[] = {"API_PORT", "SSH_PORT", "WEB_PORT"};
        for (size_t i = 0; i < n; i++) {
                size_t at = find_forward(live, n_live, forwards[i].host_port);
                bool open = at < n_live && live[at].guest_port == forwards[i].guest_port;
                show(&forwards[i], i < ELEMENTSOF(keys) ? keys[i] : "FORWARDS",
                     running && !open ? "from the next start on" : "", list, open);
        }
        for (size_t i = 0; i < n_live; i++) {
                size_t at = find_forward(forwards, n, live[i].host_port);
                if (at == n || forwards[at].guest_port != live[i].guest_port)
                        show(&live[i], NULL, "until the VM stops", list, true);
        }
        if (document)
                ui_print_json(document);
        return 0;
}

/* add and remove. */

/* What both begin with: the lock, the configuration, and whether the VM runs. */
static int prepare(struct context *ctx, const char *verb, int *ret_lock, struct state **ret_running,
                   struct error *err) {
        int r = lock_vm(ctx, verb, ret_lock, err);
        if (r < 0)
                return r;
        if (str_eq(config_source(ctx->config, "FORWARDS"), "environment")) {
                r = err_set(err, ERR_USAGE, EINVAL, "FORWARDS is set in the environment, which wins over what is kept");
                err_hint(err, "unset FORWARDS");
                return r;
        }
        *ret_running = find_running(ctx);
        return 0;
}

static int keep(struct context *ctx, const struct forward *forwards, size_t n, struct error *err) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, "FORWARDS=");
        for (size_t i = 0; i < n; i++)
                buf_printf(&b, "%s%u:%u", i ? " " : "", forwards[i].host_port, forwards[i].guest_port);
        const char *const assignments[] = {buf_str(&b), NULL};
        return config_set(ctx->project, assignments, err);
}

/* ERR_PORT where somebody else has one of the ports. */
static int check_free(struct context *ctx, const struct state *running, const struct forward *forwards, size_t n,
                      struct error *err) {
        _cleanup_registry_ struct registry registry = {0};
        _cleanup_port_scan_ struct port_scan *scan = NULL;
        int r = registry_load(ctx->project, &registry, err);
        if (r == 0)
                r = port_scan_new(&scan, err);
        for (size_t i = 0; i < n && r == 0; i++) {
                struct port_holder holder = {0};
                bool taken = port_taken(scan, forwards[i].host_port, &registry, &holder);
                if (taken && !(running && str_eq(holder.vm_uuid, running->uuid)))
                        r = port_error(&holder, "FORWARDS", err);
                port_holder_clear(&holder);
        }
        return r;
}

/* Opens them all, or none. */
static int open_all(struct context *ctx, const struct state *s, const struct forward *forwards, size_t n,
                    struct error *err) {
        _cleanup_free_ struct forward *live = NULL;
        size_t n_live = 0;
        int r = forward_list(ctx->project, s, &live, &n_live, err);
        for (size_t i = 0; i < n && r == 0; i++) {
                size_t at = find_forward(live, n_live, forwards[i].host_port);
                if (at < n_live && live[at].guest_port == forwards[i].guest_port)
                        continue;
                /* One that was taken out of the configuration leads elsewhere. */
                r = at < n_live ? forward_close(ctx->project, s, forwards[i].host_port, err) : 0;
                if (r == 0)
                        r = forward_open(ctx->project, s, &forwards[i], err);
                for (size_t j = 0; r < 0 && j < i; j++)
                        forward_close(ctx->project, s, forwards[j].host_port, NULL);
        }
        return r;
}

static int run_add(struct context *ctx, const struct strv *words, struct error *err) {
        _cleanup_free_ struct forward *new = xcalloc(words->len, sizeof(*new));
        size_t n = 0;
        int r = 0;
        for (size_t i = 0; i < words->len && r == 0; i++) {
                struct forward f = {0};
                r = forward_parse(words->items[i], &f, err);
                size_t at = find_forward(new, n, f.host_port);
                if (r == 0 && (at == n || new[at].guest_port != f.guest_port))
                        new[n++] = f;
        }
        if (r < 0) {
                err_hint(err, "k3s-vm ports add 8080:80");
                return r;
        }
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *running = NULL;
        r = prepare(ctx, "ports", &lock, &running, err);
        if (r == 0)
                r = check_free(ctx, running, new, n, err);
        if (r < 0)
                return r;

        const struct config *c = ctx->config;
        _cleanup_free_ struct forward *all = xcalloc(c->n_forwards + n, sizeof(*all));
        size_t total = c->n_forwards;
        if (total > 0)
                memcpy(all, c->forwards, total * sizeof(*all));
        for (size_t i = 0; i < n; i++) {
                size_t at = find_forward(all, total, new[i].host_port);
                if (at == total || all[at].guest_port != new[i].guest_port)
                        all[total++] = new[i];
        }
        /* Checked and kept first: a port that is used twice is an error of the configuration. */
        r = keep(ctx, all, total, err);
        if (r == 0 && running) {
                r = open_all(ctx, running, new, n, err);
                if (r < 0)
                        keep(ctx, c->forwards, c->n_forwards, NULL);
        }
        for (size_t i = 0; i < n && r == 0; i++)
                progress_note(ctx->progress, "127.0.0.1:%u leads to port %u of the VM%s", new[i].host_port,
                              new[i].guest_port, running ? "" : " from its next start on");
        return r;
}

/* The port of this side from "8080" or anything that `add` takes. */
static int parse_removed(const struct config *c, const char *word, size_t *ret, struct error *err) {
        struct forward f;
        int r = forward_parse(word, &f, err);
        if (r < 0)
                return r;
        *ret = find_forward(c->forwards, c->n_forwards, f.host_port);
        if (*ret < c->n_forwards && (!strchr(word, ':') || c->forwards[*ret].guest_port == f.guest_port))
                return 0;
        r = err_set(err, ERR_USAGE, ENOENT, "there is no forward %s in FORWARDS", word);
        if (f.host_port == c->api_port || f.host_port == c->ssh_port || f.host_port == c->web_port)
                err_hint(err, "API_PORT, SSH_PORT and WEB_PORT can be moved: k3s-vm configure");
        else
                err_hint(err, "k3s-vm ports list");
        return r;
}

static int run_remove(struct context *ctx, const struct strv *words, struct error *err) {
        _cleanup_close_ int lock = -1;
        _cleanup_state_ struct state *running = NULL;
        int r = prepare(ctx, "ports", &lock, &running, err);
        if (r < 0)
                return r;
        const struct config *c = ctx->config;
        _cleanup_free_ bool *removed = xcalloc(c->n_forwards + 1, sizeof(*removed));
        for (size_t i = 0; i < words->len && r == 0; i++) {
                size_t at;
                r = parse_removed(c, words->items[i], &at, err);
                if (r == 0)
                        removed[at] = true;
        }
        _cleanup_free_ struct forward *left = xcalloc(c->n_forwards + 1, sizeof(*left));
        size_t n = 0;
        for (size_t i = 0; i < c->n_forwards; i++)
                if (!removed[i])
                        left[n++] = c->forwards[i];
        if (r == 0)
                r = keep(ctx, left, n, err);
        for (size_t i = 0; i < c->n_forwards && r == 0; i++) {
                if (!removed[i])
                        continue;
                if (running)
                        r = forward_close(ctx->project, running, c->forwards[i].host_port, err);
                if (r == -ENOENT)
                        r = 0; /* it was to come with the next start */
                if (r == 0)
                        progress_note(ctx->progress, "127.0.0.1:%u is free again", c->forwards[i].host_port);
        }
        if (r == 0)
                error_clear(err);
        return r;
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        const char *verb = args->rest.len > 0 ? args->rest.items[0] : "list";
        bool add = str_eq(verb, "add"), remove = str_eq(verb, "remove"), list = str_eq(verb, "list");
        if ((list && args->rest.len <= 1))
                return run_list(ctx, err);
        if ((!add && !remove) || args->rest.len < 2) {
                _cleanup_free_ char *shown = str_printable(verb, strlen(verb));
                int r = add || remove ? err_set(err, ERR_USAGE, EINVAL, "ports %s wants a port", verb)
                        : list        ? err_set(err, ERR_USAGE, EINVAL, "ports list takes no port")
                                      : err_set(err, ERR_USAGE, EINVAL, "ports cannot \"%s\"", shown);
                err_hint(err, "k3s-vm ports add 8080:80\nk3s-vm ports remove 8080\nk3s-vm ports list");
                return r;
        }
        _cleanup_strv_ struct strv words = {0};
        strv_extend(&words, (const char *const *)args->rest.items + 1);
        return add ? run_add(ctx, &words, err) : run_remove(ctx, &words, err);
}

const struct command cmd_ports = {
                .name = "ports",
                .operands = "[list | add PORT:GUEST_PORT… | remove PORT…]",
                .summary = "list the forwarded ports, add and remove some while the VM runs",
                .details = "A forward leads from a port of this host, on 127.0.0.1 only, to a TCP port of the VM, "
                           "such\n"
                           "as a NodePort: `k3s-vm ports add 8080:30081`. It is open at once if the VM runs, and kept "
                           "in\n"
                           "FORWARDS for the next starts.",
                .run = run,
};
