//! One simulated speaker: a host for `session::Peer`s, as `net` is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::net::{ConnId, Ending, Net, Side};
use super::routing::Routing;
use super::startup::Startup;
use crate::session::{Action, Close, Command, Negotiated, Peer, PeerConfig, Restart, Slot, State};
use crate::table::{PeerRoutes, TableEvent};
use crate::types::{Asn, ClusterId, PeerId, RouterId, Time};
use crate::wire::RouteBatch;

/// A speaker, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpeakerId(pub usize);

/// Identity of a speaker.
#[derive(Clone, Copy, Debug)]
pub struct SpeakerSpec {
    /// Its AS.
    pub asn: Asn,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Its address.
    pub address: IpAddr,
    /// Its cluster, if it reflects routes; default: its identifier.
    pub cluster_id: Option<ClusterId>,
}

/// One side of a session: its parameters, and those of its routes.
#[derive(Clone, Debug)]
pub struct NeighborSpec {
    /// The session.
    pub session: PeerConfig,
    /// Its routes.
    pub routes: PeerRoutes,
}

/// More turns than this without an input are a loop.
const TURNS_MAX: usize = 100_000;

/// An end of a connection, as the host sees it.
struct Endpoint {
    conn: ConnId,
    side: Side,
    /// Octets that arrived and are not a whole message yet.
    received: Vec<u8>,
    /// Octets that the process has not read.
    unread: Vec<u8>,
    /// Whole messages, the first perhaps partly written.
    waiting: Vec<u8>,
    session_up: bool,
}

/// A neighbour and its connections.
pub(super) struct Neighbor {
    owner: SpeakerId,
    pub(super) to: SpeakerId,
    pub(super) peer: Peer,
    routes: Arc<PeerRoutes>,
    seed: u64,
    ends: [Option<Endpoint>; 3],
    dialling: Option<ConnId>,
    up: bool,
    /// Number of `Up`s, including those before restarts of the speaker.
    pub(super) ups: u64,
    /// How many of these were reported to the startup.
    counted_ups: u64,
    pub(super) dials: u64,
    pub(super) last_down: Option<Close>,
}

/// A host with its sessions and routes.
pub struct Speaker {
    pub(super) id: SpeakerId,
    pub(super) spec: SpeakerSpec,
    pub(super) neighbors: Vec<Neighbor>,
    pub(super) routing: Box<dyn Routing>,
    /// After a restart, until the peers have sent their routes.
    startup: Option<Startup>,
    /// The earliest deadline, as of the last input.
    deadline: Option<Time>,
    /// Largest batch of routes, in octets.
    batch_max: usize,
    /// The process runs.
    pub(super) running: bool,
    /// The process reads from its sockets.
    pub(super) reading: bool,
}

impl Speaker {
    pub(super) fn new(
        id: SpeakerId,
        spec: SpeakerSpec,
        routing: Box<dyn Routing>,
        batch_max: usize,
    ) -> Self {
        Speaker {
            id,
            spec,
            neighbors: Vec::new(),
            routing,
            startup: None,
            deadline: None,
            batch_max,
            running: false,
            reading: true,
        }
    }

    pub(super) fn add_neighbor(&mut self, to: SpeakerId, spec: NeighborSpec, seed: u64) {
        let NeighborSpec { session: config, routes } = spec;
        let routes = Arc::new(routes);
        let id = PeerId(self.neighbors.len() as u32);
        self.routing.peer_add(id, config.address, Arc::clone(&routes));
        self.neighbors.push(Neighbor {
            owner: self.id,
            to,
            peer: Peer::new(Arc::new(config), seed),
            routes,
            seed,
            ends: [None, None, None],
            dialling: None,
            up: false,
            ups: 0,
            counted_ups: 0,
            dials: 0,
            last_down: None,
        });
    }

    /// The state of the session with `to`.
    pub(super) fn neighbor(&self, to: SpeakerId) -> Option<&Neighbor> {
        self.neighbors.iter().find(|n| n.to == to)
    }

    /// The number of `to` among our peers.
    pub(super) fn peer_id(&self, to: SpeakerId) -> Option<PeerId> {
        let index = self.neighbors.iter().position(|n| n.to == to)?;
        Some(PeerId(index as u32))
    }

    /// The process starts.
    pub(super) fn start(&mut self, now: Time, restart: Restart, net: &mut Net) {
        self.running = true;
        if restart != Restart::Done {
            self.startup = Some(Startup::new(now, self.neighbors.len()));
            self.routing.defer_export();
        }
        for neighbor in &mut self.neighbors {
            neighbor.peer.set_restart(restart);
            neighbor.peer.handle_command(now, Command::Start);
        }
        self.drain(now, net);
    }

