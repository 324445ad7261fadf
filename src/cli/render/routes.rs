//! Routes as rows of a table.

use std::io::{self, Write};

use bgp_proto::types::Community;

use super::look::Look;
use super::table::{Align, Cell, Paint, Table};
use super::{Left, Right, read, text};
use crate::cli::client::ClientError;
use crate::ctl::item::{AsPathPart, Gateway, Path, Route};

pub(super) const COLUMNS: [(&str, Align); 12] = [
    ("", Left),
    ("PREFIX", Left),
    ("NEXT HOP", Left),
    ("VIA", Left),
    ("PEER", Left),
    ("PREF", Right),
    ("MED", Right),
    ("AGE", Right),
    ("ORIGIN", Left),
    ("AS PATH", Left),
    ("COMMUNITIES", Left),
    ("UNUSABLE", Left),
];

/// The column of the prefix.
const PREFIX: usize = 1;

/// Routes that are being listed. The text of an item is longer than its row, and neighbouring prefixes
/// often have the same paths: their rows are made once.
pub(super) struct Routes {
    pub(super) table: Table,
    /// The paths of the last route as they are in its item, and their rows.
    last: Option<(String, LastRows)>,
}

/// The rows of the last route.
#[derive(Default)]
enum LastRows {
    /// One: the table has it.
    #[default]
    One,
    /// These, without the prefix.
    Many(Vec<Vec<Cell>>),
}

impl Routes {
    pub(super) fn new(table: Table) -> Self {
        Routes { table, last: None }
    }

    /// Adds the rows of a route.
    ///
    /// # Errors
    /// The item is no route, or rows cannot be written.
    pub(super) fn add(
        &mut self,
        item: &str,
        look: &Look,
        out: &mut impl Write,
    ) -> Result<(), ClientError> {
        let parts = prefix_and_paths(item);
        if let (Some((prefix, paths)), Some((last, rows))) = (parts, &self.last)
            && paths == last
        {
            return match rows {
                LastRows::One => self.table.row_like_last(PREFIX, prefix, out),
                LastRows::Many(rows) => self.write(with_prefix(prefix, rows.clone()), out),
            }
            .map_err(ClientError::Output);
        }
        let route: Route = read(item)?;
        let rows: Vec<Vec<Cell>> = route.paths.iter().map(|path| path_row(path, look)).collect();
        if let Some((_, paths)) = parts {
            let (text, kept) = self.last.get_or_insert_default();
            text.clear();
            text.push_str(paths);
            *kept = if rows.len() == 1 { LastRows::One } else { LastRows::Many(rows.clone()) };
        }
        self.write(with_prefix(&route.prefix.to_string(), rows), out).map_err(ClientError::Output)
    }

    fn write(&mut self, rows: Vec<Vec<Cell>>, out: &mut impl Write) -> io::Result<()> {
        rows.into_iter().try_for_each(|row| self.table.row(row, out))
    }
}

/// The prefix of a route and the rest of its item, if the item has the form in which the daemon writes it.
fn prefix_and_paths(item: &str) -> Option<(&str, &str)> {
    item.strip_prefix("{\"prefix\":\"")?.split_once('"')
}

/// The first row has the prefix.
fn with_prefix(prefix: &str, mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
    if let Some(cell) = rows.first_mut().and_then(|row| row.get_mut(PREFIX)) {
        *cell = Cell::from(prefix.to_owned());
    }
    rows
}

/// `*` best, `=` also used (multipath), `s` stale, `S` long-lived stale, `!` unusable.
pub(in crate::cli) fn flags(p: &Path) -> String {
    let marks = [
        (p.best, '*'),
        (p.multipath && !p.best, '='),
        (p.stale && !p.long_lived, 's'),
        (p.long_lived, 'S'),
        (p.unusable.is_some(), '!'),
    ];
    marks.into_iter().filter_map(|(on, mark)| on.then_some(mark)).collect()
}

fn path_row(p: &Path, look: &Look) -> Vec<Cell> {
    let paint = match (p.best, &p.unusable) {
        (true, _) => Paint::Good,
        (false, Some(_)) => Paint::Bad,
        (false, None) => Paint::Plain,
    };
    vec![
        Cell::painted(flags(p), paint),
        Cell::default(),
        text(&p.next_hop).into(),
        gateways(&p.gateway).into(),
        peer_and_place(p).into(),
        text(&p.local_pref).into(),
        text(&p.med).into(),
        look.since(p.age_seconds).into(),
        p.origin.clone().into(),
        as_path(&p.as_path).into(),
        communities(p).into(),
        p.unusable.clone().unwrap_or_default().into(),
    ]
}

