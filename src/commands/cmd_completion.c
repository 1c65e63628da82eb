/* SPDX-License-Identifier: MIT */
/* Completion scripts, generated from the command table, so that they know what the program knows. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <k3s-vm/buf.h>
#include <k3s-vm/commands.h>

/* The options that every command takes (main.c); the one with an argument names a folder. */
static const struct command_option shared_options[] = {
                {"project", 0, "DIR", "the project whose VM is meant"},
                {"json", 0, NULL, "one JSON object on stdout"},
                {"quiet", 0, NULL, "warnings and errors only"},
                {"debug", 0, NULL, "say more"},
                {"help", 'h', NULL, "say more about it"},
                {0},
};

static bool is_shown(const struct command *c) {
        return !c->hidden && *c->name;
}

/* Words that the first operand of a command may be; NULL: it is a file, or free. */
static const char *const *fixed_operands(const struct command *c) {
        static const struct {
                const char *command;
                const char *words[5]; /* NULL-terminated */
        } table[] = {
                        {"logs", {"vm", "serial", "k3s", "supervisor"}},
                        {"ports", {"list", "add", "remove"}},
                        {"snapshot", {"list", "save", "restore", "delete"}},
                        {"autostart", {"on", "off", "status"}},
                        {"completion", {"bash", "zsh", "fish"}},
        };
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                if (str_eq(c->name, table[i].command))
                        return table[i].words;
        return NULL;
}

/* Whether an option's argument is a path, judged by how the help writes it. */
static bool wants_path(const struct command_option *o) {
        return str_eq(o->argument, "DIR") || str_eq(o->argument, "FILE") || str_eq(o->argument, "PATH");
}

static void option_words(const struct command_option *options, struct strv *ret) {
        for (; options->name; options++) {
                strv_pushf(ret, "--%s", options->name);
                if (options->letter)
                        strv_pushf(ret, "-%c", options->letter);
        }
}

static void operand_words(const struct command *c, const char *key_suffix, struct strv *ret) {
        strv_extend(ret, fixed_operands(c));
        if (!str_eq(c->name, "configure"))
                return;
        size_t n;
        const struct config_key *keys = config_keys(&n);
        for (size_t i = 0; i < n; i++)
                strv_pushf(ret, "%s%s", keys[i].name, key_suffix);
}

/* bash. */

/* "-f|--file|": the options of all commands whose argument is @paths or not. */
static void bash_options_with_argument(bool paths, struct buf *out) {
        _cleanup_strv_ struct strv words = {0};
        for (size_t c = 0; commands[c]; c++)
                for (const struct command_option *o = command_options(commands[c]); o->name; o++) {
                        if (!o->argument || wants_path(o) != paths)
                                continue;
                        _cleanup_free_ char *word = xasprintf("--%s", o->name);
                        if (!strv_contains(&words, word))
                                strv_push(&words, word);
                }
        if (paths && !strv_contains(&words, "--project"))
                strv_push(&words, "--project");
        for (size_t i = 0; i < words.len; i++)
                buf_printf(out, "%s%s", i ? "|" : "", words.items[i]);
}

