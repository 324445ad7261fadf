//! All sessions: their owners, the assignment of packets, their deadlines. No sockets here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::time::Duration;

use bgp_proto::bfd::{
    Admin, Cause, Change, Config, Discard, Discriminator, Received, Role, Session, Snapshot, State,
};
use bgp_proto::types::Time;
use slab::Slab;

use super::delay::Detection;
use super::filter::Discriminators;
use super::wheel::{SlotId, Wheel};
use super::{Hops, Owner, Port, Status, Target, Wanted};

/// Most sessions: as many as there are source ports (RFC 5881 §4).
pub(super) const SESSIONS_MAX: usize = 16_384;
/// How long a session without owners sends AdminDown, so that the peer does not mistake its end for
/// a failure (RFC 5880 §6.8.16).
const FAREWELL: Duration = Duration::from_secs(3);

/// The longest time by which a packet may be older than one that was read before it.
const OVERTAKEN_MAX: Duration = Duration::from_secs(1);

/// The addresses and timestamp of a received packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) source: std::net::IpAddr,
    /// Scope of a link-local source; zero otherwise.
    pub(super) scope: u32,
    /// Whether it came to the port of sessions over a single hop.
    pub(super) is_single_hop: bool,
    /// Index of the device of the VRF in which it was received.
    pub(super) vrf: Option<NonZeroU32>,
    /// When the kernel received it, by the wall clock; zero if unknown.
    pub(super) stamp: Duration,
    /// Needed only for packets without Your Discriminator.
    pub(super) details: Option<Details>,
}

/// Destination, receiving interface and TTL of a packet, from its control messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Details {
    pub(super) destination: std::net::IpAddr,
    pub(super) interface: u32,
    pub(super) ttl: u8,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    session: Session,
    wanted: BTreeMap<Owner, Config>,
    /// The deadline with which it is in the wheel. Stale entries may fire earlier, without effect.
    entered: Option<Time>,
    /// When a session without owners is removed.
    ends_at: Option<Time>,
    /// When the kernel received the last packet with our discriminator, by the wall clock.
    newest: Duration,
    status: Status,
}

impl Entry {
    /// Whether a packet without our discriminator is older than the last one with it. The two kinds
    /// arrive on different sockets, and a Down must not override an Up that was sent after it. A
    /// difference above [`OVERTAKEN_MAX`] means that the wall clock was set back. A packet of unknown
    /// age does not take a session down; a neighbour that has restarted repeats it.
    fn is_overtaken(&self, arrival: &Arrival) -> bool {
        if arrival.stamp.is_zero() && !self.newest.is_zero() {
            return self.session.state() == State::Up;
        }
        let ahead = self.newest.saturating_sub(arrival.stamp);
        !ahead.is_zero() && ahead <= OVERTAKEN_MAX
    }

    /// Differs from RFC: RFC 5880 §6.8.6 accepts a Down without our discriminator. Over several
    /// hops, anyone who can forge the neighbour's address could take the session down with it, from
    /// anywhere. The cost is that a neighbour that has restarted is noticed only after the
    /// detection time.
    fn may_be_forged(&self, received: &Received<'_>) -> bool {
        let is_proven = self.target.hops.is_single() || received.auth.is_some();
        self.session.state() == State::Up && !is_proven
    }
}

/// A packet to send.
pub(super) struct Outgoing<'a> {
    pub(super) id: SlotId,
    pub(super) target: &'a Target,
    pub(super) octets: &'a [u8],
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    entries: Slab<Entry>,
    by_discr: HashMap<Discriminator, SlotId, foldhash::fast::RandomState>,
    by_target: BTreeMap<Target, SlotId>,
    by_owner: BTreeMap<Owner, SlotId>,
    wheel: Wheel,
    discriminators: Discriminators,
    discards: BTreeMap<Discard, u64>,
    failures: u64,
    /// Owners whose status has changed.
    changed: BTreeSet<Owner>,
    buffer: Vec<u8>,
    woken: Vec<SlotId>,
}

/// One session as it is shown.
#[derive(Clone, Debug)]
pub struct Entered {
    /// The peer, and how to reach it.
    pub target: Target,
    /// The peers on whose behalf it runs.
    pub owners: Vec<Owner>,
    /// The state of the protocol machine.
    pub snapshot: Snapshot,
    /// The status that is reported to the owners.
    pub status: Status,
    /// Why its socket cannot be opened, or the last packet could not be sent.
    pub fault: Option<String>,
}

