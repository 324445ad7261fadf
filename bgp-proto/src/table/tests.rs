//! What the oracle test does not cover: limits, views, explanations, groups, routes that cannot be
//! sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::export::{Fetch, NextHopMode};
use crate::policy::{Change, Decision, Policy, Rule, Source};
use crate::session::{Keep, Negotiated};
use crate::types::{
    Asn, ClusterId, ExtCommunity, FamilySet, FibKind, FibNextHop, Hop, NextHop, PathId, PeerType,
    Role, RouterId,
};
use crate::wire::RouteBatch;
use crate::wire::{AttrEdit, Nlri, Origin};

mod bounds;
mod drain;
mod dump;
mod interfaces;
mod leaks;
mod long_lived;
mod memory;
mod monitors;
mod multipath;
mod neighbors;
mod numbers;
mod policies;
mod reflection;
mod rehearsal;
mod restarts;
mod schedule;
mod select;
mod vantage;

const ASN: Asn = Asn(65000);

/// Inputs of the host that the table processes at once.
impl Table {
    pub(super) fn take_all_inputs(&mut self) {
        self.take_inputs(Time::ZERO, &mut Meter::new(u32::MAX));
    }

    fn apply_now(&mut self, from: u32, batch: RouteBatch) {
        self.apply(PeerId(from), batch, None);
        self.take_all_inputs();
    }

    fn up_now(&mut self, id: u32, session: Negotiated) -> Vec<Reader> {
        self.peer_up(PeerId(id), SessionId(1), Arc::new(session));
        for _ in 0..1000 {
            self.take_all_inputs();
            if let Some(established) = self.poll_established() {
                return established.readers;
            }
            // The id is still in use by a peer that is being removed.
            let _ = self.turn(Time::ZERO, Work::TURN);
        }
        panic!("the table never begins to serve the session");
    }

    fn down_now(&mut self, id: u32, keep: Option<Keep>) {
        self.peer_down(PeerId(id), SessionId(1), keep);
        self.take_all_inputs();
    }

    fn finish(&mut self, now: Time) -> bool {
        self.turn(now, Work::TURN).next == NextTurn::Now
    }

    fn handle_timeout(&mut self, now: Time) {
        self.expire(now, &mut Meter::new(u32::MAX));
    }
}

fn table() -> Table {
    let config = TableConfig::new(ASN, RouterId(1));
    Table::new(Arc::new(config), 1, Waker::noop().clone())
}

fn routes(id: u32) -> PeerRoutes {
    PeerRoutes::new(format!("peer{id}"))
}

fn importing(id: u32, policy: impl Into<Arc<Policy>>) -> PeerRoutes {
    PeerRoutes { import: ImportParams::new(policy), ..routes(id) }
}

fn exporting(id: u32, policy: impl Into<Arc<Policy>>) -> PeerRoutes {
    PeerRoutes { export: ExportParams::new(policy), ..routes(id) }
}

/// Accepts every route, with these changes.
fn changing(changes: Vec<Change>) -> Policy {
    let (name, matches, decision) = (String::new(), Vec::new(), Decision::Accept);
    let rule = Rule { name, matches, changes, decision };
    Policy { name: "p".into(), rules: vec![rule], default: Decision::Reject }
}

const CLIENT: ReflectionParams = ReflectionParams { client: true, cluster_id: None };

fn prefixes_max(max: u32) -> PeerLimits {
    PeerLimits { prefixes_max: Some(max), ..PeerLimits::default() }
}

fn next_hop(next_hop: NextHopMode) -> ExportParams {
    ExportParams { next_hop, ..ExportParams::default() }
}

fn route_limits(limits: RouteLimits) -> ImportParams {
    ImportParams { limits, ..ImportParams::default() }
}

fn session(id: u32, asn: u32) -> Negotiated {
    let speaker = |asn, at| (asn, IpAddr::from([10, 0, 0, at]));
    let plain = Negotiated::plain(speaker(ASN, 1), speaker(Asn(asn), id as u8));
    Negotiated { peer_router_id: RouterId(id), ..plain }
}

fn up(table: &mut Table, id: u32, asn: u32, routes: PeerRoutes) -> Reader {
    table.peer_add(PeerId(id), IpAddr::from([10, 0, 0, id as u8]), Arc::new(routes));
    table.up_now(id, session(id, asn)).remove(0)
}

fn announce_with(table: &mut Table, from: u32, prefixes: &[&str], edit: &AttrEdit) {
    let mut bytes = Vec::new();
    prefixes.iter().for_each(|p| Nlri::push(&mut bytes, None, p.parse().unwrap()));
    let nlri = Nlri::parse(Family::Ipv4, false, &bytes).unwrap();
    let mut batch = RouteBatch::default();
    let hop = NextHop::from(IpAddr::from([10, 0, 0, from as u8]));
    batch.push(nlri, Some((edit.view().as_bytes(), hop)));
    table.apply_now(from, batch);
}

