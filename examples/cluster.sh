#!/usr/bin/env bash
# A small Kubernetes-like network on this machine, with margay on every node.
#
#        outside 198.51.100.10
#              |
#        tor (BIRD 2, AS 65000, 10.0.0.254)
#     _________|_________ 10.0.0.0/24
#    |         |         |
#  node1     node2     node3     (margay, AS 64512, 10.0.0.N)
#    |         |         |
#  pod1      pod2      pod3      (10.65.N.10, from the node's own block 10.65.N.0/26)
#
# Every box is a network namespace. Installs what is missing (BIRD 2, iproute2, a compiler), builds
# margay unless MARGAY_BIN names a binary, runs for about fifteen seconds, and cleans up whatever
# happens. Exits 0 only if everything it shows is true.
NAME=cluster.sh PREFIX=mgdemo
# shellcheck source=examples/lab.sh
. "$(dirname "$0")/lab.sh"

# --- the network -----------------------------------------------------------------------------------

title "1. Three nodes, three pods, a top-of-rack router and a host outside"
new_switch fabric
new_ns tor
plug fabric tor 10.0.0.254/24
new_ns outside
ip link add eth0 netns "$P-outside" type veth peer name eth1 netns "$P-tor"
ip -n "$P-tor" addr add 198.51.100.1/24 dev eth1
ip -n "$P-tor" link set eth1 up
ip -n "$P-outside" addr add 198.51.100.10/24 dev eth0
ip -n "$P-outside" link set eth0 up
ip -n "$P-outside" route add default via 198.51.100.1
for i in 1 2 3; do
    new_ns "node$i"
    plug fabric "node$i" "10.0.0.$i/24"
    # A pod much as Calico does it: a /32 and a link-local gateway that is the node.
    new_ns "pod$i"
    ip link add eth0 netns "$P-pod$i" type veth peer name cali0 netns "$P-node$i"
    ip -n "$P-node$i" link set cali0 up
    ip -n "$P-node$i" addr add 169.254.1.1/32 dev cali0
    ip -n "$P-node$i" route add "10.65.$i.10/32" dev cali0 scope link
    ip -n "$P-pod$i" addr add "10.65.$i.10/32" dev eth0
    ip -n "$P-pod$i" link set eth0 up
    ip -n "$P-pod$i" route add 169.254.1.1 dev eth0 scope link
    ip -n "$P-pod$i" route add default via 169.254.1.1 dev eth0
done
ok "namespaces $P-node1 … $P-outside"

