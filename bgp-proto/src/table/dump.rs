//! A dump of the table as TABLE_DUMP_V2 (RFC 6396 §4.3), written in slices between turns.
//!
//! What is dumped is what the table shows: the paths that import did not refuse, with attributes and next
//! hop after import, those with an unusable next hop included. Routes of our own belong to a peer with our
//! BGP Identifier, our AS and the address 0.0.0.0, which is the first. A prefix whose paths came with path
//! identifiers gets a record with them (RFC 8050 §4). Routes that change during the dump are in it as they
//! are when their destination is reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::show::{cursor, of_cursor, shown_attrs};
use super::{Table, Work};
use crate::mrt::{self, PeerIndex, RibWriter};
use crate::policy::Source;
use crate::rib::{DestId, Meter, Path, PathFlags};
use crate::types::{Family, NextHop, PathId};
use crate::wire::AttrView;

/// Work for looking at a slot, and for writing a path.
const SLOT_WORK: u32 = 1;
const PATH_WORK: u32 = 3;
/// Octets that are written by a unit of work.
const OCTETS_PER_WORK: usize = 400;
/// Position of our own routes among the peers.
const OWN: u16 = 0;

/// What a dump contains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only this family.
    pub family: Option<Family>,
    /// The name of the view, for the PEER_INDEX_TABLE; empty: none.
    pub view: String,
    /// When the dump begins, in seconds of Unix time.
    pub began: u32,
    /// The Unix time of [`Time::ZERO`](crate::types::Time::ZERO), in seconds.
    pub zero: u32,
}

/// A dump that is under way: where it is, and what it has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    family: Option<Family>,
    began: u32,
    zero: u32,
    /// The peers by source: address and position. Those that came later are not among them.
    peers: Arc<[Option<(IpAddr, u16)>]>,
    place: u32,
    /// Records written, each of one prefix.
    pub prefixes: u32,
    /// Paths written.
    pub paths: u64,
    /// Paths left out: of peers that were added after the dump began, and of more octets than a record
    /// has room for.
    pub left_out: u64,
}

/// What a slice of a dump did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a dump that is not over has to go on"]
pub struct Dumping {
    /// Work done.
    pub done: Work,
    /// Whether everything has been written.
    pub is_over: bool,
}

impl Table {
    /// Begins a dump: appends the PEER_INDEX_TABLE. The cost grows with peers, not with routes.
    pub fn begin_dump(&self, options: DumpOptions, out: &mut Vec<u8>) -> Dump {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let own = mrt::Peer {
            router_id: self.config.router_id,
            address: unspecified,
            asn: self.config.asn,
        };
        let mut index =
            PeerIndex { collector: self.config.router_id, view: options.view, peers: vec![own] };
        let mut peers = Vec::new();
        // A peer that never had a session has no paths.
        for peer in self.peers.iter() {
            let (Some(session), Ok(position)) = (&peer.session, u16::try_from(index.peers.len()))
            else {
                continue;
            };
            let at = usize::from(peer.source.0);
            if peers.len() <= at {
                peers.resize(at + 1, None);
            }
            peers[at] = Some((peer.address, position));
            index.peers.push(mrt::Peer {
                router_id: session.peer_router_id,
                address: crate::types::off_interface(peer.address).0,
                asn: session.peer_asn,
            });
        }
        index.encode(options.began, out);
        Dump {
            family: options.family,
            began: options.began,
            zero: options.zero,
            peers: peers.into(),
            place: 0,
            prefixes: 0,
            paths: 0,
            left_out: 0,
        }
    }

