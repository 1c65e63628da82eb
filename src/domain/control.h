/* SPDX-License-Identifier: MIT */
/*
 * The supervisor's own socket. A client sends a line, {"execute":VERB}, and gets a line, {"return":…} or
 * {"error":"…"}; it may go on like that. Lines are bounded, nobody is waited for, and when there are too many clients
 * the one that was silent longest has to go: whatever they do, the loop goes on.
 */
#pragma once

#include <k3s-vm/json.h>
#include <k3s-vm/loop.h>

struct control;

/* The answer to @verb; NULL with @err filled in. */
typedef struct json *control_verb_fn(const char *verb, void *userdata, struct error *err);

/* Listens on @path, 0600, replacing what is there. Only this user's (and root's) processes are answered. */
int control_new(struct loop *loop, const char *path, control_verb_fn *fn, void *userdata, struct control **ret,
                struct error *err);
void control_free(struct control *c); /* the socket's file stays */
DEFINE_FREEP(struct control, control_free)

/* The other side: asks once. -ENOENT, -ECONNREFUSED: nobody listens; -EREMOTEIO: an error came back. */
int control_ask(const char *path, const char *verb, unsigned timeout_ms, struct json **ret, struct error *err);
