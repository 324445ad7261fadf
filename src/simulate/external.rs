//! Neighbours outside of the cluster: ToRs, and route reflectors that are no nodes. What they do is
//! assumed ([`super::ASSUMPTIONS`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::rib::ViaDefault;
use bgp_proto::session::{LocalIdentity, PeerConfig};
use bgp_proto::table::{PeerRoutes, ReflectionParams, TableConfig};
use bgp_proto::types::{Asn, Prefix, RouterId};
use sha2::{Digest, Sha256};

use super::build::{Draft, DraftPeer, Input, Shapes};
use super::spec::{Refused, Role};

/// Adds a speaker for each address with which a node has a session and that no node has; with
/// `fabric`, those of one family have sessions with each other.
///
/// # Errors
/// A table is of an address that is none of theirs.
pub(super) fn add(drafts: &mut Vec<Draft>, input: &Input) -> Result<(), Refused> {
    let fabric = input.fabric;
    let own: BTreeSet<IpAddr> =
        drafts.iter().flat_map(|draft| draft.address.iter().flatten()).map(|(a, _)| *a).collect();
    let mut sessions: BTreeMap<IpAddr, Vec<(usize, usize)>> = BTreeMap::new();
    for (node, draft) in drafts.iter().enumerate() {
        for (at, peer) in draft.peers.iter().enumerate() {
            if !own.contains(&peer.address) {
                sessions.entry(peer.address).or_default().push((node, at));
            }
        }
    }
    let shapes = Shapes::default();
    let asn_of = |(node, at): (usize, usize)| asn(&drafts[node].peers[at]);
    let asns: Vec<(IpAddr, Asn)> = sessions
        .iter()
        .map(|(addr, of)| (*addr, of.first().map_or(Asn(0), |first| asn_of(*first))))
        .collect();
    let mut added = Vec::new();
    for ((addr, own_asn), of) in asns.iter().copied().zip(sessions.values()) {
        let identity = LocalIdentity { asn: own_asn, router_id: router_id(addr) };
        let mut peers: Vec<DraftPeer> = of
            .iter()
            .map(|(node, at)| mirrored(&drafts[*node].peers[*at], &identity, &shapes))
            .collect();
        let others = asns.iter().filter(|(other, _)| *other != addr);
        let others = others.filter(|(other, _)| fabric && other.is_ipv4() == addr.is_ipv4());
        peers.extend(others.map(|(other, asn)| neighbor(addr, *other, *asn, &identity, &shapes)));
        let mut address = [None; 2];
        address[usize::from(addr.is_ipv6())] = Some((addr, Prefix::host(addr)));
        let table = TableConfig {
            via_default: ViaDefault::Always,
            ..TableConfig::new(identity.asn, identity.router_id)
        };
        added.push(Draft {
            name: addr.to_string().into(),
            role: Role::Peer,
            address,
            port: None,
            table: Arc::new(table),
            origins: Vec::new(),
            foreign: input.tables.get(&addr).cloned().unwrap_or_default(),
            blocks: BTreeSet::new(),
            felix: Vec::new(),
            peers,
        });
    }
    if let Some(addr) = input.tables.keys().find(|addr| !sessions.contains_key(addr)) {
        return Err(Refused(format!(
            "{addr} is no peer outside of the cluster, and no table can be given for it"
        )));
    }
    drafts.extend(added);
    Ok(())
}

/// The AS in which a node expects the other end.
fn asn(peer: &DraftPeer) -> Asn {
    peer.shape.remote_asn.exactly().unwrap_or(Asn(0))
}

/// The identifier of a speaker of which only an address is known.
fn router_id(addr: IpAddr) -> RouterId {
    match addr {
        IpAddr::V4(addr) => RouterId(addr.to_bits()),
        IpAddr::V6(addr) => {
            let digest = Sha256::digest(addr.octets());
            let octets = digest.iter().take(4).fold(0, |id, octet| id << 8 | u32::from(*octet));
            RouterId(octets.max(1))
        }
    }
}

/// The other end of a node's session.
fn mirrored(peer: &DraftPeer, identity: &LocalIdentity, shapes: &Shapes) -> DraftPeer {
    let node_asn = peer.shape.local_asn;
    let mut config = PeerConfig::new(peer.local, node_asn, identity);
    config.local_asn = asn(peer);
    config.security = peer.shape.security.clone();
    config.multihop_ttl = Some(64);
    config.enforce_first_as = false;
    let is_internal = config.local_asn == node_asn;
    let mut routes = PeerRoutes::new(peer.local.to_string());
    routes.reflection = ReflectionParams { client: is_internal, cluster_id: None };
    DraftPeer {
        address: peer.local,
        port: 0,
        local: peer.address,
        shape: shapes.of(&config),
        routes: Arc::new(routes),
    }
}

/// One end of a session between two of these speakers.
fn neighbor(
    addr: IpAddr,
    other: IpAddr,
    other_asn: Asn,
    identity: &LocalIdentity,
    shapes: &Shapes,
) -> DraftPeer {
    let config = PeerConfig::new(other, other_asn, identity);
    DraftPeer {
        address: other,
        port: 0,
        local: addr,
        shape: shapes.of(&config),
        routes: Arc::new(PeerRoutes::new(other.to_string())),
    }
}
