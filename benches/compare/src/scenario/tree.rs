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

/// All nodes announce their blocks and receive those of all others; then one block changes at a time.
pub(super) fn tree(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 1_000, 40);
    let positions = positions(options.layers);
    let setup = place.setup(ASN, Fib::Off);
    let mut daemons = Vec::new();
    for (number, position) in positions.iter().enumerate() {
        daemons.push(daemon::start_margay(&setup, number, &position.links)?);
    }
    let engine = Engine::new(LISTEN, ASN, HOLD_TIME_SECS, place.interrupted.clone())?;
    let groups = options.groups;
    let mut lab = Lab { engine, daemons, limit: options.limit(), groups };
    // Reflectors dial each other and advertise nothing before all of them have answered (RFC 4724
    // §4.1): measured is what comes after that.
    lab.rest(if options.layers > 1 { HELD_BACK } else { Duration::from_millis(1_000) })?;
    let started = Used::of(&lab);
    let first_bottom = positions.iter().position(|p| matches!(p.role, "only" | "bottom"));
    let first_bottom = first_bottom.unwrap_or(0);
    let bottoms = positions.len() - first_bottom;
    let ids: Vec<usize> = (0..clients)
        .map(|n| {
            let to = margay::listen(first_bottom + n % bottoms);
            lab.engine.add_to(client_address(n, groups), to)
        })
        .collect();
    lab.engine.establish(&ids, IN_FLIGHT, lab.limit)?;
    lab.rest(Duration::from_millis(500))?;
    let up = Used::of(&lab);

    let feeders = options.feeders.unwrap_or(clients).min(clients);
    let feeds = blocks(feeders, options.blocks)?;
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
    let loaded = Used::of(&lab);
    row.push("seconds", settled.secs());
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    let received = updates(&lab);
    ensure!(settled.elapsed.is_some(), "the blocks did not settle");

    for &id in &ids {
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
    lab.rest(Duration::from_millis(200))?;
    let changed = Used::of(&lab);
    row.push("UPDATEs received", received as f64);
    row.push("of each change", updates(&lab) as f64 / f64::from(CHANGES));
    let usage = lab.usage();
    row.push("peak MB, all", usage.peak_kb as f64 / 1024.0);
    for (number, position) in positions.iter().enumerate() {
        let nodes = (number >= first_bottom)
            .then(|| (0..clients).filter(|n| first_bottom + n % bottoms == number).count());
        let load = loaded.since(&up, number);
        let change = changed.since(&loaded, number);
        let opening = up.since(&started, number);
        row.reflectors.push(Reflector {
            role: position.role.to_owned(),
            nodes: clients,
            layers: options.layers,
            members: nodes.unwrap_or(position.links.below.len())
                + usize::from(position.links.above.is_some()),
            origins: feeders,
            prefixes: feeders * options.blocks,
            groups,
            open_ms: (opening.table + opening.others) * 1e3,
            table_ms: load.table * 1e3,
            sockets_ms: load.others * 1e3,
            change_us: (change.table + change.others) * 1e6 / f64::from(CHANGES),
            peer_kb: loaded.0[number].1.saturating_sub(started.0[number].1) as f64,
            start_kb: started.0[number].1 as f64,
        });
    }
    Ok(())
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
