/* SPDX-License-Identifier: MIT */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/ports.h>
#include <k3s-vm/proc.h>
#include <k3s-vm/qemu.h>

#define TABLE_MAX_BYTES (32U * 1024 * 1024) /* 150 bytes a socket */
#define COMMAND_SHOWN 120
#define CMDLINE_MAX (128U * 1024)

struct port_scan {
        struct listener *listeners;
        pid_t *holders; /* by listener; 0 unknown */
        size_t n;
        pid_t *pids; /* every process; NULL until a holder is asked for; 0 once nothing more can be found there */
        size_t n_pids;
        size_t next; /* where the walk over @pids stands; it goes over them twice */
};

void port_scan_free(struct port_scan *s) {
        if (!s)
                return;
        free(s->listeners);
        free(s->holders);
        free(s->pids);
        free(s);
}

void port_holder_clear(struct port_holder *h) {
        char *owned[] = {h->user, h->command, h->started, h->vm_uuid, h->vm_name, h->vm_project};
        for (size_t i = 0; i < ELEMENTSOF(owned); i++)
                free(owned[i]);
        *h = (struct port_holder){0};
}

int port_scan_new(struct port_scan **ret, struct error *err) {
        static const struct {
                const char *path;
                bool ipv6;
        } tables[] = {{"/proc/net/tcp", false}, {"/proc/net/tcp6", true}};
        _cleanup_port_scan_ struct port_scan *s = xcalloc(1, sizeof(*s));
        for (size_t i = 0; i < ELEMENTSOF(tables); i++) {
                _cleanup_buf_ struct buf text = BUF_INIT(TABLE_MAX_BYTES + 1);
                int r = fs_read(tables[i].path, TABLE_MAX_BYTES, &text, err);
                /* No IPv6, or a /proc that shows processes only: whether a port can be bound is found out
                 * all the same, only not who holds it. */
                if (r == -ENOENT || r == -EACCES) {
                        error_clear(err);
                        continue;
                }
                if (r < 0)
                        return r;
                listeners_parse(buf_str(&text), text.len, tables[i].ipv6, &s->listeners, &s->n);
        }
        s->holders = xcalloc(s->n, sizeof(*s->holders));
        *ret = TAKE_PTR(s);
        return 0;
}

/* The inode of a link "socket:[12345]", or 0. */
static uint64_t socket_inode(const char *link, size_t len) {
        static const char prefix[] = "socket:[";
        size_t at = sizeof(prefix) - 1;
        if (len <= at || memcmp(link, prefix, at) != 0)
                return 0;
        uint64_t inode = 0;
        for (; at < len && link[at] >= '0' && link[at] <= '9'; at++)
                inode = inode * 10 + (uint64_t)(link[at] - '0');
        return inode;
}

/* Notes the listener that descriptor @fd of the process is, if any; relative to @dir. 0, or a negative errno.
 */
static int look_at(struct port_scan *s, pid_t pid, int dir, const char *fd) {
        char link[64];
        ssize_t n = readlinkat(dir, fd, link, sizeof(link));
        if (n < 0)
                return -errno;
        uint64_t inode = socket_inode(link, (size_t)n);
        for (size_t i = 0; inode && i < s->n; i++)
                if (s->listeners[i].inode == inode && s->holders[i] == 0)
                        s->holders[i] = pid;
        return 0;
}

static void look_thoroughly(struct port_scan *s, pid_t pid) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/fd", pid);
        _cleanup_closedir_ DIR *dir = opendir(path);
        struct dirent *d;
        while (dir && (d = readdir(dir)))
                if (d->d_name[0] != '.')
                        look_at(s, pid, dirfd(dir), d->d_name);
}

/* The processes with more than the standard descriptors; true when nothing is left to see there. Since Linux 6.2 the
 * folder's size is the number of descriptors. Before, those from 3 to the first gap are tried: they are given out from
 * the lowest free number on, so they are nearly all there are. */
static bool look_quickly(struct port_scan *s, pid_t pid) {
        char path[64];
        struct stat st;
        snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        if (stat(path, &st) < 0 || (st.st_size > 0 && st.st_size <= 3))
                return false;
        if (st.st_size > 0) {
                look_thoroughly(s, pid);
                return true;
        }
        int r = 0;
        for (int fd = 3; r == 0; fd++) {
                snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
                r = look_at(s, pid, AT_FDCWD, path);
        }
        return false;
}

