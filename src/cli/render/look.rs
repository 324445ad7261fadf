//! The style of human-readable output: width, colours, times.

use std::time::{Duration, SystemTime};

use crate::ctl::bird::LocalClock;
use crate::ctl::from_rfc3339;

/// How times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Times {
    /// How long ago: `3m05s`.
    #[default]
    Relative,
    /// The host's local time: `2026-11-23 05:12:49`.
    Absolute,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub(in crate::cli) enum Colour {
    On,
    #[default]
    Off,
}

/// The style of human-readable output.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Look {
    /// The width of the terminal; `None` if the output is not a terminal: nothing is cut or
    /// wrapped.
    pub(in crate::cli) width: Option<usize>,
    /// Whether colours are used.
    pub(in crate::cli) colour: Colour,
    times: Times,
    clock: LocalClock,
}

impl Look {
    /// A style with the host's time and time zone.
    pub(in crate::cli) fn new(width: Option<usize>, colour: Colour, times: Times) -> Self {
        Look { width, colour, times, clock: LocalClock::host() }
    }

    pub(super) fn has_colour(&self) -> bool {
        self.colour == Colour::On
    }

    /// The time `seconds` ago, in one column.
    pub(super) fn since(&self, seconds: u64) -> String {
        match self.times {
            Times::Relative => age(seconds),
            Times::Absolute => self.at(seconds),
        }
    }

    /// The time `seconds` ago, as an age and as a local time.
    pub(super) fn since_in_full(&self, seconds: u64) -> String {
        format!("{} (since {})", age(seconds), self.at(seconds))
    }

    /// A time as the host's local time.
    pub(super) fn time(&self, at: SystemTime) -> String {
        self.clock.long(at)
    }

    /// A time as the daemon writes it (RFC 3339) as the host's local time; other texts as they are.
    pub(super) fn time_of(&self, text: &str) -> String {
        from_rfc3339(text).map_or_else(|| text.to_owned(), |at| self.time(at))
    }

    fn at(&self, seconds: u64) -> String {
        let began = self.clock.now().checked_sub(Duration::from_secs(seconds));
        self.clock.long(began.unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

/// An age in at most two units: `5s`, `3m05s`, `2h10m`, `4d07h`.
pub(in crate::cli) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
impl Look {
    /// The style of output to a pipe, at a fixed time.
    pub(super) fn piped(times: Times) -> Self {
        // 2026-11-23 05:12:49 UTC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_410_769);
        Look { width: None, colour: Colour::Off, times, clock: LocalClock::utc(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86_399, "23h59m"),
            (86_400, "1d00h"),
            (900_000, "10d10h"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn times_are_ages_or_local_times() {
        assert_eq!(Look::piped(Times::Relative).since(61), "1m01s");
        let look = Look::piped(Times::Absolute);
        assert_eq!(look.since(61), "2026-11-23 05:11:48");
        assert_eq!(look.since_in_full(61), "1m01s (since 2026-11-23 05:11:48)");
    }
}
