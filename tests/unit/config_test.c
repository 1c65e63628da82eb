/* SPDX-License-Identifier: MIT */
#include "scratch.h"

#include <errno.h>

#include <k3s-vm/proc.h>
#include <k3s-vm/state.h>

static void set_text(struct scratch *s, const char *text) {
        scratch_write(s->p->config_path, text);
}

static struct config *load(struct scratch *s) {
        struct config *c = NULL;
        struct error err = ERROR_INIT;
        if (config_load(s->p, &c, &err) < 0)
                fail_msg("%s", err.message);
        return c;
}

/* Loading fails with ERR_USAGE and a message that begins with the file's path and @rest. */
static void assert_load_fails(struct scratch *s, const char *rest) {
        struct config *c = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(config_load(s->p, &c, &err) < 0);
        assert_null(c);
        assert_int_equal(err.code, ERR_USAGE);
        _cleanup_free_ char *want = xasprintf("%s%s", s->p->config_path, rest);
        if (!str_starts(err.message, want))
                fail_msg("expected \"%s…\", got \"%s\"", want, err.message);
}

static void assert_text_fails(struct scratch *s, const char *text, const char *rest) {
        set_text(s, text);
        assert_load_fails(s, rest);
}

static void a_missing_file_gives_the_defaults(void **state) {
        _cleanup_config_ struct config *c = load(*state);
        assert_string_equal(c->vm_name, "k3s-vm-shop");
        assert_int_equal(c->cpus, 2);
        assert_int_equal(c->memory_mib, 4096);
        assert_int_equal(c->disk_gib, 20);
        assert_int_equal(c->api_port, 6443);
        assert_int_equal(c->ssh_port, 2666);
        assert_int_equal(c->web_port, 30080);
        assert_int_equal(c->web_node_port, 30080);
        assert_string_equal(c->flavor, "auto");
        assert_string_equal(c->k3s_version, "stable");
        assert_string_equal(c->accel, "auto");
        assert_string_equal(c->kubeconfig_path, "web/.kube/config");
        assert_string_equal(c->web_env_path, "web/.env");
        assert_string_equal(c->dns, "");
        assert_true(c->api_port_default && c->ssh_port_default && c->web_port_default);
        assert_string_equal(config_source(c, "VM_CPUS"), "default");
}

static void every_way_bash_quotes_without_expanding_is_read(void **state) {
        struct scratch *s = *state;
        set_text(s, "# head\n"
                    "\n"
                    "export VM_CPUS=4 # four\n"
                    "VM_MEMORY=' 8192 '\n"
                    "  VM_DISK=\"30\"\n"
                    "VM_NAME='my'-\"shop\"\n"
                    "K3S_ARGS=\"--node-label a=\\\"b\\\" --x=\\$HOME \\n\"\n"
                    "ACCEL=t\\cg\r\n"
                    "FLAVOR='/guests/it'\\''s one'\n"
                    "UNKNOWN=kept\n"
                    "API_PORT=7000");
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->cpus, 4);
        assert_int_equal(c->memory_mib, 8192);
        assert_int_equal(c->disk_gib, 30);
        assert_string_equal(c->vm_name, "my-shop");
        assert_string_equal(c->k3s_args, "--node-label a=\"b\" --x=$HOME \\n");
        assert_string_equal(c->accel, "tcg");
        assert_string_equal(c->flavor, "/guests/it's one");
        assert_int_equal(c->api_port, 7000);
        assert_false(c->api_port_default);
        assert_string_equal(config_source(c, "API_PORT"), "config");
        assert_int_equal(c->unknown_keys.len, 1);
        assert_string_equal(c->unknown_keys.items[0], "UNKNOWN (line 10)");
}

