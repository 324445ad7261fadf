//! The state machine of one session, RFC 5880 §6.8.
//!
//! | timer      | set by                                  | on expiry                                  |
//! |------------|-----------------------------------------|--------------------------------------------|
//! | transmit   | every periodic packet, jittered         | the next one                               |
//! | detection  | every accepted packet                   | Init, Up → Down; the peer's state is reset |
//! | sequence   | the detection timer's expiry            | any sequence number is accepted (RFC 5880 §6.8.1) |
//!
//! - Differs from RFC: §6.8.3 starts a Poll Sequence for every change of the timers. Here one
//!   starts only while the session is Up, and with each transition to Up: in other states the
//!   timers apply at once and every packet carries them.
//! - A change of state or diagnostic is sent at once (§6.8.7), and answers to Poll at most once per
//!   [`ANSWER_GAP`], so that a peer cannot make us send faster than that.

mod interval;
mod random;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::auth::AuthKind;
use super::{Config, Diag, Discard, Discriminator, Flags, Packet, Received, Role, State};
use crate::types::{Time, Timer};
use interval::Interval;
use random::Random;

/// RFC 5880 §6.8.3: no shorter interval is used while the session is not Up.
const SLOW_START: Duration = Duration::from_secs(1);
/// Shortest interval between two answers to Poll. The peer polls until it receives one.
const ANSWER_GAP: Duration = Duration::from_millis(2);
/// bfd.RemoteMinRxInterval before the first packet (RFC 5880 §6.8.1).
const UNHEARD_MIN_RX: Duration = Duration::from_micros(1);

/// Administrative state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// The session runs.
    Enabled,
    /// AdminDown is sent, and received packets are discarded.
    Disabled,
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The handshake advanced.
    Handshake,
    /// No packet arrived within the detection time.
    DetectionTimeExpired,
    /// The peer left Up.
    NeighborDown,
    /// The peer's operator took the session down; this says nothing about the path.
    NeighborAdminDown,
    /// [`Session::set_admin`].
    Admin,
}

/// One change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// What caused it.
    pub cause: Cause,
}

/// The peer's last packet; reset when the detection time expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Remote {
    state: State,
    discr: Option<Discriminator>,
    diag: Diag,
    flags: Flags,
    detect_mult: u8,
    desired_min_tx: Duration,
    required_min_rx: Duration,
}

impl Remote {
    const UNHEARD: Remote = Remote {
        state: State::Down,
        discr: None,
        diag: Diag::NONE,
        flags: Flags::NONE,
        detect_mult: 0,
        desired_min_tx: Duration::ZERO,
        required_min_rx: UNHEARD_MIN_RX,
    };
}

/// A Poll Sequence, RFC 5880 §6.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    Idle,
    /// P is set until F arrives.
    Active,
    /// As Active; the timers have changed again, so F does not confirm them.
    Outdated,
    /// One packet without P, so that a late F is not mistaken for the answer to the next Poll
    /// Sequence.
    Gap,
}

/// What has to be sent without waiting for the transmit timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgent {
    Nothing,
    /// State or diagnostic changed.
    News,
    /// The peer polled.
    Final,
}

/// Counters since the session was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets sent.
    pub sent: u64,
    /// Packets accepted.
    pub received: u64,
    /// Packets of this session that were discarded.
    pub discarded: u64,
    /// Transitions to Up.
    pub ups: u64,
    /// Transitions from Up.
    pub downs: u64,
    /// Mean deviation of the time between two packets, smoothed as in RFC 3550 §6.4.1.
    pub jitter: Duration,
    /// Longest time between two packets while Up, since the last transition to Up.
    pub gap_max: Duration,
}

