//! What monitors are sent, applied by a naive station, adds up to the RIBs: whatever is announced, withdrawn,
//! lost and kept, and however slowly a station reads. One of the stations may hold a thousand octets only, so
//! that it is evicted all the time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::bmp::{DownReason, Message, MessageKind, PeerHeader, PeerKind, Rib, split_message};
use crate::types::Community;
use crate::wire::{
    GracefulRestart, GracefulRestartFamily, RouteAction, Update, UpdateContext, attr,
};

/// Peers 2 and 3 restart gracefully; 4 sends path identifiers; 5 is watched by one station only.
const PEERS: std::ops::Range<u32> = 2..6;
const ADD_PATH: u32 = 4;
/// 5 is sent path identifiers.
const SENT_IDS: u32 = 5;
const PREFIXES: u8 = 40;
/// More pages than a station ever needs for all that there is.
const PAGES_MAX: usize = 20_000;

#[derive(Clone, Debug)]
enum Op {
    Announce {
        peer: u32,
        first: u8,
        count: u8,
        path_id: u32,
        med: u32,
    },
    Withdraw {
        peer: u32,
        first: u8,
        count: u8,
        path_id: u32,
    },
    Up(u32),
    Down {
        peer: u32,
        keep: bool,
    },
    EndOfRib(u32),
    Policy {
        peer: u32,
        which: u8,
    },
    /// Changes the export policy, so that update groups change, fork and merge.
    Export {
        peer: u32,
        which: u8,
    },
    /// The peer sends messages that are treated as erroneous.
    Faulty {
        peer: u32,
        count: u32,
    },
    Turn(u32),
    Pull {
        station: usize,
        octets: usize,
        work: u32,
    },
    Statistics(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let peer = || PEERS;
    let range = || (0..PREFIXES, 1..PREFIXES);
    prop_oneof![
        4 => (peer(), range(), 1_u32..3, 0_u32..4).prop_map(|(peer, (first, count), path_id, med)| {
            Op::Announce { peer, first, count, path_id, med }
        }),
        3 => (peer(), range(), 1_u32..3).prop_map(|(peer, (first, count), path_id)| {
            Op::Withdraw { peer, first, count, path_id }
        }),
        2 => peer().prop_map(Op::Up),
        1 => (peer(), any::<bool>()).prop_map(|(peer, keep)| Op::Down { peer, keep }),
        1 => peer().prop_map(Op::EndOfRib),
        1 => (peer(), 0_u8..3).prop_map(|(peer, which)| Op::Policy { peer, which }),
        1 => (peer(), 0_u8..3).prop_map(|(peer, which)| Op::Export { peer, which }),
        1 => (peer(), 1_u32..100).prop_map(|(peer, count)| Op::Faulty { peer, count }),
        3 => (1_u32..200).prop_map(Op::Turn),
        5 => (0_usize..2, 1_usize..2000, 1_u32..60).prop_map(|(station, octets, work)| {
            Op::Pull { station, octets, work }
        }),
        1 => (0_usize..2).prop_map(Op::Statistics),
    ]
}

/// Routes with this MED stay in the AS.
const PRIVATE_MED: u32 = 3;

/// What the export policy of a peer is asked about: the best paths of others that may leave the AS, without their
/// MED.
fn offered(table: &Table, peer: u32) -> impl Iterator<Item = (Key, Route)> {
    let (views, _) = table.view(&RouteFilter::default(), 0, usize::MAX, Time::ZERO);
    views.into_iter().filter_map(move |view| {
        let best = view.paths.iter().find(|path| path.best)?;
        let mut communities = crate::wire::AttrView::new(&best.attrs).communities();
        let is_private = communities.any(|community| community == Community::NO_EXPORT);
        let is_offered = best.peer != Some(PeerId(peer)) && !is_private;
        is_offered.then(|| ((view.prefix, 0), (best.next_hop.unwrap(), None)))
    })
}

/// The route as it is told apart here: next hop and MED.
type Route = (NextHop, Option<u32>);
type Key = (Prefix, u32);

fn policy(which: u8) -> Policy {
    match which {
        0 => changing(Vec::new()),
        1 => changing(vec![Change::Med(77)]),
        _ => Policy { name: "nothing".into(), rules: vec![], default: Decision::Reject },
    }
}

fn peer_session(id: u32) -> Negotiated {
    let families =
        vec![GracefulRestartFamily { family: Family::Ipv4.afi_safi(), forwarding: true }];
    let restart =
        GracefulRestart { restarting: true, notification: true, restart_time_secs: 120, families };
    Negotiated {
        graceful_restart: (id < 4).then_some(restart),
        add_path_rx: if id == ADD_PATH { FamilySet::only(Family::Ipv4) } else { FamilySet::EMPTY },
        add_path_tx: if id == SENT_IDS { FamilySet::only(Family::Ipv4) } else { FamilySet::EMPTY },
        ..session(id, 65000 + id)
    }
}

fn prefix(at: u8) -> Prefix {
    format!("10.1.{}.0/24", at % PREFIXES).parse().unwrap()
}

/// A connection to a station, and what the station has been sent.
struct Station {
    params: Arc<MonitorParams>,
    id: MonitorId,
    peers: BTreeMap<(u8, IpAddr), BTreeMap<(Rib, Key), Route>>,
    ends: BTreeSet<(IpAddr, Rib)>,
    evictions: u32,
    /// The last mirrored message of each peer: its session and number.
    mirrored: BTreeMap<IpAddr, (u64, u64)>,
    /// Most peers that there are.
    known_max: u64,
}

impl Station {
    fn new(number: u64, octets_max: u64, ribs: &[Rib], peers: MonitoredPeers) -> Station {
        let params = MonitorParams {
            ribs: ribs.iter().copied().collect(),
            peers,
            mirror: if number == 1 { Mirroring::Errors } else { Mirroring::Nothing },
            octets_max,
            zero: 1000,
            // The second one is that of a VRF.
            distinguisher: number * 5,
            table_name: "global".into(),
        };
        Station {
            params: Arc::new(params),
            id: MonitorId(number),
            peers: BTreeMap::new(),
            ends: BTreeSet::new(),
            evictions: 0,
            mirrored: BTreeMap::new(),
            known_max: u64::from(PEERS.end - PEERS.start),
        }
    }

