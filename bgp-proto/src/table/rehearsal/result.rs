//! The result of a rehearsal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Rehearsal;
use crate::export::{Except, GroupKey};
use crate::rib::SourceId;
use crate::types::{Family, FamilyMap, NextHop, PathId, PeerId, Prefix};

/// Routes of one family whose advertisement to a peer would differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerDifference {
    /// Sent, and not before.
    pub announced: u64,
    /// Sent with other attributes or another next hop.
    pub changed: u64,
    /// No longer sent.
    pub withdrawn: u64,
}

impl PeerDifference {
    /// Whether nothing differs.
    pub fn is_none(&self) -> bool {
        *self == PeerDifference::default()
    }
}

/// Routes received from a peer whose import would differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportDifference {
    /// Accepted, and rejected before.
    pub accepted: u64,
    /// Accepted with other attributes or another next hop.
    pub changed: u64,
    /// Rejected, and accepted before.
    pub rejected: u64,
}

/// A route whose advertisement to a peer would differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDifference {
    /// Its prefix.
    pub prefix: Prefix,
    /// The path identifier, on ADD-PATH sessions; `None` if it has none yet.
    pub path_id: Option<PathId>,
    /// As it was sent; `None`: it was not.
    pub before: Option<SentRoute>,
    /// As it would be sent; `None`: it would not be.
    pub after: Option<SentRoute>,
    /// Why it would not be sent.
    pub why: Option<Arc<str>>,
}

/// A route as a peer is sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRoute {
    /// Canonical attributes.
    pub attrs: Arc<[u8]>,
    /// The next hop.
    pub next_hop: Option<NextHop>,
}

impl RouteDifference {
    fn octets(&self) -> usize {
        let sent = self.before.iter().chain(&self.after).map(|sent| sent.attrs.len());
        sent.sum::<usize>() + self.why.as_ref().map_or(0, |why| why.len())
    }
}

/// What may still be listed.
pub(super) struct Room {
    pub(super) routes: usize,
    pub(super) octets: usize,
}

impl Room {
    /// Takes the room of a route. If there is too little, nothing more is listed.
    pub(super) fn take(&mut self, route: &RouteDifference) -> bool {
        let left = self.routes.checked_sub(1).zip(self.octets.checked_sub(route.octets()));
        (self.routes, self.octets) = left.unwrap_or_default();
        left.is_some()
    }
}

/// What differs for a member of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Announced,
    Changed,
    Withdrawn,
}

impl Kind {
    /// The difference for a member that was sent the route before, and after.
    pub(super) fn of(before: bool, after: bool, differs: bool) -> Option<Self> {
        match (before, after) {
            (false, true) => Some(Kind::Announced),
            (true, false) => Some(Kind::Withdrawn),
            (true, true) if differs => Some(Kind::Changed),
            _ => None,
        }
    }

    fn count(self, counts: &mut [i64; 3], by: i64) {
        counts[self as usize] += by;
    }
}

/// A listed route, and who is not sent it.
pub(super) struct Listed {
    pub(super) route: RouteDifference,
    pub(super) excepts: (Except, Except),
}

impl Listed {
    fn seen_by(&self, member: SourceId) -> Option<RouteDifference> {
        let RouteDifference { before, after, .. } = &self.route;
        let before = before.clone().filter(|_| !self.excepts.0.contains(member));
        let after = after.clone().filter(|_| !self.excepts.1.contains(member));
        Kind::of(before.is_some(), after.is_some(), before != after)?;
        let why = self.route.why.clone().filter(|_| after.is_none());
        Some(RouteDifference { before, after, why, ..self.route.clone() })
    }
}

/// Members of a group that would all be in one group.
pub(super) struct Class {
    pub(super) group: u32,
    pub(super) key: GroupKey,
    /// The key is not that of the group.
    pub(super) differs: bool,
    pub(super) members: BTreeSet<SourceId>,
    /// Counts for a member that split horizon does not concern.
    totals: [i64; 3],
    /// What is to be added for others.
    own: BTreeMap<SourceId, [i64; 3]>,
    pub(super) listed: Vec<Listed>,
}

impl Class {
    pub(super) fn new(group: u32, key: GroupKey, differs: bool, member: SourceId) -> Self {
        Class {
            group,
            key,
            differs,
            members: BTreeSet::from([member]),
            totals: [0; 3],
            own: BTreeMap::new(),
            listed: Vec::new(),
        }
    }

    /// Counts a route with the members that are not sent it, before and after. Returns whether it
    /// differs for any member.
    pub(super) fn count(
        &mut self,
        (before, after): (Option<Except>, Option<Except>),
        differs: bool,
    ) -> bool {
        let general = Kind::of(before.is_some(), after.is_some(), differs);
        if let Some(kind) = general {
            kind.count(&mut self.totals, 1);
        }
        let mut special: smallvec::SmallVec<[SourceId; 4]> = smallvec::SmallVec::new();
        for member in before.iter().chain(&after).flat_map(|except| except.each()) {
            if self.members.contains(&member) && !special.contains(&member) {
                special.push(member);
            }
        }
        let mut any = general.is_some() && special.len() < self.members.len();
        for member in special {
            let is_sent = |except: Option<Except>| except.is_some_and(|e| !e.contains(member));
            let kind = Kind::of(is_sent(before), is_sent(after), differs);
            any |= kind.is_some();
            if kind != general {
                let own = self.own.entry(member).or_default();
                general.into_iter().for_each(|kind| kind.count(own, -1));
                kind.into_iter().for_each(|kind| kind.count(own, 1));
            }
        }
        any
    }
}

/// Import of a peer's routes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Imports(pub(super) FamilyMap<ImportDifference>);

impl Rehearsal {
    /// Per peer, what it would be sent differently. Peers for which nothing differs are left out.
    pub fn differences(&self) -> BTreeMap<PeerId, FamilyMap<PeerDifference>> {
        let mut differences: BTreeMap<PeerId, FamilyMap<PeerDifference>> = BTreeMap::new();
        for family in Family::ALL {
            for class in &self.classes[family] {
                for member in &class.members {
                    let Some(id) = member.peer() else { continue };
                    let own = class.own.get(member).copied().unwrap_or_default();
                    let count = |kind: Kind| {
                        let at = kind as usize;
                        u64::try_from(class.totals[at] + own[at]).unwrap_or_default()
                    };
                    let difference = PeerDifference {
                        announced: count(Kind::Announced),
                        changed: count(Kind::Changed),
                        withdrawn: count(Kind::Withdrawn),
                    };
                    if !difference.is_none() {
                        differences.entry(id).or_default()[family] = difference;
                    }
                }
            }
        }
        differences
    }

    /// Per peer, how import of what it sent would differ. Peers for which nothing differs are left out.
    pub fn imports(&self) -> BTreeMap<PeerId, FamilyMap<ImportDifference>> {
        self.imports.iter().map(|(id, imports)| (*id, imports.0)).collect()
    }

    /// The routes listed for a peer, of both families, in the order in which they were found.
    pub fn listed(&self, peer: PeerId) -> Vec<RouteDifference> {
        let Some(source) = SourceId::peer_id(peer) else { return Vec::new() };
        let classes = Family::ALL.into_iter().flat_map(|family| &self.classes[family]);
        let own = classes.filter(|class| class.members.contains(&source));
        own.flat_map(|class| &class.listed).filter_map(|listed| listed.seen_by(source)).collect()
    }
}
