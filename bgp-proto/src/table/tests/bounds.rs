//! Bounds of what a peer can make the table encode, keep and log.

use super::*;
use crate::types::{Community, Prefix4};

fn net(n: u32) -> Prefix {
    Prefix4::from_bits(0x1000_0000 + n * 256, 24).into()
}

fn communities(count: u32) -> AttrEdit {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    edit.set_communities(&(0..count).map(Community).collect::<Vec<_>>());
    edit
}

/// Announces `count` prefixes with one set.
fn flood(table: &mut Table, from: u32, edit: &AttrEdit, count: u32) {
    let hop = NextHop::from(IpAddr::from([10, 0, 0, from as u8]));
    for first in (0..count).step_by(1000) {
        let mut bytes = Vec::new();
        (first..count.min(first + 1000)).for_each(|n| Nlri::push(&mut bytes, None, net(n)));
        let mut batch = RouteBatch::default();
        let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
        batch.push(nlri, Some((edit.view().as_bytes(), hop)));
        table.apply_now(from, batch);
    }
}

fn logged(table: &Table) -> u64 {
    table.group_counts().iter().map(|group| group.log_bytes).sum()
}

#[test]
fn a_slice_is_bounded_by_the_octets_that_it_writes() {
    for (count, set) in [(30_000, 1_005), (30_000, 10)] {
        let mut table = table();
        let _from = up(&mut table, 2, 65001, routes(2));
        let mut to = up(&mut table, 3, 65003, routes(3));
        announce(&mut table, 2, 65001, &["9.0.0.0/8"]);
        settle(&mut table);
        read(&mut to);
        flood(&mut table, 2, &communities(set), count);
        while table.finish(Time::ZERO) && logged(&table) == 0 {}
        assert!((1..600 << 10).contains(&logged(&table)), "{} octets at once", logged(&table));
        // All of it is sent in the end.
        loop {
            settle(&mut table);
            if read(&mut to).is_empty() {
                break;
            }
        }
        assert_eq!(table.counts(PeerId(3)).advertised[Family::Ipv4], count + 1);
    }
}

#[test]
fn a_count_that_moves_about_the_bound_warns_once() {
    let mut table = table();
    let limited = PeerRoutes { limits: prefixes_max(10), ..routes(2) };
    let _reader = up(&mut table, 2, 65001, limited);
    flood(&mut table, 2, &communities(1), 7);
    let hop = NextHop::from(IpAddr::from([10, 0, 0, 2]));
    let mut bytes = Vec::new();
    (7..10).for_each(|n| Nlri::push(&mut bytes, None, net(n)));
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    for _ in 0..1800 {
        batch.push(nlri, Some((communities(1).view().as_bytes(), hop)));
        batch.push(nlri, None);
    }
    table.apply_now(2, batch);
    assert_eq!(std::iter::from_fn(|| table.poll_event()).count(), 1);
}

/// What a fork flushes counts as changed when the fork began. After the generation counter has
/// wrapped, that must be long ago and not in the future.
#[test]
fn destinations_are_purged_after_the_generation_counter_has_wrapped() {
    for (fork, wrap) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut table = table();
        let mut readers =
            [up(&mut table, 2, 65001, routes(2)), up(&mut table, 3, 65003, routes(3))];
        let mut rest = |table: &mut Table| {
            for _ in 0..3 {
                settle(table);
                while !table.poll_fib(100).is_empty() {}
                readers.iter_mut().for_each(|reader| drop(read(reader)));
            }
        };
        announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
        rest(&mut table);
        if wrap {
            table.set_generation(u32::MAX - 5);
        }
        if fork {
            let policy = changing(vec![Change::Med(5)]);
            let routes = exporting(3, policy);
            table.peer_configure(PeerId(3), Arc::new(routes));
        }
        rest(&mut table);
        for round in 0..40 {
            announce(&mut table, 2, 65001, &[format!("10.2.{round}.0/24").as_str()]);
            rest(&mut table);
            let mut bytes = Vec::new();
            Nlri::push(&mut bytes, None, format!("10.2.{round}.0/24").parse().unwrap());
            let mut batch = RouteBatch::default();
            batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
            table.apply_now(2, batch);
            rest(&mut table);
        }
        let kept = table.loc_rib.rib(Family::Ipv4).empty.len();
        assert!(kept < 3, "fork {fork}, wrap {wrap}: {kept} destinations without a path are kept");
    }
}