    /// The process or the machine fails; nothing of its sessions remains.
    pub(super) fn die(&mut self, how: Ending, routing: Box<dyn Routing>, net: &mut Net) {
        self.running = false;
        self.startup = None;
        self.routing = routing;
        for (index, neighbor) in self.neighbors.iter_mut().enumerate() {
            let address = neighbor.peer.config().address;
            self.routing.peer_add(PeerId(index as u32), address, Arc::clone(&neighbor.routes));
            for end in neighbor.ends.iter_mut().filter_map(Option::take) {
                net.close(end.conn, end.side, how);
            }
            if let Some(conn) = neighbor.dialling.take() {
                net.abort_dial(conn);
            }
            neighbor.seed = neighbor.seed.wrapping_add(1);
            let config = Arc::clone(neighbor.peer.config());
            neighbor.peer = Peer::new(config, neighbor.seed);
            neighbor.up = false;
        }
    }

    pub(super) fn command(&mut self, now: Time, to: SpeakerId, command: Command, net: &mut Net) {
        if let Some(neighbor) = self.neighbors.iter_mut().find(|n| n.to == to) {
            neighbor.peer.handle_command(now, command);
        }
        self.drain(now, net);
    }

    /// A SYN from `from`.
    pub(super) fn handle_syn(&mut self, now: Time, conn: ConnId, from: SpeakerId, net: &mut Net) {
        let address = self.spec.address;
        let neighbor = self.neighbors.iter_mut().find(|n| n.to == from);
        let Some(neighbor) = neighbor.filter(|_| self.running) else {
            return net.refuse(conn);
        };
        net.accept(conn);
        let slot = neighbor.peer.incoming_slot();
        neighbor.connect(now, slot, conn, Side::Acceptor, address, net);
        self.drain(now, net);
    }

    pub(super) fn handle_syn_ack(&mut self, now: Time, conn: ConnId, net: &mut Net) {
        let address = self.spec.address;
        match self.neighbors.iter_mut().find(|n| n.dialling == Some(conn)) {
            Some(neighbor) => {
                neighbor.dialling = None;
                neighbor.connect(now, Slot::Outgoing, conn, Side::Dialler, address, net);
            }
            None => net.close(conn, Side::Dialler, Ending::Rst),
        }
        self.drain(now, net);
    }

    pub(super) fn handle_refused(&mut self, now: Time, conn: ConnId, net: &mut Net) {
        if let Some(neighbor) = self.neighbors.iter_mut().find(|n| n.dialling == Some(conn)) {
            neighbor.dialling = None;
            neighbor.peer.handle_connect_failed(now, "connection refused");
        }
        self.drain(now, net);
    }

    pub(super) fn handle_octets(&mut self, now: Time, conn: ConnId, octets: &[u8], net: &mut Net) {
        if let Some((index, slot)) = self.find(conn) {
            if let Some(end) = &mut self.neighbors[index].ends[slot.index()] {
                end.unread.extend_from_slice(octets);
            }
            self.read(now, index, slot, net);
        }
        self.drain(now, net);
    }

    pub(super) fn handle_ended(&mut self, now: Time, conn: ConnId, text: &str, net: &mut Net) {
        if let Some((index, slot)) = self.find(conn) {
            self.neighbors[index].ends[slot.index()] = None;
            self.neighbors[index].peer.handle_closed(now, slot, text);
        }
        self.drain(now, net);
    }

    /// The window opened: octets of ours were read.
    pub(super) fn handle_acknowledged(&mut self, now: Time, conn: ConnId, net: &mut Net) {
        if let Some((index, slot)) = self.find(conn) {
            self.neighbors[index].peer.handle_sent(now, slot);
        }
        self.drain(now, net);
    }

    pub(super) fn handle_timeout(&mut self, now: Time, net: &mut Net) {
        for index in 0..self.neighbors.len() {
            // The contract of `handle_timeout`: what the socket holds is passed on first.
            for slot in Slot::ALL {
                self.read(now, index, slot, net);
                if !self.reading {
                    self.neighbors[index].peer.handle_alive(now, slot);
                }
            }
            self.neighbors[index].peer.handle_timeout(now);
        }
        self.routing.handle_timeout(now);
        self.drain(now, net);
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.deadline.filter(|_| self.running)
    }

    fn earliest_deadline(&self) -> Option<Time> {
        let peers = self.neighbors.iter().filter_map(|n| n.peer.poll_timeout());
        let startup = self.startup.as_ref().map(Startup::deadline);
        peers.map(|(at, _)| at).chain(self.routing.poll_timeout()).chain(startup).min()
    }

