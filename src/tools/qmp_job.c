/* SPDX-License-Identifier: MIT */
/* QEMU's background jobs (qapi/job.json), waited for. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/qmp.h>

#define CALL_TIMEOUT_MS 5000U /* of what is no work for QEMU */
#define LOOK_AGAIN_MS 1000    /* an event says when the job moved on; this is for one that was missed */

/* The job in query-jobs' answer, or NULL. */
static const struct json *find_job(const struct json *jobs, const char *id) {
        for (const struct json *j = json_first(jobs); j; j = json_next(j))
                if (str_eq(json_string(json_get(j, "id")), id))
                        return j;
        return NULL;
}

static unsigned left_ms(uint64_t deadline) {
        uint64_t now = now_ms();
        return now < deadline ? (unsigned)(deadline - now) : 0;
}

/* Until the job is concluded; its own error becomes this one's. */
static int wait_concluded(struct qmp *q, const char *id, uint64_t deadline, struct error *err) {
        for (;;) {
                _cleanup_json_ struct json *jobs = NULL;
                unsigned left = left_ms(deadline);
                int r = qmp_call(q, "query-jobs", NULL, left, &jobs, err);
                if (r < 0)
                        return r;
                const struct json *job = find_job(jobs, id);
                if (!job)
                        return err_set(err, ERR_FAILED, EIO, "QEMU has forgotten it");
                const char *why = json_string(json_get(job, "error"));
                if (str_eq(json_string(json_get(job, "status")), "concluded")) {
                        if (!why)
                                return 0;
                        _cleanup_free_ char *printable = str_printable(why, strlen(why));
                        return err_set(err, ERR_FAILED, EREMOTEIO, "QEMU says: %s", printable);
                }
                if (left == 0)
                        return err_set(err, ERR_TIMEOUT, ETIMEDOUT, "QEMU takes too long");
                struct pollfd pfd = {.fd = qmp_fd(q), .events = POLLIN};
                if (poll(&pfd, 1, left < LOOK_AGAIN_MS ? (int)left : LOOK_AGAIN_MS) > 0) {
                        r = qmp_process(q, err);
                        if (r < 0)
                                return r;
                }
        }
}

int qmp_job(struct qmp *q, const char *command, struct json *arguments, unsigned timeout_ms, struct error *err) {
        uint64_t deadline = now_ms() + timeout_ms;
        _cleanup_free_ char *id = xasprintf("k3s-vm-%s", command);
        _cleanup_json_ struct json *named = json_new_object();
        json_set_string(named, "id", id);
        json_set_string(arguments, "job-id", id);
        /* One that an earlier client did not take leave of would be in the way. */
        qmp_call(q, "job-dismiss", json_copy(named), CALL_TIMEOUT_MS, NULL, NULL);
        int r = qmp_call(q, command, arguments, timeout_ms, NULL, err);
        if (r < 0)
                return r;
        r = wait_concluded(q, id, deadline, err);
        if (r < 0)
                err_wrap(err, r, "%s", command);
        qmp_call(q, "job-dismiss", json_copy(named), CALL_TIMEOUT_MS, NULL, NULL);
        return r;
}
