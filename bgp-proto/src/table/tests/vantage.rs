//! Reflection by vantage: what is sent, and what is explained.

use super::reflection::receive;
use super::*;
use crate::rib::Reason;

const PREFIX: &str = "10.1.0.0/16";

/// Costs from `a`: 10 to `b`, 20 to `c`.
fn table_with_costs() -> Table {
    let to_others = BTreeMap::from([("b".into(), 10), ("c".into(), 20)]);
    let stated = BTreeMap::from([("a".into(), to_others)]);
    let vantages = Arc::new(VantageCosts { stated, ..VantageCosts::default() });
    let config = TableConfig { vantages, ..TableConfig::new(ASN, RouterId(1)) };
    Table::new(Arc::new(config), 1, Waker::noop().clone())
}

fn client(id: u32, vantage: &str) -> PeerRoutes {
    PeerRoutes { reflection: CLIENT, vantage: Some(vantage.into()), ..routes(id) }
}

fn originate(table: &mut Table, from: u32) {
    announce_with(table, from, &[PREFIX], &AttrEdit::originate(Origin::Igp));
    settle(table);
}

/// The last octets of the next hops announced since the last call.
fn next_hops(reader: &mut Reader) -> Vec<u8> {
    let announced = receive(reader, FamilySet::EMPTY).announced.into_iter();
    let last = |hop: IpAddr| match hop {
        IpAddr::V4(hop) => hop.octets()[3],
        IpAddr::V6(_) => panic!("{hop}"),
    };
    announced.map(|(_, hop, _)| last(hop)).collect()
}

#[test]
fn a_client_is_sent_the_nearest_path_and_the_next_one_when_that_goes() {
    let mut table = table_with_costs();
    // The preferred one of our own decision is that of the lowest identifier.
    let _far = up(&mut table, 2, ASN.0, client(2, "c"));
    let _near = up(&mut table, 3, ASN.0, client(3, "b"));
    let _local = up(&mut table, 4, ASN.0, client(4, "a"));
    let mut at_a = up(&mut table, 5, ASN.0, client(5, "a"));
    let mut elsewhere = up(&mut table, 6, ASN.0, PeerRoutes { reflection: CLIENT, ..routes(6) });
    (2..5).for_each(|from| originate(&mut table, from));
    assert_eq!(next_hops(&mut at_a).last(), Some(&4));
    assert_eq!(next_hops(&mut elsewhere), [2]);
    // Without the best path for `a`, the best of our own decision stays the same.
    table.down_now(4, None);
    settle(&mut table);
    assert_eq!((next_hops(&mut at_a), next_hops(&mut elsewhere)), (vec![3], vec![]));
    table.down_now(3, None);
    settle(&mut table);
    assert_eq!(next_hops(&mut at_a), [2]);
    assert_eq!(table.groups().len(), 2 + 1, "one for each vantage in use, and one without");
}

/// The path leads to where its next hop is, whichever neighbour announced it.
#[test]
fn a_path_is_where_the_neighbour_is_that_is_its_next_hop() {
    let mut table = table_with_costs();
    let _other_reflector = up(&mut table, 2, ASN.0, PeerRoutes { reflection: CLIENT, ..routes(2) });
    let _near = up(&mut table, 3, ASN.0, client(3, "b"));
    let _moving = up(&mut table, 4, ASN.0, client(4, "c"));
    let mut at_a = up(&mut table, 5, ASN.0, client(5, "a"));
    originate(&mut table, 3);
    let mut bytes = Vec::new();
    Nlri::push(&mut bytes, None, PREFIX.parse().unwrap());
    let mut batch = RouteBatch::default();
    let (hop, edit) = (IpAddr::from([10, 0, 0, 4]).into(), AttrEdit::originate(Origin::Igp));
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    table.apply_now(2, batch);
    settle(&mut table);
    assert_eq!(next_hops(&mut at_a).last(), Some(&3));
    table.peer_configure(PeerId(4), Arc::new(client(4, "a")));
    settle(&mut table);
    assert_eq!(next_hops(&mut at_a), [4], "it has moved to the receiver's vantage");
    table.down_now(4, None);
    table.peer_remove(PeerId(4));
    settle(&mut table);
    assert_eq!(next_hops(&mut at_a), [3], "nothing is known of its place any more");
}

#[test]
fn a_client_that_moves_is_sent_the_difference() {
    let mut table = table_with_costs();
    let _one = up(&mut table, 2, ASN.0, client(2, "b"));
    let _two = up(&mut table, 3, ASN.0, client(3, "a"));
    let mut moving = up(&mut table, 5, ASN.0, client(5, "a"));
    let mut staying = up(&mut table, 6, ASN.0, client(6, "a"));
    (2..4).for_each(|from| originate(&mut table, from));
    announce_with(&mut table, 2, &["10.2.0.0/16"], &AttrEdit::originate(Origin::Igp));
    settle(&mut table);
    assert_eq!(next_hops(&mut moving), next_hops(&mut staying));
    table.peer_configure(PeerId(5), Arc::new(client(5, "b")));
    settle(&mut table);
    assert_eq!((next_hops(&mut moving), next_hops(&mut staying)), (vec![2], vec![]));
    let config = TableConfig { vantages: Arc::default(), ..TableConfig::clone(&table.config) };
    table.configure(Arc::new(config));
    settle(&mut table);
    assert_eq!((next_hops(&mut moving), next_hops(&mut staying)), (vec![], vec![]));
}

