//! The cluster as it is simulated: speakers, and which session of one meets which of another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bgp_proto::session::PeerConfig;

use super::build::{self, Draft, Input};
use super::external;
use super::pair::{self, Outcome};
use super::report::SessionFault;
use super::spec::{End, Refused, Role, Spec};
use crate::calico::Problem;

/// Octets of a session at one of its ends, and of a path. Measured on a mesh of 1,000 nodes and a
/// cluster of 1,000 nodes with reflectors (`benches/README.md`), rounded up.
const SESSION_OCTETS: u64 = 5_000;
const PATH_OCTETS: u64 = 600;
/// Octets of a speaker without sessions.
const SPEAKER_OCTETS: u64 = 200_000;

/// Speakers and sessions, ready to be started any number of times.
pub struct Cluster {
    pub(super) speakers: Vec<Spec>,
    pub(super) by_address: BTreeMap<IpAddr, usize>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) faults: Vec<SessionFault>,
    /// Sessions, each counted once.
    pub(super) sessions: u64,
    /// What is wrong with objects, each once for all nodes.
    pub(super) problems: Vec<Problem>,
}

impl Cluster {
    /// Computes every node's plan and runs each kind of session.
    ///
    /// # Errors
    /// There is no Node, one has no address or no plan, or the estimated memory exceeds
    /// `memory_max` octets.
    pub fn new(input: &Input, memory_max: Option<u64>) -> Result<Cluster, Refused> {
        let refuse_beyond = |needed: u64| match memory_max {
            Some(max) if needed > max => Err(Refused(format!(
                "{} nodes need about {} MB and {} MB are available: simulate on a larger \
                 machine, or with reflectors instead of the mesh",
                input.node_count(),
                needed >> 20,
                max >> 20
            ))),
            _ => Ok(()),
        };
        // Before the plans, which take memory themselves.
        refuse_beyond(Cluster::estimate(input))?;
        let (mut drafts, problems) = build::drafts(input)?;
        if drafts.len() > 1 && drafts.iter().all(|draft| draft.blocks.is_empty()) {
            return Err(Refused(
                "no node has a block, so that there is nothing to reach: export BlockAffinities too"
                    .to_owned(),
            ));
        }
        external::add(&mut drafts, input)?;
        refuse_beyond(Cluster::estimate_of(&drafts, input.has_mesh()))?;
        let mut by_address = BTreeMap::new();
        for (at, draft) in drafts.iter().enumerate() {
            for (addr, _) in draft.address.iter().flatten() {
                by_address.entry(*addr).or_insert(at);
            }
        }
        let mut cluster = Cluster {
            speakers: Vec::new(),
            by_address,
            outcomes: Vec::new(),
            faults: Vec::new(),
            sessions: 0,
            problems,
        };
        let ends = cluster.join(&drafts);
        for (draft, ends) in drafts.into_iter().zip(ends) {
            cluster.speakers.push(draft.into_spec(ends));
        }
        Ok(cluster)
    }

    /// Octets that a simulation takes at its peak, an upper estimate.
    pub fn estimate(input: &Input) -> u64 {
        let (nodes, blocks) = (input.node_count() as u64, input.block_count() as u64);
        // Without a mesh each node has the reflectors, or about two neighbours outside of the cluster.
        let neighbors = (input.reflector_count() as u64).max(2);
        let (ends, paths) = if input.has_mesh() {
            (nodes * nodes, nodes * blocks)
        } else {
            (nodes * neighbors * 2, nodes * blocks * neighbors)
        };
        let families = input.family_count() as u64;
        (ends * SESSION_OCTETS + paths * PATH_OCTETS) * families + nodes * SPEAKER_OCTETS
    }

    /// The same, of the speakers themselves: with services, and peers outside of the cluster.
    fn estimate_of(drafts: &[Draft], has_mesh: bool) -> u64 {
        let count = |role| drafts.iter().filter(|draft| draft.role == role).count();
        let nodes = count(Role::Node) + count(Role::Reflector);
        let passing_on = count(Role::Reflector) + count(Role::Peer) + 1;
        let paths_of = |draft: &Draft| match draft.role {
            // The announcing node's, and one from each speaker that passes routes on.
            Role::Node if has_mesh => draft.peers.len().saturating_sub(nodes) + 2,
            Role::Node => draft.peers.len(),
            Role::Reflector | Role::Peer => draft.peers.len().min(passing_on),
        };
        let of = |draft: &Draft| (draft.origins.len() + draft.foreign.len()) as u64;
        let origins: u64 = drafts.iter().map(of).sum();
        let ends: u64 = drafts.iter().map(|draft| draft.peers.len() as u64).sum();
        let paths: u64 = drafts.iter().map(|draft| paths_of(draft) as u64).sum();
        paths
            .saturating_mul(origins)
            .saturating_mul(PATH_OCTETS)
            .saturating_add(ends * SESSION_OCTETS + drafts.len() as u64 * SPEAKER_OCTETS)
    }