static void what_bash_would_execute_or_expand_is_an_error_with_its_line(void **state) {
        struct scratch *s = *state;
        assert_text_fails(s, "VM_NAME=$(touch /tmp/pwned)\n", ":1: VM_NAME: values are not expanded");
        assert_text_fails(s, "#\nVM_NAME=\"a$USER\"\n", ":2: VM_NAME: values are not expanded");
        assert_text_fails(s, "X=`id`\n", ":1: X: values are not expanded");
        assert_text_fails(s, "X=~/guest\n", ":1: X: values are not expanded");
        assert_text_fails(s, "X=(a b)\n", ":1: X: arrays");
        assert_text_fails(s, "X[1]=b\n", ":1: arrays");
        assert_text_fails(s, "X=a;reboot\n", ":1: X: unexpected ;");
        assert_text_fails(s, "X=a\\\nb\n", ":1: X: lines cannot be continued");
        assert_text_fails(s, "VM_CPUS=2 VM_DISK=20\n", ":1: VM_CPUS: a value that holds blanks");
        assert_text_fails(s, "\n\nVM_CPUS = 2\n", ":3: no blanks are allowed around =");
        assert_text_fails(s, "X='a\nb'\n", ":1: X: a single quote is not closed");
        assert_text_fails(s, "X=\"a\n", ":1: X: a double quote is not closed");
        assert_text_fails(s, "if true; then\n", ":1: expected KEY=VALUE");
        assert_text_fails(s, "1X=2\n", ":1: expected KEY=VALUE");
        assert_text_fails(s, "export\n", ":1: expected KEY=VALUE");
}

static void the_page_is_where_it_was_found_unless_a_number_says_where(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *kept = path_join(s->p->vm_dir, "web-node-port");
        scratch_write(kept, "31234");
        set_text(s, "WEB_PORT=30090\n");
        _cleanup_config_ struct config *c = NULL, *by_number = NULL, *damaged = NULL;
        assert_int_equal(config_load(s->p, &c, NULL), 0);
        assert_int_equal(c->web_node_port, 31234);
        assert_string_equal(config_source(c, "WEB_NODE_PORT"), "manifests");
        set_text(s, "WEB_PORT=30090\nWEB_NODE_PORT=30091\n");
        assert_int_equal(config_load(s->p, &by_number, NULL), 0);
        assert_int_equal(by_number->web_node_port, 30091);
        scratch_write(kept, "a port");
        set_text(s, "WEB_PORT=30090\n");
        assert_int_equal(config_load(s->p, &damaged, NULL), 0);
        assert_int_equal(damaged->web_node_port, 30090);
}