fn announce(table: &mut Table, from: u32, asn: u32, prefixes: &[&str]) {
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(asn), 1);
    announce_with(table, from, prefixes, &edit);
}

fn settle(table: &mut Table) {
    loop {
        let more = table.finish(Time::ZERO);
        let requests = table.poll_next_hops();
        for request in &requests {
            if let NextHopRequest::Track(addr) = *request {
                table.handle_next_hop(addr, NextHopState::connected(addr, 1));
            }
        }
        if !more && requests.is_empty() {
            break;
        }
    }
}

fn read(reader: &mut Reader) -> Vec<u8> {
    let mut pieces = Vec::new();
    while reader.fetch(usize::MAX, &mut pieces, Waker::noop()) == Fetch::Data {}
    pieces.iter().flat_map(|piece| piece.as_bytes().to_vec()).collect()
}

#[test]
fn a_limit_warns_once_and_then_refuses() {
    let mut table = table();
    let limited = PeerRoutes { limits: prefixes_max(5), ..routes(2) };
    let _reader = up(&mut table, 2, 65001, limited);
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    assert_eq!(table.poll_event(), None);
    announce(&mut table, 2, 65001, &["10.4.0.0/16", "10.5.0.0/16", "10.1.0.0/16"]);
    let (peer, family, bound) = (PeerId(2), Family::Ipv4, 5);
    let warning = TableEvent::PrefixWarning { peer, family, count: 4, bound };
    let close = |reason| TableEvent::Close { peer, session: SessionId(1), reason };
    assert_eq!(table.poll_event(), Some(warning));
    assert_eq!(table.poll_event(), None, "five are allowed, and a known prefix is not a new one");
    announce(&mut table, 2, 65001, &["10.6.0.0/16", "10.7.0.0/16"]);
    assert_eq!(table.poll_event(), Some(close(CloseReason::PrefixLimit { family, bound })));
    // The request is repeated until the session has ended.
    table.handle_timeout(table.poll_timeout().unwrap());
    assert_eq!(table.poll_event(), Some(close(CloseReason::PrefixLimit { family, bound })));
    assert_eq!(table.poll_event(), None);
    assert_eq!(table.counts(peer).received[family], 5);
    settle(&mut table);
    assert_eq!(table.totals().destinations[family], 5, "a refused prefix leaves nothing behind");
}

/// RFC 5882 §4.3.2.2.
#[test]
fn routes_kept_for_a_restart_are_withdrawn_when_forwarding_is_lost() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    let held = |table: &Table| table.counts(PeerId(2)).received[Family::Ipv4];
    table.peer_forwarding_lost(PeerId(2));
    settle(&mut table);
    assert_eq!(held(&table), 2, "ignored while the session is up");
    let families = FamilySet::only(Family::Ipv4);
    table.down_now(2, Some(Keep::for_restart(families, Duration::from_secs(120))));
    settle(&mut table);
    assert_eq!(held(&table), 2);
    table.peer_forwarding_lost(PeerId(2));
    settle(&mut table);
    assert_eq!((held(&table), table.totals().destinations[Family::Ipv4]), (0, 0));
    assert_eq!(table.poll_timeout(), None, "nothing is left to wait for");
}

/// `count` networks that share their second octet.
fn nets(second: u8, count: u8) -> Vec<String> {
    (0..count).map(|third| format!("10.{second}.{third}.0/24")).collect()
}

