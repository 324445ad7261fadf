//! Load scenarios: a whole table, many feeders, a cluster, and receivers that do not read.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::{Fib, Kind};
use crate::feed::{self, Feed};
use crate::options::{Input, shared};
use crate::process;
use crate::report::Row;
use crate::session::{Reading, State};
use crate::synth;

use super::{ASN, Lab, Place, client_address, goal_of, hop_address, total, verify, verify_capture};

/// Idle time before the settled memory is read.
pub(super) const REST: Duration = Duration::from_secs(2);

/// Synthetic feeds with disjoint prefixes, `each` per feeder.
pub(super) fn synthetic(
    place: &Place<'_>,
    feeders: usize,
    each: usize,
    row: &mut Row,
) -> anyhow::Result<Vec<Feed>> {
    let options = place.options;
    let list = shared("data/tables/prefixes.2025.txt.gz").filter(|_| !options.quick);
    let (prefixes, source) = synth::prefixes(feeders * each, options.seed, list.as_deref())?;
    if source == synth::Source::Seeded {
        row.note("seeded prefixes");
    }
    let streams = prefixes.chunks(each.max(1)).enumerate().map(|(number, prefixes)| {
        Feed::new(synth::stream(
            prefixes,
            options.seed,
            options.profile,
            3000 + number as u32,
            hop_address(number),
        ))
    });
    streams.collect()
}

fn table_feed(place: &Place<'_>, row: &mut Row) -> anyhow::Result<(Feed, u32)> {
    let options = place.options;
    match options.input {
        Input::Synthetic => {
            let size = options.size(options.prefixes, 1_000_000, 20_000);
            let feed = synthetic(place, 1, size, row)?.into_iter().next();
            Ok((feed.ok_or_else(|| anyhow::anyhow!("no prefixes to feed"))?, ASN))
        }
        Input::Transfer => {
            // The transfer is internal to AS 3856, so that its AS paths and LOCAL_PREF stay as they
            // are.
            const TRANSFER_ASN: u32 = 3856;
            let Some(path) = shared("data/tables/full-table-transfer.2015.mrt.gz") else {
                anyhow::bail!("the transfer is not on this machine: set MARGAY_SHARED")
            };
            Ok((Feed::new(feed::mrt_transfer(&path, hop_address)?)?, TRANSFER_ASN))
        }
    }
}

/// One feeder, one receiver.
pub(super) fn table(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let (feed, asn) = table_feed(place, row)?;
    let count = feed.sums.count;
    let mut lab = place.start(asn, Fib::Off)?;
    let ids = lab.open(2)?;
    let [feeder, receiver] = ids.as_slice() else { anyhow::bail!("two sessions were asked for") };
    lab.rest(Duration::from_millis(500))?;
    let before = lab.usage();
    let feeds = [feed];
    if place.kind == Kind::Null {
        return injection(&mut lab, *feeder, &feeds, row);
    }
    lab.engine.arm(*receiver, Some(goal_of(total(&feeds), Default::default())));
    lab.engine.sessions[*receiver].capture = Some(Vec::with_capacity(2 * feeds[0].bytes.len()));
    let start = Instant::now();
    lab.engine.send(*feeder, feeds[0].bytes.clone());
    let settled = lab.settle(start)?;
    let after = lab.usage();
    row.push("seconds", settled.secs());
    row.push("prefixes/s", settled.secs().map(|secs| count as f64 / secs));
    let marks = lab.engine.sessions[*receiver].marks;
    row.push("first s", marks.first.map(|first| first.duration_since(start).as_secs_f64()));
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    let tally = &lab.engine.sessions[*receiver].tally;
    row.push("MB out", tally.bytes as f64 / 1e6);
    row.push("prefixes/UPDATE", tally.announced.count as f64 / tally.updates.max(1) as f64);
    lab.rest(REST)?;
    memory(&lab, Some((before.rss_kb, count)), row);
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    verify_capture(&lab.engine.sessions[*receiver], &feeds, row)
}