cat > "$W/tor.conf" << X
log stderr all;
router id 10.0.0.254;
protocol device { }
protocol direct { ipv4; interface "eth1"; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
template bgp node {
    local 10.0.0.254 as 65000;
    hold time 3;
    connect delay time 1; connect retry time 1; error wait time 1, 2;
    ipv4 { import all; export where source = RTS_DEVICE; };
}
protocol bgp node1 from node { neighbor 10.0.0.1 as 64512; }
protocol bgp node2 from node { neighbor 10.0.0.2 as 64512; }
protocol bgp node3 from node { neighbor 10.0.0.3 as 64512; }
X
in_ns tor bird -f -c "$W/tor.conf" -s "$W/tor.ctl" > "$W/tor.log" 2>&1 < /dev/null &

node_config() {
    local i=$1 j
    cat << X
[bgp]
asn = 64512
router-id = "10.0.0.$i"
listen = ["10.0.0.$i:179"]
hold-time = 3                  # short, so that the demo is: 90 is the default
connect-retry-time = 1
graceful-restart-time = 6      # the same: 120 is the default

[[bgp.peers]]
name = "tor"
address = "10.0.0.254"
remote-asn = 65000
import = "all"
export = "own-block"

[[originate]]                  # the node's block: a blackhole under the pods' own routes
prefix = "10.65.$i.0/26"

[[policy]]
name = "own-block"

[[policy.rules]]
name = "what this node originates"
match = { source = ["static"], prefixes = ["10.65.0.0/16 ge 26 le 26"] }
then = "accept"

[control]
socket = "$W/node$i.sock"
X
    for j in 1 2 3; do
        [ "$i" = "$j" ] || printf '\n[[bgp.peers]]\nname = "node%s"\naddress = "10.0.0.%s"\nremote-asn = 64512\n' "$j" "$j"
    done
}

start_node() {
    node_config "$1" > "$W/node$1.toml"
    launch "node$1"
}
for i in 1 2 3; do start_node "$i"; done

# Not through a pipe: grep -q ends early, which with pipefail looks like a failure of ip.
routes_of() { ip -n "$P-$1" route show proto bird; }
has_route() { grep -Eq "^$2 .*via $3 " <<< "$(routes_of "$1")"; }
lacks_route() { ! grep -q "^$2 " <<< "$(routes_of "$1")"; }

title "2. Sessions: a mesh between the nodes, and each with the router"
for i in 1 2 3; do within 15 "node$i has 3 sessions" established "node$i" 3; done
echo "      \$ margay show peers"
margay node1 show peers | indent

title "3. What the kernels have learned"
within 10 "node1 sends node2's block to node2" has_route node1 10.65.2.0/26 10.0.0.2
within 10 "node1 sends the outside to the router" has_route node1 198.51.100.0/24 10.0.0.254
within 10 "the router sends node3's block to node3" has_route tor 10.65.3.0/26 10.0.0.3
for i in 1 2 3; do
    echo "      node$i:"
    ip -n "$P-node$i" route show proto bird | indent
done

title "4. Pods talk"
# perl-base is on every Debian: no other listener is needed.
serve() {
    in_ns "$1" perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die $!;
        while (my $c = $s->accept) { print $c "hello from $ARGV[0] to ", $c->peerhost, "\n"; close $c }' \
        "$1" > "$W/$1.log" 2>&1 < /dev/null &
}
ask() { in_ns "$1" timeout 2 bash -c "exec 3<>/dev/tcp/$2/8080 && cat <&3"; }
talk() { # FROM ADDRESS NAME
    local answer
    answer=$(ask "$1" "$2") || die "$1 cannot reach $2"
    [[ $answer == "hello from $3 to "* ]] || die "$1 heard: $answer"
    ok "$1 → $2:8080: “$answer”"
}
listens() { grep -q ':8080 ' <<< "$(in_ns "$1" ss -Hltn)"; }
for host in pod1 pod2 pod3 outside; do serve $host; done
for host in pod1 pod2 pod3 outside; do within 10 "$host listens" listens $host; done
talk pod1 10.65.2.10 pod2
talk pod3 10.65.1.10 pod1
talk pod2 198.51.100.10 outside
talk outside 10.65.3.10 pod3

title "5. margay on node3 crashes (kill -9) and comes back"
kill -KILL "${pids[node3]}"
wait "${pids[node3]}" 2>/dev/null || true
ok "killed: its kernel routes stay, its neighbours keep its routes for up to 6 s"
talk pod1 10.65.3.10 pod3
start_node 3
within 15 "node3 has 3 sessions again" established node3 3
talk pod1 10.65.3.10 pod3
has_route node1 10.65.3.0/26 10.0.0.3 || die "node1 lost node3's block"

title "6. node3 loses its cable: only timers can notice"
ip -n "$P-fabric" link set p-node3 nomaster
within 15 "the router dropped node3's block after the hold time of 3 s" lacks_route tor 10.65.3.0/26
within 15 "node1 too, 6 s later: two margays agree that a restart may look like this (RFC 8538)" \
    lacks_route node1 10.65.3.0/26
margay node1 show peers | indent
ip -n "$P-fabric" link set p-node3 master br0
within 15 "cable back: node3 has 3 sessions" established node3 3
within 10 "and its block is back on node1" has_route node1 10.65.3.0/26 10.0.0.3

title "7. node2 is drained, and taken out of service: margay stop --drain"
marked() { grep -qF '(65535,0)' <<< "$(in_ns tor birdc -s "$W/tor.ctl" show route 10.65.2.0/26 all)"; }
margay node2 drain --reason "a new disk" | indent
within 5 "the router has node2's block with GRACEFUL_SHUTDOWN" marked
margay node1 show routes 10.65.2.0/26 | indent
talk pod1 10.65.2.10 pod2
margay node2 stop --drain --timeout 20s 2>&1 | indent
wait "${pids[node2]}" || die "margay on node2 ended with $?"
within 5 "node1 dropped node2's block" lacks_route node1 10.65.2.0/26
within 5 "node2's kernel has none of margay's routes left" lacks_route node2 10.65.1.0/26
talk pod1 10.65.3.10 pod3

title "Done in $((SECONDS - start)) s; everything is cleaned up."