fn announce_nets(table: &mut Table, from: u32, asn: u32, nets: &[String]) {
    announce(table, from, asn, &nets.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn routes_of_an_ended_session_are_withdrawn_in_slices_and_no_longer_count() {
    let mut table = table();
    let limited = PeerRoutes { limits: prefixes_max(100), ..routes(2) };
    let _reader = up(&mut table, 2, 65001, limited);
    let (old, new) = (nets(1, 90), nets(2, 90));
    announce_nets(&mut table, 2, 65001, &old);
    settle(&mut table);
    let paths = |table: &Table| table.totals().paths[Family::Ipv4];
    let received = |table: &Table| table.counts(PeerId(2)).received[Family::Ipv4];
    table.down_now(2, None);
    assert_eq!((paths(&table), received(&table)), (90, 0));
    let progress = table.turn(Time::ZERO, Work(60));
    assert_eq!(progress.next, NextTurn::Now, "there is more to withdraw");
    assert!((1..90).contains(&paths(&table)));
    // What the last session left does not count against the next one: 99 of its own are allowed.
    let _reader = table.up_now(2, session(2, 65001));
    announce_nets(&mut table, 2, 65001, &new);
    announce_nets(&mut table, 2, 65001, &old[..9]);
    while let Some(event) = table.poll_event() {
        assert!(matches!(event, TableEvent::PrefixWarning { count: 80, .. }), "{event:?}");
    }
    settle(&mut table);
    assert_eq!((paths(&table), received(&table)), (99, 99));
    // Removed while its routes are being withdrawn: nothing is left of it, and the id is free.
    table.peer_remove(PeerId(2));
    let _reader = up(&mut table, 2, 65001, routes(2));
    settle(&mut table);
    assert_eq!((paths(&table), received(&table)), (0, 0));
}

#[test]
fn changed_import_is_re_evaluated_in_slices_and_for_new_announcements_at_once() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    let nets = nets(1, 90);
    announce_nets(&mut table, 2, 65001, &nets);
    settle(&mut table);
    let accepted = |table: &Table| table.counts(PeerId(2)).accepted[Family::Ipv4];
    let nothing = Policy { name: "nothing".into(), rules: vec![], default: Decision::Reject };
    let closed = importing(2, nothing);
    table.peer_configure(PeerId(2), Arc::new(closed.clone()));
    assert_eq!(accepted(&table), 90);
    let some_work = |table: &mut Table| {
        (0..3).for_each(|_| assert_eq!(table.turn(Time::ZERO, Work(60)).next, NextTurn::Now));
    };
    some_work(&mut table);
    let left = accepted(&table);
    assert!((6..90).contains(&left), "{left}");
    // Passes visit the highest destinations first.
    announce_nets(&mut table, 2, 65001, &nets[..5]);
    assert_eq!(accepted(&table), left - 5);
    // Accepting again before the rest was re-evaluated: that was never rejected.
    table.peer_configure(PeerId(2), Arc::new(routes(2)));
    settle(&mut table);
    assert_eq!(accepted(&table), 90);
    // The session ends meanwhile: its routes are not counted twice.
    table.peer_configure(PeerId(2), Arc::new(closed));
    some_work(&mut table);
    table.down_now(2, None);
    settle(&mut table);
    assert_eq!((accepted(&table), table.totals().paths[Family::Ipv4]), (0, 0));
}

#[test]
fn explain_names_the_rule_for_everyone() {
    let mut table = table();
    let refuse = Rule {
        name: "nothing".into(),
        matches: Vec::new(),
        changes: Vec::new(),
        decision: Decision::Reject,
    };
    let strict = Policy { name: "strict".into(), rules: vec![refuse], default: Decision::Accept };
    let _a = up(&mut table, 2, 65001, routes(2));
    let _b = up(&mut table, 3, 65002, routes(3));
    let _c = up(&mut table, 4, 65003, exporting(4, strict));
    table.peer_add(PeerId(5), IpAddr::from([10, 0, 0, 5]), Arc::new(routes(5)));
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let explained = table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).unwrap();
    let to: Vec<_> =
        explained.advertised.iter().map(|a| (a.peer.0, a.next_hop.to_string())).collect();
    assert_eq!(to, [(3, "10.0.0.1".to_owned())]);
    let withheld: Vec<_> = explained.withheld.iter().map(|w| (w.peer.0, w.rule.as_str())).collect();
    assert_eq!(withheld[0], (2, "it sent the best path"));
    assert_eq!(withheld[1].0, 4);
    assert!(withheld[1].1.contains("strict") && withheld[1].1.contains("nothing"), "{withheld:?}");
    assert_eq!(withheld[2], (5, "session is not established"));
    let path = &explained.destination.paths[0];
    assert!(path.best && path.reason == crate::rib::Reason::OnlyPath);
    assert_eq!(path.import_rule.as_deref(), Some("policy \"all\" default"));
}

#[test]
fn a_group_with_one_member_says_what_distinguishes_it() {
    let mut table = table();
    let _readers = [
        up(&mut table, 2, 65001, routes(2)),
        up(&mut table, 3, 65002, routes(3)),
        up(&mut table, 4, 65003, PeerRoutes { export: next_hop(NextHopMode::Keep), ..routes(4) }),
    ];
    let groups = table.groups();
    assert_eq!(groups[0].members, [PeerId(2), PeerId(3)]);
    assert_eq!(groups[0].alone_because, None);
    assert_eq!(groups[1].alone_because.as_deref(), Some("next hop mode"));
}

