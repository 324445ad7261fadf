#!/usr/bin/env bash
# How long a neighbour's route stays in the kernel after the neighbour fails, by kind of failure.
#
#   interop/dead-node.sh [DAEMON...]     margay, margay-calico, margay-bfd, bird16, frr; default: all
#
# Needs root, the daemons (see setup.sh) and a built margay (MARGAY_BIN). Every combination runs at
# once, in namespaces of its own, so that a run takes as long as the slowest: about seven minutes
# (at most LIMIT seconds, 600 by default). Both ends run the same daemon with its defaults. Prints a
# table in Markdown.
set -euo pipefail
cd "$(dirname "$0")/.."
MARGAY=${MARGAY_BIN:-target/fast/margay}
MARGAY=$(realpath "$MARGAY")
BIRD16=${BIRD16_DIR:-/opt/interop/bird16/usr/sbin}
LIMIT=${LIMIT:-600}
ROUTE=203.0.113.0/24
daemons=("$@")
[ ${#daemons[@]} -gt 0 ] || daemons=(margay margay-calico margay-bfd bird16 frr)
deaths=(killed frozen powered-off link-down switch-down one-way)
id=dn$$
work=$(mktemp -d "/tmp/$id.XXXX")
chmod 755 "$work"

finish() {
    local ns pid
    for ns in $(ip netns list | awk -v id="$id" 'index($1, id) == 1 { print $1 }'); do
        for pid in $(ip netns pids "$ns"); do kill -KILL "$pid" 2>/dev/null || true; done
        ip netns del "$ns"
    done
    rm -rf "$work"
}
trap finish EXIT

# lab NAME: two namespaces NAME-a and NAME-b on the bridge of NAME-s.
lab() {
    local name=$1 n=1 end
    ip netns add "$name-s"
    ip -n "$name-s" link add br0 type bridge
    ip -n "$name-s" link set br0 up
    for end in a b; do
        ip netns add "$name-$end"
        ip -n "$name-$end" link set lo up
        ip link add eth0 netns "$name-$end" type veth peer name "p$end" netns "$name-s"
        ip -n "$name-s" link set "p$end" master br0 up
        ip -n "$name-$end" addr add "10.99.0.$n/24" dev eth0
        ip -n "$name-$end" link set eth0 up
        n=$((n + 1))
    done
}

# start NAME END OWN OTHER AS OTHER-AS: the daemon KIND at one end; b announces the route.
start() {
    local name=$1 end=$2 own=$3 other=$4 as=$5 other_as=$6 kind=$7 ns=$1-$2 dir=$work/$1-$2
    mkdir -p "$dir"
    chmod 777 "$dir"
    case $kind in
        margay*)
            local more=""
            case $kind in
                margay-calico) more=$'hold-time = 240\nstale-on-hold-expiry = false' ;;
                margay-bfd) more="bfd = true" ;;
            esac
            {
                printf '[bgp]\nasn = %s\nrouter-id = "%s"\n' "$as" "$own"
                printf '[[bgp.peers]]\naddress = "%s"\nremote-asn = %s\nimport = "all"\nexport = "all"\n%s\n' "$other" "$other_as" "$more"
                [ "$end" = a ] || printf '[[originate]]\nprefix = "%s"\n' "$ROUTE"
                printf '[control]\nsocket = "%s/s"\n' "$dir"
            } >"$dir/conf"
            ip netns exec "$ns" "$MARGAY" run --config "$dir/conf" >"$dir/log" 2>&1 &
            ;;
        bird16)
            {
                echo "router id $own; protocol device { scan time 2; } protocol kernel { export all; scan time 10; }"
                [ "$end" = a ] || echo "protocol static { route $ROUTE blackhole; }"
                echo "protocol bgp n { local $own as $as; neighbor $other as $other_as; direct; import all; export all; }"
            } >"$dir/conf"
            ip netns exec "$ns" "$BIRD16/bird" -f -c "$dir/conf" -s "$dir/s" >"$dir/log" 2>&1 &
            ;;
        frr)
            echo "hostname z" >"$dir/zebra.conf"
            {
                printf 'router bgp %s\n bgp router-id %s\n no bgp ebgp-requires-policy\n no bgp network import-check\n' "$as" "$own"
                printf ' neighbor %s remote-as %s\n' "$other" "$other_as"
                [ "$end" = a ] || printf ' address-family ipv4 unicast\n  network %s\n exit-address-family\n' "$ROUTE"
            } >"$dir/bgpd.conf"
            chown -R frr:frr "$dir"
            ip netns exec "$ns" /usr/lib/frr/zebra -z "$dir/zserv" --vty_socket "$dir" -P 0 -f "$dir/zebra.conf" -i "$dir/z.pid" --log stdout >"$dir/log" 2>&1 &
            sleep 2
            ip netns exec "$ns" /usr/lib/frr/bgpd -z "$dir/zserv" --vty_socket "$dir" -P 0 -f "$dir/bgpd.conf" -i "$dir/b.pid" --log stdout >"$dir/log2" 2>&1 &
            ;;
    esac
}

