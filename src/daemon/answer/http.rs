//! Answers on the three HTTP paths.

use super::liveness::LivenessView;
use super::metrics::MetricsView;
use super::readiness::ReadinessView;
use crate::http::{MetricsSnapshot, Source};

/// The view for scrapers and probes.
pub(in crate::daemon) struct HttpView {
    pub(super) metrics: MetricsView,
    pub(super) liveness: LivenessView,
    pub(super) readiness: ReadinessView,
}

impl Source for HttpView {
    async fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot().await
    }

    async fn not_alive(&self) -> Vec<String> {
        self.liveness.not_alive().await
    }

    async fn not_ready(&self) -> Option<String> {
        self.readiness.not_ready()
    }
}