#[test]
fn a_path_without_room_for_our_number_is_withheld() {
    let mut table = table();
    let long =
        RouteLimits { as_path_max: u16::MAX, attributes_max: u16::MAX, ..RouteLimits::default() };
    let _from = up(&mut table, 2, 65001, PeerRoutes { import: route_limits(long), ..routes(2) });
    let mut to = up(&mut table, 3, 65003, routes(3));
    let mut full = AttrEdit::originate(Origin::Igp);
    let octets = |edit: &AttrEdit| edit.view().as_path().as_bytes().len();
    full.prepend_as(Asn(65001), 10_000);
    while let before = octets(&full)
        && {
            full.prepend_as(Asn(65001), 1);
            octets(&full) > before
        }
    {}
    assert!(octets(&full) > 65_500);
    announce_with(&mut table, 2, &["10.1.0.0/16"], &full);
    settle(&mut table);
    assert_eq!(read(&mut to).len(), 23, "End-of-RIB only");
    let explained = table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).unwrap();
    let withheld = explained.withheld.iter().find(|w| w.peer == PeerId(3)).unwrap();
    assert_eq!(withheld.rule, "AS_PATH has no room for our AS number");
}

#[test]
fn non_transitive_extended_communities_of_both_kinds_stay_in_our_as() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, routes(2));
    let mut to = up(&mut table, 3, 65003, routes(3));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    let ipv6 = |kind: u8, last: u8| {
        let mut octets = [7; 20];
        (octets[0], octets[19]) = (kind, last);
        octets
    };
    edit.set(0xC0, 25, [ipv6(0x00, 0xAA), ipv6(0x40, 0xBB)].as_flattened());
    announce_with(&mut table, 2, &["10.1.0.0/16"], &edit);
    settle(&mut table);
    let sent = read(&mut to);
    let has = |wanted: [u8; 20]| sent.windows(20).any(|octets| octets == wanted);
    assert!(has(ipv6(0x00, 0xAA)) && !has(ipv6(0x40, 0xBB)));
}

/// Announces `path_ids` of one prefix.
fn announce_paths(
    table: &mut Table,
    from: u32,
    edit: &AttrEdit,
    ids: std::ops::RangeInclusive<u32>,
) {
    let mut bytes = Vec::new();
    ids.for_each(|id| Nlri::push(&mut bytes, Some(PathId(id)), net(1)));
    let mut batch = RouteBatch::default();
    let nlri = Nlri::parse(Family::Ipv4, true, &bytes).unwrap();
    let hop = NextHop::from(IpAddr::from([10, 0, 0, from as u8]));
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    table.apply_now(from, batch);
}

#[test]
fn the_paths_of_a_peer_for_one_destination_are_limited() {
    let mut table = table();
    let both = |id: u32, asn| Negotiated {
        add_path_rx: FamilySet::only(Family::Ipv4),
        add_path_tx: FamilySet::only(Family::Ipv4),
        ..session(id, asn)
    };
    let mut readers = Vec::new();
    for id in [2, 3] {
        table.peer_add(PeerId(id), IpAddr::from([10, 0, 0, id as u8]), Arc::new(routes(id)));
        readers.extend(table.up_now(id, both(id, 65000 + id)));
    }
    announce_paths(&mut table, 2, &communities(1), 1..=5_000);
    settle(&mut table);
    assert_eq!(table.counts(PeerId(2)).received[Family::Ipv4], 64);
    assert_eq!(table.counts(PeerId(3)).advertised[Family::Ipv4], 64);
    assert_eq!(table.counts(PeerId(2)).imports[Family::Ipv4].over_limit, 4_936);
    let refused = table.refused().iter().find(|refused| refused.by == RefusedBy::PathsLimit);
    assert_eq!(refused.unwrap().routes[Family::Ipv4], 4_936);
    // A path that is held may change, and paths of other peers are counted separately.
    let mut other = communities(1);
    other.set_med(7);
    announce_paths(&mut table, 2, &other, 3..=3);
    announce_paths(&mut table, 3, &communities(1), 1..=10);
    settle(&mut table);
    assert_eq!(table.totals().paths[Family::Ipv4], 74);
}

