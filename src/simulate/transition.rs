//! From one cluster to the next while its speakers run: what each of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::PeerConfig;
use bgp_proto::types::{FibKind, Prefix};

use super::cluster::Cluster;
use super::pair::Outcome;
use super::spec::{End, PeerSpec, Role, Spec};

/// What happens to a session at one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It stays, or there is none.
    Stay,
    Begin,
    /// It ends and begins again. Whether our parameters differ, and not only the other end's.
    Restart {
        is_ours: bool,
    },
    End,
    /// It ends, and cannot be established again with the new parameters.
    Fail,
    /// It ends when no route depends on it: other sessions with nodes take its place.
    Part,
}

/// What a speaker changes.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// It does not exist any more.
    pub(super) is_gone: bool,
    pub(super) table_differs: bool,
    /// Origins that are added or changed, or withdrawn (`None`).
    pub(super) origins: Vec<(Prefix, Option<Option<FibKind>>)>,
    /// By peer.
    pub(super) peers: Vec<Step>,
    /// By peer: the outcome of its session before.
    outcomes_before: Vec<Option<u32>>,
    /// Peers that it had before.
    pub(super) peers_before: usize,
    /// Peers whose routing parameters differ.
    pub(super) reconfigured: Vec<u32>,
}

/// Both clusters as one, with the indices of the first.
pub(super) struct Transition {
    pub(super) cluster: Cluster,
    /// By speaker; new ones have none.
    pub(super) steps: Vec<Steps>,
}

impl Transition {
    pub(super) fn new(before: Cluster, after: Cluster) -> Transition {
        let places = Places::new(&before, &after);
        let offset = before.outcomes.len() as u32;
        let Cluster { speakers, by_address, outcomes, faults, sessions, problems } = after;
        let mut all_outcomes = before.outcomes;
        all_outcomes.extend(outcomes);
        let mut fresh: BTreeMap<usize, Spec> = BTreeMap::new();
        for (at, mut spec) in speakers.into_iter().enumerate() {
            for end in spec.peers.iter_mut().filter_map(|peer| peer.other.as_mut()) {
                let other = end.speaker as usize;
                end.peer = places.peers[other][end.peer as usize];
                end.speaker = places.speakers[other] as u32;
                end.outcome += offset;
            }
            fresh.insert(places.speakers[at], spec);
        }
        let by_address: BTreeMap<IpAddr, usize> =
            by_address.into_iter().map(|(addr, at)| (addr, places.speakers[at])).collect();
        let (mut merged, mut steps) = (Vec::new(), Vec::new());
        for (at, old) in before.speakers.into_iter().enumerate() {
            let (spec, own) = match fresh.remove(&at) {
                Some(new) => joined(old, new),
                None => gone(old),
            };
            merged.push(spec);
            steps.push(own);
        }
        merged.extend(fresh.into_values());
        let cluster = Cluster {
            speakers: merged,
            by_address,
            outcomes: all_outcomes,
            faults,
            sessions,
            problems,
        };
        let mut transition = Transition { cluster, steps };
        transition.agree();
        transition
    }

    /// The step of an end; of a new speaker's, that its session begins.
    pub(super) fn step(&self, at: usize, peer: u32) -> Step {
        let known = self.steps.get(at).and_then(|steps| steps.peers.get(peer as usize));
        known.copied().unwrap_or(Step::Begin)
    }

    /// Makes both ends of a session do the same.
    fn agree(&mut self) {
        let mut agreed = Vec::new();
        for (at, steps) in self.steps.iter().enumerate() {
            for (peer, step) in (0..).zip(&steps.peers) {
                let spec = &self.cluster.speakers[at].peers[peer as usize];
                let Some(end) = spec.other else { continue };
                let theirs = self.step(end.speaker as usize, end.peer);
                let step = match (*step, theirs) {
                    (Step::Stay, Step::Restart { .. }) => Step::Restart { is_ours: false },
                    // The session is with another end than before.
                    (Step::Stay, Step::Begin) => Step::Restart { is_ours: true },
                    (Step::End, Step::Part) if self.may_part(at, end) => Step::Part,
                    (Step::Part, _) if !self.may_part(at, end) => Step::End,
                    (step, _) => step,
                };
                let before = steps.outcomes_before.get(peer as usize).copied().flatten();
                let was_up = before.is_some_and(|outcome| self.is_up(outcome));
                let step = match (step, was_up, self.is_up(end.outcome)) {
                    (Step::Restart { .. }, true, false) => Step::Fail,
                    (Step::Restart { .. }, false, true) => Step::Begin,
                    (Step::Restart { .. } | Step::Begin, _, false) => Step::Stay,
                    (step, _, _) => step,
                };
                agreed.push((at, peer as usize, step));
            }
        }
        for (at, peer, step) in agreed {
            self.steps[at].peers[peer] = step;
        }
    }

    fn is_up(&self, outcome: u32) -> bool {
        matches!(self.cluster.outcomes.get(outcome as usize), Some(Outcome::Up(_)))
    }

    /// Whether a session is one between nodes that both still exist.
    fn may_part(&self, at: usize, end: End) -> bool {
        let is_node = |at: usize| {
            let is_gone = self.steps.get(at).is_some_and(|steps| steps.is_gone);
            !is_gone && self.cluster.speakers[at].role != Role::Peer
        };
        is_node(at) && is_node(end.speaker as usize)
    }

