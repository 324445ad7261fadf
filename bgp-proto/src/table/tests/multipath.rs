//! Which paths share a route in the kernel.

use super::*;
use crate::rib::MultipathAsPath;

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
