use proptest::prelude::*;

use super::matcher::glob_matches;
use super::*;
use crate::types::{BandwidthScope, Prefix4, Prefix6, on_interface};
use crate::wire::{AttrEdit, Origin, attr};

/// A route that owns its attributes.
#[derive(Clone, Debug)]
struct Route {
    prefix: Prefix,
    attrs: AttrEdit,
    next_hop: Option<NextHop>,
    source: Source,
    interface: Option<&'static str>,
    metric: Option<u32>,
    peer_type: Option<PeerType>,
}

impl Route {
    fn new(prefix: &str) -> Self {
        Route {
            prefix: prefix.parse().unwrap(),
            attrs: AttrEdit::originate(Origin::Igp),
            next_hop: None,
            source: Source::Bgp,
            interface: None,
            metric: None,
            peer_type: None,
        }
    }

    fn borrow(&self) -> RouteRef<'_> {
        RouteRef {
            prefix: self.prefix,
            attrs: self.attrs.view(),
            next_hop: self.next_hop,
            source: self.source,
            interface: self.interface,
            metric: self.metric,
            peer_type: self.peer_type,
            shared_bandwidth: None,
        }
    }

    fn meets(&self, condition: Match) -> bool {
        condition.holds(&self.borrow())
    }
}

fn rule(matches: Vec<Match>, changes: Vec<Change>, decision: Decision) -> Rule {
    Rule { name: String::new(), matches, changes, decision }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy { name: "test".into(), rules, default: Decision::Reject }
}

fn changed(route: &Route, changes: Vec<Change>) -> Verdict {
    policy(vec![rule(Vec::new(), changes, Decision::Accept)]).evaluate(&route.borrow())
}

/// AS_PATH octets: (segment type, numbers).
fn with_path(mut route: Route, segments: &[(u8, &[u32])]) -> Route {
    let mut value = Vec::new();
    for (kind, numbers) in segments {
        value.extend([*kind, numbers.len() as u8]);
        value.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    }
    route.attrs.set(0x40, attr::AS_PATH, &value);
    route
}

#[test]
fn the_first_decision_wins_and_the_default_has_no_rule() {
    let inside = |p: &str| Match::Prefix(vec![PrefixMatch::or_longer(p.parse().unwrap())].into());
    let policy = Policy {
        name: "pods".into(),
        rules: vec![
            Rule {
                name: "own blocks".into(),
                ..rule(vec![inside("10.65.0.0/16")], Vec::new(), Decision::Accept)
            },
            rule(vec![inside("10.0.0.0/8")], Vec::new(), Decision::Reject),
            rule(vec![inside("10.65.0.0/16")], Vec::new(), Decision::Reject),
        ],
        default: Decision::Accept,
    };
    let says = |p: &str| {
        let verdict = policy.evaluate(&Route::new(p).borrow());
        (verdict.decision, verdict.rule)
    };
    assert_eq!(says("10.65.1.0/26"), (Decision::Accept, Some(0)));
    assert_eq!(says("10.66.1.0/26"), (Decision::Reject, Some(1)));
    assert_eq!(says("192.0.2.0/24"), (Decision::Accept, None));
    assert_eq!(policy.describe(Some(0)), "policy \"pods\" rule 1 \"own blocks\"");
    assert_eq!(policy.describe(Some(1)), "policy \"pods\" rule 2");
    assert_eq!(policy.describe(None), "policy \"pods\" default");
}

#[test]
fn a_default_of_next_rejects() {
    let policy = Policy { name: "x".into(), rules: Vec::new(), default: Decision::Next };
    assert_eq!(policy.evaluate(&Route::new("::/0").borrow()).decision, Decision::Reject);
}

#[test]
fn later_rules_see_what_earlier_ones_changed() {
    let seen = Match::LocalPref(200..=200);
    let policy = policy(vec![
        rule(
            vec![Match::Not(Box::new(seen.clone()))],
            vec![Change::LocalPref(200)],
            Decision::Next,
        ),
        rule(
            vec![],
            vec![Change::Metric(7), Change::NextHop([192, 0, 2, 1].into())],
            Decision::Next,
        ),
        rule(
            vec![
                seen,
                Match::Metric(7..=7),
                Match::NextHop(PrefixSet::covering(["192.0.2.1".parse().unwrap()])),
            ],
            vec![Change::Med(5)],
            Decision::Accept,
        ),
    ]);
    let route = Route::new("10.0.0.0/8");
    let verdict = policy.evaluate(&route.borrow());
    assert_eq!(verdict.rule, Some(2));
    let attrs = verdict.attrs.unwrap();
    assert_eq!((attrs.view().local_pref(), attrs.view().med()), (Some(200), Some(5)));
    assert_eq!(verdict.metric, Some(7));
    assert_eq!(verdict.next_hop.unwrap().addr().to_string(), "192.0.2.1");
}

