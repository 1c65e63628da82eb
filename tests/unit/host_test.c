/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>
#include <sys/wait.h>

#include <k3s-vm/host.h>

static enum host_family family_of(const char *os_release) {
        struct host *h = xcalloc(1, sizeof(*h));
        host_parse_os_release(os_release, strlen(os_release), h);
        enum host_family family = h->family;
        host_free(h);
        return family;
}

static void distributions_are_known_by_id_and_by_what_they_are_like(void **state _unused_) {
        assert_int_equal(family_of("ID=debian\n"), HOST_DEBIAN);
        assert_int_equal(family_of("NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), HOST_DEBIAN);
        assert_int_equal(family_of("ID=\"fedora\"\n"), HOST_FEDORA);
        assert_int_equal(family_of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), HOST_FEDORA);
        assert_int_equal(family_of("ID=arch\n"), HOST_ARCH);
        assert_int_equal(family_of("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n"), HOST_SUSE);
        assert_int_equal(family_of("ID=alpine\n"), HOST_ALPINE);
        assert_int_equal(family_of("ID=nixos\n"), HOST_NIXOS);
        assert_int_equal(family_of("ID=gentoo\n"), HOST_UNKNOWN);
        assert_int_equal(family_of(""), HOST_UNKNOWN);
        assert_int_equal(family_of("ID_LIKE=debian\nVERSION_ID=debian\n"), HOST_DEBIAN);
}

static void the_pretty_name_is_shown_without_control_characters(void **state _unused_) {
        static const char text[] = "ID=x\nPRETTY_NAME=\"Some\x1bthing 1\"\n";
        _cleanup_host_ struct host *h = xcalloc(1, sizeof(*h));
        host_parse_os_release(text, sizeof(text) - 1, h);
        assert_string_equal(h->id, "x");
        assert_string_equal(h->pretty_name, "Some\\x1bthing 1");
}

static void this_machine_has_processors_and_memory(void **state _unused_) {
        _cleanup_host_ struct host *h = NULL;
        assert_int_equal(host_detect(&h, NULL), 0);
        assert_true(h->cpus >= 1);
        assert_true(h->memory_mib > 64 && h->available_mib <= h->memory_mib);
        assert_non_null(h->id);
}

static void assert_command(enum host_family family, const char *tool, const char *want) {
        const struct host h = {.family = family};
        _cleanup_free_ char *command = host_install_command(&h, tool);
        const char *at = strstr(command, want);
        if (!at)
                fail_msg("\"%s\" is not in \"%s\"", want, command);
        assert_true(str_starts(command, "sudo ") == (geteuid() != 0 && at - command == 5));
}

static void the_install_command_is_this_distributions_own(void **state _unused_) {
        assert_command(HOST_DEBIAN, "qemu-system-x86_64", "apt-get install qemu-system-x86");
        assert_command(HOST_DEBIAN, "mkfs.erofs", "apt-get install erofs-utils");
        assert_command(HOST_FEDORA, "qemu-img", "dnf install qemu-img");
        assert_command(HOST_ARCH, "kubectl", "pacman -S kubectl");
        assert_command(HOST_SUSE, "ssh", "zypper install openssh-clients");
        assert_command(HOST_ALPINE, "go", "apk add go");
        assert_command(HOST_NIXOS, "qemu-system-x86_64", "environment.systemPackages = [ pkgs.qemu_kvm ];");
        assert_command(HOST_NIXOS, "qemu-system-x86_64", "nix-shell -p qemu_kvm");
        assert_command(HOST_DEBIAN, "lz4", "apt-get install lz4");
        assert_command(HOST_DEBIAN, "k9s", "install k9s: https://");
        assert_command(HOST_UNKNOWN, "qemu-img", "install qemu-img with this system's package manager");
}

static void several_tools_are_installed_by_one_command(void **state _unused_) {
        const struct host h = {.family = HOST_NIXOS}, debian = {.family = HOST_DEBIAN};
        const char *const tools[] = {"qemu-system-x86_64", "qemu-img", "mkfs.erofs", "k9s", NULL};
        _cleanup_free_ char *nixos = host_install_tools(&h, tools), *apt = host_install_tools(&debian, tools);
        assert_non_null(strstr(nixos, "[ pkgs.qemu_kvm pkgs.erofs-utils pkgs.k9s ]"));
        assert_non_null(strstr(apt, "apt-get install qemu-system-x86 qemu-utils erofs-utils\ninstall k9s: "));
}

static void a_missing_tool_is_a_host_error_with_its_command(void **state _unused_) {
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(host_missing("qemu-img", "the VM's disk", &err) < 0);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, "qemu-img"));
        assert_non_null(strstr(err.message, "the VM's disk"));
        assert_non_null(strstr(err.hint, "install"));
}

/* PATH with nothing but what the test puts there. */
static char *own_path(struct scratch *s) {
        char *bin = path_join(s->dir, "bin");
        assert_int_equal(fs_mkdir_p(bin, 0755, NULL), 0);
        setenv("PATH", bin, 1);
        return bin;
}

