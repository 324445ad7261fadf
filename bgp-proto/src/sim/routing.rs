//! What a simulated speaker does with routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::session::{Keep, Negotiated};
use crate::table::{PeerRoutes, TableEvent};
use crate::types::{Asn, Family, FamilySet, NextHop, PeerId, PeerType, Prefix, Time};
use crate::wire::{
    AnnounceFormat, AttrEdit, AttrView, Origin, RouteAction, RouteBatch, UpdateWriter,
    encode_end_of_rib,
};

/// The route that a speaker would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BestRoute {
    /// The next hop; `None` for a local route.
    pub next_hop: Option<IpAddr>,
    /// Numbers of the AS_PATH.
    pub as_path: Vec<Asn>,
    /// Kept across a restart of the peer that sent it.
    pub stale: bool,
}

/// The routes of one speaker, behind its sessions.
pub trait Routing {
    /// Adds a peer.
    fn peer_add(&mut self, peer: PeerId, address: IpAddr, routes: Arc<PeerRoutes>);
    /// The session is established.
    fn peer_up(&mut self, now: Time, peer: PeerId, negotiated: &Arc<Negotiated>);
    /// The session has ended.
    fn peer_down(&mut self, now: Time, peer: PeerId, keep: Option<Keep>);
    /// Applies routes of a peer.
    fn apply(&mut self, now: Time, peer: PeerId, batch: &RouteBatch);
    /// Adds (`true`) or removes a local route.
    fn originate(&mut self, now: Time, prefix: Prefix, present: bool);
    /// Nothing is advertised until `release_export`.
    fn defer_export(&mut self);
    /// Ends `defer_export`.
    fn release_export(&mut self);
    /// Ends a turn: afterwards `fetch` may have something new, and a further turn something to do.
    fn finish(&mut self, now: Time);
    /// Whether a further turn has something to do.
    fn wants_turn(&self) -> bool;
    /// The next event for the host.
    fn poll_event(&mut self) -> Option<TableEvent>;
    /// Appends whole UPDATEs for a peer, about `budget` octets of them.
    fn fetch(&mut self, now: Time, peer: PeerId, budget: usize, out: &mut Vec<u8>);
    /// The earliest deadline.
    fn poll_timeout(&self) -> Option<Time>;
    /// A deadline may have passed.
    fn handle_timeout(&mut self, now: Time);
    /// The best route for each destination.
    fn best(&self, now: Time) -> BTreeMap<Prefix, BestRoute>;
    /// What was advertised to a peer, as far as the speaker knows.
    fn told(&self, now: Time, peer: PeerId) -> BTreeMap<Prefix, BestRoute>;
    /// What a peer has advertised.
    fn heard(&self, now: Time, peer: PeerId) -> BTreeMap<Prefix, BestRoute>;
    /// How often a peer read so slowly that it fell off the log.
    fn evictions(&self) -> u64;
    /// Gateways of the routes that the kernel was given.
    fn installed(&self) -> &BTreeMap<Prefix, BTreeSet<IpAddr>>;
}

/// The simplest routing: a speaker advertises its own routes to every peer, keeps what it receives,
/// and passes nothing on. It shows what sessions do without a table's help or faults.
pub struct Direct {
    next_hop: NextHop,
    installed: BTreeMap<Prefix, BTreeSet<IpAddr>>,
    own: BTreeMap<Prefix, ()>,
    peers: BTreeMap<PeerId, DirectPeer>,
}

#[derive(Default)]
struct DirectPeer {
    session: Option<Arc<Negotiated>>,
    received: BTreeMap<Prefix, BestRoute>,
    stale_until: Option<Time>,
    pending: BTreeMap<Prefix, bool>,
    end_of_rib: Vec<Family>,
}

impl Direct {
    /// Routing of a speaker with this address.
    pub fn new(address: IpAddr) -> Self {
        Direct {
            next_hop: address.into(),
            installed: BTreeMap::new(),
            own: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }
}

impl DirectPeer {
    fn drop_stale(&mut self, families: FamilySet) {
        self.received.retain(|prefix, route| !(route.stale && families.contains(prefix.family())));
    }

    fn learn(&mut self, batch: &RouteBatch) {
        for entry in batch.entries() {
            match &entry.action {
                RouteAction::Announce { attrs, next_hop } => {
                    let view = AttrView::new(batch.attrs(attrs));
                    let route = BestRoute {
                        next_hop: Some(next_hop.addr()),
                        as_path: view.as_path().asns().collect(),
                        stale: false,
                    };
                    for (_, prefix) in batch.nlri(entry).iter() {
                        self.received.insert(prefix, route.clone());
                    }
                }
                RouteAction::Withdraw => batch.nlri(entry).iter().for_each(|(_, prefix)| {
                    self.received.remove(&prefix);
                }),
                RouteAction::EndOfRib => self.drop_stale(FamilySet::only(entry.family)),
                RouteAction::RefreshRequest
                | RouteAction::RefreshBegin
                | RouteAction::RefreshEnd => {}
            }
        }
    }
}

impl Routing for Direct {
    fn peer_add(&mut self, peer: PeerId, _address: IpAddr, _routes: Arc<PeerRoutes>) {
        self.peers.entry(peer).or_default();
    }

