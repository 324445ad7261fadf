//! Which routes lead to which block, followed from speaker to speaker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_proto::types::Prefix;

use super::cluster::Cluster;
use super::report::{Lost, Pairs, Path};
use super::speaker::Way;
use super::spec::Role;
use super::world::{Life, World};

/// Ways through other speakers that are listed, the most used first.
const PATHS_MAX: usize = 20;

/// Where packets from a speaker to a target end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// At an owner of the target; the next speaker, if this is not the owner.
    Reached(Option<usize>),
    /// Another program writes the route.
    Felix,
    Lost(String),
}

/// The reachability of all targets.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub(super) nodes: Pairs,
    pub(super) peers: Pairs,
    /// Nodes that do not reach all blocks.
    pub(super) lost: Vec<Lost>,
    /// Peers that do not reach all blocks and services.
    pub(super) peers_lost: Vec<Lost>,
    pub(super) paths: Vec<Path>,
    /// Targets all of whose owners have failed.
    pub(super) gone: u64,
    /// Services that no peer reaches, if there are peers.
    pub(super) unserved: Vec<Prefix>,
    pub(super) blocks: u64,
    pub(super) services: u64,
}

/// Blocks and services, with the speakers that announce them.
struct Targets {
    blocks: BTreeMap<Prefix, Vec<usize>>,
    services: BTreeMap<Prefix, Vec<usize>>,
}

impl Targets {
    fn of(cluster: &Cluster) -> Targets {
        let mut targets = Targets { blocks: BTreeMap::new(), services: BTreeMap::new() };
        for (at, spec) in cluster.speakers.iter().enumerate() {
            for (prefix, _) in &spec.origins {
                let kind = if spec.blocks.contains(prefix) {
                    &mut targets.blocks
                } else {
                    &mut targets.services
                };
                kind.entry(*prefix).or_default().push(at);
            }
        }
        targets
    }
}

/// Follows every route of every speaker that runs.
pub(super) fn measure(world: &World<'_>) -> Reach {
    let targets = Targets::of(world.cluster);
    let mut reach = Reach {
        blocks: targets.blocks.len() as u64,
        services: targets.services.len() as u64,
        ..Reach::default()
    };
    let mut lost: BTreeMap<usize, Lost> = BTreeMap::new();
    let mut paths: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    let blocks = targets.blocks.iter().map(|target| (target, false));
    for ((prefix, owners), is_service) in
        blocks.chain(targets.services.iter().map(|target| (target, true)))
    {
        let owners: BTreeSet<usize> =
            owners.iter().copied().filter(|at| world.lives[*at] != Life::Dead).collect();
        if owners.is_empty() {
            reach.gone += 1;
            continue;
        }
        let mut follow = Follow { world, prefix: *prefix, owners: &owners, fates: BTreeMap::new() };
        let mut served = None;
        for (at, spec) in world.cluster.speakers.iter().enumerate() {
            let has_family = spec.address[usize::from(prefix.addr().is_ipv6())].is_some();
            let is_asked = has_family && (spec.role == Role::Peer || !is_service);
            if world.lives[at] == Life::Dead || owners.contains(&at) || !is_asked {
                continue;
            }
            let is_peer = spec.role == Role::Peer;
            let pairs = if is_peer { &mut reach.peers } else { &mut reach.nodes };
            pairs.all += 1;
            match follow.fate(at) {
                Fate::Reached(_) => {
                    pairs.reached += 1;
                    *paths.entry(follow.path(at)).or_default() += u64::from(!is_peer);
                    served = is_peer.then_some(true).or(served);
                }
                Fate::Felix => pairs.by_felix += 1,
                Fate::Lost(why) => {
                    served = served.or(is_peer.then_some(false));
                    let from = || Lost::new(&spec.name, *prefix, why.clone());
                    lost.entry(at).or_insert_with(from).targets += 1;
                }
            }
        }
        if is_service && served == Some(false) {
            reach.unserved.push(*prefix);
        }
    }
    for (at, of) in lost {
        let is_peer = world.cluster.speakers[at].role == Role::Peer;
        if is_peer { &mut reach.peers_lost } else { &mut reach.lost }.push(of);
    }
    reach.paths = most_used(world.cluster, paths);
    reach
}

fn most_used(cluster: &Cluster, paths: BTreeMap<Vec<usize>, u64>) -> Vec<Path> {
    let mut paths: Vec<Path> = paths
        .into_iter()
        .filter(|(_, pairs)| *pairs > 0)
        .map(|(via, pairs)| Path {
            via: via.into_iter().map(|at| cluster.speakers[at].name.to_string()).collect(),
            pairs,
        })
        .collect();
    paths.sort_by(|a, b| b.pairs.cmp(&a.pairs).then_with(|| a.via.cmp(&b.via)));
    paths.truncate(PATHS_MAX);
    paths
}

/// Packets for one target.
struct Follow<'a> {
    world: &'a World<'a>,
    prefix: Prefix,
    owners: &'a BTreeSet<usize>,
    /// `None`: being determined.
    fates: BTreeMap<usize, Option<Fate>>,
}

impl Follow<'_> {
    fn fate(&mut self, at: usize) -> Fate {
        if self.world.lives[at] == Life::Dead {
            return Fate::Lost(format!("{}, the next hop, has failed", self.name(at)));
        }
        if self.owners.contains(&at) {
            return Fate::Reached(None);
        }
        match self.fates.get(&at) {
            Some(Some(fate)) => return fate.clone(),
            Some(None) => return Fate::Lost(format!("packets go in circles at {}", self.name(at))),
            None => {}
        }
        self.fates.insert(at, None);
        let fate = self.step(at);
        self.fates.insert(at, Some(fate.clone()));
        fate
    }

    fn step(&mut self, at: usize) -> Fate {
        let Some(way) = self.lookup(at) else {
            let pools = &self.world.cluster.speakers[at].felix;
            if pools.iter().any(|pool| pool.contains(self.prefix)) {
                return Fate::Felix;
            }
            return Fate::Lost(format!("{} has no route", self.name(at)));
        };
        let legs: Vec<IpAddr> = match way {
            Way::Here => {
                return Fate::Lost(format!("{} has a route that drops packets", self.name(at)));
            }
            Way::Via(legs) => legs.to_vec(),
        };
        let mut first = None;
        // Of a multipath route every leg must lead to the target.
        for leg in legs {
            let Some(next) = self.world.cluster.by_address.get(&leg).copied() else {
                return Fate::Lost(format!("nobody has the next hop {leg}"));
            };
            match self.fate(next) {
                Fate::Reached(_) | Fate::Felix => first = first.or(Some(next)),
                Fate::Lost(why) => return Fate::Lost(why),
            }
        }
        match first {
            Some(next) => Fate::Reached(Some(next)),
            None => Fate::Lost(format!("{} has a route without a next hop", self.name(at))),
        }
    }

    /// The longest match.
    fn lookup(&self, at: usize) -> Option<&Way> {
        let fib = &self.world.speakers[at].fib;
        let lens = (0..=self.prefix.len()).rev();
        lens.map(|len| Prefix::new(self.prefix.addr(), len)).find_map(|prefix| fib.get(&prefix))
    }

    /// The speakers between one and the target.
    fn path(&self, from: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut at = from;
        while let Some(Some(Fate::Reached(Some(next)))) = self.fates.get(&at) {
            if self.owners.contains(next) {
                break;
            }
            path.push(*next);
            at = *next;
        }
        path
    }

    fn name(&self, at: usize) -> &str {
        &self.world.cluster.speakers[at].name
    }
}
