/* SPDX-License-Identifier: MIT */
/* What was applied, as the cluster itself remembers it (apply.h says why there). */
#include <errno.h>
#include <string.h>

#include "apply_internal.h"

#define RECORD_NAME "k3s-vm-applied"
/* A Secret, because from the hash of a short password the password could be found. */
#define RECORD_PATH "/api/v1/namespaces/kube-system/secrets/" RECORD_NAME
/* The API takes a little more than a megabyte. */
#define RECORD_MAX_BYTES 900000U

void record_clear(struct apply_record *r) {
        free(r->digest);
        json_free(r->objects);
        *r = (struct apply_record){0};
}

/* A value of the Secret; the caller frees. NULL: there is none. */
static char *read_value(const struct json *secret, const char *name) {
        const char *encoded = json_string(json_get(secret, "data", name));
        char *text = NULL;
        size_t len;
        return encoded && base64_decode(encoded, &text, &len, NULL) == 0 ? text : NULL;
}

static void set_value(struct json *data, const char *name, const char *text) {
        _cleanup_free_ char *encoded = base64_encode(text, strlen(text));
        json_set_string(data, name, encoded);
}

static void read_record(const struct json *secret, struct apply_record *ret) {
        ret->digest = read_value(secret, "digest");
        _cleanup_free_ char *text = read_value(secret, "objects");
        if (text && json_parse(text, strlen(text), &ret->objects, NULL) < 0)
                ret->objects = NULL;
}

int record_read(struct kube *k, struct apply_record *ret, struct error *err) {
        _cleanup_kube_call_ struct kube_call call = {.path = xstrdup(RECORD_PATH)};
        int r = kube_perform_one(k, &call, err);
        if (r == -ENOENT) {
                *ret = (struct apply_record){0};
                return 0;
        }
        if (r < 0)
                return err_wrap(err, r, "cannot read what was applied before");
        read_record(call.answer, ret);
        return 0;
}

static char *uid_and_version(const struct json *object) {
        return xasprintf("%s %s", json_string_or(json_get(object, "metadata", "uid"), ""),
                         json_string_or(json_get(object, "metadata", "resourceVersion"), ""));
}

static void learn(struct run *run, const struct resource *r, const struct json *list) {
        for (const struct json *o = json_first(json_get(list, "items")); o; o = json_next(o)) {
                const char *name = json_string(json_get(o, "metadata", "name"));
                if (!name)
                        continue;
                _cleanup_free_ char *key = object_key(r->api_version, r->kind,
                                                      json_string(json_get(o, "metadata", "namespace")), name);
                _cleanup_free_ char *value = uid_and_version(o);
                json_add(run->known, key, json_new_string(value));
        }
}

int record_gather(struct run *run, struct error *err) {
        /* Each kind once, however many objects there are of it. */
        const struct resource **resources = xcalloc(run->n, sizeof(*resources));
        size_t n = 0;
        for (size_t i = 0; i < run->n; i++) {
                const struct resource *r = run->items[i].resource;
                size_t j = 0;
                while (j < n && resources[j] != r)
                        j++;
                if (r && r->can_list && j == n)
                        resources[n++] = r;
        }
        struct kube_call *calls = xcalloc(n + 1, sizeof(*calls));
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *path = resource_path(resources[i], NULL, NULL), *label = url_escape(APPLY_LABEL);
                calls[i] = (struct kube_call){.path = xasprintf("%s?labelSelector=%s", path, label),
                                              .metadata_only = true};
        }
        calls[n].path = xstrdup(RECORD_PATH);
        int r = kube_perform(run->kube, calls, n + 1, NULL, NULL, err);
        json_free(run->known);
        run->known = json_new_object();
        /* What cannot be told is not known: it is sent. */
        for (size_t i = 0; r == 0 && i < n; i++)
                if (calls[i].result == 0)
                        learn(run, resources[i], calls[i].answer);
        if (r == 0 && calls[n].result == 0)
                read_record(calls[n].answer, &run->record);
        kube_calls_free(calls, n + 1);
        free(resources);
        return r;
}

bool record_holds(const struct run *run, const struct item *i) {
        const char *known = json_string(json_get(run->known, i->key));
        const char *kept = json_string(json_get(run->record.objects, i->key));
        return known && kept && strncmp(kept, i->hash, SHA256_HEX_LEN) == 0 && kept[SHA256_HEX_LEN] == ' ' &&
               str_eq(kept + SHA256_HEX_LEN + 1, known);
}

/* Of the whole project exactly its objects; of some files those as well as what was there. */
static char *objects_text(const struct run *run) {
        _cleanup_json_ struct json *objects = json_is_object(run->record.objects) && !run->a->whole_project
                                                              ? json_copy(run->record.objects)
                                                              : json_new_object();
        for (size_t i = 0; i < run->n; i++) {
                const struct item *item = &run->items[i];
                bool kept = item->over && item->result != APPLY_FAILED && !item->unfinished && item->uid &&
                            item->version;
                _cleanup_free_ char *value = kept ? xasprintf("%s %s %s", item->hash, item->uid, item->version) : NULL;
                if (item->key)
                        json_set_string(objects, item->key, value);
        }
        char *text = json_print(objects, false);
        if (strlen(text) <= RECORD_MAX_BYTES)
                return text;
        free(text);
        return xstrdup("{}");
}

int record_write(struct run *run, struct error *err) {
        char digest[SHA256_HEX_LEN + 1] = "";
        int r = 0;
        bool complete = run->counts[APPLY_FAILED] == 0;
        for (size_t i = 0; i < run->n; i++)
                complete = complete && run->items[i].over && !run->items[i].unfinished;
        if (run->a->whole_project && complete)
                r = manifests_digest(run->a->manifests, digest, err);
        if (r < 0)
                return r;
        /* Some files leave what is known about the whole project; an apply that was not complete is to be repeated. */
        const char *kept = run->a->whole_project ? digest : run->record.digest ? run->record.digest : "";
        _cleanup_free_ char *objects = objects_text(run);
        _cleanup_free_ char *before = run->record.objects ? json_print(run->record.objects, false) : NULL;
        if (str_eq(before, objects) && str_eq(run->record.digest, kept))
                return 0;
        _cleanup_json_ struct json *secret = json_new_object();
        json_set_string(secret, "apiVersion", "v1");
        json_set_string(secret, "kind", "Secret");
        struct json *metadata = json_set_object(secret, "metadata");
        json_set_string(metadata, "name", RECORD_NAME);
        json_set_string(metadata, "namespace", "kube-system");
        struct json *data = json_set_object(secret, "data");
        set_value(data, "digest", kept);
        set_value(data, "objects", objects);
        _cleanup_kube_call_ struct kube_call call = {
                        .method = "PATCH",
                        .path = xstrdup(RECORD_PATH "?fieldManager=" FIELD_MANAGER "&force=true"),
                        .body = json_print(secret, false),
                        .metadata_only = true,
        };
        r = kube_perform_one(run->kube, &call, err);
        return r < 0 ? err_wrap(err, r, "cannot keep what was applied") : 0;
}

int apply_is_due(const struct kubeconfig *k, const struct manifests *m, bool *ret, struct error *err) {
        _cleanup_kube_ struct kube *kube = NULL;
        struct apply_record record = {0};
        char digest[SHA256_HEX_LEN + 1];
        int r = manifests_digest(m, digest, err);
        if (r == 0)
                r = kube_new(k, &kube, err);
        if (r == 0)
                r = record_read(kube, &record, err);
        if (r < 0)
                return r;
        *ret = !str_eq(record.digest, digest);
        record_clear(&record);
        return 0;
}
