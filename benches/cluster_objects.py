#!/usr/bin/env python3
"""Prints the Calico objects of a cluster, for `margay calico simulate`.

    benches/cluster_objects.py --nodes 1000 mesh|reflectors|tors > cluster.json

IPv4, one pool without encapsulation, blocks of /26. `mesh`: the full mesh. `reflectors`: three nodes reflect, the others peer
with them. `tors`: racks of 40 nodes, each with an external peer.
"""

import argparse
import json
import sys

RACK = 40
REFLECTORS = 3


def resource(kind, name, spec, labels=None):
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


def block(number):
    return f"10.{64 + number // 1024}.{number // 4 % 256}.{number % 4 * 64}/26"


def objects(nodes, shape, blocks):
    yield resource("IPPool", "pods", {"cidr": "10.64.0.0/10", "ipipMode": "Never", "vxlanMode": "Never"})
    mesh = {"asNumber": 64512, "nodeToNodeMeshEnabled": shape == "mesh"}
    yield resource("BGPConfiguration", "default", mesh)
    for at in range(nodes):
        name = f"node-{at:04}"
        bgp = {"ipv4Address": f"10.1.{at // 250}.{at % 250 + 1}/16"}
        labels = {"rack": f"r{at // RACK}"}
        if shape == "reflectors" and at < REFLECTORS:
            bgp["routeReflectorClusterID"] = "244.0.0.1"
            labels["reflector"] = "yes"
        yield resource("Node", name, {"bgp": bgp}, labels)
        for n in range(blocks):
            affinity = {"cidr": block(at * blocks + n), "node": name, "state": "confirmed", "deleted": "false"}
            yield resource("BlockAffinity", f"{name}-{n}", affinity)
    if shape == "reflectors":
        yield resource("BGPPeer", "reflectors", {"nodeSelector": "all()", "peerSelector": "reflector == 'yes'"})
    if shape == "tors":
        for rack in range((nodes + RACK - 1) // RACK):
            peer = {
                "nodeSelector": f"rack == 'r{rack}'",
                "peerIP": f"192.0.2.{rack + 1}",
                "asNumber": 65001 + rack,
                "numAllowedLocalASNumbers": 2,
            }
            yield resource("BGPPeer", f"tor-{rack}", peer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=["mesh", "reflectors", "tors"])
    parser.add_argument("--nodes", type=int, default=1000, help="at most 10000 (default 1000)")
    parser.add_argument("--blocks", type=int, default=1, help="blocks of each node (default 1)")
    arguments = parser.parse_args()
    if arguments.nodes * arguments.blocks > 64 * 1024 or not 0 < arguments.nodes <= 10_000:
        parser.error("the pool has 65536 blocks, and there are at most 10000 nodes")
    items = list(objects(arguments.nodes, arguments.shape, arguments.blocks))
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout)


if __name__ == "__main__":
    main()
