//! [`Peer`]: admin state, connection slots, back-off.
//!
//! Split by noun: `dial` (when to connect), `open` (the handshake), `receive` (an established
//! session's messages), `teardown` (the end of a connection).

mod dial;
mod faulty;
mod open;
mod receive;
mod teardown;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::conn::{Conn, Expiry};
use super::intake::Intake;
use super::timers::{Backoff, Jitter};
use super::{BfdMode, Close, LastError, Negotiated, Offer, PeerConfig, Restart};
use crate::types::{Family, FamilyMap, FamilySet, LogLimit, Time};
use crate::wire::{HEADER_LEN, MessageType, split_frame};
use crate::wire::{Notification, RefreshKind, RouteBatch, RouteRefresh, encode_keepalive};
use dial::Admin;
pub use faulty::Faulty;
use teardown::Tcp;

/// The connections that a peer may have at once (RFC 4271 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// We dialled.
    Outgoing = 0,
    /// The peer dialled.
    Incoming = 1,
    /// The peer dialled again while its OPEN on [`Slot::Incoming`] is accepted.
    Reconnect = 2,
}

impl Slot {
    /// Every slot.
    pub const ALL: [Slot; 3] = [Slot::Outgoing, Slot::Incoming, Slot::Reconnect];

    /// Position in [`Slot::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether we opened the connection.
    pub const fn is_outgoing(self) -> bool {
        matches!(self, Slot::Outgoing)
    }
}

/// The state that operators see (RFC 4271 §8.2.2): that of the most advanced slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum State {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// A request of the host or the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the peer (RFC 4271 §8.1.2, event 1 or 4).
    Start,
    /// End the session and stay idle until [`Command::Start`].
    Stop(Close),
    /// End the session, and reconnect by the ordinary retry rules.
    Restart(Close),
    /// Ask the peer for its routes again (RFC 2918).
    RequestRefresh(Family),
    /// Dial now if only the retry timer is pending: the obstacle may have been removed.
    Dial,
    /// The BFD session with the peer came up or went down. Before the first such command it counts as
    /// down. It matters with [`BfdMode::Strict`](super::BfdMode::Strict) alone: a session is established
    /// only while it is up, and once it comes up, a pending retry timer is not waited for. It ends no
    /// session that is established.
    SetBfd(BfdPath),
    /// The BFD session with the peer failed; AdminDown is no failure. With
    /// [`BfdMode::Strict`](super::BfdMode::Strict) a session that is established ends for this reason,
    /// and we reconnect by the ordinary retry rules. Send [`Command::SetBfd`] afterwards.
    FailBfd(Close),
    /// Reset the back-off: end an idle hold, and dial now if the retry timer is pending.
    Retry,
}

/// Whether BFD has verified the path to the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BfdPath {
    #[default]
    Down,
    Up,
}

/// What the host must do. Drain after every input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial the configured address; answer with `handle_connected` or `handle_connect_failed`.
    Connect,
    /// Stop dialling. A connection that is established nevertheless is rejected.
    AbortConnect,
    /// Write what `poll_transmit(slot)` still holds (bounded in time), then close the connection.
    /// Take those octets before the next input: the slot is free, a new connection may use it.
    Close {
        /// The connection to close.
        slot: Slot,
        /// Close with RST, so that nothing waits to be sent.
        abort: bool,
    },
    /// The session is established on `slot`; UPDATEs may flow.
    Up {
        /// The connection that is the session.
        slot: Slot,
        /// What was negotiated.
        negotiated: Arc<Negotiated>,
    },
    /// The established session has ended. Exactly one follows each `Up`.
    Down {
        /// Why it ended.
        reason: Close,
        /// Keep the peer's routes as stale (RFC 4724, RFC 8538), for these families and this long.
        keep: Option<Keep>,
    },
    /// This message of the session, given with its header, was treated as withdrawal, lost an attribute, or
    /// ended the session: then it precedes [`Action::Down`]. Of a message whose header is erroneous it is the
    /// header. Only with [`Faulty::Reported`].
    Faulty(Arc<[u8]>),
    /// One line for the log: an UPDATE was treated as withdraw, an attribute discarded, a
    /// capability ignored. Rate-limited here.
    Note(String),
}