#[test]
fn a_route_beyond_a_bound_is_held_and_not_used_and_explained() {
    let long = |edit: &mut AttrEdit| edit.set(0xC0, 200, &[7; 17_000]);
    let path = |edit: &mut AttrEdit| {
        edit.prepend_as(Asn(65001), 1_100);
    };
    let many = |edit: &mut AttrEdit| {
        edit.set_communities(&(0..2_100u32).map(Community).collect::<Vec<_>>());
    };
    type Change = fn(&mut AttrEdit);
    let cases: [(Change, Unusable, &str); 3] = [
        (path, Unusable::AsPathTooLong, "as-path-max"),
        (many, Unusable::TooManyCommunities, "communities-max"),
        (long, Unusable::AttributesTooLong, "attributes-max"),
    ];
    for (change, reason, key) in cases {
        let mut table = table();
        let _from = up(&mut table, 2, 65001, routes(2));
        let mut edit = communities(1);
        change(&mut edit);
        announce_with(&mut table, 2, &["10.1.0.0/16"], &edit);
        settle(&mut table);
        let explained = table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).unwrap();
        assert_eq!(explained.destination.paths[0].unusable, Some(reason));
        assert!(reason.to_string().contains(key) && reason.is_refusal());
        let refused = table.refused().iter().find(|r| r.by == RefusedBy::Check(reason));
        assert_eq!(refused.unwrap().routes[Family::Ipv4], 1);
        // Once the bound is raised, it is accepted without a refresh.
        let limits = RouteLimits {
            as_path_max: u16::MAX,
            communities_max: u16::MAX,
            attributes_max: u16::MAX,
            paths_max: 1,
        };
        table.peer_configure(
            PeerId(2),
            Arc::new(PeerRoutes { import: route_limits(limits), ..routes(2) }),
        );
        settle(&mut table);
        assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], 1);
    }
}

#[test]
fn a_session_that_needs_one_group_too_many_is_closed() {
    let mut table = table();
    let config = TableConfig { groups_max: 2, ..(*table.config).clone() };
    table.configure(Arc::new(config));
    let modes = [NextHopMode::Auto, NextHopMode::Keep, NextHopMode::SelfAddress];
    for (id, mode) in (2..).zip(modes) {
        table.peer_add(
            PeerId(id),
            IpAddr::from([10, 0, 0, id as u8]),
            Arc::new(PeerRoutes { export: next_hop(mode), ..routes(id) }),
        );
        let readers = table.up_now(id, session(id, 65000 + id));
        assert_eq!(readers.len(), usize::from(id < 4));
    }
    let reason = CloseReason::TooManyGroups { bound: 2 };
    let close = TableEvent::Close { peer: PeerId(4), session: SessionId(1), reason };
    assert_eq!(table.poll_event(), Some(close));
}

#[test]
fn every_cluster_id_of_ours_is_checked_for_loops() {
    let mut table = table();
    let cluster = |id: u32, cluster: u32| PeerRoutes {
        reflection: ReflectionParams { cluster_id: Some(ClusterId(cluster)), client: true },
        ..routes(id)
    };
    let _a = up(&mut table, 2, 65000, cluster(2, 77));
    let _b = up(&mut table, 3, 65000, cluster(3, 78));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_cluster(ClusterId(77));
    announce_with(&mut table, 3, &["10.1.0.0/16"], &edit);
    settle(&mut table);
    let accepted = |table: &Table| table.counts(PeerId(3)).accepted[Family::Ipv4];
    assert_eq!(accepted(&table), 0, "it went through the cluster of another client");
    // The cluster is no longer ours.
    table.peer_configure(PeerId(2), Arc::new(cluster(2, 79)));
    settle(&mut table);
    assert_eq!(accepted(&table), 1);
}

/// A limit that is lowered below what a peer has sent already must not be silent until the next prefix.
#[test]
fn a_lowered_limit_warns_at_once_and_a_raised_one_does_not() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    settle(&mut table);
    let (peer, family) = (PeerId(2), Family::Ipv4);
    let limit = |table: &mut Table, max| {
        table.peer_configure(peer, Arc::new(PeerRoutes { limits: prefixes_max(max), ..routes(2) }));
        settle(table);
        table.poll_event()
    };
    assert_eq!(limit(&mut table, 100), None);
    let warning = |bound| Some(TableEvent::PrefixWarning { peer, family, count: 3, bound });
    assert_eq!(limit(&mut table, 2), warning(2));
    assert_eq!(limit(&mut table, 2), None, "nothing has changed");
    assert_eq!(limit(&mut table, 50), None);
    assert_eq!(limit(&mut table, 3), warning(3));
}
