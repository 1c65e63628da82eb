# SPDX-License-Identifier: MIT
load ../lib/common

COMMANDS="setup start stop restart status reset destroy ssh exec cp apply logs configure list doctor kubectl k9s env ports load init autostart completion"

setup() {
  setup_project
}

# in_bash WORD…: what bash would offer for the last word.
in_bash() {
  bash --norc -c '
    eval "$("$0" completion bash)"
    COMP_WORDS=(k3s-vm "$@") COMP_CWORD=$#
    _k3s_vm 2>/dev/null
    printf "%s\n" "${COMPREPLY[@]}"' "$K3S_VM" "$@"
}

# in_fish LINE: what fish would offer for it, without the descriptions.
in_fish() {
  fish --no-config -c '
    eval (env $argv[1] completion fish | string collect)
    complete -C $argv[2]' "$K3S_VM" "$1" | cut -f 1
}

@test "the script for bash is valid and quiet" {
  run -0 --separate-stderr "$K3S_VM" completion bash
  [ -z "$stderr" ]
  bash -n <<<"$output"
  run -0 bash --norc -c "source <('$K3S_VM' completion bash)"
  [ -z "$output" ]
}

@test "bash completes commands, options and configuration keys" {
  for command in $COMMANDS; do
    in_bash "${command:0:3}" | grep -qx -- "$command"
  done
  [[ $(in_bash "") != *supervise* ]]
  [ "$(in_bash logs --fol)" = --follow ]
  [ "$(in_bash --project /x logs ser)" = serial ]
  [ "$(in_bash configure VM_CP)" = VM_CPUS= ]
  [ "$(in_bash completion z)" = zsh ]
  [ "$(in_bash ports rem)" = remove ]
  [ "$(in_bash help doc)" = doctor ]
}

@test "bash leaves files and the arguments of kubectl alone" {
  [ -z "$(in_bash cp fi)" ]
  [ -z "$(in_bash kubectl get p)" ]
  [ -z "$(in_bash --project fi)" ]
}

@test "the script for zsh is valid and defines a completion" {
  skip_unless zsh command -v zsh
  "$K3S_VM" completion zsh >"$SCRATCH/_k3s-vm"
  zsh -n "$SCRATCH/_k3s-vm"
  run -0 zsh -fc "autoload -Uz compinit && compinit -u -D && source '$SCRATCH/_k3s-vm' && echo \$_comps[k3s-vm]"
  [ "$output" = _k3s_vm ]
}

@test "zsh offers every command with its summary" {
  skip_unless zsh command -v zsh
  "$K3S_VM" completion zsh >"$SCRATCH/_k3s-vm"
  run -0 zsh -fc "
    compdef() { : }
    _describe() { shift; print -rl -- \${(P)1} }
    source '$SCRATCH/_k3s-vm'
    words=(k3s-vm '') CURRENT=2 PREFIX=''
    _k3s_vm"
  [ "${#lines[@]}" = "$("$K3S_VM" --help | sed -n '/^Commands:/,/^$/p' | grep -c '^  ')" ]
  for command in $COMMANDS; do
    grep -q "^$command:." <<<"$output"
  done
}

@test "the script for fish is valid and quiet" {
  skip_unless fish command -v fish
  "$K3S_VM" completion fish >"$SCRATCH/k3s-vm.fish"
  fish --no-execute "$SCRATCH/k3s-vm.fish"
  run -0 fish --no-config -c "source '$SCRATCH/k3s-vm.fish'"
  [ -z "$output" ]
}

@test "fish completes commands, options and configuration keys" {
  skip_unless fish command -v fish
  for command in $COMMANDS; do
    in_fish "k3s-vm ${command:0:3}" | grep -qx -- "$command"
  done
  [ "$(in_fish 'k3s-vm logs --fol')" = --follow ]
  [ "$(in_fish 'k3s-vm --project /x logs seri')" = serial ]
  [ "$(in_fish 'k3s-vm configure VM_CP')" = VM_CPUS= ]
}