#[test]
fn peers_that_get_the_same_policy_end_up_in_one_group() {
    let mut table = table();
    let other = || PeerRoutes { export: next_hop(NextHopMode::Keep), ..routes(0) };
    let mut a = up(&mut table, 2, 65001, routes(2));
    let mut b = up(&mut table, 3, 65002, other());
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    read(&mut a);
    read(&mut b);
    table.peer_configure(PeerId(2), Arc::new(other()));
    settle(&mut table);
    read(&mut a);
    read(&mut b);
    settle(&mut table);
    let groups = table.groups();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].members, [PeerId(2), PeerId(3)]);
    assert_eq!(read(&mut b), [], "nothing changed for the one that stayed");
}

#[test]
fn the_same_parameters_again_are_no_work() {
    let mut table = table();
    let same = Arc::new(routes(2));
    table.peer_add(PeerId(2), IpAddr::from([10, 0, 0, 2]), Arc::clone(&same));
    let _readers = table.up_now(2, session(2, 65001));
    settle(&mut table);
    table.peer_configure(PeerId(2), Arc::clone(&same));
    assert!(table.review_peers.is_empty());
    table.peer_configure(PeerId(2), Arc::new(routes(2)));
    assert_eq!(table.review_peers.len(), 1);
}

#[test]
fn an_export_policy_that_changes_nothing_sends_nothing() {
    let mut table = table();
    let mut reader = up(&mut table, 2, 65001, routes(2));
    let _feeder = up(&mut table, 3, 65002, routes(3));
    announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    assert!(!read(&mut reader).is_empty());
    let renamed = Policy { name: "another name".into(), ..Policy::accept_all() };
    let renamed = exporting(2, renamed);
    table.peer_configure(PeerId(2), Arc::new(renamed));
    settle(&mut table);
    assert_eq!(read(&mut reader), []);
}

#[test]
fn an_outermost_number_comes_before_our_own() {
    let mut table = table();
    let policy = changing(vec![Change::Prepend(Asn(7), 1), Change::PrependOutermost(Asn(8))]);
    let _from = up(&mut table, 2, 65001, routes(2));
    let prepending = exporting(3, policy);
    let mut reader = up(&mut table, 3, 65002, prepending);
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    let path: Vec<u8> = [8, 65000, 7, 65001].into_iter().flat_map(u32::to_be_bytes).collect();
    let sent = read(&mut reader);
    assert!(sent.windows(path.len()).any(|octets| octets == path), "{sent:02x?}");
}

#[test]
fn a_route_that_fits_no_message_is_withdrawn_and_reported() {
    let mut table = table();
    let mut reader = up(&mut table, 2, 65001, routes(2));
    let _feeder = up(&mut table, 3, 65002, routes(3));
    announce(&mut table, 3, 65002, &["10.1.0.0/16"]);
    settle(&mut table);
    read(&mut reader);
    let mut long = AttrEdit::originate(Origin::Igp);
    long.prepend_as(Asn(65002), 1);
    long.set(0xC0, 200, &[7; 4080]);
    announce_with(&mut table, 3, &["10.1.0.0/16"], &long);
    settle(&mut table);
    let sent = read(&mut reader);
    assert_eq!(sent.len(), 23 + 3, "one withdrawal");
    let note = std::iter::from_fn(|| table.poll_event())
        .find(|event| matches!(event, TableEvent::Note(text) if text.contains("10.1.0.0/16")));
    assert!(note.is_some());
    assert_eq!(table.counts(PeerId(2)).advertised[Family::Ipv4], 0);
}

#[test]
fn a_rejected_route_comes_back_with_another_policy_and_no_refresh() {
    let mut table = table();
    let mut reader = up(&mut table, 2, 65001, routes(2));
    let strict = importing(3, Policy::reject_all());
    let _feeder = up(&mut table, 3, 65002, strict);
    announce(&mut table, 3, 65002, &["10.1.0.0/16"]);
    settle(&mut table);
    let filter = RouteFilter { received_from: Some(PeerId(3)), ..RouteFilter::default() };
    let (shown, _) = table.view(&filter, 0, 10, Time::ZERO);
    assert_eq!(shown[0].paths[0].unusable, Some(Unusable::Rejected));
    assert_eq!(read(&mut reader).len(), 23, "End-of-RIB only");
    table.peer_configure(PeerId(3), Arc::new(routes(3)));
    settle(&mut table);
    assert!(read(&mut reader).len() > 23);
    assert_eq!(table.counts(PeerId(3)).accepted[Family::Ipv4], 1);
}

#[test]
fn a_withdrawal_of_something_unknown_leaves_nothing() {
    let mut table = table();
    let _reader = up(&mut table, 2, 65001, routes(2));
    let mut bytes = Vec::new();
    Nlri::push(&mut bytes, None::<PathId>, "10.1.0.0/16".parse().unwrap());
    let mut batch = RouteBatch::default();
    batch.push(Nlri::parse(Family::Ipv4, false, &bytes).unwrap(), None);
    table.apply_now(2, batch);
    settle(&mut table);
    assert_eq!(table.loc_rib.dests(Family::Ipv4).slots(), 0);
}

