//! The peer table: which remote ends each BGPPeer names, for every node and for this one.
//!
//! Calico makes three passes over all BGPPeers: first those for every node, then those for some
//! nodes, then all of them in reverse (a node with which others peer peers back). Only entries for
//! this node matter here. They are computed for each BGPPeer independently of all others, and for
//! each remote node separately, so that a change recomputes one BGPPeer only, or one node of it.
//! Which of several entries for one neighbour takes effect is decided afterwards, in
//! [`super::resolver`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::types::Family;

use super::effective::{Effective, NodeFinder};
use super::model::{BgpPeer, Node};
use super::plan::{Problem, Session};
use super::sessions::{BGP_PORT, Entry, Origin, Scope, family_of, peer_session};

/// The entries of a BGPPeer for this node.
#[derive(Debug)]
pub(super) struct PeerEntries {
    /// The BGPPeer from which they were computed.
    peer: Arc<BgpPeer>,
    scope: Scope,
    /// This node is a remote end of the BGPPeer, so it peers back.
    is_reversed: bool,
    /// By name of the remote node; the empty name stands for remote ends named by address, and for
    /// local workloads.
    forward: BTreeMap<Arc<str>, Entries>,
    /// The entries with which this node peers back, by name of the other node.
    reverse: BTreeMap<Arc<str>, Entries>,
    problems: Vec<Problem>,
}

/// The entries of one remote end.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    pub(super) neighbors: Vec<Neighbor>,
    problems: Vec<Problem>,
}

/// The pass in which Calico makes an entry; of several for one neighbour, the one of the earliest
/// pass takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pass {
    /// For every node.
    Global,
    /// For this node.
    Own,
    /// For this node, in reverse.
    Reverse,
}

/// A remote end with its session.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    pub(super) scope: Scope,
    pub(super) addr: IpAddr,
    /// Entries with the same address and port compete.
    pub(super) port: u16,
    /// `None`: the neighbour is this node itself, or this node has no address of the family.
    pub(super) session: Option<Arc<Session>>,
    /// Gateway of a host route to the neighbour.
    pub(super) reachable_by: Option<IpAddr>,
}

/// Computes the entries of a BGPPeer for this node.
pub(super) fn entries<'a>(
    cx: &Effective<'a>,
    finder: &mut NodeFinder<'a>,
    peer: &'a Arc<BgpPeer>,
) -> PeerEntries {
    let scope = if peer.node.is_empty() && !peer.node_selector.is_given() {
        Scope::Global
    } else {
        Scope::Node
    };
    let mut out = PeerEntries {
        peer: Arc::clone(peer),
        scope,
        is_reversed: false,
        forward: BTreeMap::new(),
        reverse: BTreeMap::new(),
        problems: Vec::new(),
    };
    let Some(remote) = Remote::new(peer, &mut out.problems) else { return out };
    if out.concerns_me(cx) {
        if let Remote::Selected = remote {
            for node in finder.selected(&peer.peer_selector) {
                let part = node_part(cx, &remote, peer, scope, node);
                out.forward.insert(Arc::clone(&node.name), part);
            }
        } else {
            let mut part = Entries::default();
            for entry in remote.entries(cx, peer, scope) {
                push(cx, &remote, &entry, &mut part);
            }
            out.forward.insert(Arc::default(), part);
        }
    }
    out.is_reversed = remote.is_reversible(cx, peer);
    if out.is_reversed {
        for node in initiators(cx, finder, peer) {
            let part = node_part(cx, &remote, peer, Scope::Node, node);
            out.reverse.insert(Arc::clone(&node.name), part);
        }
    }
    out
}

/// The entries in which `node` is the remote end.
fn node_part(
    cx: &Effective<'_>,
    remote: &Remote<'_>,
    peer: &BgpPeer,
    scope: Scope,
    node: &Arc<Node>,
) -> Entries {
    let mut part = Entries::default();
    for entry in node_entries(cx, peer, scope, node, remote.families()) {
        push(cx, remote, &entry, &mut part);
    }
    part
}

/// How the entries of a BGPPeer depend on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependence {
    /// It may be one of the remote ends: recomputing its entries is enough.
    AsOne,
    /// The BGPPeer names its address: all entries are recomputed.
    Wholly,
}