/// All communities, well-known ones by name.
pub(in crate::cli) fn communities(p: &Path) -> String {
    let named = |text: &String| {
        let name = text.parse::<Community>().ok().and_then(Community::name);
        name.map_or_else(|| text.clone(), str::to_owned)
    };
    let others = p.large_communities.iter().chain(&p.extended_communities).cloned();
    p.communities.iter().map(named).chain(others).collect::<Vec<_>>().join(" ")
}

/// The peer, and the vantage to which the path leads where it has one.
fn peer_and_place(p: &Path) -> String {
    let peer = p.peer.clone().unwrap_or_else(|| source(p));
    p.vantage.as_ref().map_or_else(|| peer.clone(), |at| format!("{peer} (at {at})"))
}

fn source(p: &Path) -> String {
    format!("({})", format!("{:?}", p.source).to_lowercase())
}

pub(super) fn gateways(list: &[Gateway]) -> String {
    let gateway = |g: &Gateway| {
        let onlink = if g.onlink { " onlink" } else { "" };
        match g.via {
            Some(via) => format!("{via} {}{onlink}", g.interface),
            None => format!("{}{onlink}", g.interface),
        }
    };
    let list: Vec<String> = list.iter().map(gateway).collect();
    if list.is_empty() { "-".to_owned() } else { list.join(", ") }
}

pub(in crate::cli) fn as_path(parts: &[AsPathPart]) -> String {
    let numbers = |list: &[u32]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let part = |part: &AsPathPart| match part {
        AsPathPart::Asn(asn) => asn.to_string(),
        AsPathPart::Set(set) => format!("{{{}}}", numbers(set)),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::{Colour, Times};

    /// Rows that are taken from the last route are those that are made from the item.
    #[test]
    fn routes_with_the_same_paths_have_the_same_rows() {
        let path = |peer: &str, med: u32| {
            format!(
                r#"{{"best":true,"multipath":false,"stale":false,"source":"bgp","peer":"{peer}",
                "path_id":0,"next_hop":"192.0.2.1","gateway":[],"origin":"igp","as_path":[7,[8]],
                "local_pref":100,"med":{med},"communities":["65535:65281"],"large_communities":[],
                "extended_communities":[],"originator_id":null,"cluster_list":[],
                "age_seconds":61,"unusable":null,"igp_metric":5,"import_rule":null,"reason":"med"}}"#
            )
        };
        let item = |prefix: &str, paths: &[String]| {
            format!("{{\"prefix\":\"{prefix}\",\"paths\":[{}]}}", paths.join(","))
        };
        let (one, two) = (path("a", 1), path("a", 2));
        let items = [
            item("10.0.0.0/24", std::slice::from_ref(&one)),
            item("10.0.1.0/24", std::slice::from_ref(&one)),
            item("10.0.2.0/24", &[one.clone(), two.clone()]),
            item("10.0.3.0/24", &[one, two.clone()]),
            item("10.0.4.0/24", std::slice::from_ref(&two)),
            item("10.0.104.0/24", std::slice::from_ref(&two)),
            item("10.0.5.0/24", std::slice::from_ref(&two)),
        ];
        // Without the form that the daemon writes, each item is parsed.
        let spaced: Vec<String> =
            items.iter().map(|item| item.replace("{\"prefix\":", "{ \"prefix\": ")).collect();
        assert!(spaced.iter().all(|item| prefix_and_paths(item).is_none()));
        for (width, colour) in [
            (None, Colour::Off),
            (None, Colour::On),
            (Some(200), Colour::Off),
            (Some(60), Colour::On),
        ] {
            let look = Look::new(width, colour, Times::default());
            let written = |items: &[String], times: usize| {
                let table = Table::new(&COLUMNS, width, look.has_colour());
                let (mut routes, mut out) = (Routes::new(table), Vec::new());
                for item in items.iter().cycle().take(items.len() * times) {
                    routes.add(item, &look, &mut out).unwrap();
                }
                routes.table.flush(&mut out).unwrap();
                String::from_utf8(out).unwrap()
            };
            // More rows than are formatted together.
            assert_eq!(written(&items, 200), written(&spaced, 200), "{width:?}");
            assert_eq!(written(&items, 1).matches("10.0.").count(), items.len());
        }
        let look = Look::new(None, Colour::Off, Times::default());
        let mut routes = Routes::new(Table::new(&COLUMNS, None, false));
        let bad = "{\"prefix\":\"10.0.0.0/24\",\"paths\":0}";
        assert!(routes.add(bad, &look, &mut Vec::new()).is_err());
    }
}
