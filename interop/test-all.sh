#!/usr/bin/env bash
# Runs every test: unit and property tests of all crates, then margay against real daemons and the
# real kernel. As root on Debian 12; installs what is missing.
#
#   MARGAY_SHARED=DIR   the conformance data, if it is not in ../shared (tests without it are skipped)
#   TEST_THREADS=N      interoperability tests at once, default 4
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
step() { printf '\n== %s (after %d s)\n' "$*" $((SECONDS - start)); }

[ "$(id -u)" = 0 ] || { echo "test-all: network namespaces need root" >&2; exit 1; }
step "what is missing"
interop/setup.sh build peers
export PATH="$HOME/.cargo/bin:$PATH"

step "the binary under test"
cargo build --locked --profile fast --bin margay
export MARGAY_BIN=$PWD/target/fast/margay

step "unit and property tests"
# Compiled together with the next step's tests, so that nothing is built twice.
cargo test --locked --workspace --exclude interop --no-fail-fast

step "interoperability tests"
# A peer that is missing fails the tests instead of skipping them.
export MARGAY_REQUIRE_PEERS=1
cargo test --locked -p interop --no-fail-fast -- --test-threads "${TEST_THREADS:-4}"

printf '\nEvery test passed, in %d s.\n' $((SECONDS - start))