    pub(super) fn read_all(&mut self, now: Time, net: &mut Net) {
        for index in 0..self.neighbors.len() {
            Slot::ALL.into_iter().for_each(|slot| self.read(now, index, slot, net));
        }
        self.drain(now, net);
    }

    fn find(&self, conn: ConnId) -> Option<(usize, Slot)> {
        self.neighbors.iter().enumerate().find_map(|(index, neighbor)| {
            let holds = |slot: &Slot| {
                neighbor.ends[slot.index()].as_ref().is_some_and(|end| end.conn == conn)
            };
            Slot::ALL.into_iter().find(holds).map(|slot| (index, slot))
        })
    }

    /// Whole messages go to the state machine, batch by batch.
    fn read(&mut self, now: Time, index: usize, slot: Slot, net: &mut Net) {
        if !self.reading {
            return;
        }
        if let Some(end) = &mut self.neighbors[index].ends[slot.index()]
            && !end.unread.is_empty()
        {
            net.acknowledge(end.conn, end.side, end.unread.len());
            end.received.append(&mut end.unread);
        }
        let mut batch = RouteBatch::default();
        loop {
            let neighbor = &mut self.neighbors[index];
            let Some(end) = &mut neighbor.ends[slot.index()] else { break };
            let octets = std::mem::take(&mut end.received);
            let taken = neighbor.peer.handle_bytes(now, slot, &octets, &mut batch, self.batch_max);
            assert!(taken <= octets.len(), "more octets taken than there were");
            if let Some(end) = &mut neighbor.ends[slot.index()] {
                end.received = octets;
                end.received.drain(..taken);
            }
            let ended = neighbor.act(now, index, self.routing.as_mut(), net) == Session::Ended;
            if !ended && neighbor.up {
                let peer = PeerId(index as u32);
                self.note_started(index);
                if let Some(startup) = &mut self.startup {
                    startup.handle_batch(peer, &batch);
                }
                self.routing.apply(now, peer, &batch);
            } else {
                assert!(ended || batch.is_empty(), "routes without a session");
            }
            let full = batch.size() >= self.batch_max;
            batch.clear();
            if !full {
                break;
            }
        }
    }

    /// Makes the startup wait for a session that came up during it.
    fn note_started(&mut self, index: usize) {
        let neighbor = &mut self.neighbors[index];
        let (Some(startup), Some(session)) = (&mut self.startup, neighbor.peer.negotiated()) else {
            return;
        };
        if neighbor.counted_ups != neighbor.ups {
            neighbor.counted_ups = neighbor.ups;
            startup.handle_up(PeerId(index as u32), session);
        }
    }

    /// Ends the startup as soon as it may.
    fn end_startup(&mut self, now: Time) {
        (0..self.neighbors.len()).for_each(|index| self.note_started(index));
        if self.startup.as_ref().is_some_and(|startup| startup.is_over(now)) {
            self.startup = None;
            self.routing.release_export();
            self.neighbors.iter_mut().for_each(|n| n.peer.set_restart(Restart::Done));
        }
    }

    /// Performs the actions of the state machines, and writes until nothing more can be done.
    pub(super) fn drain(&mut self, now: Time, net: &mut Net) {
        if !self.running {
            return;
        }
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the routing always wants another turn");
            for index in 0..self.neighbors.len() {
                let neighbor = &mut self.neighbors[index];
                neighbor.act(now, index, self.routing.as_mut(), net);
                neighbor.check();
            }
            self.end_startup(now);
            self.routing.finish(now);
            let closed = self.obey_routing(now);
            for index in 0..self.neighbors.len() {
                for slot in Slot::ALL {
                    self.neighbors[index].flush(now, index, slot, self.routing.as_mut(), net);
                }
            }
            if !closed && !self.routing.wants_turn() {
                break;
            }
        }
        self.deadline = self.earliest_deadline();
    }

    /// Closes the sessions that the routing requests; returns whether there were any.
    fn obey_routing(&mut self, now: Time) -> bool {
        let mut closed = false;
        while let Some(event) = self.routing.poll_event() {
            let (peer, reason) = match event {
                TableEvent::Close { peer, reason, .. } => (peer, reason.to_close()),
                TableEvent::PrefixWarning { .. }
                | TableEvent::EndOfRib { .. }
                | TableEvent::StaleRemoved { .. }
                | TableEvent::LongLivedStale { .. }
                | TableEvent::NotLongLived { .. }
                | TableEvent::Synchronised { .. }
                | TableEvent::Note(_) => continue,
            };
            closed = true;
            self.neighbors[peer.index()].peer.handle_command(now, Command::Restart(reason));
        }
        closed
    }
}

/// What happened to the session while actions were performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Unchanged,
    Began,
    Ended,
}

