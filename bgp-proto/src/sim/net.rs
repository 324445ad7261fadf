//! TCP between speakers: ordered octets with latency, fragments, windows, partitions and resets.

use std::collections::BTreeMap;
use std::time::Duration;

use super::random::Random;
use super::speaker::SpeakerId;
use crate::types::Time;

/// A connection, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId(pub(super) usize);

/// An end of a connection: the one that dialled or the one that accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Dialler = 0,
    Acceptor = 1,
}

impl Side {
    pub(super) fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }
}

/// How written octets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// As they were written.
    Whole,
    /// Cut at random places.
    Random,
    /// One by one.
    Octets,
}

/// Properties of the link between two speakers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// Minimum one-way latency.
    pub latency: Duration,
    /// Maximum additional latency, drawn for each segment; order is kept.
    pub jitter: Duration,
    /// How octets are cut.
    pub fragment: Fragment,
    /// Maximum number of octets written and not read, per direction of a connection.
    pub window: usize,
}

impl Default for LinkSpec {
    fn default() -> Self {
        LinkSpec {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            fragment: Fragment::Whole,
            window: 65_536,
        }
    }
}

/// A planned reset: the next connection on the link breaks once this many octets of `sender` have
/// arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose octets are counted.
    pub sender: SpeakerId,
    /// How many of them still arrive.
    pub octets: u64,
}

/// How an end closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Octets that were written before still arrive.
    Fin,
    /// Segments in flight are lost.
    Rst,
    /// The machine has failed: the peers are not notified.
    Silence,
}

/// An event that arrives at a speaker.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The acceptor's kernel sees the connection.
    Syn(ConnId),
    /// The dialler's kernel sees it established.
    SynAck(ConnId),
    Refused(ConnId),
    Octets(ConnId, Side, Vec<u8>),
    /// The sender may have room again.
    Acknowledged(ConnId, Side, usize),
    Ended(ConnId, Side, &'static str),
}

impl Event {
    pub(super) fn conn(&self) -> ConnId {
        match self {
            Event::Syn(c) | Event::SynAck(c) | Event::Refused(c) => *c,
            Event::Octets(c, ..) | Event::Acknowledged(c, ..) | Event::Ended(c, ..) => *c,
        }
    }
}

/// One end's state.
#[derive(Clone, Debug)]
struct End {
    open: bool,
    /// Octets of this end that the other has not read, as far as this end knows.
    in_flight: usize,
    /// When the last of them arrives: order is kept.
    last_arrival: Time,
    /// Octets of this end that arrived.
    arrived: u64,
}

#[derive(Clone, Debug)]
struct Connection {
    speakers: [SpeakerId; 2],
    ends: [End; 2],
    aborted: bool,
    /// The side and the number of its octets after which the connection breaks.
    breaks_after: Option<(Side, u64)>,
}

struct Link {
    spec: LinkSpec,
    partitioned: bool,
    /// What arrived while the link was partitioned: TCP retransmits it.
    held: Vec<Event>,
    fault: Option<Fault>,
}

/// Links, connections, and events in flight.
pub(super) struct Net {
    pub(super) now: Time,
    random: Random,
    queue: BTreeMap<(Time, u64), Event>,
    queued: u64,
    links: BTreeMap<(SpeakerId, SpeakerId), Link>,
    conns: Vec<Connection>,
}

fn key(a: SpeakerId, b: SpeakerId) -> (SpeakerId, SpeakerId) {
    (a.min(b), a.max(b))
}

impl Net {
    pub(super) fn new(random: Random) -> Self {
        Net {
            now: Time::ZERO + Duration::from_secs(1),
            random,
            queue: BTreeMap::new(),
            queued: 0,
            links: BTreeMap::new(),
            conns: Vec::new(),
        }
    }

    pub(super) fn add_link(&mut self, a: SpeakerId, b: SpeakerId, spec: LinkSpec) {
        let link = Link { spec, partitioned: false, held: Vec::new(), fault: None };
        self.links.insert(key(a, b), link);
    }

    pub(super) fn set_fault(&mut self, a: SpeakerId, b: SpeakerId, fault: Fault) {
        self.link(a, b).fault = Some(fault);
    }

    /// Cancels planned resets, those of existing connections too.
    pub(super) fn clear_faults(&mut self) {
        self.links.values_mut().for_each(|link| link.fault = None);
        self.conns.iter_mut().for_each(|conn| conn.breaks_after = None);
    }

