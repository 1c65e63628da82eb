/* SPDX-License-Identifier: MIT */
/* A project in a temporary folder, with runtime, cache and state folders of its own, for tests around a VM. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/project.h>
#include <k3s-vm/state.h>

struct fixture {
        char *top; /* everything is below; short, as sockets are in there too */
        struct project *project;
        struct state *state;
};

/* @name is the project's folder, relative to the temporary one; may hold slashes. */
static inline struct fixture *fixture_new(const char *name) {
        struct fixture *f = xcalloc(1, sizeof(*f));
        assert_int_equal(fs_mkdtemp("/tmp", "k3s-vm-t", &f->top, NULL), 0);
        static const char *const variables[] = {"XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"};
        static const char *const folders[] = {"r", "c", "s"};
        for (size_t i = 0; i < ELEMENTSOF(folders); i++) {
                _cleanup_free_ char *dir = path_join(f->top, folders[i]);
                assert_int_equal(fs_mkdir_p(dir, 0700, NULL), 0);
                setenv(variables[i], dir, 1);
        }
        _cleanup_free_ char *root = path_join(f->top, name);
        assert_int_equal(fs_mkdir_p(root, 0700, NULL), 0);
        assert_int_equal(project_find(root, &f->project, NULL), 0);
        assert_int_equal(project_create_dirs(f->project, NULL), 0);
        f->state = state_new();
        free(f->state->uuid);
        /* By PID, as tests run side by side and orphans are looked for by UUID in the whole system. */
        f->state->uuid = xasprintf("%08x-97d4-4c5e-8f11-2b3c4d5e6f70", (unsigned)getpid());
        free(f->state->name);
        f->state->name = xstrdup("k3s-vm-test");
        return f;
}

static inline void fixture_free(struct fixture *f) {
        fs_remove_tree(f->top, NULL);
        state_free(f->state);
        project_free(f->project);
        free(f->top);
        free(f);
}

static inline int fixture_setup(void **state) {
        *state = fixture_new("p");
        return 0;
}

static inline int fixture_teardown(void **state) {
        fixture_free(*state);
        return 0;
}

static inline bool file_has(const char *path, const char *word) {
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        return fs_read(path, 1U << 20, &text, NULL) == 0 && strstr(buf_str(&text), word);
}
