//! What the log says of connections that were closed at once: whoever opens them must not fill it.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::Refusal;

/// One line per this time about connections that are refused for the same reason.
const INTERVAL: Duration = Duration::from_secs(60);

/// Says each reason once in a while; the metrics count every one.
#[derive(Default)]
pub(crate) struct RefusalLog {
    of_reason: [Untold; Refusal::ALL.len()],
}

#[derive(Clone, Copy, Default)]
struct Untold {
    last: Option<Instant>,
    suppressed: u64,
}

impl RefusalLog {
    /// A connection was refused; `text` is for people, behind "connection from … refused: ".
    pub(crate) fn note(&mut self, from: IpAddr, why: Refusal, text: impl Display) {
        if let Some(more) = self.is_due(why, Instant::now()) {
            warn!("connection from {from} refused: {text} ({more} more since the last such line)");
        }
    }

    /// Whether to say it now, and how many were not said since the last time.
    fn is_due(&mut self, why: Refusal, now: Instant) -> Option<u64> {
        let untold = self.of_reason.get_mut(why as usize)?;
        if untold.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            untold.suppressed += 1;
            return None;
        }
        untold.last = Some(now);
        Some(std::mem::take(&mut untold.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_a_minute_with_the_number_of_the_others() {
        let mut log = RefusalLog::default();
        let began = Instant::now();
        let at = |secs| began + Duration::from_secs(secs);
        assert_eq!(log.is_due(Refusal::RangeFull, at(0)), Some(0));
        assert_eq!(log.is_due(Refusal::Stranger, at(0)), Some(0), "another reason");
        for _ in 0..1000 {
            assert_eq!(log.is_due(Refusal::RangeFull, at(59)), None);
        }
        assert_eq!(log.is_due(Refusal::RangeFull, at(60)), Some(1000));
        assert_eq!(log.is_due(Refusal::RangeFull, at(120)), Some(0));
    }
}
