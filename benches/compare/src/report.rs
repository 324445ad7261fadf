//! Results and the table that compares them.

use crate::daemon::Kind;

/// One measured quantity.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Metric {
    /// Name of the column, with the unit.
    pub(crate) name: String,
    /// Value in the unit of the name; `None` when the run did not reach it.
    pub(crate) value: Option<f64>,
}

/// What one reflector of a tree cost.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Reflector {
    /// `only`, `top`, `middle` or `bottom`.
    pub(crate) role: String,
    /// Nodes of the cluster.
    pub(crate) nodes: usize,
    /// Layers of reflectors.
    pub(crate) layers: u8,
    /// Its sessions: clients, and the reflector above it.
    pub(crate) members: usize,
    /// Nodes that announce.
    pub(crate) origins: usize,
    /// Prefixes in its table.
    pub(crate) prefixes: usize,
    /// Update groups of its clients.
    pub(crate) groups: usize,
    /// Processor time while its sessions were established, all threads, milliseconds.
    pub(crate) open_ms: f64,
    /// Processor time of the table's thread for the load, milliseconds.
    pub(crate) table_ms: f64,
    /// Processor time of all other threads for the load, milliseconds.
    pub(crate) sockets_ms: f64,
    /// Processor time of all threads for a single change, microseconds.
    pub(crate) change_us: f64,
    /// Growth of resident memory from before the sessions to after the load, kB.
    pub(crate) peer_kb: f64,
    /// Resident memory before the sessions, kB.
    pub(crate) start_kb: f64,
}

/// The result of one run of one daemon.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Row {
    /// The daemon.
    pub(crate) kind: Kind,
    /// Measured values. The ratios refer to the first one; smaller is better unless its name ends
    /// in `/s`.
    pub(crate) metrics: Vec<Metric>,
    /// The result of the verification, and anything unusual.
    pub(crate) notes: Vec<String>,
    /// Of a tree of reflectors, each.
    #[serde(default)]
    pub(crate) reflectors: Vec<Reflector>,
}

impl Row {
    /// An empty result.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, metrics: Vec::new(), notes: Vec::new(), reflectors: Vec::new() }
    }

    /// Adds a value.
    pub(crate) fn push(&mut self, name: &str, value: impl Into<Option<f64>>) {
        self.metrics.push(Metric { name: name.to_owned(), value: value.into() });
    }

    /// Adds a remark.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// The median of several runs of the same daemon, with the range of the first metric as a note. A
/// metric that is missing in any run has no median.
pub(crate) fn median(rows: &[&Row]) -> Option<Row> {
    let first = rows.first()?;
    let mut out = Row::new(first.kind);
    for (index, metric) in first.metrics.iter().enumerate() {
        let mut values: Vec<f64> = rows
            .iter()
            .filter_map(|row| row.metrics.iter().find(|m| m.name == metric.name)?.value)
            .collect();
        values.sort_by(f64::total_cmp);
        let complete = values.len() == rows.len();
        out.push(&metric.name, values.get(values.len() / 2).copied().filter(|_| complete));
        if let (0, true, [low, .., high]) = (index, complete, values.as_slice()) {
            out.note(format!("{} runs: {}..{}", rows.len(), number(*low), number(*high)));
        }
    }
    let notes = rows.iter().flat_map(|row| &row.notes);
    for note in notes {
        if !out.notes.contains(note) {
            out.notes.push(note.clone());
        }
    }
    Some(out)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Prints one line per daemon: every metric, and the first one relative to margay and to the floor.
pub(crate) fn print(rows: &[Row], limit: u64) {
    let mut names: Vec<&str> = Vec::new();
    for metric in rows.iter().flat_map(|row| &row.metrics) {
        if !names.contains(&metric.name.as_str()) {
            names.push(&metric.name);
        }
    }
    let Some(main) = names.first().copied() else {
        for row in rows {
            println!("{}: {}", row.kind.name(), row.notes.join("; "));
        }
        return;
    };
    let value = |row: &Row, name: &str| row.metrics.iter().find(|m| m.name == name)?.value;
    let ratio = |row: &Row, bases: &[Kind]| {
        let base = rows.iter().find(|row| bases.contains(&row.kind))?;
        let base = value(base, main).filter(|base| *base > 0.0)?;
        Some(format!("{:.2}", value(row, main)? / base))
    };
    let mut header =
        vec!["daemon".to_owned(), main.to_owned(), "x margay".to_owned(), "x floor".to_owned()];
    header.extend(names.iter().skip(1).map(|name| (*name).to_owned()));
    let mut lines = vec![header];
    for row in rows {
        let mut line = vec![row.kind.name().to_owned()];
        line.push(value(row, main).map_or_else(|| not_done(row, limit), number));
        for base in [&[Kind::Margay][..], &[Kind::Relay, Kind::Writer]] {
            line.push(ratio(row, base).unwrap_or_else(|| "-".to_owned()));
        }
        line.extend(
            names
                .iter()
                .skip(1)
                .map(|name| value(row, name).map_or_else(|| "-".to_owned(), number)),
        );
        lines.push(line);
    }
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines.first().map_or(0, Vec::len)).map(width).collect();
    for (number, line) in lines.iter().enumerate() {
        let cells =
            line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| match column {
                0 => "-".repeat(width),
                _ => format!("{}:", "-".repeat(width.saturating_sub(1))),
            });
            println!("| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    for row in rows.iter().filter(|row| !row.notes.is_empty()) {
        println!("{}: {}", row.kind.name(), row.notes.join("; "));
    }
}

fn not_done(row: &Row, limit: u64) -> String {
    if row.metrics.is_empty() { "failed".to_owned() } else { format!("not done in {limit} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_needs_every_run() {
        let row = |value: Option<f64>| {
            let mut row = Row::new(Kind::Margay);
            row.push("seconds", value);
            row
        };
        let (a, b, c, lost) = (row(Some(3.0)), row(Some(1.0)), row(Some(2.0)), row(None));
        assert_eq!(median(&[&a, &b, &c]).unwrap().metrics[0].value, Some(2.0));
        assert_eq!(median(&[&a, &lost, &c]).unwrap().metrics[0].value, None);
        assert!(median(&[]).is_none());
    }
}
