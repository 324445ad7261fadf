//! The thread's own delay, which must not count as a failure of a peer.
//!
//! A thread that was late reads what waits on its sockets before it lets a detection time expire.
//! That is not enough when the whole machine stood still, as a virtual machine does that gets no
//! processor: packets are then still on their way from the network adapter, and neighbours in the
//! same machine have sent none. Detection times are therefore held for a moment after a delay.

use std::time::Duration;

use bgp_proto::types::Time;
use tracing::warn;

use super::priority::Scheduling;

/// The least delay after which detection times are held. Above that of a busy turn.
const LATE: Duration = Duration::from_millis(10);
/// How long they are held after a delay.
const HOLD: Duration = Duration::from_millis(10);
/// How long they are held at most while packets are left to be read. A flood must not hold them for
/// ever.
const BACKLOG_HOLD: Duration = Duration::from_millis(50);
/// The least delay that is logged.
const TOLD_MIN: Duration = Duration::from_millis(20);

/// Whether detection times that have passed expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detection {
    /// They do.
    Expires,
    /// Not in this turn.
    Held,
}

/// Whether the sockets of established sessions were read until they were empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// They were.
    None,
    /// Packets may be left.
    Left,
}

/// The delays so far.
#[derive(Debug, Default)]
pub(super) struct Delay {
    longest: Duration,
    told: Duration,
    held_since: Option<Time>,
}

impl Delay {
    /// The longest delay.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// A turn at `now` handles its first deadline with this delay, after it has read the sockets.
    pub(super) fn judge(&mut self, now: Time, late: Duration, backlog: Backlog) -> Detection {
        self.longest = self.longest.max(late);
        if self.held_since.is_none() && (late >= LATE || backlog == Backlog::Left) {
            self.held_since = Some(now);
        }
        let Some(since) = self.held_since else { return Detection::Expires };
        let limit = if backlog == Backlog::Left { BACKLOG_HOLD } else { HOLD };
        if now.since(since) < limit {
            return Detection::Held;
        }
        self.held_since = None;
        Detection::Expires
    }

    /// Logs a delay that is at least twice the last one that was logged, which bounds how many are.
    pub(super) fn log(&mut self, scheduling: Scheduling) {
        if self.longest < TOLD_MIN.max(self.told * 2) {
            return;
        }
        self.told = self.longest;
        let hint = match scheduling {
            Scheduling::RealTime => {
                "the machine or its virtual processor stood still, or many sessions began at once"
            }
            Scheduling::Nice | Scheduling::Normal => {
                "the machine is busy, and the thread has no real-time priority"
            }
        };
        warn!(
            "BFD's thread was {} ms late: {hint}; peers with a detection time below that have seen a \
             failure",
            self.longest.as_millis()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn detection_times_are_held_after_a_delay_and_no_longer() {
        let mut delay = Delay::default();
        assert_eq!(delay.judge(at(0), ms(5), Backlog::None), Detection::Expires);
        assert_eq!(delay.judge(at(200), ms(190), Backlog::None), Detection::Held);
        assert_eq!(delay.judge(at(204), ms(1), Backlog::None), Detection::Held);
        assert_eq!(delay.judge(at(210), ms(1), Backlog::None), Detection::Expires);
        assert_eq!(delay.longest(), ms(190));
        // A thread that is late in every turn does not hold them for ever.
        let turns = (0..10).map(|turn| delay.judge(at(300 + 12 * turn), ms(12), Backlog::None));
        assert_eq!(turns.filter(|detection| *detection == Detection::Expires).count(), 5);
    }

    #[test]
    fn a_flood_holds_detection_times_for_a_while_only() {
        let mut delay = Delay::default();
        let turns = (0..200).map(|turn| delay.judge(at(turn), ms(1), Backlog::Left));
        let expired = turns.filter(|detection| *detection == Detection::Expires).count();
        assert_eq!(expired, 3, "every 51 ms of 200");
        // What waited has been read.
        assert_eq!(delay.judge(at(300), ms(1), Backlog::None), Detection::Expires);
    }
}
