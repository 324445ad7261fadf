//! Shapes that others publish: bgperf2's peers with one monitor, and rustbgpd's change of policy under
//! many clients.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::daemon::{self, Fib, LISTEN};
use crate::engine::{Engine, HOLD_TIME_SECS};
use crate::feed::{self, Feed};
use crate::report::Row;

use super::load::{REST, memory, note_loss, synthetic};
use super::{ASN, Lab, Place, goal_of, hop_address, is_over, total, verify, verify_capture};

/// Every client announces prefixes; one more session only receives, and stops the clock.
///
/// With `--same` all announce the same prefixes with attributes that differ in the next hop alone: the
/// lowest BGP Identifier decides (RFC 4271 §9.1.2.2 (f)), so that the routes of the first client remain.
pub(super) fn bgperf(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 100, 4);
    let each = options.size(options.prefixes, 1_000, 500);
    let feeds = if options.same {
        same(place, clients, each, row)?
    } else {
        synthetic(place, clients, each, row)?
    };
    let expected = if options.same { feeds.get(..1).unwrap_or(&[]) } else { &feeds };
    let mut lab = place.start(ASN, Fib::Off)?;
    let ids = lab.open(1)?;
    let monitor = *ids.first().context("one session was asked for")?;
    let opened = Instant::now();
    let senders = lab.open(clients)?;
    let opened = opened.elapsed();
    lab.rest(Duration::from_millis(500))?;
    let before = lab.usage();
    lab.engine.arm(monitor, Some(goal_of(total(expected), Default::default())));
    lab.engine.sessions[monitor].capture = Some(Vec::new());
    let start = Instant::now();
    for (&id, feed) in senders.iter().zip(&feeds) {
        lab.engine.send(id, feed.bytes.clone());
    }
    if options.same {
        // The monitor may have every prefix while better paths are still to come.
        let sent = |engine: &Engine| engine.sessions.iter().all(|session| session.unsent() == 0);
        ensure!(lab.engine.run(start + lab.limit, sent)?, "the feeds were not accepted in time");
    }
    let settled = lab.settle(start)?;
    let after = lab.usage();
    let cpu = after.cpu_secs - before.cpu_secs;
    row.push("seconds", settled.secs());
    row.push("neighbors s", opened.as_secs_f64());
    row.push("cpu s", cpu);
    row.push("CPU %", settled.secs().map(|secs| cpu / secs * 100.0));
    row.push("M received", feeds.iter().map(|feed| feed.sums.count).sum::<u64>() as f64 / 1e6);
    let monitored = &lab.engine.sessions[monitor].tally;
    row.push("monitor's prefixes", monitored.announced.count as f64);
    lab.rest(REST)?;
    memory(&lab, None, row);
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    verify_capture(&lab.engine.sessions[monitor], expected, row)
}

fn same(
    place: &Place<'_>,
    clients: usize,
    each: usize,
    row: &mut Row,
) -> anyhow::Result<Vec<Feed>> {
    let first =
        synthetic(place, 1, each, row)?.into_iter().next().context("no prefixes to feed")?;
    let others =
        (1..clients).map(|number| Feed::new(feed::with_next_hop(&first, hop_address(number))?));
    let mut feeds = others.collect::<anyhow::Result<Vec<_>>>()?;
    feeds.insert(0, first);
    Ok(feeds)
}

/// Time between two single changes while the policy is being applied.
const PROBE_PERIOD: Duration = Duration::from_millis(10);
/// Clients whose receiving of single changes is timed.
const WATCHERS: usize = 10;
/// LOCAL_PREF that the policy sets, before and after its change.
const PREFERENCES: (u32, u32) = (100, 200);

