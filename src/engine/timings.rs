//! How long the table's thread takes for what.

use std::time::{Duration, Instant};

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};

/// Upper bounds in seconds: from what one change costs to what nobody should ever see.
const BUCKETS: [f64; 9] = [0.000_05, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Histograms of the phases of a turn. Clones share them.
#[derive(Clone)]
pub struct Timings {
    apply: Histogram,
    decide: Histogram,
    export: Histogram,
}

impl Timings {
    pub(super) fn new() -> Self {
        Timings {
            apply: histogram(
                "margay_apply_duration_seconds",
                "Time that the table took for the inputs of one turn: import policy, loop checks, \
                 storing paths. Turns without inputs are not counted.",
            ),
            decide: histogram(
                "margay_decision_duration_seconds",
                "Time that the decision process took for the destinations of one turn. Turns in \
                 which no destination changed are not counted.",
            ),
            export: histogram(
                "margay_export_duration_seconds",
                "Time that one turn took to encode what update groups tell their members. Counted \
                 for turns in which something changed or a walk over the table went on.",
            ),
        }
    }

    pub(super) fn applied(&self, since: Instant) {
        self.apply.observe(since.elapsed().as_secs_f64());
    }

    pub(super) fn decided(&self, took: Duration) {
        self.decide.observe(took.as_secs_f64());
    }

    pub(super) fn exported(&self, took: Duration) {
        self.export.observe(took.as_secs_f64());
    }

    /// The histograms as they are.
    pub fn collect(&self) -> Vec<MetricFamily> {
        [&self.apply, &self.decide, &self.export].into_iter().flat_map(Collector::collect).collect()
    }
}

fn histogram(name: &str, help: &str) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    Histogram::with_opts(options).expect("the name and the ascending buckets are constants")
}
