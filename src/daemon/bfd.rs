//! BFD for BGP: which BFD sessions exist, and the consequences when one fails (RFC 5882 §10.2).
//!
//! A BFD session that fails ends the BGP session with the same neighbour at once (Cease 6/10,
//! RFC 9384), and the neighbour's routes are withdrawn. A BFD session that was taken down
//! deliberately (AdminDown), or that never came up, ends nothing; BGP's own timers still apply.
//!
//! While routes are retained for a neighbour's restart (RFC 4724), the neighbour's C bit decides
//! (RFC 5882 §4.3.2): if it is set, BFD does not share fate with the control plane that restarts,
//! so a failure means that forwarding has failed, and the routes are removed; if it is clear, the
//! failure is a result of the restart, and they stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bgp_proto::bfd::{Cause, State as BfdState};
use bgp_proto::session::{BfdPath, Close};
use bgp_proto::types::{PeerId, SessionId, off_interface};
use tracing::{info, warn};

use super::bfd_status::Statuses;
use super::registry::{Record, Registry};
use crate::bfd::{Bfd, Handle, Hops, Status, Target, Wanted};
use crate::config::{BfdHops, BfdSettings};
use crate::event_names::{BFD_DOWN, BFD_UP};

/// The consequence of a BFD session that failed.
#[derive(Debug)]
pub(super) enum Consequence {
    /// End the BGP session.
    End(SessionId, Close),
    /// There is no BGP session: remove the routes that are retained for the neighbour's restart.
    ForwardingLost,
}

/// Keeps BFD sessions in step with the peers.
pub(super) struct Coupling {
    bfd: Bfd,
    handle: Handle,
    wanted: BTreeMap<PeerId, Wanted>,
    statuses: Statuses,
    /// The registry's revision when it was last read.
    revision: Option<u64>,
}

impl Coupling {
    pub(super) fn new(bfd: Bfd) -> Coupling {
        let handle = bfd.handle();
        Coupling {
            bfd,
            handle,
            wanted: BTreeMap::new(),
            statuses: Statuses::default(),
            revision: None,
        }
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) fn statuses(&self) -> Statuses {
        self.statuses.clone()
    }

    /// Adds, changes and removes sessions to match the peers in the registry.
    pub(super) fn follow(&mut self, registry: &Registry) {
        let revision = Some(registry.revision());
        if std::mem::replace(&mut self.revision, revision) == revision {
            return;
        }
        let mut gone: BTreeSet<PeerId> = self.wanted.keys().copied().collect();
        for record in registry.all() {
            // There is nobody to send to, or no VRF to send in.
            let is_idle = record.session.idle.is_some();
            let Some(settings) = record.bfd.as_ref().filter(|_| !is_idle) else { continue };
            gone.remove(&record.id);
            let wanted = wanted(&record, settings);
            if self.wanted.get(&record.id) != Some(&wanted) {
                self.handle.want(record.id, Some(wanted.clone()));
                self.wanted.insert(record.id, wanted);
            }
        }
        for id in gone {
            self.wanted.remove(&id);
            self.handle.want(id, None);
        }
    }

    /// Takes the changed statuses. Returns the consequences of the sessions that failed.
    pub(super) fn take_failures(&mut self, registry: &Registry) -> Vec<(Arc<Record>, Consequence)> {
        let mut failed = Vec::new();
        for (peer, status) in self.handle.take_changes() {
            let status = status.filter(|_| self.wanted.contains_key(&peer));
            let before = self.statuses.set(peer, status);
            let (Some(record), Some(status)) = (registry.get(peer), status) else { continue };
            // A session may be shared: the first status that one peer receives includes failures
            // from before, which do not concern it.
            let has_failed = before.is_some_and(|before| status.failures > before.failures);
            if has_failed || before.is_none_or(|before| before.state != status.state) {
                let path = match status.state {
                    BfdState::Up => BfdPath::Up,
                    BfdState::AdminDown | BfdState::Down | BfdState::Init => BfdPath::Down,
                };
                record.handle.set_bfd(path, has_failed.then(|| close(&status)));
            }
            let session = record.handle.snapshot().session;
            let consequence = has_failed.then(|| consequence(&status, session)).flatten();
            say(&record, before, &status, consequence.as_ref());
            failed.extend(consequence.map(|consequence| (record, consequence)));
        }
        failed
    }

