# `make help` lists the targets. Cargo does the building; this file is the one place with the other commands.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR ?=

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
RELEASE := $(TARGET)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

help:
	@echo 'make demo      build everything, then watch and measure unmodified C programs'
	@echo 'make test      run all tests; the last line is the count'
	@echo 'make test-slow the tests that take minutes; the last line is the count'
	@echo 'make test-old-kernels tests/calls and tests/contract on Linux 5.10 and 6.1, in qemu'
	@echo 'make loom      model-check the ring, the sleepers and the lanes; two minutes'
	@echo 'make tsan      the ring under ThreadSanitizer; make miri under miri; both need a nightly toolchain'
	@echo 'make fuzz      fuzz each parser for a minute; needs a nightly toolchain and cargo-fuzz'
	@echo 'make check     formatting, lints, documentation and layers, as reviewers see them'
	@echo 'make msrv      build with the oldest Rust that is promised, $(MSRV); needs that toolchain'
	@echo 'make deny      licences and vulnerabilities of dependencies; needs cargo-deny'
	@echo 'make package   what would be published: $(PUBLISHED)'
	@echo 'make bench     measure everything, and write docs/benchmarks.md; BENCH_QUICK=1 for a rough idea'
	@echo 'make criterion whether a change made a difference, with the same questions'
	@echo 'make build     the command and libsockshim.so, in $(RELEASE)'
	@echo 'make programs  test real programs, and write the table of them in README.md'
	@echo 'make header    regenerate include/sockshim.h'
	@echo 'make picture   draw docs/how-it-works.svg'
	@echo 'make install   into PREFIX ($(PREFIX)); DESTDIR is honoured'

build:
	$(CARGO) build --release

demo: build
	$(MAKE) -C c_examples
	$(RELEASE)/sockshim demo --examples c_examples/bin

# The same for people and for machines: .ci/run calls this too.
test:
	@.ci/count $(CARGO) test --no-fail-fast

# The second stage: tests of these suites that say #[ignore = "slow: make test-slow"].
SLOW := bench programs kernel
test-slow:
	@.ci/count $(CARGO) test --no-fail-fast $(addprefix --test ,$(SLOW)) -- --ignored

# Emulated, so slow: many minutes for each kernel and environment.
test-old-kernels:
	$(CARGO) test --no-run --test calls
	.ci/old-kernels $$(ls -t $(TARGET)/debug/deps/calls-* | grep -v '[.]' | head -n 1) $(TARGET)/debug/deps/libsockshim.so

loom:
	RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 $(CARGO) test -p sockshim-ring --test loom --release \
	    --target-dir $(TARGET)/loom

tsan:
	RUSTFLAGS=-Zsanitizer=thread $(CARGO) +nightly test -Zbuild-std --target x86_64-unknown-linux-gnu \
	    -p sockshim-ring --lib --target-dir $(TARGET)/tsan

miri:
	MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 $(CARGO) +nightly miri test -p sockshim-ring --lib --target-dir $(TARGET)/miri

FUZZ_SECONDS ?= 60

fuzz:
	for target in $$($(CARGO) +nightly fuzz list); do \
	    $(CARGO) +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit; done

check: check-format check-lints check-docs check-layers

check-format:
	$(CARGO) fmt --all --check

check-lints:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

check-docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

check-layers:
	$(CARGO) test --test layers

# With the oldest Rust that is promised. Tests and benches may need a newer one, for what they depend on.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv:
	$(CARGO) +$(MSRV) check --workspace --locked --target-dir $(TARGET)/msrv

# Licences, known vulnerabilities and sources of the dependencies: deny.toml says which.
deny:
	$(CARGO) deny --workspace check

# What would be published, built as those who download it would build it.
PUBLISHED := sockshim-ring sockshim-tcpip
package:
	for package in $(PUBLISHED); do $(CARGO) publish --dry-run --allow-dirty -p $$package || exit; done

# All questions, and the programs that are installed; then docs/benchmarks.md and its plots. BENCH_QUICK=1 for a
# rough idea, BENCH_QUESTIONS='pingpong epoll' for a part of it (the answers to the others are kept).
BENCH_QUESTIONS ?= all
ANSWERS := $(TARGET)/sockshim-bench
bench: build
	mkdir -p $(ANSWERS)
	$(CARGO) bench --profile dev --package sockshim --bench report --no-run
	$(RELEASE)/sockshim bench $(if $(filter 1,$(BENCH_QUICK)),--quick) --json $(BENCH_QUESTIONS) \
	    > $(ANSWERS)/new.json || test $$? = 1 # some have no answer, which it has said
	mv $(ANSWERS)/new.json $(ANSWERS)/$(if $(filter all,$(BENCH_QUESTIONS)),0-all,1-$(firstword $(BENCH_QUESTIONS))).json
	$(if $(filter all,$(BENCH_QUESTIONS)),rm -f $(ANSWERS)/1-*.json)
	$(CARGO) bench --profile dev --package sockshim --bench report -- $(ANSWERS)/*.json

# Criterion keeps what it measured, and says whether a change made a difference.
CRITERION := pingpong messages epoll_idle host_path connect passthrough upgrade
criterion: export BENCH_LIBRARY = $(RELEASE)/libsockshim.so
criterion: build
	$(CARGO) bench --profile measure --package sockshim $(addprefix --bench ,$(CRITERION))

programs:
	SOCKSHIM_BLESS=1 $(CARGO) test --test programs -- --include-ignored --skip cpython

picture:
	docs/how-it-works.sh > docs/how-it-works.svg

header:
	SOCKSHIM_BLESS=1 $(CARGO) test --test header

install: build
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 755 $(RELEASE)/sockshim $(DESTDIR)$(BINDIR)/sockshim
	install -m 755 $(RELEASE)/libsockshim.so $(DESTDIR)$(LIBDIR)/libsockshim.so.0
	ln -sf libsockshim.so.0 $(DESTDIR)$(LIBDIR)/libsockshim.so
	install -m 644 include/sockshim.h $(DESTDIR)$(INCLUDEDIR)/sockshim.h
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@VERSION@|$(VERSION)|' sockshim.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/sockshim.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/sockshim.pc

.PHONY: test-old-kernels fuzz tsan miri help build demo test test-slow loom check check-format check-lints check-docs \
    msrv deny package bench criterion programs picture header install
