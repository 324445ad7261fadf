//! Histograms of the time that the table thread takes for each phase of a turn.

use std::time::Duration;

use bgp_proto::table::{Progress, Work};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};

use crate::metric_names as names;

/// Upper bounds in seconds: from the cost of one change to what should never occur.
const BUCKETS: [f64; 9] = [0.000_05, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Histograms of the phases of a turn. Clones share them.
#[derive(Clone)]
pub struct Timings {
    turn: Histogram,
    apply: Histogram,
    decide: Histogram,
    export: Histogram,
}

impl Timings {
    pub(super) fn new() -> Self {
        Timings {
            turn: histogram(
                names::TURN_DURATION_SECONDS,
                "Time of one turn of the table's thread, which does as much as fits 2 ms.",
            ),
            apply: histogram(
                names::APPLY_DURATION_SECONDS,
                "Time that the table took for the inputs of one turn: import policy, loop checks, \
                 storing paths. Turns without inputs are not counted.",
            ),
            decide: histogram(
                names::DECISION_DURATION_SECONDS,
                "Time that the decision process took for the destinations of one turn. Turns in \
                 which no destination changed are not counted.",
            ),
            export: histogram(
                names::EXPORT_DURATION_SECONDS,
                "Time that one turn took to encode what update groups tell their members. Counted \
                 for turns in which something changed or a walk over the table went on.",
            ),
        }
    }

    /// Records a turn that took `took`. The time is divided among its phases by the units of work
    /// that the table reports for each, because the table has no clock.
    pub(super) fn turned(&self, progress: &Progress, took: Duration) {
        self.turn.observe(took.as_secs_f64());
        let share = |part: Work| {
            let share = f64::from(part.0) / f64::from(progress.done.0.max(1));
            took.as_secs_f64() * share.min(1.0)
        };
        let parts = [
            (&self.apply, progress.inputs),
            (&self.decide, progress.decision),
            (&self.export, progress.export),
        ];
        for (histogram, part) in parts.into_iter().filter(|(_, part)| part.0 > 0) {
            histogram.observe(share(part));
        }
    }

    /// The current values of all histograms.
    pub fn collect(&self) -> Vec<MetricFamily> {
        [&self.turn, &self.apply, &self.decide, &self.export]
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

fn histogram(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    Histogram::with_opts(options).expect("the name and the ascending buckets are constants")
}