impl PeerEntries {
    /// What a change of another node affects; `None`: nothing.
    pub(super) fn dependence_on(&self, node: &Node) -> Option<Dependence> {
        let peer = &*self.peer;
        let is_named = || {
            let host = split_port(&peer.peer_ip).map_or("", |(host, _)| host);
            [&node.ipv4, &node.ipv6].into_iter().flatten().any(|h| *h.text == *host)
        };
        if !peer.peer_ip.is_empty() && is_named() {
            return Some(Dependence::Wholly);
        }
        let is_one = (peer.peer_selector.is_given() && peer.peer_selector.selects(&node.labels))
            || (self.is_reversed && concerns_or_all(peer, node));
        is_one.then_some(Dependence::AsOne)
    }

    /// Recomputes the entries of one other node.
    pub(super) fn update_node(&mut self, cx: &Effective<'_>, name: &Arc<str>) {
        let peer = Arc::clone(&self.peer);
        let Some(remote) = Remote::new(&peer, &mut Vec::new()) else { return };
        let node = cx.snapshot.node(name);
        if matches!(remote, Remote::Selected) && self.concerns_me(cx) {
            let selected = node.filter(|n| peer.peer_selector.selects(&n.labels));
            match selected.map(|n| node_part(cx, &remote, &peer, self.scope, n)) {
                Some(part) => drop(self.forward.insert(Arc::clone(name), part)),
                None => drop(self.forward.remove(name)),
            }
        }
        if self.is_reversed {
            let initiator = node.filter(|n| concerns_or_all(&peer, n));
            match initiator.map(|n| node_part(cx, &remote, &peer, Scope::Node, n)) {
                Some(part) => drop(self.reverse.insert(Arc::clone(name), part)),
                None => drop(self.reverse.remove(name)),
            }
        }
    }

    fn concerns_me(&self, cx: &Effective<'_>) -> bool {
        self.scope == Scope::Global || concerns(&self.peer, cx.me)
    }

    /// The entries of a pass for a remote end.
    pub(super) fn part(&self, pass: Pass, node: &str) -> Option<&Entries> {
        match pass {
            Pass::Reverse => self.reverse.get(node),
            Pass::Global if self.scope == Scope::Global => self.forward.get(node),
            Pass::Own if self.scope == Scope::Node => self.forward.get(node),
            Pass::Global | Pass::Own => None,
        }
    }

    /// All entries, each with its pass and remote end.
    pub(super) fn parts(&self) -> impl Iterator<Item = (Pass, &Arc<str>, &Entries)> {
        let pass = match self.scope {
            Scope::Global => Pass::Global,
            Scope::Node => Pass::Own,
        };
        let forward = self.forward.iter().map(move |(node, part)| (pass, node, part));
        forward.chain(self.reverse.iter().map(|(node, part)| (Pass::Reverse, node, part)))
    }

    /// Problems of the BGPPeer and of single entries.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().chain(self.parts().flat_map(|(.., part)| &part.problems))
    }
}

/// Whether a BGPPeer that is not for every node is for `node`.
fn concerns(peer: &BgpPeer, node: &Node) -> bool {
    if peer.node_selector.is_given() {
        peer.node_selector.selects(&node.labels)
    } else {
        !peer.node.is_empty() && *peer.node == *node.name
    }
}

fn concerns_or_all(peer: &BgpPeer, node: &Node) -> bool {
    (peer.node.is_empty() && !peer.node_selector.is_given()) || concerns(peer, node)
}

/// How a BGPPeer names its remote ends.
enum Remote<'a> {
    Local,
    Selected,
    Address { addr: IpAddr, host: &'a str, port: u16, reachable_by: Option<IpAddr> },
}

