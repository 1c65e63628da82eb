/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/strv.h>
#include <k3s-vm/versions.h>

enum { MAJOR, MINOR, PATCH, CANDIDATE, BUILD, N_PARTS };
#define NO_CANDIDATE 9999U /* the release itself comes behind its candidates */

static bool parse(const char *text, unsigned ret[static N_PARTS]) {
        int used = 0;
        ret[CANDIDATE] = NO_CANDIDATE;
        ret[BUILD] = 0;
        if (!text || sscanf(text, "v%5u.%5u.%5u%n", &ret[MAJOR], &ret[MINOR], &ret[PATCH], &used) != 3)
                return false;
        text += used;
        if (sscanf(text, "-rc%3u%n", &ret[CANDIDATE], &used) == 1)
                text += used;
        if (sscanf(text, "+k3s%5u%n", &ret[BUILD], &used) == 1)
                text += used;
        return *text == '\0';
}

int versions_check_upgrade(const char *from, const char *to, struct error *err) {
        unsigned a[N_PARTS], b[N_PARTS];
        if (str_eq(from, to))
                return 1;
        if (!parse(from, a) || !parse(to, b))
                return err_set(err, ERR_USAGE, EINVAL,
                               "cannot tell whether %s may follow %s: one of them says no version of K3s",
                               to ? to : "it", from ? from : "what the VM has");
        size_t i = 0;
        while (i < N_PARTS && a[i] == b[i])
                i++;
        if (i == N_PARTS)
                return 1;
        if (b[i] < a[i]) {
                int r = err_set(err, ERR_USAGE, EINVAL,
                                "%s is older than %s: what the newer one has stored, the older one may not understand",
                                to, from);
                err_hint(err,
                         "a new cluster, losing what is in this one: k3s-vm configure K3S_VERSION=%s && k3s-vm reset",
                         to);
                return r;
        }
        if (a[MAJOR] == b[MAJOR] && b[MINOR] <= a[MINOR] + 1)
                return 0;
        int r = err_set(err, ERR_USAGE, EINVAL,
                        "from %s to %s is more than one minor version, and Kubernetes is upgraded one at a time", from,
                        to);
        if (a[MAJOR] == b[MAJOR])
                err_hint(err, "the next one first: k3s-vm upgrade --k3s v%u.%u", a[MAJOR], a[MINOR] + 1);
        return r;
}
