# SPDX-License-Identifier: MIT
# Which folder is the project, whatever it is called.
load ../lib/common

setup() {
  setup_project
}

# The project that the program sees from the working folder.
set_here() {
  "$K3S_VM" "$@" configure VM_CPUS=3
}

@test "without anything to go by the working folder is the project" {
  mkdir -p a/b && cd a/b
  set_here
  [ -f .k3s-vm/config ]
}

@test "the git root is the project" {
  mkdir -p .git a/b && cd a/b
  set_here
  [ -f "$PROJECT/.k3s-vm/config" ]
}

@test "a git worktree's root, where .git is a file, is the project" {
  echo 'gitdir: elsewhere' >.git
  mkdir -p a && cd a
  set_here
  [ -f "$PROJECT/.k3s-vm/config" ]
}

@test "the nearest folder with .k3s-vm wins over the git root" {
  mkdir -p .git a/.k3s-vm a/b/c && cd a/b/c
  set_here
  [ -f "$PROJECT/a/.k3s-vm/config" ]
  [ ! -e "$PROJECT/.k3s-vm" ]
}

@test "--project wins over everything, before and after the command" {
  mkdir -p .k3s-vm other third
  set_here --project other
  [ -f other/.k3s-vm/config ]
  "$K3S_VM" configure --project=third VM_CPUS=5
  [ "$("$K3S_VM" --project third configure VM_CPUS)" = 5 ]
  [ ! -e .k3s-vm/config ]
}

@test "--project wants a folder that is there" {
  touch file
  before=$(snapshot)
  fails_with 2 'nowhere' "$K3S_VM" --project nowhere status
  fails_with 2 'file' "$K3S_VM" --project file status
  fails_with 2 'project' "$K3S_VM" --project "" status
  [ "$(snapshot)" = "$before" ]
}

@test "the project's folder is private and ignored by git" {
  set_here
  [ "$(stat -c %a .k3s-vm)" = 700 ]
  [ "$(stat -c %a .k3s-vm/config)" = 600 ]
  [ "$(cat .k3s-vm/.gitignore)" = '*' ]
}

# One test for each kind of name that programs stumble over.
weird_name() {
  mkdir -- "$1" && cd -- "$1" && mkdir below
  cd below && "$K3S_VM" --project .. configure VM_CPUS=7
  [ -f ../.k3s-vm/config ]
  [ "$("$K3S_VM" configure VM_CPUS)" = 7 ]
  run -3 "$K3S_VM" status
  run -3 "$K3S_VM" ssh
  run -0 "$K3S_VM" doctor --json || [ "$status" = 6 ]
  # The name of the VM made of it is a DNS label.
  [[ $("$K3S_VM" configure VM_NAME) =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]]
}

@test "a project with blanks works" { weird_name "my  shop "; }
@test "a project with quotes works" { weird_name "it's \"mine\""; }
@test "a project with commas and equals signs works" { weird_name "a,b=c,,d"; }
@test "a project with a newline works" { weird_name $'two\nlines'; }
@test "a project with UTF-8 works" { weird_name "Lädchen 店"; }
@test "a project with bytes that are no UTF-8 works" { weird_name $'caf\xe9'; }
@test "a project with a shell's special characters works" { weird_name '${HOME}`id`$(id)*%h;&'; }
@test "a project with a leading dash works" { weird_name "-rf"; }
@test "a project whose name has no letter works" { weird_name "---"; }

@test "a project with a path of more than 300 characters works" {
  long=$(printf 'x%.0s' {1..150})
  mkdir "$long" && cd "$long"
  weird_name "$long"
}