impl<'a> Remote<'a> {
    /// `None`: the BGPPeer is skipped, and the reason is added to the problems.
    fn new(peer: &'a BgpPeer, problems: &mut Vec<Problem>) -> Option<Remote<'a>> {
        let object = format!("BGPPeer/{}", peer.name);
        let mut report = |text: String| problems.push(Problem::new(&object, text));
        for (field, selector) in
            [("nodeSelector", &peer.node_selector), ("peerSelector", &peer.peer_selector)]
        {
            if let Err(error) = &selector.parsed {
                report(format!("{field} cannot be parsed ({error}): it selects no node"));
            }
        }
        if !peer.local_workload_selector.is_empty() {
            return Some(Remote::Local);
        }
        if peer.peer_selector.is_given() {
            return Some(Remote::Selected);
        }
        if peer.peer_ip.is_empty() {
            report("none of peerIP, peerSelector and localWorkloadSelector is given: the peer is skipped".into());
            return None;
        }
        let parsed =
            split_port(&peer.peer_ip).and_then(|(host, port)| Some((address(host)?, host, port)));
        let Some((addr, host, port)) = parsed else {
            report(format!("peerIP: \"{}\" is not an address: the peer is skipped", peer.peer_ip));
            return None;
        };
        let reachable_by = match peer.reachable_by.as_str() {
            "" => None,
            text => match address(text) {
                Some(gateway) if family_of(gateway) == family_of(addr) => Some(gateway),
                _ => {
                    report(format!(
                        "reachableBy: \"{text}\" is not an address of the peer's family: the peer is skipped"
                    ));
                    return None;
                }
            },
        };
        Some(Remote::Address { addr, host, port, reachable_by })
    }

    fn families(&self) -> &'static [Family] {
        match self {
            Remote::Address { addr, .. } if addr.is_ipv4() => &[Family::Ipv4],
            Remote::Address { .. } => &[Family::Ipv6],
            Remote::Local | Remote::Selected => &Family::ALL,
        }
    }

    fn entries(&self, cx: &Effective<'a>, peer: &'a BgpPeer, scope: Scope) -> Vec<Entry<'a>> {
        match *self {
            Remote::Local => {
                let of_peer = cx.snapshot.endpoints.values().filter(|e| e.peer == peer.name);
                of_peer
                    .flat_map(|e| &e.addresses)
                    .map(|addr| Entry {
                        peer,
                        scope,
                        origin: Origin::Local,
                        addr: *addr,
                        port: 0,
                        asn: peer.asn,
                        cluster_id: "",
                        node: None,
                    })
                    .collect()
            }
            // Computed per node by [`node_part`].
            Remote::Selected => Vec::new(),
            Remote::Address { addr, host, port, .. } => {
                let port = match port {
                    0 => cx.nodes_at(host, peer.asn, 0).next().map_or(0, |node| cx.port_of(node)),
                    port => port,
                };
                let node = cx.snapshot.nodes_at(host).next();
                vec![Entry {
                    peer,
                    scope,
                    origin: Origin::Explicit { is_node: node.is_some() },
                    addr,
                    port,
                    asn: peer.asn,
                    cluster_id: "",
                    node: node.map(Arc::as_ref),
                }]
            }
        }
    }

    /// Whether this node is a remote end of the BGPPeer and therefore peers back.
    fn is_reversible(&self, cx: &Effective<'_>, peer: &BgpPeer) -> bool {
        if peer.reverse_peering == "Manual" {
            return false;
        }
        match *self {
            Remote::Local => false,
            Remote::Selected => peer.peer_selector.selects(&cx.me.labels),
            Remote::Address { host, port, .. } => {
                cx.nodes_at(host, peer.asn, port).any(|node| node.name == cx.me.name)
            }
        }
    }
}

/// Nodes to which a BGPPeer applies.
fn initiators<'a>(
    cx: &Effective<'a>,
    finder: &mut NodeFinder<'a>,
    peer: &BgpPeer,
) -> Vec<&'a Arc<Node>> {
    if peer.node_selector.is_given() {
        finder.selected(&peer.node_selector)
    } else if peer.node.is_empty() {
        cx.snapshot.nodes.values().collect()
    } else {
        cx.snapshot.node(&peer.node).into_iter().collect()
    }
}

/// The entries in which a node is the remote end: one per address.
fn node_entries<'a>(
    cx: &Effective<'a>,
    peer: &'a BgpPeer,
    scope: Scope,
    node: &'a Arc<Node>,
    families: &'static [Family],
) -> impl Iterator<Item = Entry<'a>> {
    let (port, asn) = (cx.port_of(node), cx.asn_of(node));
    families.iter().filter_map(|family| node.address(*family)).map(move |host| Entry {
        peer,
        scope,
        origin: Origin::Node,
        addr: host.addr,
        port,
        asn: Some(asn),
        cluster_id: &node.cluster_id,
        node: Some(node),
    })
}

