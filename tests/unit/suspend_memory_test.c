/* SPDX-License-Identifier: MIT */
/* A process's memory to a file and, mapped from there, to the same file again. The process is a child that stands in
 * for QEMU; a real one is in tests/vm/suspend.bats. */
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "../../src/domain/suspend_internal.h"

#define PAGE 4096U
#define PAGES 40000U /* more than are looked at at once */
#define BYTES ((uint64_t)PAGES * PAGE)

/* What is written into page @i in a first life, and in a second one; '\0': nothing. */
static char first_life(size_t i) {
        return i % 7 == 0 || (i > 300 && i < 1000) ? (char)('a' + i % 26) : '\0';
}
static char second_life(size_t i) {
        return i % 11 == 0 || i == PAGES - 1 ? (char)('A' + i % 26) : '\0';
}

static void fill(char *memory, char (*letter)(size_t)) {
        for (size_t i = 0; i < PAGES; i++)
                if (letter(i))
                        memset(memory + i * PAGE, letter(i), PAGE);
}

/* A child that has @fd privately mapped (-1: memory of its own), wrote @letter into it, and stands still. */
static pid_t start(int fd, char (*letter)(size_t), uint64_t *ret_base) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t pid = fork();
        if (pid == 0) {
                /* Between two guard pages, so that the kernel joins it with nothing. */
                char *room = mmap(NULL, BYTES + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                char *memory = mmap(room + PAGE, BYTES, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_FIXED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
                if (memory == MAP_FAILED)
                        _exit(1);
                fill(memory, letter);
                /* Touched, and nothing in it. */
                ((volatile char *)memory)[5 * PAGE] = '\0';
                uint64_t base = (uint64_t)(uintptr_t)memory;
                if (write(ends[1], &base, sizeof(base)) != sizeof(base))
                        _exit(1);
                for (;;)
                        pause();
        }
        assert_true(pid > 0);
        assert_int_equal(read(ends[0], ret_base, sizeof(*ret_base)), sizeof(*ret_base));
        close(ends[0]);
        close(ends[1]);
        return pid;
}

static void end(pid_t pid) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

/* That the file holds what was written last. */
static void check_file(const char *path, bool second) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(fs_size(path), BYTES);
        char expected[PAGE], page[PAGE];
        for (size_t i = 0; i < PAGES; i++) {
                char letter = second && second_life(i) ? second_life(i) : first_life(i);
                memset(expected, letter, PAGE);
                if (i == 5 && !(second && second_life(i)))
                        expected[0] = '\0';
                assert_int_equal(pread(fd, page, PAGE, (off_t)(i * PAGE)), PAGE);
                if (memcmp(page, expected, PAGE) != 0)
                        fail_msg("page %zu is '%c', not '%c'", i, page[0], letter);
        }
}

static void memory_is_saved_and_then_only_what_was_changed(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "memory");
        uint64_t base = 0, written = 0;
        _cleanup_error_ struct error err = ERROR_INIT;
        pid_t pid = start(-1, first_life, &base);
        if (suspend_memory_save(pid, base, BYTES, path, path, &written, &err) < 0)
                fail_msg("%s", err.message);
        end(pid);
        check_file(path, false);
        /* What was never touched, or holds nothing, takes no room. */
        assert_true(written < BYTES / 4);
        assert_true(fs_allocated(path) < (int64_t)BYTES / 4);

        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
        pid = start(fd, second_life, &base);
        if (suspend_memory_save(pid, base, BYTES, path, path, &written, &err) < 0)
                fail_msg("%s", err.message);
        end(pid);
        check_file(path, true);
        assert_true(written <= (PAGES / 11 + 3) * (uint64_t)PAGE);
}

static void file_that_is_a_snapshots_too_stays_as_it_is(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "memory"), *kept = path_join(s->dir, "kept");
        uint64_t base = 0, written = 0;
        pid_t pid = start(-1, first_life, &base);
        assert_int_equal(suspend_memory_save(pid, base, BYTES, path, path, &written, NULL), 0);
        end(pid);
        assert_int_equal(link(path, kept), 0);

        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
        pid = start(fd, second_life, &base);
        assert_int_equal(suspend_memory_save(pid, base, BYTES, path, path, &written, NULL), 0);
        check_file(path, true);
        check_file(kept, false);
        /* The guest is on the snapshot's file, not on the one of that name now. */
        assert_int_equal(suspend_memory_save(pid, base, BYTES, path, path, &written, NULL), -ESTALE);
        assert_int_equal(suspend_memory_save(pid, base, BYTES, kept, path, &written, NULL), 0);
        end(pid);
        check_file(path, true);
        check_file(kept, false);
}

static void another_mapping_or_another_file_is_refused_and_untouched(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "memory"), *other = path_join(s->dir, "other");
        uint64_t base = 0, written = 0;
        pid_t pid = start(-1, first_life, &base);
        assert_int_equal(suspend_memory_save(pid, base, BYTES / 2, path, path, &written, NULL), -ESTALE);
        assert_int_equal(suspend_memory_save(pid, base + PAGE, BYTES, path, path, &written, NULL), -ESTALE);
        assert_false(fs_exists(path));
        assert_int_equal(suspend_memory_save(pid, base, BYTES, path, path, &written, NULL), 0);
        end(pid);

        _cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);
        pid = start(fd, second_life, &base);
        scratch_write(other, "mine");
        assert_int_equal(suspend_memory_save(pid, base, BYTES, other, other, &written, NULL), -ESTALE);
        end(pid);
        _cleanup_free_ char *text = scratch_read(other);
        assert_string_equal(text, "mine");
        check_file(path, false);
}

static void a_process_that_is_gone_leaves_no_file(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->dir, "memory");
        uint64_t base = 0, written = 0;
        pid_t pid = start(-1, first_life, &base);
        end(pid);
        assert_true(suspend_memory_save(pid, base, BYTES, path, path, &written, NULL) < 0);
        assert_false(fs_exists(path));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test_setup_teardown(memory_is_saved_and_then_only_what_was_changed, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(file_that_is_a_snapshots_too_stays_as_it_is, scratch_setup,
                                                        scratch_teardown),
                        cmocka_unit_test_setup_teardown(another_mapping_or_another_file_is_refused_and_untouched,
                                                        scratch_setup, scratch_teardown),
                        cmocka_unit_test_setup_teardown(a_process_that_is_gone_leaves_no_file, scratch_setup,
                                                        scratch_teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
