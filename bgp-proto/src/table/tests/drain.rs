//! Neighbours that are asked to use other paths (RFC 8326).

use super::*;
use crate::types::{Community, Prefix};
use crate::wire::AttrView;

const INTERNAL: u32 = 65000;

fn drained(routes: PeerRoutes) -> PeerRoutes {
    let export = ExportParams { drain: Drain::On, ..routes.export };
    PeerRoutes { export, ..routes }
}

/// The routes advertised to a peer: LOCAL_PREF, and whether they carry GRACEFUL_SHUTDOWN.
fn sent(table: &Table, to: u32) -> Vec<(Prefix, Option<u32>, bool)> {
    let filter = RouteFilter { advertised_to: Some(PeerId(to)), ..RouteFilter::default() };
    let (views, _) = table.view(&filter, 0, 100, Time::ZERO);
    let mark = |attrs: &[u8]| {
        let view = AttrView::new(attrs);
        let marked = view.communities().any(|c| c == Community::GRACEFUL_SHUTDOWN);
        (view.local_pref(), marked)
    };
    let lines = views.iter().map(|view| {
        let (local_pref, marked) = mark(&view.paths[0].attrs);
        (view.prefix, local_pref, marked)
    });
    lines.collect()
}

fn progress(table: &Table, of: u32) -> (bool, u32, u32) {
    let DrainProgress { told, advertised, replaced } = table.drain_progress(PeerId(of)).unwrap();
    (told, advertised, replaced)
}

#[test]
fn local_and_propagated_routes_are_marked_and_nothing_is_withdrawn() {
    let mut table = table();
    let (own, local) = ("10.9.0.0/16".parse().unwrap(), Some(LocalRoute::default()));
    table.handle_local(Time::ZERO, own, Source::Static, local);
    let client = |id| PeerRoutes { reflection: CLIENT, ..routes(id) };
    let _source = up(&mut table, 2, INTERNAL, client(2));
    let mut inside = up(&mut table, 3, INTERNAL, client(3));
    let mut outside = up(&mut table, 4, 65004, routes(4));
    let mut plain = up(&mut table, 5, 65005, routes(5));
    announce(&mut table, 2, 65002, &["10.1.0.0/16"]);
    settle(&mut table);
    for reader in [&mut inside, &mut outside, &mut plain] {
        read(reader);
    }
    let reflected = "10.1.0.0/16".parse().unwrap();
    let before = vec![(own, Some(100), false), (reflected, Some(100), false)];
    assert_eq!(sent(&table, 3), before);
    table.peer_configure(PeerId(3), Arc::new(drained(client(3))));
    table.peer_configure(PeerId(4), Arc::new(drained(routes(4))));
    settle(&mut table);
    assert_eq!(sent(&table, 3), [(own, Some(0), false), (reflected, Some(0), false)]);
    assert_eq!(sent(&table, 4), [(own, None, true), (reflected, None, true)]);
    assert_eq!(sent(&table, 5), [(own, None, false), (reflected, None, false)]);
    let counts = |table: &Table, id| table.counts(PeerId(id)).exports[Family::Ipv4];
    assert_eq!((counts(&table, 3).withdrawn, counts(&table, 4).withdrawn), (0, 0));
    // A peer that comes up meanwhile is sent marked routes from the start, and is in the same
    // group.
    let _later = up(&mut table, 6, 65006, drained(routes(6)));
    settle(&mut table);
    assert_eq!(sent(&table, 6), sent(&table, 4));
    let group = |table: &Table, id| table.counts(PeerId(id)).group[Family::Ipv4];
    assert_eq!(group(&table, 6), group(&table, 4));
    assert_ne!(group(&table, 6), group(&table, 5));
    table.peer_configure(PeerId(3), Arc::new(client(3)));
    table.peer_configure(PeerId(4), Arc::new(routes(4)));
    settle(&mut table);
    assert_eq!((sent(&table, 3), sent(&table, 4)), (before, sent(&table, 5)));
}

