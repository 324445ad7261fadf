//! Random object sets by a number: nodes, pools, filters, peers and reflectors, as a cluster's
//! administrator would apply them.

use std::fmt::Write as _;

use super::golden::Node;
use crate::random::Random;

/// The name of the node under test.
pub(super) const NODE: &str = "own";

/// Encapsulations of pools.
const MODES: [&str; 5] = [
    "ipipMode: Never",
    "ipipMode: CrossSubnet",
    "ipipMode: Always",
    "vxlanMode: Always",
    "vxlanMode: CrossSubnet",
];

/// Prefixes in filters and advertisements: pools, what neighbours announce, everything.
const NETWORKS_V4: [&str; 6] = [
    "10.65.0.0/16",
    "10.65.1.64/26",
    "203.0.113.0/24",
    "198.51.100.0/24",
    "10.66.0.0/16",
    "0.0.0.0/0",
];
const NETWORKS_V6: [&str; 3] = ["fd00:65::/48", "2001:db8:113::/48", "::/0"];

/// The random choices for an object set.
#[derive(Debug)]
pub(super) struct Dice(Random);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(Random::new(seed))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.bits() % bound
    }

    /// True in `share` of a hundred cases.
    pub(super) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.below(of.len() as u64)).unwrap_or_default();
        of.get(at).copied().unwrap_or_default()
    }
}

/// A cluster's objects.
#[derive(Debug, Default)]
pub(super) struct ObjectSet {
    /// As `calicoctl apply` takes them.
    pub(super) yaml: String,
    /// Keys and values of the node's blocks.
    pub(super) affinities: Vec<(String, String)>,
    pub(super) nodes: Vec<Node>,
    pub(super) pools: Vec<String>,
}

impl ObjectSet {
    /// The set of that number, with these further lines in BGPConfiguration's `spec`.
    pub(super) fn new(number: u8, ranges: &str) -> ObjectSet {
        let mut dice = Dice::new(u64::from(number));
        let mut set = ObjectSet::default();
        let is_dual = dice.percent(50);
        let has_reflector = dice.percent(40);
        set.add_configuration(&mut dice, has_reflector, ranges);
        set.add_pools(&mut dice, is_dual);
        set.add_nodes(&mut dice, number, is_dual, has_reflector);
        let filters = set.add_filters(&mut dice);
        set.add_peers(&mut dice, number, is_dual, has_reflector, &filters);
        set
    }

    fn add(&mut self, kind: &str, name: &str, labels: &str, spec: &str) {
        let _ = write!(
            self.yaml,
            "---\nkind: {kind}\napiVersion: projectcalico.org/v3\nmetadata:\n  name: {name}\n\
             {labels}spec:\n{spec}"
        );
    }

    fn add_configuration(&mut self, dice: &mut Dice, has_reflector: bool, ranges: &str) {
        let asn = dice.pick(&["64512", "65001", "4200000001"]);
        let mesh = !has_reflector || dice.percent(30);
        let mut spec = format!("  asNumber: {asn}\n  nodeToNodeMeshEnabled: {mesh}\n");
        if dice.percent(50) {
            let network = dice.pick(&NETWORKS_V4[..2]);
            let _ = write!(
                spec,
                "  communities:\n  - name: tor\n    value: \"65000:7\"\n  - name: large\n    \
                 value: \"65000:1:2\"\n  prefixAdvertisements:\n  - cidr: {network}\n    \
                 communities: [tor, large, \"65000:99\"]\n"
            );
        }
        spec.push_str(ranges);
        self.add("BGPConfiguration", "default", "", &spec);
    }

    fn add_pools(&mut self, dice: &mut Dice, is_dual: bool) {
        let mut pool = |name: &str, cidr: &str, mode: &str, rest: &str| {
            self.add("IPPool", name, "", &format!("  cidr: {cidr}\n  {mode}\n{rest}"));
            self.pools.push(cidr.to_owned());
        };
        pool("pods", super::POOL, dice.pick(&MODES), "");
        if dice.percent(40) {
            let rest = dice.pick(&["", "  disabled: true\n", "  disableBGPExport: true\n"]);
            pool("more", "10.66.0.0/16", dice.pick(&MODES), rest);
        }
        if is_dual {
            let rest = dice.pick(&["", "", "  disableBGPExport: true\n"]);
            let mode = dice.pick(&["vxlanMode: Never", "vxlanMode: Always"]);
            pool("pods6", "fd00:65::/48", mode, rest);
        }
    }