#[test]
fn nothing_is_left_when_everything_is_withdrawn() {
    let mut table = table();
    let readers = [up(&mut table, 2, 65001, routes(2)), up(&mut table, 3, 65002, routes(3))];
    let local = LocalRoute { install: Some(FibKind::Blackhole), ..LocalRoute::default() };
    let own: Prefix = "10.9.0.0/16".parse().unwrap();
    table.handle_local(Time::ZERO, own, Source::Static, Some(local));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    announce(&mut table, 3, 65002, &["10.1.0.0/16"]);
    settle(&mut table);
    assert_eq!(table.poll_fib(10).len(), 3);
    table.handle_local(Time::ZERO, own, Source::Static, None);
    table.peer_remove(PeerId(2));
    table.peer_remove(PeerId(3));
    drop(readers);
    settle(&mut table);
    assert_eq!(table.poll_fib(10).len(), 3);
    settle(&mut table);
    // Changes are counted since the start.
    assert_eq!(Totals { next_hop_changes: 0, ..table.totals() }, Totals::default());
    assert_eq!(table.loc_rib.dests(Family::Ipv4).len(), 0, "tombstones are gone too");
}

/// The peers that a prefix is advertised to, each with the next hop sent.
fn sent_to(table: &mut Table, prefix: &str) -> Vec<(u32, String)> {
    settle(table);
    let explained = table.explain(prefix.parse().unwrap(), Time::ZERO).unwrap();
    explained.advertised.iter().map(|a| (a.peer.0, a.next_hop.to_string())).collect()
}

#[test]
fn a_local_route_keeps_its_gateway_towards_internal_peers_with_third_party_next_hops() {
    let mut table = table();
    let third_party = |id| PeerRoutes { export: next_hop(NextHopMode::ThirdParty), ..routes(id) };
    let _readers = [
        up(&mut table, 2, ASN.0, third_party(2)),
        up(&mut table, 3, ASN.0, routes(3)),
        up(&mut table, 4, 65001, third_party(4)),
    ];
    let own = |next_hop: Option<&str>| LocalRoute {
        next_hop: next_hop.map(|hop| hop.parse().unwrap()),
        ..LocalRoute::default()
    };
    let prefixes = ["10.7.0.0/16", "10.8.0.0/16", "10.9.0.0/16"];
    for (prefix, hop) in prefixes.into_iter().zip([Some("10.0.0.77"), Some("fd00::77"), None]) {
        table.handle_local(Time::ZERO, prefix.parse().unwrap(), Source::Kernel, Some(own(hop)));
    }
    let ours =
        |peers: &[u32]| peers.iter().map(|p| (*p, "10.0.0.1".to_owned())).collect::<Vec<_>>();
    let mut expected = ours(&[2, 3, 4]);
    expected[0].1 = "10.0.0.77".to_owned();
    assert_eq!(sent_to(&mut table, prefixes[0]), expected);
    assert_eq!(sent_to(&mut table, prefixes[1]), ours(&[2, 3, 4]), "of the other family");
    assert_eq!(sent_to(&mut table, prefixes[2]), ours(&[2, 3, 4]), "no gateway");
}

#[test]
fn internal_sessions_of_different_ases_are_not_one_as() {
    let mut table = table();
    let _ours = [up(&mut table, 2, ASN.0, routes(2)), up(&mut table, 3, ASN.0, routes(3))];
    table.peer_add(PeerId(4), IpAddr::from([10, 0, 0, 4]), Arc::new(routes(4)));
    let other =
        Negotiated { local_asn: Asn(65009), peer_type: PeerType::Internal, ..session(4, 65009) };
    let _other = table.up_now(4, other).remove(0);
    announce_with(&mut table, 2, &["10.1.0.0/16"], &AttrEdit::originate(Origin::Igp));
    announce_with(&mut table, 4, &["10.4.0.0/16"], &AttrEdit::originate(Origin::Igp));
    assert_eq!(sent_to(&mut table, "10.1.0.0/16"), [(4, "10.0.0.2".to_owned())]);
    let to_both = [2, 3].map(|peer| (peer, "10.0.0.4".to_owned()));
    assert_eq!(sent_to(&mut table, "10.4.0.0/16"), to_both);
}

/// Brings up a session with this role of ours (RFC 9234); returns its reader.
fn up_as(table: &mut Table, id: u32, asn: u32, role: Role) -> Reader {
    table.peer_add(PeerId(id), IpAddr::from([10, 0, 0, id as u8]), Arc::new(routes(id)));
    let session = Negotiated { role: Some(role), ..session(id, asn) };
    table.up_now(id, session).remove(0)
}