    pub(super) fn partition(&mut self, a: SpeakerId, b: SpeakerId) {
        self.link(a, b).partitioned = true;
    }

    pub(super) fn heal(&mut self, a: SpeakerId, b: SpeakerId) {
        let now = self.now;
        let link = self.link(a, b);
        link.partitioned = false;
        let at = now + link.spec.latency;
        let held = std::mem::take(&mut self.link(a, b).held);
        // What is still in flight was sent later, so it also arrives later.
        let ours = |conns: &[Connection], event: &Event| {
            let [x, y] = conns[event.conn().0].speakers;
            key(x, y) == key(a, b)
        };
        let queue = std::mem::take(&mut self.queue);
        let (behind, rest) = queue.into_iter().partition(|(_, event)| ours(&self.conns, event));
        self.queue = rest;
        let behind: BTreeMap<_, _> = behind;
        for event in held.into_iter().chain(behind.into_values()) {
            self.schedule(at, event);
        }
    }

    /// Breaks every connection between two speakers; both ends are notified.
    pub(super) fn reset(&mut self, a: SpeakerId, b: SpeakerId) {
        for id in self.conns_between(a, b) {
            self.break_conn(id);
        }
    }

    /// Octets of `sender` that arrived over all connections with `receiver`.
    pub(super) fn arrived(&self, sender: SpeakerId, receiver: SpeakerId) -> u64 {
        let conns = self.conns.iter();
        conns
            .flat_map(|c| {
                [(0, 1), (1, 0)].map(|(from, to)| {
                    let ours = c.speakers[from] == sender && c.speakers[to] == receiver;
                    if ours { c.ends[from].arrived } else { 0 }
                })
            })
            .sum()
    }

    pub(super) fn dial(&mut self, from: SpeakerId, to: SpeakerId) -> ConnId {
        let id = ConnId(self.conns.len());
        let end = End { open: false, in_flight: 0, last_arrival: self.now, arrived: 0 };
        let fault = self.link(from, to).fault.take();
        let breaks_after = fault.map(|fault| {
            let side = if fault.sender == from { Side::Dialler } else { Side::Acceptor };
            (side, fault.octets)
        });
        self.conns.push(Connection {
            speakers: [from, to],
            ends: [end.clone(), end],
            aborted: false,
            breaks_after,
        });
        self.send(id, Side::Dialler, Event::Syn(id));
        id
    }

    pub(super) fn abort_dial(&mut self, id: ConnId) {
        self.conns[id.0].aborted = true;
    }

    /// The acceptor's answer to a SYN.
    pub(super) fn accept(&mut self, id: ConnId) {
        self.conns[id.0].ends[Side::Acceptor as usize].open = true;
        self.send(id, Side::Acceptor, Event::SynAck(id));
        self.break_if_due(id);
    }

    pub(super) fn refuse(&mut self, id: ConnId) {
        self.send(id, Side::Acceptor, Event::Refused(id));
    }

    /// Octets that an end may write at present.
    pub(super) fn room(&self, id: ConnId, side: Side) -> usize {
        let conn = &self.conns[id.0];
        let [a, b] = conn.speakers;
        let window = self.links.get(&key(a, b)).map_or(0, |link| link.spec.window);
        window.saturating_sub(conn.ends[side as usize].in_flight)
    }

    pub(super) fn write(&mut self, id: ConnId, side: Side, octets: &[u8]) {
        if !self.conns[id.0].ends[side as usize].open {
            return;
        }
        self.conns[id.0].ends[side as usize].in_flight += octets.len();
        let [a, b] = self.conns[id.0].speakers;
        let fragment = self.link(a, b).spec.fragment;
        let mut rest = octets;
        while !rest.is_empty() {
            let len = match fragment {
                Fragment::Whole => rest.len(),
                Fragment::Random => 1 + self.random.index(rest.len()),
                Fragment::Octets => 1,
            };
            let (piece, behind) = rest.split_at(len);
            self.send(id, side, Event::Octets(id, side, piece.to_vec()));
            rest = behind;
        }
    }

    /// The process at an end has read `len` octets: the other end's window opens.
    pub(super) fn acknowledge(&mut self, id: ConnId, side: Side, len: usize) {
        self.send(id, side, Event::Acknowledged(id, side.other(), len));
    }