pub(super) fn memory(lab: &Lab, growth: Option<(u64, u64)>, row: &mut Row) {
    let usage = lab.usage();
    row.push("peak MB", usage.peak_kb as f64 / 1024.0);
    row.push("settled MB", usage.rss_kb as f64 / 1024.0);
    row.push("with load MB", (usage.peak_kb + process::own_peak_kb()) as f64 / 1024.0);
    if let Some((before_kb, prefixes)) = growth {
        row.push(
            "B/prefix",
            usage.rss_kb.saturating_sub(before_kb) as f64 * 1024.0 / prefixes as f64,
        );
    }
}

pub(super) fn note_loss(lost: &Option<String>, row: &mut Row) {
    if let Some(reason) = lost {
        row.note(format!("lost sessions: {reason}"));
    }
}

/// Measures the rate at which the generator can write, which bounds every other result.
fn injection(lab: &mut Lab, feeder: usize, feeds: &[Feed], row: &mut Row) -> anyhow::Result<()> {
    let start = Instant::now();
    lab.engine.send(feeder, feeds[0].bytes.clone());
    let done = lab.engine.run(start + lab.limit, |engine| engine.sessions[feeder].unsent() == 0)?;
    let secs = done.then(|| start.elapsed().as_secs_f64());
    row.push("seconds", secs);
    row.push("prefixes/s", secs.map(|secs| feeds[0].sums.count as f64 / secs));
    row.note("time until the last octet was accepted: the ceiling of the injector");
    Ok(())
}

/// A loaded daemon with its sessions, the first of which are the feeders.
pub(super) struct Loaded {
    pub(super) lab: Lab,
    pub(super) ids: Vec<usize>,
    pub(super) settled: super::Settled,
}

/// Establishes all sessions, then sends all feeds at once.
pub(super) fn load(
    place: &Place<'_>,
    feeds: &[Feed],
    clients: usize,
    readings: &[(usize, Reading)],
    row: Option<&mut Row>,
) -> anyhow::Result<Loaded> {
    let mut lab = place.start(ASN, Fib::Off)?;
    let ids = lab.open(clients)?;
    lab.rest(Duration::from_millis(500))?;
    let before = lab.usage();
    let sum = total(feeds);
    for (number, &id) in ids.iter().enumerate() {
        let slow = readings.iter().find(|(slow, _)| *slow == number);
        let own = feeds.get(number).map(|feed| feed.sums).unwrap_or_default();
        lab.engine.arm(id, slow.is_none().then(|| goal_of(sum, own)));
        if let Some((_, reading)) = slow {
            lab.engine.set_reading(id, *reading);
        }
    }
    let start = Instant::now();
    for (&id, feed) in ids.iter().zip(feeds) {
        lab.engine.send(id, feed.bytes.clone());
    }
    let settled = lab.settle(start)?;
    if let Some(row) = row {
        let after = lab.usage();
        row.push("seconds", settled.secs());
        row.push("cpu s", after.cpu_secs - before.cpu_secs);
        let announced: u64 =
            lab.engine.sessions.iter().map(|session| session.tally.announced.count).sum();
        let bytes: u64 = lab.engine.sessions.iter().map(|session| session.tally.bytes).sum();
        row.push("M announced", announced as f64 / 1e6);
        row.push("MB out", bytes as f64 / 1e6);
        lab.rest(REST)?;
        memory(&lab, None, row);
        note_loss(&settled.lost, row);
        verify(&lab.engine, row);
    }
    Ok(Loaded { lab, ids, settled })
}

/// Several feeders whose routes are reflected to all clients.
pub(super) fn reflect(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let feeders = options.size(options.feeders, 10, 2);
    let clients = options.size(options.clients, 30, 4).max(feeders);
    let feeds = synthetic(place, feeders, options.size(options.prefixes, 20_000, 2_000), row)?;
    load(place, &feeds, clients, &[], Some(row)).map(|_| ())
}

/// Many clients that announce a few blocks each.
pub(super) fn k8s(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 1_000, 50);
    let feeds = blocks(clients, options.blocks)?;
    if options.at_once {
        return at_once(place, &feeds, row);
    }
    load(place, &feeds, clients, &[], Some(row)).map(|_| ())
}

/// The blocks of each of `clients`.
pub(super) fn blocks(clients: usize, each: usize) -> anyhow::Result<Vec<Feed>> {
    (0..clients)
        .map(|number| Feed::new(feed::node_blocks(number, each, hop_address(number))))
        .collect()
}