static void put_program(const char *bin, const char *name, const char *script) {
        _cleanup_free_ char *path = path_join(bin, name);
        assert_int_equal(fs_write_atomic(path, script, strlen(script), 0755, NULL), 0);
}

static struct config *small_config(struct scratch *s) {
        struct config *c = NULL;
        assert_int_equal(config_load(s->p, &c, NULL), 0);
        c->cpus = 1;
        c->memory_mib = 1; /* fits any machine that runs tests */
        c->disk_gib = 1;
        free(c->accel);
        c->accel = xstrdup("tcg");
        /* "auto" is a cloud image where a test hides the tools of the Debian guest. */
        free(c->flavor);
        c->flavor = xstrdup("debian");
        /* Not the defaults, which someone may be using. */
        c->api_port = 21796;
        c->ssh_port = 21797;
        c->web_port = 21798;
        return c;
}

static const struct check *find(const struct checks *checks, const char *name) {
        for (size_t i = 0; i < checks->n; i++)
                if (str_eq(checks->items[i].name, name))
                        return &checks->items[i];
        fail_msg("there is no check %s", name);
        return NULL;
}

static void put_a_guest_into_the_cache(struct scratch *s) {
        _cleanup_free_ char *dir = path_join(s->p->cache_dir, "guests/0123"), *json = path_join(dir, "guest.json");
        assert_int_equal(fs_mkdir_p(dir, 0755, NULL), 0);
        scratch_write(json, "{}");
}

#define FAKE_QEMU(version) "#!/bin/sh\necho 'QEMU emulator version " version " (Debian)'\n"

static void a_start_needs_qemu_and_names_how_to_get_it(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *bin = own_path(s);
        put_a_guest_into_the_cache(s);
        _cleanup_config_ struct config *c = small_config(s);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(host_preflight(s->p, c, NULL, &err) < 0);
        assert_int_equal(err.code, ERR_HOST);
        assert_true(str_starts(err.message, "qemu-system-x86_64 is not installed"));
        assert_non_null(err.hint);
        put_program(bin, "qemu-system-x86_64", "#!/bin/sh\nexit 1\n");
        assert_true(host_preflight(s->p, c, NULL, &err) < 0);
        assert_true(str_starts(err.message, "qemu-img is not installed"));
        /* A start does not run it: a QEMU that fails shows itself a moment later anyway. */
        put_program(bin, "qemu-img", "");
        int r = host_preflight(s->p, c, NULL, &err);
        if (r < 0)
                fail_msg("%s", err.message);
}

static void a_start_without_a_guest_needs_what_builds_one(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *bin = own_path(s);
        put_program(bin, "qemu-system-x86_64", "");
        put_program(bin, "qemu-img", "");
        _cleanup_config_ struct config *c = small_config(s);
        free(c->flavor);
        c->flavor = xstrdup("debian");
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(host_preflight(s->p, c, NULL, &err) < 0);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, "mmdebstrap"));
        put_a_guest_into_the_cache(s);
        assert_int_equal(host_preflight(s->p, c, NULL, NULL), 0);
        free(c->k3s_version);
        c->k3s_version = xstrdup("offline");
        assert_true(host_preflight(s->p, c, NULL, &err) < 0);
        assert_non_null(strstr(err.message, "dpkg-source"));
}

static void a_start_takes_a_few_milliseconds_when_all_is_well(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *bin = own_path(s);
        put_program(bin, "qemu-system-x86_64", "");
        put_program(bin, "qemu-img", "");
        put_a_guest_into_the_cache(s);
        _cleanup_config_ struct config *c = small_config(s);
        uint64_t best = UINT64_MAX;
        for (int i = 0; i < 10; i++) { /* the best of several: other tests run beside this one */
                uint64_t begun = now_ms();
                assert_int_equal(host_preflight(s->p, c, NULL, NULL), 0);
                uint64_t took = now_ms() - begun;
                best = took < best ? took : best;
        }
        assert_true(best < 50);
}

static void a_vm_larger_than_the_machine_is_refused(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *bin = own_path(s);
        put_program(bin, "qemu-system-x86_64", "");
        put_program(bin, "qemu-img", "");
        put_a_guest_into_the_cache(s);
        _cleanup_config_ struct config *c = small_config(s);
        c->memory_mib = 1000000000;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(host_preflight(s->p, c, NULL, &err) < 0);
        assert_int_equal(err.code, ERR_HOST);
        assert_non_null(strstr(err.message, "the VM needs 1000000512"));
        assert_non_null(err.hint);
}