#[test]
fn a_rejected_route_carries_no_changes() {
    let policy = policy(vec![rule(
        vec![],
        vec![Change::LocalPref(1), Change::Metric(1), Change::Preference(1)],
        Decision::Next,
    )]);
    let verdict = policy.evaluate(&Route::new("10.0.0.0/8").borrow());
    assert_eq!(verdict, Verdict::reject(None));
}

#[test]
fn changes_that_change_nothing_leave_the_attributes_alone() {
    let mut route = Route::new("10.0.0.0/8");
    route.attrs.set_local_pref(100);
    route.attrs.set_communities(&[Community(1), Community::NO_EXPORT]);
    let verdict = changed(
        &route,
        vec![
            Change::LocalPref(100),
            Change::ClearMed,
            Change::AddCommunity(Community(1)),
            Change::RemoveCommunity(Community(2)),
            Change::RemoveLargeCommunity("1:2:3".parse().unwrap()),
            Change::RemoveExtCommunity("rt:1:2".parse().unwrap()),
            Change::Prepend(Asn(1), 0),
        ],
    );
    assert_eq!(verdict.decision, Decision::Accept);
    assert_eq!(verdict.attrs, None);
}

#[test]
fn communities_of_all_kinds_are_added_removed_and_cleared() {
    let mut route = Route::new("10.0.0.0/8");
    route.attrs.set_communities(&[Community(9), Community::NO_EXPORT]);
    let large = "64512:1:2".parse().unwrap();
    let ext = "rt:64512:1".parse().unwrap();
    let verdict = changed(
        &route,
        vec![
            Change::AddCommunity(Community(3)),
            Change::RemoveCommunity(Community(9)),
            Change::AddLargeCommunity(large),
            Change::AddExtCommunity(ext),
        ],
    );
    route.attrs = verdict.attrs.unwrap();
    let view = route.attrs.view();
    let standard: Vec<_> = view.communities().collect();
    assert_eq!(standard, [Community(3), Community::NO_EXPORT], "sorted");
    assert_eq!(view.large_communities().collect::<Vec<_>>(), [large]);
    assert_eq!(view.ext_communities().collect::<Vec<_>>(), [ext]);

    let cleared = changed(&route, vec![Change::ClearCommunities]).attrs.unwrap();
    let left: Vec<_> = cleared.view().communities().collect();
    assert_eq!(left, [Community::NO_EXPORT], "RFC 8642 §5: well-known ones stay");
    assert!(cleared.view().get(attr::LARGE_COMMUNITIES).is_none());
    assert!(cleared.view().get(attr::EXTENDED_COMMUNITIES).is_none());

    let none =
        changed(&route, vec![Change::RemoveLargeCommunity(large), Change::RemoveExtCommunity(ext)]);
    let none = none.attrs.unwrap();
    assert!(none.view().get(attr::LARGE_COMMUNITIES).is_none(), "an empty attribute is left out");
    assert!(none.view().get(attr::EXTENDED_COMMUNITIES).is_none());
}

#[test]
fn link_bandwidths_are_replaced_scaled_and_removed() {
    let of = |octets, scope| ExtCommunity::of_link_bandwidth(Asn(64512), octets, scope);
    let (inside, beyond) = (BandwidthScope::NonTransitive, BandwidthScope::Transitive);
    let other: ExtCommunity = "rt:64512:1".parse().unwrap();
    let mut route = Route::new("10.0.0.0/8");
    let add = [other, of(1000, inside), of(500, beyond)].map(Change::AddExtCommunity);
    route.attrs = changed(&route, add.to_vec()).attrs.unwrap();
    let left = |changes: Vec<Change>| -> Option<Vec<ExtCommunity>> {
        let attrs = changed(&route, changes).attrs?;
        Some(attrs.view().ext_communities().collect())
    };
    let set = Change::SetLinkBandwidth(of(7, beyond));
    assert_eq!(left(vec![set]), Some(vec![other, of(7, beyond)]), "of either type");
    assert_eq!(left(vec![Change::ClearLinkBandwidth]), Some(vec![other]));
    let halved = Some(vec![other, of(250, beyond), of(500, inside)]);
    assert_eq!(left(vec![Change::ScaleLinkBandwidth(50)]), halved, "each keeps its type");
    assert_eq!(left(vec![Change::ScaleLinkBandwidth(100)]), None, "nothing changes");
    let least = of(1, beyond).scaled_link_bandwidth(1);
    assert_eq!(least.link_bandwidth(), Some(1), "never none");
    assert_eq!(other.scaled_link_bandwidth(50), other);
}

