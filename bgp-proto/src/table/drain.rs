//! The progress of a drain (RFC 8326): whether a neighbour was sent the marked routes, and for how
//! many prefixes it evidently uses other paths.
//!
//! A neighbour that uses a path other than ours for a prefix announces that path to us, unless its
//! policy or the rules of iBGP forbid it; by split horizon it would not while it used ours. So a
//! path of its own to a prefix that we advertise to it proves that it has moved; the absence of
//! one proves nothing.

use super::{Drain, Table};
use crate::rib::{DestId, Refusal};
use crate::types::{Family, PeerId};

/// Destinations per neighbour and family that one call examines. If the neighbour announces more,
/// `replaced` counts only these.
const LOOKED_AT_MAX: usize = 1 << 14;

/// The progress of the drain of one neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Its session's task has taken every UPDATE with marked routes, in all families of the
    /// session.
    pub told: bool,
    /// Prefixes advertised to it.
    pub advertised: u32,
    /// Of these, the prefixes to which it announces a path of its own that does not lead through
    /// us.
    pub replaced: u32,
}

impl Table {
    /// The progress of the drain of a neighbour; `None`: its session is not established. Examines
    /// at most 16,384 destinations per family.
    pub fn drain_progress(&self, id: PeerId) -> Option<DrainProgress> {
        let peer = self.peers.get(id)?;
        peer.up?;
        let families = peer.session.as_ref()?.families;
        let mut progress = DrainProgress { told: true, ..DrainProgress::default() };
        let advertised = self.counts(id).advertised;
        for family in families.iter() {
            let ribs = &self.adj_ribs_out;
            progress.told &= ribs.has_read_all(peer.source, family, |key| key.drain != Drain::Off);
            progress.advertised = progress.advertised.saturating_add(advertised[family]);
            let dests = peer.family(family).dests.iter().take(LOOKED_AT_MAX);
            let replaced = dests.filter(|dest| self.has_moved(id, family, DestId(*dest))).count();
            progress.replaced += replaced as u32;
        }
        Some(progress)
    }

    /// Whether a neighbour announces a path of its own to a destination that we advertise to it.
    fn has_moved(&self, id: PeerId, family: Family, dest: DestId) -> bool {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return false };
        // Paths refused for these reasons carry our AS, router ID or cluster ID.
        let is_through_us = |refusal| {
            matches!(refusal, Refusal::AsLoop | Refusal::OriginatorLoop | Refusal::ClusterLoop)
        };
        let paths = self.loc_rib.dests(family).paths(dest).iter();
        let mut own = paths
            .filter(|path| path.source == source)
            .filter(|path| !path.flags.refusal().is_some_and(is_through_us));
        own.next().is_some() && !self.adj_ribs_out.advertised_to(source, family, dest).is_empty()
    }
}
