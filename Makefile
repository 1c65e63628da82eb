# k3s-vm. `make help` lists the targets.
#
#   BUILD=debug|release|asan   release is the default
#   CC=clang                   another compiler
#   V=1                        show the commands
#   WERROR=1                   warnings are errors (CI sets it)
#   PREFIX, DESTDIR            for install

BUILD   ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= cc
VERSION := 0.1.0

O := build/$(BUILD)

CPPFLAGS_ALL := -D_GNU_SOURCE -DK3S_VM_VERSION='"$(VERSION)"' -Iinclude $(CPPFLAGS)
CFLAGS_WARN  := -Wall -Wextra -Wstrict-prototypes -Wmissing-prototypes -Wshadow
CFLAGS_debug   := -O0 -g
# Guards for functions that have arrays (few do): for every one that names an address they would be 20 kB.
CFLAGS_release := -Oz -fno-jump-tables -g -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables -D_FORTIFY_SOURCE=2 -fstack-protector
# gcc looks at the whole program once more when it is linked: 6 kB. As the tests link them, the objects are ordinary ones.
GCC            := $(if $(findstring clang,$(shell $(CC) --version)),,1)
LTO_release    := $(if $(GCC),-flto=auto -ffat-lto-objects)
# Registers that a call may change are not saved around it, and nothing is kept in one for a whole loop: 3 kB.
CFLAGS_release += $(if $(GCC),-fno-caller-saves -fno-tree-loop-im -fno-move-loop-invariants)
CFLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
CFLAGS_ALL   := -std=c17 $(CFLAGS_WARN) $(if $(WERROR),-Werror) $(CFLAGS_$(BUILD)) $(CFLAGS)
# Without separate-code, which fills up to whole pages on the disk what is read from there anyway: 8 kB.
LDFLAGS_release := -Wl,--gc-sections -Wl,-z,relro,-z,now,-z,noseparate-code
LDFLAGS_asan    := -fsanitize=address,undefined
LDFLAGS_fuzz := -fsanitize=address,undefined
LDFLAGS_ALL  := -Wl,--as-needed $(LDFLAGS_$(BUILD)) $(LDFLAGS)

# Linked in: small, needed by nearly every command. Loaded when first used (include/k3s-vm/library.h):
# libcurl, libssh, libarchive, libcrypto; of those only the headers are needed here.
LINKED := libcjson yaml-0.1 libseccomp
LOADED := libcurl libssh libarchive libcrypto
CPPFLAGS_ALL += $(shell pkg-config --cflags $(LINKED) $(LOADED))
# Where a loader finds no library by its soname (NixOS), the build names the file: make LIBCURL=/…/libcurl.so.4
sonames = $(foreach l,LIBCURL LIBSSH LIBARCHIVE LIBCRYPTO,$(if $($l),-D$l_SONAME='"$($l)"'))
CPPFLAGS_ALL += $(sonames)
LDLIBS  := $(shell pkg-config --libs $(LINKED)) -ldl