#[test]
fn prepending_puts_the_number_first_as_often_as_asked() {
    let route = with_path(Route::new("10.0.0.0/8"), &[(2, &[65001])]);
    let attrs = changed(&route, vec![Change::Prepend(Asn(64512), 3)]).attrs.unwrap();
    let path: Vec<u32> = attrs.view().as_path().asns().map(|a| a.0).collect();
    assert_eq!(path, [64512, 64512, 64512, 65001]);
}

#[test]
fn an_ipv4_next_hop_is_not_set_on_an_ipv6_route() {
    let change = || vec![Change::NextHop([192, 0, 2, 1].into())];
    assert_eq!(changed(&Route::new("2001:db8::/32"), change()).next_hop, None);
    assert!(changed(&Route::new("10.0.0.0/8"), change()).next_hop.is_some());
    let six = Change::NextHop("2001:db8::1".parse().unwrap());
    assert!(changed(&Route::new("10.0.0.0/8"), vec![six]).next_hop.is_some(), "RFC 8950");
}

#[test]
fn local_pref_and_metric_mirror_each_other_and_wrap() {
    let mut route = Route::new("10.0.0.0/8");
    let both = || vec![Change::LocalPrefFromMetric, Change::MetricFromLocalPref];
    let verdict = changed(&route, both());
    assert_eq!((verdict.attrs, verdict.metric), (None, None), "nothing to start from");
    for (metric, local_pref) in
        [(0, 0x7FFF_FFFF), (1024, 2_147_482_623), (0x8000_0000, u32::MAX), (u32::MAX, 0x8000_0000)]
    {
        route.metric = Some(metric);
        let verdict = changed(&route, both());
        assert_eq!(verdict.attrs.unwrap().view().local_pref(), Some(local_pref));
        assert_eq!(verdict.metric, Some(metric));
    }
    route.metric = None;
    route.attrs.set_local_pref(100);
    assert_eq!(changed(&route, both()).metric, Some(2_147_483_547));
}

#[test]
fn path_conditions() {
    let plain = with_path(Route::new("10.0.0.0/8"), &[(2, &[1, 2, 3])]);
    let starts =
        |r: &Route, p: &[u32]| r.meets(Match::AsPathPrefix(p.iter().map(|n| Asn(*n)).collect()));
    for yes in [&[][..], &[1], &[1, 2], &[1, 2, 3]] {
        assert!(starts(&plain, yes), "{yes:?}");
    }
    for no in [&[2][..], &[1, 3], &[1, 2, 3, 4]] {
        assert!(!starts(&plain, no), "{no:?}");
    }
    let set = with_path(Route::new("10.0.0.0/8"), &[(2, &[1]), (1, &[5, 6]), (2, &[7])]);
    assert!(starts(&set, &[1, 6, 7]) && starts(&set, &[1, 5]));
    assert!(!starts(&set, &[1, 5, 6]), "a set counts as one element");
    assert!(set.meets(Match::AsPathContains(vec![Asn(9), Asn(6)])));
    assert!(!set.meets(Match::AsPathContains(vec![Asn(9)])));
    assert!(set.meets(Match::AsPathLength(3..=3)));
    assert!(!plain.meets(Match::AsPathLength(4..=9)));
}

