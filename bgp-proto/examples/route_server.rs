//! A route server (RFC 7947): clients dial it over TCP, and each is sent the best route of the
//! others for each prefix, with NEXT_HOP, AS_PATH and MULTI_EXIT_DISC unchanged.
//!
//! `cargo run -p bgp-proto --example route_server -- OUR-AS OUR-ADDRESS:PORT CLIENT-ADDRESS=AS...`
//!
//! Sessions and codec are this crate's. A [`bgp_proto::table::Table`] prepends its own AS towards
//! external peers (RFC 4271 §5.1.2), which a route server must not; so the routes are in a map
//! here.

// This is the host's side, with sockets and a clock.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::session::{Action, Command, LocalIdentity, PassiveMode, Peer, PeerConfig, Slot};
use bgp_proto::types::{Asn, NextHop, PathId, Prefix, RouterId, Time};
use bgp_proto::wire::{AnnounceFormat, AttrView, RouteAction, RouteBatch, UpdateWriter};

/// Routes are processed in batches of about this many octets.
const BATCH_MAX: usize = 64 * 1024;
/// How long an idle client delays the others.
const TURN: Duration = Duration::from_millis(5);

struct Client {
    peer: Peer,
    slot: Slot,
    /// The newest connection; an older one is closed.
    stream: Option<TcpStream>,
    /// The beginning of a message whose end has not arrived.
    held: Vec<u8>,
}

struct Server {
    clients: Vec<Client>,
    /// Canonical attributes and next hops, by prefix and by the client that announced them.
    routes: BTreeMap<Prefix, BTreeMap<usize, (Vec<u8>, NextHop)>>,
    start: Instant,
}

impl Client {
    fn new(address: IpAddr, asn: Asn, local: &LocalIdentity) -> Self {
        let mut config = PeerConfig::new(address, asn, local);
        config.passive = PassiveMode::Passive;
        config.graceful_restart_time = None;
        let mut peer = Peer::new(Arc::new(config), u64::from(std::process::id()));
        peer.handle_command(Time::ZERO, Command::Start);
        Client { peer, slot: Slot::Incoming, stream: None, held: Vec::new() }
    }

