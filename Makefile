# What people type. Each target installs or builds what it needs first.
#
#   LISTEN=ADDR:PORT   where `make run` listens
#   MODELS=DIR         models to serve instead of the demo model
#   TEST_THREADS=N     tests that `make test` and `make check` run at once, 4 and 8 unless set
#   CHAOS_SECONDS=N    how long `make chaos` kills workers, 60 unless set
#   CHAOS_SEED=N       what it decides; printed by each run
#   BENCH_PARTS=WORDS  what `make bench` and `make bench-peers` measure, all parts unless set
#   BENCH_IDLE_SECONDS=N  how long `make bench` leaves a daemon alone, 60 unless set
#   LLAMA_SERVER=FILE  what `make bench-peers` compares with, built by it unless set
#   BENCH_PAIRS=N     how often `make bench-peers` measures each, 7 unless set
#   SOAK_SECONDS=N     how long `make soak` lasts, 1200 unless set
#   CARGO_TARGET_DIR   where cargo builds, as usual

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
# The daemon looks for the CPU runtime here, beside itself, and an install has the same layout.
CPU_RUNTIME := $(RELEASE)/lib/rkllmd/librkllmrt.so

TEST_THREADS ?= 4
LISTEN ?= 127.0.0.1:8080
MODELS ?=
LLAMA_SERVER ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install the packages a build needs (apt) and check the Rust version
	@scripts/install-build-deps

.PHONY: build
build: deps ## Build everything in release: daemon, CPU runtime, test runtimes
	scripts/timed build cargo build --release --workspace
	install -D -m 0644 $(RELEASE)/librkllm_cpu.so $(CPU_RUNTIME)

.PHONY: run
run: build ## Build, fetch the demo model, and serve it on 127.0.0.1:8080
	@models='$(MODELS)'; \
	if [[ -z $$models ]]; then \
		model=$$(scripts/fetch-demo-model | tail -n 1); \
		models=$$(dirname "$$model"); \
	fi; \
	exec scripts/serve-demo '$(RELEASE)/rkllmd' "$$models" '$(LISTEN)'

# Builds nothing that the other targets build: a profile of its own, without llama.cpp.
.PHONY: check
check: ## Check formatting, lints, unit tests and HTTP with a scripted engine; no root, no network
	@scripts/check

# Formatting and lints come after the build: they use what it compiled, and a tree that does not
# build needs no other message. Nextest comes last so that its summary ends the output; most tests wait
# for processes, deadlines and events, so there are more of them at once than two processors; no more than
# that, as `nproc` counts processors that a container may not use.
.PHONY: test
test: build ## Run every check and test, with the demo model
	scripts/install-test-tools
	scripts/timed formatting cargo fmt --all --check
	scripts/timed lints cargo clippy --release --workspace --all-targets -- -D warnings
	scripts/timed dependencies cargo deny --all-features check --hide-inclusion-graph bans licenses sources
	scripts/fetch-demo-model
	scripts/fetch-chat-templates
	scripts/fetch-grammars
	scripts/timed 'examples in comments' cargo test --release --workspace --doc
	scripts/timed tests cargo nextest run --release --workspace --test-threads $(TEST_THREADS)

.PHONY: bench
bench: build ## Measure what docs/benchmarks.md says about speed
	scripts/fetch-demo-model
	cargo bench --workspace --bench serving -- $(BENCH_PARTS)

.PHONY: bench-peers
bench-peers: build ## Measure beside llama.cpp's own server, which it builds the first time
	scripts/fetch-demo-model
	server='$(LLAMA_SERVER)'; \
	[[ -n $$server ]] || server=$$(scripts/build-llama-server | tail -n 1); \
	LLAMA_SERVER="$$server" cargo bench --workspace --bench peers -- $(BENCH_PARTS)

.PHONY: chaos
chaos: build ## Kill, hang and crowd the daemon, and check what its clients get
	scripts/fetch-demo-model
	cargo bench --workspace --bench chaos

.PHONY: soak
soak: build ## Serve a crowd among strangers for 20 minutes, and see whether memory grows
	SOAK_SECONDS='$(or $(SOAK_SECONDS),1200)' cargo bench --workspace --bench chaos

.PHONY: deb
deb: deps ## Build the packages for this machine's architecture, into $(TARGET)/debian
	scripts/build-debs

.PHONY: deb-arm64
deb-arm64: deps ## Build the packages for arm64 boards, with Debian's cross toolchain
	scripts/build-debs arm64

.PHONY: test-appliance
test-appliance: deps ## Boot a Debian, install the packages, and ill-treat the service (root)
	scripts/test-appliance

.PHONY: test-arm64
test-arm64: deps ## Run the arm64 packages in an arm64 Debian, emulated (root)
	scripts/install-test-tools
	packages=$$(scripts/build-debs arm64); \
	tests/appliance/run-arm64 $$packages

.PHONY: clean
clean: ## Remove what was built; the cached demo model stays
	cargo clean