static pid_t pid_of(const struct dirent *d) {
        uint64_t value;
        return str_to_u64(d->d_name, 1, INT32_MAX, &value) < 0 ? 0 : (pid_t)value;
}

static void list_processes(struct port_scan *s) {
        _cleanup_closedir_ DIR *proc = opendir("/proc");
        struct dirent *d;
        while (proc && (d = readdir(proc))) {
                pid_t pid = pid_of(d);
                if (!pid)
                        continue;
                if ((s->n_pids & (s->n_pids - 1)) == 0)
                        s->pids = xreallocarray(s->pids, s->n_pids ? s->n_pids * 2 : 1, sizeof(*s->pids));
                s->pids[s->n_pids++] = pid;
        }
}

/* Goes on until the holder of listener @i is known, or to the end: first quickly over all processes, then
 * thoroughly over those that may have more. What is found for other listeners on the way is kept. */
static pid_t find_holder(struct port_scan *s, size_t i) {
        if (!s->pids)
                list_processes(s);
        for (; s->holders[i] == 0 && s->next < s->n_pids * 2; s->next++) {
                pid_t *pid = &s->pids[s->next % s->n_pids];
                if (s->next >= s->n_pids && *pid)
                        look_thoroughly(s, *pid);
                else if (s->next < s->n_pids && look_quickly(s, *pid))
                        *pid = 0;
        }
        return s->holders[i];
}

bool vm_cmdline_parse(const struct strv *argv, struct vm_cmdline *ret) {
        struct vm_cmdline found = {0};
        bool ours = false;
        if (argv->len >= 5 && (str_eq(argv->items[1], "supervise") || str_eq(argv->items[1], "doze")) &&
            str_eq(argv->items[2], "--project") && argv->items[3][0] == '/') {
                found.project = argv->items[3];
                found.name = argv->items[4];
                found.name_len = strlen(found.name);
                *ret = found;
                return true;
        }
        for (size_t i = 1; i + 1 < argv->len; i++) {
                const char *value = argv->items[i + 1];
                if (str_eq(argv->items[i], "-uuid") && state_uuid_valid(value))
                        found.uuid = value;
                else if (str_eq(argv->items[i], "-name") && str_starts(value, "guest=") &&
                         strstr(value, ",process=" QEMU_PROCESS_NAME)) {
                        ours = true;
                        found.name = value + strlen("guest=");
                        found.name_len = strcspn(found.name, ",");
                }
        }
        if (!ours || !found.uuid)
                return false;
        *ret = found;
        return true;
}

/* The real user of a process, which hidepid and undumpable processes hide from stat(2) on its folder. */
static bool uid_of(pid_t pid, uid_t *ret) {
        _cleanup_free_ char *path = xasprintf("/proc/%d/status", pid);
        _cleanup_buf_ struct buf text = BUF_INIT(64U * 1024);
        if (fs_read(path, 32U * 1024, &text, NULL) < 0)
                return false;
        const char *line = strstr(buf_str(&text), "\nUid:");
        unsigned uid;
        if (!line || sscanf(line, "\nUid: %u", &uid) != 1)
                return false;
        *ret = uid;
        return true;
}

static const struct registry_entry *registered(const struct registry *registry, const char *uuid, const char *project) {
        for (size_t i = 0; registry && i < registry->n; i++) {
                const struct registry_entry *e = &registry->entries[i];
                if (uuid ? str_eq(e->uuid, uuid) : str_eq(e->project, project))
                        return e;
        }
        return NULL;
}

#define PID_FILE "/.k3s-vm/vm.pid"

/* The project of a VM that is in the registry of other XDG folders, while it is there. NULL; the caller frees. */
static char *project_of_qemu(const struct strv *argv) {
        const char *path = qemu_option(argv, "-pidfile");
        if (!path || path[0] != '/' || !str_ends(path, PID_FILE) || !fs_exists(path))
                return NULL;
        return xstrndup(path, strlen(path) - strlen(PID_FILE));
}