static void print_bash(void) {
        _cleanup_buf_ struct buf paths = BUF_INIT(0), values = BUF_INIT(0);
        bash_options_with_argument(true, &paths);
        bash_options_with_argument(false, &values);
        printf("# bash completion for k3s-vm: source <(k3s-vm completion bash)\n"
               "_k3s_vm() {\n"
               "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= words= i\n"
               "    COMPREPLY=()\n"
               "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
               "        case ${COMP_WORDS[i]} in\n"
               "            --project) ((i++)) ;;\n"
               "            -*) ;;\n"
               "            *) command=${COMP_WORDS[i]}; break ;;\n"
               "        esac\n"
               "    done\n");
        printf("    if [[ $command == kubectl || $command == k9s ]]; then\n"
               "        if declare -F _command_offset >/dev/null; then _command_offset \"$i\"; fi\n"
               "        return\n"
               "    fi\n"
               "    case $prev in\n"
               "        %s) return ;;\n",
               buf_str(&paths));
        if (values.len > 0)
                printf("        %s) compopt +o default 2>/dev/null; return ;;\n", buf_str(&values));
        printf("    esac\n"
               "    case $command in\n");
        _cleanup_strv_ struct strv names = {0};
        for (size_t i = 0; commands[i]; i++) {
                const struct command *c = commands[i];
                if (!is_shown(c))
                        continue;
                strv_push(&names, c->name);
                if (c->raw)
                        continue;
                _cleanup_strv_ struct strv words = {0}, operands = {0};
                option_words(command_options(c), &words);
                option_words(shared_options, &words);
                operand_words(c, "=", &operands);
                _cleanup_free_ char *options = strv_join(&words, " ");
                _cleanup_free_ char *rest = strv_join(&operands, " ");
                printf("        %s) if [[ $cur == -* ]]; then words='%s'; else words='%s'; fi ;;\n", c->name, options,
                       rest ? rest : "");
        }
        _cleanup_strv_ struct strv shared = {0};
        option_words(shared_options, &shared);
        strv_push(&shared, "--version");
        _cleanup_free_ char *commands_text = strv_join(&names, " "), *shared_text = strv_join(&shared, " ");
        printf("        '') if [[ $cur == -* ]]; then words='%s'; else words='%s help'; fi ;;\n"
               "        help) words='%s' ;;\n"
               "    esac\n"
               "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
               "    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null; fi\n"
               "}\n"
               "complete -o default -F _k3s_vm k3s-vm\n",
               shared_text, commands_text, commands_text);
}

/* zsh. */

/* For a single-quoted 'word:description' of _describe, which splits at the first unescaped colon. */
static void zsh_entry(const char *word, const char *description) {
        printf("'");
        for (const char *p = word; *p; p++)
                printf(*p == ':' ? "\\:" : "%c", *p);
        printf(":");
        for (const char *p = description; *p; p++)
                if (*p == '\'')
                        printf("'\\''");
                else
                        printf("%c", *p);
        printf("' ");
}

static void zsh_options(const struct command_option *options) {
        for (; options->name; options++) {
                _cleanup_free_ char *word = xasprintf("--%s", options->name);
                zsh_entry(word, options->help);
                if (options->letter) {
                        _cleanup_free_ char *letter = xasprintf("-%c", options->letter);
                        zsh_entry(letter, options->help);
                }
        }
}

static void zsh_commands(void) {
        for (size_t i = 0; commands[i]; i++)
                if (is_shown(commands[i]))
                        zsh_entry(commands[i]->name, commands[i]->summary);
}

static void zsh_operands(const struct command *c) {
        const char *const *fixed = fixed_operands(c);
        for (; fixed && *fixed; fixed++)
                zsh_entry(*fixed, "");
        if (!str_eq(c->name, "configure"))
                return;
        size_t n;
        const struct config_key *keys = config_keys(&n);
        for (size_t i = 0; i < n; i++)
                zsh_entry(keys[i].name, keys[i].help);
}

static void print_zsh(void) {
        printf("#compdef k3s-vm\n"
               "# zsh completion for k3s-vm: k3s-vm completion zsh > a folder of $fpath/_k3s-vm\n"
               "_k3s_vm() {\n"
               "    local -a options operands\n"
               "    local command='' files='' i\n"
               "    for (( i = 2; i < CURRENT; i++ )); do\n"
               "        case $words[i] in\n"
               "            --project) (( i++ )) ;;\n"
               "            -*) ;;\n"
               "            *) command=$words[i]; break ;;\n"
               "        esac\n"
               "    done\n"
               "    if [[ $words[CURRENT-1] == --project ]]; then _files -/; return; fi\n"
               "    case $command in\n"
               "        kubectl|k9s) words=(\"${(@)words[i,-1]}\"); (( CURRENT -= i - 1 )); _normal; return ;;\n");
        for (size_t i = 0; commands[i]; i++) {
                const struct command *c = commands[i];
                if (!is_shown(c) || c->raw)
                        continue;
                printf("        %s)\n            options=(", c->name);
                zsh_options(command_options(c));
                zsh_options(shared_options);
                printf(")\n            operands=(");
                zsh_operands(c);
                printf(")\n            files=%s ;;\n", c->operands ? "yes" : "");
        }
        printf("        '')\n            options=(");
        zsh_options(shared_options);
        zsh_entry("--version", "the program's version");
        printf(")\n            operands=(");
        zsh_commands();
        printf(") ;;\n        help)\n            operands=(");
        zsh_commands();
        printf(") ;;\n    esac\n"
               "    if [[ $PREFIX == -* ]]; then\n"
               "        _describe -o option options\n"
               "    elif (( $#operands )); then\n"
               "        _describe operand operands\n"
               "    elif [[ -n $files ]]; then\n"
               "        _files\n"
               "    fi\n"
               "}\n"
               "if [[ $funcstack[1] == _k3s-vm ]]; then\n"
               "    _k3s_vm \"$@\"\n"
               "else\n"
               "    compdef _k3s_vm k3s-vm\n"
               "fi\n");
}

