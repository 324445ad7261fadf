//! Rehearsals and re-evaluations, where the difference is small.

use super::*;
use crate::policy::{Match, PrefixMatch};
use crate::types::{BandwidthScope, Community};

/// Tags every route, and routes to one prefix with MED as well.
fn tagging(prefix: &str, med: u32) -> Policy {
    let rule =
        |matches, changes, decision| Rule { name: String::new(), matches, changes, decision };
    let within = PrefixMatch::or_longer(prefix.parse().unwrap());
    let only = vec![Match::Prefix([within].into_iter().collect())];
    let rules = vec![
        rule(only, vec![Change::Med(med)], Decision::Next),
        rule(Vec::new(), vec![Change::AddCommunity(Community(7))], Decision::Accept),
    ];
    Policy { name: "p".into(), rules, default: Decision::Reject }
}

fn rehearsed(table: &Table, intended: Intended, list: usize) -> Rehearsal {
    let mut rehearsal = Rehearsal::new(table.snapshot(), intended, list);
    while !table.rehearse(&mut rehearsal, Work::TURN).is_over {}
    assert!(!rehearsal.has_changed());
    rehearsal
}

/// A rule changes that applies to one of the routes.
#[test]
fn routes_whose_import_stays_the_same_are_not_written_again() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, importing(2, tagging("10.1.0.0/16", 1)));
    let _to = up(&mut table, 3, 65002, routes(3));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    settle(&mut table);
    let other = Arc::new(importing(2, tagging("10.1.0.0/16", 2)));
    let mut intended = Intended::new(Arc::clone(&table.config));
    intended.routes.insert(PeerId(2), Arc::clone(&other));
    let said = rehearsed(&table, intended, 10).imports()[&PeerId(2)][Family::Ipv4];
    assert_eq!((said.accepted, said.changed, said.rejected), (0, 1, 0));
    table.peer_configure(PeerId(2), other);
    let mut meter = Meter::new(u32::MAX);
    table.review_changes(&mut meter);
    table.run_passes(&mut meter);
    assert_eq!(table.loc_rib.touched_len(), 1);
}

/// How many paths share a route changes the sum of their bandwidths.
#[test]
fn a_rehearsal_sums_the_bandwidths_of_as_many_paths_as_intended() {
    let mut table = table();
    let _from = [2, 3].map(|id| up(&mut table, id, 65000 + id, routes(id)));
    let sum = Change::SumLinkBandwidth(ASN, BandwidthScope::Transitive);
    let _to = up(&mut table, 4, 65004, exporting(4, changing(vec![sum])));
    for id in [2, 3] {
        let mut edit = AttrEdit::originate(Origin::Igp);
        edit.prepend_as(Asn(65000 + id), 1);
        let scope = BandwidthScope::Transitive;
        edit.set_ext_communities(&[ExtCommunity::of_link_bandwidth(Asn(1), 1000, scope)]);
        announce_with(&mut table, id, &["10.1.0.0/16", "10.2.0.0/16"], &edit);
    }
    settle(&mut table);
    let config = TableConfig { multipath_max: 1, ..TableConfig::clone(&table.config) };
    let rehearsal = rehearsed(&table, Intended::new(Arc::new(config)), 10);
    let said = rehearsal.differences();
    assert_eq!(said.keys().copied().collect::<Vec<_>>(), [PeerId(4)]);
    assert_eq!(said[&PeerId(4)][Family::Ipv4].changed, 2);
}

#[test]
fn routes_listed_are_bounded_in_octets_too() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, routes(2));
    let _to = up(&mut table, 3, 65002, routes(3));
    let mut edit = AttrEdit::originate(Origin::Igp);
    edit.prepend_as(Asn(65001), 1);
    edit.set_communities(&(0..900).map(Community).collect::<Vec<_>>());
    let nets: Vec<String> = (0..12).flat_map(|second| nets(second, 250)).collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    announce_with(&mut table, 2, &nets, &edit);
    settle(&mut table);
    let mut intended = Intended::new(Arc::clone(&table.config));
    let tagged = changing(vec![Change::AddCommunity(Community(7 << 16))]);
    intended.routes.insert(PeerId(3), Arc::new(exporting(3, tagged)));
    let rehearsal = rehearsed(&table, intended, usize::MAX);
    assert_eq!(rehearsal.differences()[&PeerId(3)][Family::Ipv4].changed, 3000, "all count");
    let listed = rehearsal.listed(PeerId(3));
    let sent = listed.iter().flat_map(|route| route.before.iter().chain(&route.after));
    let octets: usize = sent.map(|sent| sent.attrs.len()).sum();
    assert!((1..=16 << 20).contains(&octets) && listed.len() < 3000, "{octets} octets");
}
