/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <seccomp.h>

#include <k3s-vm/sandbox.h>
#include <k3s-vm/strv.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static int allow(scmp_filter_ctx filter, const char *name, const struct sandbox_rule *rule) {
        int number = seccomp_syscall_resolve_name(name);
        if (number == __NR_SCMP_ERROR)
                return 0;
        int r = rule->mask ? seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 1,
                                              SCMP_CMP(rule->argument, SCMP_CMP_MASKED_EQ, rule->mask, 0))
                           : seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
        /* Known by name, but no call of this architecture. */
        return r == -EDOM ? 0 : r;
}

int sandbox_enter(const struct sandbox_rule *rules, size_t n, struct error *err) {
        if (SANITIZED)
                return err_set(err, ERR_HOST, ENOSYS, "this build has a sanitizer in it, which no filter lets work");
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
        if (!filter)
                return err_set(err, ERR_HOST, ENOSYS, "this kernel has no system call filters");
        int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        for (size_t i = 0; i < n; i++) {
                _cleanup_strv_ struct strv names = {0};
                strv_split(&names, rules[i].syscalls, " ");
                for (size_t j = 0; r == 0 && j < names.len; j++)
                        r = allow(filter, names.items[j], &rules[i]);
        }
        if (r == 0)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return r < 0 ? err_errno(err, -r, "cannot load the system call filter") : 0;
}
