# kalshi. On a fresh Debian machine with Rust, each of the first two is all there is to do.
#
#   make sandbox [ARGS="--markets 200 --duration 60s"]   the whole platform against a simulated exchange
#   make test    [ARGS="pg::"]                           every test, or those whose name matches, on
#                                                       PostgreSQL and on TimescaleDB
#   make check                                           formatting, lints, migrations, tests, docs, dependencies
#   make check-ops [ARGS="rules"]                        units, alerts, dashboards, Terraform, package,
#                                                       runbook; KALSHI= names an executable that is there
#   make check-rotate                                    rotations at 5,000 changes/s over three gatherers
#   make check-archive                                   the archive in DuckDB, pyarrow, Spark, ClickHouse
#                                                        and Iceberg
#   make fuzz    [ARGS="decoder"]                        any bytes as frames, configurations and journals
#   make bench-gather                                    socket to commit beside COPY; one JSON line last
#   make bench-markets                                   425,000 markets into production
#   make bench-scale                                     425,000 markets over 150 sessions
#   make bench-dedup                                     three gatherers into production beside COPY
#   make bench-latency                                   exchange to production at 5,000 changes/s
#   make bench-archive                                   production into Parquet beside DuckDB's COPY
#   make bench-verify                                    books replayed a second and core; 425,000 markets
#   make build                                           target/release/kalshi
#   sudo make install [PREFIX=/usr] [DESTDIR=/tmp/x]     what was built, onto this machine; uninstall takes
#                                                        it off again (systemd/Makefile)
#   make release                                         the same as build, and it names the crates in it
#   make dist                                            an archive of all that a machine needs, and its SBOM
#   make deb                                             the same as a Debian package

ARGS ?=
# What is packed of one commit is the same, whenever and wherever it is packed. Not exported: compilers of C
# look at it, so that each commit would build the libraries anew.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

include systemd/Makefile

.PHONY: sandbox test check check-ops check-archive check-rotate fuzz build release dist deb bench-gather bench-markets bench-scale bench-dedup bench-latency bench-archive bench-verify fmt lint sql doc audit install-tools
.DEFAULT_GOAL := build

sandbox:
	@.ci/install
	@cargo build --release --locked
	@"$(TARGET_DIR)/release/kalshi" sandbox $(ARGS)

test:
	@.ci/install test
	@.ci/test $(ARGS)

check: install-tools fmt lint sql test doc audit

# Everything around the executable, by the tools that its users trust; the runbook's commands included. With
# KALSHI=target/debug/kalshi, as the tests leave it, nothing is built.
KALSHI ?= $(TARGET_DIR)/release/kalshi
check-ops:
	@.ci/install ops
	@[ "$(KALSHI)" != "$(TARGET_DIR)/release/kalshi" ] || cargo build --release --locked
	@tests/ops/check "$(KALSHI)" $(ARGS)

# Every password, four times with sessions open and twice after all were ended, under three gatherers at the exchange's busiest
# pace; prints how late rows were.
check-rotate:
	@.ci/install test
	KALSHI_ROTATE_RATE=5000 KALSHI_ROTATE_GATHERERS=3 cargo nextest run --locked --features failpoints \
		--test rotate -E 'test(/running_platform/)' --no-capture

# The recorded windows through the whole platform into an archive, and a day of 10 million changes, read by
# every engine.
check-archive:
	@.ci/install archive
	KALSHI_ARCHIVE_ENGINES=duckdb,pyarrow,spark,clickhouse,iceberg KALSHI_ARCHIVE_ROWS=10000000 cargo nextest run --locked --features failpoints \
		--test archive -E 'test(/engine/)' --no-capture

# Ten minutes each (KALSHI_FUZZ_SECONDS), beginning with what is in fuzz/corpus, which the tests replay.
fuzz:
	@.ci/install
	@.ci/fuzz $(ARGS)

build:
	@.ci/install
	cargo build --release --locked

release:
	@.ci/install package
	cargo auditable build --release --locked
	.ci/audit executable "$(TARGET_DIR)/release/kalshi"

dist: release
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) .ci/dist "$(TARGET_DIR)/release/kalshi" "$(TARGET_DIR)/dist"
	.ci/dist materials "$(TARGET_DIR)/dist"

deb: release
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) cargo deb --no-build --locked --strip

bench-gather bench-markets bench-scale bench-dedup bench-latency bench-verify:
	@.ci/install
	cargo bench --locked --bench $(@:bench-%=%) -- $(ARGS)

bench-archive:
	@.ci/install test
	cargo bench --locked --bench $(@:bench-%=%) -- $(ARGS)

install-tools:
	@.ci/install check

fmt:
	cargo fmt --check
	cargo fmt --check --manifest-path tests/clients/rust/Cargo.toml
	cargo fmt --check --manifest-path fuzz/Cargo.toml

lint:
	cargo clippy --locked --all-targets --features failpoints -- -D warnings

sql:
	.ci/sql

# Private items too: this is a program, its documentation is for whoever works on it.
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

audit:
	.ci/audit