    /// Sends AdminDown to every neighbour and ends the thread.
    pub(super) fn stop(self) {
        self.bfd.stop();
    }
}

fn wanted(record: &Record, BfdSettings { session, hops }: &BfdSettings) -> Wanted {
    let hops = match *hops {
        BfdHops::Single => Hops::Single,
        BfdHops::Multi { ttl_min } => Hops::Multi { ttl_min },
    };
    let (peer, interface) = off_interface(record.address);
    let local = record.session.source_address.map(|own| off_interface(own).0);
    let (vrf, device) = (record.place.device.clone(), record.session.bind_interface.clone());
    let target = Target { peer, local, interface, hops, vrf, device };
    Wanted { target, config: session.clone() }
}

/// Why the session last left Up, in the terms of RFC 5880 §4.1 where it defines one.
pub(super) fn reason(status: &Status) -> &'static str {
    match status.last_down.map(|down| down.cause) {
        Some(Cause::DetectionTimeExpired) => "control detection time expired",
        Some(Cause::NeighborDown) => "the neighbor signaled session down",
        Some(Cause::NeighborAdminDown) => "the neighbor is administratively down",
        Some(Cause::Admin) => "administratively down",
        Some(Cause::Handshake) | None => "it was never up",
    }
}

fn close(status: &Status) -> Close {
    Close::BfdDown { text: reason(status).to_owned() }
}

/// `session`: the BGP session, if one is established.
fn consequence(status: &Status, session: Option<SessionId>) -> Option<Consequence> {
    match session {
        Some(session) => Some(Consequence::End(session, close(status))),
        None => status.control_plane_independent.then_some(Consequence::ForwardingLost),
    }
}

fn say(record: &Record, before: Option<Status>, status: &Status, follows: Option<&Consequence>) {
    let was = before.map_or(BfdState::Down, |status| status.state);
    let reason = reason(status);
    let peer = &record.name;
    match (follows, was, status.state) {
        (Some(Consequence::End(..)), ..) => {
            warn!(event = BFD_DOWN, %peer, reason, "BFD session down ({reason}): the BGP session is closed");
        }
        (Some(Consequence::ForwardingLost), ..) => warn!(
            event = BFD_DOWN,
            %peer,
            reason,
            "BFD session down ({reason}), C bit set: routes kept for a restart are withdrawn"
        ),
        (None, BfdState::Up, BfdState::Up) => {}
        (None, _, BfdState::Up) => info!(event = BFD_UP, %peer, "BFD session up"),
        (None, BfdState::Up, _) => {
            info!(event = BFD_DOWN, %peer, reason, "BFD session down ({reason}): BGP is left alone")
        }
        (None, ..) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bgp_proto::bfd::Diag;
    use bgp_proto::types::Time;

    #[test]
    fn reasons_are_those_of_the_rfc() {
        let status = |cause| Status {
            state: BfdState::Down,
            since: Time::ZERO,
            failures: 1,
            last_down: Some(crate::bfd::Down { cause, diag: Diag::NONE, at: Time::ZERO }),
            control_plane_independent: false,
        };
        assert_eq!(reason(&status(Cause::DetectionTimeExpired)), "control detection time expired");
        assert_eq!(reason(&status(Cause::NeighborDown)), "the neighbor signaled session down");
    }

    /// RFC 5882 §4.3.2.
    #[test]
    fn the_c_bit_decides_about_retained_routes() {
        let status = |control_plane_independent| Status {
            state: BfdState::Down,
            since: Time::ZERO,
            failures: 1,
            last_down: None,
            control_plane_independent,
        };
        let session = Some(SessionId(7));
        for c_bit in [false, true] {
            let follows = consequence(&status(c_bit), session);
            let Some(Consequence::End(ended, close)) = follows else { panic!("{follows:?}") };
            assert_eq!(Some(ended), session);
            assert!(matches!(close, Close::BfdDown { .. }), "{close:?}");
        }
        let lost = consequence(&status(true), None);
        assert!(matches!(lost, Some(Consequence::ForwardingLost)), "{lost:?}");
        assert!(consequence(&status(false), None).is_none(), "the restart itself");
    }
}