#[test]
fn the_decision_at_a_vantage_is_explained() {
    let mut table = table_with_costs();
    let _readers: Vec<Reader> = [(2, "c"), (3, "b"), (5, "a")]
        .map(|(id, vantage)| up(&mut table, id, ASN.0, client(id, vantage)))
        .into();
    (2..4).for_each(|from| originate(&mut table, from));
    let prefix: Prefix = PREFIX.parse().unwrap();
    let explained = table.explain_from("a", prefix, Time::ZERO).unwrap();
    let shown = |explained: &Explanation| -> Vec<_> {
        let paths = explained.destination.paths.iter();
        paths.map(|p| (p.peer.unwrap().0, p.vantage.clone(), p.cost, p.best, p.reason)).collect()
    };
    let first = (3, Some("b".into()), Some(10), true, Reason::OnlyPath);
    let second = (2, Some("c".into()), Some(20), false, Reason::VantageCost);
    assert_eq!(shown(&explained), [first, second]);
    let to: Vec<u32> = explained.advertised.iter().map(|to| to.peer.0).collect();
    assert_eq!((to, explained.withheld.len()), (vec![5], 0));
    let plain = table.explain(prefix, Time::ZERO).unwrap();
    assert_eq!(shown(&plain)[0], (2, Some("c".into()), None, true, Reason::OnlyPath));
    assert_eq!(shown(&plain)[1].4, Reason::RouterId);
    let why = |peer| plain.withheld.iter().find(|w| w.peer == PeerId(peer)).map(|w| &*w.rule);
    assert_eq!(why(3), Some("it sent the best path"), "the best one from its vantage");
    assert_eq!(table.explain_from("x", prefix, Time::ZERO), None);
    assert_eq!(table.vantages().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// Paths of an ended session have the default cost until they are withdrawn. A group that is sent one
/// of them meanwhile is not merged with one that never was.
#[test]
fn groups_that_become_alike_wait_for_paths_of_an_ended_session() {
    let to_others = BTreeMap::from([("b".into(), 1500), ("c".into(), 5000)]);
    let stated = BTreeMap::from([("a".into(), to_others)]);
    let vantages = Arc::new(VantageCosts { stated, ..VantageCosts::default() });
    let config = TableConfig { vantages, ..TableConfig::new(ASN, RouterId(1)) };
    let mut table = Table::new(Arc::new(config), 1, Waker::noop().clone());
    let with_med = || {
        let policy = exporting(6, changing(vec![Change::Med(1)]));
        PeerRoutes { reflection: CLIENT, vantage: Some("a".into()), ..policy }
    };
    let _far = up(&mut table, 2, ASN.0, client(2, "c"));
    let _near = up(&mut table, 3, ASN.0, client(3, "b"));
    let mut one = up(&mut table, 5, ASN.0, client(5, "a"));
    let mut other = up(&mut table, 6, ASN.0, with_med());
    let prefixes: Vec<String> = (0..200).map(|n| format!("10.2.{n}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    for from in [2, 3] {
        announce_with(&mut table, from, &prefixes, &AttrEdit::originate(Origin::Igp));
        settle(&mut table);
    }
    let mut last_hops = || [&mut one, &mut other].map(|reader| next_hops(reader).last().copied());
    assert_eq!(last_hops(), [Some(3), Some(3)]);
    table.peer_down(PeerId(2), SessionId(1), None);
    table.peer_configure(PeerId(6), Arc::new(client(6, "a")));
    // Turns so short that paths are withdrawn in many of them.
    let turns = (0..).take_while(|_| table.turn(Time::ZERO, Work(150)).next == NextTurn::Now);
    assert!(turns.count() > 10, "all is done in fewer turns");
    settle(&mut table);
    assert_eq!(last_hops(), [None, Some(3)]);
    let group = |id| table.counts(PeerId(id)).group[Family::Ipv4];
    assert_eq!(group(5), group(6), "they are merged in the end");
}

/// A path takes the place of another one of the same source, and counts as a change though it was not
/// written itself.
#[test]
fn another_path_of_the_same_source_is_sent() {
    let mut table = table_with_costs();
    let add_path_rx = FamilySet::only(Family::Ipv4);
    table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::new(client(2, "a")));
    let _feed = table.up_now(2, Negotiated { add_path_rx, ..session(2, ASN.0) });
    let mut at_a = up(&mut table, 5, ASN.0, client(5, "a"));
    let send = |table: &mut Table, id: u32, hop: Option<u8>| {
        let mut bytes = Vec::new();
        Nlri::push(&mut bytes, Some(PathId(id)), PREFIX.parse().unwrap());
        let nlri = Nlri::parse(Family::Ipv4, true, &bytes).unwrap();
        let edit = AttrEdit::originate(Origin::Igp);
        let hop = hop.map(|hop| IpAddr::from([192, 0, 2, hop]).into());
        let mut batch = RouteBatch::default();
        batch.push(nlri, hop.map(|hop| (edit.view().as_bytes(), hop)));
        table.apply_now(2, batch);
        settle(table);
    };
    send(&mut table, 0, Some(10));
    send(&mut table, 1, Some(11));
    assert_eq!(next_hops(&mut at_a), [10], "the lower identifier decides");
    send(&mut table, 0, None);
    assert_eq!(next_hops(&mut at_a), [11]);
    send(&mut table, 0, Some(10));
    assert_eq!(next_hops(&mut at_a), [10]);
    send(&mut table, 1, None);
    assert_eq!(next_hops(&mut at_a), []);
}
