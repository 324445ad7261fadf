//! Sessions: names and parameters, from the mesh and from entries of the peer table.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::types::{Asn, ClusterId, Family};

use super::effective::Effective;
use super::model::{BgpPeer, Node};
use super::plan::{NextHop, Problem, Session, SessionKind};
use super::release::Feature;

/// Restart Time that BIRD advertises by default, in seconds.
const RESTART_TIME_DEFAULT: u64 = 120;

/// The port for which 0 stands.
pub(super) const BGP_PORT: u16 = 179;

/// The nodes for which an entry of the peer table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Every node.
    Global,
    /// This node.
    Node,
}

/// How a BGPPeer names a remote end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// By `peerIP`.
    Explicit {
        /// Whether the address, as written, is that of a node.
        is_node: bool,
    },
    /// By a selector, or in reverse.
    Node,
    /// As a local workload.
    Local,
}

/// A remote end that a BGPPeer names.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) peer: &'a BgpPeer,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    pub(super) addr: IpAddr,
    /// 0: not given.
    pub(super) port: u16,
    pub(super) asn: Option<Asn>,
    /// Cluster id of the remote node; empty: none, or unknown.
    pub(super) cluster_id: &'a str,
    /// The remote node, if it is one.
    pub(super) node: Option<&'a Node>,
}

/// The family of an address.
pub(super) fn family_of(addr: IpAddr) -> Family {
    if addr.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
}

/// The name of BIRD's protocol: `Mesh_10_0_0_1`, `Global_fd00__1_port_1790`.
fn name(prefix: &str, addr: &str, port: u16) -> Arc<str> {
    let mut name = String::with_capacity(prefix.len() + addr.len() + 11);
    name.push_str(prefix);
    name.extend(addr.chars().map(|c| if matches!(c, '.' | ':') { '_' } else { c }));
    if port > 0 {
        name.push_str("_port_");
        name.push_str(&port.to_string());
    }
    name.into()
}

/// The beginning of a session's name as a number that sorts the same way: the first letter, which
/// identifies the kind, then up to fifteen octets of what follows the prefix.
fn sort_key(prefix: &str, name: &str) -> u128 {
    let mut octets = [0; 16];
    let rest = name.get(prefix.len()..).unwrap_or_default();
    let text = prefix.bytes().take(1).chain(rest.bytes());
    octets.iter_mut().zip(text).for_each(|(octet, byte)| *octet = byte);
    u128::from_be_bytes(octets)
}

/// The session of the mesh with another node; `None`: the two are not in one mesh, or an address is
/// missing.
pub(super) fn mesh_session(
    cx: &Effective<'_>,
    node: &Node,
    family: Family,
    problems: &mut Vec<Problem>,
) -> Option<Session> {
    if cx.me.is_reflector()
        || node.is_reflector()
        || cx.global.node_to_node_mesh_enabled == Some(false)
    {
        return None;
    }
    let (mine, theirs) = (cx.me.address(family)?, node.address(family)?);
    if mine.addr == theirs.addr || node.name == cx.me.name {
        return None;
    }
    let remote_asn = node.asn.unwrap_or(if cx.release.has(Feature::MeshInOwnAs) {
        cx.asn
    } else {
        cx.global_asn
    });
    let object = format!("Node/{}", node.name);
    if remote_asn.0 == 0 {
        problems.push(Problem::new(&object, "asNumber is 0: there is no session to the node"));
        return None;
    }
    let (password, key) = match &cx.global.node_mesh_password {
        None => (None, None),
        Some(reference) => {
            let object = "BGPConfiguration/default";
            let (password, key) = cx.password(reference, object, problems);
            (Some(password), key)
        }
    };
    let name = name("Mesh_", &theirs.text, 0);
    Some(Session {
        sort_key: sort_key("Mesh_", &name),
        name,
        kind: SessionKind::Mesh,
        object: object.into(),
        neighbor: theirs.addr,
        port: port_or_default(cx.port_of(node)),
        remote_asn,
        local_asn: cx.asn,
        internal: remote_asn == cx.asn,
        source_address: Some(mine.addr),
        // As in confd, one end of each pair is passive, and addresses are compared as text.
        passive: theirs.text > mine.text,
        ttl_security: None,
        password,
        route_reflector_client: false,
        cluster_id: None,
        vantage: cx.vantage_of(node),
        next_hop: NextHop::Auto,
        allow_local_asn: 0,
        graceful_restart_time: cx
            .global
            .node_mesh_max_restart_time
            .map_or(RESTART_TIME_DEFAULT, |t| t.as_secs()),
        keepalive_time: None,
        filters: Vec::new(),
        key,
    })
}

