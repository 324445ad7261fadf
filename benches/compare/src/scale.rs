//! `scale`: trees of reflectors at many sizes, the formulas that fit what was measured, and what they
//! say of clusters that do not fit on this machine. Prints the tables of `benches/SCALE.md`.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use crate::fit;
use crate::options::Options;
use crate::report::{Reflector, Row};

/// One measured cluster.
#[derive(Debug, Clone, Copy)]
struct Cluster {
    nodes: usize,
    /// Nodes that announce.
    feeders: usize,
    blocks: usize,
    groups: usize,
    layers: u8,
}

/// What one reflector costs depends on these.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Its sessions.
    members: f64,
    /// Nodes whose blocks it has: as many sets of attributes.
    origins: f64,
    /// Prefixes in its table.
    prefixes: f64,
    /// Update groups.
    groups: f64,
}

/// What a term of a formula is called, and its value.
type Term = (&'static str, fn(Size) -> f64);

/// A quantity with the terms of its formula.
struct Quantity {
    name: &'static str,
    unit: &'static str,
    terms: &'static [Term],
    of: fn(&Reflector) -> f64,
}

const ONE: Term = ("1", |_| 1.0);
const MEMBER: Term = ("session", |s| s.members);
const ORIGIN: Term = ("origin", |s| s.origins);
const PREFIX: Term = ("prefix", |s| s.prefixes);
const ORIGIN_MEMBER: Term = ("origin × session", |s| s.origins * s.members);
const PREFIX_GROUP: Term = ("prefix × group", |s| s.prefixes * s.groups);

const QUANTITIES: &[Quantity] = &[
    Quantity {
        name: "sessions established, all threads",
        unit: "ms",
        terms: &[MEMBER, ("session²", |s| s.members * s.members)],
        of: |r| r.open_ms,
    },
    Quantity {
        name: "load, the table's thread",
        unit: "ms",
        terms: &[
            MEMBER,
            ORIGIN,
            PREFIX,
            ORIGIN_MEMBER,
            ("origin × group", |s| s.origins * s.groups),
            PREFIX_GROUP,
        ],
        of: |r| r.table_ms,
    },
    Quantity {
        name: "load, all other threads",
        unit: "ms",
        terms: &[
            MEMBER,
            ORIGIN,
            PREFIX,
            ORIGIN_MEMBER,
            ("prefix × session", |s| s.prefixes * s.members),
        ],
        of: |r| r.sockets_ms,
    },
    Quantity {
        name: "one change, all threads",
        unit: "µs",
        terms: &[ONE, MEMBER, ("group", |s| s.groups)],
        of: |r| r.change_us,
    },
    Quantity {
        name: "memory beyond that of a daemon without sessions",
        unit: "kB",
        terms: &[ONE, MEMBER, ORIGIN, PREFIX, ORIGIN_MEMBER, PREFIX_GROUP],
        of: |r| r.peer_kb,
    },
];

/// Trees of so many nodes are not fitted: they show what the formulas are worth.
const FORETOLD: usize = 4_000;
/// Milliseconds, microseconds or kB below which nothing was measured: a reflector without clients
/// establishes no session.
const MEASURABLE: f64 = 1.0;
/// Clients of one reflector where there is more than one layer, in what is extrapolated.
const CLIENTS_EACH: usize = 1_000;
/// Reflectors below one of the middle layer.
const BELOW_EACH: usize = 10;
/// Blocks of a node in what is extrapolated.
const BLOCKS: usize = 3;

fn clusters(quick: bool) -> Vec<Cluster> {
    let of =
        |nodes, feeders, blocks, groups, layers| Cluster { nodes, feeders, blocks, groups, layers };
    if quick {
        let sizes = [
            (20, 20, 1, 1),
            (40, 40, 3, 1),
            (40, 10, 3, 2),
            (60, 60, 6, 1),
            (80, 20, 1, 4),
            (80, 80, 3, 2),
        ];
        let mut all: Vec<Cluster> = sizes.map(|(n, f, b, g)| of(n, f, b, g, 1)).into();
        all.push(of(40, 40, 3, 1, 2));
        return all;
    }
    let sizes = [
        (250, 250, 3, 1),
        (500, 500, 3, 1),
        (1_000, 1_000, 3, 1),
        (2_000, 2_000, 3, 1),
        (4_000, 4_000, 3, 1),
        (4_000, 500, 3, 1),
        (2_000, 250, 30, 1),
        (1_000, 1_000, 1, 1),
        (1_000, 1_000, 10, 1),
        (1_000, 1_000, 40, 1),
        (1_000, 1_000, 3, 8),
        (1_000, 1_000, 3, 32),
        (2_000, 2_000, 3, 16),
        (1_000, 1_000, 10, 32),
        (500, 500, 3, 64),
    ];
    let mut all: Vec<Cluster> = sizes.map(|(n, f, b, g)| of(n, f, b, g, 1)).into();
    all.extend([1_000, 2_000, 4_000].map(|n| of(n, n, 3, 1, 2)));
    all.extend([1_000, 2_000, 4_000].map(|n| of(n, n, 3, 1, 3)));
    all
}

/// Measures all clusters with `measure`, which runs this program with the given arguments, and prints
/// the tables. Returns all rows.
///
/// # Errors
/// A run ends without a result, or nodes did not receive exactly what was announced.
pub(crate) fn run(
    options: &Options,
    mut measure: impl FnMut(&[String], usize) -> anyhow::Result<Row>,
) -> anyhow::Result<Vec<Row>> {
    if let Some(path) = &options.given {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        let rows: Vec<Row> = serde_json::from_slice(&text).context("decode the results")?;
        print(&rows)?;
        return Ok(rows);
    }
    let mut rows = Vec::new();
    let clusters = clusters(options.quick);
    for number in 0..options.runs.max(1) {
        for (at, cluster) in clusters.iter().enumerate() {
            let arguments = arguments(options, cluster);
            eprintln!("run {} of {}: {} ...", number + 1, options.runs, arguments.join(" "));
            let row = measure(&arguments, number * clusters.len() + at)?;
            let exact =
                row.notes.iter().any(|note| *note == format!("receivers: {} exact", cluster.nodes));
            ensure!(exact && !row.reflectors.is_empty(), "{cluster:?}: {}", row.notes.join("; "));
            rows.push(row);
        }
    }
    print(&rows)?;
    Ok(rows)
}

fn arguments(options: &Options, cluster: &Cluster) -> Vec<String> {
    let Cluster { nodes, feeders, blocks, groups, layers } = cluster;
    let mut all: Vec<String> = format!(
        "tree --clients {nodes} --feeders {feeders} --blocks {blocks} --groups {groups} --layers {layers} \
         --limit {} --seed {}",
        options.limit, options.seed
    )
    .split(' ')
    .map(str::to_owned)
    .collect();
    if let Some(path) = &options.margay {
        all.extend(["--margay".to_owned(), path.display().to_string()]);
    }
    all
}

fn size_of(reflector: &Reflector) -> Size {
    Size {
        members: reflector.members as f64,
        origins: reflector.origins as f64,
        prefixes: reflector.prefixes as f64,
        groups: reflector.groups as f64,
    }
}

/// Runs of equal reflectors.
type Measured<'a> = Vec<Vec<&'a Reflector>>;

/// Equal ones in groups, in the order of their first run. Those of a layer are equal but for a node
/// more or less, and are runs of one.
fn measured(rows: &[Row]) -> Measured<'_> {
    let mut places: BTreeMap<(usize, usize, usize, usize, u8, &str), usize> = BTreeMap::new();
    let mut all: Measured<'_> = Vec::new();
    for r in rows.iter().flat_map(|row| &row.reflectors) {
        let key = (r.nodes, r.origins, r.prefixes, r.groups, r.layers, r.role.as_str());
        let place = *places.entry(key).or_insert_with(|| {
            all.push(Vec::new());
            all.len() - 1
        });
        all[place].push(r);
    }
    all
}

