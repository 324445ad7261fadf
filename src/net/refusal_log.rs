//! Log lines about refused connections, limited so that whoever opens them cannot fill the log.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use bgp_proto::types::{LogLimit, Time, off_interface};
use tokio::time::Instant;
use tracing::warn;

use super::Refusal;
use crate::event_names::CONNECTION_REFUSED;

/// At most one line in this time about connections that are refused for the same reason.
const INTERVAL: Duration = Duration::from_secs(60);

/// Logs each reason at most once per [`INTERVAL`]; the metrics count every refusal.
pub(crate) struct RefusalLog {
    epoch: Instant,
    of_reason: [LogLimit; Refusal::ALL.len()],
}

impl Default for RefusalLog {
    fn default() -> Self {
        let of_reason = [const { LogLimit::new(1, INTERVAL) }; Refusal::ALL.len()];
        RefusalLog { epoch: Instant::now(), of_reason }
    }
}

impl RefusalLog {
    /// Logs that a connection was refused; `text` follows "connection from … refused: ".
    pub(crate) fn note(&mut self, from: IpAddr, why: Refusal, text: impl Display) {
        let now = Time::ZERO + self.epoch.elapsed();
        if let Some(more) = self.admit(why, now) {
            let from = match off_interface(from) {
                (from, Some(ifindex)) => format!("{from}%{ifindex}"),
                (from, None) => from.to_string(),
            };
            let more = match more {
                0 => String::new(),
                more => format!("; {more} more since the last line for this reason"),
            };
            warn!(event = CONNECTION_REFUSED, "connection from {from} refused: {text}{more}");
        }
    }

    /// `None` if no line is due; otherwise how many refusals were not logged since the last line.
    fn admit(&mut self, why: Refusal, now: Time) -> Option<u64> {
        self.of_reason.get_mut(why as usize)?.admit(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_once_a_minute_with_the_number_left_out() {
        let mut log = RefusalLog::default();
        let at = |secs| Time::ZERO + Duration::from_secs(secs);
        assert_eq!(log.admit(Refusal::RangeFull, at(0)), Some(0));
        assert_eq!(log.admit(Refusal::Stranger, at(0)), Some(0), "another reason");
        for _ in 0..1000 {
            assert_eq!(log.admit(Refusal::RangeFull, at(59)), None);
        }
        assert_eq!(log.admit(Refusal::RangeFull, at(60)), Some(1000));
        assert_eq!(log.admit(Refusal::RangeFull, at(120)), Some(0));
    }
}
