//! Connection collision (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5), decided purely.
//!
//! A speaker that has sent KEEPALIVE on a connection lets the peer establish it, and cannot know
//! whether the peer has. So it does not send one while it may still choose another connection: the
//! KEEPALIVE of a connection that would lose against one whose OPEN is awaited is withheld until
//! that is decided. Two ends that both do so never end a session that either has established.

use std::time::Duration;

use super::conn::Conn;
use super::{Negotiated, PeerConfig, Slot};

/// How long a KEEPALIVE is withheld at most: a peer that has not answered our OPEN on the other
/// connection by then will not use it.
const WITHHOLD_TIME: Duration = Duration::from_secs(5);
/// The same beside an established session: by then the loser of a collision has ended the new
/// connection, and a peer that has not stands by it. RFC 4724 §5 would not wait at all.
const WITHHOLD_TIME_BESIDE_SESSION: Duration = Duration::from_secs(1);

/// What becomes of two connections when the OPEN of the newer one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The other one does not matter yet, or never will.
    Independent,
    /// The other one ends.
    New,
    /// The newer one ends.
    Existing,
    /// Both stay, and our KEEPALIVE on the newer one waits.
    Withhold,
}

/// Decides between the connection on `new`, whose OPEN has just come, and `existing`.
pub(super) fn resolve(
    config: &PeerConfig,
    peer: &Negotiated,
    new: Slot,
    (slot, existing): (Slot, &Conn),
) -> Resolution {
    match existing {
        Conn::OpenSent(_) => match survivor(config, peer, new, slot) {
            Survivor::New => Resolution::Independent,
            Survivor::Existing => Resolution::Withhold,
        },
        Conn::OpenConfirm(_) => match survivor(config, peer, new, slot) {
            Survivor::New => Resolution::New,
            Survivor::Existing => Resolution::Existing,
        },
        Conn::Established(conn) => resolve_established(&conn.negotiated, new),
    }
}

/// How long our KEEPALIVE on a connection is withheld at most; `session`: the one that stands
/// beside it.
pub(super) fn withhold_time(negotiated: &Negotiated, session: Option<Slot>) -> Duration {
    let most = match session {
        Some(_) => WITHHOLD_TIME_BESIDE_SESSION,
        None => WITHHOLD_TIME,
    };
    match negotiated.keepalive_time {
        Duration::ZERO => most,
        interval => most.min(interval),
    }
}

/// Which of two connections lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survivor {
    New,
    Existing,
}

/// Neither connection is established: the speaker with the larger BGP Identifier
/// keeps the connection that it opened; with equal identifiers the one with the larger AS does. Both
/// ends come to the same answer whatever the order of arrival.
fn survivor(config: &PeerConfig, peer: &Negotiated, new: Slot, existing: Slot) -> Survivor {
    if new.is_outgoing() == existing.is_outgoing() {
        // The peer opened both: it has given up the older one.
        return Survivor::New;
    }
    let local = (config.router_id, config.local_asn);
    let remote = (peer.peer_router_id, peer.peer_asn);
    if (local > remote) == new.is_outgoing() { Survivor::New } else { Survivor::Existing }
}

/// A connection's OPEN is in while a session is established. The session wins, unless the peer
/// announced graceful restart on it: then a connection that the peer opened may mean that it has
/// restarted. A peer that has not will end the new connection as the loser of a late collision,
/// so the session ends only when the peer confirms the new one, or leaves it for long enough.
fn resolve_established(established: &Negotiated, new: Slot) -> Resolution {
    if !new.is_outgoing() && !established.restart_families().is_empty() {
        Resolution::Withhold
    } else {
        Resolution::Existing
    }
}
