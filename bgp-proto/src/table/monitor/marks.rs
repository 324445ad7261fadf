//! What update groups advertise differently, kept once for all of their members.
//!
//! Changes are collected in batches. A station is sent one batch for every member before the next one: members
//! stand at the same place, and a change costs the same however many there are. A member that moves to another
//! group takes along which batches it has not been sent; they are shared with those who stay.
//!
//! Invariants:
//! - A member is sent batches in the order in which they were collected, and of each one withdrawals first. It
//!   is sent what it is advertised at that time, so that the last batch that names a path decides.
//! - A destination in a batch may have been freed, and have come to be that of another prefix: what a member is
//!   advertised now may be sent at any time, as its changes follow.
//! - Destinations that the initial state of a member has not reached are left to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::bmp::Rib;
use crate::export::{Best, Change, Evaluated, Except};
use crate::rib::{DestId, SourceId, SparseSet};
use crate::types::{PeerId, Prefix};

/// A withdrawn path in its ordered map, or a path withdrawn from one member.
const WITHDRAWN_OCTETS: u64 = 56;
/// A batch that a member has not been sent.
pub(super) const OWED_OCTETS: u64 = 64;

/// A path by its prefix and identifier.
pub(super) type PathName = (Prefix, u32);

/// Changes of a group.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Destinations of which some path is advertised differently.
    pub(super) changed: SparseSet,
    /// Paths that are advertised no longer, with the members that they were not sent to.
    pub(super) withdrawn: BTreeMap<PathName, Except>,
    /// Paths that one member is sent no longer, and others are.
    pub(super) withdrawn_from: BTreeMap<SourceId, BTreeSet<PathName>>,
    /// How many these are.
    withdrawn_from_len: usize,
    /// For the Adj-RIBs-Out before the policy: destinations that were evaluated, and those of which no path was
    /// left.
    pub(super) evaluated: SparseSet,
    pub(super) gone: BTreeSet<PathName>,
}

impl Batch {
    pub(super) fn octets(&self) -> u64 {
        let withdrawn = self.withdrawn.len() + self.withdrawn_from_len + self.gone.len();
        let changed = self.changed.octets() + self.evaluated.octets();
        changed + withdrawn as u64 * WITHDRAWN_OCTETS
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty()
            && self.withdrawn.is_empty()
            && self.withdrawn_from.is_empty()
            && self.evaluated.is_empty()
            && self.gone.is_empty()
    }

    fn note_evaluated(&mut self, evaluated: &Evaluated, prefix: Prefix) {
        match evaluated.best {
            Best::There => {
                self.evaluated.insert(evaluated.dest.0);
            }
            Best::Gone => {
                self.gone.insert((prefix, 0));
            }
        }
    }

    fn note(&mut self, change: &Change, prefix: Prefix) {
        let Change { dest, tx, before, after } = *change;
        match (before, after) {
            (_, Some(after)) => {
                self.changed.insert(dest.0);
                let Some(before) = before else { return };
                for peer in after.each().into_iter().filter(|peer| *peer != SourceId::NONE) {
                    if !before.contains(peer) {
                        let own = self.withdrawn_from.entry(peer).or_default();
                        self.withdrawn_from_len += usize::from(own.insert((prefix, tx)));
                    }
                }
            }
            (Some(before), None) => {
                let except = self.withdrawn.entry((prefix, tx)).or_insert(before);
                *except = except.and(before);
            }
            (None, None) => {}
        }
    }
}

/// How much of a batch a member was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Withdrawn paths up to this one.
    Withdrawn(Option<PathName>),
    /// Those withdrawn from it alone, up to this one.
    WithdrawnFrom(Option<PathName>),
    /// All of them, and the changed destinations below.
    Changed(u32),
    /// These, and before the policy what is gone, up to this one.
    Gone(Option<PathName>),
    /// All of them, and the evaluated destinations below.
    Evaluated(u32),
    /// All.
    End,
}

impl Place {
    pub(super) const START: Place = Place::Withdrawn(None);

    /// What is sent there is of this RIB.
    pub(super) fn rib(self) -> Rib {
        match self {
            Place::Withdrawn(_) | Place::WithdrawnFrom(_) | Place::Changed(_) => Rib::AdjRibOutPost,
            Place::Gone(_) | Place::Evaluated(_) | Place::End => Rib::AdjRibOutPre,
        }
    }
}

/// A batch that a member was not sent completely.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    pub(super) batch: Arc<Batch>,
    pub(super) place: Place,
}

