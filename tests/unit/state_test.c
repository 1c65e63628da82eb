/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/state.h>

#define UUID "0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90"
#define OTHER_UUID "1d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e91"

static struct state *sample(const char *uuid) {
        struct state *s = state_new();
        s->uuid = xstrdup(uuid);
        s->name = xstrdup("shop");
        s->created_ms = 1700000000123;
        s->guest_dir = xstrdup("/cache/guests/\"a, b\"\n\xc3\xa4");
        s->guest_version = xstrdup("Debian 12");
        s->payload_path = xstrdup("/cache/payloads/x/payload.img");
        s->payload_name = xstrdup("kubernetes");
        s->payload_version = xstrdup("v1.20.2");
        s->payload_description = xstrdup("upstream Kubernetes");
        s->machine = xstrdup("pc-q35-7.2");
        s->disk_gib = 20;
        s->accel = xstrdup("tcg");
        s->pid = 4711;
        s->start_time = 123456789;
        s->boot_id = xstrdup("8b1c7a5e-0000-4000-8000-000000000000");
        s->started_ms = 1700000001000;
        s->api_port = 6443;
        s->ssh_port = 2666;
        s->web_port = 30080;
        s->ready_once = true;
        s->intent = xstrdup("running");
        state_set_phase(s, "boot", 900);
        state_set_phase(s, "ssh", 13000);
        state_set_phase(s, "boot", 1000);
        return s;
}

static void what_is_saved_is_loaded(void **state) {
        struct scratch *t = *state;
        _cleanup_state_ struct state *s = sample(UUID), *l = NULL;
        assert_int_equal(state_save(t->p, s, NULL), 0);
        assert_int_equal(state_load(t->p, &l, NULL), 0);
        _cleanup_json_ struct json *a = state_to_json(s), *b = state_to_json(l);
        _cleanup_free_ char *x = json_print(a, true), *y = json_print(b, true);
        assert_string_equal(x, y);
        assert_int_equal(l->pid, 4711);
        assert_string_equal(l->guest_dir, s->guest_dir);
        assert_int_equal(l->n_phases, 2);
        assert_int_equal(l->phases[0].ms, 1000);
        struct stat st;
        assert_int_equal(stat(t->p->state_path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_missing_state_means_no_vm(void **state) {
        struct scratch *t = *state;
        struct state *s = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(state_load(t->p, &s, &err), -ENOENT);
        assert_int_equal(err.code, ERR_NO_VM);
        assert_non_null(err.hint);
        assert_int_equal(fs_remove_tree(t->p->dir, NULL), 0);
        assert_int_equal(state_load(t->p, &s, &err), -ENOENT);
}

static void a_state_cut_anywhere_is_damaged_and_never_believed(void **state) {
        struct scratch *t = *state;
        _cleanup_state_ struct state *s = sample(UUID);
        assert_int_equal(state_save(t->p, s, NULL), 0);
        _cleanup_free_ char *text = scratch_read(t->p->state_path);
        size_t len = strlen(text);
        assert_int_equal(text[len - 1], '\n');
        for (size_t cut = 0; cut < len - 1; cut++) {
                struct state *l = NULL;
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_int_equal(state_parse(text, cut, &l, &err), -EUCLEAN);
                assert_null(l);
                assert_non_null(err.message);
        }
}

static void junk_of_every_kind_is_damaged(void **state) {
        struct scratch *t = *state;
        static const char *const junk[] = {
                        "[]",
                        "null",
                        "{}",
                        "\x01\x02",
                        "{\"schema\":1}",
                        "{\"schema\":1,\"uuid\":\"../../../../../../../../../../../../\",\"name\":\"x\"}",
                        "{\"schema\":1,\"uuid\":\"" UUID "\",\"name\":\"a\\nb\"}",
                        "{\"schema\":0,\"uuid\":\"" UUID "\",\"name\":\"x\"}"};
        for (size_t i = 0; i < ELEMENTSOF(junk); i++) {
                struct state *l = NULL;
                assert_int_equal(state_parse(junk[i], strlen(junk[i]), &l, NULL), -EUCLEAN);
        }
        struct state *l = NULL;
        assert_int_equal(mkdir(t->p->state_path, 0700), 0);
        assert_int_equal(state_load(t->p, &l, NULL), -EUCLEAN);
}

static void wrong_members_count_as_not_there(void **state _unused_) {
        static const char text[] = "{\"schema\":1,\"uuid\":\"" UUID "\",\"name\":\"x\",\"future\":[1],\"disk_gib\":-5,"
                                   "\"qemu\":{\"pid\":1e300,\"boot_id\":7},\"ports\":{\"api\":70000,\"ssh\":\"22\"},"
                                   "\"guest\":{\"dir\":\"relative\"},\"phases\":[{\"ms\":1},7,null]}";
        _cleanup_state_ struct state *s = NULL;
        assert_int_equal(state_parse(text, sizeof(text) - 1, &s, NULL), 0);
        assert_int_equal(s->pid, 0);
        assert_null(s->boot_id);
        assert_int_equal(s->disk_gib, 0);
        assert_int_equal(s->api_port, 0);
        assert_int_equal(s->ssh_port, 0);
        assert_null(s->guest_dir);
        assert_int_equal(s->n_phases, 0);
}

static void a_newer_schema_is_not_taken_for_damage(void **state _unused_) {
        static const char text[] = "{\"schema\":2,\"uuid\":\"" UUID "\",\"name\":\"x\"}";
        struct state *s = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_int_equal(state_parse(text, sizeof(text) - 1, &s, &err), -EPROTONOSUPPORT);
        assert_non_null(err.hint);
}

static void the_registry_lists_what_was_put(void **state) {
        struct scratch *t = *state;
        _cleanup_state_ struct state *s = sample(UUID);
        assert_int_equal(state_save(t->p, s, NULL), 0);
        assert_int_equal(registry_put(t->p, s, NULL), 0);
        assert_int_equal(registry_put(t->p, s, NULL), 0);
        _cleanup_registry_ struct registry r = {0};
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 1);
        assert_string_equal(r.entries[0].uuid, UUID);
        assert_string_equal(r.entries[0].name, "shop");
        assert_string_equal(r.entries[0].project, t->root);
        assert_int_equal(r.entries[0].api_port, 6443);
        assert_int_equal(registry_remove(t->p, UUID, NULL), 0);
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 0);
}

static void the_registry_drops_vms_whose_project_is_gone_or_has_another(void **state) {
        struct scratch *t = *state;
        _cleanup_state_ struct state *s = sample(UUID), *other = sample(OTHER_UUID);
        assert_int_equal(state_save(t->p, s, NULL), 0);
        assert_int_equal(registry_put(t->p, s, NULL), 0);
        assert_int_equal(registry_put(t->p, other, NULL), 0);
        _cleanup_free_ char *stale = path_join(t->p->registry_dir, OTHER_UUID ".json");
        assert_true(fs_exists(stale));
        _cleanup_registry_ struct registry r = {0};
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 1);
        assert_false(fs_exists(stale));
        assert_int_equal(fs_unlink(t->p->state_path, NULL), 0);
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 0);
}

