//! One, two or three layers of reflectors between the nodes of a cluster, each a real daemon.
//!
//! The bottom layer has the nodes as its clients, the layer above it has the bottom layer, and one
//! reflector is above all. Nodes are distributed evenly. Nothing is redundant: two reflectors in the
//! place of each double what every reflector below receives.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::daemon::{self, Fib, LISTEN};
use crate::engine::{Engine, HOLD_TIME_SECS};
use crate::feed;
use crate::margay::{self, Links, client_address};
use crate::process::Threads;
use crate::report::{Reflector, Row};

use super::load::{REST, blocks, note_loss};
use super::{ASN, IN_FLIGHT, Lab, Place, goal_of, hop_address, total, verify};

/// Reflectors of a layer for each of the layer above.
const FAN_OUT: usize = 2;
/// Single changes. Their processor time is divided by this.
const CHANGES: u32 = 50;

/// After this a reflector whose neighbours have all connected holds nothing back: it waits for those
/// that it does not know of.
const HELD_BACK: Duration = Duration::from_secs(12);

/// Where each reflector is.
struct Position {
    role: &'static str,
    links: Links,
}

/// The reflectors, the one above all others first, those with nodes last.
fn positions(layers: u8) -> Vec<Position> {
    let mut all = Vec::new();
    for layer in 0..u32::from(layers) {
        let role = match (layers, layer) {
            (1, _) => "only",
            (_, 0) => "top",
            (3, 1) => "middle",
            _ => "bottom",
        };
        let first = all.len();
        for number in 0..FAN_OUT.pow(layer) {
            let above = (layer > 0).then(|| first - FAN_OUT.pow(layer - 1) + number / FAN_OUT);
            if let Some(above) = above {
                let own: Ipv4Addr = *margay::listen(first + number).ip();
                let above: &mut Position = &mut all[above];
                above.links.below.push(own);
            }
            let links = Links { above: above.map(margay::listen), below: Vec::new() };
            all.push(Position { role, links });
        }
    }
    all
}

/// What the daemons had used at one moment.
struct Used(Vec<(Threads, u64)>);

impl Used {
    fn of(lab: &Lab) -> Self {
        Used(lab.daemons.iter().map(|d| (d.threads(), d.usage().rss_kb)).collect())
    }

    /// Processor time since `before` of daemon `number`, seconds.
    fn since(&self, before: &Used, number: usize) -> Threads {
        let (now, then) = (self.0[number].0, before.0[number].0);
        Threads { table: now.table - then.table, others: now.others - then.others }
    }
}

/// The cluster, and what its reflectors had used at each step.
struct Tree<'a> {
    place: &'a Place<'a>,
    positions: Vec<Position>,
    /// The first of the reflectors that have nodes; all that follow have some.
    first_bottom: usize,
    lab: Lab,
    clients: usize,
    feeders: usize,
    used: Vec<Used>,
}

/// All nodes announce their blocks and receive those of all others; then one block changes at a time.
pub(super) fn tree(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let mut tree = Tree::start(place)?;
    let ids = tree.open()?;
    tree.note_use();

    let feeds = blocks(tree.feeders, place.options.blocks)?;
    let lab = &mut tree.lab;
    let sum = total(&feeds);
    for (number, &id) in ids.iter().enumerate() {
        let own = feeds.get(number).map(|feed| feed.sums).unwrap_or_default();
        lab.engine.arm(id, Some(goal_of(sum, own)));
    }
    let start = Instant::now();
    for (&id, feed) in ids.iter().zip(&feeds) {
        lab.engine.send(id, feed.bytes.clone());
    }
    let settled = lab.settle(start)?;
    lab.rest(REST)?;
    row.push("seconds", settled.secs());
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    row.push("UPDATEs received", updates(lab) as f64);
    ensure!(settled.elapsed.is_some(), "the blocks did not settle");
    tree.note_use();

    change_one_by_one(&mut tree.lab, &ids)?;
    tree.note_use();
    row.push("of each change", updates(&tree.lab) as f64 / f64::from(CHANGES));
    row.push("peak MB, all", tree.lab.usage().peak_kb as f64 / 1024.0);
    row.reflectors = tree.reflectors();
    Ok(())
}