    fn connect(&mut self, table: &mut Table) {
        table.monitor_end(self.id);
        self.id = MonitorId(self.id.0 + 2);
        (self.peers, self.ends) = (BTreeMap::new(), BTreeSet::new());
        table.monitor_begin(self.id, Arc::clone(&self.params));
    }

    fn pull(&mut self, table: &mut Table, octets: usize, work: u32) -> PageEnd {
        let page = table.monitor_page(self.id, octets, Work(work), 2000);
        if page.end == PageEnd::Evicted {
            assert_eq!(page.octets, [0; 0]);
            self.evictions += 1;
            table.monitor_end(self.id);
            self.connect(table);
            return PageEnd::More;
        }
        let mut rest = &page.octets[..];
        while let Some(message) = split_message(rest).unwrap() {
            self.apply(&Message::decode(message).unwrap());
            rest = &rest[message.len()..];
        }
        assert!(rest.is_empty(), "whole messages");
        if let Some(counts) = table.monitor_counts(self.id) {
            // What is held for peers themselves is counted, but no reason to evict it.
            let peers = self.known_max * 512;
            assert!(counts.octets <= self.params.octets_max.saturating_add(peers));
            assert_eq!(counts.left_out, 0);
        }
        page.end
    }

    fn apply(&mut self, message: &Message<'_>) {
        let peer = message.peer.unwrap();
        let key = (peer.kind as u8, peer.address);
        match &message.kind {
            MessageKind::PeerUp { tlvs, .. } => {
                assert_eq!(peer.distinguisher, self.params.distinguisher);
                let is_named = tlvs.iter().any(|tlv| (tlv.kind, tlv.value) == (3, &b"global"[..]));
                assert_eq!(is_named, peer.kind != PeerKind::Global);
                let before = self.peers.insert(key, BTreeMap::new());
                assert_eq!(before, None, "Peer Down precedes the next Peer Up");
            }
            MessageKind::PeerDown(..) => {
                assert!(self.peers.remove(&key).is_some(), "Peer Up precedes Peer Down");
                self.ends.retain(|(address, _)| *address != peer.address);
            }
            MessageKind::RouteMonitoring(update) => self.update(&peer, update),
            MessageKind::RouteMirroring(tlvs) => {
                assert!(self.peers.contains_key(&key), "of a session that the station knows");
                let value = |kind| tlvs.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value);
                let number = |octets: &[u8]| u64::from_be_bytes(octets.try_into().unwrap());
                match (value(1), value(0)) {
                    (Some([0, 0]), Some(message)) => {
                        let now = (number(&message[..8]), number(&message[8..]));
                        let before = self.mirrored.insert(peer.address, now);
                        assert!(before.is_none_or(|before| before < now), "in order, each once");
                    }
                    (Some([0, 1]), None) => {}
                    other => panic!("{other:?}"),
                }
            }
            MessageKind::Statistics(_) => assert!(self.peers.contains_key(&key)),
            other => panic!("{other:?}"),
        }
    }

