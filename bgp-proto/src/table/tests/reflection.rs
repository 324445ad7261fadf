//! What a neighbour is sent of reflected routes: clusters, restarts, path identifiers.

use super::schedule::{many, plain};
use super::*;
use crate::wire::{
    AttrView, GracefulRestart, GracefulRestartFamily, Update, UpdateContext, split_frame,
};

/// What a neighbour was sent since the last call.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Path identifier, next hop and attributes.
    pub(super) announced: Vec<(u32, IpAddr, Vec<u8>)>,
    /// Path identifiers.
    withdrawn: Vec<u32>,
}

impl Received {
    pub(super) fn has_withdrawn(&self) -> bool {
        !self.withdrawn.is_empty()
    }
}

pub(super) fn receive(reader: &mut Reader, add_path: FamilySet) -> Received {
    let context = UpdateContext { add_path, ..UpdateContext::new(PeerType::Internal, ASN) };
    let octets = read(reader);
    let mut rest = octets.as_slice();
    let mut received = Received::default();
    while let Some(frame) = split_frame(rest, usize::MAX).unwrap() {
        let update = Update::parse(frame.body(), &context).unwrap();
        for nlri in update.unreach() {
            received.withdrawn.extend(nlri.iter().map(|(path_id, _)| path_id.0));
        }
        let mut attrs = Vec::new();
        update.canonical_attrs(&mut attrs);
        for reach in update.reach() {
            let next_hop = reach.next_hop.addr();
            for (path_id, _) in reach.nlri.iter() {
                received.announced.push((path_id.0, next_hop, attrs.clone()));
            }
        }
        rest = &rest[frame.bytes.len()..];
    }
    received
}

fn cluster_list(attrs: &[u8]) -> Vec<u32> {
    AttrView::new(attrs).cluster_list().map(|cluster| cluster.0).collect()
}

/// As another reflector sends it: a client of its own, 0.0.0.77, originated the route.
fn reflected(clusters: &[u32]) -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.set_local_pref(150);
    edit.set_med(7);
    edit.set_originator_id(RouterId(77));
    clusters.iter().rev().for_each(|cluster| edit.prepend_cluster(ClusterId(*cluster)));
    edit
}

pub(super) fn why_unusable(table: &Table, prefix: &str) -> Option<Unusable> {
    let explained = table.explain(prefix.parse().unwrap(), Time::ZERO).unwrap();
    explained.destination.paths[0].unusable
}

/// Two other reflectors that are not our clients: a route of another cluster is reflected to our
/// clients with only CLUSTER_LIST changed; one that was in our cluster before is kept and not used.
#[test]
fn a_route_of_another_cluster_is_reflected_and_one_of_our_own_is_not() {
    let mut table = table();
    let client = PeerRoutes { reflection: CLIENT, ..routes(2) };
    let mut reader = up(&mut table, 2, ASN.0, client);
    let mut third = up(&mut table, 3, ASN.0, routes(3));
    let _fourth = up(&mut table, 4, ASN.0, routes(4));
    announce_with(&mut table, 4, &["10.1.0.0/16"], &reflected(&[9]));
    announce_with(&mut table, 4, &["10.2.0.0/16"], &reflected(&[9, 1]));
    settle(&mut table);
    let received = receive(&mut reader, FamilySet::EMPTY);
    let [(_, next_hop, attrs)] = received.announced.as_slice() else { panic!("{received:?}") };
    assert_eq!(*next_hop, IpAddr::from([10, 0, 0, 4]));
    assert_eq!(cluster_list(attrs), [1, 9]);
    let attrs = AttrView::new(attrs);
    assert_eq!(attrs.originator_id(), Some(RouterId(77)));
    assert_eq!((attrs.local_pref(), attrs.med()), (Some(150), Some(7)));
    assert_eq!(why_unusable(&table, "10.1.0.0/16"), None);
    assert_eq!(why_unusable(&table, "10.2.0.0/16"), Some(Unusable::ClusterLoop));
    let to_third = receive(&mut third, FamilySet::EMPTY);
    assert!(to_third.announced.is_empty(), "from one non-client to another: {to_third:?}");
}