fn change_one_by_one(lab: &mut Lab, ids: &[usize]) -> anyhow::Result<()> {
    for &id in ids {
        lab.engine.arm(id, None);
    }
    for number in 0..CHANGES {
        let (key, bytes) = feed::probe(0x1_0000 | number, 0, hop_address(0));
        for &id in ids.iter().skip(1) {
            lab.engine.watch(id, key);
        }
        lab.engine.send(ids[0], bytes.into());
        let until = Instant::now() + Duration::from_secs(10);
        let all = lab.engine.run(until, |engine| engine.unseen == 0)?;
        ensure!(all, "a single change had not reached all nodes after 10 s");
    }
    lab.rest(Duration::from_millis(200))
}

impl<'a> Tree<'a> {
    /// Starts the reflectors.
    fn start(place: &'a Place<'a>) -> anyhow::Result<Self> {
        let options = place.options;
        let clients = options.size(options.clients, 1_000, 40);
        let positions = positions(options.layers);
        let setup = place.setup(ASN, Fib::Off);
        let mut daemons = Vec::new();
        for (number, position) in positions.iter().enumerate() {
            daemons.push(daemon::start_margay(&setup, number, &position.links)?);
        }
        let engine = Engine::new(LISTEN, ASN, HOLD_TIME_SECS, place.interrupted.clone())?;
        let mut lab = Lab { engine, daemons, limit: options.limit(), groups: options.groups };
        // Reflectors dial each other and advertise nothing before all of them have answered (RFC 4724
        // §4.1): measured is what comes after that.
        lab.rest(if options.layers > 1 { HELD_BACK } else { Duration::from_millis(1_000) })?;
        let first_bottom = positions.iter().position(|p| matches!(p.role, "only" | "bottom"));
        let mut tree = Tree {
            place,
            positions,
            first_bottom: first_bottom.unwrap_or(0),
            lab,
            clients,
            feeders: options.feeders.unwrap_or(clients).min(clients),
            used: Vec::new(),
        };
        tree.note_use();
        Ok(tree)
    }

    /// The reflector of a node.
    fn bottom_of(&self, node: usize) -> usize {
        self.first_bottom + node % (self.positions.len() - self.first_bottom)
    }

    /// Establishes the sessions of all nodes.
    fn open(&mut self) -> anyhow::Result<Vec<usize>> {
        let mut ids = Vec::new();
        for node in 0..self.clients {
            let to = margay::listen(self.bottom_of(node));
            let from = client_address(node, self.place.options.groups);
            ids.push(self.lab.engine.add_to(from, to));
        }
        self.lab.engine.establish(&ids, IN_FLIGHT, self.lab.limit)?;
        self.lab.rest(Duration::from_millis(500))?;
        Ok(ids)
    }

    fn note_use(&mut self) {
        self.used.push(Used::of(&self.lab));
    }

    fn reflectors(&self) -> Vec<Reflector> {
        let [started, up, loaded, changed] = self.used.as_slice() else { return Vec::new() };
        let options = self.place.options;
        let one = |(number, position): (usize, &Position)| {
            let nodes = (0..self.clients).filter(|node| self.bottom_of(*node) == number).count();
            let Links { above, below } = &position.links;
            let (open, load) = (up.since(started, number), loaded.since(up, number));
            let change = changed.since(loaded, number);
            Reflector {
                role: position.role.to_owned(),
                nodes: self.clients,
                layers: options.layers,
                members: nodes + below.len() + usize::from(above.is_some()),
                origins: self.feeders,
                prefixes: self.feeders * options.blocks,
                groups: options.groups,
                open_ms: (open.table + open.others) * 1e3,
                table_ms: load.table * 1e3,
                sockets_ms: load.others * 1e3,
                change_us: (change.table + change.others) * 1e6 / f64::from(CHANGES),
                peer_kb: loaded.0[number].1.saturating_sub(started.0[number].1) as f64,
                start_kb: started.0[number].1 as f64,
            }
        };
        self.positions.iter().enumerate().map(one).collect()
    }
}

fn updates(lab: &Lab) -> u64 {
    lab.engine.sessions.iter().map(|session| session.tally.updates).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reflector_but_the_top_is_below_the_one_that_it_dials() {
        for (layers, expected) in [(1, 1), (2, 3), (3, 7)] {
            let all = positions(layers);
            assert_eq!(all.len(), expected);
            for (number, position) in all.iter().enumerate() {
                let Some(above) = position.links.above else {
                    assert_eq!(number, 0);
                    continue;
                };
                let above = all.iter().enumerate().find(|(n, _)| margay::listen(*n) == above);
                let (_, above) = above.unwrap();
                assert!(above.links.below.contains(margay::listen(number).ip()));
            }
            assert!(all.iter().all(|p| p.links.below.is_empty() || p.links.below.len() == FAN_OUT));
        }
    }
}
