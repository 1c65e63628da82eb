/* SPDX-License-Identifier: MIT */
/*
 * Whatever the cluster's API answers, for its lists, objects, pods and refusals, is read without harm, and becomes a
 * text where one is shown.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <k3s-vm/explain.h>
#include <k3s-vm/rollout.h>

#include "../../src/domain/apply_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool ok) {
        if (!ok)
                abort();
}

static void read_resources(const struct json *answer) {
        _cleanup_discovery_ struct discovery *d = discovery_new(NULL);
        discovery_keep(d, "apps/v1", answer);
        const struct resource *r;
        for (size_t i = 0; (r = discovery_at(d, i)); i++) {
                _cleanup_free_ char *path = resource_path(r, "a b", "c/d");
                need(str_starts(path, "/apis/apps/v1/namespaces/a%20b/") && str_ends(path, "/c%2Fd"));
                need(discovery_find(d, "apps/v1", r->kind) != NULL);
        }
        discovery_forget(d, "apps/v1");
        need(!discovery_at(d, 0));
}

static void read_workload(const struct json *answer) {
        _cleanup_free_ char *text = NULL, *pods = explain_pods_path(answer);
        rollout_check(answer, &text);
        need(text && (!pods || str_starts(pods, "/api/v1/namespaces/")));
        struct pod_trouble t = {0};
        explain_trouble(answer, &t);
        need(!t.container || (t.pod && t.reason && t.image));
        _cleanup_nodes_ struct nodes nodes = {0};
        if (nodes_read(answer, &nodes, NULL) == 0) {
                _cleanup_json_ struct json *list = nodes_to_json(&nodes);
                need(json_len(list) == nodes.n);
        }
}

/* As the answer to an object that was sent, and as it was before and after. */
static void read_refusal(const struct json *answer, const struct manifest *m) {
        static const long codes[] = {404, 409, 422, 500};
        for (size_t i = 0; i < ELEMENTSOF(codes); i++) {
                struct resource resource = {.name = (char *)"services"};
                struct item item = {.manifest = m, .resource = &resource, .title = (char *)"service/web"};
                _cleanup_kube_call_ struct kube_call call = {
                                .status = codes[i], .answer = json_copy(answer), .result = -EINVAL};
                err_set(&call.error, ERR_FAILED, EINVAL, "refused");
                send_failed(&item, &call);
                need(item.error.message && str_starts(item.error.message, "web.yaml:"));
                error_clear(&item.error);
        }
        _cleanup_free_ char *itself = apply_diff(answer, answer), *other = apply_diff(m->object, answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        static const char manifest[] =
                        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
        _cleanup_json_ struct json *answer = NULL;
        if (json_parse((const char *)data, size, &answer, NULL) < 0)
                return 0;
        _cleanup_manifests_ struct manifests m = {0};
        need(manifests_add_text(&m, "web.yaml", manifest, strlen(manifest), NULL) == 0);
        read_resources(answer);
        read_workload(answer);
        read_refusal(answer, &m.items[0]);
        return 0;
}

#ifdef FUZZ_REPLAY
#include "replay.c"
#endif