/// ONLY_TO_CUSTOMER of the one route that a peer was sent; `None` if it was sent no route.
fn sent_otc(reader: &mut Reader) -> Option<Option<Asn>> {
    let octets = read(reader);
    let mut rest = octets.as_slice();
    let mut routes = Vec::new();
    while let Some(frame) = crate::wire::split_frame(rest, usize::MAX).unwrap() {
        let update = crate::wire::Update::parse(frame.body(), &context()).unwrap();
        if update.reach().next().is_some() {
            let mut attrs = Vec::new();
            update.canonical_attrs(&mut attrs);
            routes.push(crate::wire::AttrView::new(&attrs).only_to_customer());
        }
        rest = &rest[frame.bytes.len()..];
    }
    assert!(routes.len() <= 1, "{routes:?}");
    routes.pop()
}

fn context() -> crate::wire::UpdateContext {
    crate::wire::UpdateContext {
        four_octet_as: true,
        families: FamilySet::only(Family::Ipv4),
        ..crate::wire::UpdateContext::new(PeerType::External, ASN)
    }
}

#[test]
fn routes_of_providers_and_peers_are_advertised_to_customers_only() {
    for (role, asn) in [(Role::Customer, 65001), (Role::Peer, 65002)] {
        let mut table = table();
        let _from = up_as(&mut table, 2, asn, role);
        let mut customer = up_as(&mut table, 3, 65003, Role::Provider);
        let mut provider = up_as(&mut table, 4, 65004, Role::Customer);
        let mut peer = up_as(&mut table, 5, 65005, Role::Peer);
        let mut without = up(&mut table, 6, 65006, routes(6));
        announce(&mut table, 2, asn, &["10.1.0.0/16"]);
        settle(&mut table);
        assert_eq!(sent_otc(&mut customer), Some(Some(Asn(asn))), "marked on import");
        assert_eq!(sent_otc(&mut without), Some(Some(Asn(asn))), "the mark is passed on");
        assert_eq!((sent_otc(&mut provider), sent_otc(&mut peer)), (None, None));
    }
}

#[test]
fn routes_of_customers_are_advertised_to_all_and_marked_towards_peers_and_customers() {
    let mut table = table();
    let _from = up_as(&mut table, 2, 65001, Role::Provider);
    let mut customer = up_as(&mut table, 3, 65003, Role::Provider);
    let mut provider = up_as(&mut table, 4, 65004, Role::Customer);
    let mut peer = up_as(&mut table, 5, 65005, Role::Peer);
    announce(&mut table, 2, 65001, &["10.1.0.0/16"]);
    settle(&mut table);
    assert_eq!(sent_otc(&mut customer), Some(Some(ASN)));
    assert_eq!(sent_otc(&mut peer), Some(Some(ASN)));
    assert_eq!(sent_otc(&mut provider), Some(None), "the provider marks it where it must");
}

#[test]
fn a_leaked_route_is_kept_and_not_used() {
    let leaks = [
        (Role::Provider, 65009, true),
        (Role::RouteServer, 65009, true),
        (Role::Peer, 65009, true),
        (Role::Peer, 65001, false),
        (Role::Customer, 65009, false),
        (Role::RouteServerClient, 65009, false),
    ];
    for (role, marked, leaked) in leaks {
        let mut table = table();
        let _from = up_as(&mut table, 2, 65001, role);
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65001), 1);
        edit.set_only_to_customer(Asn(marked));
        announce_with(&mut table, 2, &["10.1.0.0/16"], &edit);
        settle(&mut table);
        let explained = table.explain("10.1.0.0/16".parse().unwrap(), Time::ZERO).unwrap();
        let path = &explained.destination.paths[0];
        assert_eq!(path.best, !leaked, "{role}, marked by AS {marked}");
        let is_leak = path.unusable == Some(Unusable::RouteLeak);
        assert_eq!(is_leak, leaked);
        assert_eq!(table.counts(PeerId(2)).accepted[Family::Ipv4], u32::from(!leaked));
    }
}

