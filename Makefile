# kalshi. On a fresh Debian machine with Rust, each of the first two is all there is to do.
#
#   make sandbox [ARGS="--markets 200 --duration 60s"]   the whole platform against a simulated exchange
#   make test    [ARGS="pg::"]                           every test, or those whose name matches
#   make check                                           formatting, lints, tests, docs, dependencies
#   make build                                           target/release/kalshi

ARGS ?=
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)

.PHONY: sandbox test check build fmt lint doc audit install-tools
.DEFAULT_GOAL := build

sandbox:
	@.ci/install
	@cargo build --release --locked
	@"$(TARGET_DIR)/release/kalshi" sandbox $(ARGS)

test:
	@.ci/install test
	cargo nextest run --locked $(ARGS)

check: install-tools fmt lint test doc audit

build:
	@.ci/install
	cargo build --release --locked

install-tools:
	@.ci/install check

fmt:
	cargo fmt --check

lint:
	cargo clippy --locked --all-targets -- -D warnings

# Private items too: this is a program, its documentation is for whoever works on it.
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

audit:
	.ci/audit