#[test]
fn conditions_on_what_is_absent_do_not_hold() {
    let route = Route::new("10.0.0.0/8");
    assert!(!route.meets(Match::Interface(vec!["*".into()])));
    assert!(!route.meets(Match::Metric(0..=u32::MAX)));
    assert!(!route.meets(Match::HasLocalPref));
    assert!(!route.meets(Match::NextHop(PrefixSet::covering(["0.0.0.0/0".parse().unwrap()]))));
    assert!(!route.meets(Match::PeerType(PeerType::Internal)));
    assert!(!route.meets(Match::PeerType(PeerType::External)));
    assert!(!route.meets(Match::Community(vec![Community(0)])));
    assert!(!route.meets(Match::Any(Vec::new())));
    assert!(route.meets(Match::LocalPref(100..=100)), "LOCAL_PREF defaults to 100");
}

#[test]
fn next_hops_source_peer_type_and_interfaces() {
    let mut route = Route::new("10.0.0.0/8");
    route.next_hop = Some(NextHop::V4([192, 0, 2, 7].into()));
    route.peer_type = Some(PeerType::External);
    route.interface = Some("cali123");
    assert!(route.meets(Match::NextHop(PrefixSet::covering(["192.0.2.0/24".parse().unwrap()]))));
    assert!(!route.meets(Match::NextHop(PrefixSet::covering(["::/0".parse().unwrap()]))));
    assert!(route.meets(Match::Source(vec![Source::Static, Source::Bgp])));
    assert!(!route.meets(Match::Source(vec![Source::Kernel])));
    assert!(route.meets(Match::PeerType(PeerType::External)));
    assert!(!route.meets(Match::PeerType(PeerType::Internal)));
    assert!(route.meets(Match::Interface(vec!["eth*".into(), "cali*".into()])));
    assert!(!route.meets(Match::Interface(vec!["eth*".into()])));
    // The interface inside a link-local address is not part of it.
    let on_link = on_interface("fe80::1".parse().unwrap(), 7);
    route.next_hop = Some(on_link.into());
    assert!(route.meets(Match::NextHop(PrefixSet::covering(["fe80::1/128".parse().unwrap()]))));
}

#[test]
fn globs_have_two_wildcards_and_nothing_else() {
    for (glob, name) in [
        ("cali*", "cali"),
        ("cali*", "cali0"),
        ("*", ""),
        ("?th0", "eth0"),
        ("*.calico", "vxlan.calico"),
        ("a*b*c", "a1b2b3c"),
        ("*_9_*1", "a_9_b_9_c1"),
        ("", ""),
        ("[a]", "[a]"),
    ] {
        assert!(glob_matches(glob, name), "{glob} {name}");
    }
    for (glob, name) in [
        ("cali*", "cal"),
        ("eth?", "eth"),
        ("", "x"),
        ("a*b", "a1b2"),
        ("Mesh*", "AMesh"),
        ("a?c", "ac"),
        ("[a]", "a"),
        ("ETH0", "eth0"),
    ] {
        assert!(!glob_matches(glob, name), "{glob} {name}");
    }
}

#[test]
fn a_glob_of_stars_does_not_take_exponential_time() {
    assert!(!glob_matches(&"*a*".repeat(500), &"b".repeat(2000)));
    assert!(!glob_matches(&format!("{}b", "a*".repeat(500)), &"a".repeat(2000)));
}

/// The textbook definition, exponential in the number of stars.
fn naive_glob(glob: &[u8], name: &[u8]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|n| naive_glob(rest, &name[n..])),
        Some((g, rest)) => name
            .split_first()
            .is_some_and(|(n, tail)| (*g == b'?' || g == n) && naive_glob(rest, tail)),
    }
}

#[test]
fn independence_is_lost_by_looking_at_the_prefix_interface_metric_or_family() {
    let prefix = || Match::Prefix(vec![PrefixMatch::exact("10.0.0.0/8".parse().unwrap())].into());
    let with = |m: Match| {
        policy(vec![rule(vec![], vec![], Decision::Next), rule(vec![m], vec![], Decision::Accept)])
    };
    for m in [
        prefix(),
        Match::Interface(vec!["*".into()]),
        Match::Metric(0..=1),
        Match::Not(Box::new(prefix())),
        Match::Any(vec![Match::Source(vec![]), Match::Not(Box::new(Match::Metric(1..=2)))]),
    ] {
        assert!(!with(m.clone()).is_prefix_independent(), "{m:?}");
    }
    for m in [
        Match::Community(vec![]),
        Match::NextHop(PrefixSet::default()),
        Match::PeerType(PeerType::Internal),
        Match::Not(Box::new(Match::LocalPref(1..=2))),
        Match::Any(vec![Match::AsPathLength(1..=2)]),
    ] {
        assert!(with(m.clone()).is_prefix_independent(), "{m:?}");
    }
    let sets = |c: Change| policy(vec![rule(vec![], vec![c], Decision::Accept)]);
    assert!(!sets(Change::NextHop([192, 0, 2, 1].into())).is_prefix_independent());
    assert!(!sets(Change::LocalPrefFromMetric).is_prefix_independent());
    assert!(sets(Change::MetricFromLocalPref).is_prefix_independent());
    assert!(sets(Change::NextHop("2001:db8::1".parse().unwrap())).is_prefix_independent());
    assert!(sets(Change::Metric(1)).is_prefix_independent());
    assert!(Policy::accept_all().is_prefix_independent());
}