static void values_out_of_range_name_file_line_and_key(void **state) {
        struct scratch *s = *state;
        assert_text_fails(s, "\nVM_CPUS=0\n", ":2: VM_CPUS: must be a whole number from 1 to 256, not \"0\"");
        assert_text_fails(s, "VM_CPUS=1000000000\n", ":1: VM_CPUS: must be");
        assert_text_fails(s, "VM_CPUS=99999999999999999999999\n", ":1: VM_CPUS: must be");
        assert_text_fails(s, "VM_CPUS=two\n", ":1: VM_CPUS: must be");
        assert_text_fails(s, "VM_CPUS=-2\n", ":1: VM_CPUS: must be");
        assert_text_fails(s, "VM_MEMORY=2047\n", ":1: VM_MEMORY: must be a whole number of MiB from 2048");
        assert_text_fails(s, "VM_MEMORY=4G\n", ":1: VM_MEMORY: must be");
        assert_text_fails(s, "VM_DISK=9\n", ":1: VM_DISK: must be a whole number of GiB from 10");
        assert_text_fails(s, "API_PORT=0\n", ":1: API_PORT: must be a port");
        assert_text_fails(s, "SSH_PORT=65536\n", ":1: SSH_PORT: must be a port");
        assert_text_fails(s, "WEB_NODE_PORT=x\n", ":1: WEB_NODE_PORT: must be a port");
        assert_text_fails(s, "VM_NAME=a/b\n", ":1: VM_NAME: must be");
        assert_text_fails(s, "VM_NAME=Shop\n", ":1: VM_NAME: must be");
        assert_text_fails(s, "VM_NAME=-a\n", ":1: VM_NAME: must be");
        assert_text_fails(s, "FLAVOR=gentoo\n", ":1: FLAVOR: must be auto, nixos");
        assert_text_fails(s, "ACCEL=xen\n", ":1: ACCEL: must be auto, kvm or tcg");
        assert_text_fails(s, "K3S_VERSION=newest\n", ":1: K3S_VERSION: must be stable");
        assert_text_fails(s, "K3S_VERSION=1.31\n", ":1: K3S_VERSION: must be stable");
        static const char *const mirrors[] = {"http://mirror.example/k3s",
                                              "http://127.0.0.1.example/k3s",
                                              "https://",
                                              "https:///k3s",
                                              "ftp://mirror.example",
                                              "https://user@mirror.example",
                                              "https://mirror.example/?a",
                                              "mirror.example"};
        for (size_t i = 0; i < ELEMENTSOF(mirrors); i++) {
                _cleanup_free_ char *line = xasprintf("MIRROR_K3S=%s\n", mirrors[i]);
                assert_text_fails(s, line, ":1: MIRROR_K3S: must be like https://");
        }
        assert_text_fails(s, "MIRROR_IMAGES=http://mirror.example\n", ":1: MIRROR_IMAGES: must be like https://");
        assert_text_fails(s, "DNS=localhost\n", ":1: DNS: must be an IPv4 address");
        assert_text_fails(s, "REGISTRY_MIRRORS=docker.io\n", ":1: REGISTRY_MIRRORS: must be like docker.io=https://");
        assert_text_fails(s, "REGISTRY_MIRRORS='docker.io=ftp://a'\n", ":1: REGISTRY_MIRRORS: must be like");
        assert_text_fails(s, "REGISTRY_MIRRORS='docker.io=https://'\n", ":1: REGISTRY_MIRRORS: must be like");
        assert_text_fails(s, "REGISTRY_MIRRORS='a/b=https://c'\n", ":1: REGISTRY_MIRRORS: must be like");
        assert_text_fails(s, "REGISTRY_MIRRORS='a=https://c\"'\n", ":1: REGISTRY_MIRRORS: must be like");
        assert_text_fails(s, "AUTO_RESUME=yes\n", ":1: AUTO_RESUME: must be on or off");
        assert_text_fails(s, "FORWARDS=8080\n", ":1: FORWARDS: must be like");
        assert_text_fails(s, "FORWARDS=0.0.0.0:8080:80\n", ":1: FORWARDS: must be like");
        assert_text_fails(s, "FORWARDS=8080:80/udp\n", ":1: FORWARDS: must be like");
        assert_text_fails(s, "FORWARDS=8080:0\n", ":1: FORWARDS: must be like");
        assert_text_fails(s, "KUBECONFIG_PATH=/etc/passwd\n", ":1: KUBECONFIG_PATH: must be a path below");
        assert_text_fails(s, "KUBECONFIG_PATH=a/../../b\n", ":1: KUBECONFIG_PATH: must be a path below");
        assert_text_fails(s, "WEB_ENV_PATH=.k3s-vm/config\n", ":1: WEB_ENV_PATH: must not be in .k3s-vm");
        assert_text_fails(s, "WEB_ENV_PATH=web/.kube/config\n", ": KUBECONFIG_PATH and WEB_ENV_PATH");
}

static void a_name_of_63_characters_is_the_longest(void **state) {
        struct scratch *s = *state;
        char text[128];
        snprintf(text, sizeof(text), "VM_NAME=%064d\n", 0);
        assert_text_fails(s, text, ":1: VM_NAME: must be");
        snprintf(text, sizeof(text), "VM_NAME=%063d\n", 0);
        set_text(s, text);
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(strlen(c->vm_name), 63);
}

static void a_port_used_twice_is_an_error(void **state) {
        struct scratch *s = *state;
        assert_text_fails(s, "API_PORT=7000\nSSH_PORT=7000\n",
                          ":2: SSH_PORT: port 7000 is used twice: it is also API_PORT");
        assert_text_fails(s, "API_PORT=2666\n",
                          ":1: API_PORT: port 2666 is used twice: it is also SSH_PORT (its default)");
        assert_text_fails(s, "WEB_PORT=6443\n", ":1: WEB_PORT: port 6443");
        assert_text_fails(s, "FORWARDS='6443:1'\n", ":1: FORWARDS: port 6443");
        assert_text_fails(s, "FORWARDS='1:1 1:2'\n",
                          ":1: FORWARDS: port 1 is used twice: it is also another forward's");
}