impl Sessions {
    pub(super) fn new(now: Time, discriminators: Discriminators) -> Sessions {
        Sessions {
            entries: Slab::new(),
            by_discr: HashMap::default(),
            by_target: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            wheel: Wheel::new(now),
            discriminators,
            discards: BTreeMap::new(),
            failures: 0,
            changed: BTreeSet::new(),
            buffer: Vec::new(),
            woken: Vec::new(),
        }
    }

    /// Sets the session that `owner` requests; `None`: none. `random` must return numbers that
    /// cannot be guessed.
    ///
    /// # Errors
    /// There are [`SESSIONS_MAX`] sessions already.
    pub(super) fn want(
        &mut self,
        now: Time,
        owner: Owner,
        wanted: Option<Wanted>,
        random: &mut impl FnMut() -> u64,
    ) -> Result<(), TooMany> {
        self.wheel.rest(now);
        let before = self.by_owner.get(&owner).copied();
        let same = wanted.as_ref().zip(before).is_some_and(|(wanted, id)| {
            self.entry(id).is_some_and(|entry| entry.target == wanted.target)
        });
        if let Some(id) = before.filter(|_| !same) {
            self.by_owner.remove(&owner);
            self.leave(now, owner, id);
        }
        let Some(Wanted { target, config }) = wanted else { return Ok(()) };
        let id = match self.by_target.get(&target) {
            Some(id) => *id,
            None => self.create(now, target, &config, random)?,
        };
        self.by_owner.insert(owner, id);
        self.changed.insert(owner);
        if let Some(entry) = self.entry_mut(id) {
            entry.wanted.insert(owner, config);
            entry.ends_at = None;
            let change = entry.session.set_admin(now, Admin::Enabled);
            entry.session.reconfigure(now, merged(&entry.wanted));
            self.note_change(now, id, change);
        }
        self.enter(id);
        Ok(())
    }

    /// Sets every session to AdminDown, so that the peers do not mistake our stop for a failure.
    pub(super) fn disable_all(&mut self, now: Time) {
        for (_, entry) in &mut self.entries {
            entry.session.set_admin(now, Admin::Disabled);
        }
    }

    /// Handles a datagram. Packets to send in response are passed to `send`.
    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        arrival: &Arrival,
        octets: &[u8],
        send: &mut impl FnMut(Outgoing<'_>),
    ) {
        match self.accept(now, arrival, octets) {
            Ok(id) => self.transmit(now, id, send),
            Err(reason) => self.count_discard(reason, 1),
        }
    }

