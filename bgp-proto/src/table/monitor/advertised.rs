//! Changes of the Adj-RIBs-Out, taken from what the groups have flushed in a turn.

use std::collections::BTreeMap;

use super::super::Table;
use super::{MonitoredPeer, Monitors, State};
use crate::bmp::Rib;
use crate::export::{AdjRibsOut, Change, ExportId};
use crate::rib::{LocRib, SourceId};
use crate::types::{Family, PeerId};

/// Most marks of a turn, a change for a peer each: about five milliseconds. Beyond it the monitor is evicted.
const MARKS_MAX: usize = 1 << 15;

impl Monitors {
    /// Whether what groups advertise has to be noted.
    pub(crate) fn is_watching_advertised(&self) -> bool {
        self.by_id.values().any(|monitor| {
            matches!(monitor.state, State::Sending(_))
                && monitor.params.ribs.contains(&Rib::AdjRibOutPost)
        })
    }

    fn advertised(
        &mut self,
        changed: &BTreeMap<u32, Vec<Change>>,
        ribs: &AdjRibsOut,
        loc_rib: &LocRib,
    ) {
        for monitor in self.by_id.values_mut() {
            let State::Sending(sending) = &mut monitor.state else { continue };
            if !monitor.params.ribs.contains(&Rib::AdjRibOutPost) {
                continue;
            }
            let mut marks = 0;
            for (id, changes) in changed {
                let Some(group) = ribs.groups.get(id) else { continue };
                for source in group.members.keys() {
                    let Some(peer) = source.peer() else { continue };
                    let Some(known) = sending.peers.get_mut(&peer) else { continue };
                    // Of an initial state that was not begun no change is held.
                    if !known.has_sent_advertised(group.key.family) {
                        continue;
                    }
                    marks += changes.len();
                    if marks > MARKS_MAX {
                        break;
                    }
                    let before = known.octets();
                    let member = (*source, group.key.family);
                    changes
                        .iter()
                        .for_each(|change| known.advertise(change, member, ribs, loc_rib));
                    let after = known.octets();
                    if !known.is_up_to_date() {
                        sending.pending.insert(peer);
                    }
                    sending.grew(before, after);
                }
            }
            if marks > MARKS_MAX {
                // A turn is not prolonged for it: the initial state is sent in pages.
                monitor.evict();
            }
            monitor.check_bound();
        }
    }
}

impl MonitoredPeer {
    fn has_sent_advertised(&self, family: Family) -> bool {
        self.advertised.as_ref().is_some_and(|feeds| feeds[family].walk != Some(0))
    }

    /// Marks what a member is sent differently, and what it is sent no longer.
    fn advertise(
        &mut self,
        change: &Change,
        (source, family): (SourceId, Family),
        ribs: &AdjRibsOut,
        loc_rib: &LocRib,
    ) {
        let Some(feeds) = &mut self.advertised else { return };
        let Some(group) = ribs.group_of(source, family) else { return };
        let Change { dest, tx, before } = *change;
        let feed = &mut feeds[family];
        let list = group.advertised_paths(dest);
        let is_sent = |out| out != ExportId::NONE && !ribs.exported.except(out).contains(source);
        if list.iter().any(|path| path.tx == tx && is_sent(path.out)) {
            feed.changed(dest);
        } else if before.is_some_and(|before| !before.contains(source)) {
            let is_last = !list.iter().any(|path| is_sent(path.out));
            feed.withdrawn(dest, loc_rib.dests(family).prefix(dest), tx, is_last);
        }
    }
}

impl Table {
    /// Marks what the groups have flushed in this turn.
    #[cold]
    #[inline(never)]
    pub(in crate::table) fn note_advertised(&mut self) {
        let mut changed: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
        for (group, change) in self.adj_ribs_out.changed.drain(..) {
            changed.entry(group).or_default().push(change);
        }
        self.monitors.advertised(&changed, &self.adj_ribs_out, &self.loc_rib);
    }

    /// Whether what a peer was sent can be read: not while it is being copied.
    pub(super) fn has_readable_adj_rib_out(&self, id: PeerId, family: Family) -> bool {
        self.group_of(id, family).is_none_or(|group| !group.is_copied())
    }
}