    pub(super) fn close(&mut self, id: ConnId, side: Side, how: Ending) {
        let end = &mut self.conns[id.0].ends[side as usize];
        if !std::mem::replace(&mut end.open, false) {
            return;
        }
        match how {
            Ending::Fin => self.send(id, side, Event::Ended(id, side, "closed by peer")),
            Ending::Rst => self.send(id, side, Event::Ended(id, side, "reset by peer")),
            Ending::Silence => {}
        }
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes the next event. Returns it with the speaker at which it arrives, if its link lets it
    /// through and an open end accepts it.
    pub(super) fn poll(&mut self) -> Option<(SpeakerId, Event)> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = self.now.max(at);
        let id = event.conn();
        let [a, b] = self.conns[id.0].speakers;
        if self.link(a, b).partitioned {
            self.link(a, b).held.push(event);
            return None;
        }
        match event {
            Event::Syn(_) => Some((b, event)),
            Event::SynAck(_) if self.conns[id.0].aborted => {
                self.conns[id.0].ends[0].open = true;
                self.close(id, Side::Dialler, Ending::Rst);
                None
            }
            Event::SynAck(_) => {
                self.conns[id.0].ends[0].open = true;
                Some((a, event))
            }
            Event::Refused(_) => (!self.conns[id.0].aborted).then_some((a, event)),
            Event::Octets(_, from, octets) => self.arrive(id, from, octets),
            Event::Acknowledged(_, side, len) => {
                let end = &mut self.conns[id.0].ends[side as usize];
                end.in_flight = end.in_flight.saturating_sub(len);
                end.open.then(|| (self.speaker(id, side), event))
            }
            Event::Ended(_, from, _) => {
                let to = from.other();
                let end = &mut self.conns[id.0].ends[to as usize];
                std::mem::replace(&mut end.open, false).then(|| (self.speaker(id, to), event))
            }
        }
    }

    /// Octets arrive at an end that may be closed.
    fn arrive(&mut self, id: ConnId, from: Side, octets: Vec<u8>) -> Option<(SpeakerId, Event)> {
        let to = from.other();
        let conn = &mut self.conns[id.0];
        if !conn.ends[to as usize].open {
            // A machine that does not know the connection answers with RST.
            conn.ends[to as usize].open = true;
            self.close(id, to, Ending::Rst);
            return None;
        }
        let (len, octets) = match conn.breaks_after {
            Some((side, limit)) if side == from => {
                let left = limit - conn.ends[from as usize].arrived.min(limit);
                let len = octets.len().min(left as usize);
                (len, octets[..len].to_vec())
            }
            _ => (octets.len(), octets),
        };
        conn.ends[from as usize].arrived += len as u64;
        self.break_if_due(id);
        (len > 0).then(|| (self.speaker(id, to), Event::Octets(id, from, octets)))
    }

    /// The planned reset happens as soon as its octets have arrived.
    fn break_if_due(&mut self, id: ConnId) {
        let conn = &self.conns[id.0];
        if let Some((side, limit)) = conn.breaks_after
            && conn.ends[side as usize].arrived >= limit
        {
            self.break_conn(id);
        }
    }

    fn break_conn(&mut self, id: ConnId) {
        for from in [Side::Dialler, Side::Acceptor] {
            let at = self.now + Duration::from_micros(1);
            self.schedule(at, Event::Ended(id, from, "connection reset"));
        }
        self.conns[id.0].aborted = true;
    }

    fn conns_between(&self, a: SpeakerId, b: SpeakerId) -> Vec<ConnId> {
        let ours = |c: &Connection| key(c.speakers[0], c.speakers[1]) == key(a, b);
        let open = |c: &Connection| c.ends.iter().any(|end| end.open);
        let ids = self.conns.iter().enumerate().filter(|(_, c)| ours(c) && open(c));
        ids.map(|(index, _)| ConnId(index)).collect()
    }

    /// Sends from an end: the event arrives after the latency, and after what the end sent before.
    fn send(&mut self, id: ConnId, from: Side, event: Event) {
        let [a, b] = self.conns[id.0].speakers;
        let spec = self.link(a, b).spec;
        let jitter = self.random.up_to(spec.jitter);
        let end = &mut self.conns[id.0].ends[from as usize];
        let at = (self.now + spec.latency + jitter).max(end.last_arrival);
        end.last_arrival = at;
        self.schedule(at, event);
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    pub(super) fn speaker(&self, id: ConnId, side: Side) -> SpeakerId {
        self.conns[id.0].speakers[side as usize]
    }

    fn link(&mut self, a: SpeakerId, b: SpeakerId) -> &mut Link {
        self.links.get_mut(&key(a, b)).expect("speakers dial only over links that were added")
    }
}
