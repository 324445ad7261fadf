//! Established peers that say nothing.

use std::time::{Duration, Instant};

use crate::report::Row;

use super::Place;
use super::load::{blocks, load};

/// N peers with a few blocks each, then silence except keepalives.
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
    let up = loaded.lab.engine.count(|session| session.state == crate::session::State::Established);
    row.note(format!("{up} of {clients} sessions up after {seconds} s"));
    Ok(())
}