impl Neighbor {
    fn connect(
        &mut self,
        now: Time,
        slot: Slot,
        conn: ConnId,
        side: Side,
        address: IpAddr,
        net: &mut Net,
    ) {
        if let Some(older) = self.ends[slot.index()].take() {
            net.close(older.conn, older.side, Ending::Rst);
        }
        let end = Endpoint {
            conn,
            side,
            received: Vec::new(),
            unread: Vec::new(),
            waiting: Vec::new(),
            session_up: false,
        };
        self.ends[slot.index()] = Some(end);
        let local = SocketAddr::new(address, 179);
        let remote = SocketAddr::new(self.peer.config().address, 40_000);
        self.peer.handle_connected(now, slot, local, remote);
    }

    fn act(
        &mut self,
        now: Time,
        index: usize,
        routing: &mut dyn Routing,
        net: &mut Net,
    ) -> Session {
        let peer = PeerId(index as u32);
        let mut session = Session::Unchanged;
        while let Some(action) = self.peer.poll_action() {
            match action {
                Action::Connect => {
                    assert!(self.dialling.is_none(), "two attempts to connect at once");
                    assert!(
                        self.ends[0].is_none(),
                        "an attempt while an outgoing connection exists"
                    );
                    assert!(!self.up, "an attempt while a session is established");
                    self.dials += 1;
                    self.dialling = Some(net.dial(self.owner, self.to));
                }
                Action::AbortConnect => {
                    let conn = self.dialling.take().expect("only an attempt can be aborted");
                    net.abort_dial(conn);
                }
                Action::Close { slot, abort } => self.close(slot, abort, net),
                Action::Up { slot, negotiated } => {
                    assert!(!std::mem::replace(&mut self.up, true), "Up twice");
                    self.ups += 1;
                    session = Session::Began;
                    self.begin(slot, &negotiated);
                    routing.peer_up(now, peer, &negotiated);
                }
                Action::Down { reason, keep } => {
                    assert!(std::mem::replace(&mut self.up, false), "Down without Up");
                    session = Session::Ended;
                    self.last_down = Some(reason);
                    self.ends.iter_mut().flatten().for_each(|end| end.session_up = false);
                    routing.peer_down(now, peer, keep);
                }
                Action::Note(_) | Action::Faulty(_) => {}
            }
        }
        session
    }

    fn begin(&mut self, slot: Slot, negotiated: &Arc<Negotiated>) {
        let end = self.ends[slot.index()].as_mut().expect("Up names a connection that exists");
        end.session_up = true;
        assert_eq!(self.peer.negotiated(), Some(negotiated));
    }

    fn close(&mut self, slot: Slot, abort: bool, net: &mut Net) {
        let Some(mut end) = self.ends[slot.index()].take() else { return };
        if abort {
            return net.close(end.conn, end.side, Ending::Rst);
        }
        self.peer.poll_transmit(slot, &mut end.waiting);
        net.write(end.conn, end.side, &end.waiting);
        net.close(end.conn, end.side, Ending::Fin);
    }

    /// Control messages first, then routes, as far as the window allows.
    fn flush(
        &mut self,
        now: Time,
        index: usize,
        slot: Slot,
        routing: &mut dyn Routing,
        net: &mut Net,
    ) {
        let Some(end) = &mut self.ends[slot.index()] else { return };
        loop {
            let room = net.room(end.conn, end.side);
            if end.waiting.is_empty() {
                self.peer.poll_transmit(slot, &mut end.waiting);
                if end.session_up {
                    routing.fetch(now, PeerId(index as u32), room.max(1), &mut end.waiting);
                }
            }
            if end.waiting.is_empty() {
                return;
            }
            if room == 0 {
                return self.peer.handle_send_blocked(now, slot);
            }
            let len = room.min(end.waiting.len());
            net.write(end.conn, end.side, &end.waiting[..len]);
            end.waiting.drain(..len);
        }
    }

    /// Checks what holds after every input.
    fn check(&self) {
        let established = self.peer.state() == State::Established;
        assert_eq!(established, self.up, "Established means Up");
        assert_eq!(established, self.peer.negotiated().is_some());
        let count = self.ends.iter().flatten().filter(|end| end.session_up).count();
        assert_eq!(count, usize::from(self.up), "one connection is the session");
        let busy = self.dialling.is_some() || self.ends.iter().any(Option::is_some);
        let silent = self.peer.negotiated().is_some_and(|n| n.hold_time.is_zero());
        let stopped = self.peer.state() == State::Idle;
        if busy && !silent && !stopped {
            assert!(self.peer.poll_timeout().is_some(), "a connection without a timer");
        }
    }
}
