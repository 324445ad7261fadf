//! Monitoring stations.

use super::families::Families;
use crate::metric_names as names;

/// A monitoring station (BMP).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StationMetrics {
    /// Its name.
    pub name: String,
    /// Whether it is connected.
    pub is_up: bool,
    /// Connections that came up.
    pub connections: u64,
    /// Connections that ended because it was too slow.
    pub too_slow: u64,
    /// Connections refused.
    pub refused: u64,
    /// Octets sent.
    pub octets: u64,
}

impl StationMetrics {
    pub(super) fn collect(&self, families: &mut Families) {
        let labels = &[("station", self.name.as_str())];
        families.gauge(
            names::BMP_STATION_UP,
            "Whether a monitoring station is connected.",
            labels,
            u64::from(self.is_up),
        );
        for (name, help, count) in [
            (
                names::BMP_CONNECTIONS_TOTAL,
                "Connections with a monitoring station that came up.",
                self.connections,
            ),
            (
                names::BMP_TOO_SLOW_TOTAL,
                "Connections that were ended because the monitoring station was too slow.",
                self.too_slow,
            ),
            (
                names::BMP_REFUSED_TOTAL,
                "Connections that were refused: from addresses that are not a monitoring station's.",
                self.refused,
            ),
            (names::BMP_SENT_BYTES_TOTAL, "Octets sent to a monitoring station.", self.octets),
        ] {
            families.counter(name, help, labels, count);
        }
    }
}
