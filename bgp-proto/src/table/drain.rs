//! How far a drain (RFC 8326) has come: whether a neighbour was told, and what of it can be seen to
//! use other paths.
//!
//! A neighbour that uses another path than ours for a prefix announces that path to us, unless its
//! policy or iBGP forbids it: by split horizon it would not while it used ours. So a path of its own
//! beside one that it is sent proves that it has moved; that there is none proves nothing.

use super::{Drain, Table};
use crate::rib::{DestId, Refusal};
use crate::types::{Family, PeerId};

/// Destinations of one neighbour and family that one call looks at. Of one that announces more,
/// `replaced` is what was found among these.
const LOOKED_AT_MAX: usize = 1 << 14;

/// How far the drain of a neighbour has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainProgress {
    /// Its task has taken every message that marks our routes, in all families of the session.
    pub told: bool,
    /// Prefixes that it is sent.
    pub advertised: u32,
    /// Of these, those for which it announces a path of its own that does not lead through us.
    pub replaced: u32,
}

impl Table {
    /// How far the drain of a neighbour has come; `None`: its session is not established. Looks at 16384
    /// destinations of each family at most.
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

    /// Whether a neighbour has a path to what it is sent by us.
    fn has_moved(&self, id: PeerId, family: Family, dest: DestId) -> bool {
        let Some(source) = self.peers.get(id).map(|peer| peer.source) else { return false };
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