/// State of a session, as `show bfd` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Our state.
    pub state: State,
    /// Why we last left Up.
    pub diag: Diag,
    /// Our discriminator.
    pub local_discr: Discriminator,
    /// The peer's; `None` while no packets are received.
    pub remote_discr: Option<Discriminator>,
    /// State in the peer's last packet.
    pub remote_state: State,
    /// Diagnostic in the peer's last packet.
    pub remote_diag: Diag,
    /// Flags of the peer's last packet.
    pub remote_flags: Flags,
    /// Desired Min TX Interval that we send.
    pub desired_min_tx: Duration,
    /// Required Min RX Interval that we send.
    pub required_min_rx: Duration,
    /// Detect Mult that we send.
    pub multiplier: u8,
    /// The peer's Desired Min TX Interval.
    pub remote_min_tx: Duration,
    /// The peer's Required Min RX Interval.
    pub remote_min_rx: Duration,
    /// The peer's Detect Mult.
    pub remote_multiplier: u8,
    /// Interval at which we send, before jitter.
    pub tx_interval: Duration,
    /// Detection time; zero while no packets are received.
    pub detection_time: Duration,
    /// When the state last changed.
    pub since: Time,
    /// When the last packet was accepted.
    pub last_received: Option<Time>,
    /// Counters.
    pub stats: Stats,
}

/// One session. The variables are those of RFC 5880 §6.8.1.
#[derive(Debug)]
pub struct Session {
    config: Config,
    local_discr: Discriminator,
    state: State,
    diag: Diag,
    since: Time,
    remote: Remote,
    desired_min_tx: Interval,
    required_min_rx: Interval,
    poll: Poll,
    urgent: Urgent,
    transmit: Timer,
    detection: Timer,
    forget_sequence: Timer,
    last_received: Option<Time>,
    last_gap: Option<Duration>,
    last_answer: Option<Time>,
    /// bfd.XmitAuthSeq, and when it was last incremented.
    send_sequence: u32,
    sequence_since: Time,
    /// bfd.RcvAuthSeq; `None`: bfd.AuthSeqKnown is 0.
    receive_sequence: Option<u32>,
    random: Random,
    stats: Stats,
}

impl Session {
    /// A session in state Down; its first packet is due at once, unless it is passive. `seed`
    /// determines jitter and the first sequence number: equal seeds give equal sessions.
    pub fn new(now: Time, config: Config, local_discr: Discriminator, seed: u64) -> Session {
        let mut random = Random::new(seed);
        let send_sequence = random.next_u32();
        let mut session = Session {
            local_discr,
            state: State::Down,
            diag: Diag::NONE,
            since: now,
            remote: Remote::UNHEARD,
            desired_min_tx: Interval::new(config.min_tx.max(SLOW_START)),
            required_min_rx: Interval::new(config.min_rx),
            poll: Poll::Idle,
            urgent: Urgent::Nothing,
            transmit: Timer::stopped(),
            detection: Timer::stopped(),
            forget_sequence: Timer::stopped(),
            last_received: None,
            last_gap: None,
            last_answer: None,
            send_sequence,
            sequence_since: now,
            receive_sequence: None,
            random,
            stats: Stats::default(),
            config,
        };
        session.transmit.set(now);
        session
    }

    /// Our state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Our discriminator, as passed to [`Session::new`].
    pub fn local_discr(&self) -> Discriminator {
        self.local_discr
    }

    /// Whether the peer's last packet had the C bit set: its BFD does not share fate with its
    /// control plane.
    pub fn remote_is_control_plane_independent(&self) -> bool {
        self.remote.flags.contains(Flags::CONTROL_PLANE_INDEPENDENT)
    }

    /// Handles a packet that was demultiplexed to this session (RFC 5880 §6.8.6).
    ///
    /// # Errors
    /// Why the packet is dropped. Only counters have changed then and, in AdminDown,
    /// bfd.RcvAuthSeq.
    pub fn handle_packet(
        &mut self,
        now: Time,
        received: &Received<'_>,
    ) -> Result<Option<Change>, Discard> {
        if let Err(reason) = self.authenticate(received) {
            self.stats.discarded += 1;
            return Err(reason);
        }
        if self.state == State::AdminDown {
            self.stats.discarded += 1;
            return Err(Discard::AdminDown);
        }
        let packet = &received.packet;
        self.note_arrival(now);
        self.learn(now, packet);
        let change = self.on_remote_state(now, packet.state);
        if packet.flags.contains(Flags::POLL) {
            self.urgent = Urgent::Final;
        }
        self.resume_transmission(now);
        Ok(change)
    }

