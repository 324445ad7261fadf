//! Routes that other tables import.

use super::*;
use crate::rib::{LocalRoute, NextHopState, Reason};
use crate::table::Offered;
use crate::types::Community;
use crate::wire::AttrView;

const NET: &str = "203.0.113.0/24";

fn net() -> Prefix {
    NET.parse().unwrap()
}

fn offers(table: &mut Table) -> Vec<(Prefix, Option<Offered>)> {
    settle(table);
    let mut all = Vec::new();
    while table.has_offers() {
        all.extend(table.take_offers(1));
    }
    settle(table);
    all
}

/// A table with a route of an eBGP peer, whose next hop is on interface 1.
fn red() -> Table {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, importing(2, Policy::accept_all()));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    announce_with(&mut table, 2, &[NET], &edit);
    settle(&mut table);
    table
}

#[test]
fn nothing_is_offered_before_somebody_imports() {
    let mut red = red();
    assert!(!red.has_offers());
    red.begin_offers();
    assert_eq!(offers(&mut red).len(), 1);
    red.end_offers();
    announce(&mut red, 2, 65001, &["198.51.100.0/24"]);
    settle(&mut red);
    assert!(!red.has_offers());
}

#[test]
fn an_imported_route_has_the_hops_of_the_table_it_comes_from() {
    let mut red = red();
    red.begin_offers();
    let found = offers(&mut red);
    let [(found, Some(offered))] = &found[..] else { panic!("{found:?}") };
    assert_eq!(*found, net());
    let from: Arc<str> = "red".into();
    let route = offered.import(&Policy::accept_all(), &from).unwrap();
    let gateway = IpAddr::from([10, 0, 0, 2]);
    let hop = Hop { gateway: Some(gateway), ifindex: 1, onlink: false, weight: 1 };
    assert_eq!(route.install, Some(FibKind::Unicast(vec![hop])));
    assert_eq!((route.next_hop, route.from.as_ref()), (None, Some(&from)));
    let attrs = route.attrs.clone().unwrap();
    assert_eq!(AttrView::new(&attrs).as_path().first(), Some(Asn(65001)));
    assert_eq!(offered.import(&Policy::reject_all(), &from), None);

    // Changed hops are offered, and a withdrawal; each destination once.
    red.handle_next_hop(gateway, NextHopState::connected(gateway, 8));
    let changed = offers(&mut red);
    let [(_, Some(changed))] = &changed[..] else { panic!("{changed:?}") };
    assert_ne!(changed.install, offered.install);
    red.down_now(2, None);
    assert_eq!(offers(&mut red), [(net(), None)]);
    assert_eq!(red.totals().destinations[Family::Ipv4], 0, "the destination is freed then");
}

/// A BGP route with these attributes that another table is offered.
fn offered(attrs: AttrEdit) -> Offered {
    Offered {
        prefix: net(),
        attrs: attrs.into_bytes().into(),
        source: Source::Bgp,
        peer_type: None,
        next_hop: None,
        interface: None,
        metric: None,
        install: None,
    }
}

#[test]
fn attributes_of_reflection_stay_behind() {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.set_originator_id(RouterId(9));
    edit.prepend_cluster(ClusterId(7));
    let offered = offered(edit);
    let route = offered.import(&Policy::accept_all(), &"red".into()).unwrap();
    let attrs = route.attrs.unwrap();
    assert!(AttrView::new(&attrs).originator_id().is_none());
    assert_eq!(attrs[..], *AttrEdit::originate(Origin::Igp).view().as_bytes());
}

#[test]
fn what_was_imported_is_not_offered_on_and_loses_to_own_routes() {
    let mut red = red();
    red.begin_offers();
    let (_, offered) = offers(&mut red).remove(0);
    let imported = offered.unwrap().import(&Policy::accept_all(), &"red".into());
    let mut blue = table();
    blue.begin_offers();
    blue.handle_local(Time::ZERO, net(), Source::Vrf, imported);
    assert_eq!(offers(&mut blue), [(net(), None)]);
    let installed = blue.poll_fib(10);
    assert!(matches!(installed[..], [(_, FibChange::Install(_))]), "{installed:?}");
    let _reader = up(&mut blue, 3, 65001, importing(3, Policy::accept_all()));
    announce(&mut blue, 3, 65001, &[NET]);
    let own = offers(&mut blue);
    assert!(matches!(&own[..], [(_, Some(own))] if own.source == Source::Bgp), "{own:?}");
    let shown = blue.explain(net(), Time::ZERO).unwrap().destination.paths;
    assert_eq!(shown[1].own.as_ref().unwrap().from.as_deref(), Some("red"));
    assert_eq!(shown[1].reason, Reason::Preference);
}

