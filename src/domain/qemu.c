/* SPDX-License-Identifier: MIT */
#include <string.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/forward.h>
#include <k3s-vm/qemu.h>

#define GUEST_ADDRESS "10.0.2.15"
#define TCG_BUFFER_MIB 512 /* smaller ones are flushed again and again by a whole Kubernetes (FACTS) */

/* Slots on q35's root bus. They are part of the virtual hardware: the guest's device names and a saved
 * state hang on them, so they do not depend on which other devices there are. */
enum slot { SLOT_NET = 2, SLOT_ROOT, SLOT_DATA, SLOT_PAYLOAD, SLOT_RNG, SLOT_BALLOON, SLOT_PVPANIC, SLOT_SEED };

char *qemu_escape(const char *s) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        for (; *s; s++)
                buf_append(&b, *s == ',' ? ",," : s, *s == ',' ? 2 : 1);
        return buf_take(&b);
}

static void push2(struct strv *v, const char *option, const char *value) {
        strv_push(v, option);
        strv_push(v, value);
}

static void push_machine(const struct qemu_spec *spec, struct strv *v) {
        strv_push(v, "-name");
        strv_pushf(v, "guest=%s,process=" QEMU_PROCESS_NAME ",debug-threads=on", spec->config->vm_name);
        push2(v, "-uuid", spec->uuid);
        strv_push(v, "-machine");
        /* No disk or bus that nothing is attached to: firmware and kernel would look for what is on them. A core
         * dump would hold the guest's memory, with its secrets. */
        strv_pushf(v, "%s,usb=off,vmport=off,sata=off,smbus=off,dump-guest-core=off,suppress-vmdesc=on", spec->machine);
        /* A state of the devices alone has no description of itself, and QEMU must not look for one when it loads it.
         */
        push2(v, "-global", "migration.send-configuration=off");
        strv_push(v, "-accel");
        if (spec->kvm)
                strv_push(v, "kvm");
        else
                strv_pushf(v, "tcg,thread=multi,tb-size=%d", TCG_BUFFER_MIB);
        /* TCG advertises fast string instructions and emulates them a byte at a time: a guest's kernel that believes
         * it copies and clears memory at a seventh of the speed. */
        push2(v, "-cpu", spec->kvm ? "host" : "max,erms=off,fsrm=off");
        strv_push(v, "-smp");
        strv_pushf(v, "%u", spec->config->cpus);
        strv_push(v, "-m");
        strv_pushf(v, "%u", spec->config->memory_mib); /* MiB without a unit */
        strv_push(v, "-nodefaults");
        strv_push(v, "-no-user-config");
        push2(v, "-display", "none");
        push2(v, "-rtc", "base=utc,driftfix=slew");
        push2(v, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        push2(v, "-msg", "timestamp=on");
        /* A guest's power-off ends QEMU, its reboot resets in place; a panicked guest stays, paused, for
         * the supervisor to look at. */
        push2(v, "-action", "reboot=reset,shutdown=poweroff,panic=pause");
        /* Nothing runs before the supervisor's monitor is up and sees it. */
        strv_push(v, "-S");
        push2(v, "-pidfile", spec->project->pid_path);
}

static void push_monitors(const struct qemu_spec *spec, struct strv *v) {
        const struct {
                const char *id;
                int fd;
        } monitors[] = {{"qmp-supervisor", QEMU_FD_SUPERVISOR}, {"qmp", QEMU_FD_COMMANDS}};
        for (size_t i = 0; i < ELEMENTSOF(monitors); i++) {
                strv_push(v, "-chardev");
                strv_pushf(v, "socket,id=%s,fd=%d,server=on,wait=off", monitors[i].id, monitors[i].fd);
                strv_push(v, "-mon");
                strv_pushf(v, "chardev=%s,mode=control", monitors[i].id);
        }
        _cleanup_free_ char *serial = qemu_escape(spec->project->serial_path);
        strv_push(v, "-chardev");
        strv_pushf(v, "file,id=serial0,path=%s,append=on", serial);
        push2(v, "-serial", "chardev:serial0");
        strv_push(v, "-chardev");
        strv_pushf(v, "socket,id=agent,fd=%d,server=on,wait=off", QEMU_FD_AGENT);
        push2(v, "-serial", "chardev:agent");
}

static void push_boot(const struct qemu_spec *spec, struct strv *v) {
        if (spec->firmware)
                push2(v, "-bios", spec->firmware);
        if (!spec->guest->kernel)
                return;
        push2(v, "-kernel", spec->guest->kernel);
        if (spec->guest->initrd)
                push2(v, "-initrd", spec->guest->initrd);
        strv_push(v, "-append");
        /* The address of a name server, where the network's own forwarding one is not wanted. */
        const char *dns = spec->config->dns;
        /* Linux switches its timers to "nohz" by changing code that every CPU is running, which TCG may get wrong: see
         * standstill.h. An emulated timer that just ticks costs less, too. */
        strv_pushf(v, "%s%s systemd.hostname=%s systemd.machine_id=%s%s%s", spec->guest->cmdline,
                   spec->kvm ? "" : " nohz=off", spec->config->vm_name, spec->machine_id, *dns ? " k3s-vm.dns=" : "",
                   dns);
}

static void push_read_only_drive(struct strv *v, const char *node, const char *path, const char *serial, enum slot slot,
                                 const char *more) {
        _cleanup_free_ char *escaped = qemu_escape(path);
        strv_push(v, "-blockdev");
        strv_pushf(v, "driver=raw,node-name=%s,read-only=on,file.driver=file,file.filename=%s", node, escaped);
        strv_push(v, "-device");
        strv_pushf(v, "virtio-blk-pci,id=%s-disk,drive=%s,serial=%s,addr=0x%x%s", node, node, serial, (unsigned)slot,
                   more);
}

static void push_drives(const struct qemu_spec *spec, struct strv *v) {
        const struct guest *g = spec->guest;
        const char *image = g->boot_disk ? g->boot_disk : g->root_image;
        if (g->boot_overlay) {
                /* A node of its own: the overlay's header names the base as well, by a path that may have changed. */
                _cleanup_free_ char *escaped = qemu_escape(image);
                strv_push(v, "-blockdev");
                strv_pushf(v, "driver=%s,node-name=base,read-only=on,file.driver=file,file.filename=%s",
                           g->boot_overlay, escaped);
        } else if (image)
                push_read_only_drive(v, "root", image, g->root_serial ? g->root_serial : "k3s-vm-root", SLOT_ROOT,
                                     g->boot_disk ? ",bootindex=1" : "");
        if (g->data_serial || g->boot_overlay) {
                _cleanup_free_ char *escaped = qemu_escape(spec->project->data_disk);
                strv_push(v, "-blockdev");
                /* `discard` counts on both layers: the file's is what gives the room back. */
                strv_pushf(v,
                           "driver=qcow2,node-name=data,%sdiscard=unmap,detect-zeroes=unmap,file.driver=file,"
                           "file.discard=unmap,file.filename=%s",
                           g->boot_overlay ? "backing=base," : "", escaped);
                strv_push(v, "-device");
                /* A write that the host cannot take (no room, over quota) pauses the VM instead of
                 * reaching the guest as a broken disk; the supervisor resumes it. */
                strv_pushf(v, "virtio-blk-pci,id=data-disk,drive=data,serial=%s,addr=0x%x,werror=stop,rerror=report%s",
                           g->data_serial ? g->data_serial : "k3s-vm-data", (unsigned)SLOT_DATA,
                           g->boot_overlay ? ",bootindex=1" : "");
        }
        if (g->payload_serial && spec->payload_path)
                push_read_only_drive(v, "payload", spec->payload_path, g->payload_serial, SLOT_PAYLOAD, "");
        if (spec->seed_path)
                push_read_only_drive(v, "seed", spec->seed_path, "k3s-vm-seed", SLOT_SEED, "");
}

char *qemu_forward_rule(const struct forward *f) {
        return xasprintf("tcp:127.0.0.1:%u-" GUEST_ADDRESS ":%u", f->host_port, f->guest_port);
}

/* Its lower half is the end of the UUID: stable, and different from VM to VM. */
char *qemu_mac(const char *uuid) {
        size_t len = strlen(uuid);
        const char *tail = len >= 6 ? uuid + len - 6 : "000000";
        return xasprintf("52:54:00:%.2s:%.2s:%.2s", tail, tail + 2, tail + 4);
}

static void push_network(const struct qemu_spec *spec, struct strv *v) {
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_puts(&b, "user,id=" QEMU_NETDEV
                     ",ipv4=on,ipv6=off,net=10.0.2.0/24,host=10.0.2.2,dns=10.0.2.3,dhcpstart=" GUEST_ADDRESS
                     ",restrict=off");
        _cleanup_free_ struct forward *forwards = NULL;
        size_t n = forward_configured(spec->config, &forwards);
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *rule = qemu_forward_rule(&forwards[i]);
                buf_printf(&b, ",hostfwd=%s", rule);
        }
        push2(v, "-netdev", buf_str(&b));

        _cleanup_free_ char *mac = qemu_mac(spec->uuid);
        strv_push(v, "-device");
        /* No boot ROM: it is loaded and run by the firmware, and nothing here boots from the network. */
        strv_pushf(v, "virtio-net-pci,id=nic0,netdev=" QEMU_NETDEV ",mac=%s,romfile=,addr=0x%x", mac,
                   (unsigned)SLOT_NET);
}

