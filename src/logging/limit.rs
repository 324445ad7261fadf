//! The rate limit of the log: a peer that can cause one line can cause many.
//!
//! Lines are counted by the place in the code that writes them and by the peer that they concern.
//! Each pair has a token bucket: a burst, then a sustained rate. Lines beyond it are counted, and a
//! later line reports how many were left out, with an example. One peer cannot exhaust another's
//! budget, and `debug` and `trace` lines do not count against the budget of the other levels.
//! A line that reports itself how often it was suppressed passes a [`bgp_proto::types::LogLimit`]
//! before it reaches this limit.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::supervise;

/// Lines from one place about one peer.
const ABOUT_ONE_PEER: Rate = Rate { burst: 10.0, per_sec: 0.1 };
/// Lines from one place that concern no peer.
const ABOUT_NO_PEER: Rate = Rate { burst: 100.0, per_sec: 5.0 };
/// Lines from one place about all peers: enough for 5,000 sessions to come up at once; writing
/// 10,000 lines takes a few seconds.
const ABOUT_ALL_PEERS: Rate = Rate { burst: 10_000.0, per_sec: 100.0 };
/// Most pairs of place and peer in one [`Budget`] that are counted separately. Beyond that, only
/// [`ABOUT_ALL_PEERS`] limits a peer's lines.
const BUCKETS_MAX: usize = 1 << 14;
/// Least time between two searches for buckets that can be dropped, each of which visits them all.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Time between a line that was left out and the line that reports it.
const REPORT_AFTER: Duration = Duration::from_secs(10);
/// Longest example, in characters.
const EXAMPLE_LEN_MAX: usize = 200;
/// The target of lines that report what was left out: [`REPORT_AFTER`] already limits them.
const OWN_TARGET: &str = "margay::log";
/// The target of messages of peers that are debugged, which have a limit of their own (`net::debug`).
const MESSAGES_TARGET: &str = "margay::messages";

/// How many lines are admitted.
#[derive(Clone, Copy)]
struct Rate {
    /// Lines admitted at once.
    burst: f64,
    /// Lines per second in the long run.
    per_sec: f64,
}

/// A token bucket that is filled at a [`Rate`].
struct Bucket {
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Bucket { left: rate.burst, filled: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * rate.per_sec;
        self.left = (self.left + gained).min(rate.burst);
        self.filled = now;
    }

    fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let has_room = self.left >= 1.0;
        if has_room {
            self.left -= 1.0;
        }
        has_room
    }
}

/// A place in the code, identified by the address of its event's metadata.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place(usize);

/// The lines from one place that were left out.
struct LeftOut {
    place: Place,
    count: u64,
    example: String,
}

/// The buckets of a group of levels. At `debug`, some places write a line for every peer and
/// message and soon exceed [`BUCKETS_MAX`]; warnings must still be counted separately for each
/// peer, and so have a budget of their own.
#[derive(Default)]
struct Budget {
    buckets: HashMap<(Place, Option<Box<str>>), Bucket>,
    all_peers: HashMap<Place, Bucket>,
    /// When we last searched for buckets that can be dropped.
    swept: Option<Instant>,
}

impl Budget {
    /// Takes a token for a line. Returns whether the line may be written.
    fn admit(&mut self, place: Place, peer: Option<&str>, now: Instant) -> bool {
        let Some(peer) = peer else {
            let bucket = self.buckets.entry((place, None));
            return bucket
                .or_insert_with(|| Bucket::new(ABOUT_NO_PEER, now))
                .take(ABOUT_NO_PEER, now);
        };
        let key = (place, Some(Box::from(peer)));
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            self.make_room(now);
        }
        let is_counted = self.buckets.len() < BUCKETS_MAX || self.buckets.contains_key(&key);
        let own = !is_counted || {
            let bucket = self.buckets.entry(key);
            bucket.or_insert_with(|| Bucket::new(ABOUT_ONE_PEER, now)).take(ABOUT_ONE_PEER, now)
        };
        own && {
            let all = self.all_peers.entry(place);
            all.or_insert_with(|| Bucket::new(ABOUT_ALL_PEERS, now)).take(ABOUT_ALL_PEERS, now)
        }
    }

    /// Drops full buckets, which are equal to new ones.
    fn make_room(&mut self, now: Instant) {
        if self.swept.is_some_and(|at| now.saturating_duration_since(at) < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.buckets.retain(|(_, about), bucket| {
            let rate = if about.is_some() { ABOUT_ONE_PEER } else { ABOUT_NO_PEER };
            bucket.fill(rate, now);
            bucket.left < rate.burst
        });
    }
}

#[derive(Default)]
struct Counted {
    /// `error`, `warn` and `info`.
    everyday: Budget,
    /// `debug` and `trace`.
    close_look: Budget,
    left_out: Vec<LeftOut>,
}

impl Counted {
    fn budget(&mut self, level: Level) -> &mut Budget {
        // In `tracing`, a greater level is more verbose.
        if level <= Level::INFO { &mut self.everyday } else { &mut self.close_look }
    }

    /// Counts a line that was not written; the first one from a place becomes the example.
    fn leave_out(&mut self, place: Place, example: impl FnOnce() -> String) {
        match self.left_out.iter_mut().find(|left_out| left_out.place == place) {
            Some(left_out) => left_out.count += 1,
            None => self.left_out.push(LeftOut { place, count: 1, example: example() }),
        }
    }
}

