/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <elf.h>
#include <errno.h>
#include <unistd.h>

#include <k3s-vm/confine.h>

#include "../../src/domain/payload_unpack.h"
#include "must_skip.h"

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define GUEST "/var/lib/rancher/k3s/data/"

/* Where the versions of K3s look for their data folder. */
#define BY_ARGUMENT "for a; do [ \"$last\" = --data-dir ] && d=$a; last=$a; done\n"
#define BY_VARIABLE "d=$K3S_DATA_DIR\n"
#define BY_CONFIG "d=$(sed -n 's/.*\"data-dir\": *\"\\([^\"]*\\)\".*/\\1/p' \"$K3S_CONFIG_FILE\")\n"
#define BY_NOTHING "d=$HOME/.rancher/k3s\n"

/* Unpacks as K3s does, the newer versions' links for CNI included. */
#define UNPACK \
        "set -e; d=$d/data; t=$d/" HASH "-tmp; mkdir -p $t/bin/aux $t/etc; touch $d/.lock\n" \
        "echo programs >$t/bin/containerd; chmod 755 $t/bin/containerd; echo sums >$t/bin/.sha256sums\n" \
        "ln -s containerd $t/bin/k3s; ln -s cni $t/bin/bridge; echo cni >$t/bin/cni; echo aux >$t/bin/aux/x\n" \
        "mv $t $d/" HASH "; ln -s $d/" HASH " $d/current\n" \
        "mkdir $d/cni; ln -s $d/" HASH "/bin/cni $d/cni/bridge\n"

static int setup(void **state) {
        if (scratch_setup(state) < 0)
                return -1;
        struct scratch *s = *state;
        return fs_mkdir_p(s->p->cache_dir, 0755, NULL);
}

static void needs_confinement(struct scratch *s) {
        _cleanup_close_ int fd = -1;
        if (confine_writes(s->dir, &fd, NULL) < 0)
                must_skip("this kernel has no Landlock");
}

/* Lets a K3s that is the shell script @script unpack. */
static int unpack_within(struct scratch *s, const char *script, unsigned timeout_ms, struct unpacked *ret,
                         struct error *err) {
        _cleanup_free_ char *program = path_join(s->dir, "k3s"), *text = xasprintf("#!/bin/sh\n%s", script);
        assert_int_equal(fs_write_atomic(program, text, strlen(text), 0755, NULL), 0);
        return payload_unpack(program, s->p->cache_dir, timeout_ms, NULL, ret, err);
}

static int unpack(struct scratch *s, const char *script, struct unpacked *ret, struct error *err) {
        return unpack_within(s, script, 30000, ret, err);
}

/* An entry a line: "data/HASH/bin/k3s 777 -> containerd". */
static char *describe(const struct unpacked *u) {
        struct buf b = BUF_INIT(0);
        for (size_t i = 0; i < u->n; i++) {
                const struct archive_entry *e = &u->entries[i];
                const char *kind = e->source_path ? "file" : e->link ? "-> " : "folder";
                buf_printf(&b, "%s %o %s%s\n", e->name, (unsigned)e->mode, kind, e->link ? e->link : "");
        }
        return buf_take(&b);
}

static void assert_nothing_left(struct scratch *s) {
        _cleanup_closedir_ DIR *dir = opendir(s->p->cache_dir);
        assert_non_null(dir);
        for (struct dirent *entry; (entry = readdir(dir));)
                if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, ".."))
                        fail_msg("%s is left", entry->d_name);
}

static void assert_fails(struct scratch *s, const char *script, int expected, const char *named) {
        struct unpacked u = UNPACKED_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(unpack(s, script, &u, &err), expected);
        if (!strstr(err.message, named))
                fail_msg("no \"%s\" in \"%s\"", named, err.message);
        assert_null(u.folder);
        assert_nothing_left(s);
}

static void what_k3s_unpacks_is_described_as_a_guest_is_to_see_it(void **state) {
        struct scratch *s = *state;
        needs_confinement(s);
        umask(022);
        struct unpacked u = UNPACKED_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        if (unpack(s, BY_ARGUMENT UNPACK, &u, &err) < 0)
                fail_msg("%s", err.message);
        _cleanup_free_ char *text = describe(&u);
        assert_string_equal(text, "data 755 folder\n"
                                  "data/" HASH " 755 folder\n"
                                  "data/" HASH "/bin 755 folder\n"
                                  "data/" HASH "/bin/.sha256sums 644 file\n"
                                  "data/" HASH "/bin/aux 755 folder\n"
                                  "data/" HASH "/bin/aux/x 644 file\n"
                                  "data/" HASH "/bin/bridge 777 -> cni\n"
                                  "data/" HASH "/bin/cni 644 file\n"
                                  "data/" HASH "/bin/containerd 755 file\n"
                                  "data/" HASH "/bin/k3s 777 -> containerd\n"
                                  "data/" HASH "/etc 755 folder\n"
                                  "data/cni 755 folder\n"
                                  "data/cni/bridge 777 -> " GUEST HASH "/bin/cni\n"
                                  "data/current 777 -> " GUEST HASH "\n");
        assert_int_equal(u.bytes, strlen("programs\nsums\naux\ncni\n"));
        unpacked_clear(&u);
        assert_nothing_left(s);
}