static void the_registry_keeps_a_vm_whose_state_is_damaged(void **state) {
        struct scratch *t = *state;
        _cleanup_state_ struct state *s = sample(UUID);
        assert_int_equal(registry_put(t->p, s, NULL), 0);
        scratch_write(t->p->state_path, "{\"sche");
        _cleanup_registry_ struct registry r = {0};
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 1);
}

static void the_registry_skips_what_is_not_an_entry(void **state) {
        struct scratch *t = *state;
        _cleanup_registry_ struct registry r = {0};
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 0);
        assert_int_equal(fs_mkdir_p(t->p->registry_dir, 0700, NULL), 0);
        const char *names[] = {"junk.json", UUID ".json", UUID ".json.tmp", "README"};
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *path = path_join(t->p->registry_dir, names[i]);
                scratch_write(path, "{\"uuid\": 5}");
        }
        assert_int_equal(registry_load(t->p, &r, NULL), 0);
        assert_int_equal(r.n, 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_state_ struct state *s = sample("../evil");
        assert_true(registry_put(t->p, s, &err) < 0);
        assert_int_equal(registry_remove(t->p, "../../etc/passwd", NULL), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(what_is_saved_is_loaded),
                        scratch_test(a_missing_state_means_no_vm),
                        scratch_test(a_state_cut_anywhere_is_damaged_and_never_believed),
                        scratch_test(junk_of_every_kind_is_damaged),
                        scratch_test(wrong_members_count_as_not_there),
                        scratch_test(a_newer_schema_is_not_taken_for_damage),
                        scratch_test(the_registry_lists_what_was_put),
                        scratch_test(the_registry_drops_vms_whose_project_is_gone_or_has_another),
                        scratch_test(the_registry_keeps_a_vm_whose_state_is_damaged),
                        scratch_test(the_registry_skips_what_is_not_an_entry),
        };
        return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
