/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <k3s-vm/dotenv.h>
#include <k3s-vm/fs.h>
#include <k3s-vm/host.h>

#define OS_RELEASE_MAX (64U * 1024)

void host_free(struct host *h) {
        if (!h)
                return;
        free(h->id);
        free(h->pretty_name);
        free(h);
}

static enum host_family family_of(const char *id) {
        static const struct {
                const char *id;
                enum host_family family;
        } known[] = {
                        {"debian", HOST_DEBIAN},      {"ubuntu", HOST_DEBIAN}, {"fedora", HOST_FEDORA},
                        {"rhel", HOST_FEDORA},        {"centos", HOST_FEDORA}, {"arch", HOST_ARCH},
                        {"suse", HOST_SUSE},          {"opensuse", HOST_SUSE}, {"opensuse-tumbleweed", HOST_SUSE},
                        {"opensuse-leap", HOST_SUSE}, {"sles", HOST_SUSE},     {"alpine", HOST_ALPINE},
                        {"nixos", HOST_NIXOS},
        };
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (str_eq(known[i].id, id))
                        return known[i].family;
        return HOST_UNKNOWN;
}

/* os-release(5): ID names the distribution, ID_LIKE those it comes from, nearest first. */
void host_parse_os_release(const char *text, size_t len, struct host *ret) {
        _cleanup_free_ char *id = NULL, *like = NULL, *pretty = NULL;
        if (!dotenv_find(text, len, "ID", &id) || !*id) {
                free(id);
                id = xstrdup("linux"); /* the default that os-release(5) gives */
        }
        dotenv_find(text, len, "ID_LIKE", &like);
        dotenv_find(text, len, "PRETTY_NAME", &pretty);
        ret->family = family_of(id);
        _cleanup_strv_ struct strv ancestors = {0};
        strv_split(&ancestors, like ? like : "", " ");
        for (size_t i = 0; i < ancestors.len && ret->family == HOST_UNKNOWN; i++)
                ret->family = family_of(ancestors.items[i]);
        const char *name = pretty && *pretty ? pretty : id;
        free(ret->id);
        free(ret->pretty_name);
        ret->pretty_name = str_printable(name, strlen(name));
        ret->id = TAKE_PTR(id);
}

/* A line "Name:   123 kB" of /proc/meminfo, in MiB. */
static uint64_t meminfo_mib(const char *text, const char *name) {
        const char *p = strstr(text, name);
        unsigned long long kib = 0;
        return p && sscanf(p + strlen(name), ": %llu", &kib) == 1 ? kib / 1024 : 0;
}

static bool read_number(const char *path, uint64_t *ret) {
        _cleanup_buf_ struct buf text = BUF_INIT(64);
        if (fs_read(path, 63, &text, NULL) < 0)
                return false;
        buf_str(&text);
        if (text.len > 0 && text.data[text.len - 1] == '\n')
                text.data[text.len - 1] = '\0';
        return str_to_u64(buf_str(&text), 0, UINT64_MAX, ret) == 0;
}

/* In a container the limit of its control group counts, not the machine's memory. */
static void apply_cgroup_limit(struct host *h) {
        uint64_t limit, used;
        if (!read_number("/sys/fs/cgroup/memory.max", &limit) || !read_number("/sys/fs/cgroup/memory.current", &used))
                return;
        uint64_t limit_mib = limit >> 20, left_mib = used < limit ? (limit - used) >> 20 : 0;
        if (limit_mib < h->memory_mib)
                h->memory_mib = limit_mib;
        if (left_mib < h->available_mib)
                h->available_mib = left_mib;
}

int host_detect(struct host **ret, struct error *err _unused_) {
        _cleanup_host_ struct host *h = xcalloc(1, sizeof(*h));
        static const char *const paths[] = {"/etc/os-release", "/usr/lib/os-release"};
        _cleanup_buf_ struct buf text = BUF_INIT(OS_RELEASE_MAX + 1), memory = BUF_INIT(OS_RELEASE_MAX + 1);
        for (size_t i = 0; i < ELEMENTSOF(paths); i++)
                if (fs_read(paths[i], OS_RELEASE_MAX, &text, NULL) == 0)
                        break;
        host_parse_os_release(buf_str(&text), text.len, h);
        if (fs_read("/proc/meminfo", OS_RELEASE_MAX, &memory, NULL) == 0) {
                h->memory_mib = meminfo_mib(buf_str(&memory), "MemTotal");
                h->available_mib = meminfo_mib(buf_str(&memory), "MemAvailable");
                apply_cgroup_limit(h);
        }
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof(set), &set) == 0)
                h->cpus = (unsigned)CPU_COUNT(&set);
        else {
                long n = sysconf(_SC_NPROCESSORS_ONLN); /* more than a cpu_set_t holds */
                h->cpus = n > 0 ? (unsigned)n : 1;
        }
        *ret = TAKE_PTR(h);
        return 0;
}