/// Routes to keep across a restart of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Families whose routes are kept for the restart time.
    pub families: FamilySet,
    /// Longest time for which they are kept as stale.
    pub restart_time: Duration,
    /// How long after that the routes of each family are kept as long-lived stale (RFC 9494 §4.2);
    /// zero: not. For families that are not in `families` the restart time counts as zero.
    pub long_lived: FamilyMap<Duration>,
}

impl Keep {
    /// What is kept without long-lived graceful restart.
    pub const fn for_restart(families: FamilySet, restart_time: Duration) -> Keep {
        Keep { families, restart_time, long_lived: FamilyMap([Duration::ZERO; 2]) }
    }

    /// For how long the routes of some family are kept, if the peer does not come back.
    pub fn longest(&self) -> Duration {
        let times = Family::ALL.into_iter().filter_map(|family| self.of(family));
        times.map(|(restart, long_lived)| restart + long_lived).max().unwrap_or_default()
    }

    /// Whether the routes of no family are kept.
    pub fn is_empty(&self) -> bool {
        Family::ALL.into_iter().all(|family| self.of(family).is_none())
    }

    /// Restart time and long-lived stale time of a family; `None`: its routes are not kept.
    pub fn of(&self, family: Family) -> Option<(Duration, Duration)> {
        let long_lived = self.long_lived[family];
        match self.families.contains(family) {
            true => Some((self.restart_time, long_lived)),
            false if long_lived.is_zero() => None,
            false => Some((Duration::ZERO, long_lived)),
        }
    }
}

/// Message counters of a peer since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// UPDATEs received, malformed ones included.
    pub updates_received: u64,
    /// KEEPALIVEs received.
    pub keepalives_received: u64,
    /// KEEPALIVEs sent.
    pub keepalives_sent: u64,
    /// NOTIFICATIONs received.
    pub notifications_received: u64,
    /// NOTIFICATIONs sent.
    pub notifications_sent: u64,
    /// ROUTE-REFRESHs received, requests and markers (RFC 2918, RFC 7313).
    pub refreshes_received: u64,
    /// ROUTE-REFRESH requests sent (RFC 2918).
    pub refreshes_sent: u64,
    /// UPDATEs whose routes were withdrawn because of an error in their attributes (RFC 7606 §2).
    pub treated_as_withdraw: u64,
    /// Attributes that were discarded from UPDATEs because of an error (RFC 7606 §2).
    pub attributes_discarded: u64,
    /// Octets of complete messages received on all connections.
    pub octets_received: u64,
    /// Number of times that the session was established.
    pub established_transitions: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Connections from the peer's address that ended without becoming its session, except those
    /// that lost a collision.
    pub stray_connections: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, more: Stats) {
        let Stats {
            updates_received,
            keepalives_received,
            keepalives_sent,
            notifications_received,
            notifications_sent,
            refreshes_received,
            refreshes_sent,
            treated_as_withdraw,
            attributes_discarded,
            octets_received,
            established_transitions,
            connect_failures,
            stray_connections,
        } = more;
        self.updates_received += updates_received;
        self.keepalives_received += keepalives_received;
        self.keepalives_sent += keepalives_sent;
        self.notifications_received += notifications_received;
        self.notifications_sent += notifications_sent;
        self.refreshes_received += refreshes_received;
        self.refreshes_sent += refreshes_sent;
        self.treated_as_withdraw += treated_as_withdraw;
        self.attributes_discarded += attributes_discarded;
        self.octets_received += octets_received;
        self.established_transitions += established_transitions;
        self.connect_failures += connect_failures;
        self.stray_connections += stray_connections;
    }
}

/// Deadlines of the running timers, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// When the hold timer expires.
    pub hold: Option<Time>,
    /// Our next KEEPALIVE.
    pub keepalive: Option<Time>,
    /// Our next attempt to connect.
    pub retry: Option<Time>,
    /// End of the idle hold after an exceeded limit.
    pub idle_hold: Option<Time>,
}