#[test]
fn a_tunnel_takes_each_next_hop_while_it_exists() {
    let fib_policy = changing(vec![Change::Tunnel("tunl0".into())]);
    let mut table = table();
    let config =
        TableConfig { fib_policy: Some(Arc::new(fib_policy)), ..TableConfig::clone(&table.config) };
    table.configure(Arc::new(config));
    let _readers = [up(&mut table, 2, 65000, routes(2)), up(&mut table, 3, 65000, routes(3))];
    let edit = AttrEdit::originate(Origin::Igp);
    announce_with(&mut table, 2, &["10.65.1.0/26", "10.65.2.0/26"], &edit);
    announce_with(&mut table, 3, &["10.65.2.0/26"], &edit);
    settle(&mut table);
    let hops = |table: &mut Table| -> Vec<(String, Vec<(u32, bool)>)> {
        let changes = table.poll_fib(10).into_iter().map(|(prefix, change)| {
            let route = change.route().unwrap();
            let FibKind::Unicast(hops) = route.kind else { panic!("not unicast") };
            let onlink = hops.iter().filter(|hop| hop.onlink).map(|hop| hop.ifindex);
            let tunnels = route.next_hops.iter().filter_map(|next_hop| next_hop.tunnel);
            assert!(tunnels.eq(onlink), "{:?}", route.next_hops);
            (prefix.to_string(), hops.iter().map(|hop| (hop.ifindex, hop.onlink)).collect())
        });
        changes.collect()
    };
    let (one, two) = ("10.65.1.0/26".to_owned(), "10.65.2.0/26".to_owned());
    let plain = [(one.clone(), vec![(1, false)]), (two.clone(), vec![(1, false), (1, false)])];
    assert_eq!(hops(&mut table), plain);

    // One hop for each BGP next hop, whatever the underlay has.
    table.handle_tunnels([("tunl0".into(), 7)].into());
    settle(&mut table);
    let tunnelled = [(one, vec![(7, true)]), (two, vec![(7, true), (7, true)])];
    assert_eq!(hops(&mut table), tunnelled);
    let addr = IpAddr::from([10, 0, 0, 2]);
    let ecmp = [1, 2].map(|ifindex| Hop { gateway: None, ifindex, onlink: false, weight: 1 });
    let state = NextHopState::Via {
        hops: ecmp.to_vec(),
        metric: 0,
        connected: true,
        interface: None,
        over: crate::rib::Over::Specific,
    };
    table.handle_next_hop(addr, state);
    settle(&mut table);
    assert_eq!(hops(&mut table), [], "the underlay's hops do not matter");

    table.handle_tunnels([("gre0".into(), 7)].into());
    settle(&mut table);
    assert_eq!(hops(&mut table)[0].1, [(1, false), (2, false)]);
}

#[test]
fn a_kernel_route_names_the_next_hops_it_depends_on() {
    let mut table = table();
    let _readers = [up(&mut table, 2, 65000, routes(2)), up(&mut table, 3, 65000, routes(3))];
    let edit = AttrEdit::originate(Origin::Igp);
    announce_with(&mut table, 2, &["10.65.1.0/26", "10.65.2.0/26"], &edit);
    announce_with(&mut table, 3, &["10.65.2.0/26"], &edit);
    settle(&mut table);
    let next_hops = |table: &mut Table| -> Vec<Vec<FibNextHop>> {
        let changes = table.poll_fib(10).into_iter();
        changes.map(|(_, change)| change.route().unwrap().next_hops).collect()
    };
    let addr = IpAddr::from([10, 0, 0, 2]);
    let (one, other) = (FibNextHop::from(addr), FibNextHop::from(IpAddr::from([10, 0, 0, 3])));
    assert_eq!(next_hops(&mut table), [vec![one], vec![one, other]]);

    // With more hops than the maximum, they are not exactly those of the next hop.
    let via = |ifindex| Hop { gateway: None, ifindex, onlink: false, weight: 1 };
    let state = |legs: u32| NextHopState::Via {
        hops: (1..=legs).map(via).collect(),
        metric: 0,
        connected: true,
        interface: None,
        over: crate::rib::Over::Specific,
    };
    let max = table.config.multipath_max as u32;
    for (legs, expected) in [(max, vec![one]), (max + 1, vec![])] {
        table.handle_next_hop(addr, state(legs));
        settle(&mut table);
        assert_eq!(next_hops(&mut table)[0], expected, "{legs} legs");
    }
    table.handle_next_hop(addr, state(1));
    table.handle_tunnels([("tunl0".into(), 7)].into());
    settle(&mut table);
    assert_eq!(next_hops(&mut table), [vec![one], vec![one, other]], "no policy sends them there");
}