#[test]
fn paths_from_a_drained_peer_are_least_preferred() {
    let mut table = table();
    let _readers = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    announce(&mut table, 2, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    announce(&mut table, 3, 65003, &["10.1.0.0/16"]);
    settle(&mut table);
    let best = |table: &Table| {
        let (views, _) = table.view(&RouteFilter::default(), 0, 10, Time::ZERO);
        views.iter().map(|view| view.paths[0].peer.unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(best(&table), [2, 2]);
    let import = ImportParams { drain: Drain::On, ..ImportParams::default() };
    table.peer_configure(PeerId(2), Arc::new(PeerRoutes { import, ..routes(2) }));
    settle(&mut table);
    assert_eq!(best(&table), [3, 2], "the only path stays in use");
    table.peer_configure(PeerId(2), Arc::new(routes(2)));
    settle(&mut table);
    assert_eq!(best(&table), [2, 2]);
}

#[test]
fn progress_counts_peers_sent_the_marks_and_paths_of_their_own() {
    let mut table = table();
    let _source = up(&mut table, 2, 65002, routes(2));
    let mut reader = up(&mut table, 3, 65003, routes(3));
    announce(&mut table, 2, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    read(&mut reader);
    assert_eq!(progress(&table, 3), (false, 2, 0), "it is not drained");
    table.peer_configure(PeerId(3), Arc::new(drained(routes(3))));
    assert_eq!(progress(&table, 3), (false, 2, 0));
    settle(&mut table);
    assert_eq!(progress(&table, 3), (false, 2, 0), "it has not read that");
    read(&mut reader);
    assert_eq!(progress(&table, 3), (true, 2, 0));
    // A path whose AS_PATH contains our AS leads through us.
    let mut looped = AttrEdit::originate(Origin::Igp);
    looped.prepend_as(ASN, 1);
    looped.prepend_as(Asn(65003), 3);
    announce_with(&mut table, 3, &["10.1.0.0/16"], &looped);
    settle(&mut table);
    assert_eq!(progress(&table, 3), (true, 2, 0));
    let mut longer = AttrEdit::originate(Origin::Igp);
    longer.prepend_as(Asn(65003), 3);
    announce_with(&mut table, 3, &["10.1.0.0/16"], &longer);
    settle(&mut table);
    assert_eq!(progress(&table, 3), (true, 2, 1));
    // Its path is the best, so nothing is advertised to it.
    announce(&mut table, 3, 65003, &["10.3.0.0/16"]);
    settle(&mut table);
    assert_eq!(progress(&table, 3), (true, 2, 1));
    table.down_now(3, None);
    assert_eq!(table.drain_progress(PeerId(3)), None);
}

#[test]
fn local_routes_are_withdrawn_only_beside_paths_that_are_not_marked() {
    let mut table = table();
    let (shared, alone): (Prefix, Prefix) =
        ("10.1.0.0/16".parse().unwrap(), "10.9.0.0/16".parse().unwrap());
    for prefix in [shared, alone] {
        table.handle_local(Time::ZERO, prefix, Source::Static, Some(LocalRoute::default()));
    }
    let _other = up(&mut table, 2, INTERNAL, routes(2));
    let export = ExportParams { drain: Drain::Withdraw, ..ExportParams::default() };
    let _reader = up(&mut table, 3, 65003, PeerRoutes { export, ..routes(3) });
    let prefixes = |table: &Table| {
        sent(table, 3).into_iter().map(|(prefix, _, marked)| (prefix, marked)).collect::<Vec<_>>()
    };
    let tell = |table: &mut Table, local_pref: u32| {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.set_local_pref(local_pref);
        announce_with(table, 2, &["10.1.0.0/16"], &edit);
        settle(table);
    };
    settle(&mut table);
    assert_eq!(prefixes(&table), [(shared, true), (alone, true)], "no peer announces it");
    tell(&mut table, 100);
    assert_eq!(prefixes(&table), [(alone, true)], "ours is still the best path, but withdrawn");
    let explanation = table.explain(shared, Time::ZERO).unwrap();
    let rule = explanation.withheld.iter().find(|w| w.peer == PeerId(3)).map(|w| &*w.rule);
    assert_eq!(rule, Some("drained, and another peer announces it"));
    tell(&mut table, 0);
    assert_eq!(prefixes(&table), [(shared, true), (alone, true)], "that path is marked as well");
    tell(&mut table, 100);
    assert_eq!(prefixes(&table), [(alone, true)]);
    table.down_now(2, None);
    settle(&mut table);
    assert_eq!(prefixes(&table), [(shared, true), (alone, true)], "the other path is withdrawn");
}
