//! Routes through the table: import, decision, encoding for groups, and what their members fetch.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;

use bgp_proto::export::{Fetch, Reader};
use bgp_proto::rib::NextHopState;
use bgp_proto::session::Negotiated;
use bgp_proto::table::{NextHopRequest, NextTurn, PeerRoutes, Table, TableConfig, Work};
use bgp_proto::types::{
    Asn, Community, Family, NextHop, PeerId, Prefix, Prefix4, RouterId, SessionId, Time,
};
use bgp_proto::wire::{AttrEdit, Nlri, Origin, RouteBatch};

use crate::counted_work;

const OUR_ASN: Asn = Asn(4_200_000_001);
/// The size of one read from a socket, octets.
const BATCH_MAX: usize = 64 << 10;
/// Changes that each member of the group is sent.
const CHANGES: u32 = 100;

/// A table and what its members fetch from.
struct Host {
    table: Table,
    readers: Vec<Reader>,
}

impl Host {
    /// Two feeders and a receiver, each in an AS of its own.
    fn new(fib_enabled: bool) -> Self {
        let config = TableConfig { fib_enabled, ..TableConfig::new(OUR_ASN, RouterId(1)) };
        let table = Table::new(Arc::new(config), 0x5eed, Waker::noop().clone());
        let mut host = Host { table, readers: Vec::new() };
        (1..=3).for_each(|id| host.up(id, Asn(65000 + id)));
        host.turn();
        host
    }

    fn up(&mut self, id: u32, asn: Asn) {
        let address = IpAddr::from([192, 0, (2 + id / 256) as u8, id as u8]);
        self.table.peer_add(PeerId(id), address, Arc::new(PeerRoutes::new(format!("peer{id}"))));
        let ours = (OUR_ASN, IpAddr::from([192, 0, 2, 254]));
        let negotiated =
            Negotiated { peer_router_id: RouterId(id), ..Negotiated::plain(ours, (asn, address)) };
        self.table.peer_up(PeerId(id), SessionId(1), Arc::new(negotiated));
        loop {
            let _ = self.table.turn(Time::ZERO, Work::TURN);
            if let Some(mut established) = self.table.poll_established() {
                return self.readers.append(&mut established.readers);
            }
        }
    }

    /// Runs turns until there is nothing left to do.
    fn turn(&mut self) {
        let mut pieces = Vec::new();
        loop {
            let mut more = self.table.turn(Time::ZERO, Work::TURN).next == NextTurn::Now;
            for request in self.table.poll_next_hops() {
                if let NextHopRequest::Track(address) = request {
                    self.table.handle_next_hop(address, NextHopState::connected(address, 1));
                    more = true;
                }
            }
            while !self.table.poll_fib(1024).is_empty() {}
            for reader in &mut self.readers {
                while reader.fetch(256 << 10, &mut pieces, Waker::noop()) == Fetch::Data {
                    pieces.clear();
                    more = true;
                }
            }
            if !more {
                return;
            }
        }
    }

    fn feed(&mut self, peer: u32, batches: Vec<RouteBatch>) {
        for batch in batches {
            self.table.apply(PeerId(peer), batch, None);
            self.turn();
        }
    }

    fn advertised(&self, peer: u32) -> u32 {
        self.table.counts(PeerId(peer)).advertised[Family::Ipv4]
    }
}

/// `count` prefixes, seven for each set of attributes, as in a real table.
fn announced(count: u32, peer: u32) -> Vec<RouteBatch> {
    let mut batches: Vec<RouteBatch> = Vec::new();
    for first in (0..count).step_by(7) {
        if batches.last().is_none_or(|batch| batch.size() >= BATCH_MAX) {
            batches.push(RouteBatch::default());
        }
        let batch = batches.last_mut().expect("pushed above");
        push(batch, first..count.min(first + 7), first / 7, peer);
    }
    batches
}

fn push(batch: &mut RouteBatch, numbers: std::ops::Range<u32>, set: u32, peer: u32) {
    let mut edit = AttrEdit::originate(Origin::Igp);
    for asn in [set % 60_000 + 1, 3356, 174 + set % 20, 65000 + peer] {
        edit.prepend_as(Asn(asn), 1);
    }
    edit.set_med(set % 100);
    edit.set_communities(&[Community(0xfde9_0000), Community(0xfde9_0100 + set % 50)]);
    let mut octets = Vec::new();
    for number in numbers {
        // Scattered over the address space, as arrival order is.
        let bits = number.wrapping_mul(0x9E37_79B1) & 0xFFFF_FF00;
        Nlri::push(&mut octets, None, Prefix::V4(Prefix4::from_bits(bits, 24)));
    }
    let nlri = Nlri::parse(Family::Ipv4, false, &octets).expect("just written");
    let hop = NextHop::from(IpAddr::from([192, 0, 2, peer as u8]));
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
}

/// `count` prefixes from one feeder to two other peers.
pub(crate) fn prefixes(count: u32) {
    fed(count, false);
}

/// The same with kernel routes.
pub(crate) fn kernel_routes(count: u32) {
    fed(count, true);
}

fn fed(count: u32, fib_enabled: bool) -> Host {
    let mut host = Host::new(fib_enabled);
    let batches = announced(count, 1);
    counted_work(|| host.feed(1, batches));
    assert_eq!(host.advertised(3), host.table.totals().destinations[Family::Ipv4]);
    host
}

/// A second path for each of `count` prefixes.
pub(crate) fn paths(count: u32) {
    let mut host = Host::new(false);
    host.feed(1, announced(count, 1));
    let batches = announced(count, 2);
    counted_work(|| host.feed(2, batches));
    let totals = host.table.totals();
    assert_eq!(totals.paths[Family::Ipv4], 2 * totals.destinations[Family::Ipv4]);
}

/// Batches of one prefix each, whose attributes change each time.
fn single_changes(count: u32) -> Vec<RouteBatch> {
    let change = |set| {
        let mut batch = RouteBatch::default();
        push(&mut batch, 0..1, set, 1);
        batch
    };
    (0..count).map(change).collect()
}

/// `count` changes of one prefix, one at a time, to two other peers.
pub(crate) fn changes(count: u32) {
    let mut host = Host::new(false);
    let batches = single_changes(count);
    counted_work(|| host.feed(1, batches));
    assert_eq!(host.advertised(3), 1);
}

/// [`CHANGES`] changes, one at a time, to a group of `count` members.
pub(crate) fn members(count: u32) {
    let mut host = Host::new(false);
    (4..4 + count).for_each(|id| host.up(id, Asn(65000)));
    host.turn();
    let batches = single_changes(CHANGES);
    counted_work(|| host.feed(1, batches));
    assert_eq!(host.advertised(3 + count), 1);
}