/// Median, least and most.
fn middle(runs: &[&Reflector], of: fn(&Reflector) -> f64) -> (f64, f64, f64) {
    let mut values: Vec<f64> = runs.iter().map(|r| of(r)).collect();
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or_default();
    (at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    let all = measured(rows);
    let (fitted, predicted): (Measured<'_>, Measured<'_>) =
        all.into_iter().partition(|runs| runs[0].layers == 1 || runs[0].nodes < FORETOLD);
    ensure!(fitted.len() > 5, "too few sizes for the formulas");
    let mut formulas = Vec::new();
    for quantity in QUANTITIES {
        let samples = fitted.iter().filter_map(|runs| {
            let size = size_of(runs[0]);
            let terms = quantity.terms.iter().map(|(_, term)| term(size)).collect();
            let (value, ..) = middle(runs, quantity.of);
            (value >= MEASURABLE).then_some((terms, value))
        });
        formulas.push(fit::coefficients(&samples.collect::<Vec<_>>()));
    }
    println!("\n### The formulas\n");
    println!("| quantity | formula | residuals: median, largest |\n|---|---|---|");
    for (quantity, formula) in QUANTITIES.iter().zip(&formulas) {
        let mut off: Vec<f64> = fitted
            .iter()
            .filter_map(|runs| Some(residual(quantity, formula, runs)?.abs()))
            .collect();
        off.sort_by(f64::total_cmp);
        println!(
            "| {} | {} | {:.0} %, {:.0} % |",
            quantity.name,
            written(quantity, formula),
            off[off.len() / 2] * 100.0,
            off[off.len() - 1] * 100.0
        );
    }
    print_measured("### Measured and fitted", &fitted, &formulas);
    print_measured(
        "### Measured and not fitted: what the formulas are worth",
        &predicted,
        &formulas,
    );
    print_messages(rows)?;
    print_margins(&formulas);
    print_extrapolated(&formulas, middle(&fitted[0], |r| r.start_kb).0);
    Ok(())
}

fn written(quantity: &Quantity, formula: &[f64]) -> String {
    let parts: Vec<String> = quantity
        .terms
        .iter()
        .zip(formula)
        .filter(|(_, factor)| **factor > 0.0)
        .map(|((name, _), factor)| match *name {
            "1" => figure(*factor),
            name => format!("{} × {name}", figure(*factor)),
        })
        .collect();
    format!("{} {}", parts.join(" + "), quantity.unit)
}

fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        v if v >= 0.01 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    }
}

