//! Connection collision (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5), decided purely.

use super::{Negotiated, PeerConfig, Slot};

/// Which of two connections lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survivor {
    /// The one whose OPEN has just come.
    New,
    /// The other.
    Existing,
}

/// Both OPENs are in, neither connection is established: the speaker with the larger BGP Identifier
/// keeps the connection that it opened; with equal identifiers the one with the larger AS does. Both
/// ends come to the same answer whatever the order of arrival.
pub(super) fn resolve_open_confirm(
    config: &PeerConfig,
    peer: &Negotiated,
    new: Slot,
    existing: Slot,
) -> Survivor {
    if new.is_outgoing() == existing.is_outgoing() {
        // The peer opened both: it has given up the older one.
        return Survivor::New;
    }
    let local = (config.router_id, config.local_asn);
    let remote = (peer.peer_router_id, peer.peer_asn);
    if (local > remote) == new.is_outgoing() { Survivor::New } else { Survivor::Existing }
}

/// A connection's OPEN is in while a session is established. The session wins, unless the peer
/// announced graceful restart on it: then a connection that the peer opened means that it has
/// restarted.
pub(super) fn resolve_established(established: &Negotiated, new: Slot) -> Survivor {
    if !new.is_outgoing() && !established.restart_families().is_empty() {
        Survivor::New
    } else {
        Survivor::Existing
    }
}