    fn write(&mut self, octets: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        if stream.write_all(octets).is_err() {
            // Part of a message may have been sent: nothing may follow it. The next read returns
            // the error.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Reads the octets that have arrived.
    fn read(&mut self, now: Time) {
        let mut buffer = [0; 65536];
        match self.stream.as_mut().map(|stream| stream.read(&mut buffer)) {
            Some(Ok(len @ 1..)) => self.held.extend_from_slice(&buffer[..len]),
            Some(Err(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            None => {}
            Some(end) => self.lose(now, &format!("{end:?}")),
        }
    }

    fn lose(&mut self, now: Time, text: &str) {
        self.held.clear();
        if self.stream.take().is_some() {
            self.peer.handle_closed(now, self.slot, text);
        }
    }
}

impl Server {
    /// Processes what a client has sent, including its routes.
    fn receive(&mut self, now: Time, at: usize) {
        let mut batch = RouteBatch::default();
        loop {
            let Client { peer, slot, held, .. } = &mut self.clients[at];
            let taken = peer.handle_bytes(now, *slot, held, &mut batch, BATCH_MAX);
            held.drain(..taken);
            self.take(at, &batch);
            batch.clear();
            self.drain(at);
            if taken == 0 {
                return;
            }
        }
    }

    fn take(&mut self, from: usize, batch: &RouteBatch) {
        for entry in batch.entries() {
            for (_, prefix) in batch.nlri(entry).iter() {
                let paths = self.routes.entry(prefix).or_default();
                if let RouteAction::Announce { attrs, next_hop } = &entry.action {
                    paths.insert(from, (batch.attrs(attrs).to_vec(), *next_hop));
                } else {
                    paths.remove(&from);
                }
                (0..self.clients.len()).for_each(|to| self.advertise(to, prefix));
            }
            if entry.action == RouteAction::RefreshRequest {
                self.advertise_all(from);
            }
        }
    }

    /// Sends a client the best route of the others: its own does not hide theirs (RFC 7947 §2.3).
    fn advertise(&mut self, to: usize, prefix: Prefix) {
        let Some(agreed) = self.clients[to].peer.negotiated() else { return };
        let (family, max_len) = (prefix.family(), agreed.tx_max_len);
        let four_octet_as = agreed.four_octet_as;
        let format = AnnounceFormat { family, four_octet_as, add_path: false, max_len };
        let length = |attrs: &[u8]| AttrView::new(attrs).as_path().length();
        let paths = self.routes.get(&prefix).into_iter().flatten().filter(|(from, _)| **from != to);
        let mut octets = Vec::new();
        let mut writer = match paths.min_by_key(|(from, (attrs, _))| (length(attrs), **from)) {
            Some((_, (attrs, next_hop))) => {
                UpdateWriter::announce(&mut octets, format, AttrView::new(attrs), *next_hop)
            }
            None => UpdateWriter::withdraw(&mut octets, format),
        };
        if writer.push(PathId(0), prefix).is_ok() {
            writer.finish();
            self.clients[to].write(&octets);
        }
    }

    fn advertise_all(&mut self, to: usize) {
        let prefixes: Vec<Prefix> = self.routes.keys().copied().collect();
        prefixes.into_iter().for_each(|prefix| self.advertise(to, prefix));
    }

    /// Performs the actions of a client's session until there are none.
    fn drain(&mut self, at: usize) {
        loop {
            let mut octets = Vec::new();
            let client = &mut self.clients[at];
            client.peer.poll_transmit(client.slot, &mut octets);
            client.write(&octets);
            match client.peer.poll_action() {
                Some(Action::Up { .. }) => self.advertise_all(at),
                Some(Action::Down { .. }) => {
                    self.routes.values_mut().for_each(|paths| drop(paths.remove(&at)));
                    (0..self.clients.len()).for_each(|to| self.advertise_all(to));
                }
                Some(Action::Close { .. }) => (client.stream, client.held) = (None, Vec::new()),
                Some(other) => eprintln!("{}: {other:?}", client.peer.config().address),
                None => return,
            }
        }
    }

    fn turn(&mut self, listener: &TcpListener) -> std::io::Result<()> {
        let now = Time::ZERO + self.start.elapsed();
        while let Ok((stream, from)) = listener.accept() {
            let is_from = |client: &Client| client.peer.config().address == from.ip();
            let Some(at) = self.clients.iter().position(is_from) else { continue };
            self.clients[at].lose(now, "the client connected again");
            self.drain(at);
            stream.set_read_timeout(Some(TURN))?;
            stream.set_write_timeout(Some(Duration::from_secs(10)))?;
            let client = &mut self.clients[at];
            client.slot = client.peer.incoming_slot();
            client.peer.handle_connected(now, client.slot, stream.local_addr()?, from);
            client.stream = Some(stream);
        }
        for at in 0..self.clients.len() {
            self.clients[at].read(now);
            self.receive(now, at);
            self.clients[at].peer.handle_timeout(now);
            self.drain(at);
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [asn, ours, clients @ ..] = args.as_slice() else {
        return Err("usage: route_server OUR-AS OUR-ADDRESS:PORT CLIENT-ADDRESS=AS...".into());
    };
    let ours: SocketAddrV4 = ours.parse()?;
    let local = LocalIdentity { asn: Asn(asn.parse()?), router_id: RouterId((*ours.ip()).into()) };
    let mut server = Server { clients: vec![], routes: BTreeMap::new(), start: Instant::now() };
    for client in clients {
        let (address, asn) = client.split_once('=').ok_or("write a client as ADDRESS=AS")?;
        server.clients.push(Client::new(address.parse()?, Asn(asn.parse()?), &local));
    }
    let listener = TcpListener::bind(ours)?;
    listener.set_nonblocking(true)?;
    loop {
        server.turn(&listener)?;
        std::thread::sleep(TURN);
    }
}