#define FIXED_FORWARDS 3 /* forward_configured() has them first */
#define FORWARD ",hostfwd="

static char **find_option(const struct strv *argv, const char *name) {
        for (size_t i = 1; i + 1 < argv->len; i++)
                if (str_eq(argv->items[i], name))
                        return &argv->items[i + 1];
        return NULL;
}

const char *qemu_option(const struct strv *argv, const char *name) {
        char **value = find_option(argv, name);
        return value ? *value : NULL;
}

void qemu_forwards(const struct strv *argv, struct strv *ret) {
        char **value = find_option(argv, "-netdev");
        for (const char *p = value ? strstr(*value, FORWARD) : NULL; p;) {
                p += strlen(FORWARD);
                const char *next = strstr(p, FORWARD);
                strv_push_take(ret, xstrndup(p, next ? (size_t)(next - p) : strlen(p)));
                p = next;
        }
}

void qemu_set_forwards(struct strv *argv, const struct strv *rules) {
        char **value = find_option(argv, "-netdev");
        if (!value)
                return;
        const char *end = strstr(*value, FORWARD);
        _cleanup_buf_ struct buf b = BUF_INIT(0);
        buf_append(&b, *value, end ? (size_t)(end - *value) : strlen(*value));
        for (size_t i = 0; i < rules->len; i++)
                buf_printf(&b, FORWARD "%s", rules->items[i]);
        free(*value);
        *value = buf_take(&b);
}

