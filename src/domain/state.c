/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/state.h>

#define STATE_SCHEMA 1
#define STATE_MAX_BYTES (1U << 20)
#define PHASES_MAX 64
#define UUID_LEN 36 /* RFC 4122, section 3 */

void state_clear_phases(struct state *s) {
        for (size_t i = 0; i < s->n_phases; i++)
                free(s->phases[i].name);
        free(s->phases);
        s->phases = NULL;
        s->n_phases = 0;
}

void state_free(struct state *s) {
        if (!s)
                return;
        char *owned[] = {s->uuid,    s->name,        s->guest_dir, s->guest_version,   s->payload_path,
                         s->machine, s->accel,       s->boot_id,   s->payload_version, s->payload_description,
                         s->intent,  s->payload_name};
        for (size_t i = 0; i < ELEMENTSOF(owned); i++)
                free(owned[i]);
        state_clear_phases(s);
        free(s);
}

struct state *state_new(void) {
        return xcalloc(1, sizeof(struct state));
}

void state_set_phase(struct state *s, const char *name, uint64_t ms) {
        for (size_t i = 0; i < s->n_phases; i++) {
                if (str_eq(s->phases[i].name, name)) {
                        s->phases[i].ms = ms;
                        return;
                }
        }
        if (s->n_phases == PHASES_MAX)
                return;
        s->phases = xreallocarray(s->phases, s->n_phases + 1, sizeof(*s->phases));
        s->phases[s->n_phases++] = (struct phase_time){.name = xstrdup(name), .ms = ms};
}

static int damaged(struct error *err, const char *what) {
        return err_set(err, ERR_FAILED, EUCLEAN, "the VM's state is damaged: %s", what);
}

bool state_uuid_valid(const char *uuid) {
        if (!uuid || strlen(uuid) != UUID_LEN)
                return false;
        for (size_t i = 0; i < UUID_LEN; i++) {
                bool dash = i == 8 || i == 13 || i == 18 || i == 23;
                if (dash ? uuid[i] != '-' : !strchr("0123456789abcdef", uuid[i]))
                        return false;
        }
        return true;
}

static bool is_plain(const char *s) {
        for (; *s; s++)
                if ((unsigned char)*s < 0x20 || *s == 0x7f)
                        return false;
        return true;
}

/* A string that is shown or becomes an argument; anything else counts as not there. */
static char *plain_string(const struct json *j) {
        const char *s = json_string(j);
        return s && is_plain(s) ? xstrdup(s) : NULL;
}

/* A path may hold any byte. */
static char *absolute_path(const struct json *j) {
        const char *s = json_string(j);
        return s && s[0] == '/' ? xstrdup(s) : NULL;
}

static uint64_t bounded(const struct json *j, uint64_t max) {
        uint64_t value = json_u64_or(j, 0);
        return value <= max ? value : 0;
}

static int from_json(const struct json *j, struct state **ret, struct error *err) {
        if (!json_is_object(j))
                return damaged(err, "it is not a JSON object");
        uint64_t schema = json_u64_or(json_get(j, "schema"), 0);
        if (schema > STATE_SCHEMA) {
                int r = err_set(err, ERR_FAILED, EPROTONOSUPPORT,
                                "the VM's state was written by a newer k3s-vm (schema %llu)",
                                (unsigned long long)schema);
                err_hint(err, "Use that k3s-vm, or make the VM anew: k3s-vm reset");
                return r;
        }
        if (schema == 0)
                return damaged(err, "it has no schema");
        _cleanup_state_ struct state *s = state_new();
        s->uuid = xstrdup(json_string(json_get(j, "uuid")));
        if (!state_uuid_valid(s->uuid))
                return damaged(err, "it has no UUID");
        s->name = plain_string(json_get(j, "name"));
        if (!s->name || !*s->name)
                return damaged(err, "it has no name");
        s->created_ms = json_u64_or(json_get(j, "created_ms"), 0);
        s->guest_dir = absolute_path(json_get(j, "guest", "dir"));
        s->guest_version = plain_string(json_get(j, "guest", "version"));
        s->payload_path = absolute_path(json_get(j, "payload", "path"));
        s->payload_name = plain_string(json_get(j, "payload", "name"));
        s->payload_version = plain_string(json_get(j, "payload", "version"));
        s->payload_description = plain_string(json_get(j, "payload", "description"));
        s->payload_none = json_bool_or(json_get(j, "payload", "none"), false);
        s->machine = plain_string(json_get(j, "machine"));
        s->disk_gib = (unsigned)bounded(json_get(j, "disk_gib"), 65536);
        s->accel = plain_string(json_get(j, "accel"));
        s->pid = (int)bounded(json_get(j, "qemu", "pid"), INT_MAX);
        s->start_time = json_u64_or(json_get(j, "qemu", "start_time"), 0);
        s->boot_id = plain_string(json_get(j, "qemu", "boot_id"));
        s->started_ms = json_u64_or(json_get(j, "qemu", "started_ms"), 0);
        s->serial_from = json_u64_or(json_get(j, "qemu", "serial_from"), 0);
        s->api_port = (uint16_t)bounded(json_get(j, "ports", "api"), UINT16_MAX);
        s->ssh_port = (uint16_t)bounded(json_get(j, "ports", "ssh"), UINT16_MAX);
        s->web_port = (uint16_t)bounded(json_get(j, "ports", "web"), UINT16_MAX);
        s->ready_once = json_bool_or(json_get(j, "ready_once"), false);
        s->intent = plain_string(json_get(j, "intent"));
        for (const struct json *phase = json_first(json_get(j, "phases")); phase; phase = json_next(phase)) {
                _cleanup_free_ char *name = plain_string(json_get(phase, "name"));
                if (name)
                        state_set_phase(s, name, json_u64_or(json_get(phase, "ms"), 0));
        }
        *ret = TAKE_PTR(s);
        return 0;
}