#[test]
fn a_kernel_route_names_the_best_path_with_another_next_hop_as_its_backup() {
    let mut table = table();
    let told = |table: &mut Table| -> Vec<(Vec<FibNextHop>, Option<FibNextHop>)> {
        settle(table);
        let routes = table.poll_fib(10).into_iter().filter_map(|(_, change)| change.route());
        routes.map(|route| (route.next_hops, route.backup)).collect()
    };
    let _readers: Vec<Reader> = (2..6).map(|id| up(&mut table, id, 65000, routes(id))).collect();
    let by = |id: u8| FibNextHop::from(IpAddr::from([10, 0, 0, id]));
    let net = ["10.65.1.0/26"];
    let announce = |table: &mut Table, from: u32, length: usize| {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65009), length);
        announce_with(table, from, &net, &edit);
    };
    for (from, length) in [(2, 1), (3, 1), (4, 2), (5, 3)] {
        announce(&mut table, from, length);
    }
    assert_eq!(told(&mut table), [(vec![by(2), by(3)], None)], "not asked for");
    let config = TableConfig { backup_paths: true, ..TableConfig::clone(&table.config) };
    table.configure(Arc::new(config));
    assert_eq!(told(&mut table), [(vec![by(2), by(3)], Some(by(4)))]);
    // The backup goes, without a change of the best path.
    table.handle_next_hop(IpAddr::from([10, 0, 0, 4]), NextHopState::Unreachable);
    assert_eq!(told(&mut table), [(vec![by(2), by(3)], Some(by(5)))]);
    for gone in [2, 3] {
        table.handle_next_hop(IpAddr::from([10, 0, 0, gone]), NextHopState::Unreachable);
    }
    assert_eq!(told(&mut table), [(vec![by(5)], None)]);
}

#[test]
fn link_bandwidth_weights_the_legs_where_every_path_has_it() {
    let mut table = table();
    let weights = |table: &mut Table| -> Vec<u16> {
        settle(table);
        let routes = table.poll_fib(10).into_iter().filter_map(|(_, change)| change.route());
        let Some(FibKind::Unicast(hops)) = routes.map(|route| route.kind).next_back() else {
            return Vec::new();
        };
        hops.iter().map(|hop| hop.weight).collect()
    };
    let _readers: Vec<Reader> = (2..5).map(|id| up(&mut table, id, 65000, routes(id))).collect();
    let announce = |table: &mut Table, from: u32, kind: u8, gbits: Option<f32>| {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65009), 1);
        if let Some([a, b, c, d]) = gbits.map(|n| (n * 125e6).to_be_bytes()) {
            let community = ExtCommunity([kind, 0x04, 0xFD, 0xE8, a, b, c, d]);
            edit.set_ext_communities(&[community]);
        }
        announce_with(table, from, &["10.65.1.0/26"], &edit);
    };
    announce(&mut table, 2, 0x40, Some(10.0));
    announce(&mut table, 3, 0x00, Some(40.0));
    assert_eq!(weights(&mut table), [1, 1], "not asked for");
    let config = TableConfig {
        multipath_weights: MultipathWeights::LinkBandwidth,
        ..TableConfig::clone(&table.config)
    };
    table.configure(Arc::new(config));
    assert_eq!(weights(&mut table), [1, 4]);
    announce(&mut table, 4, 0x40, Some(20.0));
    assert_eq!(weights(&mut table), [1, 4, 2]);
    announce(&mut table, 3, 0x40, None);
    assert_eq!(weights(&mut table), [1, 1, 1]);
    table.handle_next_hop(IpAddr::from([10, 0, 0, 3]), NextHopState::Unreachable);
    assert_eq!(weights(&mut table), [1, 2]);
}

/// Routes that differ in what has no effect would not share a group of next-hop objects.
#[test]
fn a_kernel_route_names_bandwidths_only_where_they_have_an_effect() {
    let mut table = table();
    let _readers: Vec<Reader> = (2..5).map(|id| up(&mut table, id, 65000, routes(id))).collect();
    let config = TableConfig {
        multipath_weights: MultipathWeights::LinkBandwidth,
        backup_paths: true,
        ..TableConfig::clone(&table.config)
    };
    table.configure(Arc::new(config));
    let told = |table: &mut Table| -> Option<(Vec<Option<u64>>, Option<FibNextHop>)> {
        settle(table);
        let mut routes = table.poll_fib(10).into_iter().filter_map(|(_, change)| change.route());
        let bandwidth = |next_hop: &FibNextHop| next_hop.bandwidth;
        let route = routes.next_back()?;
        Some((route.next_hops.iter().map(bandwidth).collect(), route.backup))
    };
    let announce = |table: &mut Table, from: u32, length: usize| {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65009), length);
        let [a, b, c, d] = 125e6f32.to_be_bytes();
        edit.set_ext_communities(&[ExtCommunity([0x40, 0x04, 0xFD, 0xE8, a, b, c, d])]);
        announce_with(table, from, &["10.65.1.0/26"], &edit);
    };
    let by = |id: u8| FibNextHop::from(IpAddr::from([10, 0, 0, id]));
    announce(&mut table, 2, 1);
    announce(&mut table, 4, 2);
    assert_eq!(told(&mut table), Some((vec![None], Some(by(4)))));
    announce(&mut table, 3, 1);
    let share = Some(125_000_000);
    assert_eq!(told(&mut table), Some((vec![share, share], Some(by(4)))));
}
