//! Times as text.

use std::time::SystemTime;

use jiff::Timestamp;

/// Formats a time as in RFC 3339, in UTC, to the second: `2026-11-23T07:15:04Z`. A time outside the
/// years -9999 to 9999 is written as the beginning of 1970.
pub fn rfc3339(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a time as [`rfc3339`], to the millisecond: `2026-11-23T07:15:04.250Z`.
pub fn rfc3339_millis(at: SystemTime) -> String {
    let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Parses a time that one of these functions has formatted.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn known_instants() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        let at = UNIX_EPOCH + Duration::from_millis(951_782_399_050);
        assert_eq!(rfc3339_millis(at), "2000-02-28T23:59:59.050Z");
        assert_eq!(from_rfc3339("2000-02-28T23:59:59.050Z"), Some(at));
        assert_eq!(from_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1969-12-31T23:59:59Z");
        let in_a_million_years = UNIX_EPOCH + Duration::from_secs(31_557_600_000_000);
        assert_eq!(rfc3339(in_a_million_years), "1970-01-01T00:00:00Z");
    }
}
