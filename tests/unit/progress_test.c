/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/progress.h>

/* Writes down what it is told. */
struct progress_phase {
        struct buf *said;
};
struct recorder {
        struct progress progress;
        struct progress_phase phase;
        struct buf said;
        bool silent; /* shows no phases */
};

static struct progress_phase *begin(struct progress *p, const char *name, const char *text) {
        struct recorder *r = (struct recorder *)p;
        buf_printf(&r->said, "begin %s: %s\n", name, text);
        r->phase.said = &r->said;
        return r->silent ? NULL : &r->phase;
}

static void update(struct progress_phase *phase, const char *text, uint64_t done, uint64_t total, const char *unit) {
        buf_printf(phase->said, "update %s %d/%d %s\n", text ? text : "-", (int)done, (int)total, unit);
}

static void end(struct progress_phase *phase, int ok, const char *text) {
        buf_printf(phase->said, "end %d %s\n", ok, text ? text : "-");
}

static void note(struct progress *p, int warning, const char *text) {
        buf_printf(&((struct recorder *)p)->said, "%s: %s\n", warning ? "warning" : "note", text);
}

static void debug(struct progress *p, const char *text) {
        buf_printf(&((struct recorder *)p)->said, "debug: %s\n", text);
}

static const struct progress_ops ops = {begin, update, end, note, debug};

static void everything_said_arrives_formatted(void **state _unused_) {
        struct recorder r = {.progress.ops = &ops};
        struct progress_phase *phase = progress_begin(&r.progress, "guest", "building %s %d", "x", 1);
        progress_update(&r.progress, phase, NULL, 1, 2, "bytes");
        progress_note(&r.progress, "100%%, %s", "said");
        progress_warn(&r.progress, "%d", 5);
        progress_debug(&r.progress, "%s", "%s");
        progress_end(&r.progress, phase, 1, "built %d", 2);
        progress_end(&r.progress, phase, 0, NULL);
        assert_string_equal(buf_str(&r.said), "begin guest: building x 1\nupdate - 1/2 bytes\nnote: 100%, said\n"
                                              "warning: 5\ndebug: %s\nend 1 built 2\nend 0 -\n");
        buf_free(&r.said);
}

static void nobody_has_to_watch(void **state _unused_) {
        struct recorder r = {.progress.ops = &ops};
        assert_null(progress_begin(NULL, "guest", "x"));
        progress_update(NULL, &r.phase, "x", 1, 2, "");
        progress_end(NULL, &r.phase, 1, "x");
        progress_note(NULL, "x");
        progress_warn(NULL, "x");
        progress_debug(NULL, "x");
        assert_string_equal(buf_str(&r.said), "");
}

static void a_watcher_may_show_no_phases(void **state _unused_) {
        struct recorder r = {.progress.ops = &ops, .silent = true};
        struct progress_phase *phase = progress_begin(&r.progress, "guest", NULL);
        progress_update(&r.progress, phase, "x", 1, 2, "");
        progress_end(&r.progress, phase, 1, "x");
        assert_string_equal(buf_str(&r.said), "begin guest: \n");
        buf_free(&r.said);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(everything_said_arrives_formatted),
                        cmocka_unit_test(nobody_has_to_watch),
                        cmocka_unit_test(a_watcher_may_show_no_phases),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