    fn update(&mut self, about: &PeerHeader, update: &[u8]) {
        let known = self.peers.get_mut(&(about.kind as u8, about.address));
        let known = known.expect("Peer Up precedes routes");
        let mut cx = UpdateContext::new(PeerType::External, about.asn);
        cx.enforce_first_as = false;
        let is_sent = matches!(about.rib, Rib::AdjRibOutPre | Rib::AdjRibOutPost);
        let with_ids = IpAddr::from([10, 0, 0, if is_sent { SENT_IDS } else { ADD_PATH } as u8]);
        if about.address == with_ids {
            cx.add_path = FamilySet::only(Family::Ipv4);
        }
        let update = Update::parse(&update[19..], &cx).unwrap();
        if update.end_of_rib().is_some() {
            self.ends.insert((about.address, about.rib));
            return;
        }
        let med = update.received_attrs().find(|found| found.code == attr::MULTI_EXIT_DISC);
        let med = med.map(|found| u32::from_be_bytes(found.value.try_into().unwrap()));
        for reach in update.reach() {
            for (path_id, prefix) in reach.nlri.iter() {
                known.insert((about.rib, (prefix, path_id.0)), (reach.next_hop, med));
            }
        }
        for unreach in update.unreach() {
            for (path_id, prefix) in unreach.iter() {
                known.remove(&(about.rib, (prefix, path_id.0)));
            }
        }
    }
}

/// What the peers said, kept in the simplest way.
#[derive(Default)]
struct Model {
    up: BTreeMap<u32, BTreeMap<Key, u32>>,
    policies: BTreeMap<u32, u8>,
    exports: BTreeMap<u32, u8>,
    sessions: BTreeMap<u32, SessionId>,
    latest: u64,
    faulty: u64,
}