/* fish. */

static void fish_quoted(const char *s) {
        printf("'");
        for (; *s; s++)
                printf(*s == '\'' || *s == '\\' ? "\\%c" : "%c", *s);
        printf("'");
}

static void fish_options(const char *condition, const struct command_option *options) {
        for (; options->name; options++) {
                printf("complete -c k3s-vm -n '%s' -l %s", condition, options->name);
                if (options->letter)
                        printf(" -s %c", options->letter);
                if (options->argument)
                        printf(wants_path(options) ? " -r -F" : " -x");
                printf(" -d ");
                fish_quoted(options->help);
                printf("\n");
        }
}

static void print_fish(void) {
        printf("# fish completion for k3s-vm: k3s-vm completion fish | source\n"
               "function __k3s_vm_command\n"
               "    set -l tokens (commandline -opc)\n"
               "    set -e tokens[1]\n"
               "    while set -q tokens[1]\n"
               "        switch $tokens[1]\n"
               "            case --project\n"
               "                set -e tokens[1]\n"
               "            case '-*'\n"
               "            case '*'\n"
               "                echo $tokens[1]\n"
               "                return 0\n"
               "        end\n"
               "        set -e tokens[1]\n"
               "    end\n"
               "    return 1\n"
               "end\n"
               "function __k3s_vm_using\n"
               "    set -l command (__k3s_vm_command)\n"
               "    contains -- \"$command\" $argv\n"
               "end\n"
               "complete -c k3s-vm -f\n");
        fish_options("not __k3s_vm_using kubectl k9s", shared_options);
        printf("complete -c k3s-vm -n 'not __k3s_vm_command >/dev/null' -l version -d 'the program\\'s version'\n");
        for (size_t i = 0; commands[i]; i++) {
                const struct command *c = commands[i];
                if (!is_shown(c))
                        continue;
                printf("complete -c k3s-vm -n 'not __k3s_vm_command >/dev/null' -a %s -d ", c->name);
                fish_quoted(c->summary);
                printf("\n");
                _cleanup_free_ char *condition = xasprintf("__k3s_vm_using %s", c->name);
                fish_options(condition, command_options(c));
                _cleanup_strv_ struct strv operands = {0};
                operand_words(c, "=", &operands);
                _cleanup_free_ char *words = strv_join(&operands, " ");
                if (operands.len > 0)
                        printf("complete -c k3s-vm -n '%s' -a '%s'\n", condition, words);
                else if (c->operands)
                        printf("complete -c k3s-vm -n '%s' -F\n", condition);
        }
}

static int run(struct context *ctx, const struct arguments *args, struct error *err) {
        (void)ctx;
        const char *shell = args->rest.len == 1 ? args->rest.items[0] : "";
        if (str_eq(shell, "bash"))
                print_bash();
        else if (str_eq(shell, "zsh"))
                print_zsh();
        else if (str_eq(shell, "fish"))
                print_fish();
        else {
                int r = err_set(err, ERR_USAGE, EINVAL, "completion wants the name of a shell: bash, zsh or fish");
                err_hint(err, "k3s-vm completion --help");
                return r;
        }
        return 0;
}

const struct command cmd_completion = {
                .name = "completion",
                .operands = "bash|zsh|fish",
                .summary = "print a completion script for a shell",
                .details = "bash: source <(k3s-vm completion bash)\n"
                           "zsh:  k3s-vm completion zsh > ~/.zfunc/_k3s-vm   (with ~/.zfunc in $fpath)\n"
                           "fish: k3s-vm completion fish > ~/.config/fish/completions/k3s-vm.fish",
                .run = run,
};