#[test]
fn a_destination_is_kept_until_its_withdrawal_was_taken() {
    let mut table = table();
    table.begin_offers();
    let route = LocalRoute { install: Some(FibKind::Blackhole), ..LocalRoute::default() };
    table.handle_local(Time::ZERO, net(), Source::Static, Some(route));
    settle(&mut table);
    table.handle_local(Time::ZERO, net(), Source::Static, None);
    settle(&mut table);
    assert_eq!(table.take_offers(10), [(net(), None)]);
    settle(&mut table);
    table.offer_again(net());
    assert!(!table.has_offers(), "the destination is freed");
}

#[test]
fn vrfs_that_import_in_a_ring_keep_their_own_kernel_routes() {
    let mut ring: Vec<Table> = (0..3).map(|_| table()).collect();
    let gateway = IpAddr::from([10, 0, 0, 9]);
    let hop = Hop { gateway: Some(gateway), ifindex: 1, onlink: false, weight: 1 };
    for vrf in &mut ring {
        vrf.begin_offers();
        let route = LocalRoute { hops: vec![hop], ..LocalRoute::default() };
        vrf.handle_local(Time::ZERO, net(), Source::Kernel, Some(route));
    }
    for round in 0..6 {
        let offered: Vec<_> = ring.iter_mut().map(offers).collect();
        assert!(offered.iter().flatten().all(|(_, route)| route.is_some()), "{offered:?}");
        assert_eq!(round > 1, offered.iter().all(Vec::is_empty), "round {round}: {offered:?}");
        for (at, (prefix, route)) in offered
            .into_iter()
            .enumerate()
            .flat_map(|(at, all)| all.into_iter().map(move |o| (at, o)))
        {
            let route = route.unwrap().import(&Policy::accept_all(), &"before".into());
            ring[(at + 1) % 3].handle_local(Time::ZERO, prefix, Source::Vrf, route);
        }
    }
    for vrf in &ring {
        let paths = vrf.explain(net(), Time::ZERO).unwrap().destination.paths;
        assert_eq!((paths[0].source, paths[1].source), (Source::Kernel, Source::Vrf));
    }
}

#[test]
fn a_route_that_the_kernel_does_not_get_is_not_offered() {
    let mut red = red();
    red.begin_offers();
    assert!(matches!(offers(&mut red)[..], [(_, Some(_))]));
    let fib_policy = Some(Arc::new(Policy::reject_all()));
    let before = Arc::clone(&red.config);
    red.configure(Arc::new(TableConfig { fib_policy, ..TableConfig::clone(&before) }));
    assert_eq!(offers(&mut red), [(net(), None)]);
    red.configure(before);
    assert!(matches!(offers(&mut red)[..], [(_, Some(_))]));
    // Without kernel routes margay announces only; others forward.
    let config = TableConfig { fib_enabled: false, ..TableConfig::clone(&red.config) };
    red.configure(Arc::new(config));
    assert!(matches!(offers(&mut red)[..], [(_, Some(_))]));
}

#[test]
fn a_route_is_offered_once_it_was_compared_with_the_kernel() {
    let mut red = red();
    red.begin_offers();
    let dest = red.loc_rib.dests(Family::Ipv4).find(net()).unwrap();
    red.kernel.mark(Family::Ipv4, dest);
    assert_eq!(red.take_offers(10), []);
    assert!(!red.has_offers(), "nobody is woken before");
    assert!(matches!(offers(&mut red)[..], [(_, Some(_))]));
}

#[test]
fn local_routes_count_as_memory() {
    let mut table = table();
    let before = table.memory().total();
    let prefix = |n: u32| format!("10.0.{}.{}/32", n >> 8, n & 255).parse().unwrap();
    for n in 0..1000 {
        table.handle_local(Time::ZERO, prefix(n), Source::Vrf, Some(LocalRoute::default()));
    }
    settle(&mut table);
    let each = (table.memory().total() - before) / 1000;
    assert!(each > std::mem::size_of::<LocalRoute>() as u64, "{each}");
}

#[test]
fn a_stale_route_stays_stale_in_the_importing_table() {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.add_community(Community::LLGR_STALE);
    let offered = offered(edit);
    let clears = changing(vec![Change::ClearCommunities]);
    let attrs = offered.import(&clears, &"red".into()).unwrap().attrs.unwrap();
    assert!(AttrView::new(&attrs).communities().any(|known| known == Community::LLGR_STALE));
}