    fn add_nodes(&mut self, dice: &mut Dice, number: u8, is_dual: bool, has_reflector: bool) {
        // The node has the lowest address in some sets, and the highest in the others.
        let own = if dice.percent(50) { 2 } else { 90 };
        let others = 1 + dice.below(4);
        let mut has_asn = false;
        for at in 0..=others {
            let (name, last) = match at {
                0 => (NODE.to_owned(), own),
                _ => (format!("node-{at}"), 2 + at),
            };
            let mut labels = format!("  labels:\n    rack: {}\n", dice.pick(&["a", "b"]));
            let asn = dice.percent(15).then_some(65010 + at);
            has_asn |= at == 0 && asn.is_some();
            // Another subnet makes a difference for CrossSubnet. BIRD of this release reaches nodes
            // with other AS numbers over one hop only.
            let is_afar = at > 0 && !has_asn && asn.is_none() && dice.percent(30);
            let subnet = if is_afar { 193 } else { 192 };
            let mut networks = vec![format!("10.{subnet}.{number}.{last}/24")];
            let mut spec = format!("  bgp:\n    ipv4Address: {}\n", networks[0]);
            if is_dual {
                networks.push(format!("fd00:192:{number:x}::{last:x}/64"));
                let _ = writeln!(spec, "    ipv6Address: {}", networks[1]);
            }
            if let Some(asn) = asn {
                let _ = writeln!(spec, "    asNumber: {asn}");
            }
            if has_reflector && (at == 1 || at == 0 && dice.percent(30)) {
                labels.push_str("    role: reflector\n");
                spec.push_str("    routeReflectorClusterID: 244.0.0.1\n");
            }
            self.add("Node", &name, &labels, &spec);
            self.nodes.push(Node { name, networks });
        }
        let mut block = |family: &str, block: &str| {
            self.affinities.push((
                format!("/calico/ipam/v2/host/{NODE}/{family}/block/{block}"),
                "{\"state\":\"confirmed\"}".to_owned(),
            ));
        };
        for at in 1..=dice.below(3) {
            block("ipv4", &format!("10.65.{at}.64-26"));
        }
        if is_dual && dice.percent(60) {
            block("ipv6", "fd00:65::1:40-122");
        }
    }

    /// Adds filters, and returns their names.
    fn add_filters(&mut self, dice: &mut Dice) -> Vec<String> {
        let mut names = Vec::new();
        for at in 0..dice.below(3) {
            let mut spec = String::new();
            for (direction, networks) in [
                ("exportV4", &NETWORKS_V4[..]),
                ("importV4", &NETWORKS_V4[..]),
                ("exportV6", &NETWORKS_V6[..]),
                ("importV6", &NETWORKS_V6[..]),
            ] {
                let rules = dice.below(4);
                if rules > 0 {
                    let _ = writeln!(spec, "  {direction}:");
                }
                for _ in 0..rules {
                    let action = dice.pick(&["Accept", "Reject"]);
                    let _ = writeln!(spec, "  - action: {action}");
                    if dice.percent(80) {
                        let operator = dice.pick(&["Equal", "NotEqual", "In", "NotIn"]);
                        let network = dice.pick(networks);
                        let _ =
                            writeln!(spec, "    cidr: {network}\n    matchOperator: {operator}");
                    }
                    if dice.percent(25) {
                        spec.push_str("    source: RemotePeers\n");
                    }
                    if dice.percent(25) {
                        let interface = dice.pick(&["\"*\"", "cali1", "eth0", "\"cali*\""]);
                        let _ = writeln!(spec, "    interface: {interface}");
                    }
                }
            }
            if !spec.is_empty() {
                let name = format!("filter-{at}");
                self.add("BGPFilter", &name, "", &spec);
                names.push(name);
            }
        }
        names
    }

    fn add_peers(
        &mut self,
        dice: &mut Dice,
        number: u8,
        is_dual: bool,
        has_reflector: bool,
        filters: &[String],
    ) {
        let mut peers = Vec::new();
        if has_reflector {
            peers.push((
                "reflectors",
                "  nodeSelector: all()\n  peerSelector: role == 'reflector'\n".to_owned(),
            ));
        }
        let scope = dice.pick(&["", "  node: own\n", "  nodeSelector: rack == 'a'\n"]);
        if dice.percent(70) {
            let port = dice.pick(&["", "", ":1790"]);
            let address = format!("10.192.{number}.200{port}");
            let asn = dice.pick(&["65101", "65001", "64512"]);
            peers.push(("tor", format!("{scope}  peerIP: {address}\n  asNumber: {asn}\n")));
        }
        if is_dual && dice.percent(60) {
            let address = format!("fd00:192:{number:x}::200");
            peers.push(("tor6", format!("{scope}  peerIP: {address}\n  asNumber: 65102\n")));
        }
        for (name, mut spec) in peers {
            for (share, line) in [
                (20, "  keepOriginalNextHop: true\n"),
                (15, "  sourceAddress: None\n"),
                (20, "  numAllowedLocalASNumbers: 2\n"),
                (20, "  maxRestartTime: 60s\n"),
            ] {
                if dice.percent(share) {
                    spec.push_str(line);
                }
            }
            if name != "reflectors" && dice.percent(20) {
                spec.push_str("  ttlSecurity: 1\n");
            }
            if !filters.is_empty() && dice.percent(80) {
                let _ = writeln!(spec, "  filters: [{}]", filters.join(", "));
            }
            self.add("BGPPeer", name, "", &spec);
        }
    }
}
