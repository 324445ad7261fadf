//! When to connect: admin state, retry, idle hold.

use super::{Action, Close, Offer, Peer, Slot, State, Tcp};
use crate::session::PassiveMode;
use crate::types::{Time, Timer};

/// The administrative state of the peer, including the idle hold.
pub(super) enum Admin {
    /// Idle until [`Command::Start`](super::Command::Start).
    Stopped,
    /// Idle for a while (RFC 4271 §8.1.1, IdleHoldTimer). Connections are refused.
    IdleHold { until: Timer },
    /// Trying to establish a session, or having one.
    Running { dial: Dial },
}

/// Progress of our own attempts to connect.
pub(super) enum Dial {
    /// Nothing to do: passive, dialled already, or established.
    Resting,
    /// Active: waiting for the retry timer.
    Waiting { retry: Timer },
    /// Connect: the host dials, since when.
    Connecting { since: Time, deadline: Timer },
}

impl Admin {
    /// The state while there is no connection.
    pub(super) fn state(&self) -> State {
        match self {
            Admin::Stopped | Admin::IdleHold { .. } => State::Idle,
            Admin::Running { dial: Dial::Connecting { .. } } => State::Connect,
            Admin::Running { .. } => State::Active,
        }
    }

    pub(super) fn deadline(&self) -> Option<(Time, &'static str)> {
        let (timer, name) = match self {
            Admin::Stopped | Admin::Running { dial: Dial::Resting } => return None,
            Admin::IdleHold { until } => (until, "idle hold"),
            Admin::Running { dial: Dial::Waiting { retry } } => (retry, "connect retry"),
            Admin::Running { dial: Dial::Connecting { deadline, .. } } => (deadline, "connect"),
        };
        timer.deadline().map(|at| (at, name))
    }

    /// Deadlines of the retry and of the idle hold timer.
    pub(super) fn timers(&self) -> (Option<Time>, Option<Time>) {
        match self {
            Admin::Running { dial: Dial::Waiting { retry } } => (retry.deadline(), None),
            Admin::IdleHold { until } => (None, until.deadline()),
            Admin::Stopped | Admin::Running { .. } => (None, None),
        }
    }

    fn is_connecting(&self) -> bool {
        self.connecting_since().is_some()
    }

    fn connecting_since(&self) -> Option<Time> {
        match self {
            Admin::Running { dial: Dial::Connecting { since, .. } } => Some(*since),
            _ => None,
        }
    }
}

impl Peer {
    /// ManualStart (events 1 and 4). It also ends an idle hold.
    pub(super) fn start(&mut self, now: Time) {
        if matches!(self.admin, Admin::Running { .. }) {
            return;
        }
        if let Some(why) = &self.config.idle {
            let reason = Close::Transport { text: why.to_string() };
            self.last_error = Some(reason.to_error(now));
            return;
        }
        self.backoff.reset();
        self.offer = Offer::Full;
        self.has_dialled = false;
        self.begin(now);
    }

    /// ManualStop and AutomaticStop (events 2 and 8).
    pub(super) fn stop(&mut self, now: Time, reason: Close) {
        self.stop_dialing();
        self.admin = Admin::Stopped;
        self.close_all(now, &reason);
        self.backoff.reset();
    }

    /// Ends every connection, and reconnects by the ordinary rules. For an exceeded limit the idle
    /// hold begins even if the session has just ended for another reason.
    pub(super) fn restart_session(&mut self, now: Time, reason: Close) {
        if self.accepts() {
            self.close_all(now, &reason);
        }
        if self.accepts() && reason.holds_idle() {
            self.hold_idle(now);
        }
    }

    /// Dials at once if only the retry timer is pending: the host has reason to expect success.
    pub(super) fn dial_now(&mut self, now: Time) {
        if matches!(self.admin, Admin::Running { dial: Dial::Waiting { .. } }) {
            self.begin(now);
        }
    }

    /// An operator's request: resets the back-off, and ends an idle hold or the wait for the retry
    /// timer.
    pub(super) fn retry(&mut self, now: Time) {
        let waits = matches!(
            self.admin,
            Admin::IdleHold { .. } | Admin::Running { dial: Dial::Waiting { .. } }
        );
        if waits {
            self.backoff.reset();
            self.begin(now);
        }
    }

