#!/usr/bin/env bash
# Runs the tests of interop/tests/peers.rs, and BFD with GoBGP, with today's daemons instead of Debian 12's: in
# the root that `interop/setup.sh current` has made. Prints their versions first.
#
#   interop/current.sh [FILTER…]   only tests whose name contains one of these, such as frr::
#   MARGAY_BIN=FILE                the margay under test
#   TEST_THREADS=N                 tests at once, default 2
#
# Debian's next release moves. Exits with 3, not 1, if tests fail with other versions than those below; with
# 1 if they could not be run.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly ROOT=/opt/interop/current/root
# What the tests were last changed for.
readonly KNOWN="bird3 3.4.0-1, exabgp 5.0.15-1, frr 10.7.1-6, gobgpd 4.8.0-1, openbgpd 9.3-1"

[ -e "${ROOT%/*}/complete" ] || { echo "current.sh: run interop/setup.sh current first" >&2; exit 1; }
[ -x "${MARGAY_BIN:-}" ] || { echo "current.sh: MARGAY_BIN names no program" >&2; exit 1; }
versions=$(chroot $ROOT dpkg-query -W -f '${Package} ${Version}, ' bird3 exabgp frr gobgpd openbgpd)
versions=${versions%, }
echo "with $versions"

built=$(cargo test --locked -p interop --test peers --test bfd --no-run 2>&1) || { echo "$built" >&2; exit 1; }
program() {
    realpath -e "$(sed -n "s|.*Executable tests/$1.rs (\(.*\))|\1|p" <<< "$built")" ||
        { echo "current.sh: cargo names no program of tests/$1.rs" >&2; exit 1; }
}
peers=$(program peers)
bfd=$(program bfd)

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
# Runs one of them. Only named tests are failures that other versions can explain.
run() {
    interop/enter.sh $ROOT "$1" --include-ignored --test-threads "${TEST_THREADS:-2}" "${@:2}" 2>&1 |
        tee "$output" && return
    grep -q '^test .* FAILED$' "$output" || { echo "current.sh: $1 did not run to its end" >&2; exit 1; }
    status=1
}
# BIRD 1.6 and margay itself are not in that root.
run "$peers" --skip bird16:: --skip margay:: "$@"
[ $# -gt 0 ] || run "$bfd" gobgp4_
[ $status = 0 ] || [ "$versions" = "$KNOWN" ] || { echo "not the known versions: $KNOWN" >&2; status=3; }
exit $status