// Everything below draws from small ranges, so that rules match and changes collide often.

fn community() -> impl Strategy<Value = Community> {
    prop_oneof![(0u32..4).prop_map(Community), Just(Community::NO_EXPORT)]
}

fn large() -> impl Strategy<Value = LargeCommunity> {
    (0u32..3).prop_map(|n| LargeCommunity { global: 1, local1: 0, local2: n })
}

fn ext() -> impl Strategy<Value = ExtCommunity> {
    prop_oneof![(0u8..3).prop_map(|n| ExtCommunity([0, 2, 0, 1, 0, 0, 0, n])), bandwidth(),]
}

fn bandwidth() -> impl Strategy<Value = ExtCommunity> {
    let scopes = [BandwidthScope::Transitive, BandwidthScope::NonTransitive];
    (0u64..3, prop::sample::select(scopes.to_vec()))
        .prop_map(|(octets, scope)| ExtCommunity::of_link_bandwidth(Asn(1), octets, scope))
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0u8..4, 0u8..4).prop_map(|(six, high, len)| {
        if six {
            Prefix::V6(Prefix6::from_bits(u128::from(high) << 126, len))
        } else {
            Prefix::V4(Prefix4::from_bits(u32::from(high) << 30, len))
        }
    })
}

fn next_hop() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0u8..3).prop_map(|(six, low)| {
        if six {
            IpAddr::V6(std::net::Ipv6Addr::from(u128::from(low) << 120))
        } else {
            IpAddr::V4([low, 0, 0, 1].into())
        }
    })
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![Just(Source::Bgp), Just(Source::Static), Just(Source::Kernel), Just(Source::Direct)]
}

fn peer_type() -> impl Strategy<Value = PeerType> {
    prop_oneof![Just(PeerType::Internal), Just(PeerType::External)]
}

fn condition() -> impl Strategy<Value = Match> {
    let range = || (90u32..104, 90u32..104).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let leaf = prop_oneof![
        prop::collection::vec((prefix(), 0u8..5, 0u8..5), 0..4).prop_map(|list| {
            Match::Prefix(
                list.into_iter()
                    .map(|(prefix, a, b)| PrefixMatch { prefix, lengths: a.min(b)..=a.max(b) })
                    .collect(),
            )
        }),
        prop::collection::vec(community(), 0..3).prop_map(Match::Community),
        prop::collection::vec(large(), 0..3).prop_map(Match::LargeCommunity),
        prop::collection::vec(ext(), 0..3).prop_map(Match::ExtCommunity),
        prop::collection::vec((1u32..4).prop_map(Asn), 0..3).prop_map(Match::AsPathPrefix),
        prop::collection::vec((1u32..4).prop_map(Asn), 0..3).prop_map(Match::AsPathContains),
        (0u32..3, 0u32..6).prop_map(|(a, b)| Match::AsPathLength(a..=b)),
        prop::collection::vec(prefix(), 0..3).prop_map(|l| Match::NextHop(PrefixSet::covering(l))),
        prop::collection::vec(source(), 0..3).prop_map(Match::Source),
        prop::collection::vec("[ab*?]{0,3}", 0..3).prop_map(Match::Interface),
        peer_type().prop_map(Match::PeerType),
        range().prop_map(Match::Metric),
        range().prop_map(Match::LocalPref),
        Just(Match::HasLocalPref),
    ];
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|m| Match::Not(Box::new(m))),
            prop::collection::vec(inner, 0..3).prop_map(Match::Any),
        ]
    })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (95u32..101).prop_map(Change::LocalPref),
        (0u32..3).prop_map(Change::Med),
        Just(Change::ClearMed),
        next_hop().prop_map(Change::NextHop),
        (1u32..4, 0u8..3).prop_map(|(a, n)| Change::Prepend(Asn(a), n)),
        community().prop_map(Change::AddCommunity),
        large().prop_map(Change::AddLargeCommunity),
        ext().prop_map(Change::AddExtCommunity),
        community().prop_map(Change::RemoveCommunity),
        large().prop_map(Change::RemoveLargeCommunity),
        ext().prop_map(Change::RemoveExtCommunity),
        bandwidth().prop_map(Change::SetLinkBandwidth),
        Just(Change::ClearLinkBandwidth),
        (1u16..300).prop_map(Change::ScaleLinkBandwidth),
        Just(Change::ClearCommunities),
        (95u32..101).prop_map(Change::Metric),
        (0u16..3).prop_map(Change::Preference),
        (1u32..4).prop_map(|a| Change::PrependOutermost(Asn(a))),
        Just(Change::LocalPrefFromMetric),
        Just(Change::MetricFromLocalPref),
        prop_oneof![Just("tunl0"), Just("ipip1")].prop_map(|t| Change::Tunnel(t.into())),
        next_hop().prop_map(Change::Source),
    ]
}