/// Clients with cluster ids of their own: a route names the cluster of its source and that of the
/// receiver, and one that comes back with either is refused.
#[test]
fn a_route_between_two_clusters_of_ours_names_both() {
    let mut table = table();
    let client = |id, cluster| PeerRoutes {
        reflection: ReflectionParams { client: true, cluster_id: Some(ClusterId(cluster)) },
        ..routes(id)
    };
    let _from = up(&mut table, 2, ASN.0, client(2, 7));
    let mut same = up(&mut table, 3, ASN.0, client(3, 7));
    let mut other = up(&mut table, 4, ASN.0, client(4, 8));
    announce_with(&mut table, 2, &["10.1.0.0/16"], &AttrEdit::originate(Origin::Igp));
    settle(&mut table);
    for (reader, clusters) in [(&mut same, vec![7]), (&mut other, vec![8, 7])] {
        let received = receive(reader, FamilySet::EMPTY);
        let [(_, _, attrs)] = received.announced.as_slice() else { panic!("{received:?}") };
        assert_eq!(cluster_list(attrs), clusters);
        assert_eq!(AttrView::new(attrs).originator_id(), Some(RouterId(2)));
    }
    for (from, prefix, clusters) in
        [(3, "10.3.0.0/16", [7, 9]), (4, "10.4.0.0/16", [9, 8]), (4, "10.5.0.0/16", [9, 1])]
    {
        announce_with(&mut table, from, &[prefix], &reflected(&clusters));
        settle(&mut table);
        assert_eq!(why_unusable(&table, prefix), Some(Unusable::ClusterLoop), "{prefix}");
    }
}

/// RFC 4724 §4.2 as the other peers see it: a client that restarts and announces the same routes
/// causes no message. What it does not announce again is withdrawn at its End-of-RIB, once.
#[test]
fn routes_that_come_back_unchanged_after_a_restart_are_not_advertised_again() {
    let mut table = table();
    let mut reader = up(&mut table, 2, 65001, routes(2));
    let family = GracefulRestartFamily { family: Family::Ipv4.afi_safi(), forwarding: true };
    let restart = GracefulRestart {
        restart_time_secs: 120,
        families: vec![family],
        ..GracefulRestart::default()
    };
    let negotiated = Negotiated { graceful_restart: Some(restart), ..session(3, 65002) };
    table.peer_add(PeerId(3), IpAddr::from([10, 0, 0, 3]), Arc::new(routes(3)));
    let _before = table.up_now(3, negotiated.clone());
    announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    settle(&mut table);
    assert_eq!(receive(&mut reader, FamilySet::EMPTY).announced.len(), 3);

    let families = FamilySet::only(Family::Ipv4);
    let keep = Keep::for_restart(families, Duration::from_secs(120));
    table.down_now(3, Some(keep));
    settle(&mut table);
    assert!(read(&mut reader).is_empty(), "while it restarts");
    let _after = table.up_now(3, negotiated.clone());
    announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    assert!(read(&mut reader).is_empty(), "the routes that came back are unchanged");

    let mut batch = RouteBatch::default();
    batch.push_marker(Family::Ipv4, crate::wire::RouteAction::EndOfRib);
    table.apply_now(3, batch);
    settle(&mut table);
    let sent = read(&mut reader);
    assert_eq!(sent.len(), 23 + 3, "one withdrawal: {sent:02x?}");
    assert_eq!(table.counts(PeerId(2)).advertised[Family::Ipv4], 2);
}

/// The log can show when, and why, the routes of a peer that did not return were withdrawn.
#[test]
fn stale_routes_that_are_withdrawn_are_reported_to_the_host() {
    let mut table = table();
    let at = |secs| Time::ZERO + Duration::from_secs(secs);
    let family = GracefulRestartFamily { family: Family::Ipv4.afi_safi(), forwarding: true };
    let restart = GracefulRestart { families: vec![family], ..GracefulRestart::default() };
    let negotiated = Negotiated { graceful_restart: Some(restart), ..session(3, 65002) };
    table.peer_add(PeerId(3), IpAddr::from([10, 0, 0, 3]), Arc::new(routes(3)));
    let families = FamilySet::only(Family::Ipv4);
    let keep = || Some(Keep::for_restart(families, Duration::from_secs(120)));
    let removed = |table: &mut Table| -> Vec<(u32, Returned)> {
        let events = std::iter::from_fn(|| table.poll_event());
        let removed = events.filter_map(|event| match event {
            TableEvent::StaleRemoved { count, returned, .. } => Some((count, returned)),
            _ => None,
        });
        removed.collect()
    };
    for (came_back, expected) in [(true, (1, Returned::Yes)), (false, (2, Returned::No))] {
        let _up = table.up_now(3, negotiated.clone());
        announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
        table.down_now(3, keep());
        if came_back {
            let _up = table.up_now(3, negotiated.clone());
            announce(&mut table, 3, 65002, &["10.1.0.0/16"]);
        }
        settle(&mut table);
        assert_eq!(removed(&mut table), [], "not yet");
        table.handle_timeout(at(600));
        assert_eq!(removed(&mut table), [expected]);
        table.handle_timeout(at(1200));
        assert_eq!(removed(&mut table), [], "reported once");
    }
}

