//! What a filter selects, as prefixes and as views.

use std::collections::BTreeSet;

use super::*;
use crate::types::{Community, Prefix, Source};

fn prefixes(table: &Table, filter: &RouteFilter) -> (BTreeSet<Prefix>, u64) {
    let (mut found, mut paths, mut at) = (BTreeSet::new(), 0, Some(0));
    while let Some(from) = at {
        let page = table.prefixes(filter, from);
        paths += page.paths;
        found.extend(page.prefixes);
        at = page.next;
    }
    (found, paths)
}

/// Prefixes and numbers of paths are those of the views, however a view is restricted.
#[test]
fn prefixes_are_those_of_the_views() {
    let mut table = table();
    let _readers = [
        up(&mut table, 2, 65001, routes(2)),
        up(&mut table, 3, 65002, importing(3, Policy::reject_all())),
        up(&mut table, 4, 65003, routes(4)),
    ];
    // More slots than one call examines.
    for third in 0..40 {
        announce_nets(&mut table, 2, 65001, &nets(third, 250));
    }
    let mut marked = AttrEdit::originate(Origin::Igp);
    marked.prepend_as(Asn(65002), 2);
    announce_with(&mut table, 3, &["10.1.1.0/24", "192.0.2.0/24"], &marked);
    announce(&mut table, 4, 65003, &["10.1.1.0/24", "198.51.100.0/24"]);
    settle(&mut table);
    let all = RouteFilter::default;
    let filters = [
        all(),
        RouteFilter { hides_refused: true, ..all() },
        RouteFilter { unusable: true, ..all() },
        RouteFilter { received_from: Some(PeerId(3)), ..all() },
        RouteFilter { received_from: Some(PeerId(4)), hides_refused: true, ..all() },
        RouteFilter { within: Some("10.1.0.0/16".parse().unwrap()), ..all() },
        RouteFilter { as_path: Some("65002 *".parse().unwrap()), ..all() },
        RouteFilter { as_path: Some("?".parse().unwrap()), ..all() },
        RouteFilter { community: Some(AnyCommunity::Standard(Community::NO_EXPORT)), ..all() },
        RouteFilter { source: Some(Source::Static), ..all() },
        RouteFilter { advertised_to: Some(PeerId(4)), ..all() },
        RouteFilter { family: Some(Family::Ipv6), ..all() },
        RouteFilter { advertised_to: Some(PeerId(4)), hides_refused: true, ..all() },
        RouteFilter { advertised_to: Some(PeerId(4)), unusable: true, ..all() },
        RouteFilter {
            advertised_to: Some(PeerId(4)),
            as_path: Some("64512 65001 *".parse().unwrap()),
            received_from: Some(PeerId(2)),
            ..all()
        },
        RouteFilter {
            after: Some("10.1.1.0/24".parse().unwrap()),
            up_to: Some("10.3.7.0/24".parse().unwrap()),
            ..all()
        },
    ];
    let mut counts = Vec::new();
    for filter in filters {
        let (mut shown, mut paths, mut at) = (BTreeSet::new(), 0, Some(0));
        let mut every = Vec::new();
        while let Some(from) = at {
            let (views, next) = table.view(&filter, from, 500, Time::ZERO);
            every.extend(views.iter().cloned());
            paths += views.iter().map(|view| view.paths.len() as u64).sum::<u64>();
            shown.extend(views.into_iter().map(|view| view.prefix));
            at = next;
        }
        assert_eq!(prefixes(&table, &filter), (shown, paths), "{filter:?}");
        // The runs of a sorted list are its views; most prefixes have the paths of the one before.
        every.sort_by_key(|view| view.prefix);
        let (singly, runs) = runs(&table, &filter, every.iter().map(|view| view.prefix));
        assert!(singly == every, "{filter:?}");
        assert!(every.len() < 9_000 || runs < 100, "{runs} runs: {filter:?}");
        counts.push(paths);
    }
    let [_, usable, unusable, refused, of_4, ..] = counts[..] else { panic!("{counts:?}") };
    assert_eq!((usable, unusable, refused, of_4), (10_002, 2, 2, 2), "{counts:?}");
    assert_eq!((counts[6], counts[8], counts[9], counts[11]), (2, 0, 0, 0), "{counts:?}");
}

/// The views of prefixes as the table makes them together, and how many runs these are.
fn runs(
    table: &Table,
    filter: &RouteFilter,
    prefixes: impl Iterator<Item = Prefix>,
) -> (Vec<DestinationView>, usize) {
    let all: Vec<Prefix> = prefixes.collect();
    let (mut views, mut count, mut left) = (Vec::new(), 0, &all[..]);
    while !left.is_empty() {
        let (runs, done) = table.runs(filter, left, Time::ZERO);
        assert!((1..=5_000).contains(&done), "bounded, and never stuck: {done}");
        count += runs.len();
        for run in runs {
            let view = |prefix| DestinationView { prefix, paths: run.paths.clone() };
            views.extend(run.prefixes.iter().copied().map(view));
        }
        left = &left[done..];
    }
    (views, count)
}
