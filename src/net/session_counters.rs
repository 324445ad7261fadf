//! Counters over all sessions: why they ended, how long writing took, and why connections were
//! refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bgp_proto::session::Close;
use bgp_proto::wire::Code;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts};
use tokio::time::Instant;

use super::admission::Refusal;
use super::refused_callers::{RefusedCaller, RefusedCallers};
use crate::metric_names as names;

/// Upper bounds in seconds. Writing never waits for a peer, so a slow write means a slow machine.
const BUCKETS: [f64; 8] = [0.000_02, 0.000_1, 0.000_5, 0.002_5, 0.01, 0.05, 0.25, 1.0];

/// Why established sessions end, as label values of metrics. A fixed set, whatever peers send.
const REASONS: [&str; 21] = [
    "admin-shutdown",
    "admin-reset",
    "deconfigured",
    "configuration-change",
    "prefix-limit",
    "out-of-resources",
    "graceful-stop",
    "collision",
    "replaced",
    "rejected",
    "hold-timer",
    "send-hold-timer",
    "protocol-error",
    "received-admin-shutdown",
    "received-prefix-limit",
    "received-hold-timer",
    "received-cease",
    "received-error",
    "connection-lost",
    "received-deconfigured",
    "bfd-down",
];

/// NOTIFICATION error codes of RFC 4271 §4.5: Cease, and Hold Timer Expired.
const CEASE: u8 = 6;
const HOLD_TIMER: u8 = 4;

/// The only mapping from the end of a session to its label value.
fn reason(close: &Close) -> &'static str {
    match close {
        Close::Shutdown { .. } => "admin-shutdown",
        Close::Reset { .. } => "admin-reset",
        Close::Deconfigured => "deconfigured",
        Close::ConfigurationChange => "configuration-change",
        Close::PrefixLimit { .. } => "prefix-limit",
        Close::OutOfResources => "out-of-resources",
        Close::GracefulStop => "graceful-stop",
        Close::Collision => "collision",
        Close::Replaced => "replaced",
        Close::Rejected => "rejected",
        Close::BfdDown { .. } => "bfd-down",
        Close::HoldTimerExpired => "hold-timer",
        Close::SendHoldTimerExpired => "send-hold-timer",
        Close::Protocol(_) | Close::OpenRefused { .. } => "protocol-error",
        Close::Received(notification) => received(notification.code),
        Close::Transport { .. } => "connection-lost",
    }
}

fn received(code: Code) -> &'static str {
    match code {
        Code::ADMINISTRATIVE_SHUTDOWN => "received-admin-shutdown",
        Code::MAXIMUM_PREFIXES => "received-prefix-limit",
        Code::PEER_DECONFIGURED => "received-deconfigured",
        Code { code: CEASE, .. } => "received-cease",
        Code { code: HOLD_TIMER, .. } => "received-hold-timer",
        _ => "received-error",
    }
}

/// Counters over all sessions. Clones share them.
#[derive(Clone)]
pub struct SessionCounters {
    ends: Arc<[AtomicU64; REASONS.len()]>,
    refusals: Arc<[AtomicU64; Refusal::ALL.len()]>,
    callers: RefusedCallers,
    flush: Histogram,
}

impl Default for SessionCounters {
    fn default() -> Self {
        let options = HistogramOpts::new(
            names::FLUSH_DURATION_SECONDS,
            "Time that one write of what waited for a peer took: system calls, without waiting for \
             the peer. Turns in which nothing was written are not counted.",
        );
        let flush = Histogram::with_opts(options.buckets(BUCKETS.to_vec()))
            .expect("the name and the ascending buckets are constants");
        let refusals = Arc::new([const { AtomicU64::new(0) }; Refusal::ALL.len()]);
        SessionCounters {
            ends: Arc::new([const { AtomicU64::new(0) }; REASONS.len()]),
            refusals,
            callers: RefusedCallers::default(),
            flush,
        }
    }
}

impl SessionCounters {
    pub(super) fn session_ended(&self, close: &Close) {
        let word = reason(close);
        let counter = REASONS.iter().zip(&*self.ends).find(|(known, _)| **known == word);
        if let Some((_, counter)) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a connection that was refused before a peer's task saw it.
    pub fn connection_refused(&self, from: IpAddr, why: Refusal) {
        self.callers.note(from, why, Instant::now());
        if let Some(counter) = self.refusals.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections that were refused, by reason. Reasons with a count of zero are included.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let counts = self.refusals.iter().map(|count| count.load(Ordering::Relaxed));
        Refusal::ALL.into_iter().map(Refusal::word).zip(counts).collect()
    }

    /// The addresses whose connections were refused most recently, the last one first.
    pub fn refused_callers(&self) -> Vec<RefusedCaller> {
        self.callers.list()
    }

    pub(super) fn flushed(&self, took: Duration) {
        self.flush.observe(took.as_secs_f64());
    }

    /// Established sessions that ended, by reason. Reasons with a count of zero are included.
    pub fn ends(&self) -> Vec<(&'static str, u64)> {
        let counts = self.ends.iter().map(|count| count.load(Ordering::Relaxed));
        REASONS.into_iter().zip(counts).collect()
    }

    /// The histogram of the duration of writes.
    pub fn collect(&self) -> Vec<MetricFamily> {
        self.flush.collect()
    }
}

#[cfg(test)]
mod tests {
    use bgp_proto::types::Family;
    use bgp_proto::wire::Notification;

    use super::*;

    /// Every reason for which a session can end has a counter of its own.
    #[test]
    fn every_end_is_counted_under_its_own_reason() {
        let received = |code, subcode| Close::Received(Notification::new(Code { code, subcode }));
        let closes = [
            Close::Shutdown { text: String::new() },
            Close::Reset { text: String::new() },
            Close::Deconfigured,
            Close::ConfigurationChange,
            Close::PrefixLimit { family: Family::Ipv4, bound: 1 },
            Close::OutOfResources,
            Close::GracefulStop,
            Close::Collision,
            Close::Replaced,
            Close::Rejected,
            Close::BfdDown { text: String::new() },
            Close::HoldTimerExpired,
            Close::SendHoldTimerExpired,
            Close::Protocol(Notification::new(Code { code: 3, subcode: 1 })),
            received(6, 2),
            received(6, 1),
            received(6, 3),
            received(6, 7),
            received(4, 0),
            received(3, 1),
            Close::Transport { text: "connection reset".into() },
        ];
        let session_counters = SessionCounters::default();
        closes.iter().for_each(|close| session_counters.session_ended(close));
        let ends = session_counters.ends();
        assert_eq!(ends.len(), closes.len());
        for (reason, count) in ends {
            assert_eq!(count, 1, "{reason}");
        }
    }
}