static void describe_vm(const struct strv *argv, const struct registry *registry, struct port_holder *h) {
        struct vm_cmdline vm;
        uid_t uid;
        if (!vm_cmdline_parse(argv, &vm) || !uid_of(h->pid, &uid) || uid != geteuid())
                return;
        const struct registry_entry *e = registered(registry, vm.uuid, vm.project);
        const char *uuid = e ? e->uuid : vm.uuid;
        if (!uuid)
                return;
        h->vm_uuid = xstrdup(uuid);
        h->vm_name = e ? xstrdup(e->name) : str_printable(vm.name, vm.name_len);
        h->vm_project = e ? xstrdup(e->project) : vm.project ? xstrdup(vm.project) : project_of_qemu(argv);
}

/* The command line in one line, cut; NULL when it cannot be read. */
static char *command_of(pid_t pid, const struct strv *argv) {
        _cleanup_free_ char *text = strv_join(argv, " ");
        if (!*text) {
                /* A kernel thread, or a process that wiped its arguments. */
                _cleanup_free_ char *path = xasprintf("/proc/%d/comm", pid);
                _cleanup_buf_ struct buf comm = BUF_INIT(256);
                if (fs_read(path, 128, &comm, NULL) < 0)
                        return NULL;
                return str_printable(buf_str(&comm), strcspn(buf_str(&comm), "\n"));
        }
        size_t len = strlen(text), n = len;
        if (n > COMMAND_SHOWN) {
                n = COMMAND_SHOWN;
                while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80) /* not amid a character */
                        n--;
        }
        _cleanup_free_ char *shown = str_printable(text, n);
        return n < len ? xasprintf("%s…", shown) : TAKE_PTR(shown);
}

static char *started_of(pid_t pid) {
        uint64_t ticks;
        long hz = sysconf(_SC_CLK_TCK);
        struct timespec boot, wall;
        if (hz <= 0 || proc_start_time(pid, &ticks) < 0)
                return NULL;
        clock_gettime(CLOCK_BOOTTIME, &boot);
        clock_gettime(CLOCK_REALTIME, &wall);
        return time_rfc3339(wall.tv_sec - boot.tv_sec + (time_t)(ticks / (uint64_t)hz));
}

static char *user_name(uid_t uid) {
        const struct passwd *pw = getpwuid(uid);
        return pw ? str_printable(pw->pw_name, strlen(pw->pw_name)) : xasprintf("%u", uid);
}

static void describe(struct port_scan *s, size_t i, const struct registry *registry, struct port_holder *ret) {
        struct port_holder h = {.port = s->listeners[i].port, .uid = s->listeners[i].uid};
        h.user = user_name(h.uid);
        h.pid = find_holder(s, i);
        if (h.pid) {
                _cleanup_strv_ struct strv argv = {0};
                proc_cmdline(h.pid, &argv);
                h.command = command_of(h.pid, &argv);
                h.started = started_of(h.pid);
                describe_vm(&argv, registry, &h);
        }
        *ret = h;
}