has_route() { [ -n "$(ip -n "$1-a" route show "$ROUTE" 2>/dev/null)" ]; }

# Like `has_route`, and the kernel would use it.
forwards() {
    local shown
    shown=$(ip -n "$1-a" route show "$ROUTE" 2>/dev/null)
    [ -n "$shown" ] && [[ $shown != *dead* && $shown != *linkdown* ]]
}

die() {
    local name=$1 death=$2 pid
    case $death in
        killed) for pid in $(ip netns pids "$name-b"); do kill -KILL "$pid"; done ;;
        frozen) for pid in $(ip netns pids "$name-b"); do kill -STOP "$pid"; done ;;
        # Behind a switch: this end's link keeps its carrier.
        powered-off) ip -n "$name-s" link set pb nomaster ;;
        link-down) ip -n "$name-s" link set pa down ;;
        # Both links keep their carrier, and nothing is forwarded.
        switch-down) ip -n "$name-s" link set br0 down ;;
        # What the neighbour sends is lost; it still receives. A route would not do: BIRD's sockets pass
        # it by (SO_DONTROUTE).
        one-way)
            ip -n "$name-b" neigh replace 10.99.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
            ;;
    esac
}

measure() {
    local kind=$1 death=$2 name="$id-$3" out=$work/result-$1-$2 began now
    lab "$name"
    start "$name" b 10.99.0.2 10.99.0.1 65002 65001 "$kind"
    start "$name" a 10.99.0.1 10.99.0.2 65001 65002 "$kind"
    local end=$((SECONDS + 120))
    until has_route "$name"; do
        [ $SECONDS -lt $end ] || { echo "no route" >"$out"; return; }
        sleep 0.2
    done
    # Until BFD is up, and KEEPALIVEs have been exchanged.
    sleep 8
    began=$(date +%s.%N)
    die "$name" "$death"
    end=$((SECONDS + LIMIT))
    while forwards "$name"; do
        [ $SECONDS -lt $end ] || { echo "> $LIMIT s" >"$out"; return; }
        # Thirty of these would slow down what they measure.
        sleep "$([ "$SECONDS" -lt $((end - LIMIT + 6)) ] && echo 0.1 || echo 0.5)"
    done
    now=$(date +%s.%N)
    awk -v a="$began" -v b="$now" 'BEGIN { t = b - a; if (t < 10) printf "%.1f s\n", t; else printf "%.0f s\n", t }' >"$out"
}

n=0
jobs=()
for kind in "${daemons[@]}"; do
    for death in "${deaths[@]}"; do
        n=$((n + 1))
        measure "$kind" "$death" "$n" &
        jobs+=($!)
    done
done
wait "${jobs[@]}" || true
printf '| |'; printf ' %s |' "${daemons[@]}"; echo
printf '|---|'; for _ in "${daemons[@]}"; do printf -- '---|'; done; echo
for death in "${deaths[@]}"; do
    printf '| %s |' "$death"
    for kind in "${daemons[@]}"; do printf ' %s |' "$(cat "$work/result-$kind-$death" 2>/dev/null || echo '?')"; done
    echo
done