    /// [`Action::Connect`] failed.
    pub(super) fn fail_dial(&mut self, now: Time, text: &str) {
        let Some(since) = self.admin.connecting_since() else { return };
        self.stats.connect_failures += 1;
        self.last_error = Some(Close::Transport { text: text.to_owned() }.to_error(now));
        self.backoff.count_failure();
        self.admin = Admin::Running { dial: Dial::Resting };
        self.plan_dial_after(since, now);
    }

    /// [`Action::Connect`] succeeded. Returns whether it was still wanted.
    pub(super) fn finish_dial(&mut self) -> bool {
        let asked = self.admin.is_connecting();
        if asked {
            self.admin = Admin::Running { dial: Dial::Resting };
        }
        asked
    }

    pub(super) fn expire_dial(&mut self, now: Time) {
        if self.admin.deadline().is_none_or(|(at, _)| at > now) {
            return;
        }
        match self.admin {
            Admin::Stopped | Admin::Running { dial: Dial::Resting } => {}
            Admin::IdleHold { .. } | Admin::Running { dial: Dial::Waiting { .. } } => {
                self.begin(now);
            }
            // Differs from RFC: 4271 §8.2.2 dials again at once when the timer of Connect expires;
            // here a host that does not answer is retried after the back-off's delay, unless the
            // pace is steady.
            Admin::Running { dial: Dial::Connecting { .. } } => {
                self.outbox.push(Action::AbortConnect);
                // A segment with another key is dropped without an answer (RFC 2385 §2.0).
                let text = match self.config.security.md5 {
                    Some(_) => "no answer in time: check the password on both sides",
                    None => "no answer in time",
                };
                self.fail_dial(now, text);
            }
        }
    }

    /// Aborts an attempt to connect, and stops the retry timer.
    pub(super) fn stop_dialing(&mut self) {
        if self.admin.is_connecting() {
            self.outbox.push(Action::AbortConnect);
        }
        if let Admin::Running { dial } = &mut self.admin {
            *dial = Dial::Resting;
        }
    }

    /// Aborts an attempt that is in progress, and plans the next one.
    pub(super) fn give_up_dialling(&mut self, now: Time) {
        if self.admin.is_connecting() {
            self.stop_dialing();
            self.plan_dial(now);
        }
    }

    /// Sets the retry timer, if we may dial and are not doing so already.
    pub(super) fn plan_dial(&mut self, now: Time) {
        self.plan_dial_after(now, now);
    }

    /// The same after an attempt that began at `since`.
    fn plan_dial_after(&mut self, since: Time, now: Time) {
        let resting = matches!(self.admin, Admin::Running { dial: Dial::Resting });
        if resting && self.may_dial() {
            let mut retry = Timer::stopped();
            retry.set(self.backoff.retry_at(since, now, &mut self.jitter));
            self.admin = Admin::Running { dial: Dial::Waiting { retry } };
        }
    }

    /// Goes idle for the back-off's delay; existing connections are closed, new ones refused.
    pub(super) fn hold_idle(&mut self, now: Time) {
        self.stop_dialing();
        let mut until = Timer::stopped();
        until.set(self.backoff.retry_at(now, now, &mut self.jitter));
        self.admin = Admin::IdleHold { until };
        self.close_all(now, &Close::Rejected);
    }

    /// Whether connections from the peer are accepted at all.
    pub(super) fn accepts(&self) -> bool {
        matches!(self.admin, Admin::Running { .. })
    }

    fn begin(&mut self, now: Time) {
        self.admin = Admin::Running { dial: Dial::Resting };
        self.dial(now);
    }

    fn dial(&mut self, now: Time) {
        if !self.may_dial() {
            return;
        }
        if self.conns.iter().flatten().any(|c| c.state() == State::OpenConfirm) {
            // The peer's connection is about to become the session.
            return self.plan_dial(now);
        }
        let mut deadline = Timer::stopped();
        deadline.set(now + self.backoff.connect_time());
        self.admin = Admin::Running { dial: Dial::Connecting { since: now, deadline } };
        self.has_dialled = true;
        self.outbox.push(Action::Connect);
    }

    /// Whether we may dial: not for a passive peer, nor if our connection or the session exists.
    fn may_dial(&self) -> bool {
        let is_ours = match self.config.passive {
            PassiveMode::Active => true,
            PassiveMode::Passive => false,
            PassiveMode::AtStart => !self.has_dialled,
        };
        is_ours && self.conn(Slot::Outgoing).is_none() && self.established().is_none()
    }

    fn close_all(&mut self, now: Time, reason: &Close) {
        for slot in Slot::ALL {
            self.end(now, slot, reason.clone(), Tcp::Open);
        }
    }
}