int state_parse(const char *text, size_t len, struct state **ret, struct error *err) {
        _cleanup_json_ struct json *j = NULL;
        _cleanup_error_ struct error cause = ERROR_INIT;
        if (len > STATE_MAX_BYTES)
                return damaged(err, "it is larger than 1 MiB");
        if (json_parse(text, len, &j, &cause) < 0)
                return damaged(err, cause.message);
        return from_json(j, ret, err);
}

int state_load(const struct project *p, struct state **ret, struct error *err) {
        _cleanup_buf_ struct buf text = BUF_INIT(STATE_MAX_BYTES);
        _cleanup_error_ struct error cause = ERROR_INIT;
        int r = fs_read(p->state_path, STATE_MAX_BYTES, &text, &cause);
        if (r == -ENOENT || r == -ENOTDIR) {
                _cleanup_free_ char *shown = str_printable(p->root, strlen(p->root));
                err_set(err, ERR_NO_VM, ENOENT, "%s has no VM", shown);
                err_hint(err, "Make one: k3s-vm");
                return -ENOENT;
        }
        /* What cannot be read at all is another matter than what reads as nonsense. */
        if (r == -EISDIR || r == -EINVAL || r == -EFBIG || r == -ELOOP)
                return damaged(err, cause.message);
        if (r < 0)
                return err_move(err, &cause);
        r = state_parse(buf_str(&text), text.len, ret, err);
        if (r == -EUCLEAN)
                err_wrap(err, r, "%s", p->state_path);
        return r;
}

struct json *state_to_json(const struct state *s) {
        struct json *j = json_new_object();
        json_set_number(j, "schema", STATE_SCHEMA);
        json_set_string(j, "uuid", s->uuid);
        json_set_string(j, "name", s->name);
        json_set_number(j, "created_ms", (double)s->created_ms);
        struct json *guest = json_set_object(j, "guest");
        json_set_string(guest, "dir", s->guest_dir);
        json_set_string(guest, "version", s->guest_version);
        struct json *payload = json_set_object(j, "payload");
        json_set_string(payload, "path", s->payload_path);
        json_set_string(payload, "name", s->payload_name);
        json_set_string(payload, "version", s->payload_version);
        json_set_string(payload, "description", s->payload_description);
        if (s->payload_none)
                json_set_bool(payload, "none", true);
        json_set_string(j, "machine", s->machine);
        json_set_number(j, "disk_gib", s->disk_gib);
        json_set_string(j, "accel", s->accel);
        struct json *qemu = json_set_object(j, "qemu");
        json_set_number(qemu, "pid", s->pid);
        json_set_number(qemu, "start_time", (double)s->start_time);
        json_set_string(qemu, "boot_id", s->boot_id);
        json_set_number(qemu, "started_ms", (double)s->started_ms);
        json_set_number(qemu, "serial_from", (double)s->serial_from);
        struct json *ports = json_set_object(j, "ports");
        json_set_number(ports, "api", s->api_port);
        json_set_number(ports, "ssh", s->ssh_port);
        json_set_number(ports, "web", s->web_port);
        json_set_bool(j, "ready_once", s->ready_once);
        json_set_string(j, "intent", s->intent);
        struct json *phases = json_set_array(j, "phases");
        for (size_t i = 0; i < s->n_phases; i++) {
                struct json *phase = json_new_object();
                json_set_string(phase, "name", s->phases[i].name);
                json_set_number(phase, "ms", (double)s->phases[i].ms);
                json_append(phases, phase);
        }
        return j;
}

void state_note_qemu(const struct project *p, struct state *s, pid_t pid, uint64_t start_time) {
        int64_t serial = fs_size(p->serial_path);
        s->pid = pid;
        s->start_time = start_time;
        s->started_ms = wall_ms();
        s->serial_from = serial > 0 ? (uint64_t)serial : 0;
        free(s->boot_id);
        s->boot_id = proc_boot_id();
}

int state_save(const struct project *p, const struct state *s, struct error *err) {
        _cleanup_json_ struct json *j = state_to_json(s);
        _cleanup_free_ char *text = json_print(j, true);
        return fs_write_atomic(p->state_path, text, strlen(text), 0600, err);
}
