//! The scenarios. Each prepares its streams, starts the daemon, establishes the sessions and only
//! then starts the clock.

mod change;
mod failover;
mod kernel;
mod load;
mod quiet;
mod shapes;
mod tree;
mod writer;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::daemon::{Fib, HOPS, Kind, LISTEN, Setup};
use crate::engine::{Engine, HOLD_TIME_SECS};
use crate::feed::Feed;
use crate::margay::client_address;
use crate::options::{Options, Scenario};
use crate::process::{Daemon, Usage};
use crate::report::Row;
use crate::session::{Goal, Session, State};
use crate::wire::{Key, Sums};

/// AS number of daemon and peers, unless the data requires another one.
const ASN: u32 = 64_512;
/// A daemon that has sent no routes for this long is considered finished.
const QUIET: Duration = Duration::from_secs(1);
/// Concurrent connection attempts: the listen queues of BIRD and OpenBGPD hold 8 and 5.
const IN_FLIGHT: usize = 4;

/// Runs one scenario with one daemon and fills `row`, which keeps what was measured before a
/// failure.
///
/// # Errors
/// The daemon does not start, sessions are not established, or the user interrupts the run.
pub(crate) fn run(
    options: &Options,
    kind: Kind,
    dir: &Path,
    interrupted: Arc<AtomicBool>,
    row: &mut Row,
) -> anyhow::Result<()> {
    let place = Place { options, kind, dir, interrupted };
    match options.scenario {
        Scenario::Table => load::table(&place, row),
        Scenario::Reflect => load::reflect(&place, row),
        Scenario::K8s => load::k8s(&place, row),
        Scenario::Slow => load::slow(&place, row),
        Scenario::Fairness => quiet::fairness(&place, row),
        Scenario::Loss => change::withdraw(&place, change::Cause::Loss, row),
        Scenario::Withdraw => change::withdraw(&place, change::Cause::Message, row),
        Scenario::Join => change::join(&place, row),
        Scenario::Latency => change::latency(&place, row),
        Scenario::Idle => quiet::idle(&place, row),
        Scenario::Kernel => kernel::kernel(&place, row),
        Scenario::Tree => tree::tree(&place, row),
        Scenario::Bgperf => shapes::bgperf(&place, row),
        Scenario::Reload => shapes::reload(&place, row),
        Scenario::Scale => anyhow::bail!("runs `tree` at many sizes"),
        Scenario::Failover => failover::failover(&place, row),
    }
}

/// The environment of a scenario.
struct Place<'a> {
    options: &'a Options,
    kind: Kind,
    dir: &'a Path,
    interrupted: Arc<AtomicBool>,
}

/// A running daemon and the sessions against it.
struct Lab {
    engine: Engine,
    daemons: Vec<Daemon>,
    limit: Duration,
    /// Among which clients are distributed.
    groups: usize,
}

impl Place<'_> {
    fn start(&self, asn: u32, fib: Fib) -> anyhow::Result<Lab> {
        self.start_with(asn, fib, HOLD_TIME_SECS)
    }

    fn start_with(&self, asn: u32, fib: Fib, hold_time_secs: u16) -> anyhow::Result<Lab> {
        let setup = self.setup(asn, fib);
        let daemons = self.kind.start(&setup)?;
        let engine = Engine::new(LISTEN, asn, hold_time_secs, self.interrupted.clone())?;
        let Options { groups, .. } = *self.options;
        Ok(Lab { engine, daemons, limit: self.options.limit(), groups })
    }

    fn setup(&self, asn: u32, fib: Fib) -> Setup {
        Setup {
            asn,
            fib,
            dir: self.dir.to_owned(),
            programs: self.options.programs(),
            groups: self.options.groups,
            policy: self.options.policy,
            local_pref: None,
        }
    }
}

/// The next hop that client `number` announces: on link for the daemon, one per client.
fn hop_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(HOPS) + 0x1_0000 + number as u32)
}

impl Lab {
    /// Adds `count` clients and establishes their sessions.
    fn open(&mut self, count: usize) -> anyhow::Result<Vec<usize>> {
        let first = self.engine.sessions.len();
        let ids: Vec<usize> = (first..first + count)
            .map(|n| self.engine.add(client_address(n, self.groups)))
            .collect();
        let result = self.engine.establish(&ids, IN_FLIGHT, self.limit);
        self.check_daemons()?;
        result?;
        Ok(ids)
    }

    fn check_daemons(&mut self) -> anyhow::Result<()> {
        match self.daemons.iter_mut().find_map(Daemon::ended) {
            Some(text) => Err(anyhow::anyhow!(text)),
            None => Ok(()),
        }
    }

    fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for usage in self.daemons.iter().map(Daemon::usage) {
            sum.cpu_secs += usage.cpu_secs;
            sum.rss_kb += usage.rss_kb;
            sum.peak_kb += usage.peak_kb;
        }
        sum
    }

    /// Keeps the sessions alive for a while.
    fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        self.engine.run(Instant::now() + time, |_| false).map(|_| ())
    }

    /// Drives the sessions until every goal is met, until every session has received at least the
    /// expected number of routes and then none for [`QUIET`], or until the time limit.
    fn settle(&mut self, start: Instant) -> anyhow::Result<Settled> {
        let mut look = start + QUIET;
        let done = self.engine.run(start + self.limit, |engine| {
            if engine.pending == 0 {
                return true;
            }
            let now = Instant::now();
            if now < look {
                return false;
            }
            look = now + Duration::from_millis(100);
            engine.sessions.iter().all(|session| is_over(session, now))
        })?;
        self.check_daemons()?;
        let waiting = self.engine.sessions.iter().filter(|session| session.goal.is_some());
        let last = waiting.map(|session| session.marks.done.or(session.marks.last)).max().flatten();
        let lost = self.engine.sessions.iter().find_map(|session| match &session.state {
            State::Closed(reason) if session.goal.is_some() => Some(reason.clone()),
            _ => None,
        });
        let elapsed = last
            .filter(|_| done && lost.is_none())
            .map(|last| last.saturating_duration_since(start));
        Ok(Settled { elapsed, lost })
    }
}

fn is_over(session: &Session, now: Instant) -> bool {
    let Some(goal) = &session.goal else { return true };
    session.marks.done.is_some()
        || matches!(session.state, State::Closed(_))
        || (goal.is_reached(&session.tally) && session.is_quiet(now, QUIET))
}

/// How a phase ended.
#[derive(Debug)]
struct Settled {
    /// Time from the start to the last receiver's last route; `None` when not all were complete in
    /// time.
    elapsed: Option<Duration>,
    /// The reason for which a session was lost.
    lost: Option<String>,
}

impl Settled {
    fn secs(&self) -> Option<f64> {
        self.elapsed.map(|elapsed| elapsed.as_secs_f64())
    }
}

/// The routes of all `feeds` together.
fn total(feeds: &[Feed]) -> Sums {
    feeds.iter().fold(Sums::default(), |sum, feed| sum.plus(feed.sums))
}

/// The goal of a client that feeds `own`: all other routes, or all routes if the reflector sends
/// them back to their source.
fn goal_of(total: Sums, own: Sums) -> Goal {
    let announced = if own.count == 0 { vec![total] } else { vec![total.minus(own), total] };
    Goal { announced, withdrawn: None }
}

/// Notes how many sessions received exactly the announced routes, including their attributes.
fn verify(engine: &Engine, row: &mut Row) {
    let (mut exact, mut prefixes, mut repeated, mut incomplete) = (0, 0, 0, 0);
    for session in &engine.sessions {
        let Some(goal) = &session.goal else { continue };
        let heard = &session.tally.announced;
        match () {
            () if goal.announced.contains(heard) => exact += 1,
            () if goal.announced.iter().any(|sums| heard.same_prefixes(sums)) => prefixes += 1,
            () if goal.is_reached(&session.tally) => repeated += 1,
            () => incomplete += 1,
        }
    }
    let parts = [
        (exact, "exact"),
        (prefixes, "with other attributes"),
        (repeated, "with repetitions, not compared"),
        (incomplete, "INCOMPLETE"),
    ];
    let parts =
        parts.iter().filter(|part| part.0 > 0).map(|(count, what)| format!("{count} {what}"));
    row.note(format!("receivers: {}", parts.collect::<Vec<_>>().join(", ")));
}

/// Compares the octets that one receiver captured with the streams, after the clock has stopped.
fn verify_capture(session: &Session, feeds: &[Feed], row: &mut Row) -> anyhow::Result<()> {
    let Some(capture) = &session.capture else { return Ok(()) };
    let heard = crate::feed::table_after(capture).context("captured octets")?;
    let (mut missing, mut different, mut expected) = (Vec::new(), Vec::new(), 0);
    for feed in feeds {
        for (key, digest) in crate::feed::table_after(&feed.bytes)? {
            expected += 1;
            match heard.get(&key) {
                None => missing.push(key),
                Some(other) if *other != digest => different.push(key),
                Some(_) => {}
            }
        }
    }
    let extra = heard.len() + missing.len() - expected;
    if missing.len() + different.len() + extra > 0 {
        row.note(format!(
            "state of one receiver: {} missing{}, {} with other attributes{}, {extra} extra",
            missing.len(),
            examples(&missing),
            different.len(),
            examples(&different),
        ));
    }
    Ok(())
}

fn examples(keys: &[Key]) -> String {
    let shown =
        keys.iter().take(3).map(|key| format!("{}/{}", Ipv4Addr::from(*key as u32), key >> 32));
    match shown.collect::<Vec<_>>() {
        shown if shown.is_empty() => String::new(),
        shown => format!(" ({})", shown.join(", ")),
    }
}