/* What no table shows: a socket that is bound and does not listen, or a /proc without tables. */
static bool bind_refused(uint16_t port) {
        const struct sockaddr_in address = {
                        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int on = 1;
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
                return false;
        return bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno == EADDRINUSE;
}

bool port_taken(struct port_scan *s, uint16_t port, const struct registry *registry, struct port_holder *ret) {
        size_t found = s->n;
        for (size_t i = 0; i < s->n; i++) {
                const struct listener *l = &s->listeners[i];
                if (l->port != port || !l->claims)
                        continue;
                if (!ret)
                        return true;
                /* Of several, the one whose process can be named says more. */
                if (found == s->n || (s->holders[found] == 0 && find_holder(s, found) == 0))
                        found = i;
        }
        if (found < s->n) {
                describe(s, found, registry, ret);
                return true;
        }
        if (!bind_refused(port))
                return false;
        if (ret)
                *ret = (struct port_holder){.port = port, .uid = (uid_t)-1};
        return true;
}

int port_error(const struct port_holder *h, const char *key, struct error *err) {
        _cleanup_free_ char *other = str_eq(key, "FORWARDS")
                                                     ? xasprintf("Or use another port: k3s-vm ports add OTHER:PORT")
                                                     : xasprintf("Or use another port: k3s-vm configure %s=%u", key,
                                                                 h->port < UINT16_MAX ? h->port + 1U : h->port - 1U);
        _cleanup_free_ char *started = h->started ? xasprintf(", started %s", h->started) : xstrdup("");
        int r;
        if (h->vm_project) {
                _cleanup_free_ char *shown = str_printable(h->vm_project, strlen(h->vm_project)),
                                    *quoted = str_shell_quote(h->vm_project);
                r = err_set(err, ERR_PORT, EADDRINUSE, "port %u (%s) belongs to the VM %s of the project %s", h->port,
                            key, h->vm_name, shown);
                err_hint(err, "Stop that VM: k3s-vm --project %s stop\n%s", quoted, other);
        } else if (h->vm_uuid) {
                r = err_set(err, ERR_PORT, EADDRINUSE,
                            "port %u (%s) is held by the VM %s of a project that is gone (PID %d%s)", h->port, key,
                            h->vm_name, h->pid, started);
                err_hint(err, "End that VM: kill %d\n%s", h->pid, other);
        } else if (h->pid) {
                r = err_set(err, ERR_PORT, EADDRINUSE, "port %u (%s) is held by PID %d (%s) of the user %s%s", h->port,
                            key, h->pid, h->command ? h->command : "?", h->user, started);
                err_hint(err, "Stop that program, if it is yours: kill %d\n%s", h->pid, other);
        } else {
                r = err_set(err, ERR_PORT, EADDRINUSE, "port %u (%s) is held by a process of the user %s", h->port, key,
                            h->user ? h->user : "(unknown)");
                err_hint(err, "See which: sudo ss -tanp 'sport = :%u'\n%s", h->port, other);
        }
        return r;
}

static bool is_registered_port(const struct registry *registry, uint16_t port) {
        for (size_t i = 0; registry && i < registry->n; i++) {
                const struct registry_entry *e = &registry->entries[i];
                if (e->api_port == port || e->ssh_port == port || e->web_port == port)
                        return true;
        }
        return false;
}

uint16_t port_next_free(struct port_scan *s, uint16_t from, const struct registry *registry) {
        for (unsigned port = from ? from : 1; port < from + 1000U && port <= UINT16_MAX; port++)
                if (!is_registered_port(registry, (uint16_t)port) && !port_taken(s, (uint16_t)port, NULL, NULL))
                        return (uint16_t)port;
        return 0;
}

int vm_processes(const char *uuid, pid_t **ret, size_t *ret_n) {
        if (!state_uuid_valid(uuid))
                return -EINVAL;
        _cleanup_closedir_ DIR *proc = opendir("/proc");
        if (!proc)
                return -errno;
        _cleanup_free_ pid_t *pids = NULL;
        _cleanup_free_ char *text = oom_check(malloc(CMDLINE_MAX));
        size_t n = 0;
        struct dirent *d;
        while ((d = readdir(proc))) {
                char path[32];
                pid_t pid = pid_of(d);
                if (!pid)
                        continue;
                snprintf(path, sizeof(path), "%d/cmdline", pid);
                _cleanup_close_ int fd = openat(dirfd(proc), path, O_RDONLY | O_CLOEXEC);
                ssize_t len = fd < 0 ? -1 : read(fd, text, CMDLINE_MAX);
                /* Most are sorted out here, without taking their arguments apart. */
                if (len <= 0 || !memmem(text, (size_t)len, uuid, strlen(uuid)))
                        continue;
                _cleanup_strv_ struct strv argv = {0};
                struct vm_cmdline vm;
                uid_t uid;
                if (proc_cmdline(pid, &argv) < 0 || !vm_cmdline_parse(&argv, &vm) || !str_eq(vm.uuid, uuid) ||
                    !uid_of(pid, &uid) || uid != geteuid())
                        continue;
                pids = xreallocarray(pids, n + 1, sizeof(*pids));
                pids[n++] = pid;
        }
        *ret = TAKE_PTR(pids);
        *ret_n = n;
        return 0;
}