/// Changes of a group that a station has not been sent.
#[derive(Debug)]
pub(super) struct GroupMarks {
    /// Members that the station knows, whose initial state was begun.
    members: BTreeSet<PeerId>,
    /// The initial state of some member was sent of destinations below; `None`: of all.
    reach: Option<u32>,
    /// Complete batches, the one that is being sent first.
    sealed: VecDeque<Arc<Batch>>,
    /// The member that is being sent it, or one before, and how much.
    at: (PeerId, Place),
    /// The batch that is being collected.
    open: Batch,
}

/// Frees a batch unless somebody else holds it.
pub(super) fn release(batch: Arc<Batch>, octets: &mut u64) {
    if let Some(batch) = Arc::into_inner(batch) {
        *octets = octets.saturating_sub(batch.octets());
    }
}

impl GroupMarks {
    /// Without members.
    pub(super) fn new() -> GroupMarks {
        GroupMarks {
            members: BTreeSet::new(),
            reach: Some(0),
            sealed: VecDeque::new(),
            at: (PeerId(0), Place::START),
            open: Batch::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn is_up_to_date(&self) -> bool {
        self.sealed.is_empty() && self.open.is_empty()
    }

    /// Adds a member, whose initial state was sent of destinations below `walk`.
    pub(super) fn join(&mut self, peer: PeerId, walk: Option<u32>) {
        self.members.insert(peer);
        self.advance(walk);
    }

    /// The initial state of a member was sent of destinations below `walk`.
    pub(super) fn advance(&mut self, walk: Option<u32>) {
        self.reach = self.reach.zip(walk).map(|(reach, walk)| reach.max(walk));
    }

    /// Removes a member.
    pub(super) fn leave(&mut self, peer: PeerId) {
        self.members.remove(&peer);
        if self.at.0 == peer {
            self.at.1 = Place::START;
        }
    }

    /// Removes a member and returns what it was not sent.
    pub(super) fn take(&mut self, peer: PeerId) -> Vec<Owed> {
        if !self.members.contains(&peer) {
            return Vec::new();
        }
        self.seal();
        let (member, at) = self.at;
        let owed = self.sealed.iter().enumerate().filter_map(|(number, batch)| {
            let place = match number {
                0 if peer < member => return None,
                0 if peer == member => at,
                _ => Place::START,
            };
            Some(Owed { batch: Arc::clone(batch), place })
        });
        let owed = owed.collect();
        self.leave(peer);
        owed
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(Arc::new(std::mem::take(&mut self.open)));
        }
    }

    /// Notes a change and returns how many octets it takes more.
    pub(super) fn note(&mut self, change: &Change, prefix: Prefix) -> u64 {
        self.note_in(change.dest, |batch| batch.note(change, prefix))
    }

    /// The same for a destination that was evaluated.
    pub(super) fn note_evaluated(&mut self, evaluated: &Evaluated, prefix: Prefix) -> u64 {
        self.note_in(evaluated.dest, |batch| batch.note_evaluated(evaluated, prefix))
    }

    fn note_in(&mut self, dest: DestId, note: impl FnOnce(&mut Batch)) -> u64 {
        if self.reach.is_some_and(|reach| dest.0 >= reach) {
            return 0;
        }
        let before = self.open.octets();
        note(&mut self.open);
        self.open.octets().saturating_sub(before)
    }

    /// Who is to be sent which batch next, and from where on.
    pub(super) fn next(&mut self, octets: &mut u64) -> Option<(PeerId, Owed)> {
        loop {
            if self.sealed.is_empty() {
                self.seal();
            }
            let batch = self.sealed.front()?;
            let (member, place) = self.at;
            if let Some(peer) = self.members.range(member..).next() {
                let place = if *peer == member { place } else { Place::START };
                return Some((*peer, Owed { batch: Arc::clone(batch), place }));
            }
            self.at = (PeerId(0), Place::START);
            self.sealed.pop_front().into_iter().for_each(|batch| release(batch, octets));
        }
    }

    /// A member was sent the batch of [`GroupMarks::next`] up to there.
    pub(super) fn sent(&mut self, peer: PeerId, place: Place) {
        self.at = match (place, peer.0.checked_add(1)) {
            (Place::End, Some(next)) => (PeerId(next), Place::START),
            _ => (peer, place),
        };
    }

    /// Frees everything.
    pub(super) fn clear(self, octets: &mut u64) {
        *octets = octets.saturating_sub(self.open.octets());
        self.sealed.into_iter().for_each(|batch| release(batch, octets));
    }
}
