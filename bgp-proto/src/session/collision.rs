//! Connection collision (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5), as pure functions.
//!
//! Once a speaker has sent KEEPALIVE on a connection, the peer may establish it, and the speaker
//! cannot know whether it has. So no KEEPALIVE is sent while another connection may still be
//! chosen: on a connection that would lose to one whose OPEN is awaited, it is withheld until that
//! is decided. If both ends do so, neither ends a session that the other has established.

use std::time::Duration;

use super::conn::Conn;
use super::{Negotiated, PeerConfig, Slot};

/// Longest time for which a KEEPALIVE is withheld: a peer that has not answered our OPEN on the
/// other connection by then will not use that connection.
const KEEPALIVE_HELD_MAX: Duration = Duration::from_secs(5);
/// The same while a session is established: by then the loser of a collision has closed the new
/// connection; a peer that has not closed it intends to use it. RFC 4724 §5 would not wait at all.
const KEEPALIVE_HELD_MAX_WITH_SESSION: Duration = Duration::from_secs(1);

/// What happens to two connections when the OPEN of the newer one arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The existing connection does not affect the newer one, or not yet.
    Independent,
    /// The newer connection wins; the existing one is closed.
    New,
    /// The existing connection wins; the newer one is closed.
    Existing,
    /// Both stay open, and our KEEPALIVE on the newer one is withheld.
    HoldKeepalive,
}

/// Decides between the connection on `new`, whose OPEN has just arrived, and `existing`.
pub(super) fn resolve(
    config: &PeerConfig,
    peer: &Negotiated,
    new: Slot,
    (slot, existing): (Slot, &Conn),
) -> Resolution {
    match existing {
        Conn::OpenSent(_) => match survivor(config, peer, new, slot) {
            Survivor::New => Resolution::Independent,
            Survivor::Existing => Resolution::HoldKeepalive,
        },
        Conn::OpenConfirm(_) => match survivor(config, peer, new, slot) {
            Survivor::New => Resolution::New,
            Survivor::Existing => Resolution::Existing,
        },
        Conn::Established(conn) => resolve_established(&conn.negotiated, new),
    }
}

/// Longest time for which our KEEPALIVE on a connection is withheld. `session` is the slot of the
/// established session, if there is one.
pub(super) fn keepalive_held_time(negotiated: &Negotiated, session: Option<Slot>) -> Duration {
    let most = match session {
        Some(_) => KEEPALIVE_HELD_MAX_WITH_SESSION,
        None => KEEPALIVE_HELD_MAX,
    };
    match negotiated.keepalive_time {
        Duration::ZERO => most,
        interval => most.min(interval),
    }
}

/// Which of two connections survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survivor {
    New,
    Existing,
}

/// If neither connection is established, the speaker with the larger BGP Identifier keeps the
/// connection that it opened; with equal identifiers, the one with the larger AS number does. Both
/// ends come to the same result whatever the order of arrival.
fn survivor(config: &PeerConfig, peer: &Negotiated, new: Slot, existing: Slot) -> Survivor {
    if new.is_outgoing() == existing.is_outgoing() {
        // The peer opened both: it has given up the older one.
        return Survivor::New;
    }
    let local = (config.router_id, config.local_asn);
    let remote = (peer.peer_router_id, peer.peer_asn);
    if (local > remote) == new.is_outgoing() { Survivor::New } else { Survivor::Existing }
}

/// The OPEN of a connection arrived while a session is established. The session wins, unless the
/// peer announced graceful restart on it: then a connection that the peer opened may mean that it
/// has restarted. A peer that has not restarted will close the new connection as the loser of a
/// late collision, so the session ends only when the peer confirms the new connection, or leaves it
/// open for long enough.
fn resolve_established(established: &Negotiated, new: Slot) -> Resolution {
    if !new.is_outgoing() && !established.restart_families().is_empty() {
        Resolution::HoldKeepalive
    } else {
        Resolution::Existing
    }
}