SOURCES := $(wildcard src/base/*.c src/tools/*.c src/domain/*.c src/commands/*.c)
OBJECTS := $(SOURCES:%.c=$O/%.o) $O/embedded.o
LIBRARY := $O/libk3s-vm.a

UNIT_TESTS := $(wildcard tests/unit/*_test.c)
UNIT_BINARIES := $(UNIT_TESTS:tests/unit/%.c=$O/tests/%)
FUZZ_TARGETS := $(patsubst tests/fuzz/%_fuzz.c,%,$(wildcard tests/fuzz/*_fuzz.c))
FUZZ_REPLAYS := $(FUZZ_TARGETS:%=$O/replay/%)
FUZZ_SECONDS ?= 60

ifeq ($(V),1)
Q :=
else
Q := @
endif
say = $(if $(Q),@printf '  %-6s %s\n' '$1' '$2')

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

.PHONY: all
all: bin/k3s-vm bin/kubectl bin/k9s ## build bin/k3s-vm, bin/kubectl, bin/k9s

# Which BUILD it is: the program of another one may be the newer file.
build/last: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo $(BUILD) | cmp -s - $@ || echo $(BUILD) >$@

.PHONY: FORCE
FORCE:

bin/k3s-vm: $O/k3s-vm build/last
	$(Q)mkdir -p bin
	$(Q)cp -f $< $@.new && mv -f $@.new $@

bin/kubectl bin/k9s: bin/k3s-vm
	$(Q)ln -sf k3s-vm $@

# Relocations in a tenth of the room, where this linker makes them and this C library (glibc 2.36, musl 1.2.4) takes them.
RELR := -Wl,-z,pack-relative-relocs
$O/relr:
	$(Q)mkdir -p $(@D)
	$(Q)echo 'int main(void) { return 0; }' | $(CC) $(LDFLAGS_ALL) $(RELR) -xc -o $@.test - 2>/dev/null && \
		$@.test 2>/dev/null && echo '$(RELR)' >$@ || : >$@

$O/k3s-vm: $(OBJECTS) $O/relr
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LTO_$(BUILD)) $(LDFLAGS_ALL) $$(cat $O/relr) -o $@ $(OBJECTS) $(LDLIBS)
ifeq ($(BUILD),release)
	$(Q)strip $@
endif

$O/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LTO_$(BUILD)) -MMD -MP -c -o $@ $<

# The guests' and payloads' own files travel inside the program, without their comments: 15 kB.
EMBEDDED := $(shell find -L src/guest src/payload -type f 2>/dev/null | LC_ALL=C sort)
$O/embedded.7z: $(EMBEDDED) $O/embed Makefile
	$(call say,EMBED,$@)
	$(Q)rm -rf $O/embedded && mkdir -p $O/embedded && cp -RL src/guest src/payload $O/embedded/
	$(Q)find $O/embedded -type f -exec sed -i '/^[[:space:]]*\(#\|\/\/\)\( .*\)\{0,1\}$$/d' {} +
	$(Q)$O/embed $@ $O/embedded

$O/embed: src/embed.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS_ALL) -o $@ $< $(shell pkg-config --libs libarchive)

$O/embedded.o: src/embedded.S $O/embedded.7z
	$(call say,AS,$<)
	$(Q)$(CC) -DEMBEDDED='"$O/embedded.7z"' -c -o $@ $<

$(LIBRARY): $(filter-out $O/src/commands/main.o,$(OBJECTS))
	$(Q)rm -f $@
	$(Q)ar rcs $@ $^

$O/tests/%: tests/unit/%.c $(LIBRARY)
	$(call say,TEST,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fno-lto -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIBRARY) -lcmocka $(LDLIBS)

.PHONY: unit
unit: $(UNIT_BINARIES) $(FUZZ_REPLAYS) ## build and run the unit tests, fuzz-replay too
	$(Q)status=0; for t in $(UNIT_BINARIES); do $$t || status=1; done; $(replay); exit $$status

# Each fuzz target as a program that runs over its corpus, with any compiler and in every BUILD.
replay = for t in $(FUZZ_TARGETS); do $O/replay/$$t tests/fuzz/corpus/$$t || status=1; done
$O/replay/%: tests/fuzz/%_fuzz.c tests/fuzz/replay.c $(LIBRARY)
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -DFUZZ_REPLAY -fno-lto -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIBRARY) $(LDLIBS)

.PHONY: fuzz-replay
fuzz-replay: $(FUZZ_REPLAYS) ## run the fuzz targets over their corpora
	$(Q)status=0; $(replay); exit $$status

# And with libFuzzer, which keeps what it finds below build/fuzz.
$O/target/%: tests/fuzz/%_fuzz.c $(LIBRARY)
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fsanitize=fuzzer -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIBRARY) $(LDLIBS)

.PHONY: fuzz
fuzz: ## look for new failures with clang's libFuzzer, FUZZ_SECONDS=60 a target
	$(Q)$(MAKE) --no-print-directory BUILD=fuzz CC=clang fuzz-run

.PHONY: fuzz-run
fuzz-run: $(FUZZ_TARGETS:%=$O/target/%)
	$(Q)status=0; for t in $(FUZZ_TARGETS); do \
		mkdir -p $O/corpus/$$t $O/found; \
		$O/target/$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=$O/found/$$t- $O/corpus/$$t tests/fuzz/corpus/$$t || status=1; \
	done; exit $$status

# The part of it that is no command of its own.
$O/bench/%: tests/bench/%.c $(LIBRARY)
	$(call say,BENCH,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fno-lto -MMD -MP $(LDFLAGS_ALL) -o $@ $< $(LIBRARY) $(LDLIBS)

.PHONY: bench
bench: all $O/bench/scan $O/bench/nixos $O/bench/download ## measure times and sizes with a real cluster (BENCH_ARGS=--quick)
	$(Q)tests/bench/download $O/bench/download
	$(Q)tests/bench/bench $(BENCH_ARGS)

.PHONY: soak
soak: all ## start and stop one small VM SOAK_CYCLES=100 times, and look for what is left (SOAK_ARGS=-v)
	$(Q)tests/soak/soak $(SOAK_ARGS)

.PHONY: test
test: ## every test, as scripts/test
	$(Q)scripts/test

.PHONY: help
help: ## list the targets
	$(Q)awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: all ## install below $(DESTDIR)$(PREFIX)
	$(Q)install -Dm755 bin/k3s-vm $(DESTDIR)$(PREFIX)/bin/k3s-vm

.PHONY: clean
clean: ## remove everything that was built
	$(Q)rm -rf build bin

-include $(OBJECTS:.o=.d) $(UNIT_BINARIES:=.d) $(FUZZ_REPLAYS:=.d) $(FUZZ_TARGETS:%=$O/target/%.d) $O/bench/scan.d $O/bench/nixos.d $O/bench/download.d