/// The session with one neighbour: RFC 4271 §8 without sockets and clock.
///
/// The host owns the connections. It calls a `handle_*` method for each event, and after each call
/// drains [`Peer::poll_action`] and [`Peer::poll_transmit`] of every slot until both are empty;
/// then it sleeps until something happens or [`Peer::poll_timeout`] is due, and calls
/// [`Peer::handle_timeout`]. No method fails: an error of the neighbour leads to [`Action::Close`]
/// and [`Action::Down`], with the reason.
///
/// ```
/// use std::sync::Arc;
///
/// use bgp_proto::session::{Action, Command, LocalIdentity, Peer, PeerConfig};
/// use bgp_proto::types::{Asn, RouterId, Time};
///
/// let local = LocalIdentity { asn: Asn(65000), router_id: RouterId(0x0a00_0001) };
/// let config = PeerConfig::new("192.0.2.1".parse()?, Asn(65001), &local);
/// let mut peer = Peer::new(Arc::new(config), 7);
///
/// peer.handle_command(Time::ZERO, Command::Start);
/// assert_eq!(peer.poll_action(), Some(Action::Connect));
///
/// // The host could not connect: the peer says when to try again.
/// peer.handle_connect_failed(Time::ZERO, "connection refused");
/// let (due, _timer) = peer.poll_timeout().expect("the retry timer runs");
/// peer.handle_timeout(due);
/// assert_eq!(peer.poll_action(), Some(Action::Connect));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub struct Peer {
    config: Arc<PeerConfig>,
    admin: Admin,
    conns: [Option<Conn>; 3],
    backoff: Backoff,
    intake: Intake,
    offer: Offer,
    restart: Restart,
    bfd: BfdPath,
    /// Whether we have dialled since [`Command::Start`].
    has_dialled: bool,
    jitter: Jitter,
    outbox: Outbox,
    faulty: Faulty,
    stats: Stats,
    last_error: Option<LastError>,
    last_bgp_error: Option<LastError>,
    state: State,
    state_since: Time,
    session_since: Time,
    /// Canonical attributes of the current UPDATE.
    scratch: Vec<u8>,
    /// Messages that produced nothing for the table.
    fruitless: u64,
}

impl Peer {
    /// A stopped peer. `seed` drives jitter.
    pub fn new(config: Arc<PeerConfig>, seed: u64) -> Self {
        Peer {
            admin: Admin::Stopped,
            conns: [None, None, None],
            backoff: Backoff::new(config.connect_retry_time, config.redial),
            intake: Intake::new(),
            offer: Offer::Full,
            restart: Restart::Done,
            bfd: BfdPath::Down,
            has_dialled: false,
            jitter: Jitter::new(seed),
            outbox: Outbox::new(),
            faulty: Faulty::default(),
            stats: Stats::default(),
            last_error: None,
            last_bgp_error: None,
            state: State::Idle,
            state_since: Time::ZERO,
            session_since: Time::ZERO,
            scratch: Vec::new(),
            fruitless: 0,
            config,
        }
    }

    /// Sets what the next OPEN says about our own restart (RFC 4724 §4.1). OPENs already sent are
    /// not affected.
    pub fn set_restart(&mut self, restart: Restart) {
        self.restart = restart;
    }

    /// Replaces the parameters by ones that differ in timers only
    /// ([`PeerConfig::differs_only_in_timers`]). The session stays: what an OPEN announces applies from
    /// the next one on, and the retry time from the next attempt on. Others are returned, and nothing
    /// changes: they take [`Peer::replace`].
    ///
    /// # Errors
    /// The parameters, if they need another session.
    pub fn set_timers(&mut self, config: Arc<PeerConfig>) -> Result<(), Arc<PeerConfig>> {
        if *self.config == *config {
            return Ok(());
        }
        if !self.config.differs_only_in_timers(&config) {
            return Err(config);
        }
        self.backoff.set_base(config.connect_retry_time);
        self.config = config;
        Ok(())
    }

    /// Ends the session ([`Close::ConfigurationChange`]); the next one has these parameters, whose
    /// address is the same, as are how redialling is paced and whether BFD is strict.
    pub fn replace(&mut self, now: Time, config: Arc<PeerConfig>) {
        self.handle_command(now, Command::Restart(Close::ConfigurationChange));
        self.backoff.set_base(config.connect_retry_time);
        self.config = config;
    }

    /// Handles a request of the host or the operator.
    pub fn handle_command(&mut self, now: Time, command: Command) {
        match command {
            Command::Start => self.start(now),
            Command::Stop(reason) => self.stop(now, reason),
            Command::Restart(reason) => self.restart_session(now, reason),
            Command::RequestRefresh(family) => self.request_refresh(family),
            Command::SetBfd(path) => self.set_bfd(now, path),
            Command::FailBfd(reason) => {
                if self.config.bfd_mode == BfdMode::Strict && self.established().is_some() {
                    self.restart_session(now, reason);
                }
            }
            Command::Dial => self.dial_now(now),
            Command::Retry => self.retry(now),
        }
        self.update_state(now);
    }

