#!/usr/bin/env bash
# A router, a route reflector and a node are drained and taken away under traffic, which loses nothing.
#
#              edge (AS 65100, 198.51.100.10)
#             /    \
#        tor1        tor2        (AS 65000, 10.0.0.25N)
#     _____|__________|___________________ 10.0.0.0/24
#      |       |       |       |      |
#    node1   node2   node3    rr1    rr2  (AS 64512; rr1 and rr2 reflect between the nodes)
#
# margay runs in every box, a network namespace each. node1 has the address 10.65.1.10; node2 and node3
# both have the service 10.96.0.10. Builds margay unless MARGAY_BIN names a binary, runs for about
# twenty-five seconds, and cleans up whatever happens. Exits 0 only if everything it shows is true.
NAME=drain.sh PREFIX=mgdrain
# shellcheck source=examples/lab.sh
. "$(dirname "$0")/lab.sh"

# --- the network -----------------------------------------------------------------------------------

title "1. Two routers, two reflectors, three nodes and the edge"
new_switch rack
for i in 1 2 3; do new_ns "node$i"; plug rack "node$i" "10.0.0.$i/24"; done
for i in 1 2; do new_ns "rr$i"; plug rack "rr$i" "10.0.0.1$i/24"; done
new_ns edge
in_ns edge ip addr add 198.51.100.10/32 dev lo
for i in 1 2; do
    new_ns "tor$i"
    plug rack "tor$i" "10.0.0.25$i/24"
    ip link add "tor$i" netns "$P-edge" type veth peer name edge netns "$P-tor$i"
    ip -n "$P-edge" addr add "172.16.$i.10/24" dev "tor$i"
    ip -n "$P-edge" link set "tor$i" up
    ip -n "$P-tor$i" addr add "172.16.$i.1/24" dev edge
    ip -n "$P-tor$i" link set edge up
done
in_ns node1 ip addr add 10.65.1.10/32 dev lo
for i in 2 3; do in_ns node$i ip addr add 10.96.0.10/32 dev lo; done
ok "namespaces $P-node1 … $P-edge"

# speaker NAME ADDRESS AS ORIGINATED...: what all configurations begin with
speaker() {
    local name=$1 address=$2 asn=$3 prefix
    shift 3
    cat << X2
[bgp]
asn = $asn
router-id = "$address"
connect-retry-time = 1

[control]
socket = "$W/$name.sock"

[[policy]]
name = "own"

[[policy.rules]]
name = "what this speaker originates"
match = { source = ["static"] }
then = "accept"
X2
    for prefix; do printf '\n[[originate]]\nprefix = "%s"\nkind = "none"\n' "$prefix"; done
}

# peer NAME ADDRESS AS [KEY...]
peer() {
    printf '\n[[bgp.peers]]\nname = "%s"\naddress = "%s"\nremote-asn = %s\n' "$1" "$2" "$3"
    shift 3
    printf '%s\n' "$@"
}
external=('import = "all"' 'export = "all"')

{
    speaker edge 198.51.100.10 65100 198.51.100.10/32
    for i in 1 2; do peer "tor$i" "172.16.$i.1" 65000 'import = "all"' 'export = "own"'; done
} > "$W/edge.toml"
for i in 1 2; do
    {
        speaker "tor$i" "10.0.0.25$i" 65000
        peer edge "172.16.$i.10" 65100 "${external[@]}"
        for n in 1 2 3; do peer "node$n" "10.0.0.$n" 64512 "${external[@]}"; done
    } > "$W/tor$i.toml"
    {
        speaker "rr$i" "10.0.0.1$i" 64512
        for n in 1 2 3; do peer "node$n" "10.0.0.$n" 64512 'route-reflector-client = true'; done
    } > "$W/rr$i.toml"
done
for n in 1 2 3; do
    prefixes=("10.65.$n.0/26")
    [ $n = 1 ] || prefixes+=(10.96.0.10/32)
    {
        speaker "node$n" "10.0.0.$n" 64512 "${prefixes[@]}"
        for i in 1 2; do
            peer "tor$i" "10.0.0.25$i" 65000 'import = "all"' 'export = "own"'
            peer "rr$i" "10.0.0.1$i" 64512
        done
    } > "$W/node$n.toml"
done
all=(edge tor1 tor2 rr1 rr2 node1 node2 node3)
for name in "${all[@]}"; do launch "$name"; done

# Whether the kernel of a box has a route over these next hops, in any order, and no others.
over() {
    local box=$1 prefix=$2 hops
    shift 2
    hops=$(in_ns "$box" ip route show "$prefix" | grep -o 'via [0-9.]*' | cut -d' ' -f2 | sort | xargs)
    [ "$hops" = "$*" ]
}
within 15 "edge has 2 sessions" established edge 2
for i in 1 2; do within 15 "tor$i has 4 sessions" established "tor$i" 4; done
for n in 1 2 3; do within 15 "node$n has 4 sessions" established "node$n" 4; done
reaches() { in_ns "$1" ping -q -c 1 -W 1 -I "$2" "$3"; }
within 10 "edge reaches node1" reaches edge 198.51.100.10 10.65.1.10
within 10 "edge reaches the service" reaches edge 198.51.100.10 10.96.0.10
within 10 "node1 reaches the service" reaches node1 10.65.1.10 10.96.0.10

