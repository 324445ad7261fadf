//! Two BGP speakers in one process, joined by byte vectors and a clock that is a number: how a host
//! drives [`Peer`].
//!
//! `cargo run -p bgp-proto --example two_speakers`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bgp_proto::session::{Command, LocalIdentity, Peer, PeerConfig, Slot};
use bgp_proto::types::{Asn, Family, NextHop, PathId, RouterId, Time};
use bgp_proto::wire::{
    AnnounceFormat, AttrEdit, AttrView, MAX_LEN, Origin, RouteAction, RouteBatch, UpdateWriter,
};

/// One end of the session.
struct Speaker {
    name: &'static str,
    peer: Peer,
    /// The connection that the session runs on.
    slot: Slot,
    /// Octets on their way to the other end.
    out: Vec<u8>,
}

impl Speaker {
    fn new(name: &'static str, asn: Asn, remote: Asn, slot: Slot) -> Self {
        let local = LocalIdentity { asn, router_id: RouterId(asn.0) };
        let config = PeerConfig::new(IpAddr::from([192, 0, 2, 1]), remote, &local);
        Speaker { name, peer: Peer::new(Arc::new(config), u64::from(asn.0)), slot, out: Vec::new() }
    }

    /// Performs the peer's actions. A real host dials on `Connect` and closes the socket on
    /// `Close`.
    fn drain(&mut self) {
        while let Some(action) = self.peer.poll_action() {
            println!("{}: {action:?}", self.name);
        }
        self.peer.poll_transmit(self.slot, &mut self.out);
    }

    /// Receives what the other end sent; returns the routes in it.
    fn receive(&mut self, now: Time, octets: &[u8]) -> RouteBatch {
        let mut batch = RouteBatch::default();
        self.peer.handle_bytes(now, self.slot, octets, &mut batch, usize::MAX);
        self.drain();
        batch
    }
}

/// An UPDATE that announces one prefix of `asn`.
fn update(asn: Asn) -> Vec<u8> {
    let mut attrs = AttrEdit::originate(Origin::Igp);
    attrs.prepend_as(asn, 1);
    let format = AnnounceFormat {
        family: Family::Ipv4,
        four_octet_as: true,
        add_path: false,
        max_len: MAX_LEN,
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let mut octets = Vec::new();
    let mut writer = UpdateWriter::announce(&mut octets, format, attrs.view(), next_hop);
    let prefix = "198.51.100.0/24".parse().expect("a prefix");
    writer.push(PathId(0), prefix).expect("one prefix fits");
    writer.finish();
    octets
}

fn main() {
    let (left_as, right_as) = (Asn(65001), Asn(65002));
    let mut left = Speaker::new("left", left_as, right_as, Slot::Outgoing);
    let mut right = Speaker::new("right", right_as, left_as, Slot::Incoming);
    let now = Time::ZERO + Duration::from_secs(1);
    left.peer.handle_command(now, Command::Start);
    right.peer.handle_command(now, Command::Start);
    left.drain();
    right.drain();

    // The connection that `left` requested is established; `right` accepts it.
    let addr = |host| SocketAddr::from(([192, 0, 2, host], 179));
    left.peer.handle_connected(now, left.slot, addr(1), addr(2));
    right.peer.handle_connected(now, right.slot, addr(2), addr(1));
    left.drain();
    right.drain();
    while !(left.out.is_empty() && right.out.is_empty()) {
        let octets = std::mem::take(&mut left.out);
        right.receive(now, &octets);
        let octets = std::mem::take(&mut right.out);
        left.receive(now, &octets);
    }
    assert!(left.peer.negotiated().is_some() && right.peer.negotiated().is_some());

    let batch = right.receive(now, &update(left_as));
    for entry in batch.entries() {
        let RouteAction::Announce { attrs, next_hop } = &entry.action else { continue };
        let path: Vec<u32> =
            AttrView::new(batch.attrs(attrs)).as_path().asns().map(|a| a.0).collect();
        for (_, prefix) in batch.nlri(entry).iter() {
            println!("right: {prefix} via {next_hop:?}, path {path:?}");
        }
    }
    assert_eq!(batch.entries().len(), 1);
    let (deadline, timer) = left.peer.poll_timeout().expect("a session has timers");
    println!("next timer of left: {timer} in {:?}", deadline.since(now));
}