    /// The slot for a new connection from the peer. The connection replaces one that is in the
    /// slot, so this is the one of the two slots where less is lost; a connection on which no OPEN
    /// has arrived counts as nothing.
    pub fn incoming_slot(&self) -> Slot {
        let state = |slot: &Slot| self.conn(*slot).map(Conn::state);
        let lost = |slot: &Slot| state(slot).filter(|state| *state > State::OpenSent);
        let slots = [Slot::Incoming, Slot::Reconnect];
        slots.into_iter().min_by_key(lost).unwrap_or(Slot::Incoming)
    }

    /// Until when the host should hold back a new connection from the peer; `None`: it need not.
    /// Either too many have failed, or it would replace one whose OPEN was accepted and on which a
    /// decision is due. Of several that are held back, the newest suffices. One that is passed on
    /// nevertheless is treated like any other.
    pub fn paced_until(&self, now: Time) -> Option<Time> {
        let undecided = match self.conn(self.incoming_slot()) {
            Some(conn @ Conn::OpenConfirm(_)) => conn.deadlines().map(|(at, _)| at).min(),
            _ => None,
        };
        self.intake.closed_until(now).max(undecided.filter(|at| *at > now))
    }

    /// A TCP connection exists: ours (answering [`Action::Connect`]), or the peer's, on
    /// [`Peer::incoming_slot`]. If the slot is taken, the older connection is dropped, and the host
    /// closes it. A new connection that is not wanted is answered with [`Action::Close`].
    pub fn handle_connected(
        &mut self,
        now: Time,
        slot: Slot,
        local: SocketAddr,
        remote: SocketAddr,
    ) {
        self.accept(now, slot, local, remote);
        self.update_state(now);
    }

    /// Dialling failed; `text` says why.
    pub fn handle_connect_failed(&mut self, now: Time, text: &str) {
        self.fail_dial(now, text);
        self.update_state(now);
    }

    /// The connection ended (EOF or error), not at our request; `text` says why.
    pub fn handle_closed(&mut self, now: Time, slot: Slot, text: &str) {
        self.end(now, slot, Close::Transport { text: text.to_owned() }, Tcp::Gone);
        self.update_state(now);
    }

    /// Octets arrived. Consumes whole messages from the front of `bytes` and returns how many
    /// octets it consumed; the host keeps the rest and passes it again with more after it. Routes
    /// are appended to `batch`. Stops early (and says so by its return value) once `batch` holds
    /// `batch_max` octets: the host sends the batch and calls again with the rest. What follows a
    /// message that ended the connection is consumed and discarded.
    pub fn handle_bytes(
        &mut self,
        now: Time,
        slot: Slot,
        bytes: &[u8],
        batch: &mut RouteBatch,
        batch_max: usize,
    ) -> usize {
        let mut taken = 0;
        while batch.size() < batch_max {
            let rest = bytes.get(taken..).unwrap_or_default();
            let Some(conn) = self.conn(slot) else {
                taken = bytes.len();
                break;
            };
            match split_frame(rest, conn.rx_max_len()) {
                Ok(Some(frame)) => {
                    taken += frame.bytes.len();
                    let before = batch.size();
                    let (faults, message) = (self.faults(slot), frame.bytes);
                    self.handle_message(now, slot, frame, batch);
                    self.report_faulty(slot, faults, message);
                    self.fruitless += u64::from(batch.size() == before);
                }
                Ok(None) => break,
                Err(notification) => {
                    let faults = self.faults(slot);
                    self.close(now, slot, Close::Protocol(notification));
                    self.report_faulty(slot, faults, rest.get(..HEADER_LEN).unwrap_or(rest));
                }
            }
        }
        self.scratch.shrink_to(SCRATCH_KEPT);
        self.stats.octets_received += taken as u64;
        self.update_state(now);
        taken
    }

    /// TCP accepted octets of ours: the send-hold timer stops (RFC 9687). If octets are still
    /// pending, call `handle_send_blocked`.
    ///
    /// Differs from RFC: 4271 §8.2.2 restarts the KeepaliveTimer with every UPDATE. KEEPALIVEs are
    /// sent at their own pace here, because a large UPDATE that is sent slowly does not restart the
    /// peer's hold timer before its last octet.
    pub fn handle_sent(&mut self, _now: Time, slot: Slot) {
        if let Some(Some(Conn::Established(conn))) = self.conns.get_mut(slot.index()) {
            conn.handle_sent();
        }
    }