    fn peer_up(&mut self, _now: Time, peer: PeerId, negotiated: &Arc<Negotiated>) {
        let own = self.own.keys().filter(|p| negotiated.families.contains(p.family()));
        let pending = own.map(|prefix| (*prefix, true)).collect();
        let state = self.peers.entry(peer).or_default();
        // RFC 4724 §4.2: families whose forwarding state was not preserved are dropped at once.
        let restart = negotiated.graceful_restart.as_ref();
        let preserved: FamilySet = Family::ALL
            .into_iter()
            .filter(|f| {
                let flags = restart.iter().flat_map(|gr| &gr.families);
                flags.filter(|g| g.family == f.afi_safi()).any(|g| g.forwarding)
            })
            .collect();
        Family::ALL
            .into_iter()
            .filter(|f| !preserved.contains(*f))
            .for_each(|f| state.drop_stale(FamilySet::only(f)));
        state.pending = pending;
        state.end_of_rib = negotiated.families.iter().collect();
        state.session = Some(Arc::clone(negotiated));
    }

    fn peer_down(&mut self, now: Time, peer: PeerId, keep: Option<Keep>) {
        let state = self.peers.entry(peer).or_default();
        state.session = None;
        state.pending.clear();
        state.end_of_rib.clear();
        let families = keep.map_or(FamilySet::EMPTY, |keep| keep.families);
        // A second loss before End-of-RIB: what is still stale is dropped (RFC 4724 §4.2).
        state.drop_stale(FamilySet::ALL);
        state.received.retain(|prefix, route| {
            route.stale = true;
            families.contains(prefix.family())
        });
        state.stale_until = keep.map(|keep| now + keep.restart_time);
    }

    fn apply(&mut self, _now: Time, peer: PeerId, batch: &RouteBatch) {
        self.peers.entry(peer).or_default().learn(batch);
    }

    fn originate(&mut self, _now: Time, prefix: Prefix, present: bool) {
        if present {
            self.own.insert(prefix, ());
        } else {
            self.own.remove(&prefix);
        }
        for state in self.peers.values_mut() {
            let carried = |s: &Arc<Negotiated>| s.families.contains(prefix.family());
            if state.session.as_ref().is_some_and(carried) {
                state.pending.insert(prefix, present);
            }
        }
    }

    /// Local routes are complete from the beginning.
    fn defer_export(&mut self) {}

    fn release_export(&mut self) {}

    fn finish(&mut self, _now: Time) {}

    fn wants_turn(&self) -> bool {
        false
    }

    fn poll_event(&mut self) -> Option<TableEvent> {
        None
    }

    fn fetch(&mut self, _now: Time, peer: PeerId, budget: usize, out: &mut Vec<u8>) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(session) = state.session.clone() else { return };
        while out.len() < budget {
            let Some((prefix, present)) = state.pending.pop_first() else { break };
            write_update(out, &session, self.next_hop, prefix, present);
        }
        if state.pending.is_empty() {
            state.end_of_rib.drain(..).for_each(|family| encode_end_of_rib(out, family));
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let waiting = self.peers.values().filter(|p| p.session.is_none());
        waiting.filter_map(|p| p.stale_until).min()
    }

    fn handle_timeout(&mut self, now: Time) {
        for state in self.peers.values_mut().filter(|p| p.session.is_none()) {
            if state.stale_until.is_some_and(|at| at <= now) {
                state.stale_until = None;
                state.drop_stale(FamilySet::ALL);
            }
        }
    }

    fn best(&self, _now: Time) -> BTreeMap<Prefix, BestRoute> {
        let own = BestRoute { next_hop: None, as_path: Vec::new(), stale: false };
        let mut best: BTreeMap<_, _> = self.own.keys().map(|p| (*p, own.clone())).collect();
        for (prefix, route) in self.peers.values().flat_map(|p| &p.received) {
            best.entry(*prefix).or_insert_with(|| route.clone());
        }
        best
    }

    fn told(&self, _now: Time, _peer: PeerId) -> BTreeMap<Prefix, BestRoute> {
        let next_hop = Some(self.next_hop.addr());
        let route = BestRoute { next_hop, as_path: Vec::new(), stale: false };
        self.own.keys().map(|p| (*p, route.clone())).collect()
    }

    fn heard(&self, _now: Time, peer: PeerId) -> BTreeMap<Prefix, BestRoute> {
        self.peers.get(&peer).map(|p| p.received.clone()).unwrap_or_default()
    }

    fn evictions(&self) -> u64 {
        0
    }

    fn installed(&self) -> &BTreeMap<Prefix, BTreeSet<IpAddr>> {
        &self.installed
    }
}

fn write_update(
    out: &mut Vec<u8>,
    session: &Negotiated,
    next_hop: NextHop,
    prefix: Prefix,
    present: bool,
) {
    let format = AnnounceFormat {
        family: prefix.family(),
        four_octet_as: session.four_octet_as,
        add_path: session.add_path_tx.contains(prefix.family()),
        max_len: session.tx_max_len,
    };
    let mut attrs = AttrEdit::originate(Origin::Igp);
    match session.peer_type {
        PeerType::External => {
            attrs.prepend_as(session.local_asn, 1);
        }
        PeerType::Internal => attrs.set_local_pref(100),
    }
    let mut writer = if present {
        UpdateWriter::announce(out, format, attrs.view(), next_hop)
    } else {
        UpdateWriter::withdraw(out, format)
    };
    writer.push(Default::default(), prefix).expect("one prefix with three attributes fits");
    writer.finish();
}
