//! Which paths share a route in the kernel.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::reflection::{receive, withdraw};
use super::*;
use crate::rib::MultipathAsPath;
use crate::types::{BandwidthScope, ExtCommunity};
use crate::wire::AttrView;

/// The next hops of the route, by the last octet of their addresses.
fn shared(table: &mut Table) -> Vec<u8> {
    settle(table);
    let mut routes = table.poll_fib(10).into_iter().filter_map(|(_, change)| change.route());
    let Some(route) = routes.next_back() else { return Vec::new() };
    let last = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let mut ids: Vec<u8> = route.next_hops.iter().map(|next_hop| last(next_hop.addr)).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn as_paths_decide_what_is_shared_as_configured() {
    let mut table = table();
    let paths: [(u32, &[u32]); 5] = [
        (2, &[65001, 65009]),
        (3, &[65001, 65009]),
        (4, &[65001, 65008]),
        (5, &[65002, 65009]),
        (6, &[65001, 65007, 65009]),
    ];
    let _readers: Vec<Reader> =
        paths.iter().map(|(id, path)| up(&mut table, *id, path[0], routes(*id))).collect();
    for (id, path) in paths {
        let mut edit = AttrEdit::originate(Origin::Igp);
        for asn in path.iter().rev() {
            edit.prepend_as(Asn(*asn), 1);
        }
        announce_with(&mut table, id, &["10.65.1.0/26"], &edit);
    }
    assert_eq!(shared(&mut table), [2, 3, 4, 5], "the default: their length");
    for (as_path, expected) in [
        (MultipathAsPath::SameNeighborAs, &[2, 3, 4][..]),
        (MultipathAsPath::Identical, &[2, 3]),
        (MultipathAsPath::EqualLength, &[2, 3, 4, 5]),
    ] {
        let config =
            TableConfig { multipath_as_path: as_path, ..TableConfig::clone(&table.config) };
        table.configure(Arc::new(config));
        assert_eq!(shared(&mut table), expected, "{as_path:?}");
        let views = table.explain("10.65.1.0/26".parse().unwrap(), Time::ZERO).unwrap();
        let views = views.destination.paths.iter().filter(|path| path.best || path.multipath);
        assert_eq!(views.count(), expected.len(), "{as_path:?}: as shown");
    }
    let config = TableConfig { multipath_max: 1, ..TableConfig::clone(&table.config) };
    table.configure(Arc::new(config));
    assert_eq!(shared(&mut table), [2], "at most one");
}

const SUMMED: &str = "10.65.1.0/26";

/// What a neighbour announces: bandwidth, AS_PATH length, last octet of the next hop.
type Offer = (Option<u64>, usize, u8);

#[derive(Clone, Debug)]
enum Step {
    Announce(u32, Offer),
    Withdraw(u32),
    Reach(u8, bool),
    Share(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    // Mostly with a bandwidth and over the shorter path, so that several share.
    let bandwidth = prop_oneof![1 => Just(None), 8 => (1u64..9).prop_map(|n| Some(n * 1000))];
    let length = prop_oneof![6 => Just(1usize), 1 => Just(2)];
    let offer = (bandwidth, length, 2u8..7);
    prop_oneof![
        8 => (2u32..7, offer).prop_map(|(peer, offer)| Step::Announce(peer, offer)),
        3 => (2u32..7).prop_map(Step::Withdraw),
        2 => (2u8..7, any::<bool>()).prop_map(|(hop, is_up)| Step::Reach(hop, is_up)),
        1 => prop_oneof![Just(1usize), Just(2), Just(16)].prop_map(Step::Share),
    ]
}

/// The same, computed from all offers: paths of equal length through reachable next hops share, the
/// lowest identifiers first. The inner value is what the route carries.
fn expected(offers: &BTreeMap<u32, Offer>, is_down: &[bool; 8], max: usize) -> Option<Option<u64>> {
    let usable = || offers.values().filter(|offer| !is_down[usize::from(offer.2)]);
    let shortest = usable().map(|offer| offer.1).min()?;
    let sharing: Vec<&Offer> = usable().filter(|offer| offer.1 == shortest).take(max).collect();
    let mut by_hop = BTreeMap::new();
    for (bandwidth, _, hop) in sharing {
        by_hop.entry(hop).or_insert(*bandwidth);
    }
    Some(by_hop.into_values().try_fold(0, |sum, bandwidth| Some(sum + bandwidth?)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The sum of the bandwidths that is sent follows every path that shares, the best one or another.
    #[test]
    fn the_sum_of_bandwidths_is_that_of_the_paths_that_share(
        steps in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut table = table();
        let sum = Change::SumLinkBandwidth(ASN, BandwidthScope::Transitive);
        let _feeders: Vec<Reader> =
            (2..7).map(|id| up(&mut table, id, 65000 + id, routes(id))).collect();
        let mut reader = up(&mut table, 9, 65009, exporting(9, changing(vec![sum])));
        settle(&mut table);
        let (mut offers, mut is_down, mut max) = (BTreeMap::new(), [false; 8], 16);
        let mut held: Option<Option<u64>> = None;
        table.configure(Arc::new(TableConfig { multipath_max: max, ..TableConfig::clone(&table.config) }));
        for step in steps {
            match step {
                Step::Announce(peer, offer) => {
                    offers.insert(peer, offer);
                    let mut edit = AttrEdit::originate(Origin::Igp);
                    edit.prepend_as(Asn(65000 + peer), offer.1);
                    if let Some(bandwidth) = offer.0 {
                        let scope = BandwidthScope::Transitive;
                        edit.set_ext_communities(&[ExtCommunity::of_link_bandwidth(Asn(1), bandwidth, scope)]);
                    }
                    let mut bytes = Vec::new();
                    Nlri::push(&mut bytes, None, SUMMED.parse().unwrap());
                    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
                    let hop = IpAddr::from([192, 0, 2, offer.2]).into();
                    let mut batch = RouteBatch::default();
                    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
                    table.apply_now(peer, batch);
                }
                Step::Withdraw(peer) => {
                    offers.remove(&peer);
                    withdraw(&mut table, peer, SUMMED);
                }
                Step::Reach(hop, up) => {
                    // Of an address that no path uses, nothing is known.
                    if offers.values().any(|offer| offer.2 == hop) {
                        is_down[usize::from(hop)] = !up;
                        let addr = IpAddr::from([192, 0, 2, hop]);
                        let state = if up { NextHopState::connected(addr, 1) } else { NextHopState::Unreachable };
                        table.handle_next_hop(addr, state);
                    }
                }
                Step::Share(share) => {
                    max = share;
                    let config = TableConfig { multipath_max: max, ..TableConfig::clone(&table.config) };
                    table.configure(Arc::new(config));
                }
            }
            settle(&mut table);
            // `settle` resolves every address that is tracked anew.
            for hop in 2..7u8 {
                if !offers.values().any(|offer| offer.2 == hop) {
                    is_down[usize::from(hop)] = false;
                }
            }
            let received = receive(&mut reader, FamilySet::EMPTY);
            if let Some((_, _, attrs)) = received.announced.last() {
                let mut communities = AttrView::new(attrs).ext_communities();
                held = Some(communities.find_map(ExtCommunity::link_bandwidth));
            } else if received.has_withdrawn() {
                held = None;
            }
            prop_assert_eq!(held, expected(&offers, &is_down, max));
        }
    }
}