    /// The speaker of that name: a node's, or a peer's address.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let address = name.parse().ok().and_then(|addr: IpAddr| self.by_address.get(&addr));
        let named = || self.speakers.iter().position(|spec| &*spec.name == name);
        address.copied().or_else(named)
    }

    /// For each speaker and peer the other end. Kinds of sessions are run when they are first met.
    fn join(&mut self, drafts: &[Draft]) -> Vec<Vec<Option<End>>> {
        let by_peer: Vec<BTreeMap<IpAddr, u32>> = drafts
            .iter()
            .map(|draft| (0..).zip(&draft.peers).map(|(at, peer)| (peer.address, at)).collect())
            .collect();
        let mut kinds: BTreeMap<Kind, u32> = BTreeMap::new();
        let mut ends: Vec<Vec<Option<End>>> =
            drafts.iter().map(|draft| vec![None; draft.peers.len()]).collect();
        for (a, draft) in drafts.iter().enumerate() {
            for (at, peer) in draft.peers.iter().enumerate() {
                let Some(b) = self.by_address.get(&peer.address).copied() else { continue };
                let back = by_peer[b].get(&peer.local).copied();
                let holder = self.by_address.get(&peer.local).copied();
                if let Some(holder) = holder.filter(|holder| *holder != a) {
                    self.sessions += 1;
                    let reason =
                        format!("{} is the address of {}", peer.local, drafts[holder].name);
                    self.faults.push(SessionFault::new(draft, peer, reason));
                    continue;
                }
                match back {
                    Some(back) if a < b => {
                        self.sessions += 1;
                        let pair = [(draft, at), (&drafts[b], back as usize)];
                        let outcome = self.kind(&mut kinds, pair);
                        self.note(outcome, pair);
                        let (a, b) = (a as u32, b as u32);
                        let end = |speaker, peer, side| End { speaker, peer, outcome, side };
                        ends[a as usize][at] = Some(end(b, back, 0));
                        ends[b as usize][back as usize] = Some(end(a, at as u32, 1));
                    }
                    Some(_) => {}
                    None => {
                        self.sessions += 1;
                        let reason =
                            format!("{} has no session with {}", drafts[b].name, peer.local);
                        self.faults.push(SessionFault::new(draft, peer, reason));
                    }
                }
            }
        }
        ends
    }

    /// The outcome of a session.
    fn kind(&mut self, kinds: &mut BTreeMap<Kind, u32>, pair: [(&Draft, usize); 2]) -> u32 {
        let [(a, at), (b, back)] = pair;
        let (mine, theirs) = (&a.peers[at], &b.peers[back]);
        let same_key = mine.shape.security.md5 == theirs.shape.security.md5;
        let arrives = |from: &build::DraftPeer, to: &Draft| {
            same_key && to.port.is_none_or(|port| port == from.port)
        };
        let dials = [arrives(mine, b), arrives(theirs, a)];
        let key = (Arc::as_ptr(&mine.shape) as usize, Arc::as_ptr(&theirs.shape) as usize, dials);
        if let Some(outcome) = kinds.get(&key) {
            return *outcome;
        }
        let config = |draft: &Draft, peer: &build::DraftPeer| {
            Arc::new(PeerConfig {
                address: peer.address,
                router_id: draft.table.router_id,
                ..PeerConfig::clone(&peer.shape)
            })
        };
        let outcome = self.outcomes.len() as u32;
        self.outcomes.push(pair::outcome([&config(a, mine), &config(b, theirs)], dials));
        kinds.insert(key, outcome);
        outcome
    }

    fn note(&mut self, outcome: u32, [(a, at), _]: [(&Draft, usize); 2]) {
        if let Some(Outcome::Down(reason)) = self.outcomes.get(outcome as usize) {
            self.faults.push(SessionFault::new(a, &a.peers[at], reason.clone()));
        }
    }
}

/// What a session's outcome depends on: the shapes of both ends, which are interned, and who may dial.
type Kind = (usize, usize, [bool; 2]);