    /// Handles the deadlines that [`Session::poll_timeout`] returned.
    ///
    /// The host reads its sockets before it calls this: a packet that is already queued arrived in
    /// time.
    pub fn handle_timeout(&mut self, now: Time) -> Option<Change> {
        if self.forget_sequence.expired(now) {
            self.receive_sequence = None;
        }
        if !self.detection.expired(now) {
            return None;
        }
        // RFC 5880 §6.8.1: twice the detection time without a packet.
        self.forget_sequence.set(now + self.detection_time());
        self.remote = Remote::UNHEARD;
        self.poll = Poll::Idle;
        self.last_gap = None;
        match self.state {
            State::Init | State::Up => Some(self.change(
                now,
                State::Down,
                Diag::DETECTION_TIME_EXPIRED,
                Cause::DetectionTimeExpired,
            )),
            State::Down | State::AdminDown => None,
        }
    }

    /// Enables or disables the session (RFC 5880 §6.8.16).
    pub fn set_admin(&mut self, now: Time, admin: Admin) -> Option<Change> {
        match (admin, self.state) {
            (Admin::Disabled, State::AdminDown) => None,
            (Admin::Disabled, _) => {
                self.detection.stop();
                Some(self.change(now, State::AdminDown, Diag::ADMINISTRATIVELY_DOWN, Cause::Admin))
            }
            (Admin::Enabled, State::AdminDown) => {
                self.remote = Remote::UNHEARD;
                Some(self.change(now, State::Down, Diag::NONE, Cause::Admin))
            }
            (Admin::Enabled, _) => None,
        }
    }

    /// Applies a new configuration. The state does not change; changed timers start a Poll
    /// Sequence. Changed authentication applies at once.
    pub fn reconfigure(&mut self, now: Time, config: Config) {
        if self.config.auth != config.auth {
            self.receive_sequence = None;
        }
        self.config = config;
        self.update_intervals(now);
        if self.transmit.deadline().is_none() {
            self.transmit.set(now);
        }
    }

