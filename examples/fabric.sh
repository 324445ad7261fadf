#!/usr/bin/env bash
# A leaf-spine fabric on this machine, with margay on every router and no address on any link.
#
#    spine1 (AS 65000)   spine2 (AS 65000)
#      |    \             /    |
#      |      \         /      |
#      |        \     /        |
#    leaf1 (65011)    leaf2 (65012)
#      |                |
#    node1 (65101)    node2 (65102)
#    10.1.1.0/24      10.1.2.0/24
#
# Every box is a network namespace with one loopback address, 10.255.0.N; every line is a link with
# link-local addresses alone. Neighbours find each other by router advertisements. Builds margay unless
# MARGAY_BIN names a binary, runs for about fifteen seconds, and cleans up whatever happens. Exits 0 only
# if everything it shows is true.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "fabric.sh: network namespaces need root" >&2; exit 1; }
if [ -z "${MARGAY_BIN:-}" ]; then
    interop/setup.sh build
    export PATH="$HOME/.cargo/bin:$PATH"
    echo "building margay (a few minutes the first time)"
    cargo build --quiet --locked --profile fast --bin margay
    MARGAY_BIN=$PWD/target/fast/margay
fi
[ -x "$MARGAY_BIN" ] || { echo "fabric.sh: $MARGAY_BIN is not a program" >&2; exit 1; }
command -v ping > /dev/null || { echo "fabric.sh: ping is missing (apt-get install iputils-ping)" >&2; exit 1; }

# --- scaffolding -----------------------------------------------------------------------------------

P=mgfab$$                 # every namespace starts with this: two fabrics do not collide
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

# router NAME NUMBER
router() {
    ip netns add "$P-$1"
    in_ns "$1" sh -ec "ip link set lo up; ip addr add 10.255.0.$2/32 dev lo
        echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy"
}

# link A B: an interface on each, named after the other end
link() {
    ip link add "to-$2" netns "$P-$1" type veth peer name "to-$1" netns "$P-$2"
    ip -n "$P-$1" link set "to-$2" up
    ip -n "$P-$2" link set "to-$1" up
}

# start NAME AS NUMBER PREFIX...
launch() {
    local name=$1 asn=$2 number=$3 prefix
    shift 3
    {
        cat << X
[bgp]
asn = $asn
router-id = "10.255.0.$number"
connect-retry-time = 1
graceful-restart-time = 0      # a router that dies here is dead

[[bgp.peers]]
interface = "to-*"
router-advertisements = true
remote-asn = "external"
import = "all"
export = "all"

[control]
socket = "$W/$name.sock"
X
        for prefix in "10.255.0.$number/32" "$@"; do
            printf '\n[[originate]]\nprefix = "%s"\nkind = "none"\n' "$prefix"
        done
    } > "$W/$name.toml"
    "$MARGAY_BIN" check --config "$W/$name.toml" > /dev/null
    in_ns "$name" "$MARGAY_BIN" run --config "$W/$name.toml" > "$W/$name.log" 2>&1 < /dev/null &
    echo $! > "$W/$name.pid"
    disown
}

# Whether leaf1 reaches node2's prefix over this many spines.
spines() { [ "$(in_ns leaf1 ip route show 10.1.2.0/24 | grep -c 'via inet6 fe80::')" = "$1" ]; }
pings() { in_ns node1 ping -q -c 1 -W 1 -I 10.1.1.1 10.1.2.1; }

# --- the network -----------------------------------------------------------------------------------

title "1. Two spines, two leaves, two nodes: one loopback address each, none on the links"
number=0
for name in spine1 spine2 leaf1 leaf2 node1 node2; do
    number=$((number + 1))
    router $name $number
done
for leaf in leaf1 leaf2; do
    link spine1 $leaf
    link spine2 $leaf
done
link leaf1 node1
link leaf2 node2
in_ns node1 ip addr add 10.1.1.1/24 dev lo
# Several destinations, so that the leaves' hash spreads their flows over both spines.
for i in 1 2 3 4 5 6 7 8; do in_ns node2 ip addr add 10.1.2.$i/24 dev lo; done
for name in spine1 spine2 leaf1 leaf2 node1 node2; do
    addresses=$(in_ns $name ip -4 -o addr show | awk '$2 != "lo"')
    [ -z "$addresses" ] || die "$name has an address on a link: $addresses"
done
ok "namespaces $P-spine1 … $P-node2"

title "2. margay on each: neighbours by router advertisements"
launch spine1 65000 1
launch spine2 65000 2
launch leaf1 65011 3
launch leaf2 65012 4
launch node1 65101 5 10.1.1.0/24
launch node2 65102 6 10.1.2.0/24
within 20 "leaf1 has node2's prefix over both spines" spines 2
within 10 "node1 reaches node2" pings
margay leaf1 show peers | indent
in_ns leaf1 ip route show 10.1.2.0/24 | indent

title "3. spine2 dies: its process and its links at once"
pinging=()
for i in 1 2 3 4 5 6 7 8; do
    ip netns exec "$P-node1" ping -q -i 0.02 -W 1 -I 10.1.1.1 10.1.2.$i > "$W/ping$i" 2>&1 &
    pinging+=($!)
done
sleep 0.5
kill -KILL "$(cat "$W/spine2.pid")"
in_ns spine2 sh -ec 'ip link set to-leaf1 down; ip link set to-leaf2 down'
within 5 "leaf1 uses spine1 alone" spines 1
in_ns leaf1 ip route show 10.1.2.0/24 | indent
sleep 1

title "4. It returns"
in_ns spine2 sh -ec 'ip link set to-leaf1 up; ip link set to-leaf2 up'
launch spine2 65000 2
within 20 "leaf1 uses both spines again" spines 2
in_ns leaf1 ip route show 10.1.2.0/24 | indent
sleep 0.5
# ip(8) has become ping: it prints its summary when it is interrupted.
kill -INT "${pinging[@]}"
wait "${pinging[@]}" || true
read -r sent received < <(awk '/packets transmitted/ { s += $1; r += $4 } END { print s + 0, r + 0 }' "$W"/ping?)
[ "$sent" -gt 500 ] || die "only $sent packets were sent"
# A second of each flow, one packet every 20 ms, is far more than a death and a return cost here.
[ $((sent - received)) -lt 400 ] || die "$((sent - received)) of $sent packets were lost"
ok "node1 reached node2 over 8 flows all the while, but for $((sent - received)) of $sent packets"

printf '\nEverything above is true; %d s.\n' $((SECONDS - start))