void qemu_update_forwards(struct strv *argv, const struct config *c) {
        _cleanup_strv_ struct strv rules = {0};
        qemu_forwards(argv, &rules);
        strv_truncate(&rules, FIXED_FORWARDS);
        /* That of WEB_PORT, which is the last of them, may lead to another NodePort by now. */
        char *web = rules.len == FIXED_FORWARDS ? rules.items[FIXED_FORWARDS - 1] : NULL,
             *colon = web ? strrchr(web, ':') : NULL;
        if (colon) {
                rules.items[FIXED_FORWARDS - 1] = xasprintf("%.*s:%u", (int)(colon - web), web, c->web_node_port);
                free(web);
        }
        for (size_t i = 0; i < c->n_forwards; i++)
                strv_push_take(&rules, qemu_forward_rule(&c->forwards[i]));
        qemu_set_forwards(argv, &rules);
}

static void push_devices(struct strv *v) {
        push2(v, "-object", "rng-builtin,id=rng0");
        strv_push(v, "-device");
        strv_pushf(v, "virtio-rng-pci,id=rng-device0,rng=rng0,addr=0x%x", (unsigned)SLOT_RNG);
        strv_push(v, "-device");
        strv_pushf(v, "virtio-balloon-pci,id=balloon0,free-page-reporting=on,addr=0x%x", (unsigned)SLOT_BALLOON);
        strv_push(v, "-device");
        strv_pushf(v, "pvpanic-pci,id=pvpanic0,addr=0x%x", (unsigned)SLOT_PVPANIC);
}

static void push_credentials(const struct qemu_spec *spec, struct strv *v) {
        for (size_t i = 0; i < spec->n_credentials; i++) {
                _cleanup_free_ char *path = qemu_escape(spec->credentials[i].path);
                strv_push(v, "-fw_cfg");
                strv_pushf(v, "name=opt/io.systemd.credentials/%s,file=%s", spec->credentials[i].name, path);
        }
}

void qemu_argv(const struct qemu_spec *spec, struct strv *ret) {
        strv_push(ret, spec->program);
        push_machine(spec, ret);
        push_monitors(spec, ret);
        push_boot(spec, ret);
        push_network(spec, ret);
        push_drives(spec, ret);
        push_devices(ret);
        push_credentials(spec, ret);
}
