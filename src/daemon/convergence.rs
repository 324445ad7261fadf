//! The three waits for peers to establish sessions and to complete their routes: each receives the
//! same events, and ends by its own rule.

use bgp_proto::session::Negotiated;
use bgp_proto::types::{Family, FamilySet, PeerId, Time};

use super::deferral::{Deferral, owed_families};
use super::handover::Handover;
use super::startup::{Awaited, EndOfRib, Startup};

/// The waits that are under way.
#[derive(Debug, Default)]
pub(super) struct Convergence {
    /// Neighbours whose sessions close once other sessions carry their routes.
    pub(super) handover: Handover,
    /// Present while kernel routes of an earlier run are kept.
    pub(super) startup: Option<Startup>,
    /// Present while advertisements are deferred.
    pub(super) deferral: Option<Deferral>,
}

impl Convergence {
    /// A session came up with these families; `negotiated` is `None` if it has ended meanwhile.
    pub(super) fn handle_up(
        &mut self,
        now: Time,
        peer: PeerId,
        families: FamilySet,
        negotiated: Option<&Negotiated>,
    ) {
        self.handover.handle_up(peer, families);
        if let Some(startup) = &mut self.startup {
            startup.handle_up(now, peer, families, EndOfRib::of(negotiated));
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.handle_up(now, peer, negotiated.and_then(owed_families));
        }
    }

    /// A peer was added because its neighbour was found. Its routes are awaited like those of peers that
    /// existed at the start.
    pub(super) fn handle_found(&mut self, now: Time, awaited: Awaited) {
        if let Some(startup) = &mut self.startup {
            startup.expect(now, awaited);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.expect(now, awaited.peer);
        }
    }

    /// A session went down.
    pub(super) fn handle_down(&mut self, peer: PeerId) {
        self.handover.handle_down(peer);
        if let Some(startup) = &mut self.startup {
            startup.handle_down(peer);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.handle_down(peer);
        }
    }

    /// A peer was removed.
    pub(super) fn handle_removed(&mut self, peer: PeerId) {
        self.handover.handle_removed(peer);
        if let Some(startup) = &mut self.startup {
            startup.handle_removed(peer);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.handle_removed(peer);
        }
    }

    /// A peer's routes of a family are complete.
    pub(super) fn handle_end_of_rib(&mut self, peer: PeerId, family: Family) {
        self.handover.handle_end_of_rib(peer, family);
        if let Some(startup) = &mut self.startup {
            startup.handle_end_of_rib(peer, family);
        }
        if let Some(deferral) = &mut self.deferral {
            deferral.handle_end_of_rib(peer, family);
        }
    }
}
