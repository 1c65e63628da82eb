/* SPDX-License-Identifier: MIT */
/*
 * A temporary folder for one test, with a project in it and the XDG folders inside, so that nothing of
 * whoever runs the tests is read or written. Removed again by the teardown.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* Behind the headers above, which it needs. */
#include <cmocka.h>

#include <k3s-vm/config.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/project.h>

struct scratch {
        char *dir;     /* absolute, resolved */
        char *root;    /* DIR/shop: the project */
        char *runtime; /* DIR/run */
        struct project *p;
};

static inline void scratch_write(const char *path, const char *text) {
        assert_int_equal(fs_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

static inline char *scratch_read(const char *path) {
        struct buf b = BUF_INIT(1U << 20);
        assert_int_equal(fs_read(path, 1U << 20, &b, NULL), 0);
        return buf_take(&b);
}

static inline int scratch_setup(void **state) {
        struct scratch *s = xcalloc(1, sizeof(*s));
        char *made = NULL;
        if (fs_mkdtemp("/tmp", "k3s-vm-test", &made, NULL) < 0)
                return -1;
        s->dir = realpath(made, NULL);
        free(made);
        s->root = path_join(s->dir, "shop");
        s->runtime = path_join(s->dir, "run");
        _cleanup_free_ char *cache = path_join(s->dir, "cache"), *state_home = path_join(s->dir, "state");
        size_t n;
        const struct config_key *keys = config_keys(&n);
        for (size_t i = 0; i < n; i++)
                unsetenv(keys[i].name);
        setenv("XDG_CACHE_HOME", cache, 1);
        setenv("XDG_STATE_HOME", state_home, 1);
        setenv("XDG_RUNTIME_DIR", s->runtime, 1);
        setenv("HOME", s->dir, 1);
        if (mkdir(s->root, 0755) < 0 || mkdir(s->runtime, 0700) < 0)
                return -1;
        if (project_find(s->root, &s->p, NULL) < 0 || project_create_dirs(s->p, NULL) < 0)
                return -1;
        *state = s;
        return 0;
}

static inline int scratch_teardown(void **state) {
        struct scratch *s = *state;
        int r = fs_remove_tree(s->dir, NULL);
        project_free(s->p);
        free(s->dir);
        free(s->root);
        free(s->runtime);
        free(s);
        return r;
}

#define scratch_test(function) cmocka_unit_test_setup_teardown(function, scratch_setup, scratch_teardown)