static void paths_are_below_the_project_and_forwards_are_a_list(void **state) {
        struct scratch *s = *state;
        set_text(s, "FLAVOR=./my/guest\nK3S_VERSION=/opt/k3s\nK3S_AIRGAP_IMAGES=images.tar\n"
                    "FORWARDS=\"127.0.0.1:8080:30081/tcp, 5432:30432\"\nKUBECONFIG_PATH=./a//b/./c\n");
        _cleanup_config_ struct config *c = load(s);
        _cleanup_free_ char *guest = path_join(s->root, "./my/guest"), *images = path_join(s->root, "images.tar");
        assert_string_equal(c->flavor, guest);
        assert_string_equal(c->k3s_version, "/opt/k3s");
        assert_string_equal(c->k3s_images, images);
        assert_string_equal(c->kubeconfig_path, "a/b/c");
        assert_int_equal(c->n_forwards, 2);
        assert_int_equal(c->forwards[1].host_port, 5432);
        assert_int_equal(c->forwards[1].guest_port, 30432);
        _cleanup_free_ char *text = config_value(c, "FORWARDS");
        assert_string_equal(text, "8080:30081 5432:30432");
}

static void versions_channels_and_words_are_accepted(void **state) {
        struct scratch *s = *state;
        const char *good[] = {"stable", "latest", "testing",      "offline",
                              "none",   "v1.31",  "v1.31.4+k3s1", "v1.31.4-rc1+k3s1"};
        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_free_ char *text = xasprintf("K3S_VERSION=%s\n", good[i]);
                set_text(s, text);
                _cleanup_config_ struct config *c = load(s);
                assert_string_equal(c->k3s_version, good[i]);
        }
}

static void the_home_folder_as_project_never_has_its_own_kubeconfig_written(void **state) {
        struct scratch *s = *state;
        setenv("HOME", s->root, 1);
        assert_text_fails(s, "KUBECONFIG_PATH=.kube/config\n", ":1: KUBECONFIG_PATH: must not be the kubeconfig");
}

static void the_environment_wins_and_an_empty_value_is_none(void **state) {
        struct scratch *s = *state;
        set_text(s, "VM_CPUS=4\nVM_DISK=\nVM_MEMORY=3000\n");
        setenv("VM_CPUS", " 6 ", 1);
        setenv("VM_MEMORY", "", 1);
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->cpus, 6);
        assert_int_equal(c->disk_gib, 20);
        assert_int_equal(c->memory_mib, 3000);
        assert_string_equal(config_source(c, "VM_CPUS"), "environment");
        assert_string_equal(config_source(c, "VM_DISK"), "default");

        setenv("VM_CPUS", "0", 1);
        struct config *bad = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(config_load(s->p, &bad, &err) < 0);
        assert_int_equal(err.code, ERR_USAGE);
        assert_true(str_starts(err.message, "environment: VM_CPUS: "));
        setenv("VM_CPUS", "6\nx", 1);
        assert_true(config_load(s->p, &bad, &err) < 0);
        assert_null(bad);
}

static uint16_t web_port_with(struct scratch *s, const char *dotenv) {
        _cleanup_free_ char *path = path_join(s->root, ".env");
        scratch_write(path, dotenv);
        _cleanup_config_ struct config *c = load(s);
        return c->web_port;
}

static void web_port_comes_from_dotenv_unless_the_config_says_otherwise(void **state) {
        struct scratch *s = *state;
        assert_int_equal(web_port_with(s, "A=b\nthis is no assignment\nWEB_PORT=8081\n"), 8081);
        assert_int_equal(web_port_with(s, "export WEB_PORT = \"8082\" # web\r\n"), 8082);
        assert_int_equal(web_port_with(s, "WEB_PORT='8083'\nWEB_PORT=8084 # last\n"), 8084);
        assert_int_equal(web_port_with(s, "WEB_PORTS=1\nMY_WEB_PORT=2\nWEB_PORT=\n"), 30080);
        _cleanup_config_ struct config *c = NULL;
        assert_int_equal(web_port_with(s, "WEB_PORT=31000\n"), 31000);
        c = load(s);
        assert_string_equal(config_source(c, "WEB_PORT"), ".env");
        assert_int_equal(c->web_node_port, 31000);
        assert_false(c->web_port_default);
        set_text(s, "WEB_PORT=9000\n");
        assert_int_equal(web_port_with(s, "WEB_PORT=junk\n"), 9000);
}

