//! What the rules of policies do to the routes in the table.

use super::*;
use crate::policy::{Match, PrefixMatch};
use crate::types::Community;

fn rule(name: &str, prefix: &str, changes: Vec<Change>, decision: Decision) -> Rule {
    let within = PrefixMatch::or_longer(prefix.parse().unwrap());
    let matches = vec![Match::Prefix([within].into_iter().collect())];
    Rule { name: name.into(), matches, changes, decision }
}

fn policy() -> Arc<Policy> {
    let rules = vec![
        rule("tag", "10.0.0.0/8", vec![Change::AddCommunity(Community(7))], Decision::Next),
        rule("not one", "10.1.0.0/16", Vec::new(), Decision::Reject),
        rule("two", "10.2.0.0/16", vec![Change::Med(5)], Decision::Accept),
    ];
    Arc::new(Policy { name: "p".into(), rules, default: Decision::Accept })
}

fn counted(table: &Table, budget: u32) -> Vec<PolicyHits> {
    let mut count = table.policy("p");
    while !count.is_over() {
        assert!(table.count_policy(&mut count, Work(budget)) > Work(0));
    }
    count.hits().to_vec()
}

#[test]
fn hits_are_those_of_the_routes_that_are_there() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, importing(2, policy()));
    let _to = up(&mut table, 3, 65002, exporting(3, policy()));
    let looped = AttrEdit::originate(Origin::Igp);
    let mut edit = AttrEdit::from_view(looped.view());
    edit.prepend_as(ASN, 1);
    announce_with(&mut table, 2, &["10.9.0.0/16"], &edit);
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "11.0.0.0/8"]);
    settle(&mut table);
    for budget in [1, 1000] {
        let hits = counted(&table, budget);
        let [import, export] = &hits[..] else { panic!("{hits:?}") };
        let rules = |hits: &PolicyHits| -> Vec<(u64, u64)> {
            hits.rules.iter().map(|rule| (rule.matched, rule.decided)).collect()
        };
        assert_eq!((import.place, &import.peers[..]), (PolicyPlace::Import, &[PeerId(2)][..]));
        assert_eq!(rules(import), [(3, 0), (1, 1), (1, 1)]);
        assert_eq!((import.default, import.unreached), (2, 1));
        assert_eq!((export.place, &export.peers[..]), (PolicyPlace::Export, &[PeerId(3)][..]));
        assert_eq!(rules(export), [(2, 0), (0, 0), (1, 1)], "one was rejected on import");
        assert_eq!((export.default, export.unreached), (2, 0));
    }
    assert!(table.policy("other").hits().is_empty());
}

#[test]
fn a_test_names_each_rule_that_applies_and_what_it_leaves() {
    let mut table = table();
    let _from = up(&mut table, 2, 65001, routes(2));
    let _to = up(&mut table, 3, 65002, routes(3));
    announce(&mut table, 2, 65001, &["10.1.0.0/16", "10.2.0.0/16"]);
    settle(&mut table);
    let two = "10.2.0.0/16".parse().unwrap();
    let [test] = &table.test_import(&policy(), two, None)[..] else { panic!() };
    assert_eq!((test.from, test.is_accepted, test.rule), (Some(PeerId(2)), true, Some(2)));
    let steps: Vec<usize> = test.steps.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(steps, [0, 2]);
    let after = |at: usize| crate::wire::AttrView::new(&test.steps[at].1.attrs);
    assert_eq!((after(0).med(), after(1).med()), (None, Some(5)));
    assert_eq!(after(1).communities().next(), Some(Community(7)));
    let one = "10.1.0.0/16".parse().unwrap();
    let [test] = &table.test_export(&policy(), one, PeerId(3))[..] else { panic!() };
    assert_eq!((test.to, test.is_accepted, test.rule), (Some(PeerId(3)), false, Some(1)));
    assert!(table.test_import(&policy(), one, Some(PeerId(3))).is_empty(), "it sent none");
    assert!(table.test_export(&policy(), "12.0.0.0/8".parse().unwrap(), PeerId(3)).is_empty());
}