/// 2^31 - 1 - `value`, modulo 2^32.
fn mirrored(value: u32) -> u32 {
    let mirrored = (i64::from(i32::MAX) - i64::from(value)).rem_euclid(1 << 32);
    u32::try_from(mirrored).unwrap()
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let decision =
        || prop_oneof![Just(Decision::Accept), Just(Decision::Reject), Just(Decision::Next)];
    let rules = prop::collection::vec(
        (
            prop::collection::vec(condition(), 0..3),
            prop::collection::vec(change(), 0..4),
            decision(),
        )
            .prop_map(|(matches, changes, decision)| rule(matches, changes, decision)),
        0..5,
    );
    (rules, decision()).prop_map(|(rules, default)| Policy { name: "any".into(), rules, default })
}

/// The route as plain values: what attributes mean, without their octets.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    prefix: Prefix,
    source: Source,
    interface: Option<&'static str>,
    peer_type: Option<PeerType>,
    next_hop: Option<IpAddr>,
    metric: Option<u32>,
    preference: Option<u16>,
    tunnel: Option<Arc<str>>,
    own_source: Option<IpAddr>,
    outermost: Vec<u32>,
    local_pref: Option<u32>,
    med: Option<u32>,
    path: Vec<u32>,
    communities: Vec<Community>,
    large: Vec<LargeCommunity>,
    ext: Vec<ExtCommunity>,
}

impl Model {
    fn route(&self) -> Route {
        let base = Route {
            prefix: self.prefix,
            attrs: AttrEdit::originate(Origin::Igp),
            next_hop: self.next_hop.map(NextHop::from),
            source: self.source,
            interface: self.interface,
            metric: self.metric,
            peer_type: self.peer_type,
        };
        let mut route =
            if self.path.is_empty() { base } else { with_path(base, &[(2, &self.path)]) };
        self.local_pref.into_iter().for_each(|v| route.attrs.set_local_pref(v));
        self.med.into_iter().for_each(|v| route.attrs.set_med(v));
        route.attrs.set_communities(&self.communities);
        route.attrs.set_large_communities(&self.large);
        route.attrs.set_ext_communities(&self.ext);
        route
    }

    fn read(&self, verdict: &Verdict) -> Model {
        let route = self.route();
        let view = verdict.attrs.as_ref().map_or(route.attrs.view(), AttrEdit::view);
        Model {
            next_hop: verdict.next_hop.map(NextHop::addr).or(self.next_hop),
            metric: verdict.metric.or(self.metric),
            preference: verdict.preference.or(self.preference),
            tunnel: verdict.tunnel.clone().or_else(|| self.tunnel.clone()),
            own_source: verdict.source.or(self.own_source),
            outermost: verdict.outermost.iter().map(|a| a.0).collect(),
            local_pref: view.local_pref(),
            med: view.med(),
            path: view.as_path().asns().map(|a| a.0).collect(),
            communities: view.communities().collect(),
            large: view.large_communities().collect(),
            ext: view.ext_communities().collect(),
            ..self.clone()
        }
    }