    /// The host has pending UPDATEs that TCP does not accept: the send-hold timer runs (RFC 9687),
    /// from the first call since `handle_sent`.
    pub fn handle_send_blocked(&mut self, now: Time, slot: Slot) {
        if let Some(Some(Conn::Established(conn))) = self.conns.get_mut(slot.index()) {
            conn.handle_send_blocked(now);
        }
    }

    /// The host is not reading from the connection for lack of credit: the silence is not the
    /// peer's fault, so the hold timer restarts.
    pub fn handle_alive(&mut self, now: Time, slot: Slot) {
        if let Some(Some(Conn::Established(conn))) = self.conns.get_mut(slot.index()) {
            conn.restart_hold(now);
        }
    }

    /// A deadline of `poll_timeout` may have passed. Before a call for the "hold" timer, the host
    /// reads what the socket holds and passes it on: a KEEPALIVE that arrived in time and is still
    /// unread because the host was busy must keep the session up.
    pub fn handle_timeout(&mut self, now: Time) {
        for slot in Slot::ALL {
            let Some(Some(conn)) = self.conns.get_mut(slot.index()) else { continue };
            match conn.expire(now, &mut self.jitter) {
                Some(Expiry::Hold) => self.close(now, slot, self.hold_expired(slot)),
                Some(Expiry::SendHold) => self.close(now, slot, Close::SendHoldTimerExpired),
                Some(Expiry::Keepalive) => self.send_keepalive(slot),
                Some(Expiry::HeldKeepalive) => self.expire_held_keepalive(now, slot),
                None => {}
            }
        }
        self.expire_dial(now);
        self.update_state(now);
    }

    /// When to call `handle_timeout` at the latest, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Time, &'static str)> {
        let conns = self.conns.iter().flatten().flat_map(Conn::deadlines);
        conns.chain(self.admin.deadline()).min()
    }

    /// What the host must do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outbox.actions.pop_front()
    }

    /// Moves whole control messages (OPEN, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH) to `out`;
    /// returns whether there were any.
    pub fn poll_transmit(&mut self, slot: Slot, out: &mut Vec<u8>) -> bool {
        let waiting = self.outbox.octets(slot);
        let any = !waiting.is_empty();
        out.append(waiting);
        any
    }

    /// The state that operators see.
    pub fn state(&self) -> State {
        self.state
    }

    /// When `state` was entered.
    pub fn state_since(&self) -> Time {
        self.state_since
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<&LastError> {
        self.last_error.as_ref()
    }

    /// Why the last session ended, or the last failure since then for which there was a
    /// NOTIFICATION. A failure of TCP does not replace it.
    pub fn last_bgp_error(&self) -> Option<&LastError> {
        self.last_bgp_error.as_ref()
    }

    /// When the session last came up, or last went down; the epoch if it never was up.
    pub fn session_since(&self) -> Time {
        self.session_since
    }

    /// Timers of the connection that got furthest, and of dialling.
    pub fn timers(&self) -> Timers {
        let furthest = self.conns.iter().flatten().max_by_key(|conn| conn.state());
        let (hold, keepalive) = furthest.map(Conn::timers).unwrap_or_default();
        let (retry, idle_hold) = self.admin.timers();
        Timers { hold, keepalive, retry, idle_hold }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Number of messages, on all connections since the peer was created, that produced nothing for
    /// the table. A bound on the octets of routes does not limit them: the host has to bound them
    /// separately.
    pub fn fruitless_messages(&self) -> u64 {
        self.fruitless
    }

    /// Sets the last failure, for one that the host noticed outside this state machine.
    pub fn set_last_error(&mut self, error: LastError) {
        if error.code.is_some() {
            self.last_bgp_error = Some(error.clone());
        }
        self.last_error = Some(error);
    }

    /// What was negotiated; `None` unless established.
    pub fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.established().map(|slot| slot.1)
    }

    /// The parameters that the peer was created with.
    pub fn config(&self) -> &Arc<PeerConfig> {
        &self.config
    }

    /// What our OPENs offer: less than configured once the peer refused capabilities.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    fn set_bfd(&mut self, now: Time, path: BfdPath) {
        self.bfd = path;
        if self.config.bfd_mode == BfdMode::Strict && path == BfdPath::Up {
            self.dial_now(now);
        }
    }

    /// Whether our KEEPALIVE is withheld on every connection until BFD has verified the path.
    fn awaits_bfd(&self) -> bool {
        self.config.bfd_mode == BfdMode::Strict && self.bfd == BfdPath::Down
    }

    /// What it means that the hold timer of a connection expired.
    fn hold_expired(&self, slot: Slot) -> Close {
        match self.conn(slot) {
            Some(Conn::OpenConfirm(_)) if self.awaits_bfd() => {
                Close::BfdDown { text: "it did not come up within the hold time".to_owned() }
            }
            _ => Close::HoldTimerExpired,
        }
    }

    fn conn(&self, slot: Slot) -> Option<&Conn> {
        self.conns.get(slot.index()).and_then(Option::as_ref)
    }

    fn established(&self) -> Option<(Slot, &Arc<Negotiated>)> {
        Slot::ALL.into_iter().find_map(|slot| match self.conn(slot) {
            Some(Conn::Established(conn)) => Some((slot, &conn.negotiated)),
            _ => None,
        })
    }

    fn request_refresh(&mut self, family: Family) {
        match self.established() {
            Some((slot, negotiated))
                if negotiated.route_refresh && negotiated.families.contains(family) =>
            {
                let request =
                    RouteRefresh { family: family.afi_safi(), kind: RefreshKind::Request };
                request.encode(self.outbox.octets(slot));
                self.stats.refreshes_sent += 1;
            }
            _ => self.outbox.push(Action::Note(format!(
                "route refresh for {family} not sent: the session does not have it"
            ))),
        }
    }

    fn send_keepalive(&mut self, slot: Slot) {
        encode_keepalive(self.outbox.octets(slot));
        self.stats.keepalives_sent += 1;
    }

    /// Called after each input: sends KEEPALIVEs that need not be withheld any longer, and updates
    /// `state` and `state_since` from the slots and the admin state.
    fn update_state(&mut self, now: Time) {
        self.release_held_keepalives(now);
        let conns = self.conns.iter().flatten().map(Conn::state).max();
        let state = conns.unwrap_or_else(|| self.admin.state());
        if state != self.state {
            if state == State::Established || self.state == State::Established {
                self.session_since = now;
            }
            self.state = state;
            self.state_since = now;
        }
    }
}