# --- the traffic -----------------------------------------------------------------------------------

title "2. Traffic: three pings every 5 ms, and a TCP stream that is echoed line by line"
pinging=()
pinger() { # FROM ADDRESS TO
    ip netns exec "$P-$1" ping -q -i 0.005 -W 1 -I "$2" "$3" > "$W/ping-$1-$3" 2>&1 &
    pinging+=($!)
}
pinger edge 198.51.100.10 10.65.1.10
pinger edge 198.51.100.10 10.96.0.10
pinger node1 10.65.1.10 10.96.0.10
# perl-base is on every Debian.
# shellcheck disable=SC2016
in_ns node1 perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(LocalAddr => "10.65.1.10", LocalPort => 7, Listen => 1, ReuseAddr => 1) or die $!;
    my $c = $s->accept or die $!;
    $c->autoflush(1);
    print $c $_ while <$c>' > "$W/echo.log" 2>&1 < /dev/null &
listens() { grep -q ':7 ' <<< "$(in_ns node1 ss -Hltn)"; }
within 10 "node1 listens" listens
# shellcheck disable=SC2016
ip netns exec "$P-edge" perl -MIO::Socket::INET -MTime::HiRes=time,sleep -e '
    my $stop; $SIG{INT} = sub { $stop = 1 };
    my $s = IO::Socket::INET->new(LocalAddr => "198.51.100.10", PeerAddr => "10.65.1.10", PeerPort => 7) or die $!;
    $s->autoflush(1);
    my ($n, $longest) = (0, 0);
    until ($stop) {
        my $began = time;
        print $s "line $n\n" or die $!;
        my $line = <$s>;
        die "after $n lines: ", defined $line ? $line : "closed" unless defined $line && $line eq "line $n\n";
        $n++;
        my $took = time - $began;
        $longest = $took if $took > $longest;
        sleep 0.005;
    }
    printf "%d %d\n", $n, $longest * 1000' > "$W/stream" 2> "$W/stream.log" < /dev/null &
stream=$!
sleep 1
ok "running"

# ended NAME: its daemon has ended, without an error; unplug NAME: now the box loses its link to the rack
ended() { wait "${pids[$1]}" || die "margay on $1 ended with $?"; }
unplug() { ip -n "$P-rack" link set "p-$1" down; }

title "3. tor1 is drained and taken away: margay stop --drain"
margay tor1 stop --drain --timeout 20s 2>&1 | indent
ended tor1
unplug tor1
ip -n "$P-tor1" link set edge down
within 5 "edge sends to node1 over tor2 alone" over edge 10.65.1.0/26 172.16.2.1
within 5 "node1 sends to the edge over tor2 alone" over node1 198.51.100.10 10.0.0.252

title "4. rr1 is drained and taken away"
margay rr1 stop --drain --timeout 20s 2>&1 | indent
ended rr1
unplug rr1
within 5 "node1 has lost one more session" established node1 2

title "5. node2 is drained, and taken away when nobody uses it any more"
margay node2 drain --reason "a new kernel" | indent
within 10 "node1 sends to the service on node3 alone" over node1 10.96.0.10 10.0.0.3
within 10 "tor2 too" over tor2 10.96.0.10 10.0.0.3
margay node2 stop --drain --timeout 20s 2>&1 | indent
ended node2
unplug node2
sleep 1

title "6. What the traffic noticed"
kill -0 "$stream" 2> /dev/null || die "the stream broke: $(cat "$W/stream.log")"
# ip(8) has become ping and perl: they print their summaries when interrupted.
kill -INT "$stream" "${pinging[@]}"
wait "$stream" || die "the stream broke: $(cat "$W/stream.log")"
wait "${pinging[@]}" || true
for file in "$W"/ping-*; do
    read -r sent received < <(awk '/packets transmitted/ { print $1, $4 }' "$file")
    [ "${sent:-0}" -gt 500 ] || die "only ${sent:-0} packets were sent: $(cat "$file")"
    # The last one may be on its way.
    [ $((sent - received)) -le 1 ] || die "$((sent - received)) of $sent packets were lost: ${file##*/}"
    ok "${file##*/}: $sent packets sent, none lost"
done
read -r lines longest < "$W/stream"
[ "$lines" -gt 200 ] || die "only $lines lines"
ok "TCP: $lines lines sent and echoed, the slowest in $longest ms"

printf '\nEverything above is true; %d s.\n' $((SECONDS - start))