static void doctor_looks_at_qemus_version_and_whether_it_runs(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *bin = own_path(s);
        static const struct {
                const char *script;
                int result;
                const char *text;
        } cases[] = {{FAKE_QEMU("7.2.22"), CHECK_OK, "version 7.2"},
                     {FAKE_QEMU("6.0.0"), CHECK_OK, "version 6.0"},
                     {FAKE_QEMU("5.2.0"), CHECK_FAILED, "6.0 or later"},
                     {"#!/bin/sh\necho broken library >&2; exit 127\n", CHECK_FAILED, "broken library"},
                     {"#!/bin/sh\n", CHECK_WARNING, "does not tell"},
                     {"#!/no/such/interpreter\n", CHECK_FAILED, "cannot run"}};
        _cleanup_config_ struct config *c = small_config(s);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                put_program(bin, "qemu-system-x86_64", cases[i].script);
                _cleanup_checks_ struct checks checks = {0};
                assert_int_equal(host_check(s->p, c, &checks, NULL), 0);
                const struct check *qemu = find(&checks, "qemu");
                if (!strstr(qemu->text, cases[i].text))
                        fail_msg("\"%s\" is not in \"%s\"", cases[i].text, qemu->text);
                assert_int_equal(qemu->result, cases[i].result);
        }
}

static void doctor_has_a_line_for_everything_and_a_fix_for_every_failure(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ _unused_ char *bin = own_path(s);
        _cleanup_config_ struct config *c = small_config(s);
        free(c->flavor);
        c->flavor = xstrdup("debian");
        _cleanup_checks_ struct checks checks = {0};
        assert_int_equal(host_check(s->p, c, &checks, NULL), 0);
        static const char *const names[] = {"system",   "config",      "cpu",   "memory",  "kvm",  "qemu",
                                            "qemu-img", "guest-tools", "ssh",   "kubectl", "disk", "cache",
                                            "folders",  "runtime",     "ports", "dns"};
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                find(&checks, names[i]);
        for (size_t i = 0; i < checks.n; i++) {
                assert_non_null(checks.items[i].text);
                if (checks.items[i].result == CHECK_FAILED)
                        assert_non_null(checks.items[i].fix);
        }
        assert_int_equal(find(&checks, "qemu")->result, CHECK_FAILED);
        assert_int_equal(find(&checks, "guest-tools")->result, CHECK_FAILED);
        assert_int_equal(find(&checks, "config")->result, CHECK_OK);
}

static void doctor_shows_a_wrong_config_as_a_failed_check(void **state) {
        struct scratch *s = *state;
        scratch_write(s->p->config_path, "VM_CPUS=0\n");
        _cleanup_checks_ struct checks checks = {0};
        assert_int_equal(host_check(s->p, NULL, &checks, NULL), 0);
        const struct check *config = find(&checks, "config");
        assert_int_equal(config->result, CHECK_FAILED);
        assert_non_null(strstr(config->text, "config:1: VM_CPUS"));
}

static void doctor_tells_unknown_keys(void **state) {
        struct scratch *s = *state;
        scratch_write(s->p->config_path, "VM_CPU=3\nACCEL=tcg\n");
        _cleanup_checks_ struct checks checks = {0};
        assert_int_equal(host_check(s->p, NULL, &checks, NULL), 0);
        assert_int_equal(find(&checks, "config")->result, CHECK_WARNING);
        assert_non_null(strstr(find(&checks, "config")->text, "VM_CPU (line 1)"));
}

/* Exits with 0 when the check failed as it should. */
static int look_without_permission(const struct scratch *s, const struct config *c) {
        /* Nothing is read-only to root. */
        if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
                return 2;
        struct checks checks = {0};
        if (host_check(s->p, c, &checks, NULL) < 0)
                return 3;
        int r = find(&checks, "folders")->result == CHECK_FAILED ? 0 : 4;
        checks_clear(&checks);
        return r;
}

static void a_project_that_cannot_be_written_is_refused(void **state) {
        struct scratch *s = *state;
        _cleanup_config_ struct config *c = small_config(s);
        assert_int_equal(chmod(s->dir, 0755), 0);
        assert_int_equal(chmod(s->p->dir, 0500), 0);
        pid_t pid = fork();
        if (pid == 0)
                _exit(look_without_permission(s, c));
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(chmod(s->p->dir, 0700), 0);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(distributions_are_known_by_id_and_by_what_they_are_like),
                        cmocka_unit_test(the_pretty_name_is_shown_without_control_characters),
                        cmocka_unit_test(this_machine_has_processors_and_memory),
                        cmocka_unit_test(the_install_command_is_this_distributions_own),
                        cmocka_unit_test(several_tools_are_installed_by_one_command),
                        cmocka_unit_test(a_missing_tool_is_a_host_error_with_its_command),
                        scratch_test(a_start_needs_qemu_and_names_how_to_get_it),
                        scratch_test(a_start_without_a_guest_needs_what_builds_one),
                        scratch_test(a_start_takes_a_few_milliseconds_when_all_is_well),
                        scratch_test(a_vm_larger_than_the_machine_is_refused),
                        scratch_test(doctor_looks_at_qemus_version_and_whether_it_runs),
                        scratch_test(doctor_has_a_line_for_everything_and_a_fix_for_every_failure),
                        scratch_test(doctor_shows_a_wrong_config_as_a_failed_check),
                        scratch_test(doctor_tells_unknown_keys),
                        scratch_test(a_project_that_cannot_be_written_is_refused),
        };
        return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
