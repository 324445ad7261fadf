//! Answers to HTTP's three paths and to `margay health`.

use std::time::Duration;

use super::control::Answers;
use crate::ctl::item::Health;
use crate::http::{MetricsSnapshot, Source};

/// How long a part may take to answer before it counts as stuck. Longer than the table's longest
/// turn, shorter than the ten seconds of calico-node's probes.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

impl Source for Answers {
    async fn metrics(&self) -> MetricsSnapshot {
        self.metrics_snapshot().await
    }

    async fn not_alive(&self) -> Vec<String> {
        self.stuck(ANSWER_WAIT).await.iter().map(ToString::to_string).collect()
    }

    async fn not_ready(&self) -> Option<String> {
        Answers::not_ready(self)
    }
}

impl Answers {
    /// Both probes at once.
    pub(super) async fn health(&self) -> Health {
        Health { not_alive: self.not_alive().await, not_ready: Answers::not_ready(self) }
    }
}
