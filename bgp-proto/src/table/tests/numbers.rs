//! The counters behind the metrics.

use super::*;
use crate::policy::{PrefixMatch, PrefixSet};

fn refused(table: &Table) -> Vec<(RefusedBy, u64)> {
    let entries = table.refused().iter().filter(|entry| entry.routes[Family::Ipv4] > 0);
    entries.map(|entry| (entry.by.clone(), entry.routes[Family::Ipv4])).collect()
}

fn named(policy: &str, number: Option<usize>, name: &str) -> RefusedBy {
    RefusedBy::Rule { policy: policy.into(), number, name: name.to_owned() }
}

/// A rule that matches prefixes, so that routes are evaluated one by one.
fn long_prefixes() -> Policy {
    let range = PrefixMatch { prefix: "10.0.0.0/8".parse().unwrap(), lengths: 24..=32 };
    let set: PrefixSet = [range].into_iter().collect();
    let rule = Rule {
        name: "too long".to_owned(),
        matches: vec![crate::policy::Match::Prefix(set)],
        changes: Vec::new(),
        decision: Decision::Reject,
    };
    Policy { name: "from-tor".into(), rules: vec![rule], default: Decision::Accept }
}

#[test]
fn refused_routes_are_counted_by_what_refused_them() {
    let mut table = table();
    let all_alike = importing(2, Policy::reject_all());
    let _a = up(&mut table, 2, 65001, all_alike);
    let one_by_one = importing(3, long_prefixes());
    let _b = up(&mut table, 3, 65002, one_by_one);
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    announce(&mut table, 3, 65002, &["10.1.1.0/24", "10.2.0.0/16", "10.3.1.0/24"]);
    // It has passed through our AS.
    announce(&mut table, 3, ASN.0, &["10.4.0.0/16"]);
    let expected = [
        (RefusedBy::Check(Unusable::AsLoop), 1),
        (named("none", None, ""), 3),
        (named("from-tor", Some(1), "too long"), 2),
    ];
    assert_eq!(refused(&table), expected);
    // A repeated announcement is not counted again.
    announce(&mut table, 3, 65002, &["10.1.1.0/24"]);
    assert_eq!(refused(&table), expected);
}

#[test]
fn routes_beyond_a_limit_are_refused_by_it() {
    let mut table = table();
    let limited = PeerRoutes { limits: prefixes_max(1), ..routes(2) };
    let _reader = up(&mut table, 2, 65001, limited);
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]);
    assert_eq!(refused(&table), [(RefusedBy::PrefixLimit, 2)]);
}

#[test]
fn counters_survive_the_peers_that_made_them() {
    let mut table = table();
    let readers = [up(&mut table, 2, 65001, routes(2)), up(&mut table, 3, 65002, routes(3))];
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    announce(&mut table, 3, 65002, &["10.1.0.0/16"]);
    settle(&mut table);
    let before = table.imports();
    assert_eq!(before[Family::Ipv4].accepted, 3);
    assert_eq!(before[Family::Ipv4].changes(), 3);
    table.peer_remove(PeerId(2));
    assert_eq!(table.imports(), before, "a counter that falls looks like a restart");
    // The index is given to another peer, which begins at zero.
    let _again = up(&mut table, 2, 65003, routes(2));
    assert_eq!(table.counts(PeerId(2)).imports[Family::Ipv4].accepted, 0);
    announce(&mut table, 2, 65003, &["10.5.0.0/16"]);
    assert_eq!(table.imports()[Family::Ipv4].accepted, 4);
    drop(readers);
}

#[test]
fn a_turn_takes_a_change_from_import_to_export() {
    let mut table = table();
    let mut reader = up(&mut table, 2, 65001, routes(2));
    settle(&mut table);
    read(&mut reader);
    let _feeder = up(&mut table, 3, 65002, routes(3));
    announce(&mut table, 3, 65002, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    assert_eq!(table.turn(Time::ZERO, Work::TURN).decided, 0, "nothing is left to decide");
    let mut pieces = Vec::new();
    while reader.fetch(usize::MAX, &mut pieces, Waker::noop()) == Fetch::Data {}
    let before: u64 = pieces.iter().map(|piece| piece.updates()).sum();
    assert!(before > 0, "the first two prefixes were sent");
    announce(&mut table, 3, 65002, &["10.3.0.0/16"]);
    let progress = table.turn(Time::ZERO, Work::TURN);
    assert_eq!((progress.decided, progress.next), (1, NextTurn::WhenWoken));
    let parts = progress.inputs + progress.decision + progress.export;
    assert!(parts.0 > 0 && parts <= progress.done);
    pieces.clear();
    while reader.fetch(usize::MAX, &mut pieces, Waker::noop()) == Fetch::Data {}
    assert_eq!(pieces.iter().map(|piece| piece.updates()).sum::<u64>(), 1);
}
