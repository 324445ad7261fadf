//! How long the routes that an ended session left are kept, for each family: the restart time
//! (RFC 4724 §4.2), then the long-lived stale time (RFC 9494 §4.2). Decides only.
//!
//! ```text
//!             lost           restart time over             long-lived time over
//!   Fresh ───────────▶ Stale ────────────────▶ LongLived ──────────────────────▶ Fresh (down)
//!     ▲                  │                       │    │                          Overdue (up)
//!     └── End-of-RIB ────┴───────────────────────┘    └─ lost: stays, and its timer runs on
//! ```
//!
//! Without a long-lived time, the routes are withdrawn when the restart time is over. While the
//! session is up again, `timer` limits the wait for End-of-RIB.

use std::time::Duration;

use crate::types::{Time, Timer};

/// What is kept of a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    #[default]
    Fresh,
    /// Stale routes, for the restart time and until End-of-RIB.
    Stale,
    /// Long-lived stale routes, until their timer expires or End-of-RIB arrives.
    LongLived,
    /// Nothing: the long-lived time was over, or the routes had to give way to others (`memory-max`),
    /// before the End-of-RIB of the present session. If that session ends before its End-of-RIB,
    /// nothing is kept again (RFC 9494 §4.2).
    Overdue,
}

/// Whether the session is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    Up,
    Down,
}

/// What the end of a session offers to keep of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Restart time of the peer's capability 64.
    pub(super) restart: Duration,
    /// Long-lived stale time, zero: none.
    pub(super) long_lived: Duration,
    /// Both sides set the N bit (RFC 8538).
    pub(super) both_notify: bool,
    /// Configured limit of the restart time, and of the wait for End-of-RIB.
    pub(super) stale_time: Duration,
}

/// What happens to the routes when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// All are withdrawn.
    Withdraw,
    /// All are kept.
    Keep,
    /// Those of the session are kept; those that were stale already are withdrawn.
    KeepFresh,
}

/// Families for which a returning peer says that it preserved its forwarding state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preserved {
    /// F bit of capability 64.
    pub(super) restart: bool,
    /// F bit of capability 71, with capability 64.
    pub(super) long_lived: bool,
}

/// What to do with the stale routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// Withdraw all; none has been announced since they became stale.
    Withdraw,
    /// Withdraw those that are not fresh.
    Sweep,
    /// Mark those that are not fresh as long-lived stale.
    BeginLongLived,
}

/// The retention of one family's routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Retention {
    phase: Phase,
    /// While the session is down: the end of the restart time. While it is up: until when
    /// End-of-RIB is awaited.
    timer: Timer,
    /// Limit of `timer` across consecutive restarts (RFC 8538 §4.1).
    until: Option<Time>,
    /// How long routes will be long-lived stale, if the restart time expires.
    long_lived_time: Duration,
    /// Never restarted before End-of-RIB (RFC 9494 §4.2).
    long_lived_timer: Timer,
}