/// All routes are sent again after a change of the export policy of all clients. Meanwhile one client's
/// single changes go to others: how long these take is the stall.
pub(super) fn reload(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 100, 10);
    let each = options.size(options.prefixes, 572, 100);
    let mut setup = place.setup(ASN, Fib::Off);
    setup.local_pref = Some(PREFERENCES.0);
    let feeds = synthetic(place, clients, each, row)?;
    let with = |value: u32| -> anyhow::Result<Vec<Feed>> {
        feeds.iter().map(|feed| Feed::new(feed::with_local_pref(feed, value)?)).collect()
    };
    let (feeds, changed) = (with(PREFERENCES.0)?, with(PREFERENCES.1)?);
    let daemons = place.kind.start(&setup)?;
    let engine = Engine::new(LISTEN, ASN, HOLD_TIME_SECS, place.interrupted.clone())?;
    let mut lab = Lab { engine, daemons, limit: options.limit(), groups: options.groups };
    let ids = lab.open(clients)?;
    let prober = *lab.open(1)?.first().context("one session was asked for")?;
    lab.rest(Duration::from_millis(500))?;
    for session in &mut lab.engine.sessions {
        session.leaves_probes_out = true;
    }

    let start = arm(&mut lab, &ids, &feeds);
    for (&id, feed) in ids.iter().zip(&feeds) {
        lab.engine.send(id, feed.bytes.clone());
    }
    let cold = lab.settle(start)?;
    row.push("reload s", None);
    row.push("cold s", cold.secs());
    ensure!(cold.elapsed.is_some(), "the routes before the change did not settle: {:?}", cold.lost);
    verify(&lab.engine, row);
    lab.rest(REST)?;

    setup.local_pref = Some(PREFERENCES.1);
    daemon::reconfigure_margay(&setup)?;
    // It announces nothing of its own, so that it is sent every route.
    lab.engine.sessions[prober].capture = Some(Vec::new());
    let before = lab.usage();
    lab.engine.arm(prober, Some(goal_of(total(&changed), Default::default())));
    let start = arm(&mut lab, &ids, &changed);
    lab.daemons.iter().for_each(crate::process::Daemon::hang_up);
    let watchers: Vec<usize> = ids.iter().step_by((clients / WATCHERS).max(1)).copied().collect();
    let stalls = probe_until_over(&mut lab, prober, &watchers, start)?;
    let settled = lab.settle(start)?;
    let after = lab.usage();
    let last = stalls.len().saturating_sub(1) as f64;
    let at = |part: f64| stalls.get((last * part).round() as usize).copied();
    row.metrics.clear();
    row.push("reload s", settled.secs());
    row.push("stall p50 ms", at(0.5));
    row.push("stall p99 ms", at(0.99));
    row.push("stall max ms", at(1.0));
    row.push("cold s", cold.secs());
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    row.push("routes", total(&feeds).count as f64);
    memory(&lab, None, row);
    note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    verify_capture(&lab.engine.sessions[prober], &changed, row)
}

/// Single changes of one session, until all others have all routes. Milliseconds that each took to all
/// watchers, ascending.
fn probe_until_over(
    lab: &mut Lab,
    prober: usize,
    watchers: &[usize],
    start: Instant,
) -> anyhow::Result<Vec<f64>> {
    // A client that was sent a route twice is complete once nothing more comes.
    let is_over = |lab: &Lab| {
        let now = Instant::now();
        lab.engine.sessions.iter().all(|session| is_over(session, now))
    };
    let mut stalls = Vec::new();
    let mut number = 0;
    while !is_over(lab) && start.elapsed() < lab.limit {
        let due = Instant::now();
        number += 1;
        let (key, bytes) = feed::probe(0x1_0000 | number, 0, hop_address(prober));
        for &id in watchers {
            lab.engine.watch(id, key);
        }
        lab.engine.send(prober, bytes.into());
        let seen = lab.engine.run(due + lab.limit, |engine| engine.unseen == 0)?;
        ensure!(seen, "a single change was lost");
        let took = due.elapsed();
        // Changes that were due while this one was on its way would have waited for the rest of it.
        let missed = (took.as_nanos() / PROBE_PERIOD.as_nanos()) as u32;
        stalls.extend((0..=missed).map(|n| (took - n * PROBE_PERIOD).as_secs_f64() * 1e3));
        lab.engine.run(due + PROBE_PERIOD, |_| false)?;
    }
    stalls.sort_by(f64::total_cmp);
    Ok(stalls)
}

fn arm(lab: &mut Lab, ids: &[usize], feeds: &[Feed]) -> Instant {
    let sum = total(feeds);
    for (&id, feed) in ids.iter().zip(feeds) {
        lab.engine.arm(id, Some(goal_of(sum, feed.sums)));
    }
    Instant::now()
}
