//! Rate limit for log lines.

use std::time::Duration;

use super::Time;

/// Admits a number of lines per period and counts the others: a peer that can cause a line can
/// cause it often, and must not be able to fill the log. A period begins with the first line that
/// it admits.
#[derive(Clone, Debug)]
pub struct LogLimit {
    lines_max: u32,
    period: Duration,
    /// When the period began; `None`: nothing was admitted yet.
    began: Option<Time>,
    /// Lines admitted in this period.
    admitted: u32,
    /// Lines suppressed since the last one that was admitted.
    suppressed: u64,
}

impl LogLimit {
    /// At most `lines_max` lines in each `period`.
    pub const fn new(lines_max: u32, period: Duration) -> Self {
        LogLimit { lines_max, period, began: None, admitted: 0, suppressed: 0 }
    }

    /// Whether a line may be written at `now`. Returns how many were suppressed since the previous
    /// one, which the line should state; `None` if this one is suppressed as well.
    #[must_use]
    pub fn admit(&mut self, now: Time) -> Option<u64> {
        if self.began.is_none_or(|began| now.since(began) >= self.period) {
            (self.began, self.admitted) = (Some(now), 0);
        }
        if self.admitted >= self.lines_max {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn one_line_a_minute_says_how_many_were_suppressed() {
        let mut limit = LogLimit::new(1, Duration::from_secs(60));
        assert_eq!(limit.admit(at(7)), Some(0));
        for _ in 0..1000 {
            assert_eq!(limit.admit(at(66)), None);
        }
        assert_eq!(limit.admit(at(67)), Some(1000));
        assert_eq!(limit.admit(at(500)), Some(0));
        assert_eq!(limit.admit(at(559)), None, "the period began with the last line");
        assert_eq!(limit.admit(at(560)), Some(1));
    }

    #[test]
    fn several_lines_fit_a_period_and_only_its_first_has_a_count() {
        let mut limit = LogLimit::new(3, Duration::from_secs(60));
        let seen: Vec<_> = (0..5).map(|secs| limit.admit(at(secs))).collect();
        assert_eq!(seen, [Some(0), Some(0), Some(0), None, None]);
        assert_eq!(limit.admit(at(60)), Some(2));
        assert_eq!(limit.admit(at(61)), Some(0));
    }
}