/// Capacity that the attribute scratch keeps between reads; most sets are far smaller.
const SCRATCH_KEPT: usize = 1024;
/// Maximum number of log lines per [`NOTES_PERIOD`] and peer.
const NOTES_MAX: u32 = 10;
const NOTES_PERIOD: std::time::Duration = std::time::Duration::from_secs(60);

/// Actions and octets pending for the host.
struct Outbox {
    actions: VecDeque<Action>,
    transmit: [Vec<u8>; 3],
    notes: LogLimit,
    strays: LogLimit,
}

impl Outbox {
    fn new() -> Self {
        Outbox {
            actions: VecDeque::new(),
            transmit: Default::default(),
            notes: LogLimit::new(NOTES_MAX, NOTES_PERIOD),
            strays: LogLimit::new(1, NOTES_PERIOD),
        }
    }

    fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Octets pending on a slot.
    fn octets(&mut self, slot: Slot) -> &mut Vec<u8> {
        let [outgoing, incoming, reconnect] = &mut self.transmit;
        match slot {
            Slot::Outgoing => outgoing,
            Slot::Incoming => incoming,
            Slot::Reconnect => reconnect,
        }
    }

    /// Notes that a connection other than the session's ended, at most once per [`NOTES_PERIOD`].
    fn note_stray(&mut self, now: Time, why: &str) {
        let Some(more) = self.strays.admit(now) else { return };
        self.push(Action::Note(format!(
            "another connection from its address ended ({why}); the session goes on ({more} more \
             since the last such line)"
        )));
    }

    /// Notes an event that a peer can cause as often as it likes; limited to [`NOTES_MAX`].
    fn note_limited(&mut self, now: Time, text: impl FnOnce() -> String) {
        let Some(suppressed) = self.notes.admit(now) else { return };
        if suppressed > 0 {
            self.push(Action::Note(format!("{suppressed} further lines were suppressed")));
        }
        self.push(Action::Note(text()));
    }
}
