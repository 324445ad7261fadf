//! What waits for peers to establish sessions and to complete their routes: each of the three waits
//! hears of the same events, and ends by a rule of its own.

use bgp_proto::session::Negotiated;
use bgp_proto::types::{Family, FamilySet, PeerId, Time};

use super::deferral::{Deferral, owed_families};
use super::handover::Handover;
use super::startup::{EndOfRib, Startup};

/// The waits that are under way.
#[derive(Debug, Default)]
pub(super) struct Convergence {
    /// Neighbours that leave once others carry their routes.
    pub(super) handover: Handover,
    /// While the kernel's routes of an earlier run are kept.
    pub(super) startup: Option<Startup>,
    /// While nothing is advertised.
    pub(super) deferral: Option<Deferral>,
}

impl Convergence {
    /// A session came up with these families; `negotiated` is what it negotiated, unless it has
    /// ended meanwhile.
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

    /// The routes of a family are complete.
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
