/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <k3s-vm/commands.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>
#include <k3s-vm/supervisor.h>
#include <k3s-vm/ui.h>
#include <k3s-vm/vm.h>

/* One VM with what its own project says about it. */
static struct json *describe(const struct registry_entry *e) {
        struct json *j = json_new_object();
        _cleanup_project_ struct project *p = NULL;
        _cleanup_state_ struct state *s = NULL;
        enum vm_status status = VM_ABSENT;
        if (project_find(e->project, &p, NULL) == 0) {
                int r = state_load(p, &s, NULL);
                if (r < 0 && r != -ENOENT) {
                        /* Damaged: the kernel still knows whether a process with this UUID lives. */
                        s = state_new();
                        s->uuid = xstrdup(e->uuid);
                }
                status = vm_status(p, s);
                _cleanup_process_ struct process vm = PROCESS_INIT;
                if (r == 0 && status == VM_RUNNING && vm_find(p, s, &vm, NULL) == 0)
                        supervisor_ensure(p, s, &vm);
        }
        json_set_string(j, "name", e->name);
        json_set_string(j, "project", e->project);
        json_set_string(j, "uuid", e->uuid);
        json_set_string(j, "state", vm_status_string(status));
        struct json *ports = json_set_object(j, "ports");
        json_set_number(ports, "api", e->api_port);
        json_set_number(ports, "ssh", e->ssh_port);
        json_set_number(ports, "web", e->web_port);
        if (s && s->payload_name) {
                struct json *payload = json_set_object(j, "payload");
                json_set_string(payload, "name", s->payload_name);
                json_set_string(payload, "version", s->payload_version);
        }
        return j;
}

/* QEMU's -name takes "guest=NAME,…" or "NAME,…". The caller frees. */
static char *name_of_option(const char *value) {
        value += str_starts(value, "guest=") ? strlen("guest=") : 0;
        return xstrndup(value, strcspn(value, ","));
}

static bool known(const struct registry *registry, const char *uuid) {
        for (size_t i = 0; i < registry->n; i++)
                if (str_eq(registry->entries[i].uuid, uuid))
                        return true;
        return false;
}

/* Whether its monitor is a socket below this user's runtime folder. One elsewhere belongs to whoever has
 * other XDG folders (a test, a container), and a registry of their own. */
static bool has_monitor_here(const struct project *p, const char *uuid, const struct strv *argv) {
        _cleanup_free_ char *folder = NULL;
        if (project_runtime_dir(p, uuid, false, &folder, NULL) < 0)
                return false;
        for (size_t i = 1; i < argv->len; i++)
                if (strstr(argv->items[i], folder))
                        return true;
        return false;
}

/* QEMU processes of this user that a k3s-vm started and that no project in the registry knows. */
static void add_orphans(const struct project *p, const struct registry *registry, struct json *orphans) {
        _cleanup_closedir_ DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc))) {
                uint64_t pid = 0;
                struct stat st;
                if (str_to_u64(entry->d_name, 1, INT32_MAX, &pid) < 0 ||
                    fstatat(dirfd(proc), entry->d_name, &st, 0) < 0 || st.st_uid != geteuid())
                        continue;
                _cleanup_strv_ struct strv argv = {0};
                if (proc_cmdline((pid_t)pid, &argv) < 0)
                        continue;
                const char *name = qemu_option(&argv, "-name"), *uuid = qemu_option(&argv, "-uuid");
                if (!name || !uuid || !strstr(name, ",process=" QEMU_PROCESS_NAME) || known(registry, uuid) ||
                    !has_monitor_here(p, uuid, &argv))
                        continue;
                struct json *j = json_new_object();
                _cleanup_free_ char *shown = name_of_option(name);
                json_set_number(j, "pid", (double)pid);
                json_set_string(j, "name", shown);
                json_set_string(j, "uuid", uuid);
                json_append(orphans, j);
        }
}

static char *cell(const struct json *j, const char *fallback) {
        const char *s = json_string(j);
        double number = 0;
        if (s)
                return str_printable(s, strlen(s));
        return json_number(j, &number) && number > 0 ? xasprintf("%.0f", number) : xstrdup(fallback);
}

enum { COLUMNS = 7 };

static void print_row(const char *const *cells, const size_t *widths) {
        for (size_t c = 0; c + 1 < COLUMNS; c++)
                printf("%-*s  ", (int)widths[c], cells[c]);
        printf("%s\n", cells[COLUMNS - 1]);
}

static void print_table(const struct json *vms) {
        static const char *const heads[COLUMNS] = {"NAME", "STATE", "API", "SSH", "WEB", "KUBERNETES", "PROJECT"};
        size_t widths[COLUMNS], n = json_len(vms);
        char *(*rows)[COLUMNS] = xcalloc(n, sizeof(*rows));
        for (size_t c = 0; c < COLUMNS; c++)
                widths[c] = strlen(heads[c]);
        for (size_t i = 0; i < n; i++) {
                const struct json *vm = json_at(vms, i);
                const struct json *values[COLUMNS] = {json_get(vm, "name"),         json_get(vm, "state"),
                                                      json_get(vm, "ports", "api"), json_get(vm, "ports", "ssh"),
                                                      json_get(vm, "ports", "web"), json_get(vm, "payload", "version"),
                                                      json_get(vm, "project")};
                for (size_t c = 0; c < COLUMNS; c++) {
                        rows[i][c] = cell(values[c], "-");
                        if (strlen(rows[i][c]) > widths[c])
                                widths[c] = strlen(rows[i][c]);
                }
        }
        printf("%s", ui_style(STDOUT_FILENO, UI_BOLD));
        print_row(heads, widths);
        printf("%s", ui_style(STDOUT_FILENO, UI_PLAIN));
        for (size_t i = 0; i < n; i++) {
                print_row((const char *const *)rows[i], widths);
                for (size_t c = 0; c < COLUMNS; c++)
                        free(rows[i][c]);
        }
        free(rows);
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        (void)args;
        int r = context_project(ctx, err);
        if (r < 0)
                return r;
        _cleanup_registry_ struct registry registry = {0};
        r = registry_load(ctx->project, &registry, err);
        if (r < 0)
                return r;
        _cleanup_json_ struct json *document = json_new_object();
        struct json *vms = json_set_array(document, "vms");
        for (size_t i = 0; i < registry.n; i++)
                json_append(vms, describe(&registry.entries[i]));
        struct json *orphans = json_set_array(document, "orphans");
        add_orphans(ctx->project, &registry, orphans);

        if (ctx->json) {
                ui_print_json(document);
                return 0;
        }
        if (json_len(vms) > 0)
                print_table(vms);
        else
                progress_note(ctx->progress, "no VMs; one is made with: k3s-vm");
        for (const struct json *o = json_first(orphans); o; o = json_next(o)) {
                _cleanup_free_ char *name = cell(json_get(o, "name"), "?");
                _cleanup_free_ char *uuid = cell(json_get(o, "uuid"), "?");
                progress_warn(ctx->progress,
                              "QEMU process %.0f (%s, UUID %s) belongs to no project any more: kill %.0f",
                              (double)json_u64_or(json_get(o, "pid"), 0), name, uuid,
                              (double)json_u64_or(json_get(o, "pid"), 0));
        }
        return 0;
}

const struct command cmd_list = {
                .name = "list",
                .summary = "every VM of this user on this host, with project, state and ports",
                .run = run,
};
