//! Scenarios after the initial load: a late joiner, single changes, feeders that disconnect.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::daemon::Fib;
use crate::feed;
use crate::report::Row;
use crate::session::Goal;

use super::load::{Loaded, load, synthetic};
use super::{ASN, Lab, Place, client_address, goal_of, hop_address, total, verify};

/// One additional client connects after the load has settled.
pub(super) fn join(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let feeders = options.size(options.feeders, 10, 2);
    let clients = options.size(options.clients, 12, 3).max(feeders + 1);
    let feeds = synthetic(place, feeders, options.size(options.prefixes, 20_000, 2_000), row)?;
    let Loaded { mut lab, settled, .. } = load(place, &feeds, clients, &[], None)?;
    row.push("seconds", None);
    ensure!(settled.elapsed.is_some(), "the load before the joiner did not settle");
    lab.rest(Duration::from_secs(2))?;
    for id in 0..lab.engine.sessions.len() {
        lab.engine.arm(id, None);
    }
    let before = lab.usage();
    let id = lab.engine.add(client_address(clients, lab.groups));
    lab.engine.arm(id, Some(goal_of(total(&feeds), Default::default())));
    let start = Instant::now();
    lab.engine.dial(id)?;
    let settled = lab.settle(start)?;
    let after = lab.usage();
    row.metrics.clear();
    row.push("seconds", settled.secs());
    let session = &lab.engine.sessions[id];
    let from_up =
        session.marks.done.zip(session.up).map(|(done, up)| done.duration_since(up).as_secs_f64());
    row.push("from established s", from_up);
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    row.push("MB out", session.tally.bytes as f64 / 1e6);
    row.push("peak MB", after.peak_kb as f64 / 1024.0);
    if let Some(reason) = settled.lost {
        row.note(format!("lost: {reason}"));
    }
    verify(&lab.engine, row);
    Ok(())
}

/// How routes are withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The feeder's TCP connection ends.
    Loss,
    /// The feeder sends withdrawals.
    Message,
}

/// A fifth of the feeders withdraw their routes, explicitly or by disconnecting.
pub(super) fn withdraw(place: &Place<'_>, cause: Cause, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let feeders = options.size(options.feeders, 10, 2);
    let count = feeders.div_ceil(5);
    let clients = options.size(options.clients, 30, 4).max(feeders + 1);
    let feeds = synthetic(place, feeders, options.size(options.prefixes, 20_000, 2_000), row)?;
    let affected = feeds.get(..count).unwrap_or(&[]);
    let streams = affected.iter().map(feed::withdrawal_of).collect::<anyhow::Result<Vec<_>>>()?;
    let Loaded { mut lab, ids, settled } = load(place, &feeds, clients, &[], None)?;
    row.push("seconds", None);
    ensure!(settled.elapsed.is_some(), "the load before the withdrawal did not settle");
    lab.rest(Duration::from_secs(2))?;
    let (gone, stay) = ids.split_at(count);
    let withdrawn = total(affected);
    for &id in gone {
        lab.engine.arm(id, None);
    }
    for &id in stay {
        lab.engine.arm(id, Some(Goal { announced: Vec::new(), withdrawn: Some(withdrawn) }));
    }
    let before = lab.usage();
    let start = Instant::now();
    for (&id, stream) in gone.iter().zip(streams) {
        match cause {
            Cause::Loss => lab.engine.cut(id),
            Cause::Message => lab.engine.send(id, stream.into()),
        }
    }
    let settled = lab.settle(start)?;
    let after = lab.usage();
    row.metrics.clear();
    row.push("seconds", settled.secs());
    row.push("cpu s", after.cpu_secs - before.cpu_secs);
    row.push("withdrawn", withdrawn.count as f64);
    row.push("peak MB", after.peak_kb as f64 / 1024.0);
    let exact = lab.engine.count(|session| session.goal.is_some() && session.marks.done.is_some());
    row.note(format!("{exact} of {} receivers were sent exactly these withdrawals", stay.len()));
    Ok(())
}

/// One prefix at a time to many receivers; then the same during a stream of other changes.
pub(super) fn latency(place: &Place<'_>, row: &mut Row) -> anyhow::Result<()> {
    let options = place.options;
    let receivers = options.size(options.clients, 1_000, 20);
    let changes = if options.quick { 20 } else { options.changes };
    let mut lab = place.start(ASN, Fib::Off)?;
    let ids = lab.open(receivers + 2)?;
    lab.rest(Duration::from_secs(1))?;
    let mut prober =
        Prober { lab: &mut lab, ids, numbers: 0, load: 0, sent: 0, since: Instant::now() };
    let idle = prober.measure(changes)?;
    prober.load = options.load;
    prober.since = Instant::now();
    let loaded = prober.measure(changes)?;
    for (name, samples) in [("idle", idle), ("loaded", loaded)] {
        for (at, label) in [(0.99, "p99"), (0.5, "p50"), (1.0, "max")] {
            row.push(
                &format!("{name} {label} ms"),
                percentile(&samples, at).map(|secs| secs * 1e3),
            );
        }
    }
    row.note(format!(
        "{changes} changes to {receivers} receivers; load {} changes/s",
        options.load
    ));
    Ok(())
}

/// The value at quantile `at` of samples in ascending order.
fn percentile(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * at).round() as usize).copied()
}

struct Prober<'a> {
    lab: &'a mut Lab,
    /// The prober, the loader, then the receivers.
    ids: Vec<usize>,
    numbers: u32,
    /// Changes per second in addition to the probes.
    load: u32,
    sent: u64,
    since: Instant,
}

impl Prober<'_> {
    /// Seconds from the write of each change until each receiver has read it, in ascending order.
    fn measure(&mut self, changes: usize) -> anyhow::Result<Vec<f64>> {
        let mut samples = Vec::new();
        self.sent = 0;
        for _ in 0..changes {
            self.drive(Instant::now() + Duration::from_millis(5), |_| false)?;
            self.numbers += 1;
            let (key, bytes) = feed::probe(0x1_0000 | self.numbers, 0, hop_address(0));
            let receivers: Vec<usize> = self.ids.iter().skip(2).copied().collect();
            for &id in &receivers {
                self.lab.engine.watch(id, key);
            }
            let start = Instant::now();
            self.lab.engine.send(self.ids[0], bytes.into());
            let all = self.drive(start + Duration::from_secs(10), |engine| engine.unseen == 0)?;
            ensure!(all, "a single change had not reached all receivers after 10 s");
            let seen = receivers.iter().filter_map(|&id| self.lab.engine.sessions[id].probe?.1);
            samples.extend(seen.map(|at| at.saturating_duration_since(start).as_secs_f64()));
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples)
    }

    fn drive(
        &mut self,
        until: Instant,
        stop: impl Fn(&crate::engine::Engine) -> bool,
    ) -> anyhow::Result<bool> {
        const STEP: Duration = Duration::from_millis(1);
        loop {
            let now = Instant::now();
            let due = (now.saturating_duration_since(self.since).as_secs_f64()
                * f64::from(self.load)) as u64;
            while self.sent < due {
                self.sent += 1;
                // A thousand prefixes whose MED changes each time round.
                let (_, bytes) = feed::probe(
                    (self.sent % 1000) as u32,
                    (self.sent / 1000) as u32,
                    hop_address(1),
                );
                self.lab.engine.send(self.ids[1], bytes.into());
            }
            let step = if self.load == 0 { until } else { until.min(now + STEP) };
            if self.lab.engine.run(step, &stop)? {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}