impl Retention {
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether paths that are not fresh are kept across a restart.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self.phase, Phase::Stale | Phase::LongLived)
    }

    pub(super) fn deadlines(&self) -> [Option<Time>; 2] {
        [self.timer.deadline(), self.long_lived_timer.deadline()]
    }

    /// When the present phase ends, if nothing happens before.
    pub(super) fn phase_ends(&self, session: Session) -> Option<Time> {
        match (self.phase, session) {
            (Phase::Fresh | Phase::Overdue, _) => None,
            (Phase::Stale, _) => self.timer.deadline(),
            // A second loss has set `timer` for the routes of the session that was lost.
            (Phase::LongLived, Session::Down) => self.long_lived_timer.deadline(),
            (Phase::LongLived, Session::Up) => self.deadlines().into_iter().flatten().min(),
        }
    }

    /// When stale routes are withdrawn at the latest, if the session does not come up.
    pub(super) fn ends(&self) -> Option<Time> {
        match self.phase {
            Phase::Stale => self.timer.deadline().map(|at| at + self.long_lived_time),
            _ => self.phase_ends(Session::Down),
        }
    }

    /// Nothing stale is left.
    pub(super) fn reset(&mut self) {
        *self = Retention::default();
    }

    /// The session ended. `None`: nothing is to be kept.
    pub(super) fn lost(&mut self, now: Time, terms: Option<Terms>) -> Loss {
        let Some(terms) = terms.filter(|_| self.phase != Phase::Overdue) else {
            self.reset();
            return Loss::Withdraw;
        };
        // The peer says how long it takes to restart; we limit how long routes are used as if
        // nothing had happened.
        let away = terms.restart.min(terms.stale_time);
        if self.phase == Phase::LongLived {
            self.timer.set(now + away);
            return Loss::Keep;
        }
        let was_stale = self.phase == Phase::Stale;
        self.phase = Phase::Stale;
        self.long_lived_time = terms.long_lived;
        let until = *self.until.get_or_insert(now + away + terms.stale_time);
        self.timer.set((now + away).min(until));
        // RFC 4724 §4.2; RFC 8538 §4.1 and RFC 9494 §4.2 keep them.
        let keeps_stale = terms.both_notify || !terms.long_lived.is_zero();
        if was_stale && !keeps_stale { Loss::KeepFresh } else { Loss::Keep }
    }

    /// The session is up again.
    pub(super) fn returned(
        &mut self,
        now: Time,
        stale_time: Duration,
        preserved: Preserved,
    ) -> Step {
        let is_kept = match self.phase {
            Phase::Fresh => return Step::Nothing,
            Phase::Stale => preserved.restart,
            Phase::LongLived => preserved.long_lived,
            Phase::Overdue => true,
        };
        if !is_kept {
            self.reset();
            return Step::Withdraw;
        }
        let at = now + stale_time;
        self.timer.set(self.until.map_or(at, |until| at.min(until)));
        Step::Nothing
    }

    /// End-of-RIB arrived.
    pub(super) fn synchronised(&mut self) -> Step {
        let step = if self.is_stale() { Step::Sweep } else { Step::Nothing };
        self.reset();
        step
    }

    /// The routes that were not announced again are withdrawn before End-of-RIB, for memory: as if
    /// their time were over.
    pub(super) fn cut_short(&mut self) -> Step {
        match self.phase {
            Phase::Fresh | Phase::Overdue => return Step::Nothing,
            Phase::Stale => self.reset(),
            Phase::LongLived => {
                self.long_lived_timer.stop();
                self.phase = Phase::Overdue;
            }
        }
        Step::Sweep
    }

    /// What follows from timers that have expired.
    pub(super) fn expire(&mut self, now: Time, session: Session) -> Step {
        let long_lived_is_over = self.long_lived_timer.expired(now);
        let is_over = self.timer.expired(now);
        match (self.phase, session) {
            _ if !is_over && !long_lived_is_over => Step::Nothing,
            (Phase::Fresh, _) | (Phase::Overdue, Session::Down) => Step::Nothing,
            // RFC 9494 §4.2: without End-of-RIB, the wait for it ends the synchronisation.
            (Phase::Overdue, Session::Up) => {
                self.reset();
                Step::Nothing
            }
            (Phase::Stale | Phase::LongLived, Session::Up) if is_over => {
                self.reset();
                Step::Sweep
            }
            (Phase::Stale | Phase::LongLived, Session::Up) => {
                self.phase = Phase::Overdue;
                Step::Sweep
            }
            (Phase::LongLived, Session::Down) if long_lived_is_over => {
                self.reset();
                Step::Withdraw
            }
            // Routes of a session that ended before its End-of-RIB: the timer runs already.
            (Phase::LongLived, Session::Down) => Step::BeginLongLived,
            (Phase::Stale, Session::Down) if self.long_lived_time.is_zero() => {
                self.reset();
                Step::Withdraw
            }
            (Phase::Stale, Session::Down) => {
                (self.phase, self.until) = (Phase::LongLived, None);
                self.long_lived_timer.set(now + self.long_lived_time);
                Step::BeginLongLived
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART: u64 = 120;
    const STALE_TIME: u64 = 180;
    const LONG_LIVED: u64 = 1000;

    fn at(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    fn terms(restart: u64, long_lived: u64, both_notify: bool) -> Option<Terms> {
        Some(Terms {
            restart: Duration::from_secs(restart),
            long_lived: Duration::from_secs(long_lived),
            both_notify,
            stale_time: Duration::from_secs(STALE_TIME),
        })
    }

    /// An event at a time.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// With restart time, long-lived time and N bit; `None` as restart time: nothing is kept.
        Lost(Option<u64>, u64, bool),
        /// With the F bits of capabilities 64 and 71.
        Returned(bool, bool),
        EndOfRib,
        /// Memory is short.
        Memory,
        /// Timers, while the session is up or down.
        Up,
        Down,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Outcome {
        Loss(Loss),
        Step(Step),
    }

    fn handle(retention: &mut Retention, now: u64, event: Event) -> Outcome {
        let now = at(now);
        Outcome::Step(match event {
            Event::Lost(restart, long_lived, notify) => {
                let terms = restart.and_then(|restart| terms(restart, long_lived, notify));
                return Outcome::Loss(retention.lost(now, terms));
            }
            Event::Returned(restart, long_lived) => {
                let preserved = Preserved { restart, long_lived };
                retention.returned(now, Duration::from_secs(STALE_TIME), preserved)
            }
            Event::EndOfRib => retention.synchronised(),
            Event::Memory => retention.cut_short(),
            Event::Up => retention.expire(now, Session::Up),
            Event::Down => retention.expire(now, Session::Down),
        })
    }

    const LOST: Event = Event::Lost(Some(RESTART), LONG_LIVED, true);
    const RETURNED: Event = Event::Returned(true, true);

    /// A retention in a phase: events at 0 s, 10 s, …; the long-lived timer expires at 1120 s.
    fn in_phase(phase: Phase, session: Session) -> Retention {
        let down: &[(u64, Event)] = match phase {
            Phase::Fresh => &[],
            Phase::Stale => &[(0, LOST)],
            Phase::LongLived => &[(0, LOST), (RESTART, Event::Down)],
            Phase::Overdue => {
                &[(0, LOST), (RESTART, Event::Down), (1100, RETURNED), (1120, Event::Up)]
            }
        };
        let mut retention = Retention::default();
        for (now, event) in down {
            handle(&mut retention, *now, *event);
        }
        if session == Session::Up && phase != Phase::Overdue {
            let now = if phase == Phase::LongLived { 1000 } else { 10 };
            assert_eq!(handle(&mut retention, now, RETURNED), Outcome::Step(Step::Nothing));
        }
        assert_eq!(retention.phase(), phase);
        retention
    }

    /// Every event in every phase: what happens, the next phase, and when it ends.
    #[test]
    fn each_event_in_each_phase() {
        use Outcome::{Loss as L, Step as S};
        use Phase::{Fresh, LongLived, Overdue, Stale};
        const UP: Session = Session::Up;
        const DOWN: Session = Session::Down;
        let nothing = Event::Lost(None, 0, true);
        let plain = |notify| Event::Lost(Some(RESTART), 0, notify);
        type Row = (Phase, Session, u64, Event, Outcome, Phase, Option<u64>);
        let table: [Row; 43] = [
            (Fresh, UP, 50, nothing, L(Loss::Withdraw), Fresh, None),
            (Fresh, UP, 50, plain(false), L(Loss::Keep), Stale, Some(170)),
            (Fresh, UP, 50, LOST, L(Loss::Keep), Stale, Some(170)),
            (Fresh, UP, 50, Event::Lost(Some(4095), 9, true), L(Loss::Keep), Stale, Some(230)),
            (Fresh, UP, 50, Event::EndOfRib, S(Step::Nothing), Fresh, None),
            (Fresh, UP, 5000, Event::Up, S(Step::Nothing), Fresh, None),
            (Fresh, DOWN, 50, RETURNED, S(Step::Nothing), Fresh, None),
            (Fresh, DOWN, 5000, Event::Down, S(Step::Nothing), Fresh, None),
            (Stale, DOWN, 119, Event::Down, S(Step::Nothing), Stale, Some(120)),
            (Stale, DOWN, 120, Event::Down, S(Step::BeginLongLived), LongLived, Some(1120)),
            (Stale, DOWN, 300, Event::Down, S(Step::BeginLongLived), LongLived, Some(1300)),
            (Stale, DOWN, 50, RETURNED, S(Step::Nothing), Stale, Some(230)),
            (Stale, DOWN, 119, RETURNED, S(Step::Nothing), Stale, Some(299)),
            (Stale, DOWN, 50, Event::Returned(true, false), S(Step::Nothing), Stale, Some(230)),
            (Stale, DOWN, 50, Event::Returned(false, true), S(Step::Withdraw), Fresh, None),
            (Stale, UP, 50, Event::EndOfRib, S(Step::Sweep), Fresh, None),
            (Stale, UP, 189, Event::Up, S(Step::Nothing), Stale, Some(190)),
            (Stale, UP, 190, Event::Up, S(Step::Sweep), Fresh, None),
            (Stale, UP, 50, nothing, L(Loss::Withdraw), Fresh, None),
            (Stale, UP, 50, plain(true), L(Loss::Keep), Stale, Some(170)),
            (Stale, UP, 50, plain(false), L(Loss::KeepFresh), Stale, Some(170)),
            (Stale, UP, 50, Event::Lost(Some(9), 9, false), L(Loss::Keep), Stale, Some(59)),
            // However often it restarts: not beyond what the first loss allowed.
            (Stale, UP, 290, LOST, L(Loss::Keep), Stale, Some(300)),
            (LongLived, DOWN, 1119, Event::Down, S(Step::Nothing), LongLived, Some(1120)),
            (LongLived, DOWN, 1120, Event::Down, S(Step::Withdraw), Fresh, None),
            (LongLived, DOWN, 500, RETURNED, S(Step::Nothing), LongLived, Some(680)),
            (LongLived, DOWN, 1000, RETURNED, S(Step::Nothing), LongLived, Some(1120)),
            (
                LongLived,
                DOWN,
                500,
                Event::Returned(false, true),
                S(Step::Nothing),
                LongLived,
                Some(680),
            ),
            (LongLived, DOWN, 500, Event::Returned(true, false), S(Step::Withdraw), Fresh, None),
            (LongLived, UP, 1050, Event::EndOfRib, S(Step::Sweep), Fresh, None),
            (LongLived, UP, 1119, Event::Up, S(Step::Nothing), LongLived, Some(1120)),
            (LongLived, UP, 1120, Event::Up, S(Step::Sweep), Overdue, None),
            (LongLived, UP, 1180, Event::Up, S(Step::Sweep), Fresh, None),
            (Stale, UP, 50, Event::Memory, S(Step::Sweep), Fresh, None),
            (LongLived, UP, 1050, Event::Memory, S(Step::Sweep), Overdue, None),
            (Overdue, UP, 1150, Event::Memory, S(Step::Nothing), Overdue, None),
            (Fresh, UP, 50, Event::Memory, S(Step::Nothing), Fresh, None),
            (LongLived, UP, 1050, nothing, L(Loss::Withdraw), Fresh, None),
            // A second loss before End-of-RIB leaves the timer as it is.
            (LongLived, UP, 1050, LOST, L(Loss::Keep), LongLived, Some(1120)),
            (Overdue, UP, 1150, Event::EndOfRib, S(Step::Nothing), Fresh, None),
            (Overdue, UP, 1279, Event::Up, S(Step::Nothing), Overdue, None),
            (Overdue, UP, 1280, Event::Up, S(Step::Nothing), Fresh, None),
            (Overdue, UP, 1150, LOST, L(Loss::Withdraw), Fresh, None),
        ];
        for (phase, session, now, event, result, next, ends) in table {
            let mut retention = in_phase(phase, session);
            let row = format!("{phase:?} {session:?}, {event:?} at {now} s");
            assert_eq!(handle(&mut retention, now, event), result, "{row}");
            assert_eq!(retention.phase(), next, "{row}");
            let session = match event {
                Event::Lost(..) => DOWN,
                Event::Returned(..) => UP,
                _ => session,
            };
            assert_eq!(retention.phase_ends(session), ends.map(at), "{row}");
            let is_reset = next == Phase::Fresh;
            assert!(!is_reset || retention == Retention::default(), "{row}: {retention:?}");
        }
    }

    #[test]
    fn without_a_restart_time_the_long_lived_time_begins_at_once() {
        let mut retention = Retention::default();
        let lost = Event::Lost(Some(0), LONG_LIVED, true);
        assert_eq!(handle(&mut retention, 7, lost), Outcome::Loss(Loss::Keep));
        assert_eq!(handle(&mut retention, 7, Event::Down), Outcome::Step(Step::BeginLongLived));
        assert_eq!(retention.ends(), Some(at(1007)));
    }

    #[test]
    fn without_a_long_lived_time_the_routes_go_with_the_restart_time() {
        let mut retention = Retention::default();
        handle(&mut retention, 0, Event::Lost(Some(RESTART), 0, true));
        assert_eq!(retention.ends(), Some(at(RESTART)));
        assert_eq!(handle(&mut retention, RESTART, Event::Down), Outcome::Step(Step::Withdraw));
    }

    #[test]
    fn routes_of_a_session_without_end_of_rib_become_long_lived_stale_in_turn() {
        let mut retention = in_phase(Phase::LongLived, Session::Up);
        handle(&mut retention, 1050, Event::Lost(Some(20), LONG_LIVED, true));
        assert_eq!(retention.deadlines(), [Some(at(1070)), Some(at(1120))]);
        assert_eq!(handle(&mut retention, 1070, Event::Down), Outcome::Step(Step::BeginLongLived));
        assert_eq!(handle(&mut retention, 1120, Event::Down), Outcome::Step(Step::Withdraw));
        assert_eq!(retention, Retention::default());
    }
}