/// The session of an entry of the peer table. The entry must not be this node itself, and its AS
/// must be known.
pub(super) fn peer_session(
    cx: &Effective<'_>,
    entry: &Entry<'_>,
    remote_asn: Asn,
    problems: &mut Vec<Problem>,
) -> Session {
    let peer = entry.peer;
    let family = family_of(entry.addr);
    let mine = cx.me.address(family);
    let (is_explicit, is_node) = match entry.origin {
        Origin::Explicit { is_node } => (true, is_node),
        Origin::Node | Origin::Local => (false, false),
    };
    let is_local = entry.origin == Origin::Local;
    let local_asn = match entry.origin {
        Origin::Explicit { .. } | Origin::Local => peer.local_asn.filter(|a| a.0 != 0),
        Origin::Node => None,
    }
    .unwrap_or(cx.asn);
    let internal = remote_asn == local_asn;
    let text = entry.addr.to_string();
    let (kind, prefix) = match (entry.origin, entry.scope) {
        (Origin::Local, _) => (SessionKind::LocalWorkload, "Local_Workload_"),
        (_, Scope::Global) => (SessionKind::Global, "Global_"),
        (_, Scope::Node) => (SessionKind::Node, "Node_"),
    };
    // Reflectors of the same cluster are ordinary internal peers.
    let is_client = internal && cx.me.is_reflector() && entry.cluster_id != &*cx.me.cluster_id;
    let uses_node_address = !is_local && matches!(peer.source_address.as_str(), "" | "UseNodeIP");
    let object = format!("BGPPeer/{}", peer.name);
    let (password, key) = match &peer.password {
        Some(reference) if !is_local => {
            let (password, key) = cx.password(reference, &object, problems);
            (Some(password), key)
        }
        _ => (None, None),
    };
    let unless_local = |time: Option<Duration>| time.filter(|_| !is_local).map(|t| t.as_secs());
    let sorts_after_us = mine.is_some_and(|m| *text > *m.text);
    let name = name(prefix, &text, entry.port);
    Session {
        sort_key: sort_key(prefix, &name),
        name,
        kind,
        object: object.into(),
        neighbor: entry.addr,
        port: port_or_default(entry.port),
        remote_asn,
        local_asn,
        internal,
        source_address: mine.filter(|_| uses_node_address).map(|m| m.addr),
        passive: is_local || (entry.scope == Scope::Global && is_node && sorts_after_us),
        ttl_security: peer.ttl_security.filter(|hops| *hops > 0 && !is_local),
        password,
        route_reflector_client: is_client,
        cluster_id: if is_client { cluster_id(cx, problems) } else { None },
        vantage: entry.node.and_then(|node| cx.vantage_of(node)),
        next_hop: if is_local { NextHop::Auto } else { next_hop(peer, internal) },
        allow_local_asn: match peer.allowed_local_asns {
            Some(count) if is_explicit => u8::try_from(count.clamp(0, 255)).unwrap_or(u8::MAX),
            _ => 0,
        },
        graceful_restart_time: unless_local(peer.max_restart_time).unwrap_or(RESTART_TIME_DEFAULT),
        keepalive_time: unless_local(peer.keepalive_time),
        filters: cx.filters(&peer.filters, family),
        key,
    }
}

fn port_or_default(port: u16) -> u16 {
    if port == 0 { BGP_PORT } else { port }
}

/// If `nextHopMode` is set, whatever its value, the older `keepOriginalNextHop` is ignored.
fn next_hop(peer: &BgpPeer, internal: bool) -> NextHop {
    match peer.next_hop_mode.as_deref() {
        Some("Keep") => NextHop::Keep,
        Some("Self") => NextHop::SelfAddress,
        None if peer.keep_original_next_hop && !internal => NextHop::Keep,
        _ => NextHop::Auto,
    }
}

fn cluster_id(cx: &Effective<'_>, problems: &mut Vec<Problem>) -> Option<ClusterId> {
    let parsed = cx.me.cluster_id.parse().ok();
    if parsed.is_none() {
        let text = format!(
            "routeReflectorClusterID: \"{}\" is not written like an IPv4 address: the BGP Identifier is used",
            cx.me.cluster_id
        );
        problems.push(Problem::new(format!("Node/{}", cx.me.name), text));
    }
    parsed
}
