/* SPDX-License-Identifier: MIT */
/*
 * Whether KVM is worth having. That the device opens and makes a VM proves nothing: some hosts of nested VMs
 * then run the guest's code one emulated instruction at a time, a thousand times slower than QEMU's own
 * translator. So a million turns of a loop are run on a virtual processor, in a child that can be killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <k3s-vm/fs.h>
#include <k3s-vm/host.h>
#include <k3s-vm/json.h>
#include <k3s-vm/proc.h>

#define DEVICE "/dev/kvm"
#define CACHE_NAME "accel.json"
#define LOOP_LIMIT_MS 50    /* of processor time: real KVM needs about one */
#define SETUP_LIMIT_MS 2000 /* the first VM after boot may load modules */
#define WALL_LIMIT_MS 1000  /* for a loop that gets no processor at all */

void accel_clear(struct accel *a) {
        free(a->reason);
        free(a->problem);
        free(a->fix);
        *a = (struct accel){0};
}

/* How the child says what came of it. */
enum probe_result {
        PROBE_OK,
        PROBE_NOT_KVM,
        PROBE_NO_VM,
        PROBE_BUSY,
        PROBE_NO_CPU,
        PROBE_RUN_FAILED,
        PROBE_TOO_SLOW,
        PROBE_STARVED, /* says nothing about KVM, so it is not kept */
};

static const char *problem_text(enum probe_result result) {
        switch (result) {
        case PROBE_NOT_KVM:
                return DEVICE " does not speak the KVM API";
        case PROBE_NO_VM:
                return "the kernel refuses to make a virtual machine";
        case PROBE_BUSY:
                return "another hypervisor holds the processor's virtualization";
        case PROBE_NO_CPU:
        case PROBE_RUN_FAILED:
                return DEVICE " is there but does not run guest code";
        case PROBE_TOO_SLOW:
                return DEVICE " is there but runs guest code far too slowly (nested virtualization that is emulated)";
        case PROBE_STARVED:
                return DEVICE " could not be tried: this machine is too busy";
        case PROBE_OK:
                break;
        }
        return NULL;
}

static const char *fix_text(enum probe_result result) {
        switch (result) {
        case PROBE_BUSY:
                return "stop VirtualBox or the other hypervisor";
        case PROBE_TOO_SLOW:
        case PROBE_RUN_FAILED:
        case PROBE_NO_CPU:
                return "use a host whose nested virtualization works";
        default:
                return NULL;
        }
}

#if defined(__x86_64__)

#define GUEST_BYTES (2U * 1024 * 1024)
#define PML4_AT 0x1000
#define PDPT_AT 0x2000
#define PD_AT 0x3000
#define CODE_AT 0x8000

/* mov ecx, 1000000; again: dec ecx; jnz again; hlt */
static const unsigned char guest_code[] = {0xb9, 0x40, 0x42, 0x0f, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0xf4};

