/* SPDX-License-Identifier: MIT */
/* Also of module `explain`: what is wrong with a pod, by its status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <k3s-vm/explain.h>
#include <k3s-vm/rollout.h>
#include <k3s-vm/yaml.h>

static struct json *parse(const char *text) {
        _cleanup_json_ struct json *documents = NULL;
        assert_int_equal(yaml_parse(text, strlen(text), &documents, NULL), 0);
        return json_copy(json_first(documents));
}

static void assert_state(const char *object, enum rollout_state expected, const char *text) {
        _cleanup_json_ struct json *j = parse(object);
        _cleanup_free_ char *got = NULL;
        enum rollout_state state = rollout_check(j, &got);
        if (state != expected || !str_eq(got, text))
                fail_msg("%s: %d, %s", object, state, got);
}

static void a_deployment_is_done_when_all_pods_are_new_and_available(void **state _unused_) {
#define DEPLOYMENT(status) "{kind: Deployment, metadata: {generation: 2}, spec: {replicas: 3}, status: {" status "}}"
        assert_state(DEPLOYMENT("observedGeneration: 1, replicas: 3, updatedReplicas: 3, availableReplicas: 3"),
                     ROLLOUT_GOING, "its controller has not seen it yet");
        assert_state(DEPLOYMENT("observedGeneration: 2, replicas: 3, updatedReplicas: 1, availableReplicas: 3"),
                     ROLLOUT_GOING, "1 of 3 new pods there");
        assert_state(DEPLOYMENT("observedGeneration: 2, replicas: 4, updatedReplicas: 3, availableReplicas: 3"),
                     ROLLOUT_GOING, "1 old pod still to end");
        assert_state(DEPLOYMENT("observedGeneration: 2, replicas: 3, updatedReplicas: 3, availableReplicas: 2"),
                     ROLLOUT_GOING, "2 of 3 pods available");
        assert_state(DEPLOYMENT("observedGeneration: 2, replicas: 3, updatedReplicas: 3, availableReplicas: 3"),
                     ROLLOUT_DONE, "3 pods available");
        assert_state(DEPLOYMENT("observedGeneration: 2, conditions: [{type: Progressing, reason: "
                                "ProgressDeadlineExceeded, message: too late}]"),
                     ROLLOUT_FAILED, "too late");
        assert_state("{kind: Deployment, spec: {replicas: 0}}", ROLLOUT_DONE, "0 pods available");
}

static void a_stateful_set_is_done_when_all_pods_are_of_the_new_revision(void **state _unused_) {
#define STATEFUL(spec, status) "{kind: StatefulSet, spec: {replicas: 2" spec "}, status: {" status "}}"
        assert_state(STATEFUL("", "readyReplicas: 1"), ROLLOUT_GOING, "1 of 2 pods ready");
        assert_state(STATEFUL("", "readyReplicas: 2, updatedReplicas: 1, updateRevision: b, currentRevision: a"),
                     ROLLOUT_GOING, "1 of 2 pods new");
        assert_state(STATEFUL("", "readyReplicas: 2, updatedReplicas: 2, updateRevision: b, currentRevision: b"),
                     ROLLOUT_DONE, "2 pods ready");
        assert_state(STATEFUL(", updateStrategy: {type: OnDelete}",
                              "readyReplicas: 2, updateRevision: b, currentRevision: a"),
                     ROLLOUT_DONE, "2 pods ready");
        assert_state(STATEFUL(", updateStrategy: {rollingUpdate: {partition: 1}}",
                              "readyReplicas: 2, updatedReplicas: 1, updateRevision: b, currentRevision: a"),
                     ROLLOUT_DONE, "2 pods ready");
}

static void a_daemon_set_is_done_when_every_node_has_a_new_available_pod(void **state _unused_) {
#define DAEMON(status) "{kind: DaemonSet, status: {desiredNumberScheduled: 2, " status "}}"
        assert_state(DAEMON("updatedNumberScheduled: 1"), ROLLOUT_GOING, "1 of 2 pods new");
        assert_state(DAEMON("updatedNumberScheduled: 2, numberAvailable: 1"), ROLLOUT_GOING, "1 of 2 pods available");
        assert_state(DAEMON("updatedNumberScheduled: 2, numberAvailable: 2"), ROLLOUT_DONE, "2 pods available");
}

static void a_job_is_done_when_it_is_complete_and_not_when_it_failed(void **state _unused_) {
        assert_state("{kind: Job}", ROLLOUT_GOING, "0 of 1 pod succeeded");
        assert_state("{kind: Job, status: {failed: 2}}", ROLLOUT_GOING, "2 pods failed so far");
        assert_state("{kind: Job, status: {conditions: [{type: Complete, status: 'True'}]}}", ROLLOUT_DONE, "complete");
        assert_state("{kind: Job, status: {conditions: [{type: Failed, status: 'True', message: limit}]}}",
                     ROLLOUT_FAILED, "limit");
        assert_state("{kind: Job, spec: {suspend: true}}", ROLLOUT_DONE, "suspended");
}

static void only_what_rolls_out_is_followed(void **state _unused_) {
        assert_true(rollout_follows("apps/v1", "Deployment"));
        assert_true(rollout_follows("batch/v1", "Job"));
        assert_false(rollout_follows("v1", "ConfigMap"));
        assert_false(rollout_follows("example.com/v1", "Deployment"));
        assert_false(rollout_follows("batch/v1", "CronJob"));
}

static void a_junk_status_is_no_crash(void **state _unused_) {
        static const char *const texts[] = {
                        "{kind: Deployment, spec: 3, status: [1]}", "{kind: Job, status: {conditions: {a: 1}}}",
                        "{kind: StatefulSet, spec: {replicas: -1}, status: {readyReplicas: x}}", "[]", "{kind: 7}"};
        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_json_ struct json *j = parse(texts[i]);
                _cleanup_free_ char *text = NULL, *path = explain_pods_path(j);
                rollout_check(j, &text);
                struct pod_trouble t;
                explain_trouble(j, &t);
                assert_non_null(text);
                assert_null(path);
        }
}

static void pods_are_found_by_the_whole_selector(void **state _unused_) {
        _cleanup_json_ struct json *j = parse(
                        "{metadata: {namespace: shop}, spec: {selector: {matchLabels: {app: web}, matchExpressions: "
                        "[{key: tier, operator: In, values: [a, b]}, {key: old, operator: DoesNotExist}]}}}");
        _cleanup_free_ char *path = explain_pods_path(j);
        assert_string_equal(path, "/api/v1/namespaces/shop/pods?labelSelector="
                                  "app%3Dweb%2Ctier%20in%20%28a%2Cb%29%2C%21old");
}

static void assert_trouble(const char *pods, const char *reason, bool hopeless) {
        _cleanup_json_ struct json *j = parse(pods);
        struct pod_trouble t;
        explain_trouble(j, &t);
        if (!str_eq(t.reason, reason) || t.hopeless != hopeless)
                fail_msg("%s: %s, %d", pods, t.reason, t.hopeless);
}

static void the_worst_trouble_of_the_pods_is_told(void **state _unused_) {
#define POD(statuses) "{status: {containerStatuses: [" statuses "]}}"
#define WAITING(reason, n) "{name: c, restartCount: " n ", state: {waiting: {reason: " reason "}}}"
        assert_trouble("{items: [" POD(WAITING("ContainerCreating", "0")) "]}", NULL, false);
        assert_trouble("{items: [" POD("{name: c, state: {running: {}}}") "]}", NULL, false);
        assert_trouble("{items: [" POD(WAITING("ImagePullBackOff", "0")) "]}", "ImagePullBackOff", false);
        assert_trouble("{items: [" POD(WAITING("CrashLoopBackOff", "1")) "]}", "CrashLoopBackOff", false);
        assert_trouble("{items: [" POD(WAITING("CrashLoopBackOff", "4")) "]}", "CrashLoopBackOff", true);
        assert_trouble("{items: [" POD(WAITING("ImagePullBackOff", "0")) ", " POD(
                                       WAITING("InvalidImageName", "0")) "]}",
                       "InvalidImageName", true);
        assert_trouble("{items: [{status: {conditions: [{type: PodScheduled, status: 'False', reason: "
                       "Unschedulable}]}}]}",
                       "Unschedulable", false);
        /* An init container's comes before the others', which wait for it. */
        assert_trouble("{items: [{status: {initContainerStatuses: [" WAITING(
                                       "ErrImagePull", "0") "], "
                                                            "containerStatuses: [" WAITING("PodInitializing",
                                                                                           "0") "]}}]}",
                       "ErrImagePull", false);
        assert_trouble("{items: [{metadata: {deletionTimestamp: x}, status: {containerStatuses: [" WAITING(
                                       "InvalidImageName", "0") "]}}]}",
                       NULL, false);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        cmocka_unit_test(a_deployment_is_done_when_all_pods_are_new_and_available),
                        cmocka_unit_test(a_stateful_set_is_done_when_all_pods_are_of_the_new_revision),
                        cmocka_unit_test(a_daemon_set_is_done_when_every_node_has_a_new_available_pod),
                        cmocka_unit_test(a_job_is_done_when_it_is_complete_and_not_when_it_failed),
                        cmocka_unit_test(only_what_rolls_out_is_followed),
                        cmocka_unit_test(a_junk_status_is_no_crash),
                        cmocka_unit_test(pods_are_found_by_the_whole_selector),
                        cmocka_unit_test(the_worst_trouble_of_the_pods_is_told),
        };
        return cmocka_run_group_tests_name("rollout", tests, NULL, NULL);
}