pub(super) fn withdraw(table: &mut Table, from: u32, prefix: &str) {
    let mut bytes = Vec::new();
    Nlri::push(&mut bytes, None::<PathId>, prefix.parse().unwrap());
    let mut batch = RouteBatch::default();
    batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
    table.apply_now(from, batch);
}

/// ADD-PATH: each change is sent alone, with the identifier that the path always had, whether all
/// paths are sent or the best two.
#[test]
fn a_path_keeps_its_identifier_whatever_the_others_do() {
    const PREFIX: &str = "10.1.0.0/16";
    let ipv4 = FamilySet::only(Family::Ipv4);
    for (send, sends_all) in [(AddPathSend::All, true), (AddPathSend::Best(2), false)] {
        let mut table = table();
        let to = PeerRoutes {
            export: ExportParams { add_path_send: send, ..ExportParams::default() },
            ..routes(2)
        };
        table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::new(to));
        let negotiated = Negotiated { add_path_tx: ipv4, ..session(2, ASN.0) };
        let mut reader = table.up_now(2, negotiated).remove(0);
        let _feeders = [3, 4, 5].map(|id| up(&mut table, id, 65000 + id, routes(id)));
        // The lower the number, the shorter the path.
        let advertise = |table: &mut Table, from: u32| {
            let mut edit = AttrEdit::originate(Origin::Igp);
            edit.prepend_as(Asn(65000 + from), from as usize);
            announce_with(table, from, &[PREFIX], &edit);
            settle(table);
        };
        let mut received = |table: &mut Table| {
            settle(table);
            let received = receive(&mut reader, ipv4);
            let ids: Vec<u32> = received.announced.iter().map(|(id, _, _)| *id).collect();
            (ids, received.withdrawn)
        };

        advertise(&mut table, 4);
        let (fourth, _) = received(&mut table);
        advertise(&mut table, 5);
        let (fifth, _) = received(&mut table);
        assert_eq!((fourth.len(), fifth.len()), (1, 1), "the path of peer 4 was sent before");
        assert_ne!(fourth, fifth);
        // A better one arrives: if two are sent, the worst of the three is withdrawn.
        let replaced = if sends_all { Vec::new() } else { fifth.clone() };
        advertise(&mut table, 3);
        let (third, withdrawn) = received(&mut table);
        assert_eq!(third.len(), 1);
        assert!(third != fourth && third != fifth, "{third:?} {fourth:?} {fifth:?}");
        assert_eq!(withdrawn, replaced);
        withdraw(&mut table, 3, PREFIX);
        assert_eq!(received(&mut table), (replaced, third));
        // The same path with other attributes.
        let mut longer = AttrEdit::originate(Origin::Igp);
        longer.prepend_as(Asn(65004), 9);
        announce_with(&mut table, 4, &[PREFIX], &longer);
        assert_eq!(received(&mut table), (fourth, Vec::new()));
    }
}

/// What a group sends follows its key and the facts of the source at once, before the decision that
/// marks other groups. Groups that have become alike by then have not sent the same yet.
#[test]
fn groups_that_become_alike_wait_for_what_is_undecided() {
    let mut table = table();
    let mut one = up(&mut table, 3, ASN.0, exporting(3, changing(vec![Change::Med(1)])));
    let _source = up(&mut table, 2, ASN.0, routes(2));
    let mut other = up(&mut table, 4, ASN.0, routes(4));
    let closed = ImportParams::new(Policy::reject_all());
    let _feed = up(&mut table, 5, 65005, PeerRoutes { import: closed, ..routes(5) });
    announce_with(&mut table, 2, &["10.1.0.0/16"], &AttrEdit::originate(Origin::Igp));
    settle(&mut table);
    let mut announced =
        || [&mut one, &mut other].map(|r| receive(r, FamilySet::EMPTY).announced.len());
    assert_eq!(announced(), [0, 0], "it is not a client");
    table.peer_configure(PeerId(2), Arc::new(PeerRoutes { reflection: CLIENT, ..routes(2) }));
    table.peer_configure(PeerId(3), Arc::new(routes(3)));
    // While inputs are waiting, nothing is decided.
    table.apply(PeerId(5), many(5, &plain(65005), 0..2_000), None);
    let turns = (0..).take_while(|_| table.turn(Time::ZERO, Work(600)).decided == 0).count();
    assert!(turns > 3, "decided after {turns}");
    settle(&mut table);
    assert_eq!(announced(), [1, 1]);
    let group = |id| table.counts(PeerId(id)).group[Family::Ipv4];
    assert_eq!(group(3), group(4), "they are merged in the end");
}
