//! `margay debug`: the messages of a peer in the log, for a limited time.
//!
//! A line is written by the peer's task, which never waits for a reader of the log or of the events.
//! Lines have a rate per peer; those beyond it are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bgp_proto::types::Time;
use bgp_proto::wire::{EXTENDED_MAX_LEN, UpdateContext, split_frame};
use tracing::info;

use super::message_text::describe;
use crate::event_names::{MESSAGE_RECEIVED, MESSAGE_SENT};

/// Lines at once, and the time until the next one may follow when these are used up.
const BURST: u32 = 200;
const REFILL: Duration = Duration::from_millis(20);
/// The target of the lines. They have this limit instead of that of the log.
const TARGET: &str = "margay::messages";

/// Until when the messages of a peer are logged. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DebugSwitch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// In microseconds of [`Time`]; 0: they are not.
    until: AtomicU64,
    /// Messages that were not logged because of the limit.
    dropped: AtomicU64,
}

impl DebugSwitch {
    /// Logs messages until this time.
    pub fn set(&self, until: Time) {
        self.0.dropped.store(0, Ordering::Relaxed);
        self.0.until.store(until.as_micros(), Ordering::Release);
    }

    /// Ends it.
    pub fn clear(&self) {
        self.0.until.store(0, Ordering::Release);
    }

    /// Until when messages are logged; `None`: they are not.
    pub fn until(&self, now: Time) -> Option<Time> {
        let until = self.0.until.load(Ordering::Acquire);
        Some(Time::from_micros(until)).filter(|until| *until > now)
    }

    /// Messages that were not logged because of the limit, since it was set.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn is_on(&self, now: Time) -> bool {
        self.0.until.load(Ordering::Relaxed) > now.as_micros()
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Received,
    Sent,
}

/// The part of a peer's task that logs its messages.
pub(super) struct Debug {
    switch: DebugSwitch,
    left: u32,
    filled: Time,
    /// Messages that were not logged since the last one that was.
    omitted: u64,
}

impl Debug {
    pub(super) fn new(switch: DebugSwitch) -> Debug {
        Debug { switch, left: BURST, filled: Time::ZERO, omitted: 0 }
    }

    /// Whether messages are logged. Costs one load.
    pub(super) fn is_on(&self, now: Time) -> bool {
        self.switch.is_on(now)
    }

    /// Logs the complete messages in `octets`.
    pub(super) fn log(
        &mut self,
        now: Time,
        peer: &str,
        way: Way,
        octets: &[u8],
        context: Option<&UpdateContext>,
    ) {
        let mut rest = octets;
        while let Ok(Some(frame)) = split_frame(rest, EXTENDED_MAX_LEN) {
            rest = rest.get(frame.bytes.len()..).unwrap_or_default();
            if !self.take(now) {
                continue;
            }
            let text = describe(frame, context);
            let omitted = std::mem::take(&mut self.omitted);
            let before = match omitted {
                0 => String::new(),
                n => format!(" ({n} messages before it are not shown)"),
            };
            match way {
                Way::Received => {
                    info!(target: TARGET, event = MESSAGE_RECEIVED, peer, omitted, "received {text}{before}");
                }
                Way::Sent => {
                    info!(target: TARGET, event = MESSAGE_SENT, peer, omitted, "sent {text}{before}");
                }
            }
        }
    }

    /// Counts messages that are not logged.
    pub(super) fn omit(&mut self, messages: u64) {
        self.omitted += messages;
        self.switch.0.dropped.fetch_add(messages, Ordering::Relaxed);
    }

    fn take(&mut self, now: Time) -> bool {
        let refill = u64::try_from(REFILL.as_micros()).unwrap_or(u64::MAX);
        let gained = u64::try_from(now.since(self.filled).as_micros()).unwrap_or(u64::MAX) / refill;
        if gained > 0 {
            self.left =
                u32::try_from(gained).unwrap_or(u32::MAX).saturating_add(self.left).min(BURST);
            self.filled = now;
        }
        if self.left == 0 {
            self.omit(1);
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_beyond_the_rate_are_counted_and_the_switch_ends_by_itself() {
        let switch = DebugSwitch::default();
        let mut debug = Debug::new(switch.clone());
        let at = |millis: u64| Time::from_micros(1000 * millis);
        assert!(!debug.is_on(at(1)));
        switch.set(at(500));
        assert!(debug.is_on(at(499)) && !debug.is_on(at(500)));
        assert_eq!((switch.until(at(1)), switch.until(at(500))), (Some(at(500)), None));
        let mut keepalive = vec![0xFF; 16];
        keepalive.extend([0, 19, 4]);
        let many = keepalive.repeat(BURST as usize + 7);
        debug.log(at(100), "tor", Way::Received, &many, None);
        assert_eq!((debug.left, debug.omitted, switch.dropped()), (0, 7, 7));
        debug.log(at(119), "tor", Way::Received, &keepalive, None);
        debug.log(at(120), "tor", Way::Sent, &keepalive, None);
        assert_eq!((debug.left, debug.omitted, switch.dropped()), (0, 0, 8));
        switch.clear();
        assert!(!debug.is_on(at(121)));
    }
}