impl Model {
    fn expected(
        &self,
        params: &MonitorParams,
        table: &Table,
    ) -> BTreeMap<(u8, IpAddr), BTreeMap<(Rib, Key), Route>> {
        let mut all = BTreeMap::new();
        for (peer, routes) in &self.up {
            let included = params.peers.includes(&format!("peer{peer}"));
            if !included {
                continue;
            }
            let address = IpAddr::from([10, 0, 0, *peer as u8]);
            let hop = NextHop::from(address);
            let mut held = BTreeMap::new();
            let which = self.policies.get(peer).copied().unwrap_or(0);
            for (key, med) in routes {
                if params.ribs.contains(&Rib::AdjRibInPre) {
                    held.insert((Rib::AdjRibInPre, *key), (hop, Some(*med)));
                }
                if params.ribs.contains(&Rib::AdjRibInPost) && which < 2 {
                    let med = if which == 1 { 77 } else { *med };
                    held.insert((Rib::AdjRibInPost, *key), (hop, Some(med)));
                }
            }
            if params.ribs.contains(&Rib::AdjRibOutPost) {
                let filter =
                    RouteFilter { advertised_to: Some(PeerId(*peer)), ..RouteFilter::default() };
                let (views, _) = table.view(&filter, 0, usize::MAX, Time::ZERO);
                for view in &views {
                    for path in &view.paths {
                        let med = crate::wire::AttrView::new(&path.attrs).med();
                        let key = (view.prefix, path.path_id.0);
                        held.insert((Rib::AdjRibOutPost, key), (path.next_hop.unwrap(), med));
                    }
                }
            }
            if params.ribs.contains(&Rib::AdjRibOutPre) && *peer != SENT_IDS {
                let offered = offered(table, *peer);
                held.extend(offered.map(|(key, route)| ((Rib::AdjRibOutPre, key), route)));
            }
            let is_default = params.distinguisher == 0;
            let kind = if is_default { PeerKind::Global } else { PeerKind::Local };
            all.insert((kind as u8, address), held);
        }
        if params.ribs.contains(&Rib::LocRib) {
            let (views, _) = table.view(&RouteFilter::default(), 0, usize::MAX, Time::ZERO);
            let best = views.iter().flat_map(|view| {
                let best = view.paths.iter().find(|path| path.best)?;
                let med = crate::wire::AttrView::new(&best.attrs).med();
                Some(((Rib::LocRib, (view.prefix, 0)), (best.next_hop.unwrap(), med)))
            });
            let unspecified = IpAddr::from([0, 0, 0, 0]);
            all.insert((PeerKind::LocRib as u8, unspecified), best.collect());
        }
        all
    }

    fn configure(&self, table: &mut Table, peer: u32) {
        let of = |policies: &BTreeMap<u32, u8>| policy(policies.get(&peer).copied().unwrap_or(0));
        let export = ExportParams::new(of(&self.exports));
        let routes = PeerRoutes { export, ..importing(peer, of(&self.policies)) };
        table.peer_configure(PeerId(peer), Arc::new(routes));
    }

    fn run(&mut self, table: &mut Table, op: &Op) {
        match *op {
            Op::Announce { peer, first, count, path_id, med } => {
                let Some(routes) = self.up.get_mut(&peer) else { return };
                let path_id = if peer == ADD_PATH { path_id } else { 0 };
                for at in first..first.saturating_add(count) {
                    routes.insert((prefix(at), path_id), med);
                }
                let mut edit = AttrEdit::originate(Origin::Igp);
                edit.prepend_as(Asn(65000 + peer), 1);
                edit.set_med(med);
                if med == PRIVATE_MED {
                    edit.add_community(Community::NO_EXPORT);
                }
                let hop = NextHop::from(IpAddr::from([10, 0, 0, peer as u8]));
                send(table, peer, (first, count, path_id), Some((edit.view().as_bytes(), hop)));
            }
            Op::Withdraw { peer, first, count, path_id } => {
                let Some(routes) = self.up.get_mut(&peer) else { return };
                let path_id = if peer == ADD_PATH { path_id } else { 0 };
                for at in first..first.saturating_add(count) {
                    routes.remove(&(prefix(at), path_id));
                }
                send(table, peer, (first, count, path_id), None);
            }
            Op::Up(peer) if !self.up.contains_key(&peer) => {
                self.latest += 1;
                let id = SessionId(self.latest);
                self.up.insert(peer, BTreeMap::new());
                self.sessions.insert(peer, id);
                table.peer_up(PeerId(peer), id, Arc::new(peer_session(peer)));
            }
            Op::Down { peer, keep: is_kept } if self.up.remove(&peer).is_some() => {
                let keep = Keep::for_restart(FamilySet::ALL, Duration::from_secs(120));
                let keep = Some(keep).filter(|_| is_kept);
                let session = self.sessions.remove(&peer).unwrap();
                table.peer_down(PeerId(peer), session, keep);
            }
            Op::EndOfRib(peer) if self.up.contains_key(&peer) => {
                let mut batch = RouteBatch::default();
                batch.push_marker(Family::Ipv4, RouteAction::EndOfRib);
                table.apply(PeerId(peer), batch, None);
            }
            Op::Policy { peer, which } => {
                self.policies.insert(peer, which);
                self.configure(table, peer);
            }
            Op::Export { peer, which } => {
                self.exports.insert(peer, which);
                self.configure(table, peer);
            }
            Op::Faulty { peer, count } => {
                let Some(session) = self.sessions.get(&peer).copied() else { return };
                for _ in 0..count {
                    self.faulty += 1;
                    let message =
                        session.0.to_be_bytes().into_iter().chain(self.faulty.to_be_bytes());
                    let message = Mirrored::Erroneous(message.collect());
                    table.peer_mirrored(PeerId(peer), session, message, 2000, None);
                }
            }
            Op::Turn(work) => {
                let _ = table.turn(Time::ZERO, Work(work));
            }
            _ => {}
        }
    }
}