fn foretold(quantity: &Quantity, formula: &[f64], size: Size) -> f64 {
    let terms: Vec<f64> = quantity.terms.iter().map(|(_, term)| term(size)).collect();
    fit::value(formula, &terms)
}

/// By how much the median of what was measured is above the formula, of the formula. `None` if nothing
/// was measured.
fn residual(quantity: &Quantity, formula: &[f64], runs: &[&Reflector]) -> Option<f64> {
    let (value, ..) = middle(runs, quantity.of);
    let expected = foretold(quantity, formula, size_of(runs[0]));
    (value >= MEASURABLE).then(|| value / expected - 1.0)
}

fn print_measured(title: &str, all: &Measured<'_>, formulas: &[Vec<f64>]) {
    println!(
        "\n{title}\n\nMedian (least to most) of the runs, and how far the median is from the formula.\n"
    );
    println!(
        "| nodes, layers | reflector | sessions | origins | prefixes | groups | runs | open ms | table ms | others ms | change µs | kB |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for runs in all {
        let r = runs[0];
        let cells: Vec<String> = QUANTITIES
            .iter()
            .zip(formulas)
            .map(|(quantity, formula)| {
                let (value, least, most) = middle(runs, quantity.of);
                let off = residual(quantity, formula, runs)
                    .map_or_else(|| "–".to_owned(), |off| format!("{:+.0} %", off * 100.0));
                format!("{value:.0} ({least:.0}-{most:.0}), {off}")
            })
            .collect();
        println!(
            "| {}, {} | {} | {} | {} | {} | {} | {} | {} |",
            r.nodes,
            r.layers,
            r.role,
            r.members,
            r.origins,
            r.prefixes,
            r.groups,
            runs.len(),
            cells.join(" | ")
        );
    }
}

/// UPDATEs that nodes received, which are counted and not fitted.
fn print_messages(rows: &[Row]) -> anyhow::Result<()> {
    let value = |row: &Row, name: &str| row.metrics.iter().find(|m| m.name == name)?.value;
    let (mut loads, mut changes): (Vec<f64>, Vec<f64>) = Default::default();
    for row in rows {
        let reflector = row.reflectors.first().context("a run without reflectors")?;
        let (nodes, origins) = (reflector.nodes as f64, reflector.origins as f64);
        // Each node that announces is not sent its own.
        let expected = nodes * origins - origins;
        loads.push(value(row, "UPDATEs received").unwrap_or_default() / expected);
        changes.push(value(row, "of each change").unwrap_or_default() / (nodes - 1.0));
    }
    let range = |of: &[f64]| {
        let least = of.iter().copied().fold(f64::INFINITY, f64::min);
        let most = of.iter().copied().fold(0.0, f64::max);
        format!("{least:.3} to {most:.3}")
    };
    println!("\n### Messages\n");
    println!("UPDATEs that a node receives for each other node that announces: {}.", range(&loads));
    println!("For a single change, for each node but its own: {}.", range(&changes));
    Ok(())
}