/// All clients connect at once and announce as soon as they are established; the clock starts with
/// the first connection.
fn at_once(place: &Place<'_>, feeds: &[Feed], row: &mut Row) -> anyhow::Result<()> {
    let mut lab = place.start(ASN, Fib::Off)?;
    // One session is established first to ensure that the daemon listens; it remains and only
    // receives.
    let watcher = lab.open(1)?;
    let sum = total(feeds);
    for &id in &watcher {
        lab.engine.arm(id, Some(goal_of(sum, Default::default())));
        lab.engine.sessions[id].capture = Some(Vec::new());
    }
    let before = lab.usage();
    let groups = lab.groups;
    let ids: Vec<usize> =
        (1..=feeds.len()).map(|n| lab.engine.add(client_address(n, groups))).collect();
    for (&id, feed) in ids.iter().zip(feeds) {
        lab.engine.arm(id, Some(goal_of(sum, feed.sums)));
        lab.engine.sessions[id].greeting = Some(feed.bytes.clone());
    }
    let start = Instant::now();
    let up = lab.engine.establish(&ids, ids.len(), lab.limit);
    row.push("seconds", None);
    let up = up?;
    let settled = lab.settle(start)?;
    let after = lab.usage();
    row.metrics.clear();
    row.push("seconds", settled.secs());
    row.push("established s", up.as_secs_f64());
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    let bytes: u64 = lab.engine.sessions.iter().map(|session| session.tally.bytes).sum();
    row.push("MB out", bytes as f64 / 1e6);
    lab.rest(REST)?;
    memory(&lab, None, row);
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    // Repeated announcements are acceptable while all clients connect at once; the resulting state
    // must be correct.
    watcher.iter().try_for_each(|&id| verify_capture(&lab.engine.sessions[id], feeds, row))
}

/// Limits the socket buffers of every connection in this namespace to 128 KiB per direction:
/// otherwise the kernel buffers a whole table for a receiver that does not read, and its socket
/// never blocks.
fn limit_buffers() -> anyhow::Result<()> {
    for name in ["tcp_wmem", "tcp_rmem"] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        std::fs::write(&path, "4096 16384 131072").with_context(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Five receivers at 10 KB/s and one that reads nothing, compared with the same load without them.
pub(super) fn slow(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    const PER_TICK: usize = 1_000;
    let options = place.options;
    let feeders = options.size(options.feeders, 10, 2);
    let clients = options.size(options.clients, 30, 10).max(feeders + 6);
    let feeds = synthetic(place, feeders, options.size(options.prefixes, 20_000, 2_000), row)?;
    limit_buffers()?;
    let usual = load(place, &feeds, clients, &[], None)?;
    let base = usual.settled.secs();
    let base_rss = usual.lab.usage().rss_kb;
    drop(usual);
    let mut readings = vec![(feeders, Reading::Nothing)];
    readings.extend((1..6).map(|n| (feeders + n, Reading::PerTick(PER_TICK))));
    let Loaded { mut lab, ids, settled } = load(place, &feeds, clients, &readings, None)?;
    row.push("ratio", settled.secs().zip(base).map(|(slow, base)| slow / base));
    row.push("seconds", settled.secs());
    row.push("without s", base);
    row.push("MB more", lab.usage().rss_kb.saturating_sub(base_rss) as f64 / 1024.0);
    note_loss(&settled.lost, row);
    let alive =
        |lab: &Lab, number: usize| lab.engine.sessions[ids[number]].state == State::Established;
    let cut = readings.iter().filter(|(number, _)| !alive(&lab, *number)).count();
    let start = Instant::now();
    // The slow receivers start to read at full speed; their counters are kept.
    for &(number, _) in &readings {
        let goal = goal_of(total(&feeds), Default::default());
        lab.engine.resume(ids[number], goal);
    }
    let caught_up = lab.settle(start)?;
    row.push("catch up s", caught_up.secs());
    if cut > 0 {
        row.note(format!("{cut} laggards were cut"));
    }
    verify(&lab.engine, row);
    Ok(())
}
