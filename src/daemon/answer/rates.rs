//! How much has changed in each interval of the last 15 minutes, for the plots of the status page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bgp_proto::session::State;
use bgp_proto::types::Family;
use tokio::time::{MissedTickBehavior, interval};

use super::sources::Sources;
use crate::ctl::item;
use crate::daemon::registry::traffic;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Most intervals that are kept: 15 minutes. The oldest goes when another comes.
const KEPT: usize = 180;

/// Counters, and what there is, at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    updates_received: u64,
    updates_sent: u64,
    route_changes: u64,
    destinations: u64,
    established: u64,
}

impl Sample {
    /// What happened since `before`. A counter falls when the VRF that it was part of is removed.
    fn since(self, before: Sample) -> Sample {
        Sample {
            updates_received: self.updates_received.saturating_sub(before.updates_received),
            updates_sent: self.updates_sent.saturating_sub(before.updates_sent),
            route_changes: self.route_changes.saturating_sub(before.route_changes),
            ..self
        }
    }
}

#[derive(Debug, Default)]
struct Ring {
    intervals: VecDeque<Sample>,
    last: Option<Sample>,
    samples: u64,
}

impl Ring {
    fn record(&mut self, sample: Sample) {
        if let Some(before) = self.last.replace(sample) {
            if self.intervals.len() == KEPT {
                self.intervals.pop_front();
            }
            self.intervals.push_back(sample.since(before));
        }
        self.samples += 1;
    }

    fn shown(&self) -> Option<item::Rates> {
        self.last?;
        let all = |of: fn(&Sample) -> u64| self.intervals.iter().map(of).collect();
        Some(item::Rates {
            interval_seconds: INTERVAL.as_secs(),
            samples: self.samples,
            updates_received: all(|of| of.updates_received),
            updates_sent: all(|of| of.updates_sent),
            route_changes: all(|of| of.route_changes),
            destinations: all(|of| of.destinations),
            established: all(|of| of.established),
        })
    }
}

/// The intervals so far. Clones share them.
#[derive(Clone, Default)]
pub(super) struct RateHistory(Arc<Mutex<Ring>>);

impl RateHistory {
    /// `None` while nothing is recorded.
    pub(super) fn shown(&self) -> Option<item::Rates> {
        self.locked(|ring| ring.shown())
    }

    /// Records until the future is dropped, while a status page is configured. There is one sample at a
    /// time: a table that does not answer delays the next one.
    pub(super) async fn record(&self, sources: &Sources) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let http = sources.state().config.host.http.clone();
            match http.and_then(|http| http.page) {
                Some(_) => {
                    let sample = sample(sources).await;
                    self.locked(|ring| ring.record(sample));
                }
                None => self.locked(|ring| *ring = Ring::default()),
            }
        }
    }

    fn locked<T>(&self, use_it: impl FnOnce(&mut Ring) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn sample(sources: &Sources) -> Sample {
    let mut sample = Sample::default();
    let (records, gone) = sources.registry.all_and_gone();
    let mut all = gone;
    for record in records {
        let numbers = record.handle.numbers();
        all.add(&traffic(&numbers));
        sample.established += u64::from(numbers.state == State::Established);
    }
    (sample.updates_received, sample.updates_sent) = (all.stats.updates_received, all.updates_sent);
    for table in sources.tables() {
        let counted = table.ask(|table, _| {
            let (imports, totals) = (table.imports(), table.totals());
            let changes: u64 = Family::ALL.into_iter().map(|f| imports[f].changes()).sum();
            let destinations = totals.destinations.0.into_iter().map(u64::from).sum::<u64>();
            (changes, destinations)
        });
        // A table that has ended counts nothing.
        let (changes, destinations) = counted.await.unwrap_or_default();
        sample.route_changes += changes;
        sample.destinations += destinations;
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(updates_received: u64, destinations: u64) -> Sample {
        Sample { updates_received, destinations, ..Sample::default() }
    }

    #[test]
    fn counters_become_what_happened_in_each_interval() {
        let mut ring = Ring::default();
        assert_eq!(ring.shown(), None);
        for (updates, destinations) in [(100, 7), (110, 9), (110, 2), (3, 2)] {
            ring.record(counted(updates, destinations));
        }
        let shown = ring.shown().unwrap();
        assert_eq!(shown.updates_received, [10, 0, 0], "what was before the first is not known");
        assert_eq!(shown.destinations, [9, 2, 2]);
        assert_eq!((shown.samples, shown.interval_seconds), (4, 5));
    }

    #[test]
    fn only_the_last_fifteen_minutes_are_kept() {
        let mut ring = Ring::default();
        (0..10_000).for_each(|n| ring.record(counted(n * n, n)));
        let shown = ring.shown().unwrap();
        assert_eq!(shown.destinations.len(), KEPT);
        assert_eq!(KEPT as u64 * INTERVAL.as_secs(), 15 * 60);
        assert_eq!(shown.destinations.last(), Some(&9999));
        assert_eq!(shown.updates_received.last(), Some(&(9999 * 9999 - 9998 * 9998)));
    }
}