    /// Appends RIB records, until `out` has `octets_max` octets or the budget is spent. The last prefix may
    /// exceed both.
    pub fn dump_slice(
        &self,
        dump: &mut Dump,
        out: &mut Vec<u8>,
        octets_max: usize,
        budget: Work,
    ) -> Dumping {
        let mut meter = Meter::new(budget.0);
        let (mut family, mut at) = of_cursor(dump.place);
        loop {
            let dests = self.loc_rib.dests(family);
            let is_wanted = dump.family.is_none_or(|wanted| wanted == family);
            while is_wanted && at < dests.slots() {
                if meter.is_spent() || out.len() >= octets_max {
                    dump.place = cursor(family, at);
                    return Dumping { done: Work(meter.spent()), is_over: false };
                }
                let dest = DestId(at);
                at += 1;
                meter.spend(SLOT_WORK);
                if dests.is_live(dest) {
                    self.dump_destination(dump, out, family, dest, &mut meter);
                }
            }
            if family == Family::Ipv6 {
                dump.place = cursor(family, at);
                return Dumping { done: Work(meter.spent()), is_over: true };
            }
            (family, at) = (Family::Ipv6, 0);
        }
    }

    fn dump_destination(
        &self,
        dump: &mut Dump,
        out: &mut Vec<u8>,
        family: Family,
        dest: DestId,
        meter: &mut Meter,
    ) {
        let dests = self.loc_rib.dests(family);
        let paths = dests.paths(dest);
        if paths.is_empty() {
            return;
        }
        let began = out.len();
        let has_path_ids = paths.iter().any(|path| path.path_id != 0);
        let prefix = dests.prefix(dest);
        let mut record = RibWriter::new(out, dump.began, dump.prefixes, prefix, has_path_ids);
        for path in paths.iter().filter(|path| !path.flags.is_refused()) {
            meter.spend(PATH_WORK);
            let is_written = self.position_of(path, dump).is_some_and(|position| {
                let originated = dump.zero.saturating_add(path.received_secs);
                let next_hop = self.dumped_next_hop(family, dest, path);
                let attrs = self.loc_rib.attrs.view(path.attrs);
                let shown = path.flags.has(PathFlags::LONG_LIVED).then(|| shown_attrs(path, attrs));
                let attrs = shown.as_deref().map_or(attrs, AttrView::new);
                record.push(position, originated, PathId(path.path_id), attrs, next_hop)
            });
            dump.paths += u64::from(is_written);
            dump.left_out += u64::from(!is_written);
        }
        dump.prefixes = dump.prefixes.saturating_add(u32::from(record.end()));
        let octets = out.len().saturating_sub(began) / OCTETS_PER_WORK;
        meter.spend(u32::try_from(octets).unwrap_or(u32::MAX));
    }

    /// The position of a path's peer; `None` if that peer was added since the dump began.
    fn position_of(&self, path: &Path, dump: &Dump) -> Option<u16> {
        let Some(id) = path.source.peer() else { return Some(OWN) };
        let (address, position) = (*dump.peers.get(usize::from(path.source.0))?)?;
        // An id is used again once its peer has been removed.
        (self.peers.get(id)?.address == address).then_some(position)
    }

    /// The next hop of a path; the unspecified address for a route of our own that has none.
    pub(super) fn dumped_next_hop(&self, family: Family, dest: DestId, path: &Path) -> NextHop {
        let hop = match path.source.source() {
            Source::Bgp => self.loc_rib.hops.hop(path.next_hop),
            source => {
                let prefix = self.loc_rib.dests(family).prefix(dest);
                let own = self.loc_rib.local.get(&(prefix, source));
                own.and_then(|own| own.next_hop).map(NextHop::from)
            }
        };
        match (hop, family) {
            (None, Family::Ipv4) => NextHop::V4(Ipv4Addr::UNSPECIFIED),
            (None, Family::Ipv6) => NextHop::V6(Ipv6Addr::UNSPECIFIED),
            // NEXT_HOP is that of IPv4 routes only.
            (Some(NextHop::V4(addr)), Family::Ipv6) => NextHop::V6(addr.to_ipv6_mapped()),
            (Some(hop), _) => hop,
        }
    }
}
