/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/state.h>

#define ENTRY_MAX_BYTES (64U * 1024)
#define ENTRIES_MAX 4096

static void entry_clear(struct registry_entry *e) {
        free(e->uuid);
        free(e->name);
        free(e->project);
}

void registry_clear(struct registry *r) {
        for (size_t i = 0; i < r->n; i++)
                entry_clear(&r->entries[i]);
        free(r->entries);
        *r = (struct registry){0};
}

/* NULL for what cannot be the name of an entry's file. The caller frees. */
static char *entry_path(const struct project *p, const char *uuid) {
        if (!state_uuid_valid(uuid))
                return NULL;
        _cleanup_free_ char *name = xasprintf("%s.json", uuid);
        return path_join(p->registry_dir, name);
}

static uint16_t port_of(const struct json *j) {
        uint64_t value = json_u64_or(j, 0);
        return value <= UINT16_MAX ? (uint16_t)value : 0;
}

/* Fills in @ret from one file, false when it is damaged. */
static bool entry_read(const char *path, const char *uuid, struct registry_entry *ret) {
        _cleanup_json_ struct json *j = NULL;
        if (json_read_file(path, ENTRY_MAX_BYTES, &j, NULL) < 0)
                return false;
        const char *name = json_string(json_get(j, "name")), *project = json_string(json_get(j, "project"));
        if (!str_eq(json_string(json_get(j, "uuid")), uuid) || !name || !project || project[0] != '/')
                return false;
        *ret = (struct registry_entry){.uuid = xstrdup(uuid),
                                       .name = str_printable(name, strlen(name)),
                                       .project = xstrdup(project),
                                       .api_port = port_of(json_get(j, "ports", "api")),
                                       .ssh_port = port_of(json_get(j, "ports", "ssh")),
                                       .web_port = port_of(json_get(j, "ports", "web"))};
        return true;
}

/* Whether the entry's project is known not to hold that VM any more. A state that cannot be read or is damaged
 * says nothing either way. */
static bool entry_stale(const struct registry_entry *e) {
        _cleanup_free_ char *state_path = path_join(e->project, ".k3s-vm/vm/state.json");
        const struct project p = {.root = e->project, .state_path = state_path};
        _cleanup_state_ struct state *s = NULL;
        int r = state_load(&p, &s, NULL);
        return r == -ENOENT || (r == 0 && !str_eq(s->uuid, e->uuid));
}

static int by_name(const void *a, const void *b) {
        const struct registry_entry *x = a, *y = b;
        int r = strcmp(x->name, y->name);
        return r ? r : strcmp(x->uuid, y->uuid);
}

int registry_load(const struct project *p, struct registry *ret, struct error *err) {
        _cleanup_registry_ struct registry found = {0};
        _cleanup_closedir_ DIR *dir = opendir(p->registry_dir);
        if (!dir && errno != ENOENT)
                return err_errno(err, errno, "cannot read the list of VMs in %s", p->registry_dir);
        struct dirent *d;
        while (dir && found.n < ENTRIES_MAX && (d = readdir(dir))) {
                if (!str_ends(d->d_name, ".json"))
                        continue;
                _cleanup_free_ char *uuid = xstrndup(d->d_name, strlen(d->d_name) - strlen(".json"));
                _cleanup_free_ char *path = entry_path(p, uuid);
                struct registry_entry e;
                if (!path || !entry_read(path, uuid, &e))
                        continue;
                if (entry_stale(&e)) {
                        fs_unlink(path, NULL);
                        entry_clear(&e);
                        continue;
                }
                found.entries = xreallocarray(found.entries, found.n + 1, sizeof(*found.entries));
                found.entries[found.n++] = e;
        }
        if (found.n > 1)
                qsort(found.entries, found.n, sizeof(*found.entries), by_name);
        registry_clear(ret);
        *ret = found;
        found = (struct registry){0};
        return 0;
}

int registry_put(const struct project *p, const struct state *s, struct error *err) {
        _cleanup_free_ char *path = entry_path(p, s->uuid);
        if (!path)
                return err_set(err, ERR_FAILED, EINVAL, "cannot register the VM: its UUID is damaged");
        _cleanup_json_ struct json *j = json_new_object();
        json_set_number(j, "schema", 1);
        json_set_string(j, "uuid", s->uuid);
        json_set_string(j, "name", s->name);
        json_set_string(j, "project", p->root);
        struct json *ports = json_set_object(j, "ports");
        json_set_number(ports, "api", s->api_port);
        json_set_number(ports, "ssh", s->ssh_port);
        json_set_number(ports, "web", s->web_port);
        _cleanup_free_ char *text = json_print(j, true);

        /* Nearly always there already and the same: a start then costs no disk sync. */
        _cleanup_buf_ struct buf before = BUF_INIT(ENTRY_MAX_BYTES);
        if (fs_read(path, ENTRY_MAX_BYTES, &before, NULL) == 0 && str_eq(buf_str(&before), text))
                return 0;
        int r = fs_mkdir_p(p->registry_dir, 0700, err);
        if (r < 0)
                return r;
        return fs_write_atomic(path, text, strlen(text), 0600, err);
}

int registry_remove(const struct project *p, const char *uuid, struct error *err) {
        _cleanup_free_ char *path = entry_path(p, uuid);
        return path ? fs_unlink(path, err) : 0;
}
