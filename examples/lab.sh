# shellcheck shell=bash
# What the demos share: namespaces, margay in them, waiting, reporting, cleaning up. Sourced, not run;
# the working directory is the repository afterwards. PREFIX and NAME are set before: PREFIX begins the
# names of namespaces, with the process id, so that two demos do not collide.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ "$(id -u)" = 0 ] || { echo "$NAME: network namespaces need root" >&2; exit 1; }
interop/setup.sh demo
if [ -z "${MARGAY_BIN:-}" ]; then
    interop/setup.sh build
    export PATH="$HOME/.cargo/bin:$PATH"
    echo "building margay (a few minutes the first time)"
    cargo build --quiet --locked --profile fast --bin margay
    MARGAY_BIN=$PWD/target/fast/margay
fi
[ -x "$MARGAY_BIN" ] || { echo "$NAME: $MARGAY_BIN is not a program" >&2; exit 1; }

P=$PREFIX$$
W=$(mktemp -d "/tmp/$P.XXXX")
start=$SECONDS
bold=; plain=; green=
if [ -t 1 ]; then bold=$'\e[1m'; green=$'\e[32m'; plain=$'\e[0m'; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
ok() { printf '  %sok%s  %s\n' "$green" "$plain" "$*"; }
die() {
    printf '\nFAILED: %s\n' "$*" >&2
    tail -n 15 "$W"/*.log >&2 || true
    exit 1
}
indent() { sed 's/^/      /'; }

cleanup() {
    local name pid
    trap - EXIT INT TERM
    exec 2> /dev/null       # otherwise the shell reports every process killed here
    for name in $(ip netns list | awk -v p="$P-" 'index($1, p) == 1 {print $1}'); do
        for pid in $(ip netns pids "$name"); do kill -KILL "$pid" || true; done
        ip netns del "$name" || true
    done
    wait || true
    rm -rf "$W"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

in_ns() { local name=$1; shift; ip netns exec "$P-$name" "$@"; }
margay() { local router=$1; shift; "$MARGAY_BIN" "$@" --socket "$W/$router.sock"; }

# Waits until a command succeeds and reports how long it took.
within() {
    local limit=$1 what=$2 begin=$SECONDS t0 t1
    shift 2
    t0=$(date +%s%N)
    until "$@" > /dev/null 2>&1; do
        [ $((SECONDS - begin)) -le "$limit" ] || die "not within $limit s: $what"
        sleep 0.05
    done
    t1=$(date +%s%N)
    ok "$what ($(((t1 - t0) / 1000000)) ms)"
}

new_ns() {
    ip netns add "$P-$1"
    in_ns "$1" sh -ec 'ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward'
}

# new_switch NAME: a bridge in a namespace of its own
new_switch() {
    new_ns "$1"
    ip -n "$P-$1" link add br0 type bridge
    ip -n "$P-$1" link set br0 up
}

# plug SWITCH NAME ADDRESS/24: a port on the switch
plug() {
    ip link add eth0 netns "$P-$2" type veth peer name "p-$2" netns "$P-$1"
    ip -n "$P-$1" link set "p-$2" master br0 up
    ip -n "$P-$2" addr add "$3" dev eth0
    ip -n "$P-$2" link set eth0 up
}

# launch NAME: margay with the configuration $W/NAME.toml. Its process id is in pids[NAME].
declare -A pids
launch() {
    "$MARGAY_BIN" check --config "$W/$1.toml" > /dev/null
    # Not through in_ns: the pid of a function in the background is a shell's, not margay's.
    ip netns exec "$P-$1" "$MARGAY_BIN" run --config "$W/$1.toml" >> "$W/$1.log" 2>&1 < /dev/null &
    pids[$1]=$!
}

established() { [ "$(margay "$1" show peers | grep -c Established)" = "$2" ]; }