/// A cluster with one reflector.
fn single(nodes: f64, prefixes: f64, groups: f64) -> Size {
    Size { members: nodes, origins: nodes, prefixes, groups }
}

fn print_margins(formulas: &[Vec<f64>]) {
    println!(
        "\n### One more, with one reflector\n\nBy the formulas, {BLOCKS} blocks a node, one update group.\n"
    );
    println!(
        "| nodes | one more | table µs | others µs | a change, µs | kB |\n|---|---|--:|--:|--:|--:|"
    );
    for nodes in [1_000.0, 10_000.0, 50_000.0] {
        let prefixes = nodes * BLOCKS as f64;
        let now = single(nodes, prefixes, 1.0);
        let more = [
            ("node", single(nodes + 1.0, prefixes + BLOCKS as f64, 1.0)),
            ("peer that announces nothing", Size { members: nodes + 1.0, ..now }),
            ("prefix of a known node", Size { prefixes: prefixes + 1.0, ..now }),
            ("update group", Size { groups: 2.0, ..now }),
        ];
        for (what, then) in more {
            let difference = |at: usize| {
                let (quantity, formula) = (&QUANTITIES[at], &formulas[at]);
                foretold(quantity, formula, then) - foretold(quantity, formula, now)
            };
            println!(
                "| {nodes} | {what} | {} | {} | {} | {} |",
                figure(difference(1) * 1e3),
                figure(difference(2) * 1e3),
                figure(difference(3)),
                figure(difference(4))
            );
        }
    }
}

/// Reflectors of each layer, the lowest first: their number, sessions of each and name.
fn layout(nodes: usize, layers: u8) -> Vec<(&'static str, usize, usize)> {
    if layers == 1 {
        return vec![("only", 1, nodes)];
    }
    let bottoms = nodes.div_ceil(CLIENTS_EACH).max(2);
    let middles = bottoms.div_ceil(BELOW_EACH).max(2);
    let bottom = ("bottom", bottoms, nodes.div_ceil(bottoms) + 1);
    match layers {
        2 => vec![bottom, ("top", 1, bottoms)],
        _ => vec![bottom, ("middle", middles, bottoms.div_ceil(middles) + 1), ("top", 1, middles)],
    }
}

fn print_extrapolated(formulas: &[Vec<f64>], start_kb: f64) {
    println!("\n### Extrapolated\n");
    println!(
        "{BLOCKS} blocks a node, one update group; with layers, {CLIENTS_EACH} nodes to a reflector and \
         {BELOW_EACH} reflectors to one of the middle layer. Seconds are processor time of the whole load."
    );
    println!(
        "\n| nodes | layers | reflectors | one of | sessions | open s | table s | others s | a change, ms | MB | UPDATEs sent for a change, all |"
    );
    println!("|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    for nodes in [1_000, 2_000, 5_000, 10_000, 20_000, 50_000] {
        for layers in 1..=3 {
            let layout = layout(nodes, layers);
            let reflectors: usize = layout.iter().map(|(_, count, _)| count).sum();
            for (role, _, members) in &layout {
                let prefixes = (nodes * BLOCKS) as f64;
                let size =
                    Size { members: *members as f64, origins: nodes as f64, prefixes, groups: 1.0 };
                let of = |at: usize| foretold(&QUANTITIES[at], &formulas[at], size);
                println!(
                    "| {nodes} | {layers} | {reflectors} | {role} | {members} | {:.2} | {:.3} | {:.2} | {:.2} | {:.0} | {} |",
                    of(0) / 1e3,
                    of(1) / 1e3,
                    of(2) / 1e3,
                    of(3) / 1e3,
                    (start_kb + of(4)) / 1024.0,
                    // The node's own, one to each other reflector, one to each other node.
                    1 + reflectors - 1 + nodes - 1
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_nodes_have_a_reflector_in_every_layout() {
        for nodes in [40, 1_000, 2_500, 50_000] {
            for layers in 1..=3 {
                let layout = layout(nodes, layers);
                let (_, bottoms, sessions) = layout[0];
                let above = usize::from(layers > 1);
                assert!(bottoms * (sessions - above) >= nodes, "{nodes} nodes, {layers} layers");
                assert_eq!(layout.len(), usize::from(layers));
                assert_eq!(layout.last().unwrap().1, 1);
            }
        }
    }
}