    fn meets(&self, m: &Match) -> bool {
        match m {
            Match::Prefix(set) => set.ranges().iter().any(|r| r.matches(self.prefix)),
            Match::Community(l) => l.iter().any(|c| self.communities.contains(c)),
            Match::LargeCommunity(l) => l.iter().any(|c| self.large.contains(c)),
            Match::ExtCommunity(l) => l.iter().any(|c| self.ext.contains(c)),
            Match::AsPathPrefix(l) => {
                self.path.starts_with(&l.iter().map(|a| a.0).collect::<Vec<_>>())
            }
            Match::AsPathContains(l) => l.iter().any(|a| self.path.contains(&a.0)),
            Match::AsPathLength(r) => r.contains(&(self.path.len() as u32)),
            Match::NextHop(l) => {
                self.next_hop.is_some_and(|n| l.ranges().iter().any(|r| r.matches(Prefix::host(n))))
            }
            Match::Source(l) => l.contains(&self.source),
            Match::Interface(l) => self
                .interface
                .is_some_and(|i| l.iter().any(|g| naive_glob(g.as_bytes(), i.as_bytes()))),
            Match::PeerType(k) => self.peer_type == Some(*k),
            Match::Metric(r) => self.metric.is_some_and(|v| r.contains(&v)),
            Match::LocalPref(r) => r.contains(&self.local_pref.unwrap_or(100)),
            Match::HasLocalPref => self.local_pref.is_some(),
            Match::Not(m) => !self.meets(m),
            Match::Any(l) => l.iter().any(|m| self.meets(m)),
        }
    }

    fn apply(&mut self, change: &Change) {
        fn insert<T: Ord + Copy>(list: &mut Vec<T>, value: T) {
            list.push(value);
            list.sort();
            list.dedup();
        }
        match *change {
            Change::LocalPref(v) => self.local_pref = Some(v),
            Change::Med(v) => self.med = Some(v),
            Change::ClearMed => self.med = None,
            Change::NextHop(a) => {
                if a.is_ipv6() || self.prefix.addr().is_ipv4() {
                    self.next_hop = Some(a);
                }
            }
            Change::Prepend(asn, n) => (0..n).for_each(|_| self.path.insert(0, asn.0)),
            Change::PrependOutermost(asn) => self.outermost.insert(0, asn.0),
            Change::AddCommunity(c) => insert(&mut self.communities, c),
            Change::AddLargeCommunity(c) => insert(&mut self.large, c),
            Change::AddExtCommunity(c) => insert(&mut self.ext, c),
            Change::RemoveCommunity(c) => self.communities.retain(|k| *k != c),
            Change::RemoveLargeCommunity(c) => self.large.retain(|k| *k != c),
            Change::RemoveExtCommunity(c) => self.ext.retain(|k| *k != c),
            Change::SetLinkBandwidth(c) => {
                self.ext.retain(|k| !k.is_link_bandwidth());
                insert(&mut self.ext, c);
            }
            Change::ClearLinkBandwidth => self.ext.retain(|k| !k.is_link_bandwidth()),
            Change::ScaleLinkBandwidth(percent) => {
                let before = std::mem::take(&mut self.ext);
                before.iter().for_each(|c| insert(&mut self.ext, c.scaled_link_bandwidth(percent)));
            }
            Change::ClearCommunities => {
                self.communities.retain(|c| c.0 >= 0xFFFF_0000);
                self.large.clear();
                self.ext.clear();
            }
            Change::Metric(v) => self.metric = Some(v),
            Change::Preference(v) => self.preference = Some(v),
            Change::LocalPrefFromMetric => {
                if let Some(m) = self.metric {
                    self.local_pref = Some(mirrored(m));
                }
            }
            Change::MetricFromLocalPref => {
                if let Some(lp) = self.local_pref {
                    self.metric = Some(mirrored(lp));
                }
            }
            Change::Tunnel(ref t) => self.tunnel = Some(Arc::clone(t)),
            Change::Source(source) => {
                if source.is_ipv4() == self.prefix.addr().is_ipv4() {
                    self.own_source = Some(source);
                }
            }
            // Without the sum there is no change.
            Change::SumLinkBandwidth(..) | Change::KeepInstalled => {}
        }
    }