static void an_invalid_web_port_in_dotenv_names_its_file_and_line(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->root, ".env");
        scratch_write(path, "A=b\nWEB_PORT=web\n");
        struct config *c = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(config_load(s->p, &c, &err) < 0);
        _cleanup_free_ char *want = xasprintf("%s:2: WEB_PORT: ", path);
        assert_true(str_starts(err.message, want));
        assert_int_equal(err.code, ERR_USAGE);
}

static void a_dotenv_that_is_a_folder_is_ignored(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *path = path_join(s->root, ".env");
        assert_int_equal(mkdir(path, 0755), 0);
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->web_port, 30080);
}

static void whatever_stands_in_the_configs_place_is_an_error_at_once(void **state) {
        struct scratch *s = *state;
        const char *path = s->p->config_path;
        assert_int_equal(mkdir(path, 0700), 0);
        assert_load_fails(s, ": cannot read the configuration: it is a folder");
        rmdir(path);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_load_fails(s, ": cannot read the configuration: it is not a regular file");
        unlink(path);
        assert_int_equal(symlink("config", path), 0);
        assert_load_fails(s, ": cannot read the configuration: it is a symlink that leads to itself");
        unlink(path);
        assert_int_equal(symlink("nowhere", path), 0);
        assert_load_fails(s, ": cannot read the configuration: it is a symlink to a file that is not there");
        unlink(path);
        scratch_write(path, "");
        assert_int_equal(truncate(path, 100 * 1024 * 1024), 0);
        assert_load_fails(s, ": cannot read the configuration: it is larger than 1 MiB");
}

static void binary_junk_is_an_error(void **state) {
        struct scratch *s = *state;
        static const char junk[] = "VM_CPUS=2\n\x7f"
                                   "ELF\0\0\1\2\3";
        assert_int_equal(fs_write_atomic(s->p->config_path, junk, sizeof(junk), 0600, NULL), 0);
        assert_load_fails(s, ":2: this is not text");
}

static int set(struct scratch *s, const char *a, const char *b, struct error *err) {
        const char *assignments[] = {a, b, NULL};
        return config_set(s->p, assignments, err);
}

static void a_save_keeps_comments_order_and_unknown_lines(void **state) {
        struct scratch *s = *state;
        set_text(s, "# mine\nexport VM_CPUS=2   # two\n\nMY_TOOL='a  b'\nVM_DISK=20");
        assert_int_equal(set(s, "VM_CPUS= 8", "K3S_ARGS=--a=\"b c\" --d='$e'", NULL), 0);
        _cleanup_free_ char *text = scratch_read(s->p->config_path);
        assert_string_equal(text, "# mine\nexport VM_CPUS=8   # two\n\nMY_TOOL='a  b'\nVM_DISK=20\n"
                                  "K3S_ARGS=\"--a=\\\"b c\\\" --d='\\$e'\"\n");
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->cpus, 8);
        assert_string_equal(c->k3s_args, "--a=\"b c\" --d='$e'");
}

static void a_shell_that_sources_the_file_gets_the_same_values(void **state) {
        struct scratch *s = *state;
        static const char *const values[] = {"plain",
                                             "two words",
                                             "it's",
                                             "\"double\"",
                                             "$HOME `id` $(id)",
                                             "it's \"$both\" \\ \\\\ `",
                                             "*?[a]{b,c}~ ~/x",
                                             "# no comment",
                                             "a#b",
                                             "!x;y&z|w<v>u",
                                             "\xc3\xa4\xe6\xbc\xa2",
                                             "=a=b",
                                             "\\n"};
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                _cleanup_free_ char *assignment = xasprintf("K3S_ARGS=%s", values[i]);
                assert_int_equal(set(s, assignment, NULL, NULL), 0);
                _cleanup_buf_ struct buf out = BUF_INIT(4096);
                struct proc_run_spec run = PROC_RUN_SPEC_INIT;
                run.spec.argv = (const char *const[]){
                                "sh", "-c", ". \"$1\" && printf %s \"$K3S_ARGS\"", "sh", s->p->config_path, NULL};
                run.ret_stdout = &out;
                struct proc_result result;
                assert_int_equal(proc_run(&run, &result, NULL), 0);
                assert_int_equal(result.exit_status, 0);
                assert_string_equal(buf_str(&out), values[i]);
                _cleanup_config_ struct config *c = load(s);
                assert_string_equal(c->k3s_args, values[i]);
        }
}

