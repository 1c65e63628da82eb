/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/exit.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/json.h>

#define EXIT_JSON_MAX (256U * 1024)

static const char *const kinds[] = {
                [VM_EXIT_SHUTDOWN] = "shutdown", [VM_EXIT_ENDED] = "ended",   [VM_EXIT_PANIC] = "panic",
                [VM_EXIT_CRASH] = "crash",       [VM_EXIT_REBOOT] = "reboot",
};

void vm_exit_free(struct vm_exit *e) {
        if (!e)
                return;
        free(e->reason);
        free(e->qemu_lines);
        free(e->serial_lines);
        free(e);
}

enum vm_exit_kind vm_exit_classify(const struct vm_exit_facts *f, char **ret_reason) {
        const char *reason = f->shutdown_reason;
        if (f->panicked || str_eq(reason, "guest-panic")) {
                *ret_reason = xstrdup("the guest's kernel panicked");
                return VM_EXIT_PANIC;
        }
        if (str_eq(reason, "guest-shutdown")) {
                *ret_reason = xstrdup(f->powerdown ? "the guest was shut down" : "the guest powered itself off");
                return VM_EXIT_SHUTDOWN;
        }
        if (str_eq(reason, "guest-reset") || str_eq(reason, "host-qmp-system-reset")) {
                *ret_reason = xstrdup("the guest reboots");
                return VM_EXIT_REBOOT;
        }
        if (str_eq(reason, "host-qmp-quit")) {
                *ret_reason = xstrdup("QEMU was told to quit");
                return VM_EXIT_ENDED;
        }
        if (str_eq(reason, "host-signal")) {
                *ret_reason = xstrdup(f->intended ? "QEMU was ended by a signal"
                                                  : "QEMU was ended by a signal from outside");
                return VM_EXIT_ENDED;
        }
        if (f->unheard && f->result && f->result->exit_status == 0) {
                /* QEMU does that for a guest's shutdown, for "quit" and for a signal, never when it fails. */
                *ret_reason = xstrdup("QEMU ended in order while its monitor was not heard");
                return VM_EXIT_SHUTDOWN;
        }
        _cleanup_free_ char *how = f->result ? proc_result_string(f->result) : NULL;
        if (f->intended) {
                *ret_reason = how ? xasprintf("QEMU %s, as the VM was to be stopped", how)
                                  : xstrdup("QEMU ended, as the VM was to be stopped");
                return VM_EXIT_ENDED;
        }
        *ret_reason = how ? xasprintf("QEMU %s", how) : xstrdup("QEMU ended without saying why");
        return VM_EXIT_CRASH;
}

static char *exit_path(const struct project *p) {
        return path_join(p->vm_dir, "exit.json");
}

int vm_exit_load(const struct project *p, struct vm_exit **ret, struct error *err) {
        _cleanup_free_ char *path = exit_path(p);
        _cleanup_json_ struct json *j = NULL;
        int r = json_read_file(path, EXIT_JSON_MAX, &j, err);
        if (r == -ENOENT)
                return r;
        const char *kind = json_string(json_get(j, "kind")), *reason = json_string(json_get(j, "reason"));
        size_t k = 0;
        while (kind && k < ELEMENTSOF(kinds) && !str_eq(kinds[k], kind))
                k++;
        if (r < 0 || !kind || k == ELEMENTSOF(kinds) || !reason)
                return err_set(err, ERR_FAILED, EUCLEAN, "%s is damaged", path);
        struct vm_exit *e = xcalloc(1, sizeof(*e));
        *e = (struct vm_exit){
                        .kind = (enum vm_exit_kind)k,
                        .reason = xstrdup(reason),
                        .time_ms = json_u64_or(json_get(j, "time"), 0),
                        .pid = (int)json_u64_or(json_get(j, "pid"), 0),
                        .start_time = json_u64_or(json_get(j, "start_time"), 0),
                        .qemu_lines = xstrdup(json_string(json_get(j, "qemu"))),
                        .serial_lines = xstrdup(json_string(json_get(j, "serial"))),
                        .stays_down = json_bool_or(json_get(j, "stays_down"), false),
        };
        *ret = e;
        return 0;
}

int vm_exit_save(const struct project *p, const struct vm_exit *e, struct error *err) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", 1);
        json_set_number(j, "time", (double)e->time_ms);
        json_set_string(j, "kind", kinds[e->kind]);
        json_set_string(j, "reason", e->reason);
        json_set_number(j, "pid", e->pid);
        json_set_number(j, "start_time", (double)e->start_time);
        json_set_string(j, "qemu", e->qemu_lines);
        json_set_string(j, "serial", e->serial_lines);
        json_set_bool(j, "stays_down", e->stays_down);
        _cleanup_free_ char *text = json_print(j, true), *path = exit_path(p);
        return fs_write_atomic(path, text, strlen(text), 0600, err);
}

int vm_exit_remove(const struct project *p, struct error *err) {
        _cleanup_free_ char *path = exit_path(p);
        return fs_unlink(path, err);
}
