//! A route collector: dials one speaker over TCP and prints what it announces, one line per route.
//!
//! `cargo run -p bgp-proto --example collector -- OUR-AS PEER-AS OUR-ADDRESS PEER-ADDRESS:PORT`
//!
//! It announces nothing and keeps no table: sessions and decoding are [`Peer`]'s, the rest is a
//! socket and a clock.

// This is the host's side, which has both.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp_proto::session::{Action, Command, LocalIdentity, Peer, PeerConfig, Slot};
use bgp_proto::types::{Asn, FamilySet, RouterId, Time};
use bgp_proto::wire::{AttrView, RouteAction, RouteBatch};

const SLOT: Slot = Slot::Outgoing;
/// Routes are printed in batches of about this many octets.
const BATCH_MAX: usize = 64 * 1024;

struct Collector {
    peer: Peer,
    to: SocketAddr,
    start: Instant,
    stream: Option<TcpStream>,
    /// The beginning of a message whose end has not arrived.
    held: Vec<u8>,
}

impl Collector {
    fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// Performs the peer's actions until there are none.
    fn drain(&mut self) {
        loop {
            self.transmit();
            match self.peer.poll_action() {
                Some(Action::Connect) => self.dial(),
                Some(Action::Close { slot: SLOT, .. }) => {
                    self.transmit();
                    self.stream = None;
                    self.held.clear();
                }
                Some(Action::Down { reason, .. }) => eprintln!("down: {reason:?}"),
                Some(other) => eprintln!("{other:?}"),
                None => return,
            }
        }
    }

    fn transmit(&mut self) {
        let mut octets = Vec::new();
        self.peer.poll_transmit(SLOT, &mut octets);
        // An error in writing shows at the next read.
        let _ = self.stream.as_mut().map(|stream| stream.write_all(&octets));
    }

    fn dial(&mut self) {
        let connect = || {
            let stream = TcpStream::connect_timeout(&self.to, Duration::from_secs(5))?;
            Ok((stream.local_addr()?, stream.peer_addr()?, stream))
        };
        let result: std::io::Result<_> = connect();
        let now = self.now();
        match result {
            Ok((local, remote, stream)) => {
                self.stream = Some(stream);
                self.peer.handle_connected(now, SLOT, local, remote);
            }
            Err(error) => self.peer.handle_connect_failed(now, &error.to_string()),
        }
    }

    /// Reads until something arrives or the next timer is due.
    fn turn(&mut self) {
        let due =
            self.peer.poll_timeout().map_or(Duration::from_secs(1), |(at, _)| at.since(self.now()));
        let due = due.clamp(Duration::from_millis(1), Duration::from_secs(1));
        let mut buffer = [0; 65536];
        let read = match &mut self.stream {
            Some(stream) => {
                stream.set_read_timeout(Some(due)).and_then(|()| stream.read(&mut buffer))
            }
            None => {
                std::thread::sleep(due);
                Err(ErrorKind::WouldBlock.into())
            }
        };
        let now = self.now();
        match read {
            Ok(0) => self.peer.handle_closed(now, SLOT, "end of file"),
            Ok(len) => {
                self.held.extend_from_slice(buffer.get(..len).unwrap_or_default());
                self.parse(now);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => self.peer.handle_closed(now, SLOT, &e.to_string()),
        }
        self.peer.handle_timeout(self.now());
        self.drain();
    }

    fn parse(&mut self, now: Time) {
        let mut batch = RouteBatch::default();
        loop {
            let taken = self.peer.handle_bytes(now, SLOT, &self.held, &mut batch, BATCH_MAX);
            self.held.drain(..taken);
            print(&batch);
            batch.clear();
            if taken == 0 {
                return;
            }
        }
    }
}

fn print(batch: &RouteBatch) {
    for entry in batch.entries() {
        match &entry.action {
            RouteAction::Announce { attrs, next_hop } => {
                let attrs = AttrView::new(batch.attrs(attrs));
                let path: Vec<String> = attrs.as_path().asns().map(|a| a.0.to_string()).collect();
                let tail = format!("via {next_hop:?} path {}", path.join(" "));
                batch
                    .nlri(entry)
                    .iter()
                    .for_each(|(_, prefix)| println!("announce {prefix} {tail}"));
            }
            RouteAction::Withdraw => {
                batch.nlri(entry).iter().for_each(|(_, prefix)| println!("withdraw {prefix}"));
            }
            other => println!("{other:?} {:?}", entry.family),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [our_as, peer_as, ours, theirs] = args.as_slice() else {
        return Err("usage: collector OUR-AS PEER-AS OUR-ADDRESS PEER-ADDRESS:PORT".into());
    };
    let (ours, to): (Ipv4Addr, SocketAddr) = (ours.parse()?, theirs.parse()?);
    let local = LocalIdentity { asn: Asn(our_as.parse()?), router_id: RouterId(ours.into()) };
    let mut config = PeerConfig::new(to.ip(), Asn(peer_as.parse()?), &local);
    config.source_address = Some(IpAddr::V4(ours));
    config.families = FamilySet::ALL;
    let seed = u64::from(std::process::id());
    let peer = Peer::new(Arc::new(config), seed);
    let mut collector =
        Collector { peer, to, start: Instant::now(), stream: None, held: Vec::new() };
    collector.peer.handle_command(collector.now(), Command::Start);
    collector.drain();
    loop {
        collector.turn();
    }
}
