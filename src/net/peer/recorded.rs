//! What MRT files say of a session.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_proto::mrt::Session;
use bgp_proto::session::Peer;
use bgp_proto::types::{Asn, off_interface};

use crate::mrt::Encoding;

/// The session with a peer; `ends` are our address and the peer's on its connection, if there is one.
pub(super) fn about(session: &Peer, ends: Option<(IpAddr, IpAddr)>) -> Session {
    let config = session.config();
    let negotiated = session.negotiated();
    let peer = ends.map_or(config.address, |(_, peer)| peer);
    let unspecified = match peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let asn = negotiated.map(|negotiated| negotiated.peer_asn);
    Session {
        peer_asn: asn.or(config.remote_asn.exactly()).unwrap_or(Asn(0)),
        local_asn: config.local_asn,
        interface: 0,
        peer: off_interface(peer).0,
        local: off_interface(ends.map_or(unspecified, |(local, _)| local)).0,
    }
}

/// How the UPDATEs of a peer are encoded; `None` without a session.
pub(super) fn encoding(session: &Peer) -> Option<Encoding> {
    session.negotiated().map(|negotiated| Encoding {
        has_as4: negotiated.four_octet_as,
        path_ids: negotiated.add_path_rx,
    })
}