/// The filter that applies the limit. Clones share their counts.
#[derive(Clone, Default)]
pub(super) struct Limit {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    counted: Mutex<Counted>,
    /// Notified when a line was left out.
    left_out: Condvar,
}

impl Limit {
    /// One line for each place whose lines were left out since the last call.
    pub(super) fn report(&self) -> Vec<String> {
        let mut counted = self.counted();
        let line = |left_out: LeftOut| {
            format!("{} lines were left out, such as: {}", left_out.count, left_out.example)
        };
        counted.left_out.drain(..).map(line).collect()
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let target = metadata.target();
        let is_ours = ["margay", "bgp_proto"].iter().any(|name| target.starts_with(name));
        if !is_ours || [OWN_TARGET, MESSAGES_TARGET].contains(&target) {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let place = Place(std::ptr::from_ref(metadata).addr());
        let mut counted = self.counted();
        let budget = counted.budget(*metadata.level());
        let is_admitted = budget.admit(place, about.peer.as_deref(), Instant::now());
        if !is_admitted {
            counted.leave_out(place, || example(event));
            self.shared.left_out.notify_one();
        }
        is_admitted
    }
}

/// The peer that a line concerns: its `peer` field, if it has one.
#[derive(Default)]
struct About {
    peer: Option<String>,
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "peer" {
            self.peer = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "peer" {
            self.peer = Some(value.to_owned());
        }
    }
}

/// The text of a line, cut to [`EXAMPLE_LEN_MAX`].
fn example(event: &Event<'_>) -> String {
    struct Text {
        message: String,
        fields: String,
    }
    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            // Writing to a String cannot fail.
            let _ = match field.name() {
                "message" => write!(self.message, "{value:?}"),
                name => write!(self.fields, " {name}={value:?}"),
            };
        }
    }
    let mut text = Text { message: String::new(), fields: String::new() };
    event.record(&mut text);
    let mut line: String =
        (text.message + &text.fields).chars().take(EXAMPLE_LEN_MAX + 1).collect();
    if line.chars().count() > EXAMPLE_LEN_MAX {
        line.pop();
        line.push('…');
    }
    line
}

/// Reports what was left out. Its thread sleeps while there is nothing to report.
pub(super) struct Reporter;

impl Reporter {
    pub(super) fn start(limit: Limit) {
        let guard = supervise::part("log limit");
        let report = move || {
            guard.run(|| {
                loop {
                    let counted = limit.counted();
                    let is_quiet = |counted: &mut Counted| counted.left_out.is_empty();
                    let waited = limit.shared.left_out.wait_while(counted, is_quiet);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                    std::thread::sleep(REPORT_AFTER);
                    for line in limit.report() {
                        tracing::warn!(target: OWN_TARGET, "{line}");
                    }
                }
            })
        };
        // Without the thread, lines are still limited, but what was left out is not reported.
        let started = std::thread::Builder::new().name("log-limit".into()).spawn(report);
        if let Err(error) = started {
            tracing::warn!(%error, "the log will not say which lines are left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(budget: &mut Budget, peer: Option<&str>, lines: usize, now: Instant) -> usize {
        (0..lines).filter(|_| budget.admit(Place(1), peer, now)).count()
    }

    #[test]
    fn a_peer_exhausts_only_its_own_budget() {
        let now = Instant::now();
        let mut budget = Budget::default();
        assert_eq!(admitted(&mut budget, Some("a"), 10_000, now), 10);
        assert_eq!(admitted(&mut budget, Some("b"), 5, now), 5);
        assert_eq!(admitted(&mut budget, None, 1_000, now), 100);
        let later = now + Duration::from_secs(30);
        assert_eq!(admitted(&mut budget, Some("a"), 10_000, later), 3);
        assert!(budget.admit(Place(2), Some("a"), now), "other lines about the same peer");
    }

    #[test]
    fn five_thousand_peers_are_all_logged_and_the_number_of_buckets_is_bounded() {
        let now = Instant::now();
        let mut budget = Budget::default();
        let lines = (0..5_000).filter(|n| budget.admit(Place(1), Some(&format!("p{n}")), now));
        assert_eq!(lines.count(), 5_000);
        let more = (0..100_000).filter(|n| budget.admit(Place(1), Some(&format!("q{n}")), now));
        assert_eq!(more.count(), 5_000, "all peers together");
        assert!(budget.buckets.len() <= BUCKETS_MAX);
        // Later the buckets are full again and can be dropped.
        let later = now + Duration::from_secs(3600);
        assert!(budget.admit(Place(1), Some("r"), later));
        assert_eq!(budget.buckets.len(), 1);
    }

    #[test]
    fn with_many_debug_lines_warnings_are_still_counted_by_peer() {
        let now = Instant::now();
        let mut counted = Counted::default();
        let debug = counted.budget(Level::DEBUG);
        for n in 0..2 * BUCKETS_MAX {
            debug.admit(Place(n), Some(&format!("p{n}")), now);
        }
        assert_eq!(debug.buckets.len(), BUCKETS_MAX);
        let mut warned = |peer| {
            let budget = counted.budget(Level::WARN);
            (0..20_000).filter(|_| budget.admit(Place(0), Some(peer), now)).count()
        };
        assert_eq!((warned("evil"), warned("good")), (10, 10));
    }
}