static void an_empty_value_takes_the_key_out(void **state) {
        struct scratch *s = *state;
        set_text(s, "VM_CPUS=3\n# c\nVM_CPUS=4\nVM_DISK=30\n");
        assert_int_equal(set(s, "VM_CPUS=", "ACCEL=tcg", NULL), 0);
        _cleanup_free_ char *text = scratch_read(s->p->config_path);
        assert_string_equal(text, "# c\nVM_DISK=30\nACCEL=tcg\n");
}

static void a_new_file_is_private_and_the_last_assignment_counts(void **state) {
        struct scratch *s = *state;
        assert_int_equal(set(s, "API_PORT=7001", "FLAVOR=debian", NULL), 0);
        struct stat st;
        assert_int_equal(stat(s->p->config_path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        _cleanup_free_ char *text = scratch_read(s->p->config_path);
        assert_true(str_starts(text, "# k3s-vm: "));
        assert_true(str_ends(text, "\nAPI_PORT=7001\nFLAVOR=debian\n"));
        set_text(s, "VM_CPUS=2\nVM_CPUS=5\n");
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->cpus, 5);
}

static void a_bad_assignment_changes_nothing(void **state) {
        struct scratch *s = *state;
        static const char before[] = "VM_CPUS=2\nAPI_PORT=7000\n";
        const char *bad[] = {"VM_CPUS=0", "VM_MEMORY=1",          "SSH_PORT=7000", "NO_SUCH=1", "VM_CPUS", "=2",
                             "",          "VM_NAME=a\nVM_CPUS=9", "FLAVOR=~/guest"};
        set_text(s, before);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ struct error err = ERROR_INIT;
                assert_true(set(s, "VM_DISK=40", bad[i], &err) < 0);
                assert_int_equal(err.code, ERR_USAGE);
                _cleanup_free_ char *after = scratch_read(s->p->config_path);
                assert_string_equal(after, before);
        }
}

static void a_wrong_value_in_the_file_can_be_mended_by_setting_it(void **state) {
        struct scratch *s = *state;
        set_text(s, "VM_CPUS=0\n");
        assert_true(set(s, "VM_DISK=40", NULL, NULL) < 0);
        assert_int_equal(set(s, "VM_CPUS=3", NULL, NULL), 0);
}