static void every_way_of_telling_k3s_where_is_used(void **state) {
        struct scratch *s = *state;
        needs_confinement(s);
        static const char *const ways[] = {BY_ARGUMENT UNPACK, BY_VARIABLE UNPACK, BY_CONFIG UNPACK};
        for (size_t i = 0; i < ELEMENTSOF(ways); i++) {
                _cleanup_unpacked_ struct unpacked u = UNPACKED_INIT;
                assert_int_equal(unpack(s, ways[i], &u, NULL), 0);
        }
}

static void a_k3s_that_unpacks_elsewhere_is_kept_from_it(void **state) {
        struct scratch *s = *state;
        needs_confinement(s);
        _cleanup_free_ char *elsewhere = path_join(s->dir, "elsewhere");
        _cleanup_free_ char *script = xasprintf("d=%s\n" UNPACK, elsewhere);
        assert_fails(s, script, -EIO, "exited with status");
        assert_false(fs_exists(elsewhere));
        /* Its home is the folder that is removed. */
        assert_fails(s, BY_NOTHING UNPACK, -ENOENT, "cannot read");
        _cleanup_free_ char *ignored = xasprintf("echo x >%s || true\n" BY_ARGUMENT UNPACK, elsewhere);
        _cleanup_unpacked_ struct unpacked u = UNPACKED_INIT;
        assert_int_equal(unpack(s, ignored, &u, NULL), 0);
        assert_false(fs_exists(elsewhere));
}

static void a_k3s_that_fails_or_leaves_something_else_is_not_used(void **state) {
        struct scratch *s = *state;
        needs_confinement(s);
        assert_fails(s, "exit 3", -EIO, "exited with status 3");
        assert_fails(s, "kill -9 $$", -EIO, "killed by signal 9");
        assert_fails(s, BY_ARGUMENT UNPACK "exit 1", -EIO, "exited with status 1");
        assert_fails(s, "exit 0", -ENOENT, "cannot read");
        assert_fails(s, BY_ARGUMENT "mkdir -p $d/data/" HASH "/bin", -ENOENT, "no data/HASH/bin/k3s");
        assert_fails(s, BY_ARGUMENT UNPACK "mkdir $d/" OTHER, -EBADMSG, OTHER);
        assert_fails(s, BY_ARGUMENT UNPACK "touch $d/state", -EBADMSG, "data/state");
        assert_fails(s, BY_ARGUMENT UNPACK "mkfifo $d/" HASH "/bin/pipe", -EBADMSG, "bin/pipe");
        assert_fails(s, BY_ARGUMENT UNPACK "ln -s /etc/passwd $d/" HASH "/bin/p", -EBADMSG, "bin/p");
        assert_fails(s, BY_ARGUMENT UNPACK "i=0; while [ $i -lt 1100 ]; do : >$d/cni/$i; i=$((i + 1)); done", -E2BIG,
                     "more than 1024");
}

static void a_k3s_that_hangs_is_ended(void **state) {
        struct scratch *s = *state;
        needs_confinement(s);
        struct unpacked u = UNPACKED_INIT;
        uint64_t before = now_ms();
        assert_int_equal(unpack_within(s, "sleep 100", 300, &u, NULL), -ETIMEDOUT);
        assert_in_range(now_ms() - before, 300, 30000);
        assert_nothing_left(s);
}

static void a_program_of_another_machine_is_not_started(void **state) {
        struct scratch *s = *state;
        Elf64_Ehdr header = {.e_ident = ELFMAG, .e_machine = EM_S390};
        _cleanup_free_ char *program = path_join(s->dir, "k3s");
        assert_int_equal(fs_write_atomic(program, &header, sizeof(header), 0755, NULL), 0);
        struct unpacked u = UNPACKED_INIT;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(payload_unpack(program, s->p->cache_dir, 1000, NULL, &u, &err), -ENOEXEC);
        assert_non_null(strstr(err.message, "another kind of machine"));
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, scratch_teardown)
        const struct CMUnitTest tests[] = {
                        TEST(what_k3s_unpacks_is_described_as_a_guest_is_to_see_it),
                        TEST(every_way_of_telling_k3s_where_is_used),
                        TEST(a_k3s_that_unpacks_elsewhere_is_kept_from_it),
                        TEST(a_k3s_that_fails_or_leaves_something_else_is_not_used),
                        TEST(a_k3s_that_hangs_is_ended),
                        TEST(a_program_of_another_machine_is_not_started),
        };
        return cmocka_run_group_tests_name("payload_unpack", tests, NULL, NULL);
}