/// Turns an entry into a neighbour, or reports why it is skipped.
fn push(cx: &Effective<'_>, remote: &Remote<'_>, entry: &Entry<'_>, part: &mut Entries) {
    let Entries { neighbors: list, problems } = part;
    let object = || format!("BGPPeer/{}", entry.peer.name);
    let Some(asn) = entry.asn.filter(|asn| asn.0 != 0) else {
        let text = match entry.origin {
            Origin::Node => format!("the AS number of {} is 0: it is skipped", entry.addr),
            Origin::Explicit { .. } | Origin::Local => {
                "asNumber is missing: the peer is skipped".to_owned()
            }
        };
        problems.push(Problem::new(object(), text));
        return;
    };
    let reachable_by = match (remote, entry.peer.reachable_by.as_str()) {
        (Remote::Address { reachable_by, .. }, _) => *reachable_by,
        (Remote::Local, _) | (Remote::Selected, "") => None,
        (Remote::Selected, text) => match address(text) {
            Some(gateway) if family_of(gateway) == family_of(entry.addr) => Some(gateway),
            _ => {
                let text = format!(
                    "reachableBy: \"{text}\" is not an address of the family of {}, which is skipped",
                    entry.addr
                );
                problems.push(Problem::new(object(), text));
                return;
            }
        },
    };
    let mine = cx.me.address(family_of(entry.addr));
    let session = mine
        .filter(|m| m.addr != entry.addr)
        .map(|_| Arc::new(peer_session(cx, entry, asn, problems)));
    list.push(Neighbor {
        scope: entry.scope,
        addr: entry.addr,
        port: if entry.port == 0 { BGP_PORT } else { entry.port },
        session,
        reachable_by,
    });
}

/// Whether a BGPPeer for this node alone names an address of this node, or one for every node does
/// so with a port on which this node does not listen. A BGPPeer for every node that names a
/// reflector intentionally has no effect on the reflector itself.
pub(super) fn is_own_address(cx: &Effective<'_>, peer: &BgpPeer) -> bool {
    let Some((host, port)) = split_port(&peer.peer_ip) else { return false };
    let Some(addr) = address(host) else { return false };
    let is_mine = cx.me.address(family_of(addr)).is_some_and(|mine| mine.addr == addr);
    let own_port = match cx.port_of(cx.me) {
        0 => BGP_PORT,
        port => port,
    };
    let is_global = peer.node.is_empty() && !peer.node_selector.is_given();
    is_mine && if is_global { port != 0 && port != own_port } else { concerns(peer, cx.me) }
}

/// Reads an address; as Go does, accepts an IPv4 address written as an IPv6 one
/// (`::ffff:10.0.0.1`).
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|addr| addr.to_canonical())
}

/// Splits `10.0.0.1`, `10.0.0.1:1790`, `fd00::1` and `[fd00::1]:1790`; the port is 0 if there is
/// none. As in Calico, brackets without a port are invalid.
fn split_port(text: &str) -> Option<(&str, u16)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, port_number(port)?));
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, port_number(port)?)),
        _ => Some((text, 0)),
    }
}

/// A port as Go parses numbers: also `0x6fe`, `0o3376` and `0b11`, and octal with a leading zero.
fn port_number(text: &str) -> Option<u16> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let is_plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_plain { u16::from_str_radix(digits, radix).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::split_port;

    #[test]
    fn ports_are_split_off_addresses() {
        assert_eq!(split_port("10.0.0.1"), Some(("10.0.0.1", 0)));
        assert_eq!(split_port("10.0.0.1:1790"), Some(("10.0.0.1", 1790)));
        assert_eq!(split_port("fd00::1"), Some(("fd00::1", 0)));
        assert_eq!(split_port("[fd00::1]:1790"), Some(("fd00::1", 1790)));
        assert_eq!(split_port("10.0.0.1:0x6fe"), Some(("10.0.0.1", 1790)));
        assert_eq!(split_port("10.0.0.1:0263"), Some(("10.0.0.1", 179)));
        assert_eq!(split_port("10.0.0.1:0"), Some(("10.0.0.1", 0)));
        for bad in [
            "10.0.0.1:",
            "10.0.0.1:x",
            "10.0.0.1:65536",
            "10.0.0.1:0179",
            "10.0.0.1:+179",
            "10.0.0.1:0x",
            "[fd00::1",
            "[fd00::1]",
            "[fd00::1]1",
        ] {
            assert_eq!(split_port(bad), None, "{bad}");
        }
    }
}