fn send(
    table: &mut Table,
    peer: u32,
    (first, count, path_id): (u8, u8, u32),
    route: Option<(&[u8], NextHop)>,
) {
    let mut bytes = Vec::new();
    for at in first..first.saturating_add(count) {
        let id = (peer == ADD_PATH).then_some(PathId(path_id));
        Nlri::push(&mut bytes, id, prefix(at));
    }
    let nlri = Nlri::parse(Family::Ipv4, peer == ADD_PATH, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    batch.push(nlri, route);
    table.apply(PeerId(peer), batch, None);
}

fn stations() -> [Station; 2] {
    let ribs =
        [Rib::AdjRibInPre, Rib::AdjRibInPost, Rib::LocRib, Rib::AdjRibOutPost, Rib::AdjRibOutPre];
    let named = (2..5).map(|peer| Arc::from(format!("peer{peer}"))).collect();
    [
        Station::new(0, 1000, &ribs, MonitoredPeers::All),
        Station::new(1, 1 << 30, &ribs[1..], MonitoredPeers::Named(named)),
    ]
}

fn new_table() -> Table {
    let mut table = table();
    for peer in PEERS {
        let address = IpAddr::from([10, 0, 0, peer as u8]);
        table.peer_add(PeerId(peer), address, Arc::new(importing(peer, policy(0))));
        table.handle_next_hop(address, NextHopState::connected(address, 1));
    }
    table
}

/// Reads all that is left. Evictions end with the changes that cause them.
fn drain(table: &mut Table, station: &mut Station) {
    drain_in_pages(table, station, (500, 40));
}

/// The same, in pages of as many octets and as much work.
fn drain_in_pages(table: &mut Table, station: &mut Station, (octets, work): (usize, u32)) {
    for _ in 0..PAGES_MAX {
        if station.pull(table, octets, work) == PageEnd::UpToDate {
            assert!(!table.has_monitor_page(station.id));
            return;
        }
    }
    panic!("a station that reads never gets to the end: {} evictions", station.evictions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_adds_up_to_the_ribs(ops in prop::collection::vec(any_op(), 1..120)) {
        let mut table = new_table();
        let mut stations = stations();
        let mut model = Model::default();
        for (at, op) in ops.iter().enumerate() {
            // The stations come while things are under way.
            if at == 10 || at == 20 {
                stations[at / 10 - 1].connect(&mut table);
            }
            match *op {
                Op::Pull { station, octets, work } if at > 20 => {
                    stations[station].pull(&mut table, octets, work);
                }
                Op::Statistics(station) => table.monitor_statistics(stations[station].id),
                ref other => model.run(&mut table, other),
            }
        }
        settle(&mut table);
        for station in &mut stations {
            if ops.len() <= 20 {
                station.connect(&mut table);
            }
            drain(&mut table, station);
            let expected = model.expected(&station.params, &table);
            prop_assert_eq!(&station.peers, &expected);
            // Nothing is up to date that has not said so.
            for (kind, address) in expected.keys() {
                let ribs = station.params.ribs.iter();
                let without = |rib| rib == Rib::AdjRibOutPre && *address == IpAddr::from([10, 0, 0, SENT_IDS as u8]);
                let of_kind = |rib| (rib == Rib::LocRib) == (*kind == PeerKind::LocRib as u8);
                for rib in ribs.filter(|rib| of_kind(**rib) && !without(**rib)) {
                    prop_assert!(station.ends.contains(&(*address, *rib)), "{} {:?}", address, rib);
                }
            }
        }
        prop_assert_eq!(stations[1].evictions, 0, "it has room for all that there is");
        let bounded = stations[0].evictions;
        drain(&mut table, &mut stations[0]);
        prop_assert_eq!(stations[0].evictions, bounded, "an idle table evicts nobody");
        for station in &stations {
            table.monitor_end(station.id);
        }
        prop_assert_eq!(table.memory().monitors, 0);
    }
}

#[test]
fn a_station_that_never_reads_holds_its_bound_and_closes_no_session() {
    let config = TableConfig { memory_max: Some(200_000), ..TableConfig::new(ASN, RouterId(1)) };
    let mut table = Table::new(Arc::new(config), 1, Waker::noop().clone());
    let _reader = up(&mut table, 2, 65001, routes(2));
    let mut station =
        Station::new(0, 1 << 40, &[Rib::AdjRibInPre, Rib::LocRib], MonitoredPeers::All);
    station.connect(&mut table);
    drain(&mut table, &mut station);
    for round in 0..200_u8 {
        let nets = nets(round, 60);
        announce_nets(&mut table, 2, 65001, &nets);
        settle(&mut table);
        let mut bytes = Vec::new();
        nets.iter().for_each(|net| Nlri::push(&mut bytes, None, net.parse().unwrap()));
        let mut batch = RouteBatch::default();
        batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
        table.apply_now(2, batch);
        settle(&mut table);
    }
    assert_eq!(table.monitor_counts(station.id), None, "it was evicted for the table's bound");
    assert_eq!(station.pull(&mut table, 1000, 1000), PageEnd::More, "and begins again");
    drain(&mut table, &mut station);
    while let Some(event) = table.poll_event() {
        assert!(!matches!(event, TableEvent::Close { .. }), "{event:?}");
    }
}

/// Sessions of 1,000 peers, which are sent the same, and one that announces.
fn crowd(table: &mut Table) -> Vec<Reader> {
    let mut readers = Vec::new();
    for id in (2..1003).rev() {
        let address = IpAddr::from([10, 1, (id >> 8) as u8, id as u8]);
        table.peer_add(PeerId(id), address, Arc::new(routes(id)));
        readers.extend(table.up_now(id, session(id, 65000 + id)));
    }
    readers
}

#[test]
fn changes_cost_the_same_however_many_peers_are_sent_them() {
    let mut table = table();
    let _readers = crowd(&mut table);
    let mut station = Station::new(0, 100_000, &[Rib::AdjRibOutPost], MonitoredPeers::All);
    station.known_max = 1001;
    station.connect(&mut table);
    settle(&mut table);
    const PAGE: (usize, u32) = (256 << 10, Work::TURN.0);
    drain_in_pages(&mut table, &mut station, PAGE);
    let nets: Vec<String> = (0..4).flat_map(|second| nets(second, 250)).collect();
    let work_of_turn = |table: &mut Table| {
        let progress = table.turn(Time::ZERO, Work::TURN);
        settle(table);
        progress.done.0
    };
    announce_nets(&mut table, 2, 65002, &nets);
    settle(&mut table);
    drain_in_pages(&mut table, &mut station, PAGE);
    let sent = |station: &Station| station.peers.values().map(BTreeMap::len).sum::<usize>();
    let advertised = |id| table.counts(PeerId(id)).advertised[Family::Ipv4] as usize;
    let (least, all) = (999_000, (2..1003).map(advertised).sum());
    assert_eq!(sent(&station), all, "{:?}", station.peers.values().map(BTreeMap::len).min());
    assert!(all >= least, "{all}: all but the peer that announced them");

    let mut bytes = Vec::new();
    nets.iter().for_each(|net| Nlri::push(&mut bytes, None, net.parse().unwrap()));
    let mut batch = RouteBatch::default();
    batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
    table.apply(PeerId(2), batch, None);
    let work = work_of_turn(&mut table);
    assert!(work <= 2 * Work::TURN.0, "{work}");
    let held = table.monitor_counts(station.id).expect("it is not evicted").octets;
    assert!((56_000..1001 * 512 + 60_000).contains(&held), "1,000 withdrawn prefixes: {held}");
    drain_in_pages(&mut table, &mut station, PAGE);
    assert_eq!((sent(&station), station.evictions), (0, 0));
}

#[test]
fn messages_that_were_lost_are_said_to_be_and_precede_the_peer_down() {
    let mut table = new_table();
    let mut model = Model::default();
    let mut station = Station::new(1, 1 << 20, &[Rib::LocRib], MonitoredPeers::All);
    station.connect(&mut table);
    assert!(table.is_mirroring());
    model.run(&mut table, &Op::Up(2));
    model.run(&mut table, &Op::Faulty { peer: 2, count: 3 });
    settle(&mut table);
    let mut kinds = Vec::new();
    let mut read = |table: &mut Table, station: &Station| {
        let page = table.monitor_page(station.id, 1 << 20, Work::TURN, 2000);
        let mut rest = &page.octets[..];
        while let Some(message) = split_message(rest).unwrap() {
            let about = Message::decode(message).unwrap();
            kinds.push(match about.kind {
                _ if about.peer.is_some_and(|peer| peer.kind == PeerKind::LocRib) => "loc-rib",
                MessageKind::PeerUp { .. } => "up",
                MessageKind::PeerDown(..) => "down",
                MessageKind::RouteMirroring(tlvs) if tlvs.len() == 2 => "message",
                MessageKind::RouteMirroring(_) => "lost",
                _ => "other",
            });
            rest = &rest[message.len()..];
        }
        kinds.retain(|kind| *kind != "loc-rib");
        std::mem::take(&mut kinds)
    };
    assert_eq!(read(&mut table, &station), ["up", "message", "message", "message"]);
    model.run(&mut table, &Op::Faulty { peer: 2, count: 500 });
    settle(&mut table);
    let held = table.memory().monitors;
    assert!((64 * 48..16_384).contains(&held), "{held}");
    let mut notification = [&[0xff; 16][..], &[16, 0, 3, 6, 2]].concat();
    notification.resize(4096, 0);
    let reason = DownReason::RemoteNotification(notification);
    table.note_closing(PeerId(2), model.sessions[&2], reason);
    model.run(&mut table, &Op::Down { peer: 2, keep: false });
    settle(&mut table);
    assert!(table.memory().monitors > held, "the reason is held, too");
    let read = read(&mut table, &station);
    let whole: Vec<&str> = std::iter::repeat_n("message", 64).chain(["lost", "down"]).collect();
    assert_eq!(read, whole);
    assert_eq!(table.memory().monitors, 0, "nothing is left to be sent, and no peer is up");
    table.monitor_end(station.id);
    assert!(!table.is_mirroring());
    assert_eq!(table.memory().monitors, 0);
}

#[test]
fn what_is_held_for_stations_is_dropped_before_a_session_is_closed() {
    let config = TableConfig { memory_max: Some(400_000), ..TableConfig::new(ASN, RouterId(1)) };
    let mut table = Table::new(Arc::new(config), 1, Waker::noop().clone());
    let _announcer = up(&mut table, 2, 65001, routes(2));
    let _receiver = up(&mut table, 3, 65003, routes(3));
    let mut station = Station::new(0, 1 << 40, &[Rib::AdjRibOutPost], MonitoredPeers::All);
    station.connect(&mut table);
    drain(&mut table, &mut station);
    let mut held = 0;
    for round in 0..200_u8 {
        announce_nets(&mut table, 2, 65001, &nets(round, 60));
        settle(&mut table);
        let mut bytes = Vec::new();
        nets(round, 60).iter().for_each(|net| Nlri::push(&mut bytes, None, net.parse().unwrap()));
        let mut batch = RouteBatch::default();
        batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
        table.apply_now(2, batch);
        settle(&mut table);
        held = held.max(table.memory().monitors);
    }
    assert!(held > 150_000, "what was withdrawn is held: {held}");
    assert_eq!(table.monitor_counts(station.id), None, "it was evicted");
    while let Some(event) = table.poll_event() {
        assert!(!matches!(event, TableEvent::Close { .. }), "{event:?}");
    }
}

#[test]
fn a_stale_route_is_sent_once_it_is_announced_again() {
    let mut table = new_table();
    let mut model = Model::default();
    let announce = |first, count| Op::Announce { peer: 2, first, count, path_id: 0, med: 1 };
    model.run(&mut table, &Op::Up(2));
    model.run(&mut table, &announce(0, 3));
    settle(&mut table);
    let mut station = Station::new(0, 1 << 20, &[Rib::AdjRibInPre], MonitoredPeers::All);
    station.connect(&mut table);
    drain(&mut table, &mut station);
    let sent = |station: &Station| station.peers.values().map(BTreeMap::len).collect::<Vec<_>>();
    assert_eq!(sent(&station), [3]);
    model.run(&mut table, &Op::Down { peer: 2, keep: true });
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(sent(&station), [0; 0], "the session has ended");
    model.run(&mut table, &Op::Up(2));
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 3, "kept as stale");
    assert_eq!(sent(&station), [0], "none is of this session");
    model.run(&mut table, &announce(1, 1));
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(sent(&station), [1]);
    model.run(&mut table, &Op::EndOfRib(2));
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(sent(&station), [1], "the others are withdrawn without having been sent");
}

#[test]
fn the_policy_decides_what_is_sent_and_not_what_it_is_asked_about() {
    let mut table = table();
    let ribs = [Rib::AdjRibOutPre, Rib::AdjRibOutPost];
    let mut station = Station::new(0, 1 << 20, &ribs, MonitoredPeers::All);
    station.connect(&mut table);
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce_nets(&mut table, 2, 65002, &nets(1, 3));
    let held = |station: &Station, peer: u8, of: Rib| {
        let address = IpAddr::from([10, 0, 0, peer]);
        let known = &station.peers[&(PeerKind::Global as u8, address)];
        known.keys().filter(|(rib, _)| *rib == of).count()
    };
    let both = |station: &Station, peer| ribs.map(|rib| held(station, peer, rib));
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!((both(&station, 2), both(&station, 3)), ([0, 0], [3, 3]), "not back to its source");

    let nothing = ExportParams::new(policy(2));
    let set_export = |table: &mut Table, export: ExportParams| {
        table.peer_configure(PeerId(3), Arc::new(PeerRoutes { export, ..routes(3) }));
        settle(table);
    };
    set_export(&mut table, nothing);
    drain(&mut table, &mut station);
    assert_eq!(both(&station, 3), [3, 0], "the policy refuses all");
    announce_nets(&mut table, 2, 65002, &nets(2, 4));
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(both(&station, 3), [7, 0]);

    // What was never sent is withdrawn all the same, here by its name: the destination is freed.
    let session = table.peers.get(PeerId(2)).unwrap().up.unwrap();
    table.peer_down(PeerId(2), session, None);
    settle(&mut table);
    drain(&mut table, &mut station);
    assert_eq!(both(&station, 3), [0, 0]);
}
