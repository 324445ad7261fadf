//! Costs that should be absent: idle peers that consume resources, sessions lost under load.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::Fib;
use crate::report::Row;
use crate::session::State;

use super::load::{blocks, load, synthetic};
use super::{ASN, Place, goal_of, total, verify};

/// Peers with a few blocks each that then send only KEEPALIVEs.
pub(super) fn idle(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 200, 10);
    let seconds = if options.quick { 2 } else { options.seconds };
    let feeds = blocks(clients, options.blocks)?;
    let mut loaded = load(place, &feeds, clients, &[], None)?;
    row.push("CPU %", None);
    anyhow::ensure!(loaded.settled.elapsed.is_some(), "the blocks did not settle");
    loaded.lab.rest(Duration::from_secs(3))?;
    let before = loaded.lab.usage();
    let start = Instant::now();
    loaded.lab.rest(Duration::from_secs(seconds))?;
    let after = loaded.lab.usage();
    row.metrics.clear();
    let share = (after.cpu_secs - before.cpu_secs) / start.elapsed().as_secs_f64();
    row.push("CPU %", share * 100.0);
    row.push("RSS MB", after.rss_kb as f64 / 1024.0);
    row.push("peak MB", after.peak_kb as f64 / 1024.0);
    row.push("kB/peer", after.rss_kb as f64 / clients as f64);
    let up = loaded.lab.engine.count(|session| session.state == State::Established);
    row.note(format!("{up} of {clients} sessions up after {seconds} s"));
    Ok(())
}

/// The shortest permitted non-zero hold time (RFC 4271 §4.2), seconds.
const SHORT_HOLD_SECS: u16 = 3;

/// The table of one feeder is reflected to every peer, all with the shortest hold time.
pub(super) fn fairness(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let clients = options.size(options.clients, 1_000, 20);
    let feeds = synthetic(place, 1, options.size(options.prefixes, 100_000, 5_000), row)?;
    let feed = feeds.first().context("no prefixes to feed")?;
    let mut lab = place.start_with(ASN, Fib::Off, SHORT_HOLD_SECS)?;
    let ids = lab.open(clients)?;
    // For a while KEEPALIVEs alone must keep every session up.
    lab.rest(Duration::from_secs(2 * u64::from(SHORT_HOLD_SECS)))?;
    for (number, &id) in ids.iter().enumerate() {
        let own = if number == 0 { feed.sums } else { Default::default() };
        lab.engine.arm(id, Some(goal_of(total(&feeds), own)));
    }
    let start = Instant::now();
    let feeder = *ids.first().context("no clients")?;
    lab.engine.send(feeder, feed.bytes.clone());
    let settled = lab.settle(start)?;
    lab.rest(Duration::from_secs(2 * u64::from(SHORT_HOLD_SECS)))?;
    let lost = lab.engine.count(|session| session.state != State::Established);
    let silence = lab.engine.sessions.iter().map(|session| session.silence).max();
    row.push("sessions lost", lost as f64);
    row.push("seconds", settled.secs());
    row.push("longest silence s", silence.map(|silence| silence.as_secs_f64()));
    super::load::note_loss(&settled.lost, row);
    verify(&lab.engine, row);
    Ok(())
}
