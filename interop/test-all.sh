#!/usr/bin/env bash
# Runs every test: unit and property tests of all crates, then margay against real daemons and the
# real kernel. As root on Debian 12; installs what is missing.
#
#   MARGAY_SHARED=DIR   the third-party conformance data, if it is not in ../shared; without it the
#                       tests named shared_data_* are left out, and the last line says so
#   TEST_THREADS=N      interoperability tests at once, default 4
set -euo pipefail
cd "$(dirname "$0")/.."
start=$SECONDS
step() { printf '\n== %s (after %d s)\n' "$*" $((SECONDS - start)); }

export MARGAY_SHARED=${MARGAY_SHARED:-$(realpath -m ../shared)}
# Tests that need root, daemons or data are run as well: they fail if something is missing. GoBGP 4 is not in
# Debian 12: interop/current.sh runs gobgp4_*.
arguments=(--include-ignored --skip gobgp4_)
left_out=
if [ ! -d "$MARGAY_SHARED/conformance" ]; then
    arguments+=(--skip shared_data_)
    left_out="shared_data_* (no $MARGAY_SHARED/conformance)"
fi

# kube-apiserver is built from source, which takes ten minutes, and so are the tools that make
# packages: their tests are run where they have been built.
targets=(--lib --bins)
for file in interop/tests/*.rs; do
    name=$(basename "$file" .rs)
    if [[ $name = *kubernetes ]] && [ ! -e /opt/interop/kubernetes/1.34/controllers ]; then
        left_out="${left_out:+$left_out and }those of $name.rs (interop/setup.sh kubernetes builds its server)"
    elif [ "$name" = packages ] && [ ! -e /opt/interop/package/sum ]; then
        left_out="${left_out:+$left_out and }those of $name.rs (interop/setup.sh package builds its tools)"
    else
        targets+=(--test "$name")
    fi
done

# An emulated machine takes minutes on busy cores: those tests are run where its kernel has been fetched.
if [ ! -e /opt/interop/bird3/complete ] || ! interop/vm.sh has-qemu; then
    arguments+=(--skip keys_of_tcp_ao_with_bird_3 --skip keys_change_over_ipv6_and_in_a_vrf)
    left_out="${left_out:+$left_out and }those of keys in tcp_ao.rs (interop/setup.sh tcp-ao fetches its kernel)"
fi

[ "$(id -u)" = 0 ] || { echo "test-all: network namespaces need root" >&2; exit 1; }
step "what is missing"
interop/setup.sh build peers monitor page mrt bmp vm
export PATH="$HOME/.cargo/bin:$PATH"

if ! interop/setup.sh confd; then
    arguments+=(--skip confd_writes)
    left_out="${left_out:+$left_out and }confd_writes_* (interop/setup.sh confd failed)"
fi

# BIRD's source is not on every mirror.
if ! interop/setup.sh krt-tunnel; then
    for name in calico_changeover calico_live calico_services_kubernetes; do
        for at in "${!targets[@]}"; do
            [ "${targets[at]}" = "$name" ] || continue
            unset "targets[at]" "targets[at-1]"
            left_out="${left_out:+$left_out and }those of $name.rs (interop/setup.sh krt-tunnel failed)"
        done
    done
fi

step "the binary under test"
cargo build --locked --profile fast --bin margay
export MARGAY_BIN=$PWD/target/fast/margay

step "unit and property tests"
# Compiled together with the next step's tests, so that nothing is built twice.
cargo test --locked --workspace --exclude interop --no-fail-fast -- "${arguments[@]}"

step "interoperability tests"
cargo test --locked -p interop "${targets[@]}" --no-fail-fast -- "${arguments[@]}" --test-threads "${TEST_THREADS:-4}"

if [ -e /opt/interop/book/program ]; then
    step "the book"
    interop/book.sh target/book
else
    left_out="${left_out:+$left_out and }interop/book.sh (interop/setup.sh book builds mdbook)"
fi

step "today's daemons"
if interop/setup.sh current; then
    status=0
    interop/current.sh || status=$?
    [ $status = 0 ] || [ $status = 3 ] || exit $status
    [ $status = 0 ] || left_out="${left_out:+$left_out and }those above that failed with newer daemons than known"
else
    left_out="${left_out:+$left_out and }interop/current.sh (interop/setup.sh current failed)"
fi

printf '\nEvery test%s passed, in %d s.\n' "${left_out:+ but $left_out}" $((SECONDS - start))