/* What provides a tool, by family; NULL: no package of that distribution. */
struct package {
        const char *tool;
        const char *debian, *fedora, *arch, *suse, *alpine, *nixos;
};
static const struct package packages[] = {
                {"qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-x86",
                 "qemu-system-x86_64", "qemu_kvm"},
                {"qemu-img", "qemu-utils", "qemu-img", "qemu-img", "qemu-tools", "qemu-img", "qemu_kvm"},
                {"mmdebstrap", "mmdebstrap", "mmdebstrap", NULL, NULL, "mmdebstrap", "mmdebstrap"},
                {"mkfs.erofs", "erofs-utils", "erofs-utils", "erofs-utils", "erofs-utils", "erofs-utils",
                 "erofs-utils"},
                {"mksquashfs", "squashfs-tools", "squashfs-tools", "squashfs-tools", "squashfs", "squashfs-tools",
                 "squashfsTools"},
                {"go", "golang-go", "golang", "go", "go", "go", "go"},
                {"dpkg-source", "dpkg-dev", "dpkg-dev", "dpkg", "dpkg", "dpkg-dev", "dpkg"},
                {"dpkg-deb", "dpkg", "dpkg", "dpkg", "dpkg", "dpkg", "dpkg"},
                {"apt-get", "apt", "apt", "apt", NULL, "apt", "apt"},
                {"ssh", "openssh-client", "openssh-clients", "openssh", "openssh-clients", "openssh-client-default",
                 "openssh"},
                {"xz", "xz-utils", "xz", "xz", "xz", "xz", "xz"},
                {"newuidmap", "uidmap", "shadow-utils", "shadow", "shadow", "shadow-uidmap", NULL},
                {"OVMF.fd", "ovmf", "edk2-ovmf", "edk2-ovmf", "qemu-ovmf-x86_64", "ovmf", NULL},
                {"kubectl", NULL, NULL, "kubectl", NULL, "kubectl", "kubectl"},
                {"k9s", NULL, NULL, "k9s", "k9s", "k9s", "k9s"},
                {"nix", "nix-bin", NULL, "nix", NULL, "nix", NULL},
};

static const char *package_name(const struct package *p, enum host_family family) {
        switch (family) {
        case HOST_DEBIAN:
                return p->debian;
        case HOST_FEDORA:
                return p->fedora;
        case HOST_ARCH:
                return p->arch;
        case HOST_SUSE:
                return p->suse;
        case HOST_ALPINE:
                return p->alpine;
        case HOST_NIXOS:
                return p->nixos;
        case HOST_UNKNOWN:
                break;
        }
        return NULL;
}

/* Where what no distribution packages comes from. */
static const char *upstream_of(const char *tool) {
        static const char *const known[][2] = {{"kubectl", "https://kubernetes.io/docs/tasks/tools/"},
                                               {"k9s", "https://k9scli.io/topics/install/"},
                                               {"nix", "https://nixos.org/download/"}};
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (str_eq(known[i][0], tool))
                        return known[i][1];
        return NULL;
}

/* Sorts the tools into packages of this distribution and tools that have none. */
static void find_packages(const struct host *h, const char *const *tools, struct strv *ret_packages,
                          struct strv *ret_without) {
        for (; *tools; tools++) {
                const char *name = *tools;
                for (size_t i = 0; i < ELEMENTSOF(packages); i++)
                        if (str_eq(packages[i].tool, *tools))
                                name = package_name(&packages[i], h->family);
                if (!name || h->family == HOST_UNKNOWN)
                        strv_push(ret_without, *tools);
                else if (!strv_contains(ret_packages, name))
                        strv_push(ret_packages, name);
        }
}

static char *package_command(const struct host *h, const struct strv *names) {
        _cleanup_free_ char *list = strv_join(names, " ");
        const char *sudo = geteuid() == 0 ? "" : "sudo ";
        switch (h->family) {
        case HOST_DEBIAN:
                return xasprintf("%sapt-get install %s", sudo, list);
        case HOST_FEDORA:
                return xasprintf("%sdnf install %s", sudo, list);
        case HOST_ARCH:
                return xasprintf("%spacman -S %s", sudo, list);
        case HOST_SUSE:
                return xasprintf("%szypper install %s", sudo, list);
        case HOST_ALPINE:
                return xasprintf("%sapk add %s", sudo, list);
        case HOST_NIXOS: {
                _cleanup_buf_ struct buf attributes = BUF_INIT(0);
                for (size_t i = 0; i < names->len; i++)
                        buf_printf(&attributes, "%spkgs.%s", i ? " " : "", names->items[i]);
                return xasprintf("in configuration.nix: environment.systemPackages = [ %s ];\n"
                                 "or for this shell: nix-shell -p %s",
                                 buf_str(&attributes), list);
        }
        case HOST_UNKNOWN:
                break;
        }
        return NULL;
}

char *host_install_tools(const struct host *h, const char *const *tools) {
        _cleanup_strv_ struct strv names = {0}, without = {0};
        find_packages(h, tools, &names, &without);
        _cleanup_buf_ struct buf text = BUF_INIT(0);
        if (names.len > 0) {
                _cleanup_free_ char *command = package_command(h, &names);
                buf_puts(&text, command);
        }
        for (size_t i = 0; i < without.len; i++) {
                const char *where = upstream_of(without.items[i]);
                buf_printf(&text, "%sinstall %s%s%s", text.len ? "\n" : "", without.items[i], where ? ": " : "",
                           where ? where : " with this system's package manager");
        }
        return buf_take(&text);
}

char *host_install_command(const struct host *h, const char *tool) {
        return host_install_tools(h, (const char *const[]){tool, NULL});
}

int host_missing(const char *tool, const char *what_for, struct error *err) {
        _cleanup_host_ struct host *h = NULL;
        int r = host_detect(&h, err);
        if (r < 0)
                return r;
        _cleanup_free_ char *command = host_install_command(h, tool);
        err_set(err, ERR_HOST, ENOENT, "%s is not installed (or not executable); it is needed for %s", tool, what_for);
        err_hint(err, "%s", command);
        return -ENOENT;
}