    /// Appends the packet that is due, if any, and arms the timer for the next. Returns whether
    /// there was one; the caller repeats until there is none.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let periodic_is_due = self.transmit.deadline().is_some_and(|at| at <= now);
        let answers = self.urgent == Urgent::Final && self.may_answer(now);
        let announces = self.urgent == Urgent::News && self.may_send();
        if !(answers || announces || (periodic_is_due && self.may_send_periodically())) {
            if periodic_is_due {
                self.transmit.stop();
            }
            return false;
        }
        let answered_only = answers && !periodic_is_due && self.transmit.deadline().is_some();
        let flags = if answers {
            self.last_answer = Some(now);
            Flags::FINAL
        } else {
            self.poll_flag()
        };
        self.urgent = Urgent::Nothing;
        self.write(now, flags, out);
        self.stats.sent += 1;
        if !answered_only {
            self.arm_transmit(now);
        }
        true
    }

    /// When to call `handle_timeout` and `poll_transmit` next; `None`: not before a packet arrives.
    pub fn poll_timeout(&self) -> Option<Time> {
        let urgent = match self.urgent {
            Urgent::Nothing => None,
            Urgent::News => self.may_send().then_some(Time::ZERO),
            Urgent::Final => Some(self.last_answer.map_or(Time::ZERO, |at| at + ANSWER_GAP)),
        };
        [
            urgent,
            self.transmit.deadline(),
            self.detection.deadline(),
            self.forget_sequence.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The session's state, for display.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            diag: self.diag,
            local_discr: self.local_discr,
            remote_discr: self.remote.discr,
            remote_state: self.remote.state,
            remote_diag: self.remote.diag,
            remote_flags: self.remote.flags,
            desired_min_tx: self.desired_min_tx.advertised(),
            required_min_rx: self.required_min_rx.advertised(),
            multiplier: self.config.multiplier.get(),
            remote_min_tx: self.remote.desired_min_tx,
            remote_min_rx: self.remote.required_min_rx,
            remote_multiplier: self.remote.detect_mult,
            tx_interval: self.tx_interval(),
            detection_time: self.detection_time(),
            since: self.since,
            last_received: self.last_received,
            stats: self.stats,
        }
    }

    /// RFC 5880 §6.7: digest, then the window of sequence numbers.
    fn authenticate(&mut self, received: &Received<'_>) -> Result<(), Discard> {
        let (auth, section) = match (&self.config.auth, received.auth) {
            (None, None) => return Ok(()),
            (Some(auth), Some(section)) => (auth, section),
            (None, Some(_)) | (Some(_), None) => return Err(Discard::AuthPresence),
        };
        let Some(sequence) = auth.verify(section, received.octets)? else { return Ok(()) };
        if let Some(known) = self.receive_sequence {
            let window = 3 * u32::from(received.packet.detect_mult);
            let first = match auth.kind {
                AuthKind::MeticulousKeyedSha1 => 1,
                AuthKind::KeyedSha1 | AuthKind::SimplePassword => 0,
            };
            // The numbers wrap around: a distance, not an order.
            if !(first..=window).contains(&sequence.wrapping_sub(known)) {
                return Err(Discard::AuthSequence);
            }
        }
        self.receive_sequence = Some(sequence);
        Ok(())
    }

    fn note_arrival(&mut self, now: Time) {
        self.stats.received += 1;
        if let Some(before) = self.last_received.filter(|_| self.state == State::Up) {
            let gap = now.since(before);
            self.stats.gap_max = self.stats.gap_max.max(gap);
            if let Some(last) = self.last_gap {
                let jitter = self.stats.jitter;
                self.stats.jitter = jitter - jitter / 16 + gap.abs_diff(last) / 16;
            }
            self.last_gap = Some(gap);
        }
        self.last_received = Some(now);
    }

    /// Records what the packet says about the peer, and restarts the detection timer.
    fn learn(&mut self, now: Time, packet: &Packet) {
        let interval = self.tx_interval();
        self.remote = Remote {
            state: packet.state,
            discr: Some(packet.my_discr),
            diag: packet.diag,
            flags: packet.flags,
            detect_mult: packet.detect_mult,
            desired_min_tx: packet.desired_min_tx,
            required_min_rx: packet.required_min_rx,
        };
        if packet.flags.contains(Flags::FINAL) {
            self.on_final();
        }
        if self.tx_interval() < interval {
            // RFC 5880 §6.8.3: the peer can take packets sooner than the timer says.
            self.arm_transmit(now);
        }
        self.forget_sequence.stop();
        self.detection.set(now + self.detection_time());
    }

    fn on_final(&mut self) {
        match self.poll {
            Poll::Active => {
                self.desired_min_tx.confirm();
                self.required_min_rx.confirm();
                self.poll = Poll::Idle;
            }
            Poll::Outdated => self.poll = Poll::Gap,
            Poll::Idle | Poll::Gap => {}
        }
    }

    /// The transitions of RFC 5880 §6.8.6.
    fn on_remote_state(&mut self, now: Time, remote: State) -> Option<Change> {
        let down = Diag::NEIGHBOR_SIGNALED_DOWN;
        let (to, diag, cause) = match (self.state, remote) {
            (State::Init | State::Up, State::AdminDown) => {
                (State::Down, down, Cause::NeighborAdminDown)
            }
            (State::Up, State::Down) => (State::Down, down, Cause::NeighborDown),
            (State::Down, State::Down) => (State::Init, self.diag, Cause::Handshake),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                (State::Up, Diag::NONE, Cause::Handshake)
            }
            (State::AdminDown, _)
            | (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => return None,
        };
        Some(self.change(now, to, diag, cause))
    }

    fn change(&mut self, now: Time, to: State, diag: Diag, cause: Cause) -> Change {
        let from = self.state;
        self.state = to;
        self.diag = diag;
        self.since = now;
        if self.urgent != Urgent::Final {
            self.urgent = Urgent::News;
        }
        if from == State::Up {
            self.stats.downs += 1;
            self.poll = Poll::Idle;
        }
        if to == State::Up {
            self.stats.ups += 1;
            self.stats.gap_max = Duration::ZERO;
            self.last_gap = None;
        }
        self.update_intervals(now);
        Change { from, to, cause }
    }

    /// RFC 5880 §6.8.3: what is advertised follows configuration and state, and is used as soon as
    /// that is safe.
    fn update_intervals(&mut self, now: Time) {
        let before = self.tx_interval();
        let (tx, rx) = match self.state {
            State::Up => (self.config.min_tx, self.config.min_rx),
            _ => (self.config.min_tx.max(SLOW_START), self.config.min_rx),
        };
        let mut differs = self.desired_min_tx.advertise(tx);
        differs |= self.required_min_rx.advertise(rx);
        if self.state == State::Up {
            // Sending sooner and expecting packets later are safe at once; the rest waits for F.
            self.desired_min_tx.use_if_shorter();
            self.required_min_rx.use_if_longer();
        } else {
            self.desired_min_tx.confirm();
            self.required_min_rx.confirm();
        }
        if differs && self.state == State::Up {
            self.poll = match self.poll {
                Poll::Idle => Poll::Active,
                Poll::Active | Poll::Outdated => Poll::Outdated,
                Poll::Gap => Poll::Gap,
            };
        }
        if self.tx_interval() != before {
            self.arm_transmit(now);
        }
        if let (Some(at), Some(_)) = (self.last_received, self.detection.deadline()) {
            self.detection.set(at + self.detection_time());
        }
    }

    fn poll_flag(&mut self) -> Flags {
        match self.poll {
            Poll::Idle => Flags::NONE,
            Poll::Active | Poll::Outdated => Flags::POLL,
            Poll::Gap => {
                self.poll = Poll::Active;
                Flags::NONE
            }
        }
    }

    fn write(&mut self, now: Time, flags: Flags, out: &mut Vec<u8>) {
        let start = out.len();
        let packet = Packet {
            diag: self.diag,
            state: self.state,
            flags,
            detect_mult: self.config.multiplier.get(),
            my_discr: self.local_discr,
            your_discr: self.remote.discr,
            desired_min_tx: self.desired_min_tx.advertised(),
            required_min_rx: self.required_min_rx.advertised(),
            required_min_echo_rx: Duration::ZERO,
        };
        let Some(auth) = &self.config.auth else {
            packet.encode(0, out);
            return;
        };
        let mut signed = out.split_off(start);
        packet.encode(auth.section_len(), &mut signed);
        // RFC 5880 §6.7.4: keyed sequence numbers may repeat for a while, meticulous ones must
        // grow.
        if auth.kind == AuthKind::MeticulousKeyedSha1
            || now.since(self.sequence_since) >= SLOW_START
        {
            self.send_sequence = self.send_sequence.wrapping_add(1);
            self.sequence_since = now;
        }
        auth.sign(self.send_sequence, &mut signed);
        out.append(&mut signed);
    }

    /// Whether packets may be sent at all, RFC 5880 §6.8.7.
    fn may_send(&self) -> bool {
        self.config.role == Role::Active || self.remote.discr.is_some()
    }

    /// Whether packets may be sent periodically, RFC 5880 §6.8.7.
    fn may_send_periodically(&self) -> bool {
        let asked_not_to = self.remote.flags.contains(Flags::DEMAND)
            && (self.state, self.remote.state) == (State::Up, State::Up)
            && self.poll == Poll::Idle;
        self.may_send() && !self.remote.required_min_rx.is_zero() && !asked_not_to
    }

    fn may_answer(&self, now: Time) -> bool {
        self.last_answer.is_none_or(|at| at + ANSWER_GAP <= now)
    }

    /// Restarts the transmit timer if it stopped because nothing might be sent.
    fn resume_transmission(&mut self, now: Time) {
        if self.transmit.deadline().is_none() && self.may_send_periodically() {
            self.transmit.set(now);
        }
    }

    fn arm_transmit(&mut self, now: Time) {
        let at = now + self.random.spread(self.tx_interval(), self.config.multiplier);
        self.transmit.set(at);
    }

    /// RFC 5880 §6.8.2, before jitter.
    fn tx_interval(&self) -> Duration {
        self.desired_min_tx.used().max(self.remote.required_min_rx)
    }

    /// RFC 5880 §6.8.4, asynchronous mode.
    fn detection_time(&self) -> Duration {
        self.required_min_rx.used().max(self.remote.desired_min_tx)
            * u32::from(self.remote.detect_mult)
    }
}