/* 64-bit mode with the first 2 MiB mapped onto themselves, as in Intel's manual, volume 3, "IA-32e mode". */
static int set_up_cpu(int vcpu) {
        struct kvm_sregs sregs;
        if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
                return -errno;
        const struct kvm_segment code = {
                        .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
        const struct kvm_segment data = {
                        .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
        sregs.cs = code;
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
        sregs.cr3 = PML4_AT;
        sregs.cr4 = 1U << 5;                           /* PAE */
        sregs.cr0 = 1U << 31 | 1U << 5 | 1U << 4 | 1U; /* PG, NE, ET, PE */
        sregs.efer = 1U << 10 | 1U << 8;               /* LMA, LME */
        if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
                return -errno;
        const struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
        return ioctl(vcpu, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

static void *set_up_memory(int vm) {
        unsigned char *memory = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
                return NULL;
        const uint64_t present_writable = 3, large_page = 1U << 7;
        *(uint64_t *)(void *)(memory + PML4_AT) = PDPT_AT | present_writable;
        *(uint64_t *)(void *)(memory + PDPT_AT) = PD_AT | present_writable;
        *(uint64_t *)(void *)(memory + PD_AT) = 0 | present_writable | large_page;
        memcpy(memory + CODE_AT, guest_code, sizeof(guest_code));
        const struct kvm_userspace_memory_region region = {
                        .slot = 0, .memory_size = GUEST_BYTES, .userspace_addr = (uintptr_t)memory};
        return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? NULL : memory;
}

/* Writes a byte to @ready once nothing is left but to run. */
static enum probe_result run_guest(int kvm, int ready) {
        if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
                return PROBE_NOT_KVM;
        int vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
        if (vm < 0)
                return errno == EBUSY ? PROBE_BUSY : PROBE_NO_VM;
        ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* older Intel processors ask for it */
        if (!set_up_memory(vm))
                return PROBE_NO_CPU;
        int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0UL);
        int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
        if (vcpu < 0 || size < (int)sizeof(struct kvm_run))
                return errno == EBUSY ? PROBE_BUSY : PROBE_NO_CPU;
        const struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
        if (run == MAP_FAILED || set_up_cpu(vcpu) < 0)
                return PROBE_NO_CPU;
        if (write(ready, "", 1) != 1)
                return PROBE_RUN_FAILED;
        int r;
        do
                r = ioctl(vcpu, KVM_RUN, 0UL);
        while (r < 0 && errno == EINTR);
        if (r < 0)
                return errno == EBUSY ? PROBE_BUSY : PROBE_RUN_FAILED;
        return run->exit_reason == KVM_EXIT_HLT ? PROBE_OK : PROBE_RUN_FAILED;
}

/* Processor time that the child has used, in ms. */
static uint64_t cpu_ms(pid_t pid) {
        clockid_t clock;
        struct timespec ts;
        if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &ts) < 0)
                return 0;
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Waits for the child within the limits. It is left running when they are over. The limit counts the time that
 * the child had a processor: on a busy machine a good KVM must not look like a bad one. */
static enum probe_result watch(const struct process *child, int ready, struct proc_result *ret_exit) {
        struct pollfd pfd = {.fd = ready, .events = POLLIN};
        int n;
        do
                n = poll(&pfd, 1, SETUP_LIMIT_MS);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return PROBE_STARVED;
        uint64_t used = cpu_ms(child->pid), begun = now_ms();
        struct process waited = *child;
        for (;;) {
                if (proc_wait(&waited, LOOP_LIMIT_MS, ret_exit, NULL) == 0)
                        return PROBE_OK;
                if (cpu_ms(child->pid) - used >= LOOP_LIMIT_MS)
                        return PROBE_TOO_SLOW;
                if (now_ms() - begun >= WALL_LIMIT_MS)
                        return PROBE_STARVED;
        }
}

static enum probe_result probe_in_child(int kvm) {
        int ready[2];
        if (pipe2(ready, O_CLOEXEC) < 0)
                return PROBE_STARVED;
        pid_t parent = getpid(), pid = fork();
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(PROBE_STARVED);
                _exit((int)run_guest(kvm, ready[1]));
        }
        close(ready[1]);
        _cleanup_close_ int ready_fd = ready[0];
        struct process child = {.pid = pid, .pidfd = -1};
        if (pid < 0)
                return PROBE_STARVED;
        if (proc_open(pid, &child.pidfd) < 0) {
                kill(pid, SIGKILL); /* our own unreaped child: the number cannot have been reused */
                waitpid(pid, NULL, 0);
                return PROBE_STARVED;
        }
        struct proc_result exited = {0};
        enum probe_result result = watch(&child, ready_fd, &exited);
        if (result == PROBE_OK)
                return exited.signal ? PROBE_RUN_FAILED : (enum probe_result)exited.exit_status;
        proc_signal(&child, SIGKILL, NULL);
        proc_wait(&child, 0, NULL, NULL);
        return result;
}

#endif

static void set(struct accel *ret, const char *problem, const char *fix) {
        *ret = (struct accel){.problem = xstrdup(problem),
                              .fix = xstrdup(fix),
                              .reason = fix ? xasprintf("%s; %s", problem, fix) : xstrdup(problem)};
}

static void set_cannot_open(const char *device, int errnum, struct accel *ret) {
        _cleanup_free_ char *problem = NULL, *fix = NULL;
        struct stat st;
        if (errnum == EACCES || errnum == EPERM) {
                _cleanup_host_ struct host *h = NULL;
                const struct group *group = stat(device, &st) == 0 ? getgrgid(st.st_gid) : NULL;
                /* Where only root may open it, no group helps until udev has its rule: "kvm" by custom. */
                const char *name = group && st.st_gid != 0 ? group->gr_name : "kvm";
                problem = xasprintf("this user may not open %s", device);
                if (host_detect(&h, NULL) == 0 && h->family == HOST_NIXOS)
                        fix = xasprintf("in configuration.nix: users.users.<you>.extraGroups = [ \"%s\" ];", name);
                else
                        fix = xasprintf("sudo usermod -aG %s $USER, then log in again", name);
        } else if (errnum == ENOENT || errnum == ENODEV || errnum == ENXIO) {
                _cleanup_buf_ struct buf cpus = BUF_INIT(1U << 22);
                fs_read("/proc/cpuinfo", (1U << 22) - 1, &cpus, NULL);
                bool intel = strstr(buf_str(&cpus), " vmx"), amd = strstr(buf_str(&cpus), " svm");
                problem = xasprintf("%s is missing", device);
                fix = intel || amd ? xasprintf("sudo modprobe kvm_%s", intel ? "intel" : "amd")
                                   : xstrdup("switch on virtualization in the firmware, or nested virtualization on "
                                             "the "
                                             "host of this machine");
        } else
                problem = xasprintf("%s cannot be opened: %s", device, strerror(errnum));
        set(ret, problem, fix);
}

/* When the device was made: loading the module anew, with other options, makes an old answer void. */
static char *device_stamp(const char *device) {
        struct stat st;
        if (stat(device, &st) < 0)
                return xstrdup("");
        return xasprintf("%lld.%09ld", (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

/* An earlier answer of this boot; PROBE_STARVED when there is none. */
static enum probe_result read_cache(const char *path, const char *boot_id, const char *stamp) {
        _cleanup_json_ struct json *j = NULL;
        if (!boot_id || json_read_file(path, 4096, &j, NULL) < 0 ||
            !str_eq(json_string(json_get(j, "boot_id")), boot_id) || !str_eq(json_string(json_get(j, "device")), stamp))
                return PROBE_STARVED;
        uint64_t result = json_u64_or(json_get(j, "result"), PROBE_STARVED);
        return result < PROBE_STARVED ? (enum probe_result)result : PROBE_STARVED;
}

static void write_cache(const char *path, const char *boot_id, const char *stamp, enum probe_result result) {
        _cleanup_json_ struct json *j = json_new_object();
        json_set_string(j, "boot_id", boot_id);
        json_set_string(j, "device", stamp);
        json_set_number(j, "result", result);
        _cleanup_free_ char *text = json_print(j, true);
        fs_write_atomic(path, text, strlen(text), 0600, NULL); /* else it is asked again next time */
}

void accel_probe(const char *device, const char *runtime_base, struct accel *ret) {
#if defined(__x86_64__)
        _cleanup_close_ int kvm = open(device, O_RDWR | O_CLOEXEC);
        if (kvm < 0) {
                set_cannot_open(device, errno, ret);
                return;
        }
        _cleanup_free_ char *path = NULL, *boot_id = proc_boot_id(), *stamp = device_stamp(device);
        if (runtime_base && boot_id && fs_mkdir_private(runtime_base, NULL) == 0)
                path = path_join(runtime_base, CACHE_NAME);
        enum probe_result result = path ? read_cache(path, boot_id, stamp) : PROBE_STARVED;
        if (result == PROBE_STARVED) {
                result = probe_in_child(kvm);
                if (path && result != PROBE_STARVED)
                        write_cache(path, boot_id, stamp, result);
        }
        if (result == PROBE_OK)
                *ret = (struct accel){.kvm = true};
        else
                set(ret, problem_text(result), fix_text(result));
#else
        /* The guests are x86_64, and KVM runs only what the processor is. */
        (void)device;
        (void)runtime_base;
        struct utsname name;
        _cleanup_free_ char *problem = xasprintf("KVM runs x86_64 guests on x86_64 machines only, and this is %s",
                                                 uname(&name) == 0 ? name.machine : "another");
        set(ret, problem, NULL);
#endif
}

int accel_choose(const char *wanted, const char *runtime_base, struct accel *ret, struct error *err) {
        _cleanup_accel_ struct accel a = {0};
        if (str_eq(wanted, "tcg"))
                set(&a, "ACCEL is tcg", NULL);
        else
                accel_probe(DEVICE, runtime_base, &a);
        if (str_eq(wanted, "kvm") && !a.kvm) {
                int r = err_set(err, ERR_HOST, ENODEV, "ACCEL is kvm, but KVM does not work here: %s", a.problem);
                err_hint(err, "%s%sOr let it choose: k3s-vm configure ACCEL=auto", a.fix ? a.fix : "",
                         a.fix ? "\n" : "");
                return r;
        }
        *ret = a;
        a = (struct accel){0};
        return 0;
}