    /// Handles the deadlines that have passed at `now`. Packets are sent also while detection times
    /// are held.
    pub(super) fn handle_timeout(
        &mut self,
        now: Time,
        detection: Detection,
        send: &mut impl FnMut(Outgoing<'_>),
    ) {
        let mut woken = std::mem::take(&mut self.woken);
        self.wheel.expire(now, &mut woken);
        for id in woken.drain(..) {
            let Some(entry) = self.entry_mut(id) else { continue };
            entry.entered = None;
            if entry.ends_at.is_some_and(|at| at <= now) {
                self.remove(id);
                continue;
            }
            let change = match detection {
                Detection::Expires => entry.session.handle_timeout(now),
                Detection::Held => None,
            };
            self.note_change(now, id, change);
            self.transmit(now, id, send);
        }
        self.woken = woken;
    }

    /// Sends the packets that are due, on every session.
    pub(super) fn transmit_all(&mut self, now: Time, send: &mut impl FnMut(Outgoing<'_>)) {
        let ids: Vec<SlotId> = self.entries.iter().map(|(id, _)| SlotId(id)).collect();
        ids.into_iter().for_each(|id| self.transmit(now, id, send));
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.wheel.next()
    }

    /// The statuses that changed since the last call; `None`: the owner has no session any more.
    pub(super) fn take_changed(&mut self) -> Vec<(Owner, Option<Status>)> {
        std::mem::take(&mut self.changed)
            .into_iter()
            .map(|owner| {
                let entry = self.by_owner.get(&owner).and_then(|id| self.entry(*id));
                (owner, entry.map(|entry| entry.status))
            })
            .collect()
    }

    pub(super) fn count_discard(&mut self, reason: Discard, packets: u64) {
        *self.discards.entry(reason).or_default() += packets;
    }

    /// How often sessions failed since the start.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    pub(super) fn discards(&self) -> BTreeMap<Discard, u64> {
        self.discards.clone()
    }

    /// All sessions, as they are shown; `fault` returns why one cannot send.
    pub(super) fn entered(
        &self,
        fault: impl Fn(SlotId, &Target) -> Option<String>,
    ) -> Vec<Entered> {
        self.by_target
            .values()
            .filter_map(|id| Some((id, self.entry(*id)?)))
            .map(|(id, entry)| Entered {
                target: entry.target.clone(),
                owners: entry.wanted.keys().copied().collect(),
                snapshot: entry.session.snapshot(),
                status: entry.status,
                fault: fault(*id, &entry.target),
            })
            .collect()
    }

    /// The ports on which packets of the sessions arrive.
    pub(super) fn ports(&self) -> BTreeSet<Port> {
        self.by_target.keys().map(Target::port).collect()
    }

    /// The shortest interval that is configured.
    pub(super) fn interval_min(&self) -> Option<Duration> {
        let configs = self.entries.iter().flat_map(|(_, entry)| entry.wanted.values());
        configs.map(|config| config.min_tx.min(config.min_rx)).min()
    }

    pub(super) fn is_alive(&self, id: SlotId) -> bool {
        self.entry(id).is_some()
    }

    fn entry(&self, id: SlotId) -> Option<&Entry> {
        self.entries.get(id.0)
    }

    fn entry_mut(&mut self, id: SlotId) -> Option<&mut Entry> {
        self.entries.get_mut(id.0)
    }

    fn create(
        &mut self,
        now: Time,
        target: Target,
        config: &Config,
        random: &mut impl FnMut() -> u64,
    ) -> Result<SlotId, TooMany> {
        if self.by_target.len() >= SESSIONS_MAX {
            return Err(TooMany);
        }
        let discr = loop {
            let drawn = self.discriminators.make((random() >> 32) as u32);
            if let Some(discr) = drawn.filter(|discr| !self.by_discr.contains_key(discr)) {
                break discr;
            }
        };
        let entry = Entry {
            target: target.clone(),
            session: Session::new(now, config.clone(), discr, random()),
            wanted: BTreeMap::new(),
            entered: None,
            ends_at: None,
            newest: Duration::ZERO,
            status: Status::new(now),
        };
        let id = SlotId(self.entries.insert(entry));
        self.by_discr.insert(discr, id);
        self.by_target.insert(target, id);
        Ok(id)
    }

    fn leave(&mut self, now: Time, owner: Owner, id: SlotId) {
        self.changed.insert(owner);
        let Some(entry) = self.entry_mut(id) else { return };
        entry.wanted.remove(&owner);
        if entry.wanted.is_empty() {
            entry.ends_at = Some(now + FAREWELL);
            entry.session.set_admin(now, Admin::Disabled);
        } else {
            entry.session.reconfigure(now, merged(&entry.wanted));
        }
        self.enter(id);
    }

    fn remove(&mut self, id: SlotId) {
        let Some(entry) = self.entries.try_remove(id.0) else { return };
        self.by_discr.remove(&entry.session.local_discr());
        self.by_target.remove(&entry.target);
    }

    /// Finds the session of a packet and passes the packet to it (RFC 5880 §6.3 and §6.8.6).
    fn accept(&mut self, now: Time, arrival: &Arrival, octets: &[u8]) -> Result<SlotId, Discard> {
        if let (Some(details), true) = (&arrival.details, arrival.is_single_hop)
            && details.ttl != u8::MAX
        {
            return Err(Discard::Ttl);
        }
        let received = Received::decode(octets)?;
        let id = match received.packet.your_discr {
            Some(discr) => {
                let id = *self.by_discr.get(&discr).ok_or(Discard::NoSession)?;
                let target = &self.entry(id).ok_or(Discard::NoSession)?.target;
                if !target.takes_from(arrival) {
                    return Err(Discard::Source);
                }
                id
            }
            None => self.find(arrival).ok_or(Discard::NoSession)?,
        };
        let entry = self.entry_mut(id).ok_or(Discard::NoSession)?;
        if received.packet.your_discr.is_some() {
            entry.newest = arrival.stamp;
        } else if entry.is_overtaken(arrival) {
            return Err(Discard::Overtaken);
        } else if entry.may_be_forged(&received) {
            return Err(Discard::YourDiscriminator);
        }
        if let (Some(details), Hops::Multi { ttl_min }) = (&arrival.details, entry.target.hops)
            && details.ttl < ttl_min
        {
            return Err(Discard::Ttl);
        }
        let change = entry.session.handle_packet(now, &received)?;
        entry.status.control_plane_independent =
            entry.session.remote_is_control_plane_independent();
        self.note_change(now, id, change);
        Ok(id)
    }

    /// The session for a packet without Your Discriminator: of those that match, the one with the
    /// most specific target.
    fn find(&self, arrival: &Arrival) -> Option<SlotId> {
        let details = arrival.details.as_ref()?;
        self.by_target
            .range(Target::first_with(arrival.source)..)
            .take_while(|(target, _)| target.peer == arrival.source)
            .filter(|(target, _)| {
                target.takes_from(arrival)
                    && target.local.is_none_or(|local| local == details.destination)
                    && target.interface.is_none_or(|index| index.get() == details.interface)
            })
            .max_by_key(|(target, _)| (target.interface.is_some(), target.local.is_some()))
            .map(|(_, id)| *id)
    }

    fn note_change(&mut self, now: Time, id: SlotId, change: Option<Change>) {
        let Some(Change { from, to, cause }) = change else { return };
        let Some(entry) = self.entry_mut(id) else { return };
        let status = &mut entry.status;
        status.state = to;
        status.since = now;
        let failed =
            from == State::Up && matches!(cause, Cause::DetectionTimeExpired | Cause::NeighborDown);
        if from == State::Up {
            let diag = entry.session.snapshot().diag;
            status.failures += u64::from(failed);
            status.last_down = Some(super::Down { cause, diag, at: now });
        }
        let owners: Vec<Owner> = entry.wanted.keys().copied().collect();
        self.failures += u64::from(failed);
        self.changed.extend(owners);
    }

    fn transmit(&mut self, now: Time, id: SlotId, send: &mut impl FnMut(Outgoing<'_>)) {
        let mut octets = std::mem::take(&mut self.buffer);
        if let Some(entry) = self.entry_mut(id) {
            octets.clear();
            while entry.session.poll_transmit(now, &mut octets) {
                send(Outgoing { id, target: &entry.target, octets: &octets });
                octets.clear();
            }
        }
        self.buffer = octets;
        self.enter(id);
    }

    /// Enters the session into the wheel, unless it is there with an earlier deadline already.
    fn enter(&mut self, id: SlotId) {
        let Some(entry) = self.entries.get_mut(id.0) else { return };
        let Some(at) = entry.session.poll_timeout().into_iter().chain(entry.ends_at).min() else {
            return;
        };
        if entry.entered.is_none_or(|entered| at < entered) {
            entry.entered = Some(self.wheel.insert(at, id));
        }
    }
}

/// The limit of [`SESSIONS_MAX`] sessions is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {SESSIONS_MAX} BFD sessions already")]
pub(super) struct TooMany;

/// The parameters of a session with several owners: the strictest of each. The configuration does
/// not allow owners with different keys.
fn merged(wanted: &BTreeMap<Owner, Config>) -> Config {
    let mut configs = wanted.values();
    let Some(first) = configs.next() else { return Config::default() };
    configs.fold(first.clone(), |merged, config| Config {
        min_tx: merged.min_tx.min(config.min_tx),
        min_rx: merged.min_rx.min(config.min_rx),
        multiplier: merged.multiplier.min(config.multiplier),
        role: if config.role == Role::Active { Role::Active } else { merged.role },
        auth: merged.auth,
    })
}

impl Status {
    fn new(now: Time) -> Status {
        Status {
            state: State::Down,
            since: now,
            failures: 0,
            last_down: None,
            control_plane_independent: false,
        }
    }
}

#[cfg(test)]
mod tests;