    /// Sessions with a step, each counted once.
    pub(super) fn count(&self, is: impl Fn(Step) -> bool) -> u64 {
        let mut count = 0;
        for (at, spec) in self.cluster.speakers.iter().enumerate() {
            for (peer, of) in (0..).zip(&spec.peers) {
                let Some(end) = of.other else { continue };
                let step = self.step(at, peer);
                let counts = step == Step::Fail || self.is_up(end.outcome);
                count += u64::from(counts && end.side == 0 && is(step));
            }
        }
        count
    }
}

/// Where the speakers and peers of the second cluster are in both together.
struct Places {
    speakers: Vec<usize>,
    peers: Vec<Vec<u32>>,
}

impl Places {
    fn new(before: &Cluster, after: &Cluster) -> Places {
        let known: BTreeMap<&str, usize> =
            before.speakers.iter().enumerate().map(|(at, spec)| (&*spec.name, at)).collect();
        let mut next = before.speakers.len();
        let (mut speakers, mut peers) = (Vec::new(), Vec::new());
        for spec in &after.speakers {
            let at = known.get(&*spec.name).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            speakers.push(at);
            let old = before.speakers.get(at).map_or(&[][..], |old| old.peers.as_slice());
            let of: BTreeMap<IpAddr, u32> =
                (0..).zip(old).map(|(peer, spec)| (spec.address, peer)).collect();
            let mut added = old.len() as u32;
            let place = |peer: &PeerSpec| {
                of.get(&peer.address).copied().unwrap_or_else(|| {
                    added += 1;
                    added - 1
                })
            };
            peers.push(spec.peers.iter().map(place).collect());
        }
        Places { speakers, peers }
    }
}

/// A speaker that both clusters have.
fn joined(old: Spec, new: Spec) -> (Spec, Steps) {
    let mut steps = Steps {
        table_differs: old.table != new.table || old.tunnels != new.tunnels,
        origins: differing(&old.origins, &new.origins),
        peers_before: old.peers.len(),
        ..Steps::default()
    };
    let is_other_speaker = old.router_id() != new.router_id() || old.address != new.address;
    let mut fresh: BTreeMap<IpAddr, PeerSpec> = BTreeMap::new();
    let mut added = Vec::new();
    let known: BTreeSet<IpAddr> = old.peers.iter().map(|peer| peer.address).collect();
    for peer in new.peers {
        if known.contains(&peer.address) {
            fresh.insert(peer.address, peer);
        } else {
            added.push(peer);
        }
    }
    let mut peers = Vec::new();
    for (at, was) in (0..).zip(old.peers) {
        let Some(is) = fresh.remove(&was.address) else {
            steps.peers.push(if was.other.is_some() { Step::Part } else { Step::Stay });
            peers.push(PeerSpec { is_configured: false, ..was });
            continue;
        };
        if was.routes != is.routes {
            steps.reconfigured.push(at);
        }
        let differs = is_other_speaker || !stays(&was.shape, &is.shape);
        steps.outcomes_before.resize(steps.peers.len(), None);
        steps.outcomes_before.push(was.other.map(|end| end.outcome));
        steps.peers.push(match (was.other.filter(|_| was.is_configured), is.other) {
            (None, None) => Step::Stay,
            (None, Some(_)) => Step::Begin,
            (Some(_), None) => Step::End,
            (Some(a), Some(b)) if (a.speaker, a.peer) != (b.speaker, b.peer) => {
                Step::Restart { is_ours: true }
            }
            (Some(_), Some(_)) if differs => Step::Restart { is_ours: true },
            (Some(_), Some(_)) => Step::Stay,
        });
        // The other end is told of an end that nobody has any more.
        let other = is.other.or(was.other);
        peers.push(PeerSpec { is_configured: is.other.is_some(), other, ..is });
    }
    steps.peers.extend(added.iter().map(|_| Step::Begin));
    peers.extend(added);
    (Spec { peers, ..new }, steps)
}

/// A speaker that only the first cluster has.
fn gone(old: Spec) -> (Spec, Steps) {
    let steps = Steps {
        is_gone: true,
        origins: old.origins.iter().map(|(prefix, _)| (*prefix, None)).collect(),
        peers: old.peers.iter().map(|_| Step::End).collect(),
        peers_before: old.peers.len(),
        ..Steps::default()
    };
    let peers = old.peers.into_iter().map(|peer| PeerSpec { is_configured: false, ..peer });
    let spec = Spec {
        origins: Vec::new(),
        blocks: Default::default(),
        felix: Vec::new(),
        peers: peers.collect(),
        ..old
    };
    (spec, steps)
}

/// Whether a session stays with other parameters, as in the daemon: new timers apply to the next one, and
/// so does which side dials.
fn stays(old: &Arc<PeerConfig>, new: &Arc<PeerConfig>) -> bool {
    old == new
        || old.differs_only_in_timers(new)
        || **old == PeerConfig { passive: old.passive, ..PeerConfig::clone(new) }
}

type Origins = [(Prefix, Option<FibKind>)];

fn differing(old: &Origins, new: &Origins) -> Vec<(Prefix, Option<Option<FibKind>>)> {
    let before: BTreeMap<&Prefix, &Option<FibKind>> = old.iter().map(|(p, k)| (p, k)).collect();
    let after: BTreeMap<&Prefix, &Option<FibKind>> = new.iter().map(|(p, k)| (p, k)).collect();
    let withdrawn = before.keys().filter(|prefix| !after.contains_key(*prefix));
    let withdrawn = withdrawn.map(|prefix| (**prefix, None));
    let put = after.iter().filter(|(prefix, kind)| before.get(*prefix) != Some(*kind));
    withdrawn.chain(put.map(|(prefix, kind)| (**prefix, Some((*kind).clone())))).collect()
}