static void a_symlinked_config_stays_a_symlink(void **state) {
        struct scratch *s = *state;
        _cleanup_free_ char *target = path_join(s->dir, "dotfiles.conf");
        scratch_write(target, "# shared\n");
        assert_int_equal(symlink("../../dotfiles.conf", s->p->config_path), 0);
        assert_int_equal(set(s, "VM_CPUS=7", NULL, NULL), 0);
        struct stat st;
        assert_int_equal(lstat(s->p->config_path, &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        _cleanup_free_ char *text = scratch_read(target);
        assert_string_equal(text, "# shared\nVM_CPUS=7\n");
}

static void setting_makes_the_folder_when_it_is_missing(void **state) {
        struct scratch *s = *state;
        assert_int_equal(fs_remove_tree(s->p->dir, NULL), 0);
        assert_true(set(s, "VM_CPUS=0", NULL, NULL) < 0);
        assert_false(fs_exists(s->p->dir));
        assert_int_equal(set(s, "VM_CPUS=1", NULL, NULL), 0);
        _cleanup_config_ struct config *c = load(s);
        assert_int_equal(c->cpus, 1);
}

static void a_disk_cannot_be_set_smaller_than_it_is(void **state) {
        struct scratch *s = *state;
        _cleanup_state_ struct state *vm = state_new();
        vm->uuid = xstrdup("0d6e1dd4-7f5c-4c2f-9b7c-7f3c5a2b1e90");
        vm->name = xstrdup("shop");
        vm->disk_gib = 40;
        assert_int_equal(state_save(s->p, vm, NULL), 0);
        _cleanup_error_ struct error err = ERROR_INIT;
        assert_true(set(s, "VM_DISK=30", NULL, &err) < 0);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(err.hint);
        assert_false(fs_exists(s->p->config_path));
        assert_int_equal(set(s, "VM_DISK=50", NULL, &err), 0);
}

static void the_default_name_is_a_dns_label_of_any_folder(void **state) {
        struct scratch *s = *state;
        const char *cases[][2] = {{"My Shop", "k3s-vm-my-shop"},
                                  {"a__b..c", "k3s-vm-a-b-c"},
                                  {"\xc3\xa4\xc3\xb6", "k3s-vm"},
                                  {"-x-", "k3s-vm-x"},
                                  {"a,\"b\"\n'c'", "k3s-vm-a-b-c"}};
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *dir = path_join(s->dir, cases[i][0]);
                assert_int_equal(mkdir(dir, 0755), 0);
                _cleanup_project_ struct project *p = NULL;
                _cleanup_config_ struct config *c = NULL;
                assert_int_equal(project_find(dir, &p, NULL), 0);
                assert_int_equal(config_load(p, &c, NULL), 0);
                assert_string_equal(c->vm_name, cases[i][1]);
        }
        char name[201];
        memset(name, 'n', 200);
        name[200] = '\0';
        _cleanup_free_ char *dir = path_join(s->dir, name);
        assert_int_equal(mkdir(dir, 0755), 0);
        _cleanup_project_ struct project *p = NULL;
        assert_int_equal(project_find(dir, &p, NULL), 0);
        _cleanup_config_ struct config *c = NULL;
        assert_int_equal(config_load(p, &c, NULL), 0);
        assert_int_equal(strlen(c->vm_name), 63);
}

static void every_key_has_a_value_a_source_and_help(void **state) {
        _cleanup_config_ struct config *c = load(*state);
        size_t n;
        const struct config_key *keys = config_keys(&n);
        assert_true(n >= 17);
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *value = config_value(c, keys[i].name);
                assert_non_null(value);
                assert_string_equal(config_source(c, keys[i].name), "default");
                assert_true(strlen(keys[i].help) > 5);
        }
        assert_null(config_value(c, "NO_SUCH"));
        assert_null(config_source(c, "NO_SUCH"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                        scratch_test(a_missing_file_gives_the_defaults),
                        scratch_test(every_way_bash_quotes_without_expanding_is_read),
                        scratch_test(what_bash_would_execute_or_expand_is_an_error_with_its_line),
                        scratch_test(the_page_is_where_it_was_found_unless_a_number_says_where),
                        scratch_test(values_out_of_range_name_file_line_and_key),
                        scratch_test(a_name_of_63_characters_is_the_longest),
                        scratch_test(a_port_used_twice_is_an_error),
                        scratch_test(paths_are_below_the_project_and_forwards_are_a_list),
                        scratch_test(versions_channels_and_words_are_accepted),
                        scratch_test(the_home_folder_as_project_never_has_its_own_kubeconfig_written),
                        scratch_test(the_environment_wins_and_an_empty_value_is_none),
                        scratch_test(web_port_comes_from_dotenv_unless_the_config_says_otherwise),
                        scratch_test(an_invalid_web_port_in_dotenv_names_its_file_and_line),
                        scratch_test(a_dotenv_that_is_a_folder_is_ignored),
                        scratch_test(whatever_stands_in_the_configs_place_is_an_error_at_once),
                        scratch_test(binary_junk_is_an_error),
                        scratch_test(a_save_keeps_comments_order_and_unknown_lines),
                        scratch_test(a_shell_that_sources_the_file_gets_the_same_values),
                        scratch_test(an_empty_value_takes_the_key_out),
                        scratch_test(a_new_file_is_private_and_the_last_assignment_counts),
                        scratch_test(a_bad_assignment_changes_nothing),
                        scratch_test(a_wrong_value_in_the_file_can_be_mended_by_setting_it),
                        scratch_test(a_symlinked_config_stays_a_symlink),
                        scratch_test(setting_makes_the_folder_when_it_is_missing),
                        scratch_test(a_disk_cannot_be_set_smaller_than_it_is),
                        scratch_test(the_default_name_is_a_dns_label_of_any_folder),
                        scratch_test(every_key_has_a_value_a_source_and_help),
        };
        return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
