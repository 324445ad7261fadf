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
NAME=fabric.sh PREFIX=mgfab
# shellcheck source=examples/lab.sh
. "$(dirname "$0")/lab.sh"

# router NAME NUMBER
router() {
    new_ns "$1"
    in_ns "$1" sh -ec "ip addr add 10.255.0.$2/32 dev lo; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
        echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy"
}

# link A B: an interface on each, named after the other end
link() {
    ip link add "to-$2" netns "$P-$1" type veth peer name "to-$1" netns "$P-$2"
    ip -n "$P-$1" link set "to-$2" up
    ip -n "$P-$2" link set "to-$1" up
}

# run NAME AS NUMBER PREFIX...
run() {
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
    launch "$name"
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
run spine1 65000 1
run spine2 65000 2
run leaf1 65011 3
run leaf2 65012 4
run node1 65101 5 10.1.1.0/24
run node2 65102 6 10.1.2.0/24
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
kill -KILL "${pids[spine2]}"
wait "${pids[spine2]}" 2> /dev/null || true
in_ns spine2 sh -ec 'ip link set to-leaf1 down; ip link set to-leaf2 down'
within 5 "leaf1 uses spine1 alone" spines 1
in_ns leaf1 ip route show 10.1.2.0/24 | indent
sleep 1

title "4. It returns"
in_ns spine2 sh -ec 'ip link set to-leaf1 up; ip link set to-leaf2 up'
run spine2 65000 2
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