    /// The rule that decides, and the resulting route; `None` if it is rejected.
    fn after(&self, policy: &Policy) -> (Option<usize>, Option<Model>) {
        let mut model = self.clone();
        for (index, rule) in policy.rules.iter().enumerate() {
            if rule.matches.iter().all(|m| model.meets(m)) {
                rule.changes.iter().for_each(|c| model.apply(c));
                match rule.decision {
                    Decision::Accept => return (Some(index), Some(model)),
                    Decision::Reject => return (Some(index), None),
                    Decision::Next => {}
                }
            }
        }
        (None, (policy.default == Decision::Accept).then_some(model))
    }
}

fn model() -> impl Strategy<Value = Model> {
    let names = prop_oneof![Just("a"), Just("ab"), Just("bba"), Just("")];
    (
        (prefix(), source(), prop::option::of(names), prop::option::of(peer_type())),
        (prop::option::of(next_hop()), prop::option::of(95u32..101)),
        (prop::option::of(95u32..101), prop::option::of(0u32..3)),
        prop::collection::vec(1u32..4, 0..4),
        prop::collection::btree_set(community(), 0..4),
        prop::collection::btree_set(large(), 0..3),
        prop::collection::btree_set(ext(), 0..3),
    )
        .prop_map(|(where_, hop, prefs, path, communities, large, ext)| Model {
            prefix: where_.0,
            source: where_.1,
            interface: where_.2,
            peer_type: where_.3,
            next_hop: hop.0,
            metric: hop.1,
            preference: None,
            tunnel: None,
            own_source: None,
            outermost: Vec::new(),
            local_pref: prefs.0,
            med: prefs.1,
            path,
            communities: communities.into_iter().collect(),
            large: large.into_iter().collect(),
            ext: ext.into_iter().collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_evaluator_agrees_with_the_model(model in model(), policy in any_policy()) {
        let route = model.route();
        let verdict = policy.evaluate(&route.borrow());
        let (rule, after) = model.after(&policy);
        prop_assert_eq!(verdict.rule, rule);
        prop_assert_eq!(verdict.decision == Decision::Accept, after.is_some());
        match after {
            Some(after) => prop_assert_eq!(model.read(&verdict), after),
            None => prop_assert_eq!(verdict, Verdict::reject(rule)),
        }
    }

    #[test]
    fn the_verdict_of_an_independent_policy_depends_on_its_key_alone(
        a in model(),
        b in model(),
        policy in any_policy().prop_filter("independent", Policy::is_prefix_independent),
    ) {
        let other = Model { prefix: b.prefix, interface: b.interface, metric: b.metric, ..a.clone() };
        let (a, other) = (a.route(), other.route());
        prop_assert_eq!(policy.evaluate(&a.borrow()), policy.evaluate(&other.borrow()));
    }

    #[test]
    fn prefixes_of_one_class_have_one_verdict(
        model in model(), prefixes in prop::collection::vec(prefix(), 2..9), policy in any_policy(),
    ) {
        let known = Prepared::new(&policy);
        let seen = prefixes.into_iter().map(|prefix| {
            let class = known.class(|| prefix).expect("few conditions");
            let verdict = policy.evaluate(&Model { prefix, ..model.clone() }.route().borrow());
            (prefix.family(), class, verdict)
        });
        let seen: Vec<_> = seen.collect();
        for (a, b) in seen.iter().zip(&seen[1..]).filter(|(a, b)| (a.0, a.1) == (b.0, b.1)) {
            prop_assert_eq!(&a.2, &b.2);
        }
    }

    #[test]
    fn unconditional_changes_are_idempotent_unless_they_read_the_route(
        model in model(), changes in prop::collection::vec(change(), 0..6),
    ) {
        let changes: Vec<_> = changes
            .into_iter()
            .filter(|c| {
                !matches!(
                    c,
                    Change::Prepend(..)
                        | Change::PrependOutermost(_)
                        | Change::LocalPrefFromMetric
                        | Change::MetricFromLocalPref
                        | Change::ScaleLinkBandwidth(_)
                )
            })
            .collect();
        let once = changed(&model.route(), changes.clone());
        let after = model.read(&once);
        let twice = changed(&after.route(), changes);
        prop_assert_eq!(after.read(&twice), after);
    }

    #[test]
    fn globs_agree_with_the_textbook(glob in "[ab*?]{0,8}", name in "[ab]{0,8}") {
        prop_assert_eq!(
            glob_matches(&glob, &name),
            naive_glob(glob.as_bytes(), name.as_bytes())
        );
    }
}
